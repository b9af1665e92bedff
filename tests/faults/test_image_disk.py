# SPDX-License-Identifier: GPL-2.0-only
"""A disk that is full while an image is fetched, made or installed, for each way in which it may come."""

import pytest

from image_scene import WAYS, ImageScene, check
from small_disk import on_small_disk

pytestmark = pytest.mark.e2e

SIZE = 40 << 20  # bytes
STEPS = [(way, 'pre_fetch') for way in WAYS] + [('docker', 'pre_build'), ('https', 'pre_install')]
FULL = ('No space left on device', 'not enough space for the image', 'File too large', 'File size limit exceeded',
        'no space left on device', 'file too large', 'SIGXFSZ')


def fails(scene, way, fault):
    """Have an install fail, and look that the next one succeeds."""
    result = scene.eb(scene.ways[way], faults={'1.0': fault}, check=False)
    assert result.status != 0 and any(words in result.output for words in FULL), result.output
    assert 'Traceback' not in result.output.split('== building and installing')[-1].split('Logging error')[0]
    return result


def full(way, step):
    """Return a function that fills the disk before a step of an install, and looks what happens."""
    def one(scene):
        scene.undisturbed(way)
        fails(scene, way, {'do': 'fill', 'step': step})
        (scene.directory / 'filler').unlink()
        # what was fetched before is kept for another try
        check(scene, way, False, done=step == 'pre_fetch')
        scene.eb(scene.ways[way])
        check(scene, way, True)
        scene.reset()
    return one


@pytest.mark.fault('a full disk before fetch, for each of six kinds of image, before build and before install')
@pytest.mark.parametrize('steps', [STEPS[2:3] + STEPS[-1:], pytest.param(STEPS[:2] + STEPS[3:-1],
                                                                         marks=pytest.mark.nightly)],
                         ids=['some', 'others'])
def test_the_disk_is_full(tmp_path, toy, server, archives, moment, steps):
    disk = tmp_path / 'disk'
    disk.mkdir()
    failures = on_small_disk(disk, SIZE, [
        lambda: ImageScene(disk, toy, server, archives, tmp_path / 'tmp').prepare(), *(full(*one) for one in steps)])
    for failure in failures:
        with moment():
            assert failure is None, failure


@pytest.mark.fault('no file may be larger than half of an image (`ulimit -f`) while it is fetched, for six kinds')
@pytest.mark.parametrize('ways', [WAYS[:1] + WAYS[2:3], pytest.param(WAYS[1:2] + WAYS[3:],
                                                                     marks=pytest.mark.nightly)],
                         ids=['some', 'others'])
def test_files_may_not_be_large(each_image, moment, ways):
    def one(scene, way):
        scene.undisturbed(way)
        with moment():
            fails(scene, way, {'do': 'limit', 'step': 'pre_fetch', 'bytes': 500000})
            check(scene, way, False)
            scene.eb(scene.ways[way])
            check(scene, way, True)
        scene.reset()
    each_image(one, ways)
