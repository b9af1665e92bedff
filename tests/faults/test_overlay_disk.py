# SPDX-License-Identifier: GPL-2.0-only
"""make-squashfs and unmake-squashfs on a disk that is full, or may not be written any more."""

import os
import re
import time

import pytest

from overlay_scene import NEXT, PACK, UNPACK, OverlayScene, check
from small_disk import on_small_disk, read_only

pytestmark = pytest.mark.e2e

SIZE = 24 << 20  # bytes
#: command -> the state before it, the program that it runs
COMMANDS = {PACK: ('directory', 'mksquashfs'), UNPACK: ('squashfs', 'unsquashfs')}

#: fills the disk to the last byte
FILL = 'cat /dev/zero >"$FILLER" 2>/dev/null'
#: waits until whoever watches it has done what is to happen now
ASK = ': >"$ASKED"; while [ -e "$ASKED" ]; do sleep 0.01; done'
WHEN = {'before': '%s; exec "$REAL" "$@"', 'after': '"$REAL" "$@" || exit; %s'}


def where_it_writes(script):
    """Return a script that stands for mksquashfs or unsquashfs, which is as the real one where it only lists."""
    return 'case "$*" in *-ll*) exec "$REAL" "$@" ;; esac\n' + script


def goes_on(scene, command):
    """See that nothing was changed, and that the next call succeeds."""
    state = COMMANDS[command][0]
    check(scene, [state])
    scene(*command)
    check(scene, [NEXT[state][command]])


def full(command, left):
    """Return a function that leaves so many bytes on the disk, and looks what a command does (left: int)."""
    def one(scene):
        scene.restore(COMMANDS[command][0])
        filler = scene.disk / 'filler'
        info = os.statvfs(scene.disk)
        with open(filler, 'wb') as handle:
            os.posix_fallocate(handle.fileno(), 0, info.f_bavail * info.f_frsize - left)
        result = scene.fails(*command)
        assert re.search('No space left on device|not enough space| failed; nothing was changed', result.stderr)
        filler.unlink()
        goes_on(scene, command)
    return one


def fills_up(command, when):
    """Return a function that lets the disk fill up while a command is at work, and looks what it does."""
    def one(scene):
        state, program = COMMANDS[command]
        filler = scene.disk / 'filler'
        scene.restore(state).stand_in(program, where_it_writes(WHEN[when] % FILL))
        result = scene.fails(*command, FILLER=str(filler))
        assert re.search('No space left on device| failed; nothing was changed', result.stderr)
        filler.unlink()
        (scene.stand_ins / program).unlink()
        goes_on(scene, command)
    return one


def closed(command):
    """The same with a file system that is read-only."""
    def one(scene):
        scene.restore(COMMANDS[command][0])
        read_only(scene.disk, True)
        result = scene.fails(*command)
        read_only(scene.disk, False)
        assert 'Read-only file system' in result.stderr
        goes_on(scene, command)
    return one


def closes(command, when):
    """The same with one that becomes it while a command is at work."""
    def one(scene):
        state, program = COMMANDS[command]
        asked = scene.directory / 'asked'
        scene.restore(state).stand_in(program, where_it_writes(WHEN[when] % ASK))
        process = scene.start(*command, ASKED=str(asked))
        while not asked.exists():
            assert process.poll() is None
            time.sleep(0.02)
        read_only(scene.disk, True)
        asked.unlink()
        output, errors = process.communicate(timeout=60)
        assert process.returncode in (1, 3) and output == b'' and b'Read-only file system' in errors, errors
        read_only(scene.disk, False)
        (scene.stand_ins / program).unlink()
        check(scene, [state], done=False)
        scene(*command)
        check(scene, [NEXT[state][command]])
    return one


@pytest.fixture
def small_disk(tmp_path, moment):
    """A function that calls others with an overlay on a small file system, each of which is one moment."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    def call(steps):
        for failure in on_small_disk(disk, SIZE, [lambda: OverlayScene(tmp_path, disk).prepare(), *steps]):
            with moment():
                assert failure is None, failure
    return call


@pytest.mark.fault('a full disk before `make-squashfs` or `unmake-squashfs`, or while it is at work')
def test_the_disk_is_full(small_disk):
    steps = [full(command, left) for command in COMMANDS for left in (0, 20000, 400000, 2000000)]
    small_disk(steps + [fills_up(command, when) for command in COMMANDS for when in WHEN])


@pytest.mark.fault('a file system that is read-only before `make-squashfs` or `unmake-squashfs`, or becomes it')
def test_the_file_system_is_read_only(small_disk):
    small_disk([closed(command) for command in COMMANDS]
               + [closes(command, when) for command in COMMANDS for when in WHEN])


@pytest.mark.fault('no file may be larger than a limit (`ulimit -f`) in `make-squashfs` or `unmake-squashfs`')
def test_files_may_not_be_large(each_overlay, moment):
    def one(scene, fault):
        command, kilobytes = fault
        with moment():
            scene.restore(COMMANDS[command][0])
            result = scene.fails(*command, before=['bash', '-c', 'ulimit -f "$0" && exec "$@"', str(kilobytes)])
            assert 'File too large' in result.stderr or 'ulimit -f' in result.stderr
            goes_on(scene, command)
    each_overlay(one, [(PACK, 0), (PACK, 1), (PACK, 200), (PACK, 2000), (UNPACK, 0), (UNPACK, 1), (UNPACK, 10)])
