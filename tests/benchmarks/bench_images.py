# SPDX-License-Identifier: GPL-2.0-only
"""What it costs to get an image: a large SIF file from the source path, and an image of a registry."""

import os
import shutil
import time

import pytest

import harness

MEMORY = 200e6 / 2**20  # MiB

#: seconds in which ext4 does not use the inodes of deleted files again; until then each new file costs up to a
#: millisecond, which one contestant would pay for what the one before it has removed (recently_deleted in
#: fs/ext4/ialloc.c, RECENTCY_MIN)
RECENTLY = 60

RECIPE = """easyblock = 'ContainerImage'

name = '%(name)s'
version = '1'

homepage = 'https://example.org'
description = "An image of some size"

toolchain = SYSTEM

image = '%(name)s.sif'
commands = ['sh']

sanity_check_commands = ['sh -c "test 2 -eq 2"']

moduleclass = 'tools'
"""

PULL = """
import sys
from easysif import runtime
from easysif.images import build, reference, registry
from easysif.site import resolve
image, target, work = sys.argv[1:]
site = resolve().site
build.from_registry(registry.resolve(reference.parse(image, 'bench'), site.registry_mirrors, 'bench'), target,
                    runtime.find(site), site, work, work + '/log')
"""


@pytest.fixture(scope='session')
def large(tmp_path_factory, images):
    """A directory with ``large.sif``, 1.5 GB of random bytes around a busybox, and ``small.sif`` of 1 MB (Path)."""
    directory = tmp_path_factory.mktemp('large')
    tree = directory / 'tree'
    harness.run(['apptainer', 'build', '--sandbox', tree, images.sif('busybox')],
                env=harness.user_environment(directory / 'home'))
    with open(tree / 'random', 'wb') as handle:
        for _ in range(1500):
            handle.write(os.urandom(1 << 20))
    harness.run(['apptainer', 'build', '--mksquashfs-args', '-comp zstd -Xcompression-level 1 -noD',
                 directory / 'large.sif', tree], env=harness.user_environment(directory / 'home'))
    shutil.rmtree(tree)
    shutil.copy(images.sif('busybox'), directory / 'small.sif')
    for name in ('large', 'small'):
        (directory / ('%s-1.eb' % name)).write_text(RECIPE % {'name': name})
    return directory


def test_install_of_a_large_sif(large, tmp_path, measure, claim):
    """1.5 GB from the source path: beyond eb itself at most 1.25 times the slower of copying and of hashing."""
    prefix, copy = tmp_path / 'prefix', tmp_path / 'copy'
    env = dict(harness.eb_environment(prefix, tmp_path / 'home'), EASYBUILD_SOURCEPATH=str(large))

    def fresh():
        shutil.rmtree(prefix, ignore_errors=True)
        copy.unlink(missing_ok=True)
        os.sync()

    image = large / 'large.sif'
    times = measure(5, small=(['eb', large / 'small-1.eb'], env, fresh),
                    large=(['eb', large / 'large-1.eb'], env, fresh),
                    copying=(['sh', '-c', 'cp "$0" "$1" && sync "$1"', image, copy], env, fresh),
                    hashing=(['openssl', 'dgst', '-sha256', image], env, fresh))
    beyond = times['large'].seconds - times['small'].seconds
    slower = max(times['copying'].seconds, times['hashing'].seconds)
    claim('install a 1.5 GB SIF from the source path, beyond eb itself', '%.1f s' % beyond,
          'slower of cp with sync (%.1f s) and openssl dgst (%.1f s)' % (times['copying'].seconds,
                                                                         times['hashing'].seconds),
          beyond / slower, 1.25)
    claim('its memory', '%.0f MiB' % times['large'].memory, '200 MB', times['large'].memory / MEMORY, 1)
    fresh()
    harness.run(['eb', large / 'large-1.eb'], env=env)
    used = sum(path.lstat().st_blocks * 512 for path in prefix.rglob('*'))
    claim('disk that it takes', '%.2f GB' % (used / 1e9), 'the image', used / image.stat().st_size, 1.01)


def test_a_docker_image_becomes_a_sif(images, site_file, tmp_path, measure, claim):
    """An image of a registry: at least 3 times as fast as ``apptainer pull``, no larger, with little memory."""
    ours, theirs, work = tmp_path / 'ours.sif', tmp_path / 'theirs.sif', tmp_path / 'work'
    work.mkdir()
    env = harness.eb_environment(tmp_path, tmp_path / 'home', site_file())

    def fresh():
        for path in (ours, theirs):
            path.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / 'cache', ignore_errors=True)
        settle()

    def settle():
        os.sync()
        time.sleep(RECENTLY + 5)

    def keep():
        ours.rename(kept)
        settle()

    pull = dict(env, APPTAINER_CACHEDIR=str(tmp_path / 'cache'), APPTAINER_NOHTTPS='1')
    kept = tmp_path / 'kept.sif'
    times = measure(3, ours=([env['EB_PYTHON'], '-c', PULL, images.upstream('jax'), ours, work], env, fresh),
                    pull=(['apptainer', 'pull', theirs, images.local('jax')], pull, keep))
    claim('a docker image becomes a SIF', '%.1f s' % times['ours'].seconds,
          'apptainer pull, %.1f s' % times['pull'].seconds,
          times['pull'].seconds / times['ours'].seconds, 3, most=False)
    sizes = [path.stat().st_size for path in (kept, theirs)]
    claim('its size', '%.0f MB' % (sizes[0] / 1e6), 'apptainer pull, %.0f MB' % (sizes[1] / 1e6),
          sizes[0] / sizes[1], 1)
    assert os.listdir(work) == ['log'], 'the cache is gone afterwards'
    settle()
    memory = [max(harness.peaks(argv, environment).values()) for argv, environment in (
        ([env['EB_PYTHON'], '-c', PULL, images.upstream('jax'), tmp_path / 'again.sif', work], env),
        (['apptainer', 'pull', '--force', theirs, images.local('jax')],
         dict(pull, APPTAINER_CACHEDIR=str(tmp_path / 'another'))))]
    claim('its memory', '%.0f MiB' % memory[0], 'apptainer pull, %.0f MiB' % memory[1], memory[0] / memory[1], 0.2)
