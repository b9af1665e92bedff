# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -B -E -s distributed.py [--json] PYTHON ARG...

Runs PYTHON ARG... as one rank of a job step of Slurm. The first rank finds a port that is free, tells it to all others,
and hears from each how it ended; a rank that fails ends all. Runs under every Python that images have, so it uses old
syntax only.
"""

import errno
import fcntl
import glob
import json
import os
import re
import shutil
import socket
import stat
import sys
import time
import zlib

from links import proof
from ranks import Failure, Rank, tell

NEEDED = ('SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'MASTER_ADDR')
KEY = 'EASYSIF_RENDEZVOUS_KEY'  #: what the ranks of a job know, and nobody else; the program is not told
CANDIDATES = 32              #: ports at which the first rank may be met, which follow from the job step
PATIENCE = 300.0             #: seconds in which all ranks have to come, unless EASYSIF_RENDEZVOUS_TIMEOUT says other

#: caches of compiled code, which ranks must not share and which are slow on a parallel file system
CACHES = {'MIOPEN_USER_DB_PATH': 'miopen', 'MIOPEN_CUSTOM_CACHE_DIR': 'miopen', 'TRITON_CACHE_DIR': 'triton',
          'TORCHINDUCTOR_CACHE_DIR': 'inductor'}

#: which GPUs a process sees, as schedulers set it
VISIBLE = ('ROCR_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES', 'HIP_VISIBLE_DEVICES', 'GPU_DEVICE_ORDINAL')


class Step(object):
    """The job step as Slurm tells of it."""

    def __init__(self, env):
        missing = [name for name in NEEDED if not env.get(name)]
        if missing:
            raise Failure('this is no rank of a job step of Slurm: %s not set' % (
                '%s is' % missing[0] if len(missing) == 1 else '%s are' % ', '.join(missing)),
                'srun --ntasks=4 singularity exec "$SIF" conda-python-distributed PROGRAM.py, in a job of Slurm')
        try:
            self.rank, self.size, self.local = (int(env[name]) for name in NEEDED[2:5])
            self.local_size = tasks_here(env.get('SLURM_STEP_TASKS_PER_NODE') or env.get('SLURM_TASKS_PER_NODE')
                                         or env['SLURM_NTASKS'], int(env.get('SLURM_NODEID') or 0))
            self.patience = float(env.get('EASYSIF_RENDEZVOUS_TIMEOUT') or PATIENCE)
            self.port = int(env.get('MASTER_PORT') or 0)  # the user's choice, where there is one
        except (ValueError, IndexError) as err:
            raise Failure('the variables of Slurm cannot be understood (%s)' % err)
        self.name = '%s.%s' % (env['SLURM_JOB_ID'], env['SLURM_STEP_ID'])
        self.key, self.run = env.get(KEY) or '', env.get('SLURM_RESTART_COUNT') or '0'
        self.master, self.host = env['MASTER_ADDR'], env.get('SLURMD_NODENAME') or socket.gethostname()

    def ports(self):
        """Return where the first rank may be met (list of int): ports that the kernel gives to nobody by itself."""
        try:
            with open('/proc/sys/net/ipv4/ip_local_port_range') as handle:
                end = int(handle.read().split()[0])
        except (EnvironmentError, ValueError, IndexError):
            end = 32768
        begin = 20000 if end > 22000 else 10000
        first = zlib.crc32(self.name.encode()) & 0xffffffff
        return [begin + (first + 97 * number) % (max(end, begin + 2000) - begin) for number in range(CANDIDATES)]

    def proof(self, who, meeting, *words):
        """Return what only a rank of this step, and of this run of its job, can say (str), '' without a key.

        :param who: says it (str)
        :param meeting: the port at which ranks meet (int): nobody else can listen at the same
        """
        return proof(self.key, self.name, self.run, who, meeting, *words)

    def variables(self, port):
        """Return the rank's directory for caches, which is made (str), and what its program has to know (dict of str).

        :param port: where the program's first rank is to listen (int)
        """
        path, found = caches(self, os.environ)
        found.update(environment(self, port, os.environ))
        return path, found

    def report(self, variables):
        """Print what the rank is given, as one line of JSON, written at once: those of several do not mix.

        :param variables: what its program has to know (dict of str)
        """
        sys.stderr.write(json.dumps({
            'step': self.name, 'host': self.host, 'rank': self.rank, 'size': self.size, 'master': self.master,
            'local_rank': int(variables['LOCAL_RANK']), 'local_size': self.local_size,
            'port': int(variables['MASTER_PORT'])}) + '\n')
        sys.stderr.flush()


def tasks_here(text, node):
    """Return how many ranks a node has (int).

    :param text: as Slurm writes it for all nodes, ``4(x2),3`` (str)
    :param node: number of the node in the job step (int)
    """
    counts = []
    for part in text.split(','):
        count, _, times = part.partition('(x')
        counts += [int(count)] * (int(times.rstrip(')')) if times else 1)
    return counts[node]


def environment(step, port, env):
    """Return the variables that PyTorch and JAX look for (dict of str).

    :param step: the job step (Step)
    :param port: where the program's first rank is to listen (int)
    :param env: the environment (dict)
    """
    found = {'MASTER_ADDR': step.master, 'MASTER_PORT': port, 'RANK': step.rank, 'WORLD_SIZE': step.size,
             'LOCAL_WORLD_SIZE': step.local_size, 'JAX_COORDINATOR_ADDRESS': '%s:%d' % (step.master, port),
             'JAX_NUM_PROCESSES': step.size, 'JAX_PROCESS_ID': step.rank}
    visible = gpus(step, env)
    found.update(visible)
    devices = next((value.split(',') for value in visible.values()), None) or next(
        (env[name].split(',') for name in VISIBLE if env.get(name)), ())
    # the number of a GPU among those that this rank sees, which is what programs take it for
    found['LOCAL_RANK'] = step.local % len(devices) if devices else step.local
    if visible or devices and env.get('SLURM_GPUS_ON_NODE') not in (None, str(len(devices))):
        # all that it sees are its own; JAX would take the one whose number is SLURM_LOCALID
        found['JAX_LOCAL_DEVICE_IDS'] = ','.join(map(str, range(len(devices))))
        if is_old(jax_version(sys.path)):  # it knows SLURM_LOCALID only
            found['SLURM_LOCALID'] = 0
    return dict((name, str(value)) for name, value in found.items())


def jax_version(paths):
    """Return the version of the JAX that a program would import (str), None where there is none.

    :param paths: where Python looks for packages (list of str)
    """
    for path in paths:
        for found in glob.glob(os.path.join(glob.escape(path or '.'), 'jax-[0-9]*.dist-info')):
            return os.path.basename(found)[len('jax-'):-len('.dist-info')]
    return None


def is_old(version):
    """Tell whether a JAX does not read JAX_LOCAL_DEVICE_IDS: those before 0.4.32 (bool).

    :param version: as it calls itself (str), None for no JAX
    """
    numbers = re.match(r'(\d+)\.(\d+)\.(\d+)', version or '')
    return bool(numbers) and tuple(map(int, numbers.groups())) < (0, 4, 32)


def gpus(step, env):
    """Return the rank's share of the GPUs that the scheduler shows to all ranks of the node (dict of str).

    Empty where the scheduler gave each rank its own, where it says nothing, and with EASYSIF_GPUS=all.
    """
    own = env.get('SLURM_GPUS_PER_TASK') or 'gres/gpu' in env.get('SLURM_TRES_PER_TASK', '')
    name = next((name for name in VISIBLE if env.get(name)), None)
    if own or not name or env.get('EASYSIF_GPUS') == 'all':
        return {}
    devices = env[name].split(',')
    if env.get('SLURM_GPUS_ON_NODE') != str(len(devices)) or len(devices) % step.local_size:
        return {}
    share = len(devices) // step.local_size
    mine = ','.join(devices[step.local * share:(step.local + 1) * share])
    # of the others HIP takes the numbers for places among those of ROCR
    return dict((other, mine if other == name else ','.join(map(str, range(share)))) for other in VISIBLE
                if env.get(other))


def caches(step, env):
    """Make the rank's directory for caches on the local disk; return it (str) and the variables that name it (dict)."""
    base = env.get('TMPDIR') or '/tmp'
    sweep(base, step.host)
    path = os.path.join(base, 'easysif-%d-%s-%d@%s' % (os.getuid(), step.name, step.rank, step.host))
    try:
        os.mkdir(path, 0o700)
    except EnvironmentError as err:
        info = os.lstat(path) if err.errno == errno.EEXIST else None
        if info is None or not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
            raise no_caches(path, err)
    try:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)  # as long as this process is there
    except EnvironmentError as err:  # such as a parallel file system without locks
        shutil.rmtree(path, ignore_errors=True)
        raise no_caches(path, err)
    return path, dict((name, os.path.join(path, word)) for name, word in CACHES.items() if not env.get(name))


def no_caches(path, err):
    """Return what is to be said where a directory for caches is not to be had (Failure)."""
    return Failure('no directory for caches can be made: %s (%s)' % (path, err.strerror),
                   'export TMPDIR=<a directory on the local disk>')


def sweep(base, host):
    """Remove the directories of this user's ranks that were killed, and could not do it themselves.

    Only those of this host: on a file system that several share, locks may count on each of them alone.
    """
    for path in glob.glob(os.path.join(glob.escape(base), 'easysif-%d-*.*-*@%s' % (os.getuid(), glob.escape(host)))):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(handle).st_mtime > 60:  # else it may be one that has just been made
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)
        except EnvironmentError:
            continue


def main(argv):
    """Run a program as one rank and return its exit status (int).

    :param argv: as in the usage (list of str)
    """
    is_json = argv[:1] == ['--json']
    try:
        step = Step(os.environ)
        os.environ.pop(KEY, None)
        return Rank(step, argv[is_json:], is_json).run()
    except Failure as err:
        tell(str(err), err.hint)
        return err.status


if __name__ == '__main__':
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # not by way of what Python does at its end, of which nothing is needed: see rehearse
