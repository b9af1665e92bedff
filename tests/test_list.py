# SPDX-License-Identifier: GPL-2.0-only
"""easysif list: what is installed, in a table or as JSON, whatever state it is in."""

import json
import os
import shutil
import sys
from datetime import datetime

import pytest

import toys
from easysif import installed, inventory, text
from easysif.errors import EasySIFError
from easysif.site import resolve
from easysif.site_files import apply
from made_up import MadeUp, run_easysif


@pytest.fixture
def listed(easysif, prefix):
    """List the prefix as JSON and return what is told of each module (dict of dict)."""
    def run():
        code, out, err = easysif('list', '--prefix', str(prefix), '--json')
        assert (code, err) == (0, '')
        return {one['module']: one for one in json.loads(out)}
    return run


def set_date(module, date='2025-03-01T12:30:00'):
    when = datetime.fromisoformat(date).timestamp()
    os.utime(module.root / 'easysif.json', (when, when))


def test_modules_are_listed_in_a_table(easysif, prefix, monkeypatch):
    monkeypatch.setattr(inventory, 'size_on_disk', lambda root: 86 << 20)
    toy, tool = MadeUp(prefix), MadeUp(prefix, 'Überé容/2.0-singularity', python_env=None)
    toy.add_package()
    for module in (toy, tool):
        set_date(module)
    assert easysif('list', '--prefix', str(prefix)) == (0, """\
MODULE                   IMAGE                       DIGEST        SIZE      OVERLAY    RECIPE                      \
INSTALLED
toy/1                    docker://example.org/toy:1  dddddddddddd  86.0 MiB  directory  toy-1.eb                    \
2025-03-01
Überé容/2.0-singularity  docker://example.org/toy:1  dddddddddddd  86.0 MiB  -          Überé容-2.0-singularity.eb  \
2025-03-01
""", '')


def test_all_is_told_as_json(listed, prefix):
    toy = MadeUp(prefix)
    set_date(toy)
    record = toy.record()
    set_date(toy)
    when = listed()['toy/1']['installed']
    assert datetime.fromisoformat(when) == datetime(2025, 3, 1, 12, 30).astimezone()
    assert listed() == {'toy/1': {
        'module': 'toy/1', 'installation': str(toy.root), 'image': 'docker://example.org/toy:1',
        'digest': 'sha256:' + 'd' * 64, 'sha256': record['image']['sha256'], 'file': str(toy.sif),
        'size': inventory.size_on_disk(str(toy.root)), 'overlay': 'none', 'overlay_path': str(toy.overlay),
        'recipe': 'toy-1.eb', 'installed': when, 'problem': None}}


def test_where_nothing_is_installed_that_is_said(easysif, prefix, monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    said = 'no modules of EasySIF are installed in %s\n' % prefix
    assert easysif('list') == easysif('verify') == (0, said, '')
    assert easysif('list', '--json') == (0, '[]\n', '')
    (prefix / 'software' / 'GCC' / '13').mkdir(parents=True)
    (prefix / 'software' / 'file').touch()
    assert easysif('list', '--prefix', str(prefix)) == (0, said, '')


def test_a_prefix_that_is_named_must_be_there(easysif):
    assert easysif('list', '--prefix', '/no/such') == (
        1, '', 'error: /no/such: there is no such directory\nhint: easysif list --prefix DIR\n')


def test_hints_are_for_the_prefix_that_was_named(easysif, tmp_path):
    toy = MadeUp(tmp_path / 'another one')
    toy.sif.unlink()
    assert easysif('verify', '--prefix', str(toy.prefix))[2].endswith(
        "hint: easysif image restore toy/1 --prefix '%s'\n" % toy.prefix)


def test_what_is_half_made_or_on_its_way_out_is_not_listed(listed, prefix):
    toy = MadeUp(prefix)
    for name in ('.1.new', '.1.old'):
        shutil.copytree(toy.root, toy.root.parent / name, symlinks=True)
    shutil.copytree(prefix / 'software' / 'toy', prefix / 'software' / '.locks', symlinks=True)
    assert list(listed()) == ['toy/1']


def gone(toy):
    shutil.rmtree(toy.root)


def emptied(toy):
    gone(toy)
    toy.root.mkdir()


@pytest.mark.parametrize('damage, problem', [
    (lambda toy: (toy.root / 'easysif.json').unlink(), 'easysif.json: cannot be read (No such file or directory)'),
    (lambda toy: (toy.root / 'easysif.json').write_text(''),
     'easysif.json: is damaged (Expecting value: line 1 column 1 (char 0))'),
    (lambda toy: toy.record(schema=9), 'easysif.json: was written by a newer EasySIF'),
    (lambda toy: toy.sif.unlink(), 'the image is gone'),
    (lambda toy: toy.sif.chmod(0o644) or toy.sif.write_text('short'), 'the image has 5 bytes, not 761'),
    (gone, 'the installation is gone, only its module file is left'),
    (emptied, 'easysif.json: cannot be read (No such file or directory)'),
    (lambda toy: toy.root.chmod(0), 'the installation cannot be read (Permission denied)'),
])
def test_a_damaged_module_is_listed_with_the_reason(easysif, listed, prefix, damage, problem):
    toy = MadeUp(prefix)
    MadeUp(prefix, 'other/1')
    damage(toy)
    try:
        found = listed()
        assert found['toy/1']['problem'] == problem and found['other/1']['problem'] is None
        lines = easysif('list', '--prefix', str(prefix))[1].splitlines()
        assert lines[2].split(maxsplit=1)[0] == 'toy/1' and ' damaged: %s ' % problem in lines[2]
    finally:
        if toy.root.exists():
            toy.root.chmod(0o755)


def test_other_software_without_installation_is_not_ours(prefix):
    module = prefix / 'modules' / 'all' / 'GCC' / '13.lua'
    module.parent.mkdir(parents=True)
    module.write_text('setenv("X", "y")')
    (module.parent / '12.lua').mkdir()
    assert installed.modules(str(prefix)) == {}


@pytest.mark.parametrize('make, state', [
    (lambda toy: None, 'none'),
    (lambda toy: (toy.overlay / 'user-software').mkdir(parents=True), 'none'),
    (lambda toy: toy.add_package(), 'directory'),
    (lambda toy: toy.pack(), 'packed'),
    (lambda toy: toy.add_package() or toy.pack(), 'both'),
    (lambda toy: toy.pack(used=300), 'damaged'),
    (lambda toy: toy.add_package() or toy.pack(size=3), 'damaged'),
])
def test_the_state_of_the_overlay_is_told(listed, prefix, make, state):
    toy = MadeUp(prefix)
    make(toy)
    before = toys.snapshot(prefix)
    assert (listed()['toy/1']['overlay'], listed()['toy/1']['overlay_path']) == (state, str(toy.overlay))
    assert toys.snapshot(prefix) == before


def test_an_overlay_that_cannot_be_looked_into_counts_as_one(prefix, listed):
    toy = MadeUp(prefix)
    toy.add_package()
    (toy.overlay / 'user-software').chmod(0)
    assert listed()['toy/1']['overlay'] == 'directory'
    (toy.overlay / 'user-software').chmod(0o755)


def test_an_overlay_is_known_also_where_the_image_is_gone(listed, prefix):
    toy = MadeUp(prefix)
    toy.add_package()
    toy.sif.unlink()
    assert listed()['toy/1']['overlay'] == 'directory'


def test_a_module_of_others_tells_of_ones_own_overlay_and_nothing_is_made(listed, prefix, tmp_path, monkeypatch):
    toy = MadeUp(prefix)
    (prefix / 'easysif' / 'prefix.json').unlink()
    monkeypatch.setenv('EASYSIF_OVERLAYS', str(tmp_path / 'my "own"'))
    monkeypatch.setenv('CONTAINERROOT', '/of/another')
    monkeypatch.setenv('EASYSIF_SET', 'CONTAINERROOT=/of/one')
    assert listed()['toy/1']['overlay_path'] == str(tmp_path / 'my "own"/toy/1')
    assert listed()['toy/1']['overlay'] == 'none'
    assert not (tmp_path / 'my "own"').exists()
    toy.overlay = tmp_path / 'my "own"' / 'toy' / '1'
    toy.add_package()
    assert listed()['toy/1']['overlay'] == 'directory'


@pytest.mark.parametrize('script, state, path', [
    ("[ $1 = print-environment ] && printf 'USER_SOFTWARE=%s/u\\nCONTAINERROOT=%s\\n' \"$PWD\" \"$PWD\"", 'none', True),
    ("[ $1 = print-environment ] && echo USER_SOFTWARE= && echo CONTAINERROOT=/x", None, False),
    ('exit 5', 'unknown', False)])
def test_wrappers_made_before_are_asked_in_their_own_words(listed, prefix, tmp_path, script, state, path):
    toy = MadeUp(prefix)
    toy.form_1()
    (toy.root / 'easysif' / 'wrapper').write_text('#!/bin/sh\n%s\n' % script)
    assert listed()['toy/1']['overlay'] == state
    assert listed()['toy/1']['overlay_path'] == (str(tmp_path) if path else None)


def test_an_environment_is_told_or_why_not(prefix):
    toy = MadeUp(prefix)
    assert installed.environment(str(toy.root))['SIFTOY'] == str(toy.sif)
    toy.sif.unlink()
    with pytest.raises(EasySIFError) as caught:
        installed.environment(str(toy.root))
    assert str(caught.value).startswith('sh: the wrappers of the module do not work\n  command    /bin/sh %s/easysif/'
                                        'wrapper print-environment\n  exit code  1\n' % toy.root)


def test_an_image_in_the_store_of_the_site_is_an_image(listed, prefix, tmp_path):
    toy = MadeUp(prefix)
    store = tmp_path / 'store'
    store.mkdir()
    toy.sif.rename(store / 'toy.sif')
    assert listed()['toy/1']['problem'] == 'the image is gone'
    apply(str(prefix), resolve({'EASYSIF_IMAGE_STORE': str(store)}).site)
    assert (listed()['toy/1']['problem'], listed()['toy/1']['file']) == (None, str(store / 'toy.sif'))


def test_the_size_is_that_on_disk_without_the_overlay(prefix):
    toy = MadeUp(prefix)
    toy.add_package()
    before = inventory.size_on_disk(str(toy.root))
    (toy.root / 'big').write_bytes(os.urandom(1 << 20))
    os.sync()
    one = inventory.size_on_disk(str(toy.root))
    assert 1 << 20 <= one - before <= (1 << 20) + 65536
    os.link(toy.root / 'big', toy.root / 'again')
    (toy.root / 'link').symlink_to('big')
    assert inventory.size_on_disk(str(toy.root)) - one < 65536


@pytest.mark.parametrize('columns', [200, 120, 100, 80, 60, 40, 20])
def test_a_table_fits_the_terminal(easysif, prefix, monkeypatch, columns):
    MadeUp(prefix)
    MadeUp(prefix, 'Überé容容/2.0-cpu-singularity', python_env=None)
    MadeUp(prefix, 'rotten/1').sif.unlink()
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True)
    monkeypatch.setenv('COLUMNS', str(columns))
    lines = easysif('list', '--prefix', str(prefix))[1].splitlines()
    assert len(lines) == 4 and max(map(text.width, lines)) <= columns
    assert lines[0].split()[:2] == ['MODULE', 'IMAGE'] or columns < 40
    if columns >= 80:
        assert 'Überé容容/2.0-cpu-singularity' in lines[3] and 'damaged: the image is gone' in lines[1]
    assert ('RECIPE' in lines[0], 'DIGEST' in lines[0]) == (columns >= 150, columns >= 120)


@pytest.mark.parametrize('size, said', [(0, '0 bytes'), (1023, '1023 bytes'), (1024, '1.0 KiB'), (90447872, '86.3 MiB'),
                                        (5 << 30, '5.0 GiB'), (3 << 40, '3.0 TiB'), (5000 << 40, '5000.0 TiB')])
def test_sizes_are_told_as_people_read_them(size, said):
    assert text.human(size) == said


@pytest.mark.parametrize('limit, short', [(6, 'abcdef'), (5, 'ab…ef'), (4, 'ab…f'), (2, 'a…'), (1, '…')])
def test_a_text_is_shortened_in_its_middle(limit, short):
    assert text.shorten('abcdef', limit) == short
    wide = text.shorten('容器容器容器', limit)
    assert text.width(wide) <= limit and '…' in wide


def test_what_would_steer_a_terminal_is_shown_instead(easysif, prefix):
    toy = MadeUp(prefix)
    toy.record(recipe='\x1b[2Jtoy\n.eb')
    out = easysif('list', '--prefix', str(prefix))[1]
    assert '\x1b' not in out and r'\x1b[2Jtoy\n.eb' in out and len(out.splitlines()) == 2


def test_a_value_of_a_megabyte_is_shortened_at_once(easysif, prefix, monkeypatch):
    MadeUp(prefix).record(recipe='x' * 1000000)
    assert len(easysif('list', '--prefix', str(prefix))[1]) < 2000
    assert len(easysif('show', 'toy', '--prefix', str(prefix))[1]) < 5000
    assert text.shorten('容' * 1000000, 10) == '容容…容容'
    assert len(json.loads(easysif('list', '--prefix', str(prefix), '--json')[1])[0]['recipe']) == 1000000


def test_names_that_the_locale_cannot_write_do_not_stop_it(prefix):
    MadeUp(prefix, 'Überé/1', python_env=None)
    result = run_easysif('list', '--prefix', str(prefix), PYTHONIOENCODING='ascii')
    assert (result.status, result.stderr) == (0, '') and r'\xdcber\xe9/1' in result.stdout


def test_a_module_that_is_rebuilt_at_this_moment_stops_nothing(listed, prefix, monkeypatch):
    MadeUp(prefix)

    def goes(name, root, record):
        raise FileNotFoundError(2, 'No such file or directory', root)
    monkeypatch.setattr(inventory, 'find_image', goes)
    assert listed()['toy/1']['problem'] == 'cannot be looked at (No such file or directory)'


@pytest.mark.e2e
def test_what_eb_installed_is_listed_shown_and_verified(eb, easysif, prefix, tmp_path, toy, monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    eb(toys.recipe(tmp_path, 'fine', commands=['fine'], sanity_check_commands=['fine x']),
       toys.recipe(tmp_path, 'work', '2.0'), '--sourcepath=%s' % toy.parent)
    code, out, err = easysif('verify')
    assert (code, err) == (0, '') and [line.split(', ')[0] for line in out.splitlines()] == [
        'fine/1.0: all well', 'work/2.0: all well']
    listing = json.loads(easysif('list', '--json')[1])
    assert [(one['module'], one['overlay'], one['recipe'], one['problem']) for one in listing] == [
        ('fine/1.0', None, 'fine-1.0.eb', None), ('work/2.0', None, 'work-2.0.eb', None)]
    shown = json.loads(easysif('show', 'fine', '--json')[1])
    assert shown['modulefile'] == str(prefix / 'modules' / 'all' / 'fine' / '1.0.lua')
    root, record = toys.installation(prefix, 'fine/1.0')
    assert shown['easysif.json'] == record
    root = prefix / 'software' / 'work' / '2.0'
    (root / 'toy.sif').chmod(0o644)
    with open(root / 'toy.sif', 'r+b') as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b'x')
    (root / 'bin' / 'start-shell').unlink()
    code, out, err = easysif('verify')
    assert code == 1 and 'work/2.0: 2 problems, ' in out and '\n1 of 2 modules have problems: work/2.0\n' in out
    assert 'error: work/2.0: bin/start-shell is missing\n' in err and 'error: work/2.0: the image was changed\n' in err
    assert err.count('hint: easysif image restore work/2.0\n') == 1
