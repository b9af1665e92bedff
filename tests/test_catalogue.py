# SPDX-License-Identifier: GPL-2.0-only
"""easysif catalogue: what is on the pages, where it is written, and what it refuses to write over."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib import metadata

import pytest

from catalogue_scene import DEFINITION, FENCE, HOSTILE, RECIPES, write_recipes
from easysif import check, files, recipe, site
from easysif.catalogue import entries, pages, website
from harness import CLONE

pytestmark = pytest.mark.long


class Article(HTMLParser):
    """What stands on a page: ``text``, ``terms`` (term -> its definitions), ``rows`` of tables, ``blocks`` of code."""

    def __init__(self, path):
        super().__init__()
        self.text, self.terms, self.rows, self.blocks, self._inside = '', {}, [], [], None
        html = path.read_text(encoding='utf-8')
        self.feed(html[html.index('<article'):html.index('</article>')])

    def handle_starttag(self, tag, attrs):
        if tag == 'dd':
            list(self.terms.values())[-1].append('')
        elif tag == 'tr':
            self.rows.append([])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')
        elif tag == 'pre':
            self.blocks.append('')
        self._inside = tag if tag in ('dt', 'dd', 'td', 'th', 'pre') else self._inside

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        self.text += data
        if self._inside == 'dt' and data.strip():
            self.terms.setdefault(data.strip(), [])
        elif self._inside == 'dd':
            list(self.terms.values())[-1][-1] += data
        elif self._inside in ('td', 'th'):
            self.rows[-1][-1] += data.strip('\n')
        elif self._inside == 'pre':
            self.blocks[-1] += data

    def term(self, name):
        """Return the definitions of a term, each on one line (list of str)."""
        return [' '.join(text.split()) for text in self.terms[name]]


@pytest.fixture
def page(catalogue):
    """A function that returns a page of the catalogue by its path without suffix (Article)."""
    return lambda path: Article(catalogue.output / (path + '.html'))


@pytest.fixture
def small(tmp_path, easysif):
    """A function that makes a catalogue of one recipe in ``out``: it returns exit code, output and errors."""
    write_recipes(tmp_path / 'recipes')
    return lambda *args: easysif('catalogue', str(tmp_path / 'recipes' / 'web-1.eb'), '--output', 'out', *args)


@pytest.fixture
def copy(catalogue, tmp_path):
    """A copy of the catalogue in ``out`` (Path)."""
    return shutil.copytree(catalogue.output, tmp_path / 'out')


def tree(directory):
    """Return all files below a directory: path -> bytes (dict)."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob('*') if path.is_file()}


def test_each_recipe_has_a_page_and_each_software_a_page_of_its_versions(catalogue, page):
    paths = [path for path in check.find([str(CLONE / 'easyconfigs'), str(catalogue.recipes)])]
    for one in map(recipe.load, paths):
        name = '%s-%s' % (one.name, one.full_version)
        assert page('software/%s/%s' % (one.name, name)).term('Recipe') == ['%s, below' % one.where]
        assert one.full_version in page('software/%s/index' % one.name).terms
    assert list(page('software/toy/index').terms) == ['1', '0.9']
    assert page('index').term('toy') == ['Does what toys do – 2 versions']


def test_a_page_says_what_it_is_and_what_it_needs_and_where_the_image_comes_from(catalogue, page):
    toy, tool = page('software/toy/toy-1'), page('software/toy/toy-0.9')
    assert toy.text.split()[:2] == ['toy', '1¶']
    assert 'Does what toys do' in toy.text and 'https://example.org/toy' in toy.text
    assert {name: toy.term(name) for name in toy.terms if name != 'Recipe'} == {
        'Module': ['toy/1, an environment module: one works in it, and one of them is loaded at a time'],
        'Commands': ['toy-run, python'], 'Packages': ['inside_package 2.25'],
        'Packages that the recipe adds': ['added-package==1.5'],
        'Needs': ['nvidia-gpu: default, jureca, lumi, perlmutter, uva',
                  'interconnect, if there is one: lumi, perlmutter', 'magic: none of these sites'],
        'Image': ['docker://example.org/toy:1 An image of the registry example.org, made into a SIF file at install.'],
        'Digest': ['not pinned Where this catalogue was made it was sha256:%s.' % ('d' * 64)],
        'Size': ['%d bytes, for amd64' % (catalogue.prefix / 'software/toy/1/toy.sif').stat().st_size]}
    assert tool.term('Module') == ['toy/0.9, a tool module: any number of them is loaded at once']
    assert tool.term('Image') == ['oras://example.org/toy:0.9 A SIF file of the registry example.org.']
    assert tool.term('Digest') == ['sha256:%s, which every install is held against' % ('5' * 64)]
    assert tool.term('Size') == ['not known: it is not installed where this catalogue was made']
    assert page('software/web/web-1').term('Image') == [
        'https://images.example.org/web.sif A SIF file of the web server images.example.org.']
    assert page('software/web/web-1').term('Digest') == ['by the checksums of the recipe']
    assert page('software/pinned/pinned-1').term('Digest') == ['sha256:%s, as the reference says' % ('7' * 64)]
    built = page('software/built/built-1')
    assert built.term('Image') == ['built.def Built at install from the definition file below.']
    assert built.term('Digest') == ['none: the image is built, and differs from build to build']
    assert built.blocks[-1].strip('\n') == DEFINITION.strip('\n')
    assert page('software/binds/binds-1').term('Module') == [
        'binds/1, for images of your own: it sets binds and environment']
    assert 'Image' not in page('software/binds/binds-1').terms


def test_a_page_says_how_to_install_load_extend_and_run_in_a_job(page):
    assert page('software/toy/toy-1').blocks[:4] == [
        'eb toy-1.eb\n', 'module load toy/1\npython my-script.py\n', 'pip install my-package\n'
        'make-squashfs && module reload\n', '#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --time=01:00:00 --gpus=1\n'
        'module load toy/1\nsrun python my-script.py\n']
    tool = page('software/toy/toy-0.9')
    assert tool.blocks[1:3] == ['module load toy/0.9\ntoy-tool …\n', '#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 '
                                '--time=01:00:00\nmodule load toy/0.9\nsrun toy-tool …\n']
    assert 'This module has no overlay' in tool.text
    assert page('software/built/built-1').blocks[1:3] == [
        'module load built/1\nstart-shell\n', '#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 --time=01:00:00\n'
        'module load built/1\nsrun start-shell my-script.sh\n']
    assert page('software/binds/binds-1').blocks[1:3] == [
        'module load binds/1\nsingularity exec my-image.sif my-command\n', '#!/bin/bash\n#SBATCH --nodes=1 --ntasks=1 '
        '--time=01:00:00 --gpus=1\nmodule load binds/1\nsrun singularity exec my-image.sif my-command\n']


def test_sites_are_told_by_recipe_and_in_one_table(page):
    assert page('software/toy/toy-1').rows[1:3] == [
        [name, 'no: lacks magic; does without interconnect'] for name in ('default', 'jureca')]
    rows = {row[0]: row[1:] for row in page('sites').rows}
    assert rows['module'] == ['default', 'jureca', 'lumi', 'perlmutter', 'uva']
    assert rows['toy/0.9'] == ['partly', 'partly', 'yes', 'yes', 'partly'] and rows['toy/1'] == ['no'] * 5
    assert rows['ccpe/25.09-noRocm-6.4-SP6-LUMI'] == ['no', 'no', 'yes', 'no', 'no']
    assert page('sites').term('default') == ['amd-gpu, ca-certificates, nvidia-gpu, x11']


def test_needs_that_conflict_are_named(tmp_path, prefix):
    write_recipes(tmp_path / 'recipes')
    (tmp_path / 'mine.yaml').write_text('provides: {nvidia-gpu: {conflicts: [magic]}, magic: {}}\n')
    mine = site.profile(str(tmp_path / 'mine.yaml')).site
    told = entries.gather(['recipes/toy-1.eb'], {'mine': mine}, str(prefix))
    text = pages.pages(told, {'mine': mine})['software/toy/toy-1.md']
    assert '| mine | no: does without interconnect; magic and nvidia-gpu conflict |' in unescape(
        re.sub('</?code>', '', text))


def test_commands_and_packages_lead_to_the_software_that_has_them(page):
    found = page('find')
    assert found.term('toy-tool') == found.term('added-package') == found.term('inside_package') == ['toy']
    assert found.term('samtools') == ['SAMtools'] and 'PyTorch' in found.term('torchrun')[0]


def test_texts_of_recipes_are_shown_letter_by_letter_and_mean_nothing(catalogue, page):
    path = 'software/a_b.c+d/a_b.c+d-1_0+x'
    shown = page(path)
    assert HOSTILE in shown.text and RECIPES['a_b.c+d-1_0+x'][3] in shown.text
    assert shown.term('Commands') == ['a`b|<i>c, __d__']
    assert shown.term('Image')[0].startswith('a<b>&c.sif ')
    assert shown.blocks[1] == "module load a_b.c+d/1_0+x\n'a`b|<i>c' …\n"
    assert shown.blocks[-1].strip('\n') == (catalogue.recipes / 'a_b.c+d-1_0+x.eb').read_text().strip('\n')
    assert FENCE in shown.blocks[-1]
    assert HOSTILE in page('index').text and HOSTILE in page('software/a_b.c+d/index').text
    for name in (path, 'index', 'find', 'sites', 'software/a_b.c+d/index', 'software/built/built-1'):
        html = (catalogue.output / (name + '.html')).read_text()
        assert '<script>window.hacked' not in html and '<img' not in html and '<i>c' not in html


def test_the_manual_is_part_of_the_site(catalogue):
    pages = {path.stem for path in (CLONE / 'docs').glob('*.md')}
    assert pages and {path.stem for path in (catalogue.output / 'manual').glob('*.html')} == pages
    index = (catalogue.output / 'index.html').read_text()
    assert [name for name in pages if 'href="manual/%s.html"' % name not in index] == []


def test_the_size_of_a_page_does_not_grow_with_the_number_of_recipes(catalogue):
    text = (catalogue.output / 'software' / 'toy' / 'toy-1.html').read_text()
    assert set(re.findall(r'href="\.\./(\w[^/"]*)/', text)) == set()  # no other software


def test_the_search_index_has_commands_and_packages_and_not_what_is_on_every_page(catalogue):
    index = json.loads((catalogue.output / 'search' / 'search_index.json').read_text())['docs']
    texts = [one['text'] for one in index if one['location'].startswith('software/toy/toy-1.html')]
    assert any('toy-run' in text and 'inside_package' in text for text in texts)
    assert not any('make-squashfs' in text or 'SBATCH' in text for text in texts)


def test_nothing_in_it_is_fetched_from_elsewhere(catalogue):
    for path in catalogue.output.rglob('*.html'):
        fetched = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="([^"]*)"', path.read_text())
        assert fetched and not [url for url in fetched if '//' in url or url.startswith('/')], path
    for path in catalogue.output.rglob('*.css'):
        assert not [url for url in re.findall(r'url\(([^)]*)\)|@import', path.read_text())
                    if not url.startswith(('data:', '"data:'))], path


def test_the_same_recipes_give_the_same_bytes(small, tmp_path, monkeypatch):
    assert small() == (0, 'catalogue of 1 module: %s\n' % os.path.join('out', 'index.html'), '')
    for word in ('TZ=Asia/Tokyo', 'LANG=de_DE.UTF-8', 'PYTHONHASHSEED=7', 'SOURCE_DATE_EPOCH=9'):
        monkeypatch.setenv(*word.split('='))
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    shutil.copytree(tmp_path / 'recipes', 'recipes')
    assert subprocess.run([sys.executable, '-m', 'easysif.cli', 'catalogue', 'recipes/web-1.eb', '--output', 'out'],
                          env=dict(os.environ, PYTHONPATH=str(CLONE / 'tools'))).returncode == 0
    made = tree(tmp_path / 'out')
    assert len(made) > 50 and made == tree(tmp_path / 'elsewhere' / 'out')
    assert not re.search(rb'20\d\d-\d\d-\d\d', made['software/web/web-1.html'])


@pytest.fixture
def quick(monkeypatch):
    """The site is one page, made without mkdocs; returns what is there in the end (dict)."""
    def build(_, made):
        os.mkdir(made)
        files.write(os.path.join(made, 'index.html'), 'new')
    monkeypatch.setattr(website, '_build', build)
    return ['.easysif-catalogue.json', 'index.html']


def test_it_says_as_json_what_it_made(small, quick):
    code, out, err = small('--json', '--site', 'lumi', '--site', 'uva')
    assert (code, err) == (0, '') and json.loads(out) == {
        'output': os.path.abspath('out'), 'index': os.path.abspath('out/index.html'), 'sites': ['lumi', 'uva'],
        'modules': ['web/1']}


@pytest.mark.parametrize('exchanges', [True, False])  # as on NFS
def test_an_earlier_catalogue_is_replaced_and_what_was_killed_leaves_nothing(copy, small, quick, tmp_path, monkeypatch,
                                                                             exchanges):
    if not exchanges:
        monkeypatch.setattr(files, 'exchange', lambda *_: False)
    os.mkdir(tmp_path / '.out.new-999999')
    assert small()[0] == 0
    assert sorted(tree(copy)) == quick
    assert sorted(os.listdir(tmp_path)) == ['home', 'out', 'recipes']


def test_an_empty_directory_becomes_the_catalogue(tmp_path, small, quick):
    (tmp_path / 'out').mkdir()
    assert small()[0] == 0
    assert sorted(tree(tmp_path / 'out')) == quick


def test_a_link_to_a_catalogue_stays_a_link(copy, tmp_path, small, quick):
    copy.rename(tmp_path / 'real')
    (tmp_path / 'out').symlink_to('real')
    assert small()[0] == 0
    assert (tmp_path / 'out').is_symlink() and sorted(tree(tmp_path / 'real')) == quick


def test_what_comes_into_a_catalogue_while_the_next_is_made_is_not_lost(copy, small, tmp_path, quick, monkeypatch):
    build = website._build

    def slow(pages, made):
        build(pages, made)
        (copy / 'robots.txt').write_text('mine')
    monkeypatch.setattr(website, '_build', slow)
    before = tree(copy)
    assert small() == refusal(
        copy, 'holds what is not of the catalogue, which would be lost', 'added  robots.txt')
    assert tree(copy) == {**before, 'robots.txt': b'mine'}
    assert sorted(os.listdir(tmp_path)) == ['home', 'out', 'recipes']


def refusal(out, what, *facts):
    told = ''.join('  %s\n' % fact for fact in facts)
    return (1, '', 'error: %s: %s\n%shint: mv %s %s.kept\n' % (out, what, told, out, out))


def test_what_is_no_catalogue_is_not_written_over(tmp_path, easysif):
    out = tmp_path / 'out'
    out.mkdir()
    for name in 'abcdef':
        (out / name).write_text('precious')
    assert easysif('catalogue', '--output', 'out') == refusal(
        out, 'holds something else than a catalogue, which would be lost', 'holds  a, b, c, d, e, …')
    (tmp_path / 'file').write_text('precious')
    assert easysif('catalogue', '--output', 'file') == refusal(tmp_path / 'file', 'is a file')
    assert easysif('catalogue', '--output', 'no/out') == (1, '', (
        'error: %s: there is no directory to make it in\nhint: mkdir -p %s\n' % (tmp_path / 'no/out', tmp_path / 'no')))
    assert sorted(tree(tmp_path)) == ['file', *('out/%s' % name for name in 'abcdef')]


def test_what_was_added_to_a_catalogue_or_changed_in_it_is_not_written_over(copy, easysif):
    (copy / 'robots.txt').write_text('mine')
    (copy / 'index.html').write_text('mine')
    before = tree(copy)
    assert easysif('catalogue', '--output', 'out') == refusal(
        copy, 'holds what is not of the catalogue, which would be lost', 'added    robots.txt', 'changed  index.html')
    assert tree(copy) == before


def test_recipes_that_cannot_be_read_are_told_all_at_once_and_nothing_is_written(tmp_path, easysif):
    write_recipes(tmp_path / 'recipes')
    (tmp_path / 'recipes' / 'bad-1.eb').write_text('name = f()\n')
    (tmp_path / 'recipes' / 'other.eb').write_text((tmp_path / 'recipes' / 'web-1.eb').read_text())
    code, out, err = easysif('catalogue', 'recipes', '--output', 'out')
    assert (code, out) == (1, '')
    assert 'error: bad-1.eb:1: name must be written out, not computed by a call' in err
    assert ("error: web-1.eb: is another recipe of the module 'web/1'\n  first   recipes/other.eb\n"
            '  second  recipes/web-1.eb\nhint: name the recipes that belong into the catalogue: easysif catalogue '
            'RECIPE… --output DIR\n') in err
    assert sorted(os.listdir(tmp_path)) == ['home', 'recipes']


def test_a_site_that_is_not_there_is_told(small, tmp_path):
    code, out, err = small('--site', 'lumy')
    assert (code, out) == (1, '')
    assert err.startswith("error: --site: there is no site 'lumy'\n") and "hint: did you mean 'lumi'?" in err
    assert not (tmp_path / 'out').exists()


def test_a_failure_of_mkdocs_is_told_and_leaves_what_stood_there(copy, small, tmp_path, monkeypatch):
    manual = shutil.copytree(website.manual(), tmp_path / 'manual')
    with open(manual / 'measurements.md', 'a') as handle:
        handle.write('\n[nowhere](nowhere.md)\n')
    monkeypatch.setattr(website, 'manual', lambda: str(manual))
    before = tree(copy)
    code, out, err = small()
    assert (code, out) == (3, '')
    assert err.startswith('error: easysif catalogue: mkdocs could not make the site\n  mkdocs  WARNING')
    assert 'nowhere.md' in err and err.endswith('-m pip install --upgrade mkdocs-material\n')
    assert tree(copy) == before
    assert sorted(os.listdir(tmp_path)) == ['home', 'manual', 'out', 'recipes']


def test_without_mkdocs_it_says_what_to_type(easysif, monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)
    monkeypatch.setattr(metadata, 'version', missing)
    assert easysif('catalogue', '--output', 'out') == (3, '', (
        'error: easysif catalogue: needs the Python package mkdocs-material\n  python  %s\n'
        'hint: %s -m pip install mkdocs-material\n' % (sys.executable, sys.executable)))
    assert not (tmp_path / 'out').exists()


def test_a_directory_that_may_not_be_written_is_told(small, tmp_path):
    (tmp_path / 'parent').mkdir(mode=0o555)
    code, _, err = small('--output', 'parent/out')
    assert code == 1 and err.startswith('error: easysif catalogue: the lock cannot be made (Permission denied)\n')


def test_a_full_disk_is_told_and_leaves_what_stood_there(copy, small, quick, tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, 'No space left on device', path)
    monkeypatch.setattr(files, 'sync', full)
    before, made = tree(copy), '%s/.out.new-%d' % (tmp_path, os.getpid())
    assert small() == (3, '', 'error: easysif catalogue: %s (No space left on device)\nhint: df -h; ls -ld %s\n' % (
        made, made))
    assert tree(copy) == before and sorted(os.listdir(tmp_path)) == ['home', 'out', 'recipes']


def test_all_other_commands_do_without_the_packages_of_the_catalogue():
    script = ('import sys\nfor name in ("jinja2", "markupsafe", "mkdocs"):\n    sys.modules[name] = None\n'
              'from easysif import cli\nsys.exit(cli.main(["check"]))')
    subprocess.run([sys.executable, '-c', script], check=True, env=dict(os.environ, PYTHONPATH=str(CLONE / 'tools')))


def test_a_module_that_is_damaged_only_has_no_size(tmp_path, prefix):
    from made_up import MadeUp
    write_recipes(tmp_path / 'recipes')
    (MadeUp(prefix).root / 'easysif.json').write_text('{')
    entry, = entries.gather([str(tmp_path / 'recipes' / 'toy-1.eb')], {}, str(prefix))
    assert entry.record is None
