# SPDX-License-Identifier: GPL-2.0-only
"""Many at once on one overlay: commands of ours, and pip while it is packed."""

import os
import re
import subprocess
import sys
import time
import zipfile

import pytest

import harness
from overlay_scene import PACK, UNPACK, OverlayScene, check, content
from standins import package

pytestmark = pytest.mark.e2e

MANY = 6


@pytest.mark.fault('6 calls of `make-squashfs` or of `unmake-squashfs` at once: one does it')
@pytest.mark.parametrize('command, before, after, done', [
    (PACK, 'directory', 'both', 'is packed already'), (UNPACK, 'squashfs', 'unpacked', 'is not packed')],
    ids=['pack', 'unpack'])
def test_one_of_many_does_it(overlays, moment, command, before, after, done):
    scene = overlays[0].restore(before)
    started = [scene.start(*command) for _ in range(MANY)]
    results = [(process.communicate(timeout=60), process.returncode) for process in started]
    for (output, errors), status in results:
        with moment():
            if status:
                told = errors.decode()
                assert (status, output) == (1, b'')
                assert done in told or 'another process is at work here\n  holder  process ' in told, told
            else:
                assert b'packed' in output
    assert [status for _, status in results].count(0) == 1
    check(scene, [after])


FILES = 500  #: of the package that pip installs
MOMENTS = 4


def whole_seconds(found):
    """Return a `content` with times as a squashfs has them (dict)."""
    return {path: (*what, time // 10 ** 9 * 10 ** 9) for path, (*what, time) in found.items()}


@pytest.fixture
def growing(tmp_path):
    """An overlay with a virtual environment of the host's Python, and a function that starts its pip (tuple)."""
    scene = OverlayScene(tmp_path, files=20)
    venv, wheel = scene.root / 'user-software' / 'venv' / 'real', package(tmp_path, 'large', '1')
    with zipfile.ZipFile(wheel, 'a') as archive:
        for number in range(FILES):
            archive.writestr('large/data/%d.py' % number, 'x = %d\n' % number * 20)
    harness.run([sys.executable, '-m', 'venv', '--without-pip', venv])
    scene.content = content(scene.root / 'user-software')
    scene.keep('directory')

    def pip():
        return subprocess.Popen([sys.executable, '-m', 'pip', '--quiet', '--python', venv / 'bin' / 'python', 'install',
                                 '--no-index', '--no-cache-dir', wheel], env=dict(os.environ, MARKER=scene.marker))
    return scene, pip


@pytest.mark.fault('`make-squashfs` while pip installs: it refuses, or packs what was there before or after pip')
def test_pip_is_at_work(growing, moment):
    scene, pip = growing
    before, start = scene.content, time.monotonic()
    assert pip().wait(timeout=60) == 0
    duration, statuses = time.monotonic() - start, []
    packed = scene.root / 'user-software.squashfs'
    for number in range(5 * MOMENTS):
        if number >= MOMENTS and 1 in statuses:
            break
        scene.restore('directory')
        process = pip()
        time.sleep(duration * (number % MOMENTS + 0.5) / MOMENTS)
        result = scene(*PACK, check=False)
        assert process.wait(timeout=60) == 0
        after = content(scene.root / 'user-software')
        assert len(after) > len(before) + FILES
        with moment():
            if result.status:
                assert re.search(r'the directory changed while it was|1 process may write to the overlay\n  process \d',
                                 result.stderr), result.stderr
                assert not packed.exists() and len(os.listdir(scene.root)) == 1
                scene(*PACK)
            elif scene.packed(packed) == whole_seconds(before) != whole_seconds(after):
                scene(*PACK, '--replace')
            assert scene.packed(packed) == whole_seconds(after)
        statuses.append(result.status)
    assert 1 in statuses
