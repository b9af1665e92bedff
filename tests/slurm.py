# SPDX-License-Identifier: GPL-2.0-only
"""A Slurm cluster of four nodes on this machine, run by an ordinary user for the jobs of that user alone."""

import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

CONFIG = '''\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} Gres=gpu:2 State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
'''


NODES = 4


def free_ports(count):
    """Return that many ports of the loopback address in a row which nobody uses now (list of int).

    They are none that the system gives to connections, nor of conda-python-distributed: nobody takes them meanwhile.
    """
    while True:
        sockets, first = [socket.socket() for _ in range(count)], random.randrange(2000, 10000 - count)
        try:
            for number, each in enumerate(sockets, first):
                each.bind(('127.0.0.1', number))
            return list(range(first, first + count))
        except OSError:  # somebody is in the way
            continue
        finally:
            for each in sockets:
                each.close()


class Slurm:
    """munged, slurmctld and a slurmd for each node, as long as the with block lasts; ``env`` is what srun needs (dict).

    The nodes are called n1 to n4, which ``hosts`` says are this machine (a file like /etc/hosts).
    """

    def __enter__(self):
        # A short path: that of the socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix='slurm-', dir='/tmp'))
        (self.directory / 'state').mkdir()
        (self.directory / 'spool').mkdir()
        self.directory.chmod(0o755)
        controller, *ports = free_ports(1 + NODES)
        config = self.directory / 'slurm.conf'
        config.write_text(CONFIG.format(
            host=socket.gethostname().split('.')[0], nodes=NODES, first=ports[0], last=ports[-1], controller=controller,
            directory=self.directory, user=pwd.getpwuid(os.getuid()).pw_name, cpus=os.cpu_count()))
        self.hosts = self.directory / 'hosts'
        names = ['localhost', socket.gethostname(), *('n%d' % number for number in range(1, NODES + 1))]
        self.hosts.write_text(''.join('127.0.0.1 %s\n' % name for name in names))
        # devices that stand for GPUs, of which jobs are given some
        (self.directory / 'gres.conf').write_text('Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n')
        self.env = {'SLURM_CONF': str(config)}
        self.servers = []
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        for server in reversed(self.servers):
            server.terminate()
            try:
                server.wait(timeout=2)
            except subprocess.TimeoutExpired:  # slurmd lingers while it tells its controller
                server.kill()
                server.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self):
        key = self.directory / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        at = str(self.directory)
        self._serve('munged', '--foreground', '--force', '--num-threads=2', '--key-file=%s' % key,
                    '--socket=%s/munge.socket' % at, '--pid-file=%s/munge.pid' % at,
                    '--log-file=%s/munge.log' % at, '--seed-file=%s/munge.seed' % at)
        self._wait(lambda: (self.directory / 'munge.socket').exists())
        self._serve('slurmctld', '-D')
        for number in range(1, NODES + 1):
            self._serve('slurmd', '-D', '-N', 'n%d' % number)
        self._wait(self._is_idle)

    def _is_idle(self):
        return subprocess.run(['sinfo', '-h', '-o', '%D %T'], env=dict(os.environ, **self.env),
                              capture_output=True).stdout == b'%d idle\n' % NODES

    def _serve(self, *argv):
        log = open(self.directory / ('%s.out' % argv[0]), 'wb')
        # They go with the tests, however those end.
        argv = ['setpriv', '--pdeathsig', 'TERM', *argv]
        self.servers.append(subprocess.Popen(argv, env=dict(os.environ, **self.env), stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=subprocess.STDOUT))
        log.close()

    def _wait(self, ready):
        for _ in range(1200):
            if ready():
                return
            if any(server.poll() is not None for server in self.servers):
                break
            time.sleep(0.1)
        logs = [path.read_text(errors='replace') for path in self.directory.glob('*.out')]
        raise AssertionError('Slurm did not start:\n%s' % '\n'.join(logs))
