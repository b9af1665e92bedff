# SPDX-License-Identifier: GPL-2.0-only
"""How much of this machine we may use, and what follows for mksquashfs.

A batch job or a login node hands out a share of the processors: the affinity mask says which, a cgroup's quota how
much time on them. Imports nothing of ours.
"""

import math
import os
import re
from contextlib import suppress

#: MiB for mksquashfs: as fast as its default, a quarter of all memory, and a whole process stays below 200 MB
MEMORY = 64
#: each costs mksquashfs 2 MB beyond MEMORY
MOST_PROCESSORS = 32
#: with less memory than this for each processor mksquashfs 4.5 fails, with gzip and xz ("uncompress failed")
LEAST_BLOCKS = 8

#: Compressors of mksquashfs that know a level.
LEVELLED = ('gzip', 'lzo', 'zstd')
#: what every container runtime mounts, and the highest level of it
INSTEAD, HIGHEST = 'gzip', 9


def processors(proc='/proc/self'):
    """Return how many processors this process may keep busy, at least 1 (int).

    :param proc: directory of this process in the proc file system (str)
    """
    count = len(os.sched_getaffinity(0))
    for quota in _quotas(proc):
        count = min(count, math.ceil(quota))
    return max(count, 1)


#: for packages: each file in blocks of its own, so that an import unpacks no other files (docs/measurements.md)
PACKAGES = ('-no-fragments',)


def mksquashfs_options(squashfs):
    """Return the options that make mksquashfs pack as the site wants it, with all processors we may use (list of str).

    :param squashfs: the site's setting ``squashfs``: compressor, level, block, the last as ``256K`` or ``1M`` (dict)
    """
    compressor = squashfs['compressor']
    options = ['-comp', compressor]
    if compressor in LEVELLED and squashfs.get('level') is not None:
        options += ['-Xcompression-level', str(squashfs['level'])]
    block = str(squashfs['block'])
    kilobytes = int(block[:-1]) * {'K': 1, 'M': 1024}[block[-1]]
    count = min(processors(), MOST_PROCESSORS, MEMORY * 1024 // (kilobytes * LEAST_BLOCKS))
    return options + ['-b', block, '-mem', '%dM' % MEMORY, '-processors', str(count)]


def mountable(squashfs, refused):
    """Return how squashfs files are packed so that the container runtime can mount them (dict): as the site wants it,
    or with gzip.

    :param squashfs: the site's setting ``squashfs`` (dict)
    :param refused: the compressors that the runtime cannot mount (sequence of str)
    """
    if squashfs['compressor'] not in refused or INSTEAD in refused:
        return squashfs
    return dict(squashfs, compressor=INSTEAD, level=min(squashfs.get('level') or HIGHEST, HIGHEST))


def _quotas(proc):
    """Yield the quotas of our cgroup and of those it is in, in processors (float), from version 1 and 2."""
    groups = {}
    for line in _lines(os.path.join(proc, 'cgroup')):
        _, controllers, path = line.split(':', 2)
        groups.update((controller, path) for controller in controllers.split(','))
    with suppress(OSError):
        for fields in mounts(os.path.join(proc, 'mountinfo')):
            (root, mount), (kind, _, options, *_) = fields[3:5], fields[fields.index('-', 6) + 1:]
            if kind == 'cgroup2' and '' in groups:
                yield from _upwards(mount, root, groups[''], _quota2)
            elif kind == 'cgroup' and 'cpu' in options.split(',') and 'cpu' in groups:
                yield from _upwards(mount, root, groups['cpu'], _quota1)


def mounts(path):
    """Yield the fields of each line of a file such as /proc/self/mountinfo, without its octal escapes (list of str).

    36 35 98:0 /root/of/mount /mount/point options … - type source superoptions; what is mounted last comes last. Only a
    blank is between two: users mount at names with others that are blanks, or ends of lines, for Python.

    :param path: the file (str)
    :raises OSError: it cannot be read
    """
    with open(path, 'rb') as lines:
        for line in lines:
            yield [os.fsdecode(re.sub(rb'\\([0-7]{3})', lambda match: bytes([int(match.group(1), 8)]), word))
                   for word in line.rstrip(b'\n').split(b' ')]


def _upwards(mount, root, path, quota):
    inside = os.path.relpath(path, root) if path.startswith(root) else '.'
    while True:
        value = quota(os.path.normpath(os.path.join(mount, inside)))
        if value:
            yield value
        if inside in ('', '.'):
            return
        inside = os.path.dirname(inside)


def _quota2(directory):
    words = ' '.join(_lines(os.path.join(directory, 'cpu.max'))).split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != 'max' else None


def _quota1(directory):
    quota, period = (' '.join(_lines(os.path.join(directory, 'cpu.cfs_%s_us' % name))) for name in ('quota', 'period'))
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _lines(path):
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as handle:
            return handle.read().splitlines()
    except OSError:
        return []
