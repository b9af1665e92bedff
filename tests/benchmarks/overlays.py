# SPDX-License-Identifier: GPL-2.0-only
"""An overlay that holds real JAX, for what is measured on overlays."""

import os
import shutil
import sys
from pathlib import Path

import harness

#: what is timed; that it comes from the user's overlay is part of it
IMPORT = ['-c', 'import jax.numpy; assert jax.__file__.startswith("/user-software/"), jax.__file__']


def copy(module, directory):
    """Return the module for another user, with an overlay of their own that holds the same (standins.Module)."""
    directory.mkdir()
    other = module.installed_for(directory)
    other.overlay.parent.mkdir()
    harness.run(['cp', '-a', module.overlay, other.overlay])
    return other


def forget(path):
    """Make the kernel forget what it has read of a file, as far as an ordinary user can."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def facts():
    """Return what a reader of measured times has to know of this machine (str)."""
    model = next(line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                 if line.startswith('model name'))
    version = harness.run(['mksquashfs', '-version'], check=False).stdout.split('\n')[0]
    runtime = harness.run([shutil.which('apptainer'), '--version']).stdout.strip()
    return '%d processors (%s), %.0f GiB of memory, load %.1f, Python %d.%d, %s, %s' % (
        len(os.sched_getaffinity(0)), model, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2 ** 30,
        os.getloadavg()[0], *sys.version_info[:2], version, runtime)
