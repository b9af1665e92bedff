# SPDX-License-Identifier: GPL-2.0-only
"""What the machine itself has: runtime, namespaces, FUSE, shared memory, squashfs, Lmod, scheduler, GPUs."""

import glob
import os
import shutil
import tempfile
from contextlib import suppress

from easysif import compressors, files, runtime
from easysif.errors import EasySIFError
from easysif.node.finding import NOTE, OK, PROBLEM, Finding
from easysif.run import run
from easysif.text import human

LEAST_SHM = 1 << 30  #: bytes of /dev/shm below which data loaders and NCCL are known to fail

#: what tells a GPU on the host: need -> its kind, devices, the file of its driver. Without the first of the devices
#: there is none: GPUs of others have the second, too, or it is there for the driver alone
GPUS = {'nvidia-gpu': ('NVIDIA', ('/dev/nvidia[0-9]*', '/dev/nvidiactl'), '/proc/driver/nvidia/version'),
        'amd-gpu': ('AMD', ('/dev/kfd', '/dev/dri/renderD*'), '/sys/module/amdgpu/version')}

#: by which schedulers tell a job its GPUs
VISIBLE = ('CUDA_VISIBLE_DEVICES', 'ROCR_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'GPU_DEVICE_ORDINAL')

#: schedulers by a command of theirs, and how they tell their version
SCHEDULERS = (('Slurm', 'srun', ['--version']), ('PBS', 'qstat', ['--version']), ('LSF', 'bsub', ['-V']))


def container_runtime(site):
    """Yield whether there is a container runtime, and how it makes containers."""
    try:
        found = runtime.find(site)
    except EasySIFError as err:
        yield Finding(PROBLEM, 'runtime', err.what, err.hint)
        return
    yield Finding(OK, 'runtime', '%s %s  %s' % (found.name, '.'.join(map(str, found.version)), found.path))
    suid = [path for path in _starters(found.path) if os.path.exists(path) and os.stat(path).st_mode & 0o4000]
    makes = _status(['unshare', '--user', 'true'])
    if suid:
        yield Finding(OK, 'namespaces', 'the runtime is setuid: %s' % suid[0])
    elif makes == 0:
        yield Finding(OK, 'namespaces', 'user namespaces can be made')
    else:
        off = [path for path in ('/proc/sys/user/max_user_namespaces', '/proc/sys/kernel/unprivileged_userns_clone')
               if _text(path) == '0'] + [path for path in ('/proc/sys/kernel/apparmor_restrict_unprivileged_userns',)
                                         if _text(path) == '1']
        yield Finding(PROBLEM, 'namespaces', 'user namespaces cannot be made%s, and the runtime is not setuid'
                      % (' (%s)' % ', '.join(off) if off else ''),
                      'ask for user namespaces (sysctl user.max_user_namespaces), or for the package apptainer-suid')


def fuse():
    """Yield whether squashfs files can be mounted without the kernel."""
    if not os.path.exists('/dev/fuse'):
        yield Finding(NOTE, 'fuse', '/dev/fuse is not there: only a setuid runtime can mount SIF files and overlays',
                      'modprobe fuse, as root')
    elif not os.access('/dev/fuse', os.R_OK | os.W_OK):
        yield Finding(PROBLEM, 'fuse', '/dev/fuse cannot be opened for reading and writing',
                      'chmod 666 /dev/fuse, as root')
    else:
        tools = [name for name in ('squashfuse_ll', 'squashfuse', 'fuse2fs', 'fuse-overlayfs') if shutil.which(name)]
        yield Finding(OK, 'fuse', '/dev/fuse  (%s)' % (', '.join(tools) or 'tools of the runtime alone'))


def shared_memory():
    """Yield whether processes can share memory."""
    try:
        with tempfile.TemporaryFile(dir='/dev/shm'):
            pass
        free = files.free_space('/dev/shm')
    except OSError as err:
        yield Finding(PROBLEM, '/dev/shm', 'nothing can be written there (%s)' % err.strerror,
                      'mount -t tmpfs tmpfs /dev/shm, as root')
        return
    few = free < LEAST_SHM
    yield Finding(NOTE if few else OK, '/dev/shm', '%s free' % human(free), 'processes that share data, such as the '
                  'workers of PyTorch, may end with a bus error; ask for more' if few else None)


def squashfs(site):
    """Yield which compressors mksquashfs has, and whether that of the site is among them."""
    if not shutil.which('mksquashfs') or not shutil.which('unsquashfs'):
        yield Finding(PROBLEM, 'squashfs', 'mksquashfs or unsquashfs is not on PATH',
                      'ask for the package squashfs-tools')
        return
    known, wanted = compressors.packable(), site.squashfs['compressor']
    if wanted in known:
        yield Finding(OK, 'squashfs', 'mksquashfs compresses with %s; the site wants %s' % (', '.join(known), wanted))
    else:
        yield Finding(PROBLEM, 'squashfs', 'mksquashfs does not know %s, which the site wants, but %s'
                      % (wanted, ', '.join(known) or 'nothing'), 'squashfs: {compressor: %s} in the site file'
                      % (known[0] if known else 'gzip'))


def modules():
    """Yield whether there is Lmod."""
    version, directory = os.environ.get('LMOD_VERSION'), os.environ.get('LMOD_DIR') or os.environ.get('LMOD_PKG')
    if version:
        old = int(version.split('.')[0]) < 8 if version.split('.')[0].isdigit() else False
        yield Finding(PROBLEM if old else OK, 'modules', 'Lmod %s  %s' % (version, directory or ''),
                      'modules of EasySIF need Lmod 8 or newer' if old else None)
    elif os.environ.get('MODULESHOME'):
        yield Finding(NOTE, 'modules', 'Environment Modules, not Lmod  %s' % os.environ['MODULESHOME'])
    else:
        yield Finding(NOTE, 'modules', 'this shell has no command module', '. /usr/share/lmod/lmod/init/bash')


def scheduler():
    """Yield which scheduler there is."""
    for name, command, version in SCHEDULERS:
        path = shutil.which(command)
        if path:
            state, line = NOTE, ''
            with suppress(EasySIFError):  # it cannot be started
                told = run([command, *version], check=False, timeout=30)
                state, line = NOTE if told.status else OK, (told.stdout + told.stderr).strip().split('\n')[0]
            yield Finding(state, 'scheduler', '%s  %s  (%s)' % (name, path, line or 'does not tell its version'))
            return
    yield Finding(NOTE, 'scheduler', 'none on PATH: no %s' % ', '.join(command for _, command, _ in SCHEDULERS))


def devices(need):
    """Return the devices of a kind of GPU that this node has (list of str).

    :param need: one of GPUS (str)
    """
    first, *others = [sorted(glob.glob(pattern)) for pattern in GPUS[need][1]]
    return first + sum(others, []) if first else []


def can_use(need):
    """Tell whether there is a GPU of a kind that this process may use (bool): a scheduler may hide those of the node.

    :param need: one of GPUS (str)
    """
    # of the files of AMD the first is that of all GPUs, which a scheduler leaves open
    return not any(all(map(_is_hidden, glob.glob(pattern))) for pattern in GPUS[need][1])


def gpus():
    """Yield which GPUs and drivers the host has, and which of its devices cannot be opened."""
    for need, (kind, _, driver) in GPUS.items():
        found = devices(need)
        version = (_text(driver) or '').split('\n')[0]
        if not found:
            more = ', though its driver is there' if version else ''
            yield Finding(NOTE, 'gpu', 'no %s GPU on this node%s' % (kind, more))
            continue
        closed = [path for path in found if not os.access(path, os.R_OK | os.W_OK)]
        told = '%s: %s  %s' % (kind, ', '.join(found), version or 'no driver told')
        hidden = [path for path in found if path not in closed and _is_hidden(path)]
        told += '  not for this job: %s' % ', '.join(hidden) if hidden else ''
        told += ''.join('  %s=%s' % (name, os.environ[name]) for name in VISIBLE if name in os.environ)
        yield Finding(PROBLEM if closed else OK, 'gpu', told,
                      'ask for access to %s' % ', '.join(closed) if closed else None)


def _is_hidden(path):
    """Tell whether a device cannot be opened (bool); where a scheduler keeps it from a job, only trying tells."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError:
        return True
    return False


def _starters(path):
    """Return the programs that a runtime may have as setuid helpers (list of str)."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(path)))
    places = [os.path.join('*', name, 'bin') for name in runtime.NAMES] + [os.path.join('lib', '*', '*', 'bin')]
    return [path for place in places for path in glob.glob(os.path.join(glob.escape(root), place, 'starter-suid'))]


def _status(argv):
    try:
        return run(argv, check=False, timeout=30).status
    except EasySIFError:  # there is no such command
        return None


def _text(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as handle:
            return handle.read(1000).strip()
    except OSError:
        return None
