# SPDX-License-Identifier: GPL-2.0-only
"""Drafts the profile of a site from what is found on this node: a first file to be read and corrected."""

import glob
import os
import re
import shutil
import socket

from easysif.errors import EasySIFError, escaped
from easysif.node.host import GPUS

#: file systems that a cluster shares, and where mounts of others lie that everybody has
SHARED = ('lustre', 'gpfs', 'beegfs', 'nfs', 'nfs4', 'ceph', 'wekafs', 'panfs', 'daos', 'fhgfs_nodev')
USUAL = ('/home', '/root', '/tmp', '/usr', '/proc', '/sys', '/dev', '/run', '/var', '/etc', '/boot')

#: what is bound for a need, where some of it is on this node
NEEDS = {
    'interconnect': ['/opt/cray', '/usr/lib64/libcxi.so*', '/etc/libibverbs.d'],
    'slurm': ['/etc/slurm', *('/usr/bin/%s' % name for name in (
        'sacct', 'salloc', 'sattach', 'sbatch', 'sbcast', 'scancel', 'scontrol', 'sinfo', 'squeue', 'srun')),
        '/usr/lib64/slurm', '/usr/lib64/libmunge.so.2*', '/usr/lib/x86_64-linux-gnu/slurm-wlm',
        '/usr/lib/x86_64-linux-gnu/libmunge.so.2*', '/run/munge'],
}

#: where an MPI is that has the name by which programs of images ask for it: the first of these that is on this node
MPI = ('/opt/cray/pe/mpich/default/ofi/gnu/*/lib-abi-mpich/libmpi.so.12', '/usr/lib64/mpich/lib/libmpi.so.12',
       '/usr/lib/x86_64-linux-gnu/libmpich.so.12', '/usr/lib64/openmpi/lib/libmpi.so.40',
       '/usr/lib/x86_64-linux-gnu/libmpi.so.40')

HEAD = '''\
# How %s provides what recipes need: drafted by easysif site new from what is on host %s, to be read and corrected.
# Every setting is explained in tools/easysif/sites/default.yaml and docs/site-reference.md.
match: {hostname: "%s"}
runtime: %s
'''


def write(path):
    """Write a profile.

    :param path: the file, which must not be there yet (str)
    :raises EasySIFError: it is there, or cannot be written
    """
    text = profile(os.path.splitext(os.path.basename(path))[0])
    try:
        with open(path, 'x', encoding='utf-8') as handle:
            handle.write(text)
    except FileExistsError as err:
        raise EasySIFError(path, 'is there already', hint='easysif site new OTHER.yaml; or edit it') from err
    except OSError as err:
        raise EasySIFError(path, 'cannot be written (%s)' % err.strerror,
                           hint='easysif site new <a file in a directory of yours>') from err


def profile(name):
    """Return a profile of this cluster (str).

    :param name: what it is to be called (str)
    """
    host = socket.gethostname().partition('.')[0]
    found = next((one for one in ('apptainer', 'singularity') if shutil.which(one)), 'auto')
    lines = [HEAD % (escaped(name), host, re.sub('[0-9]+', '*', host), found)]
    shared = sorted(_mounts())
    lines.append('# file systems that the nodes share\nbinds: [%s]\n' % ', '.join(map(_quoted, shared)) if shared else
                 '# file systems that the nodes share: none was found, so name them\n# binds: [/scratch, /project]\n')
    lines.append('provides:\n')
    for need, (kind, devices, driver) in GPUS.items():
        if os.path.exists(driver) or glob.glob(devices[0]):
            lines.append('  %s: {}\n' % need)
    lines.append('  scratch: {}  # is bound in every container\n')
    for need, patterns in NEEDS.items():
        here = [pattern for pattern in patterns if glob.glob(pattern)]
        if here:
            lines.append('  %s:\n    binds:\n%s' % (need, ''.join('      - %s\n' % _quoted(one) for one in here)))
    mpi = next(filter(glob.glob, MPI), None)
    if mpi:
        lines.append('  mpi:  # with all that it needs\n    libraries: [%s]\n' % _quoted(mpi))
    return ''.join(lines)


def _mounts():
    """Return the top directories of shared file systems that a container does not see by itself (set of str)."""
    found = set()
    try:
        with open('/proc/self/mounts', encoding='utf-8', errors='replace') as handle:
            for line in handle:
                fields = line.split()
                point = re.sub(r'\\([0-7]{3})', lambda match: chr(int(match.group(1), 8)), fields[1])
                if fields[2] in SHARED and not re.search('[:,^\x00-\x1f]', point) and not any(
                        point == one or point.startswith(one + '/') for one in USUAL):
                    found.add(point)
    except OSError:
        pass
    return {point for point in found if not any(point.startswith(other + '/') for other in found)}


def _quoted(text):
    return text if re.fullmatch(r'/[A-Za-z0-9_./-]*', text) else '"%s"' % text.replace('\\', '\\\\').replace('"', '\\"')
