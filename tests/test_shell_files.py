# SPDX-License-Identifier: GPL-2.0-only
"""Every shell, Lua and Python file that we ship for users' places: clean, and understood by the shells they have."""

import ast
import os
import re
import shutil

import pytest

import harness
from easysif import wrappers
from easysif.images.inspect import Conda
from easysif.render import shell_quote
from test_wrappers import make

HELPERS = harness.CLONE / 'tools' / 'easysif' / 'helpers'
#: how a file says which shell it is for: by its first line, or where it is to be sourced, by what it tells shellcheck
SHELL = re.compile(r'\A#!(?:/usr/bin/env |/bin/)(bash|sh)\n|\A(?:# SPDX[^\n]*\n)?# shellcheck shell=(bash|sh)\b')


def shell_files():
    """Return the shell files of the clone and for which shell each is: path -> 'sh' or 'bash' (dict)."""
    found = {}
    for top in ('tools', 'tests', '.ci'):
        for path in sorted((harness.CLONE / top).rglob('*')):
            if path.is_file() and not path.is_symlink() and '__pycache__' not in path.parts:
                match = SHELL.match(path.read_bytes().decode('utf-8', 'replace'))
                if match:
                    found[str(path.relative_to(harness.CLONE))] = match.group(1) or match.group(2)
    return found


FILES = shell_files()
PARSERS = {'sh': (['dash', '-n'], ['bash', '--posix', '-n'], ['busybox', 'sh', '-n']), 'bash': (['bash', '-n'],)}


def test_the_files_are_found():
    assert {'tools/run-tests', 'tools/env.sh', 'tools/easysif/helpers/wrapper',
            'tools/easysif/helpers/runscripts/init-conda'} <= set(FILES)


@pytest.mark.parametrize('path', FILES)
def test_shellcheck_has_nothing_to_say(path):
    harness.run(['shellcheck', '-x', harness.CLONE / path])


@pytest.mark.parametrize('path', FILES)
def test_every_shell_understands_it(path):
    for parser in PARSERS[FILES[path]]:
        assert harness.run([*parser, harness.CLONE / path]).output == ''


@pytest.mark.parametrize('path', [path for path in FILES if not path.endswith('.image')])
def test_it_says_how_to_use_it(path):
    assert re.search('^# Usage: ', (harness.CLONE / path).read_text(), re.MULTILINE)


@pytest.mark.parametrize('path', [path for path in FILES if path.startswith('tools/easysif/helpers/')])
def test_it_may_be_run_if_and_only_if_it_says_by_what(path):
    file = harness.CLONE / path
    assert os.access(file, os.X_OK) == file.read_text().startswith('#!')


@pytest.mark.parametrize('path', [path for path in FILES if '/runscripts/' in path or path.endswith('/wrapper')])
def test_what_runs_at_users_places_is_for_every_posix_shell(path):
    assert FILES[path] == 'sh'
    # defect 7 of the peers: words that fell apart
    assert not re.search(r'\[ -[a-z] \$|\bexec \$', code_of(harness.CLONE / path))


def test_the_wrapper_has_no_names_that_a_user_may_have():
    """A shell exports again whatever it imported, changed or not."""
    text = code_of(HELPERS / 'wrapper')
    names = set(re.findall(r'(?:^|[\s;({])([A-Za-z_]\w*)=(?!\*)', text))
    names |= set(re.findall(r'^ *for (\w+)', text, re.MULTILINE))
    functions = set(re.findall(r'^(\w+)\(\) \{', text, re.MULTILINE))
    allowed = {'IFS', 'APPTAINER_BINDPATH', 'SINGULARITY_BINDPATH', 'TMPDIR'}  # what is inside has them, too
    assert 'es_self' in names and 'es_run' in functions
    assert not [name for name in names | functions if not name.startswith('es_') and name not in allowed]


def code_of(path):
    """Return a shell file without comments and without texts in single quotes on one line (str)."""
    return re.sub(r"'[^'\n]*'", "''", re.sub(r'^ *#.*$', '', path.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize('name', ['conda-python-simple', 'init-conda', 'init-conda-venv', 'init-venv'])
def test_the_runscripts_of_the_contract_are_there(name):
    assert (HELPERS / 'runscripts' / name).is_file()


def test_lua_is_understood():
    harness.run(['luac5.3', '-p', HELPERS / 'module.lua'])


@pytest.mark.parametrize('path', sorted(HELPERS.rglob('*.py')), ids=lambda path: path.name)
def test_python_for_inside_has_the_syntax_of_old_pythons(path):
    ast.parse(path.read_text(), feature_version=(3, 4))


@pytest.mark.parametrize('conda', ['/opt/a b', "/opt/it's", '/opt/$(id)', '/opt/ünï', '-rf'])
@pytest.mark.parametrize('shell', [['dash'], ['bash'], ['busybox', 'sh']], ids=lambda words: words[-1])
def test_activation_evaluates_no_path(tmp_path, shell, conda):
    """The files that are to be sourced, in shells with and without -eu, where conda has no shell code of its own."""
    scripts = tmp_path / 'runscripts'
    shutil.copytree(HELPERS / 'runscripts', scripts)
    for path in (*scripts.glob('init-*'), scripts / 'lib' / 'venvs'):
        text = path.read_text().replace('/runscripts/', '%s/' % scripts)
        path.write_text(text.replace('/user-software /shared-software /layer', '"$0"/u "$0"/s "$0"/l'))
    for place in 'ul':
        (scripts / place / 'venv' / 'x' / 'lib' / 'python3.12').mkdir(parents=True)
        (scripts / place / 'venv' / 'x' / 'bin').mkdir()
    (scripts / 's' / 'venv' / 'x' / 'lib' / 'python3.11').mkdir(parents=True)
    values = {'conda_prefix': conda, 'conda_root': '/nowhere', 'venv': 'x', 'python': '3.12'}
    (scripts / 'lib' / 'settings').write_text(''.join('easysif_%s=%s\n' % (name, shell_quote(value))
                                                      for name, value in values.items()))
    code = ('. "$0/init-conda-venv"; . "$0/init-conda-venv"; printf "%s|" "$PATH" "$CONDA_PREFIX" "$VIRTUAL_ENV"; '
            'set | grep -c "^easysif_" || :')
    for options in ([], ['-eu']):
        out = harness.run([*shell, *options, '-c', code, scripts], env={'PATH': '/usr/bin:/bin', 'LANG': 'C.UTF-8'})
        path, prefix, venv, left = out.stdout.split('|')
        assert out.stderr == '' and prefix == conda and venv == '%s/u/venv/x' % scripts and left.strip() == '0'
        assert path.startswith('{0}/u/venv/x/bin:{0}/l/venv/x/bin:{1}/bin:'.format(scripts, conda))


def test_settings_are_quoted(tmp_path):
    fake = make(tmp_path, 'p', conda=Conda("/opt/it's $(id)", 'x', '/opt/"root'))
    wrappers._copy_runscripts(fake.inst, str(fake.root))
    settings = fake.root / 'runscripts' / 'lib' / 'settings'
    harness.run(['shellcheck', settings])
    out = harness.run(['sh', '-c', '. "$0"; printf "%s|" "$easysif_conda_prefix" "$easysif_conda_root"', settings])
    assert out.stdout == '/opt/it\'s $(id)|/opt/"root|'
