# SPDX-License-Identifier: GPL-2.0-only
"""Every sub-command shows how it is used: its --help ends with examples, and each of them is understood."""

import argparse
import shlex
import subprocess
import sys

import pytest

from easysif.cli import command_line
from easysif.cli.examples import EXAMPLES
from easysif.data import helper
from easysif.overlay import command


def commands(parser, path=()):
    """Yield the words of every sub-command and group, and whether it is a group (tuple of str, bool)."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield path, bool(groups)
    for group in groups:
        for name, below in group.choices.items():
            yield from commands(below, (*path, name))


ALL = [(path, is_group) for path, is_group in commands(command_line._parser()) if path]


@pytest.mark.parametrize('path', [path for path, is_group in ALL if not is_group], ids=' '.join)
def test_help_ends_with_examples_that_are_understood(easysif, path):
    code, out, err = easysif(*path, '--help')
    told = out.partition('examples:\n')[2].splitlines()
    assert (code, err) == (0, '') and len(told) >= 2
    assert [line for line in told[::2] if not line.startswith('  # ')] == []
    for line in told[1::2]:
        words = shlex.split(line)
        assert words[:len(path) + 1] == ['easysif', *path], line
        assert command_line._parser().parse_args(words[1:]).run


@pytest.mark.parametrize('path', [path for path, is_group in ALL if is_group], ids=' '.join)
def test_help_of_a_group_has_one_of_each_of_its_commands(easysif, path):
    out = easysif(*path, '--help')[1]
    for below, _ in ALL:
        if below[:-1] == path:
            assert '\n  easysif %s' % ' '.join(below) in out.partition('examples:\n')[2]


@pytest.mark.parametrize('name', ['make-squashfs', 'unmake-squashfs', 'list-packages'])
def test_help_of_the_commands_of_a_module_has_examples(name, capfd):
    with pytest.raises(SystemExit) as ended:
        if name == 'list-packages':
            sys.exit(subprocess.call([sys.executable, helper('runscripts/lib/list_packages.py'), '--help']))
        command.main([name.partition('-')[0], '--help'])
    assert not ended.value.code
    told = capfd.readouterr().out.partition('\nexamples:\n')[2].splitlines()
    assert told and all(line.startswith('  # ') for line in told[::2])
    assert all(line.startswith('  %s' % name) for line in told[1::2])


@pytest.mark.parametrize('option', ['-h', '--help'])
@pytest.mark.parametrize('name', ['conda-python-distributed', 'conda-python-simple', 'get-master'])
def test_help_of_the_runscripts_has_examples_that_the_shell_understands(name, option):
    """Wherever they are called: nothing is activated for it, and no job of Slurm is needed."""
    done = subprocess.run([helper('runscripts/%s' % name), option, 'x'], env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '') and done.stdout.startswith('Usage: %s ' % name)
    told = done.stdout.partition('\nexamples:\n')[2].splitlines()
    assert len(told) >= 4 and all(line.startswith('  # ') for line in told[::2])
    for line in told[1::2]:
        assert name in shlex.split(line)
        assert subprocess.run(['sh', '-nc', line]).returncode == 0


def test_there_are_examples_of_no_other_commands():
    assert set(EXAMPLES) == {' '.join(path) for path, is_group in ALL if not is_group}
