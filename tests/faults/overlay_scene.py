# SPDX-License-Identifier: GPL-2.0-only
"""An overlay on which make-squashfs and unmake-squashfs are disturbed, and the one function that looks what came of it.

It is that of an installation without a container; the two commands, mksquashfs and unsquashfs are the real ones.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import harness
import made_up
import toys
from scene import Place, tree

INJECTOR = Path(__file__).with_name('overlay_injector.py')
PACK, REMOVE, UNPACK = ('make-squashfs',), ('make-squashfs', '--remove'), ('unmake-squashfs',)
KEPT = re.compile(r'user-software\.squashfs(\.\d+)?')

#: what is there of an overlay -> its files that hold all that the user made
STATES = {'directory': {'user-software'},
          'both': {'user-software', 'user-software.squashfs'},
          'squashfs': {'user-software.squashfs'},
          'unpacked': {'user-software', 'user-software.squashfs.1'},
          'again': {'user-software', 'user-software.squashfs', 'user-software.squashfs.1'}}

#: in each state: what the user would type next -> the state after it
NEXT = {'directory': {PACK: 'both', REMOVE: 'squashfs'}, 'both': {UNPACK: 'unpacked', REMOVE: 'squashfs'},
        'squashfs': {UNPACK: 'unpacked'}, 'unpacked': {PACK: 'again'}}


class OverlayScene(Place):
    """One overlay, the commands that change it, and a copy of each of its states.

    :param directory: a directory of its own (Path)
    :param prefix: where the installation and the overlay are (Path), below the directory where None
    :param files: how many files of 20 KB, half random, the user made (int)
    """

    def __init__(self, directory, prefix=None, files=300):
        super().__init__(directory)
        self.installed = made_up.MadeUp(prefix or directory / 'pre fix', eb_python=sys.executable)
        self.root, self.disk = self.installed.overlay, prefix or directory / 'pre fix'
        self.home, self.tmp = directory / 'home', directory / 'tmp'
        self.stand_ins, self.states = directory / 'stand-ins', directory / 'states'
        for path in (self.home, self.tmp, self.stand_ins, self.states):
            path.mkdir(exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        fill(self.root / 'user-software', files)
        self.content, self.whole = content(self.root / 'user-software'), set()
        self.references = {}

    def prepare(self):
        """Let the overlay go through its states, undisturbed, and keep a copy of each (OverlayScene)."""
        state = 'directory'
        self.keep(state)
        for command, following in ((PACK, 'both'), (REMOVE, 'squashfs'), (UNPACK, 'unpacked'), (PACK, 'again')):
            self(*command)
            self.keep(following)
        return self

    def keep(self, state):
        """Keep a copy of the overlay, which is in a state now."""
        assert self.look() == state
        harness.run(['cp', '-a', self.root, self.states / state])
        self.references[state] = set(os.listdir(self.root))

    def restore(self, state):
        """Have the overlay be in a state (OverlayScene)."""
        for path in self.stand_ins.iterdir():
            path.unlink()
        shutil.rmtree(self.root)
        harness.run(['cp', '-a', self.states / state, self.root])
        return self

    def environment(self, **changes):
        """Return the environment of the user (dict)."""
        return dict({'HOME': str(self.home), 'PATH': '%s:%s' % (self.stand_ins, harness.SYSTEM_PATH), 'LANG': 'C.UTF-8',
                     'TMPDIR': str(self.tmp), 'MARKER': self.marker}, **changes)

    def start(self, command, *args, before=(), **env):
        """Start one of the commands (subprocess.Popen).

        :param before: words of a command that starts it
        """
        return subprocess.Popen([*before, str(self.installed.root / 'bin' / command), *args], start_new_session=True,
                                env=self.environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def __call__(self, command, *args, check=True, **options):
        """Run one of the commands and return its harness.Result."""
        process = self.start(command, *args, **options)
        output, errors = (data.decode('utf-8', 'replace') for data in process.communicate(timeout=300))
        assert not check or process.returncode == 0, errors
        return harness.Result(process.returncode, output, errors)

    def fails(self, command, *args, **options):
        """Run one that must fail, and say in the common form what was wrong; return its harness.Result."""
        result = self(command, *args, check=False, **options)
        assert result.status in (1, 3), result.output
        assert re.match('error: %s: .*\n' % command, result.stderr) and '\nhint: ' in result.stderr, result.stderr
        assert 'Traceback' not in result.stderr and result.stdout == ''
        return result

    def stand_in(self, name, script):
        """Put a program of that name before the real one on PATH; ``$REAL`` in the script is the real one."""
        path = self.stand_ins / name
        path.write_text('#!/bin/sh\nREAL=/usr/bin/%s\n%s\n' % (name, script))
        path.chmod(0o755)

    def kill(self, fault, *command):
        """Run a command and kill it; return whether it was done before (bool).

        :param fault: ``seconds`` after which it is killed, with all processes at once where it says ``all``, or the
            number of the ``call`` before which it kills itself (dict)
        """
        if 'call' in fault:
            process = self.start(*command, EB_PYTHON=str(self.injector()), CALL=str(fault['call']))
        else:
            process = self.start(*command)
            time.sleep(fault['seconds'])
            for pid in self.processes() if fault.get('all') else [process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        errors = process.communicate(timeout=60)[1].decode('utf-8', 'replace')
        assert process.returncode in (0, -signal.SIGKILL), errors
        return process.returncode == 0

    def injector(self):
        """Return what stands for the Python that the command runs with (Path)."""
        path = self.directory / 'python'
        if not path.exists():
            path.write_text('#!/bin/sh\nexec %s %s "$@"\n' % (sys.executable, INJECTOR))
            path.chmod(0o755)
        return path

    def look(self):
        """Return the state (str); whatever is there in a place where it is used is whole, to the byte."""
        found = {name for name in os.listdir(self.root) if name == 'user-software' or KEPT.fullmatch(name)}
        for name in found:
            if name == 'user-software':
                assert content(self.root / name) == self.content
            else:
                self._see_whole(self.root / name)
        assert found in STATES.values(), found
        return next(state for state, names in STATES.items() if names == found)

    def _see_whole(self, path):
        digest = toys.sha256(path)
        if digest not in self.whole:
            assert self.packed(path) == self.content
            self.whole.add(digest)

    def packed(self, path):
        """Return what is in a squashfs file, as `content` of what it is unpacked to (dict)."""
        seen = self.directory / 'seen'
        harness.run(['unsquashfs', '-no-progress', '-d', seen, path])
        found = content(seen)
        shutil.rmtree(seen)
        return found


def check(scene, states, done=True):
    """Make sure that nothing came to harm: to be called after each fault, and after the call that follows it.

    :param scene: where it happened (OverlayScene)
    :param states: of which it may be in one now (list of str)
    :param done: whether nothing may be left of the fault (bool); after kill -9 the next call sees to that
    :returns: the state in which it is (str)
    """
    scene.nothing_runs()
    state = scene.look()
    assert state in states
    if done:
        assert set(os.listdir(scene.root)) == scene.references[state]
        assert os.listdir(scene.tmp) == [] and os.listdir(scene.home) == []
    return state


def content(directory):
    """Return all that is in a directory and itself: path -> mode, link or hash, time of change (dict)."""
    info = os.lstat(directory)
    return dict(tree(directory), **{'.': (info.st_mode, info.st_mtime_ns)})


def fill(directory, count):
    """Make a directory with files of a user's in it; squashfs has whole seconds."""
    source = random.Random(count)
    for number in range(count):
        path = directory / 'venv' / 'toy' / str(number % 7) / ('file %d' % number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.randbytes(10000) + b'x' * 10000)
        path.chmod(0o640)
    (directory / 'private').mkdir(mode=0o700, parents=True)
    (directory / 'private' / 'mine').write_text('precious')
    (directory / 'private' / 'mine').chmod(0o400)
    (directory / 'link').symlink_to('/nonexistent/outside')
    os.link(directory / 'private' / 'mine', directory / 'linked')
    for parent, directories, names in os.walk(directory, topdown=False):
        for number, name in enumerate(directories + names):
            os.utime(os.path.join(parent, name), (10 ** 9 + number, 10 ** 9 + number), follow_symlinks=False)
    os.utime(directory, (10 ** 9, 10 ** 9))
