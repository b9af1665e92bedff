# SPDX-License-Identifier: GPL-2.0-only
"""A disk that is full, or may not be written any more, from the middle of an install on."""

import os
import stat
import time

import pytest

from scene import Scene, check
from small_disk import on_small_disk, read_only

pytestmark = pytest.mark.e2e

STEPS = ('pre_fetch', 'pre_build', 'pre_install', 'post_sanitycheck', 'post_package')
SIZE = 24 << 20  # bytes


def from_registry(scene):
    """Return the recipe of generation 1 with an image that is fetched (Path)."""
    return scene.recipe(scene.directory / 'fetched', '1.0', 1, image='docker://docker.io/stand-in/busybox:1',
                        sanity_check_commands=["start-shell -c 'echo it runs'"])


def fails(scene, recipe, fault, status=None):
    """Have a rebuild fail."""
    result = scene.eb(recipe, '--rebuild', faults={'1.0': fault}, check=False)
    assert result.status != 0, result.output
    assert 'Traceback' not in result.output.split('== building and installing')[-1].split('Logging error')[0]
    return result


def full(step):
    """Return a function that fills the disk before or after a step of a rebuild, and looks what happens."""
    def one(scene):
        before = scene.state()
        recipe = from_registry(scene) if step == 'pre_fetch' else scene.recipes[1 - scene.stands()]
        result = fails(scene, recipe, {'do': 'fill', 'step': step})
        assert 'No space left on device' in result.output or 'not enough space for the image' in result.output
        (scene.directory / 'filler').unlink()
        check(scene, [0, 1], before)
        generation = 1 - scene.stands()
        scene.install(generation)
        check(scene, [generation])
    return one


def closed(step):
    """The same with a file system that is read-only from then on."""
    def one(scene):
        before, asked = scene.state(), scene.directory / 'asked'
        generation = 1 - scene.stands()
        process = scene.start(scene.recipes[generation], '--rebuild', faults={'1.0': {'do': 'ask', 'step': step}})
        while not asked.exists():
            assert process.poll() is None
            time.sleep(0.05)
        asked.unlink()
        read_only(scene.directory, True)
        output = process.communicate(timeout=60)[0].decode()
        assert process.returncode != 0 and 'Read-only file system' in output, output
        check(scene, [1 - generation], before, done=False)
        read_only(scene.directory, False)
        scene.install(generation)
        check(scene, [generation])
    return one


@pytest.fixture
def small_disk(tmp_path, toy, registry, moment):
    """A function that calls others with a scene on a small file system, each of which is one moment."""
    disk = tmp_path / 'disk'
    disk.mkdir()

    def call(steps):
        failures = on_small_disk(disk, SIZE, [lambda: Scene(disk, toy, registry, tmp_path / 'tmp').prepare(), *steps])
        for failure in failures:
            with moment():
                assert failure is None, failure
    return call


@pytest.mark.fault('a full disk before fetch, build, install, module, and before the new one takes its place')
def test_the_disk_is_full(small_disk):
    small_disk(map(full, STEPS))


@pytest.mark.fault('a file system that is read-only from the middle of a rebuild on')
def test_the_file_system_becomes_read_only(small_disk):
    small_disk(map(closed, STEPS[2:]))


@pytest.mark.fault('no file may be larger than 2 KB (`ulimit -f`) from fetch, build, install or module on')
def test_files_may_not_be_large(scenes, each, moment):
    for scene in scenes:
        scene.restore(0)

    def one(scene, step):
        before, stands = scene.state(), scene.stands()
        recipe = from_registry(scene) if step == 'pre_fetch' else scene.recipes[1 - stands]
        with moment():
            fails(scene, recipe, {'do': 'limit', 'step': step})
            check(scene, [stands], before)
            scene.install(1 - stands)
            check(scene, [1 - stands])
        scene.use()
    each(one, STEPS[:4])


@pytest.mark.nightly
@pytest.mark.fault('a prefix whose directories are closed in the middle of a rebuild')
def test_the_prefix_is_closed(scenes, each, moment):
    for scene in scenes:
        scene.restore(0)

    def one(scene, step):
        before, stands = scene.state(), scene.stands()
        modes = {parent: stat.S_IMODE(os.stat(parent).st_mode) for parent, _, _ in os.walk(scene.prefix)}
        with moment():
            fails(scene, scene.recipes[1 - stands], {'do': 'close', 'step': step})
            for parent, _, _ in os.walk(scene.prefix):
                os.chmod(parent, modes.get(parent, 0o755))
            check(scene, [stands], before, done=False)
            scene.install(1 - stands)
            check(scene, [1 - stands])
        scene.use()
    each(one, STEPS[2:])
