# SPDX-License-Identifier: GPL-2.0-only
"""How an image is packed: as the site wants it, where the container runtime starts such images at all.

SingularityCE looks at the compressor itself: 4.1 knows no zstd, and says so of every image that was packed with it.
"""

import os
from contextlib import suppress

from easysif.errors import EasySIFError
from easysif.images.sif import architecture, architecture_code
from easysif.resources import INSTEAD, mksquashfs_options
from easysif.run import run

UNKNOWN = 'unknown compression algorithm'  #: what SingularityCE says of a compressor that it does not know
TIMEOUT = 60  #: seconds for a container to start


def options(runtime, pack, env, work, squashfs, log):
    """Return the options with which mksquashfs makes an image that this runtime starts (list of str).

    :param runtime: the container runtime (runtime.Runtime)
    :param pack: mksquashfs (str)
    :param env: the environment of the build (dict)
    :param work: the private directory of the build (str)
    :param squashfs: the setting of the site (dict)
    :param log: file that takes what there is to say of it (str)
    """
    compressor = squashfs['compressor']
    if runtime.name == 'apptainer' or compressor == INSTEAD or not _is_unknown(runtime, pack, env, work, squashfs):
        return mksquashfs_options(squashfs)
    with open(log, 'a', encoding='utf-8') as handle:
        handle.write('easysif: %s %s starts no image that is packed with %s: it is packed with %s\n' % (
            runtime.name, '.'.join(map(str, runtime.version)), compressor, INSTEAD))
    return mksquashfs_options(dict(squashfs, compressor=INSTEAD, level=None))


def step_sif(runtime, target, packed, machine):
    """Return the commands that make a SIF file of a squashfs file (list of list of str).

    :param target: the SIF file (str)
    :param packed: the squashfs file (str)
    :param machine: the architecture of the image, as Go calls it (str)
    """
    return [[runtime.path, 'sif', 'new', target],
            [runtime.path, 'sif', 'add', '--datatype', '4', '--parttype', '2', '--partfs', '1', '--partarch',
             architecture_code(machine), '--groupid', '1', target, packed]]


def _is_unknown(runtime, pack, env, work, squashfs):
    """Tell whether the runtime says of the smallest image that is packed so that it does not know how."""
    trial, packed, target = (os.path.join(work, 'trial' + ending) for ending in ('', '.squashfs', '.sif'))
    os.mkdir(trial)
    argv = [pack, trial, packed, '-noappend', '-no-progress', *mksquashfs_options(squashfs)]
    with suppress(EasySIFError):  # what is wrong the build itself says
        for argv in (argv, *step_sif(runtime, target, packed, architecture())):
            run(argv, env=env, cwd=work, timeout=TIMEOUT)
        said = run([runtime.path, 'exec', target, '/'], env=env, cwd=work, timeout=TIMEOUT, check=False)
        return UNKNOWN in said.stderr
    return False
