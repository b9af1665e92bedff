# SPDX-License-Identifier: GPL-2.0-only
"""What it costs to install a SIF file of 8 GB: from another file system, from the same one, and as SHPC does it."""

import os
import shutil
import subprocess
import time

import pytest

import harness
from bench_images import MEMORY, RECIPE

SIZE = 8 << 30    #: bytes of what is in the image beside a busybox
RANDOM = 1 << 20  #: bytes of random content at the start of each PIECE; the rest is a hole
PIECE = 8 << 20

#: a file system in memory, not that of TMPDIR
OTHER = '/dev/shm'

SHPC = """docker: example.org/huge
url: https://example.org
maintainer: '@nobody'
description: an image of some size
latest: {"1": "sha256:%(zero)s"}
tags: {"1": "sha256:%(zero)s"}
aliases: {sh: /bin/sh}
""" % {'zero': '0' * 64}


@pytest.fixture(scope='module')
def huge(tmp_path_factory, images):
    """A directory with recipes, and in memory ``huge.sif`` of 8 GB, most of it holes, and a small one (Path)."""
    directory = tmp_path_factory.mktemp('huge')
    other = directory / 'other'
    place = '%s/easysif-%d-%s' % (OTHER, os.getpid(), directory.name)
    os.mkdir(place)
    other.symlink_to(place)
    try:
        content = other / 'content'
        with open(content, 'wb') as handle:
            handle.truncate(SIZE)
            for offset in range(0, SIZE, PIECE):
                os.pwrite(handle.fileno(), os.urandom(RANDOM), offset)
        shutil.copy(images.sif('busybox'), other / 'small.sif')
        shutil.copy(other / 'small.sif', other / 'huge.sif')
        (other / 'huge.sif').chmod(0o644)
        harness.run(['apptainer', 'sif', 'add', '--datatype', '7', '--groupid', '1', other / 'huge.sif', content],
                    env=harness.user_environment(directory / 'home'))
        content.unlink()
        harness.run(['fallocate', '--dig-holes', other / 'huge.sif'])
        for name in ('huge', 'small'):
            digest = harness.run(['openssl', 'dgst', '-sha256', '-r', other / ('%s.sif' % name)]).stdout.split()[0]
            (directory / ('%s-1.eb' % name)).write_text((RECIPE % {'name': name}).replace(
                '\ncommands', "\ndigest = 'sha256:%s'\ncommands" % digest))
        yield directory
    finally:
        shutil.rmtree(place)


def test_install_from_another_file_system(huge, tmp_path, measure, claim):
    """8 GB, with sha256: beyond eb itself at most 1.1 times the slower of copying and hashing, 1.3 times SHPC."""
    prefix, copy = tmp_path / 'prefix', tmp_path / 'copy'
    image = huge / 'other' / 'huge.sif'
    recipe = huge / 'huge-1.eb'
    env = dict(harness.eb_environment(prefix, tmp_path / 'home'), EASYBUILD_SOURCEPATH=str(huge / 'other'))
    shpc, shpc_env = installed_shpc(tmp_path / 'shpc')

    def fresh():
        for path in (prefix, tmp_path / 'shpc' / 'modules', tmp_path / 'shpc' / 'containers'):
            shutil.rmtree(path, ignore_errors=True)
        copy.unlink(missing_ok=True)
        os.sync()

    times = measure(3, small=(['eb', huge / 'small-1.eb'], env, fresh), huge=(['eb', recipe], env, fresh),
                    copying=(['sh', '-c', 'cp "$0" "$1" && sync "$1"', image, copy], env, fresh),
                    hashing=(['openssl', 'dgst', '-sha256', image], env, fresh),
                    theirs=([shpc, 'install', 'huge:1', image], shpc_env, fresh),
                    theirs_small=([shpc, 'install', 'huge:1', huge / 'other' / 'small.sif'], shpc_env, fresh))
    beyond = times['huge'].seconds - times['small'].seconds
    slower = max(times['copying'].seconds, times['hashing'].seconds)
    claim('install an 8 GB SIF from another file system, beyond eb itself', '%.1f s' % beyond,
          'slower of cp with sync (%.1f s) and openssl dgst (%.1f s)' % (times['copying'].seconds,
                                                                         times['hashing'].seconds),
          beyond / slower, 1.1)
    theirs = times['theirs'].seconds - times['theirs_small'].seconds
    claim('the same', '%.1f s' % beyond, 'SHPC, which checks nothing, beyond a 1 MB image, %.1f s' % theirs,
          beyond / theirs, 1.3)
    claim('its memory', '%.0f MiB' % times['huge'].memory, '200 MB', times['huge'].memory / MEMORY, 1)
    fresh()
    prefix.mkdir()
    most = most_space(['eb', recipe], env, prefix)
    claim('most disk that it takes', '%.2f GB' % (most / 1e9), 'the image', most / (image.stat().st_blocks * 512), 1.01)


def test_install_again_on_the_same_file_system(huge, tmp_path, measure, claim):
    """Where a link serves, as at a rebuild of what the recipe's digest names: a second more than eb itself."""
    prefix = tmp_path / 'prefix'
    env = dict(harness.eb_environment(prefix, tmp_path / 'home'), EASYBUILD_SOURCEPATH=str(huge / 'other'))
    recipes = {name: huge / ('%s-1.eb' % name) for name in ('small', 'huge')}
    harness.run(['eb', *recipes.values()], env=env)
    times = measure(3, **{name: (['eb', '--rebuild', path], env, os.sync) for name, path in recipes.items()})
    claim('install an 8 GB SIF anew, on the same file system', '%.1f s' % times['huge'].seconds,
          'a 1 MB one and a second, %.1f s' % (times['small'].seconds + 1),
          times['huge'].seconds / (times['small'].seconds + 1), 1)


def most_space(argv, env, directory):
    """Run a command and return the most space that a directory took meanwhile, in bytes (int)."""
    most = 0
    with subprocess.Popen([str(arg) for arg in argv], env=env, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            used = harness.run(['du', '-s', '--block-size=1', directory], check=False).stdout.split()
            most = max(most, int(used[0]))
            time.sleep(0.05)
    assert process.returncode == 0, argv
    return most


def installed_shpc(directory):
    """Install SHPC below a directory; return its command and the environment that it is to run in (Path, dict)."""
    env = dict(harness.user_environment(directory / 'home'))
    harness.run(['python3', '-m', 'venv', directory / 'venv'])
    harness.run([directory / 'venv' / 'bin' / 'pip', 'install', '--quiet', 'singularity-hpc'], env=env)
    (directory / 'registry' / 'huge').mkdir(parents=True)
    (directory / 'registry' / 'huge' / 'container.yaml').write_text(SHPC)
    shpc = directory / 'venv' / 'bin' / 'shpc'
    harness.run([shpc, 'config', 'inituser'], env=env)
    for name, value in (('module_base', directory / 'modules'), ('container_base', directory / 'containers')):
        harness.run([shpc, 'config', 'set', name, value], env=env)
    settings = directory / 'home' / '.singularity-hpc' / 'settings.yml'
    lines = settings.read_text().splitlines()
    lines = ['registry: [%s]' % (directory / 'registry') if line.startswith('registry:') else line for line in lines]
    settings.write_text('\n'.join(lines) + '\n')
    return shpc, env
