# SPDX-License-Identifier: GPL-2.0-only
"""The command easysif: what it prints, where, and with which exit code."""

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

from easysif import __version__
from easysif.cli import command_line
from easysif.errors import TOOL, EasySIFError

RECIPE = """\
easyblock = 'ContainerImage'

name = 'jax'
version = '24.10'

homepage = 'https://docs.jax.dev'
description = "Composable transformations of NumPy programs"

toolchain = SYSTEM

image = 'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'

sanity_check_commands = ['python -c "import jax; assert jax.numpy.ones(3).sum() == 3"']

moduleclass = 'ai'
"""


@pytest.fixture(autouse=True)
def quiet_place(tmp_path, monkeypatch):
    """Work in an empty directory with a home of its own and no settings from outside."""
    for name in [name for name in os.environ if name.startswith(('EASYSIF_', 'EASYBUILD_'))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(monkeypatch):
    """Give the command line one more sub-command, ``try``, that calls a function."""
    def add(function):
        def register(subparsers):
            subparsers.add_parser('try').set_defaults(run=function)
        monkeypatch.setattr(command_line, 'GROUPS', (argparse.Namespace(register=register),))
    return add


def fail(error):
    """Return a function that raises."""
    def function(args):
        raise error
    return function


def test_version_and_help_are_told(easysif):
    assert easysif('--version') == (0, 'easysif %s\n' % __version__, '')
    code, out, err = easysif('--help')
    assert (code, err) == (0, '')
    assert all(word in out for word in ('check', 'config', 'site', '--debug'))


@pytest.mark.parametrize('argv, expected', [
    (['chek'], "error: easysif: argument COMMAND: invalid choice: 'chek' (choose from "),
    ([], 'error: easysif: the following arguments are required: COMMAND\nhint: easysif --help\n'),
    (['--jsn'], 'error: easysif: the following arguments are required: COMMAND\nhint: easysif --help\n'),
    (['check', '--jsn'], "error: easysif check: unrecognized arguments: --jsn\nhint: did you mean '--json'?\n"),
    (['check', '-q'], 'error: easysif check: unrecognized arguments: -q\nhint: easysif check --help\n'),
    (['kernel', 'list', 'a', 'b', '--sys=1'],
     'error: easysif kernel list: unrecognized arguments: b --sys=1\nhint: easysif kernel list --help\n'),
    (['overlay', 'install', 'a', '--jsn'],
     "error: easysif overlay install: unrecognized arguments: --jsn\nhint: did you mean '--json'?\n"),
    (['job', 'jax', 'python', '-c', '1'], 'error: easysif job: unrecognized arguments: -c 1\n'
     'hint: put -- before the command, as in: easysif job --help\n'),
    (['node-exec', '--jsn', 'jax', '--', 'nproc', '--jsn'],
     "error: easysif node-exec: unrecognized arguments: --jsn\nhint: did you mean '--json'?\n"),
    (['site', 'apply', '--prefix'],
     'error: easysif site apply: argument --prefix: expected one argument\nhint: easysif site apply --help\n'),
])
def test_wrong_usage_exits_with_2(easysif, argv, expected):
    code, out, err = easysif(*argv)
    assert (code, out) == (2, '')
    assert err == expected if expected.endswith('\n') else (
        err.startswith(expected) and err.endswith('\nhint: easysif --help\n'))


@pytest.mark.parametrize('error, code, text', [
    (EasySIFError('x.eb', 'is wrong', [('found', 3)], 'edit it'), 1,
     'error: x.eb: is wrong\n  found  3\nhint: edit it\n'),
    (EasySIFError('pip', 'failed', exit_code=TOOL), 3, 'error: pip: failed\n'),
    (ValueError('oops'), 3, 'error: easysif: an error that is not yours (ValueError: oops)\n'
     'hint: run it again with --debug, and report what it prints\n'),
    (KeyboardInterrupt(), 130, ''),
])
def test_an_error_is_printed_without_traceback(easysif, command, error, code, text):
    command(fail(error))
    assert easysif('try') == (code, '', text)


@pytest.mark.parametrize('call', [['-m', 'easysif.cli'],
                                  ['-c', 'import sys; from easysif.cli import main; sys.exit(main())']])
@pytest.mark.parametrize('handler, status', [(signal.SIG_DFL, -signal.SIGINT), (signal.SIG_IGN, 7)])
def test_an_interrupt_while_the_command_is_read_ends_it_quietly(tmp_path, call, handler, status):
    """Unless it is to be ignored, as by what a shell has in the background."""
    (tmp_path / 'jsonschema.py').write_text(
        'import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\nsys.exit(7)\n')
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    done = subprocess.run([sys.executable, *call, '--version'], env=env, capture_output=True, text=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, handler))
    assert (done.returncode, done.stdout, done.stderr) == (status, '', '')


@pytest.mark.parametrize('argv', [['--debug', 'try'], ['try', '--debug']])
@pytest.mark.parametrize('error', [EasySIFError('x.eb', 'is wrong'), ValueError('oops')])
def test_debug_shows_where_an_error_comes_from(easysif, command, argv, error):
    command(fail(error))
    code, out, err = easysif(*argv)
    assert err.startswith('Traceback (most recent call last):\n') and 'error: ' in err


def test_the_exit_code_is_that_of_the_command(easysif, command):
    command(lambda args: 7)
    assert easysif('try')[0] == 7
    command(lambda args: None)
    assert easysif('try')[0] == 0


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_has_seen_enough_ends_it_quietly(unbuffered):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), PYTHONUNBUFFERED=unbuffered)
    process = subprocess.Popen([sys.executable, '-m', 'easysif.cli', 'config'], env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b''
    assert process.wait() == 141


def test_who_has_closed_the_streams_is_not_told(tmp_path):
    argv = [sys.executable, '-m', 'easysif.cli']
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), EASYBUILD_PREFIX=str(tmp_path))
    for words, code in ((['config'], 0), (['show', 'nothing'], 1)):
        done = subprocess.run([*argv, *words], env=env, preexec_fn=lambda: os.closerange(0, 3))
        assert done.returncode == code


def test_check_of_good_recipes(easysif, tmp_path):
    (tmp_path / 'jax-24.10.eb').write_text(RECIPE)
    assert easysif('check', 'jax-24.10.eb') == (
        0, 'note: jax-24.10.eb names no digest, so its image may change: easysif pin jax-24.10.eb\n'
           '1 recipe checked, all well\n', '')
    code, out, _ = easysif('check', '--json', 'jax-24.10.eb')
    assert (code, json.loads(out)) == (0, {
        'recipes': 1, 'problems': [], 'unpinned': {'jax-24.10.eb': ''}, 'untested': {}})
    (tmp_path / 'jax-24.10.eb').write_text(RECIPE + '# not pinned: no account\n')
    assert easysif('check', 'jax-24.10.eb') == (
        0, 'note: jax-24.10.eb is not pinned: no account\n1 recipe checked, all well\n', '')
    (tmp_path / 'jax-24.10.eb').write_text(RECIPE.replace("py3'", "py3@sha256:%s'" % ('0' * 64)))
    assert easysif('check', 'jax-24.10.eb') == (0, '1 recipe checked, all well\n', '')


def test_check_prints_all_problems_of_all_recipes(easysif, tmp_path):
    (tmp_path / 'jax-24.9.eb').write_text(RECIPE + "needs = 'nvidia-gpu'\n")
    (tmp_path / 'jax-24.10.eb').write_text(RECIPE + 'x = 1\n')
    code, out, err = easysif('check', '.')
    assert (code, out.count('note: ')) == (1, 2)
    assert err == """\
error: jax-24.10.eb:16: unknown key 'x'
  ours  image, digest, image_mode, verify, build_args, needs, python_env, conda_env, commands, python_packages, \
container_env, binds, provides, runscripts
error: jax-24.9.eb:16: needs must be a list of words, not the text 'nvidia-gpu'
hint: write needs = ['nvidia-gpu']
error: jax-24.9.eb:16: needs stands after moduleclass, but belongs before it
hint: the order is: easyblock, name, version, versionsuffix, homepage, description, toolchain, image, digest, \
image_mode, verify, build_args, needs, python_env, conda_env, commands, python_packages, container_env, binds, \
provides, runscripts, sanity_check_commands, moduleclass
error: jax-24.9.eb: file name does not match its content (jax-24.10)
hint: git mv ./jax-24.9.eb ./jax-24.10.eb
"""


def test_check_prints_problems_as_json(easysif, tmp_path):
    (tmp_path / 'jax-24.10.eb').write_text(RECIPE + 'x = 1\n')
    code, out, err = easysif('check', '--json', 'jax-24.10.eb')
    assert (code, err) == (1, '')
    assert json.loads(out) == {'recipes': 1, 'unpinned': {'jax-24.10.eb': ''}, 'untested': {}, 'problems': [{
        'recipe': 'jax-24.10.eb', 'rule': 'valid', 'where': 'jax-24.10.eb:16', 'what': "unknown key 'x'", 'hint': None,
        'facts': {'ours': 'image, digest, image_mode, verify, build_args, needs, python_env, conda_env, commands, '
                  'python_packages, container_env, binds, provides, runscripts'}}]}


def test_check_of_what_is_not_there(easysif):
    code, out, err = easysif('check', 'nosuch/x.eb')
    assert (code, out) == (1, '') and err.startswith('error: nosuch/x.eb: there is no such recipe\n')


@pytest.mark.parametrize('variables, prefix', [
    ({'EASYBUILD_PREFIX': 'p'}, 'p'),
    ({'EASYBUILD_PREFIX': 'p', 'EASYBUILD_INSTALLPATH': 'i'}, 'i'),
    ({}, '.local/easybuild'),
])
def test_site_apply_writes_where_easybuild_installs(easysif, monkeypatch, tmp_path, variables, prefix):
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    (tmp_path / prefix).mkdir(parents=True)
    code, out, err = easysif('site', 'apply')
    assert (code, err) == (0, '')
    assert 'written  %s/easysif/site.lua\n' % (tmp_path / prefix) in out
    assert easysif('site', 'apply') == (0, 'nothing to change\n', '')


def test_site_apply_writes_where_it_is_told(easysif, tmp_path):
    assert easysif('site', 'apply', '--prefix', 'a b')[0] == 0
    assert (tmp_path / 'a b' / 'easysif' / 'site.sh').is_file()


def test_site_apply_says_as_json_what_it_wrote(easysif, tmp_path):
    files = ['prefix.json', 'site.lua', 'site.sh', 'site.tcl']
    for written in [str(tmp_path / 'p' / 'easysif' / name) for name in files], []:
        code, out, err = easysif('site', 'apply', '--prefix', 'p', '--json')
        assert (code, err) == (0, '')
        assert json.loads(out) == {'prefix': str(tmp_path / 'p'), 'site': 'default', 'written': written}


def commands(parser):
    """Yield all commands below a parser: their parsers."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for one in action.choices.values():
            yield from commands(one)
    if not below:
        yield parser


def test_every_command_says_as_json_what_it_did(easysif):
    without = [one.prog for one in commands(command_line._parser())
               if not any('--json' in action.option_strings for action in one._actions)]
    assert without == []


def test_site_apply_where_nothing_is_installed_is_an_error(easysif, tmp_path):
    assert easysif('site', 'apply') == (1, '', 'error: %s/.local/easybuild: there are no installed modules\n'
                                        'hint: name the prefix with --prefix DIR\n' % tmp_path)
