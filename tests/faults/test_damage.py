# SPDX-License-Identifier: GPL-2.0-only
"""Files of an installed module that somebody damaged: what users and `easysif verify` are told, and what mends it."""

import os
import time

import pytest

import harness
from scene import check

pytestmark = pytest.mark.e2e


def _flip(path):
    path.chmod(0o644)
    with open(path, 'r+b') as image:
        image.seek(-5000, os.SEEK_END)
        byte = image.read(1)
        image.seek(-1, os.SEEK_CUR)
        image.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)


#: what is done to which file; whether a load or a command fails, and what they say; what verify says
DAMAGES = {
    'a module file that was removed': ('module', lambda path: path.unlink(), True, 'unknown', 'is missing'),
    'a module file that was emptied': ('module', lambda path: path.write_text(''), True, '', 'changed'),
    'a module file with garbage': ('module', lambda path: path.write_text('{{{"'), True, '1.0.lua', 'changed'),
    '`easysif.json` with garbage': ('manifest', lambda path: path.write_text('{'), False, 'it runs', 'is damaged'),
    '`easysif.json` that was removed': ('manifest', lambda path: path.unlink(), False, 'it runs', 'easysif.json'),
    'an image that was removed': ('image', lambda path: path.unlink(), True, 'toy.sif', 'toy.sif'),
    'an image with another bit': ('image', _flip, True, 'put/output error', 'sha256'),
}


@pytest.mark.parametrize('damage', [pytest.param(name, marks=pytest.mark.fault(name)) for name in DAMAGES])
def test_it_is_told_and_mended(scene, moment, damage):
    which, do, fails, said, verified = DAMAGES[damage]
    do(scene.files()[which])
    loaded = harness.run_shell('module load toy/1.0 && start-shell -c "fine it runs"', scene.prefix,
                               scene.directory / 'home', check=False)
    verify = harness.run(['easysif', 'verify', 'toy/1.0'], env=scene.environment(), check=False)
    with moment():
        assert (loaded.status != 0) is fails and said in loaded.output, loaded.output
        assert verify.status != 0 and verified in verify.output, verify.output
        scene.eb(scene.recipes[0], '--rebuild')
        check(scene, [0])
        verify = harness.run(['easysif', 'verify', 'toy/1.0'], env=scene.environment())


@pytest.mark.fault('the installed image of a registry with another bit, which is not taken for a rebuild')
def test_a_damaged_image_of_a_registry_is_fetched_again(scene, moment):
    recipe = scene.recipe(scene.directory / 'fetched', '1.0', 1, image='docker://docker.io/stand-in/busybox:1',
                          sanity_check_commands=["start-shell -c 'echo it runs'"])
    scene.eb(recipe, '--rebuild')
    image = scene.prefix / 'software' / 'toy' / '1.0' / 'toy-1.0.sif'
    _flip(image)
    with moment():
        scene.eb(recipe, '--rebuild')
        harness.run(['easysif', 'verify', 'toy/1.0'], env=scene.environment())
    scene.install(0)
    check(scene, [0])


@pytest.mark.fault('a clock that goes back an hour in the middle of a rebuild, as eb sees it')
def test_the_clock_goes_back(scene, moment):
    with moment():
        scene.install(1, {'do': 'back', 'step': 'pre_install'})
        check(scene, [1])


@pytest.mark.fault('files of the prefix, and the lock of a killed session, that were changed in a year from now')
def test_files_come_from_the_future(scene, moment):
    assert scene.install(1, {'do': 'kill', 'step': 'post_install'}, check=False).status in (-9, 137)
    future = time.time() + 365 * 86400
    for place in ('software/toy/1.0', 'software/toy/.1.0.new', 'software/.locks', 'modules', 'easysif'):
        for parent, _, names in os.walk(scene.prefix / place):
            for path in (parent, *(os.path.join(parent, name) for name in names)):
                os.utime(path, (future, future), follow_symlinks=False)
    before = scene.state()
    with moment():
        check(scene, [0], before, done=False)
        scene.install(1)
        check(scene, [1])
