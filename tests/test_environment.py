# SPDX-License-Identifier: GPL-2.0-only
"""A new virtual environment in the place of the old one, killed before any call that changes files."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from easysif import files
from easysif.lock import Lock
from easysif.overlay import environment
from easysif.overlay.place import Overlay
from easysif.packages.copied import Copy
from easysif.packages.target import Target
from packing import Commands, killed_before
from test_packages import message

pytestmark = pytest.mark.long


def publish(root, number, can_exchange, is_kept):
    """Publish in a process that kills itself before one of its calls that change files; return its exit status (int).

    :param number: of the call, from 1 on (int)
    """
    beside, pid = root / ('user-software.easysif-new-%d' % os.getpid()), os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    counted = killed_before(number)
    for name in ('rename', 'unlink', 'fsync', 'open'):
        setattr(os, name, counted(getattr(os, name)))
    files.exchange = counted(files.exchange if can_exchange else lambda one, other: False)
    try:
        environment.publish(str(root), str(beside / 'venv' / 'x'), str(root / 'user-software' / 'venv' / 'x'),
                            str(root / 'user-software.before-rebuild' if is_kept else beside / 'old'),
                            'python 3.12\n', {'asked': ['new'], 'resolved': []})
        os._exit(0)
    finally:
        os._exit(1)


def scene(root, has_old=True):
    """Make an overlay with an environment, and a new one beside it."""
    beside = root / ('user-software.easysif-new-%d' % os.getpid())
    for place, name in ((root / 'user-software', 'old'), (beside, 'new')):
        packages = place / 'venv' / 'x' / 'lib' / 'python3.12' / 'site-packages'
        packages.mkdir(parents=True)
        (packages / name).write_text(name)
    if not has_old:
        files.remove_tree(str(root / 'user-software' / 'venv' / 'x'))
    (root / 'made-for').write_text('python 3.11\n')
    (root / 'overlay.json').write_text(json.dumps({'schema': 1, 'packages': {'asked': ['old'], 'resolved': []}}))


def state(root):
    """Return whether the old or the new environment is in use, by all that tells it (set of str)."""
    asked, = json.loads((root / 'overlay.json').read_text())['packages']['asked']
    return {asked, {'python 3.11\n': 'old', 'python 3.12\n': 'new'}[(root / 'made-for').read_text()],
            *(path.name for path in root.glob('user-software/venv/x/lib/*/*/*'))}


@pytest.mark.parametrize('can_exchange', [True, False])
@pytest.mark.parametrize('is_kept', [True, False])
def test_it_is_killed_before_any_call_and_the_next_command_finishes_it(tmp_path, can_exchange, is_kept):
    seen, number = [], 0
    while True:
        number += 1
        root = tmp_path / str(number)
        root.mkdir()
        scene(root)
        status = publish(root, number, can_exchange, is_kept)
        assert status in (0, -signal.SIGKILL)
        with Overlay(str(root), 'x/1', 'a test').alone():
            pass
        after, = state(root)
        seen.append(after)
        kept = [path.read_text() for path in root.glob('user-software.before-rebuild*/lib/*/*/*')]
        assert kept == (['old'] if is_kept and after == 'new' else []), number
        assert {path.name.partition('.before')[0] for path in root.iterdir()} == {
            'user-software', 'made-for', 'overlay.json'}, number
        assert not list(root.glob('user-software/venv/x/.*'))
        if status == 0:
            break
    assert number > 10 and seen == sorted(seen, reverse=True) and set(seen) == {'old', 'new'}


@pytest.mark.parametrize('is_kept', [True, False])
def test_what_a_wrapper_made_between_the_two_renames_is_kept_as_well(tmp_path, is_kept):
    scene(tmp_path)
    number = 0
    while (tmp_path / 'user-software/venv/x').exists():
        number += 1
        files.remove_tree(str(tmp_path / 'user-software'))
        for path in tmp_path.glob('user-software*'):
            files.remove_tree(str(path))
        scene(tmp_path)
        assert publish(tmp_path, number, False, is_kept) == -signal.SIGKILL
    (tmp_path / 'user-software/venv/x').mkdir()
    (tmp_path / 'user-software/venv/x/mine').write_text('of a wrapper')
    with Overlay(str(tmp_path), 'x/1', 'a test').alone():
        pass
    assert state(tmp_path) == {'new'}
    wrappers = tmp_path / ('user-software.before-rebuild' + ('-2' if is_kept else ''))
    assert (wrappers / 'mine').read_text() == 'of a wrapper'
    assert is_kept == bool(list((tmp_path / 'user-software.before-rebuild').glob('lib/*/*/old')))


def test_where_the_old_one_may_not_be_moved_nothing_has_happened_and_the_next_command_goes_on(tmp_path):
    """As that of another member of a group, in a directory that only that one may write."""
    scene(tmp_path)
    (tmp_path / 'user-software' / 'venv').chmod(0o555)
    with pytest.raises(PermissionError):
        new = tmp_path / ('user-software.easysif-new-%d' % os.getpid()) / 'venv' / 'x'
        environment.publish(str(tmp_path), str(new), str(tmp_path / 'user-software' / 'venv' / 'x'),
                            environment.kept(str(tmp_path)))
    with Overlay(str(tmp_path), 'x/1', 'a test').alone():
        pass
    assert state(tmp_path) == {'old'}
    assert {'made-for', 'overlay.json', 'user-software'} == {*os.listdir(tmp_path)} - {'home'}
    (tmp_path / 'user-software' / 'venv').chmod(0o755)


@pytest.mark.parametrize('is_link', [True, False])
def test_the_overlay_may_be_reached_through_links(tmp_path, is_link):
    """Of another depth, where ``..`` leads elsewhere."""
    (tmp_path / 'deep' / 'er').mkdir(parents=True)
    (tmp_path / 'root').symlink_to(tmp_path / 'deep' / 'er')
    root, real = tmp_path / 'root', tmp_path / 'deep' / 'er'
    scene(root)
    if is_link:
        real = tmp_path / 'scratch'
        real.mkdir()
        os.rename(root / 'user-software', real / 'user-software')
        (root / 'user-software').symlink_to(real / 'user-software')
        os.rename(*[place / ('user-software.easysif-new-%d' % os.getpid()) for place in (root, real)])
    new = real / ('user-software.easysif-new-%d' % os.getpid()) / 'venv' / 'x'
    environment.publish(str(root), str(new), str(root / 'user-software' / 'venv' / 'x'), environment.kept(str(root)),
                        'python 3.12\n', {'asked': ['new'], 'resolved': []})
    assert state(root) == {'new'} and list((real / 'user-software.before-rebuild').glob('lib/*/*/old'))


def test_overlays_of_two_modules_that_lead_to_one_directory_leave_each_other_alone(tmp_path):
    """Each has a lock of its own; what the other one is making is not what a killed command left."""
    def beside(name):
        found = Target.__new__(Target)
        found.overlay = Overlay(str(tmp_path / name), name + '/1', 'a test')
        found.host_venv = os.path.join(found.overlay.directory, 'venv', 'x')
        (tmp_path / name).mkdir(exist_ok=True)
        if not os.path.lexists(found.overlay.directory):
            os.symlink(tmp_path / 'scratch', found.overlay.directory)
        return found.beside()
    (tmp_path / 'scratch').mkdir()
    for name in 'one', 'two':
        with beside(name) as path:
            os.rename(path, path[:-len(str(os.getpid()))] + '4711')
    left = sorted(tmp_path.glob('scratch.easysif-new-*-4711'))
    with beside('one') as path:
        assert len(left) == 2 and os.path.isdir(path) and len(list(tmp_path.glob('scratch.easysif-new-*-4711'))) == 1
        with beside('two'):
            assert os.path.isdir(path) and not list(tmp_path.glob('scratch.easysif-new-*-4711'))
    assert not list(tmp_path.glob('scratch.*'))


def test_the_next_wrapper_puts_an_environment_into_its_place_that_a_killed_command_left_beside(tmp_path):
    """Where two directories cannot be exchanged it is nowhere for a moment, as here between the two renames."""
    overlay = Commands(tmp_path)
    overlay.stand_in('apptainer', 'printf "%s " "$@"')
    venv, beside = overlay.directory / 'venv' / 'jax', overlay.root / 'user-software.easysif-new-1'
    shutil.copytree(venv, beside / 'jax')
    (beside / 'jax' / environment.MARK).touch()
    os.rename(venv, beside / 'old')
    (overlay.root / environment.NAME).write_text(json.dumps({
        'new': beside.name + '/jax', 'old': 'user-software/venv/jax', 'aside': beside.name + '/old', 'made_for': None,
        'packages': None}))
    with Lock(str(overlay.lock), 'easysif overlay install'):
        process = subprocess.Popen([overlay.fake.root / 'bin' / 'python', 'x.py'], env=overlay.env, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stderr.readline().startswith('jax/24.10: waiting for process ')
        assert not venv.exists()
    out, err = process.communicate()
    assert out.endswith(' python x.py ') and err == '' and os.listdir(venv) == ['a file']
    assert os.listdir(overlay.root) == ['user-software']
    shutil.move(venv, tmp_path / 'aside')
    (overlay.root / environment.NAME).write_text('')
    result = overlay('python', 'x.py')
    assert 'error: %s/environment.json: does not say which environment is to be put where\n' % overlay.root \
        in result.stderr and result.stdout.endswith(' python x.py ')


# --- the copy that is installed into ------------------------------------------------------------------------------


@pytest.fixture
def venv(tmp_path):
    """An environment with a package, a command and a file that installers write into (Path)."""
    for path, text in {'lib/a.py': 'a', 'lib/easy-install.pth': '/x', 'bin/a': '#!', 'lib/__pycache__/a.pyc': 'c',
                       }.items():
        (tmp_path / 'venv' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'venv' / path).write_text(text)
    (tmp_path / 'venv' / 'bin' / 'python').symlink_to('/no/such')
    return tmp_path / 'venv'


def test_a_copy_shares_what_is_replaced_and_not_what_is_written_into(venv, tmp_path):
    copy = Copy(str(venv), str(tmp_path / 'copy'), 'toy/1')
    assert os.readlink(tmp_path / 'copy' / 'bin' / 'python') == '/no/such'
    assert {str(path.relative_to(venv)): path.samefile(tmp_path / 'copy' / path.relative_to(venv))
            for path in venv.rglob('*') if path.is_file()} == {
        'lib/a.py': True, 'lib/__pycache__/a.pyc': True, 'lib/easy-install.pth': False, 'bin/a': False}
    (venv / 'lib' / '__pycache__' / 'b.pyc').touch()  # as an import does
    copy.settle()


def test_a_copy_of_what_changed_meanwhile_is_not_used(venv, tmp_path):
    copy = Copy(str(venv), str(tmp_path / 'copy'), 'toy/1')
    (venv / 'lib' / 'b.py').touch()
    assert message(copy.settle) == (
        'toy/1: somebody else installed packages meanwhile; nothing was changed\n  directory  %s\n'
        'hint: wait for pip to end, then the same command again' % venv)


def test_what_changed_in_the_moment_when_the_copy_took_its_place_is_kept(venv, tmp_path):
    copy = Copy(str(venv), str(tmp_path / 'copy'), 'toy/1')
    copy.settle()
    os.rename(venv, tmp_path / 'old')
    copy.see_off(str(tmp_path / 'old'), str(tmp_path / 'kept'))
    (tmp_path / 'old' / 'lib' / 'b.py').write_text('precious')
    assert message(copy.see_off, str(tmp_path / 'old'), str(tmp_path / 'kept')) == (
        'toy/1: somebody else installed packages at the same moment, and some of them are missing\n  in use  %s\n'
        '  kept    %s\nhint: once their pip has ended, let them run it again' % (venv, tmp_path / 'kept'))
    assert (tmp_path / 'kept' / 'lib' / 'b.py').read_text() == 'precious' and not (tmp_path / 'old').exists()


def test_where_files_cannot_be_linked_they_are_copied(venv, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(1, 'Operation not permitted')
    monkeypatch.setattr(os, 'link', refuse)
    Copy(str(venv), str(tmp_path / 'copy'), 'toy/1').settle()
    assert (tmp_path / 'copy' / 'lib' / 'a.py').read_text() == 'a'


def test_an_environment_that_cannot_be_copied_is_told(venv, tmp_path):
    (tmp_path / 'copy').write_text('in the way')
    assert message(Copy, str(venv), str(tmp_path / 'copy'), 'toy/1') == (
        'toy/1: the environment cannot be copied, to install into the copy (File exists)\n  directory  %s\n'
        'hint: df -h %s' % (venv, venv))
