# SPDX-License-Identifier: GPL-2.0-only
"""easysif command: single commands of images and of modules, in a directory on PATH; nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import harness
import toys
from easysif import files
from easysif.images import place
from easysif.running import commands
from made_up import MadeUp

pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def home():
    """The user's home (Path)."""
    return Path(os.environ['HOME'])


@pytest.fixture
def bin(home, monkeypatch):
    """The user's own directory of commands, which is on PATH and not there yet (Path)."""
    monkeypatch.setenv('PATH', '%s:%s' % (home / '.local' / 'bin', os.environ['PATH']))
    return home / '.local' / 'bin'


@pytest.fixture
def tool(prefix):
    """An installed module with one command, ``fine`` (MadeUp)."""
    return MadeUp(prefix, 'tool/2', python_env=None)


def error(easysif, *argv, code=1):
    """Run a command that must fail and return what it says (str)."""
    status, out, err = easysif('command', *argv)
    assert (status, out) == (code, '')
    return err


def test_a_command_of_a_module_is_its_wrapper_and_goes_without_a_trace(easysif, home, bin, tool):
    before = toys.snapshot(home)
    assert easysif('command', 'add', 'tool', 'fine') == (
        0, '%s/fine: runs fine in %s\n' % (bin, tool.sif), '')
    assert os.readlink(bin / 'fine') == str(tool.root / 'bin' / 'fine')
    code, out, err = easysif('command', 'list')
    assert (code, out.split(), err) == (0, ['command', 'state', 'image', str(bin / 'fine'), 'fine', 'tool/2'], '')
    assert easysif('command', 'remove', 'fine') == (0, 'removed %s/fine\n' % bin, '')
    assert toys.snapshot(home) == before
    assert easysif('command', 'list') == (0, 'no commands; make one: easysif command add IMAGE NAME\n', '')
    assert toys.snapshot(home) == before


def test_as_json_it_is_said_what_was_done(easysif, bin, tool):
    one = {'name': 'fine', 'path': str(bin / 'fine'), 'image': 'tool/2', 'file': str(tool.sif), 'state': 'fine'}
    for argv, told in ((('add', 'tool/2', 'fine'), {'commands': [one], 'notes': []}), (('list',), {'commands': [one]}),
                       (('remove', str(bin / 'fine')), {'commands': [one], 'images': []})):
        code, out, err = easysif('command', *argv, '--json')
        assert (code, json.loads(out), err) == (0, told, '')


def test_what_others_put_there_stays(easysif, home, bin, tool):
    bin.mkdir(parents=True)
    (bin / 'fine').write_text('mine')
    before = toys.snapshot(home)
    assert error(easysif, 'add', 'tool', 'fine') == (
        'error: {0}: is there already, and not from easysif command\n  there  a file\n'
        'hint: mv -- {0} {0}.old; or another directory: --to DIR\n'.format(bin / 'fine'))
    (bin / 'fine').unlink()
    (bin / 'fine').symlink_to('/mine')
    assert '  there  a link to /mine\n' in error(easysif, 'add', 'tool', 'fine')
    (bin / 'fine').unlink()
    (bin / 'fine').mkdir()
    assert '  there  a directory\n' in error(easysif, 'add', 'tool', 'fine')
    (bin / 'fine').rmdir()
    (bin / 'fine').write_text('mine')
    assert toys.snapshot(home) == before


def test_what_comes_there_while_the_image_is_fetched_stays(easysif, home, bin, tool, monkeypatch):
    easysif('command', 'add', 'tool', 'one=fine')
    found = commands.Commands._module

    def fetch(self, *args):
        for name in ('one', 'two'):
            (bin / name).unlink(missing_ok=True)
            (bin / name).write_text('mine')
        return found(self, *args)
    monkeypatch.setattr(commands.Commands, '_module', fetch)
    for name in ('one', 'two'):
        assert error(easysif, 'add', 'tool', 'three=fine', name + '=fine').startswith(
            'error: %s: is there already, and not from easysif command\n  there  a file\n' % (bin / name))
        assert [(bin / one).read_text() for one in ('one', 'two')] == ['mine', 'mine']
    assert easysif('command', 'list')[1].split()[3:] == [str(bin / 'three'), 'fine', 'tool/2']


def test_a_command_whose_directory_is_gone_can_be_removed(easysif, home, tool, tmp_path):
    easysif('command', 'add', 'tool', 'fine', '--to', str(tmp_path / 'to'))
    (tmp_path / 'to' / 'fine').unlink()
    (tmp_path / 'to').rmdir()
    assert easysif('command', 'remove', 'fine') == (0, 'removed %s/to/fine\n' % tmp_path, '')
    assert toys.snapshot(home) == {}


def test_what_the_user_put_over_a_command_is_not_ours_any_more(easysif, home, bin, tool):
    easysif('command', 'add', 'tool', 'fine')
    (bin / 'fine').unlink()
    (bin / 'fine').write_text('mine')
    assert easysif('command', 'list')[1] == 'no commands; make one: easysif command add IMAGE NAME\n'
    assert error(easysif, 'remove', 'fine') == (
        'error: fine: is no command from easysif command\n  commands  none\nhint: easysif command list\n')
    assert toys.files(home) == {'.local/bin/fine'}


def test_a_command_that_the_module_has_not_is_an_error_with_near_names(easysif, home, tool):
    assert error(easysif, 'add', 'tool', 'fin') == (
        "error: tool/2: has no command 'fin'\n  closest   fine\n  commands  fine\n"
        'hint: easysif command add tool/2 fine\n')
    assert error(easysif, 'add', 'tool', 'other') == (
        "error: tool/2: has no command 'other'\n  closest   none\n  commands  fine\n"
        'hint: easysif command add %s other\n' % tool.sif)
    assert error(easysif, 'add', 'tol', 'fine').startswith('error: tol: is not installed here\n')
    assert error(easysif, 'add', 'tool', 'good=fine', '--needs', 'nvidia-gpu') == (
        'error: tool: is a module, which has the needs of its recipe: --needs is for images\n'
        '  --needs  nvidia-gpu\nhint: easysif command add tool good=fine\n')
    assert error(easysif, 'add', 'tool', 'a/b').startswith('error: easysif command: the name of a command ')
    assert toys.files(home) == set()


def test_a_file_that_is_not_there_is_no_image_of_a_recipe(easysif, home):
    before = toys.snapshot(home)
    assert error(easysif, 'add', 'no such.sif', 'fine') == (
        "error: no such.sif: there is no such image\nhint: ls -l -- 'no such.sif'\n")
    assert toys.snapshot(home) == before


def test_a_command_may_have_another_name_and_hides_none_of_the_host(easysif, home, bin, tool):
    assert error(easysif, 'add', 'tool', 'sh') == (
        "error: easysif command: 'sh' would hide that of the host\n"
        'hint: give it a name of its own: easysif command add IMAGE my-sh=sh\n')
    assert error(easysif, 'add', 'tool', 'ls=fine').endswith('my-ls=fine\n') and toys.files(home) == set()
    assert easysif('command', 'add', 'tool', 'mine=fine')[1] == '%s/mine: runs fine in %s\n' % (bin, tool.sif)
    assert os.readlink(bin / 'mine') == str(tool.root / 'bin' / 'fine')
    assert easysif('command', 'remove', 'mine', 'mine')[1] == 'removed %s/mine\n' % bin and toys.files(home) == set()


def test_several_directories_and_names(easysif, home, bin, tool, tmp_path):
    easysif('command', 'add', 'tool', 'fine')
    code, out, err = easysif('command', 'add', 'tool', 'fine', '--to', 'my commands')
    other = tmp_path / 'my commands'
    assert (code, err) == (0, 'warning: %s is not on PATH\nhint: export PATH=\'%s\':"$PATH"\n' % (other, other))
    assert error(easysif, 'remove', 'fine') == (
        'error: fine: is in several directories\n  commands  {0}/fine, {1}/fine\n'
        'hint: easysif command remove {0}/fine\n'.format(bin, other))
    assert error(easysif, 'remove', 'fin').endswith('hint: easysif command remove fine\n')
    assert easysif('command', 'remove', 'my commands/fine')[0] == 0 and not other.exists()
    assert easysif('command', 'remove', 'fine')[0] == 0


def test_another_one_that_comes_first_on_path_is_named(easysif, home, bin, tool, tmp_path, monkeypatch):
    first = tmp_path / 'first'
    first.mkdir()
    (first / 'fine').write_text('#!/bin/sh\n')
    (first / 'fine').chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (first, os.environ['PATH']))
    assert easysif('command', 'add', 'tool', 'fine')[2] == (
        'warning: another one comes first on PATH: %s/fine\nhint: export PATH=%s:"$PATH"\n' % (first, bin))


def test_a_command_whose_module_was_removed_is_gone_and_can_be_removed(easysif, home, bin, tool):
    easysif('command', 'add', 'tool', 'fine')
    easysif('remove', 'tool')
    assert easysif('command', 'list')[1].split()[4] == 'gone'
    assert easysif('command', 'remove', 'fine')[0] == 0 and toys.files(home) == set()


def test_a_place_or_a_record_that_cannot_be_used_is_an_error(easysif, home, bin, tool, tmp_path):
    (tmp_path / 'file').write_text('')
    place = tmp_path / 'file' / 'bin'
    assert error(easysif, 'add', 'tool', 'fine', '--to', str(place)) == (
        'error: {0}: no command can be put here (Not a directory)\n'
        'hint: ls -ld -- {0}; or another place: --to DIR\n'.format(place))
    assert toys.files(home) == set()
    easysif('command', 'add', 'tool', 'fine')
    before = toys.snapshot(home)
    assert error(easysif, 'add', 'tool', 'fine', '--to', str(place))
    bin.chmod(0o555)
    assert 'no command can be put here (Permission denied)\n' in error(easysif, 'add', 'tool', 'fine', 'mine=fine')
    bin.chmod(0o755)
    assert toys.snapshot(home) == before
    record = home / '.local' / 'share' / 'easysif' / 'commands' / 'commands.json'
    record.write_text(record.read_text().replace('"schema": 1', '"schema": 9'))
    assert error(easysif, 'list') == ('error: %s: was written by another version of EasySIF\n  schema  9\n'
                                      'hint: pip install --upgrade easysif\n' % record)
    record.write_text('{')
    assert error(easysif, 'list').startswith('error: %s: the record of your commands cannot be read (' % record)
    assert (bin / 'fine').is_symlink()


def test_the_policy_of_the_site_holds(easysif, home, monkeypatch):
    monkeypatch.setenv('EASYSIF_REGISTRIES', '[nvcr.io]')
    assert error(easysif, 'add', 'docker://docker.io/staphb/samtools:1.21', 'samtools').startswith(
        "error: docker://docker.io/staphb/samtools:1.21: image is from 'docker.io', which this site does not allow\n")
    assert toys.snapshot(home) == {}


def test_many_at_once_are_all_there(home, bin, tool, tmp_path):
    """Each from a process of its own, as users start them."""
    def call(number):
        return subprocess.run([sys.executable, '-m', 'easysif.cli', 'command', 'add', 'tool', 'fine', '--to',
                               str(tmp_path / ('to-%d' % number))], stdout=subprocess.PIPE,
                              env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))).returncode
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [0] * 4
    record = json.loads((home / '.local/share/easysif/commands/commands.json').read_text())
    assert len(record['commands']) == 4
    assert all((tmp_path / ('to-%d' % number) / 'fine').is_symlink() for number in range(4))


@pytest.mark.parametrize('moment', ['_write', 'link', 'unlink'])
def test_killed_anywhere_the_next_command_is_not_in_its_way(easysif, home, bin, tool, moment, tmp_path):
    before = toys.snapshot(home)
    verb = ('remove', 'fine') if moment == 'unlink' else ('add', 'tool', 'fine')
    if moment == 'unlink':
        easysif('command', 'add', 'tool', 'fine')
    target = {'_write': 'commands.Commands._write', 'link': 'files.link', 'unlink': 'commands.os.unlink'}[moment]
    program = ('import os, signal, sys\nfrom easysif import cli, files\nfrom easysif.running import commands\n'
               'def kill(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n'
               '%s = kill\ncli.main(sys.argv[1:])\n' % target)
    done = subprocess.run([sys.executable, '-c', program, 'command', *verb],
                          env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.returncode == -signal.SIGKILL
    assert easysif('command', 'add', 'tool', 'fine')[0] == 0 and (bin / 'fine').is_symlink()
    assert easysif('command', 'remove', 'fine')[0] == 0
    left = {'.local', '.local/share'} if moment == '_write' else set()  # nobody knows who made these two
    assert toys.snapshot(home, *left) == before


@pytest.mark.e2e
def test_where_there_is_no_space_for_an_image_no_other_prefix_is_proposed(easysif, home, bin, toy, monkeypatch,
                                                                          site_file):
    monkeypatch.setenv('EASYSIF_SITE', str(site_file()))
    monkeypatch.setattr(place, '_reflink', lambda *_: False)  # which needs no space
    monkeypatch.setattr(files, 'free_space', lambda _: 5)
    before = toys.snapshot(home, '.apptainer')
    told = error(easysif, 'add', str(toy), 'fine', code=3)
    assert told.startswith('error: %s: not enough space for the image in %s/.local/share/easysif/' % (toy, home))
    assert told.endswith('\n  free    5 bytes\nhint: free some space there (or quota), then the same again\n')
    assert toys.snapshot(home, '.apptainer') == before


@pytest.mark.e2e
def test_commands_of_images_run_and_go_without_a_trace(easysif, home, bin, toy, registry, images, tmp_path,
                                                       monkeypatch, site_file):
    """UVA's samtools: of a file, of a registry, a second one of the same image, after a failure, killed."""
    monkeypatch.setenv('EASYSIF_SITE', str(site_file()))
    before = toys.snapshot(home, '.apptainer')
    assert easysif('command', 'add', str(toy), 'fin')[2] == (
        "error: %s: command 'fin' is not in the image\n  closest  fine\n"
        'hint: list what the image has: apptainer exec %s ls /bin\n' % (toy, toy))
    assert toys.snapshot(home, '.apptainer') == before
    assert easysif('command', 'add', str(toy), 'fine')[0] == 0
    assert easysif('command', 'add', str(toy), 'broken=fails', '--to', str(home / 'other'))[0] == 0
    env = harness.user_environment(home)

    def run(path, *args):
        return subprocess.run([path, *args], env=env, capture_output=True, encoding='utf-8', errors='replace')
    assert run(bin / 'fine', 'a  b', '$c').stdout == 'a  b $c\n'
    assert run(home / 'other' / 'broken').returncode == 3 and len(
        list((home / '.local/share/easysif/commands/software/toy').glob('[!.]*'))) == 1

    upstream, fetched = images.upstream('samtools'), home / '.local/share/easysif/commands/fetched'
    assert "command 'samtool' is not in the image" in easysif('command', 'add', upstream, 'samtool')[2]
    waiting, = fetched.glob('image-*.sif')
    number, links = waiting.stat().st_ino, waiting.stat().st_nlink
    assert links == 1  # nobody is about to install it
    code, out, err = easysif('command', 'add', upstream, 'samtools', '--json')
    told = json.loads(out)
    assert (code, told['commands'][0]['image']) == (0, upstream), err
    assert run(bin / 'samtools', '--version').stdout.startswith('samtools ')
    kept = Path(told['commands'][0]['file'])
    assert kept.stat().st_ino == number and not fetched.exists()  # it was not fetched again, and is there once
    record = json.loads((kept.parent / 'easysif.json').read_text())['image']
    assert record['digest'] == images.digest('samtools') and kept.stat().st_mode & 0o222 == 0

    # where there is no module system the wrappers of a module are used by PATH alone
    script = 'unset -f module; export PATH="$1/bin:$PATH"; samtools --version | head -n 1; command -v samtools'
    shown = run('sh', '-c', script, 'sh', str(kept.parent)).stdout
    assert shown.startswith('samtools ') and shown.endswith('\n%s/bin/samtools\n' % kept.parent)

    # one that is killed while it fetches leaves what the next command clears away
    argv = ['command', 'add', images.upstream('static'), 'echo']
    process = subprocess.Popen([sys.executable, '-m', 'easysif.cli', *argv],
                               env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    works = home / '.local/share/easysif/commands/software/static'
    while not list(works.glob('.*.work')) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    code, out, err = easysif('command', 'remove', 'fine', 'broken', 'samtools')
    assert code == 0 and out.splitlines()[-2:] == [
        'removed the image, as no command of it is left: %s' % one for one in sorted([upstream, str(toy)], key=len)]
    assert toys.snapshot(home, '.apptainer') == before
