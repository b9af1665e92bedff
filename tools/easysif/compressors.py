# SPDX-License-Identifier: GPL-2.0-only
"""Which compressors of squashfs files the container runtime of this machine can mount, found out by trying, once.

It depends on how the runtime was built and on the kernel, and one file that cannot be mounted fails the whole start of
a container. What was found is kept in the prefix, for as long as the runtime is the same.
"""

import glob
import json
import os
import tempfile
from contextlib import contextmanager, suppress

from easysif import files, holder, runtime
from easysif.errors import EasySIFError
from easysif.layout import layouts
from easysif.images.asking import FLAGS
from easysif.modes import Modes
from easysif.resources import INSTEAD
from easysif.run import run

#: those that a squashfs may have; the last no kernel and no runtime mounts, though mksquashfs may know it
NAMES = ('gzip', 'lzo', 'xz', 'lz4', 'zstd')
NEVER = ('lzma',)

NAME = 'compressors.json'  #: in the directory ``easysif`` of a prefix
PREFIX = 'easysif-compressors-'  #: of directories for what is tried
TIMEOUT = 60  #: seconds for a container to start
MOST = 3      #: images that are tried, the smallest first: one without a shell tells nothing


def refused(prefix, site):
    """Return the compressors that the runtime cannot mount (tuple of str), none where that cannot be found out.

    :param prefix: EasyBuild's install path (str), in which a module is installed
    :param site: the resolved site (Site)
    """
    try:
        found = runtime.find(site)
        key = {'runtime': found.path, 'version': '.'.join(map(str, found.version)),
               'changed': os.stat(os.path.realpath(found.path)).st_mtime_ns}
    except (EasySIFError, OSError):
        return ()
    path = os.path.join(prefix, 'easysif', NAME)
    known = _read(path)
    if {name: known.get(name) for name in key} != key or not isinstance(known.get('refused'), list):
        images = [path for one in layouts(prefix)
                  for path in glob.glob(os.path.join(glob.escape(one.software), *'*' * one.levels, '*.sif'))]
        refuses = _try(found, sorted(images, key=_size)[:MOST])
        if refuses is None:
            return ()
        known = dict(key, schema=1, refused=refuses)
        with suppress(EasySIFError), Modes(prefix).publishing(path):
            files.write(path, json.dumps(known, indent=2, sort_keys=True) + '\n')
    return tuple(name for name in NAMES + NEVER if name in known['refused'])


def refused_of(name, image, found):
    """Return a compressor in a tuple if the runtime cannot mount what is packed with it, else an empty one.

    That is asked before there is anything in a prefix.

    :param name: the compressor (str)
    :param image: a SIF file that is there (str)
    :param found: the container runtime (runtime.Runtime)
    """
    if name == INSTEAD:
        return ()
    with suppress(OSError), _scratch() as directory:
        made = {name: os.path.join(directory, name + '.squashfs')}
        if _pack(name, made[name]) and not _starts(found, image, made, directory) and _starts(
                found, image, {}, directory):
            return (name,)
    return ()


def packable():
    """Return the compressors that mksquashfs knows (list of str)."""
    with _scratch() as directory:
        return [name for name in NAMES if _pack(name, os.path.join(directory, name + '.squashfs'))]


@contextmanager
def _scratch():
    """Give a private directory for what is tried, and remove those of this user's calls here that were killed."""
    for path in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), PREFIX + '*')):
        with suppress(OSError):
            if os.lstat(path).st_uid == os.getuid() and holder.is_dead_in(path):
                files.remove_tree(path)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as directory:
        with open(os.path.join(directory, holder.NAME), 'w', encoding='utf-8') as handle:
            handle.write(holder.write('compressors', ''))
        yield directory


def _read(path):
    try:
        with open(path, encoding='utf-8') as handle:
            known = json.load(handle)
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _try(found, images):
    """Return the compressors that cannot be mounted (list of str), None where no container starts at all."""
    with suppress(OSError), _scratch() as directory:
        made = {name: os.path.join(directory, name + '.squashfs') for name in NAMES}
        made = {name: path for name, path in made.items() if _pack(name, path)}
        for image in images if made else ():
            if _starts(found, image, made, directory):
                return list(NEVER)
            refuses = list(made)
            for _ in range(2):  # as it may be the machine that lacks something for a moment
                if not _starts(found, image, {}, directory):
                    break
                refuses = [name for name in refuses if not _starts(found, image, {name: made[name]}, directory)]
            else:
                return refuses + list(NEVER)
    return None


def _pack(name, path):
    """Make a squashfs of a small file, and tell whether mksquashfs knows that compressor (bool)."""
    try:
        return run(['mksquashfs', __file__, path, '-comp', name, '-noappend', '-no-xattrs', '-no-progress'],
                   check=False).status == 0
    except EasySIFError:  # there is no mksquashfs
        return False


def _starts(found, image, made, directory):
    binds = [(path, '/mnt/' + name, 'image-src=/,ro') for name, path in made.items()]
    argv = found.exec_argv(image, ['/bin/sh', '-c', ':'], flags=FLAGS, binds=binds)
    # each start makes the runtime's directory of settings, and this one is not for the user
    settings = {name + '_CONFIGDIR': directory for name in ('APPTAINER', 'SINGULARITY')}
    return run(argv, env=dict(found.environment(), **settings), timeout=TIMEOUT, check=False).status == 0
