# SPDX-License-Identifier: GPL-2.0-only
"""Damaged squashfs files, mksquashfs that does not do what it is told, files of odd kinds, many files."""

import os
import socket

import pytest

import harness
import made_up
from overlay_scene import NEXT, PACK, REMOVE, UNPACK, OverlayScene, check, content
from scene import tree
from small_disk import on_small_disk

pytestmark = pytest.mark.e2e

MEMORY = 300e6 / 2**20  # MiB

#: program -> what it does wrong (script), and what is said of it
WRONG = {
    'mksquashfs': [
        ('echo "FATAL ERROR: no luck" >&2; exit 1', 'mksquashfs failed; nothing was changed\n', 'no luck'),
        ('kill -9 $$', 'mksquashfs failed', 'killed by SIGKILL'),
        ('"$REAL" "$@" >/dev/null; truncate -s 5000 "$2"; kill -15 $$', 'mksquashfs failed', 'killed by SIGTERM'),
        ('exit 0', 'mksquashfs left no whole file'),
        ('head -c 5000 /dev/zero >"$2"', 'mksquashfs left no whole file (it is no squashfs file)'),
        ('"$REAL" "$@" >/dev/null; truncate -s 5000 "$2"', 'mksquashfs left no whole file (it is cut off: 5000 of '),
        ('"$REAL" "$@" -e private >/dev/null', ' files are not in the squashfs as they are'),
        ('rm -rf "$HOME/../half"; cp -a "$1" "$HOME/../half"; : >"$HOME/../half/venv/toy/0/file 0"; shift; '
         '"$REAL" "$HOME/../half" "$@" >/dev/null', '1 files are not in the squashfs as they are')],
    'unsquashfs': [
        ('echo "no luck" >&2; exit 1', 'unsquashfs failed; nothing was changed\n', 'no luck'),
        ('kill -9 $$', 'unsquashfs failed', 'killed by SIGKILL'),
        ('"$REAL" "$@" >/dev/null; exit 1', 'unsquashfs failed'),
        ('"$REAL" "$@" >/dev/null; while [ "$1" != -d ]; do shift; done; : >"$2/venv/toy/0/file 0"',
         '1 files were not unpacked as they are'),
        ('"$REAL" "$@" >/dev/null; while [ "$1" != -d ]; do shift; done; rm -rf "$2/venv"',
         ' files were not unpacked as they are'),
        ('exit 0', 'unmake-squashfs: ')]}


@pytest.mark.fault('mksquashfs or unsquashfs that fails, is killed, prints nothing, writes half or other things')
@pytest.mark.parametrize('program, command, before', [('mksquashfs', PACK, 'directory'),
                                                      ('mksquashfs', REMOVE, 'directory'),
                                                      ('unsquashfs', UNPACK, 'squashfs')])
def test_a_program_does_not_do_what_it_is_told(overlays, moment, program, command, before):
    scene = overlays[0].restore(before)
    for script, *said in WRONG[program]:
        scene.stand_in(program, 'case "$*" in *-ll*) exec "$REAL" "$@" ;; esac\n' + script)
        with moment():
            result = scene.fails(*command)
            assert [words for words in said if words not in result.stderr] == [], result.stderr
            check(scene, [before])
    scene.stand_in(program, 'exec "$REAL" "$@" >/dev/null 2>&1' if program == 'mksquashfs' else 'exec "$REAL" "$@"')
    with moment():
        scene(*command)
        check(scene, [NEXT[before][command]])


@pytest.mark.fault('a bit that flips in mksquashfs: `make-squashfs --verify=full` compares every byte')
def test_what_was_packed_is_something_else_of_the_same_size(overlays, moment):
    scene = overlays[0].restore('directory')
    scene.stand_in('mksquashfs', 'rm -rf "$HOME/../half"; cp -a "$1" "$HOME/../half"; cd "$HOME/../half/venv/toy/0"; '
                                 'tr x y <"file 7" >other && touch -r "file 7" other && chmod 640 other && '
                                 'cat other >"file 7" && touch -r other "file 7" && rm other; '
                                 'touch -r "$1/venv/toy/0" .; shift; "$REAL" "$HOME/../half" "$@" >/dev/null')
    with moment():
        result = scene.fails(*REMOVE, '--verify=full')
        assert '1 files are not in the squashfs as they are\n  first  venv/toy/0/file 7\n' in result.stderr
        check(scene, ['directory'])


@pytest.mark.fault('a bit that flips in the squashfs file: `easysif overlay check` finds it, and it is not unpacked')
def test_a_bit_flips(overlays, moment):
    scene = overlays[0].restore('squashfs')
    path, whole = scene.root / 'user-software.squashfs', (scene.root / 'user-software.squashfs').read_bytes()
    overlay_check = ['overlay', 'check', scene.installed.name, '--prefix', str(scene.installed.prefix)]
    assert made_up.run_easysif(*overlay_check).status == 0
    for number in (0, 5, 41, 95, 96, len(whole) // 2, len(whole) * 3 // 4, len(whole) - 5000, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[number] ^= 4
        path.write_bytes(damaged)
        with moment():
            result = made_up.run_easysif(*overlay_check)
            assert result.status == 1 and str(path) in result.output and 'DAMAGED' in result.output, result.output
            result = scene.fails(*UNPACK)
            assert 'the squashfs file is damaged: ' in result.stderr
            assert path.read_bytes() == damaged and not (scene.root / 'user-software').exists()
    path.write_bytes(whole)
    with moment():
        scene(*UNPACK)
        check(scene, ['unpacked'])


@pytest.mark.fault('a link out of the overlay, a fifo, a socket: packed as they are')
def test_odd_files_come_back(tmp_path, moment):
    scene = OverlayScene(tmp_path, files=10)
    directory, outside = scene.root / 'user-software', tmp_path / 'outside'
    (outside / 'deep').mkdir(parents=True)
    (outside / 'deep' / 'file').write_text('not of the overlay')
    (directory / 'out').symlink_to(outside)
    (directory / 'up').symlink_to('../../../../..')
    os.mkfifo(directory / 'fifo')
    here = os.getcwd()
    os.chdir(directory)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind('socket')
    os.chdir(here)
    for name in ('out', 'up', 'fifo', 'socket', '.'):
        os.utime(directory / name, (10 ** 9, 10 ** 9), follow_symlinks=False)
    scene.content = content(directory)
    with moment():
        scene(*REMOVE)
        assert scene.look() == 'squashfs'
        scene(*UNPACK)
        assert scene.look() == 'unpacked'
        assert (outside / 'deep' / 'file').read_text() == 'not of the overlay'


@pytest.mark.fault('a file or a directory that cannot be read: it is named, and nothing is packed')
@pytest.mark.parametrize('name', ['venv/toy/0/file 0', 'venv/toy/3'])
def test_a_file_cannot_be_read(overlays, moment, name):
    scene = overlays[0].restore('directory')
    path = scene.root / 'user-software' / name
    mode = path.stat().st_mode
    path.chmod(0)
    with moment():
        result = scene.fails(*REMOVE)
        assert 'cannot be read (Permission denied)\n  file  %s' % path in result.stderr
        path.chmod(mode)
        check(scene, ['directory'])
        scene(*REMOVE)
        check(scene, ['squashfs'])


@pytest.mark.fault('an overlay of 200,000 files (20,000 in every run of the tests)')
@pytest.mark.parametrize('count', [20000, pytest.param(200000, marks=pytest.mark.nightly)])
def test_there_are_many_files(tmp_path, moment, count):
    def make():
        scene = OverlayScene(tmp_path, disk, files=0)
        for number in range(count // 1000):
            below = scene.root / 'user-software' / 'venv' / str(number)
            below.mkdir(parents=True)
            for name in range(1000):
                with open(below / str(name), 'wb') as handle:
                    handle.write(b'' if name % 9 else b'%d' % number)
        return scene

    def use(scene):
        directory = scene.root / 'user-software'
        before = {path: what[:2] for path, what in tree(directory).items()}
        for command, *options in (REMOVE, UNPACK):
            taken = harness.peaks([scene.installed.root / 'bin' / command, *options], scene.environment())
            assert max(taken.values()) < MEMORY, taken
        assert {path: what[:2] for path, what in tree(directory).items()} == before and len(before) > count

    disk = tmp_path / 'disk'
    disk.mkdir()
    with moment():
        assert on_small_disk(disk, 2 << 30, [make, use]) == [None]
