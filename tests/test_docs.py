# SPDX-License-Identifier: GPL-2.0-only
"""The docs tell the truth: every command, file, parameter, setting and message that they name exists, and is named."""

import configparser
import fnmatch
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

import harness
from easysif import check, module, plan, recipe, schema, site, site_plan, wrappers
from easysif.cli import command_line
from easysif.images.inspect import Conda
from harness import CLONE
from test_architecture import FILES

PAGES = [CLONE / 'README.md', CLONE / 'CONTRIBUTING.md', *sorted((CLONE / 'docs').glob('*.md'))]
TEXTS = {str(page.relative_to(CLONE)): page.read_text() for page in PAGES}
README, USERS, AUTHORS, SITES, SITE_FILE = (TEXTS[name] for name in (
    'README.md', 'docs/users.md', 'docs/recipe-authors.md', 'docs/sites.md', 'docs/site-reference.md'))
EVERYTHING = '\n'.join(TEXTS.values())

#: what EasyBuild itself sets in every module
EASYBUILDS = {'PATH', 'EBROOTNAME', 'EBVERSIONNAME', 'EBDEVELNAME'}


def blocks(text, language=''):
    """Return the fenced blocks of a language in a page (list of str)."""
    return [body for kind, body in re.findall(r'^```(\w*)\n(.*?)^```$', text, re.M | re.S) if kind == language]


def prose(text):
    """Return a page without its fenced blocks (str)."""
    return re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)


def section(text, heading):
    """Return what stands below a heading, to the next one of its level or above (str)."""
    level = re.search(r'^(#+) %s$' % re.escape(heading), text, re.M).group(1)
    rest = re.split(r'^#+ %s$' % re.escape(heading), text, maxsplit=1, flags=re.M)[1]
    return re.split(r'^#{1,%d} ' % len(level), rest, maxsplit=1, flags=re.M)[0]


def tables(text):
    """Return the tables of a text: rows of cells, without the heads (list of list of list of str)."""
    found = re.findall(r'^\|.*\|\n\|(?:---\|)+\n((?:\|.*\|\n?)+)', text, re.M)
    return [[[cell.strip().replace('\\|', '|') for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
             for line in rows.splitlines()] for rows in found]


def code(text):
    """Return what stands in backticks (list of str)."""
    return re.findall(r'`([^`\n]+)`', text)


def slug(heading):
    """Return the name that a heading has in links (str)."""
    return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def commands(name):
    """Return all uses of a command in the docs, but those that are cut short, as words (list of list of str)."""
    lines = [line for text in TEXTS.values() for block in blocks(text) for line in block.splitlines()]
    lines += code(prose(EVERYTHING))
    found = []
    for line in lines:
        line = re.sub(r'^\$ ', '', line)
        if re.match(re.escape(name) + r'( \S|$)', line) and '…' not in line:
            found.append(shlex.split(line, comments=True))
    return found


def tree_entries():
    """Return the tree of the README: paths below the clone, directories with a slash at their end (list of str)."""
    found, above = [], {}
    for line in blocks(section(README, 'The tree'))[0].splitlines():
        indent = len(line) - len(line.lstrip())
        path = os.path.join(above.get(indent, ''), line.split()[0])
        above[indent + 2] = path
        found.append(path)
    return found


def covers(entry, path, entries):
    """Tell whether an entry of the tree stands for a file: its name, a pattern, or a directory not told in detail."""
    if entry.endswith('/'):
        return path.startswith(entry) and not any(other != entry and other.startswith(entry) for other in entries)
    return fnmatch.fnmatch(path, entry) and path.count('/') == entry.count('/')


def test_the_tree_in_the_readme_names_each_file_and_no_other():
    entries, paths = tree_entries(), [str(path.relative_to(CLONE)) for path in FILES]
    assert [path for path in paths if not any(covers(entry, path, entries) for entry in entries)] == []
    assert [entry for entry in entries if not (CLONE / entry).exists()
            and not any(covers(entry, path, entries) for path in paths)] == []


def test_every_line_of_the_tree_says_what_it_is():
    assert [line for line in blocks(section(README, 'The tree'))[0].splitlines()
            if not re.match(r' *\S+\s+\S', line) and not line.endswith('/')] == []


@pytest.mark.parametrize('page', TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)]+)\)', TEXTS[page]):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        file = (CLONE / page).parent / path if path else CLONE / page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(one) for one in re.findall(r'^#+ (.+)$', file.read_text(), re.M)}, target


def test_paths_of_the_clone_that_the_docs_name_are_there():
    top = {path.name for path in CLONE.iterdir()}
    named = {re.split(r'[\s:]', one)[0] for one in code(prose(EVERYTHING)) if one.split('/')[0] in top and '/' in one}
    assert named and [one for one in named if not re.search('[A-Z]{4}', one) and not (CLONE / one).exists()] == []


def test_the_table_of_parameters_is_that_of_recipes():
    rows = tables(section(AUTHORS, 'The parameters'))[0]
    assert tuple(row[0].strip('`') for row in rows) == tuple(recipe.OURS)


def test_the_manual_says_of_parameters_what_eb_says():
    for name, cell in tables(section(AUTHORS, 'The parameters'))[0]:
        text = recipe.OURS[name.strip('`')]
        assert cell.replace('`', '').startswith(text) and cell.replace('`', '')[len(text):][:2] in ('', '. ')


@pytest.mark.e2e
def test_eb_lists_these_parameters_with_these_words(tmp_path):
    told = harness.run_eb(['-a', '-e', 'ContainerImage'], tmp_path / 'prefix', tmp_path / 'home').stdout
    lines = re.findall(r'^(\w+)\*\s+(.*) \[default: (.*)\]$', told, re.M)
    assert {name: (text, default) for name, text, default in lines} == {
        name: (text, repr(recipe.EMPTY[name])) for name, text in recipe.OURS.items()}


def test_the_table_of_settings_is_that_of_sites_with_its_defaults():
    rows = {row[0].strip('`'): row[1] for row in tables(section(SITE_FILE, 'The settings'))[0]}
    assert list(rows) == list(schema.load('site')['properties'])
    assert set(rows) - {'match'} == set(site.Site.__dataclass_fields__) - {'name', 'path'}
    default = site.read(site.shipped()['default'])
    for name, cell in rows.items():
        words = code(cell)
        value = yaml.safe_load(words[0]) if len(words) == 1 else words or None
        assert value == (list(default[name]) if len(words) > 1 else default.get(name)), name


def test_the_tables_of_commands_and_runscripts_are_complete():
    scripts, own = tables(section(USERS, 'By hand, inside the image'))
    there = (CLONE / 'tools' / 'easysif' / 'helpers' / 'runscripts').iterdir()
    assert {code(row[0])[0].split()[0] for row in scripts} == {path.name for path in there if path.is_file()}
    assert tuple(code(row[0])[0].split()[0] for row in own) == wrappers.COMMANDS + wrappers.OVERLAY_COMMANDS


def test_the_tables_of_variables_are_what_a_module_sets():
    installation = module.Installation(
        module='name/1', prefix='/p', root='/p/software/name/1', variable='NAME', sif_name='name.sif', sif_size=1,
        environment=True, eb_python='/usr/bin/python3', python_env='name', conda=Conda('/c', 'base', '/c'),
        needs=tuple(site_plan.GPU_SWITCHES), provides={'jax': '1'})
    statements = module.module_plan(installation)
    own, generic, inside = ({one for row in rows for one in code(row[0])}
                            for rows in tables(section(USERS, 'What the module sets')))
    assert own == EASYBUILDS | {one.name for one in statements if isinstance(one, plan.Set)}
    assert generic == {one.name for one in statements if isinstance(one, plan.Push)} | bookkeeping() | {
        'SINGULARITY_BINDPATH', 'APPTAINER_BINDPATH'}
    assert inside == {one.name for one in statements if isinstance(one, plan.Inside)}


def bookkeeping():
    """Return the variables in which a module keeps what it did (set of str)."""
    text = (CLONE / 'tools' / 'easysif' / 'helpers' / 'module.lua').read_text()
    return set(re.findall(r'"(EASYSIF_\w+)"', text))


def test_no_variable_of_a_loaded_module_is_a_setting():
    """Otherwise eb and easysif would read it as one, and fail while a module is loaded."""
    settings = {'EASYSIF_%s' % name.upper() for name in schema.load('site')['properties']}
    assert bookkeeping() and not bookkeeping() & settings


def test_variables_that_the_docs_name_are_read_somewhere():
    settings = {'EASYSIF_%s' % name.upper() for name in schema.load('site')['properties']}
    sources = '\n'.join(path.read_text() for path in FILES if path.relative_to(CLONE).parts[0] in ('tools', 'tests'))
    named = set(re.findall(r'\bEASYSIF_[A-Z_]*[A-Z]\b', EVERYTHING))
    assert [one for one in named - settings if one not in sources] == []


def test_every_use_of_easysif_is_understood_and_every_sub_command_is_used():
    used = {command_line._parser().parse_args(words[1:]).run.__module__ for words in commands('easysif') if words[1:]}
    assert used == {group.__name__ for group in command_line.GROUPS} | {'easysif.cli.overlay_packages'}  # below overlay


def test_every_use_of_eb_has_options_that_it_knows_and_recipes_that_are_there():
    told = subprocess.run([sys.executable, '-m', 'easybuild.main', '--help'], capture_output=True, text=True).stdout
    known = set(re.findall(r'(?<!\S)--?[a-zA-Z][\w-]*', told))
    ours = {path.name for path in FILES if path.suffix == '.eb'} | set(documented_recipes())
    assert len(commands('eb')) > 5
    for words in commands('eb'):
        assert {word.split('=')[0] for word in words[1:] if word.startswith('-')} <= known, words
        assert {word for word in words[1:] if word.endswith('.eb') and not word.isupper()
                and not re.match('[A-Z-]+.eb$', word)} <= ours, words


@pytest.mark.parametrize('tool', ['quickstart', 'run-tests'])
def test_every_use_of_our_tools_has_options_that_they_know(tool):
    head = (CLONE / 'tools' / tool).read_text().split('\nset -')[0]
    uses = commands('tools/%s' % tool)
    assert uses
    for words in uses:
        assert all(word in head for word in words[1:] if word.startswith('-')), words


def documented_recipes():
    """Return the recipes in the docs: file name -> text (dict)."""
    found = {}
    for text in (text for page in TEXTS.values() for text in blocks(page, 'python') if 'easyblock' in text):
        values = dict({'versionsuffix': ''}, **dict(
            re.findall(r"^(name|version|versionsuffix) = '(.*?)'(?:  #.*)?$", text, re.M)))
        found['%(name)s-%(version)s%(versionsuffix)s.eb' % values] = text
    return found


@pytest.mark.parametrize('name', documented_recipes())
def test_recipes_in_the_docs_are_fine(name, tmp_path):
    software = re.search("^name = '(.*?)'", documented_recipes()[name], re.M).group(1)
    folder = tmp_path / 'easyconfigs' / software[0].lower() / software
    folder.mkdir(parents=True)
    for block in blocks(AUTHORS):
        if block.startswith('$ cat '):
            first, _, definition = block.partition('\n')
            (folder / first.split()[-1]).write_text(definition)
    (folder / name).write_text(documented_recipes()[name])
    assert [str(finding.error) for finding in check.check([str(folder / name)])] == []


def test_the_example_in_the_docs_is_the_recipe_itself():
    path = CLONE / 'easyconfigs' / 'j' / 'jax' / 'jax-24.10-singularity.eb'
    lines = [line for line in path.read_text().splitlines() if not line.startswith('digest')]
    assert documented_recipes()[path.name].splitlines() == lines


@pytest.mark.parametrize('text', blocks(SITES, 'yaml') + blocks(SITE_FILE, 'yaml'))
def test_site_files_in_the_docs_are_fine(text, tmp_path):
    (tmp_path / 'site.yaml').write_text(text)
    assert site.read(str(tmp_path / 'site.yaml'))


def test_messages_in_the_docs_are_ours():
    sources = [path.read_text() for path in FILES
               if path.relative_to(CLONE).parts[0] in ('tools', 'easyblocks') and path.name != 'LICENSE']
    sources = re.sub(r"""['"]\s*\n\s*['"]""", '', '\n'.join(sources))
    rows = [row for rows in tables(TEXTS['docs/troubleshooting.md']) for row in rows]
    ours = [code(row[0])[0] for row in rows if '(from ' not in row[0] and "EasyBuild's own" not in row[1]]
    assert ours
    assert [part for one in ours for part in re.split("'?…'?", one) if part.strip(" ',") not in sources] == []


def test_every_dependency_has_its_reason():
    config = configparser.RawConfigParser()
    config.read(CLONE / 'setup.cfg')
    needed = {re.split('[<>=]', line)[0] for line in config['options']['install_requires'].split()}
    extras = {re.split('[<>=]', line)[0] for line in config['options.extras_require']['catalogue'].split()}
    library, catalogue, tests = tables(section(TEXTS['CONTRIBUTING.md'], 'Dependencies'))
    assert ({row[0] for row in library}, {row[0] for row in catalogue}) == (needed, extras)
    text = (CLONE / 'tools' / 'run-tests').read_text()
    listed = ' '.join(re.search(r'^%s=\(([^)]*)\)$' % name, text, re.M).group(1)
                      for name in ('packages', 'requirements'))
    assert {one for row in tests for one in row[0].split(', ')} == set(listed.split()) - extras
