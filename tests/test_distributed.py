# SPDX-License-Identifier: GPL-2.0-only
"""get-master and conda-python-distributed: node lists, ports, GPUs and caches of a rank, and what one that fails does.

Without a container: the scripts run as they are, in processes that have the variables of a job step.
"""

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import CLONE

pytestmark = pytest.mark.long

RUNSCRIPTS = CLONE / 'tools' / 'easysif' / 'helpers' / 'runscripts'
DISTRIBUTED = RUNSCRIPTS / 'lib' / 'distributed.py'

sys.path.append(str(RUNSCRIPTS / 'lib'))
import distributed  # noqa: E402 (they are shipped as files, not as modules)
import ends  # noqa: E402
import links  # noqa: E402
import ranks  # noqa: E402
HINT = 'hint: get-master "$SLURM_JOB_NODELIST", in a job of Slurm\n'

#: runs distributed.py, its first argument, as the Python of an image whose packages are in its second, a directory
SITE_OF_IMAGE = '''
import os, runpy, sys
sys.path.append(sys.argv[2])
script = sys.argv[1]
sys.argv[:] = [script] + sys.argv[3:]
sys.path.insert(0, os.path.dirname(script))
runpy.run_path(script, run_name='__main__')
'''

#: says what a rank was told
SAY = 'import json, os; print(json.dumps(dict(os.environ)), flush=True)'


def get_master(*args, shell='sh'):
    """Return status, output and errors of get-master (tuple)."""
    done = subprocess.run([shell, str(RUNSCRIPTS / 'get-master'), *args], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize('shell', ['dash', 'bash', 'busybox sh'])
@pytest.mark.parametrize('nodes, first', [
    ('a1', 'a1'), ('a[001]', 'a001'), ('a[1,3-5],b7', 'a1'), ('x[08-10]y', 'x08y'),
    ('nid[001000-001003,7]', 'nid001000'),
    ('login,nid[1-2]', 'login'), ('rack[1-2]node[03,5]', 'rack1node03'), ('a[1-2]-ib,c', 'a1-ib'),
    ('node-1.cluster.org,b', 'node-1.cluster.org'),
])
def test_the_first_host_of_a_node_list(shell, nodes, first):
    words = shell.split()
    done = subprocess.run([*words, str(RUNSCRIPTS / 'get-master'), nodes], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, first + '\n')


HOSTS = st.lists(st.builds('{}{}{}{}'.format, st.from_regex('[a-z][a-z0-9]{0,3}', fullmatch=True), st.just(''),
                           st.integers(0, 2000).map(str) | st.integers(0, 99).map('{:04d}'.format),
                           st.sampled_from(['', '-ib', 'r1', '.x.org'])), min_size=1, max_size=6)


@pytest.fixture(scope='module')
def scontrol(tmp_path_factory):
    """Slurm's own command for lists of hosts (callable), which wants to know a cluster but asks none."""
    config = tmp_path_factory.mktemp('slurm') / 'slurm.conf'
    config.write_text('ClusterName=none\nSlurmctldHost=localhost\n')
    return lambda *args: subprocess.run(['scontrol', 'show', *args], stdout=subprocess.PIPE, text=True, check=True,
                                        env=dict(os.environ, SLURM_CONF=str(config))).stdout.split()


@given(hosts=HOSTS)
def test_a_list_that_slurm_writes_begins_with_the_host_that_slurm_names_first(scontrol, hosts):
    written = scontrol('hostlist', ','.join(hosts))[0]
    assert get_master(written) == (0, hosts[0] + '\n', '')


@pytest.mark.parametrize('nodes, what', [
    (('',), "no node list: ''"),
    (('a[1',), "no node list: 'a[1' has a bracket that is not closed"),
    (('a[]',), "no node list: 'a[]' has no number at the beginning of a bracket"),
    (('a[x]',), "no node list: 'a[x]' has no number at the beginning of a bracket"),
    (('$(id),b',), "no node list: '$(id),b'"),
    (('a]',), "no node list: 'a]'"),
])
def test_what_is_no_node_list_is_an_error(nodes, what):
    assert get_master(*nodes) == (1, '', 'error: get-master: %s\n%s' % (what, HINT))


@pytest.mark.parametrize('words', [[], ['a', 'b'], ['--json']])
def test_get_master_is_used_with_one_node_list(words):
    assert get_master(*words) == (2, '', 'error: get-master: one node list is needed\n' + HINT)


@pytest.mark.parametrize('words', [['-rf'], ['--jsn', 'a1'], ['a1', '-'], ['--json=yes', 'a1']])
def test_get_master_takes_no_option_for_a_node_list(words):
    wrong = next(word for word in words if word.startswith('-'))
    assert get_master(*words) == (2, '', (
        'error: get-master: unrecognized arguments: %s\nhint: get-master --help\n' % wrong))


@pytest.mark.parametrize('shell', ['dash', 'bash', 'busybox sh'])
@pytest.mark.parametrize('words', [['--json', 'nid[001-004,7],b'], ['nid[001-004,7],b', '--json']])
def test_get_master_says_it_as_json(shell, words):
    done = subprocess.run([*shell.split(), str(RUNSCRIPTS / 'get-master'), *words], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, '{"master": "nid001"}\n')


class Step:
    """A job step of ranks that are processes of this machine."""

    def __init__(self, tmp_path):
        self.tmp, self.ranks = tmp_path / 'local disk', {}
        self.tmp.mkdir(exist_ok=True)
        self.name = '%d.0' % (time.time_ns() % 10 ** 9)

    def start(self, *argv, size=3, ranks=None, **variables):
        """Start the ranks, with a command for each."""
        for rank in range(size) if ranks is None else ranks:
            env = {'PATH': os.environ['PATH'], 'TMPDIR': str(self.tmp), 'SLURM_JOB_ID': self.name.split('.')[0],
                   'SLURM_STEP_ID': '0', 'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank), 'SLURMD_NODENAME': 'n1',
                   'SLURM_NTASKS': str(size), 'MASTER_ADDR': 'localhost', 'EASYSIF_RENDEZVOUS_TIMEOUT': '20',
                   **variables}
            self.ranks[rank] = subprocess.Popen(
                [sys.executable, '-B', '-E', '-s', str(DISTRIBUTED), *argv], env=env, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self

    def end(self):
        """Wait for all; return their exit statuses, what each printed, and all errors together."""
        told = {rank: process.communicate(timeout=60) for rank, process in self.ranks.items()}
        return ([self.ranks[rank].returncode for rank in sorted(told)], {rank: told[rank][0] for rank in told},
                ''.join(told[rank][1] for rank in sorted(told)))

    def say(self, **variables):
        """Return the environment of each rank's program (list of dict)."""
        statuses, told, errors = self.start(sys.executable, '-c', SAY, **variables).end()
        assert (set(statuses), errors) == ({0}, '')
        return [json.loads(told[rank]) for rank in sorted(told)]


@pytest.fixture
def step(tmp_path):
    """A job step (Step); no process and no file of it is left at the end."""
    step = Step(tmp_path)
    yield step
    for process in step.ranks.values():
        if process.poll() is None:
            process.kill()
            process.wait()
    assert list(step.tmp.iterdir()) == []


def test_each_rank_knows_the_others(step):
    envs = step.say()
    assert [env['RANK'] for env in envs] == ['0', '1', '2']
    port = envs[0]['MASTER_PORT']
    for rank, env in enumerate(envs):
        assert {name: env[name] for name in (
            'MASTER_ADDR', 'MASTER_PORT', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'JAX_COORDINATOR_ADDRESS',
            'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')} == {
                'MASTER_ADDR': 'localhost', 'MASTER_PORT': port, 'WORLD_SIZE': '3', 'LOCAL_RANK': str(rank),
                'LOCAL_WORLD_SIZE': '3', 'JAX_COORDINATOR_ADDRESS': 'localhost:' + port, 'JAX_NUM_PROCESSES': '3',
                'JAX_PROCESS_ID': str(rank)}
        own = '%s/easysif-%d-%s-%d@n1' % (step.tmp, os.getuid(), step.name, rank)
        assert env['TRITON_CACHE_DIR'] == own + '/triton' and env['MIOPEN_USER_DB_PATH'] == own + '/miopen'
    assert 10000 <= int(port) < 32768


def test_each_rank_says_as_json_what_it_is_given(step):
    """Before its program runs; and not the key of the job."""
    statuses, told, errors = step.start(
        '--json', sys.executable, '-c', 'import sys; sys.stderr.write("ran\\n")\n' + SAY, '--json', size=2,
        CUDA_VISIBLE_DEVICES='4', SLURM_GPUS_ON_NODE='1', EASYSIF_RENDEZVOUS_KEY='of the job').end()
    assert statuses == [0, 0] and 'of the job' not in errors
    said = errors.splitlines()
    assert said[1::2] == ['ran', 'ran'] and len(said) == 4
    port = int(json.loads(told[0])['MASTER_PORT'])
    assert [json.loads(line) for line in said[::2]] == [
        {'step': step.name, 'host': 'n1', 'rank': rank, 'size': 2, 'local_rank': 0, 'local_size': 2,
         'master': 'localhost', 'port': port} for rank in (0, 1)]


def test_the_script_has_the_ranks_say_it_and_all_other_words_are_the_programs(tmp_path):
    """Only the first word is an option of its own."""
    script = tmp_path / 'conda-python-distributed'
    (tmp_path / 'init-conda-venv').write_text('')
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib' / 'distributed.py').write_text('import sys; print(sys.argv[1:])')
    text = (RUNSCRIPTS / 'conda-python-distributed').read_text()
    assert text.count('/runscripts/') == 4
    script.write_text(text.replace('/runscripts/', '%s/' % tmp_path))
    env = {'PATH': '%s:/usr/bin:/bin' % os.path.dirname(sys.executable)}
    for words in (['-u', 'train.py', '--json', '', 'a  b'], ['-m', 'x', '--help'], ['-c', '$(id)', '-h'], ['--', '-h']):
        for ours in ([], ['--json']):
            done = subprocess.run(['sh', str(script), *ours, *words], env=env, stdout=subprocess.PIPE, text=True)
            python = shutil.which('python', path=env['PATH']) or shutil.which('python3', path=env['PATH'])
            assert done.stdout == '%r\n' % [*ours, python, *words]


def test_one_rank_needs_no_other(step):
    assert step.say(size=1)[0]['WORLD_SIZE'] == '1'


def test_what_the_user_chose_stays(step):
    env = step.say(size=2, MASTER_PORT='23456', TRITON_CACHE_DIR='/mine')[1]
    assert (env['MASTER_PORT'], env['TRITON_CACHE_DIR']) == ('23456', '/mine')


def test_two_steps_at_once_have_ports_of_their_own(tmp_path, step):
    """Also where both would take the same ones: the second step has the number of the first, on the same node."""
    other = Step(tmp_path / 'other') if (tmp_path / 'other').mkdir() is None else None
    other.name = step.name
    wait = ('import os, sys, time; print(os.environ["MASTER_PORT"], flush=True)\n'
            'while not os.path.exists(sys.argv[1]): time.sleep(0.02)')
    step.start(sys.executable, '-c', wait, str(tmp_path / 'go'), size=1)
    first = step.ranks[0].stdout.readline()
    other.start(sys.executable, '-c', wait, str(tmp_path / 'go'), size=1)
    second = other.ranks[0].stdout.readline()
    (tmp_path / 'go').touch()
    assert first and second and first != second
    assert step.end()[0] == other.end()[0] == [0]


def ports_of(step):
    """Return where the first rank of a step may be met (list of int)."""
    return distributed.Step({'SLURM_JOB_ID': step.name.split('.')[0], 'SLURM_STEP_ID': '0', 'SLURM_PROCID': '0',
                             'SLURM_NTASKS': '2', 'SLURM_LOCALID': '0', 'MASTER_ADDR': 'localhost'}).ports()


def test_a_port_that_somebody_else_has_is_not_taken(step):
    ports = ports_of(step)
    taken = []
    for port in ports[:5]:
        one = socket.socket()
        one.bind(('', port))
        one.listen(1)  # it answers, and says nothing that we understand
        taken.append(one)
    envs = step.say(size=2)
    assert int(envs[0]['MASTER_PORT']) == ports[6] and envs[1]['MASTER_PORT'] == envs[0]['MASTER_PORT']
    for one in taken:
        one.close()


UP = 'print("up", flush=True); import os, time\nwhile not os.path.exists("go"): time.sleep(0.05)'


@pytest.mark.parametrize('key, rank', [({}, 1), ({'EASYSIF_RENDEZVOUS_KEY': 'of the job'}, 2)])
def test_nobody_waits_for_one_who_comes_in_or_believes_that_it_is_another(step, key, rank, monkeypatch):
    """Or, in a job with a key, that it is the one which has not come yet; when all have come, nobody comes in."""
    monkeypatch.chdir(step.tmp.parent)
    port = ports_of(step)[0]
    step.start(sys.executable, '-c', UP, ranks=(0, 1), **key)
    assert [step.ranks[rank].stdout.readline() for rank in (0, 1)] == ['up\n'] * 2
    with socket.create_connection(('localhost', port)) as stranger:
        assert stranger.recv(1000).startswith(b'{')
        stranger.sendall(b'[' * 60000 + b'\n')  # deeper than Python can follow
        assert stranger.recv(1) == b''
    with socket.create_connection(('localhost', port)) as stranger:
        assert stranger.recv(1000).startswith(b'{')
        stranger.sendall(b'{"step": "%s", "rank": %d, "host": "n1", "proof": "%064d"}\n{"ended": 9}\n' % (
            step.name.encode(), rank, 0))
        step.start(sys.executable, '-c', UP, ranks=(2,), **key)
        assert step.ranks[2].stdout.readline() == 'up\n'
        deadline = time.monotonic() + 60
        while is_open(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        Path('go').touch()
        begin = time.monotonic()
        assert step.end()[0] == [0, 0, 0] and time.monotonic() - begin < 20


def is_open(port):
    """Tell whether somebody listens at a port (bool)."""
    with socket.socket() as one:
        return one.connect_ex(('localhost', port)) == 0


class Impostor(threading.Thread):
    """Listens where ranks look for the first one, and tells all that come what it is given, or what the first one says.

    ``told`` is what it is told (bytes).
    """

    def __init__(self, port, words):
        super().__init__(daemon=True)
        self.words, self.told, self.server = words, b'', socket.create_server(('', port))
        self.start()

    def run(self):
        with contextlib.suppress(OSError):  # it is closed at the end
            while True:
                with self.server.accept()[0] as guest:
                    guest.settimeout(20)
                    with contextlib.suppress(OSError):
                        guest.sendall(self.words())
                        self.told += guest.recv(1000)


@pytest.mark.parametrize('relays', [False, True])
def test_who_listens_where_the_first_rank_could_be_is_not_believed_in_a_job_with_a_key(step, relays):
    """Neither what it makes up, nor what the first rank itself told it; and the program does not see the key."""
    ports = ports_of(step)

    def words():
        if not relays:
            return b'{"step": "%s", "port": 1, "proof": null}\n' % step.name.encode()
        with socket.create_connection(('localhost', ports[1]), timeout=20) as first:
            return first.recv(1000)
    impostor = Impostor(ports[0], words)
    try:
        envs = step.say(EASYSIF_RENDEZVOUS_KEY='of the job')
    finally:
        impostor.server.close()
    assert [env['MASTER_PORT'] for env in envs] == [str(ports[2])] * 3 and impostor.told == b''
    assert not [env for env in envs if 'EASYSIF_RENDEZVOUS_KEY' in env]


def test_where_only_another_one_answers_that_is_said(step):
    impostor = Impostor(ports_of(step)[0], lambda: b'{"step": "%s", "port": 1, "proof": ""}\n' % step.name.encode())
    statuses, _, errors = step.start('true', ranks=(1,), size=2, EASYSIF_RENDEZVOUS_TIMEOUT='2',
                                     EASYSIF_RENDEZVOUS_KEY='of the job').end()
    impostor.server.close()
    assert statuses == [1] and ' within 2 seconds (who is there does not know the key of this job)\n' in errors


def test_a_proof_is_of_one_run_of_one_step_at_one_port():
    base = {'SLURM_JOB_ID': '1', 'SLURM_STEP_ID': '0', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '2', 'SLURM_LOCALID': '0',
            'MASTER_ADDR': 'localhost', 'EASYSIF_RENDEZVOUS_KEY': 'ü'}
    steps = [dict(base, **changes) for changes in (
        {}, {'SLURM_STEP_ID': '1'}, {'SLURM_RESTART_COUNT': '1'}, {'EASYSIF_RENDEZVOUS_KEY': 'other'},
        {'EASYSIF_RENDEZVOUS_KEY': '\udcff'})]
    proofs = [distributed.Step(env).proof('first', 20000, 20001) for env in steps]
    proofs += [distributed.Step(base).proof(*words) for words in (
        ('rank', 20000, 20001), ('first', 20002, 20001), ('first', 20000, 20002))]
    assert len(set(proofs)) == 8 and links.is_proof(proofs[0], proofs[0])
    assert not any(links.is_proof(said, proofs[0]) for said in (None, 1, '', 'ü', '\udcff', proofs[1]))
    assert links.is_proof('', '') and not links.is_proof(None, '')


def test_so_many_who_come_in_that_there_are_no_files_left_are_sent_away(step):
    rank = ranks.Rank(distributed.Step({'SLURM_JOB_ID': '1', 'SLURM_STEP_ID': '0', 'SLURM_PROCID': '0',
                                        'SLURM_NTASKS': '3', 'SLURM_LOCALID': '0', 'MASTER_ADDR': 'localhost'}), [])
    pairs = [socket.socketpair() for _ in range(2)]
    found = [links.Link.__new__(links.Link) for _ in pairs]
    for link, pair in zip(found, pairs):
        link.connection, link.left, link.rank, link.host, link.is_over = pair[0], b'', None, '', False
        rank.add(link)
    found[0].rank = 1
    rank.server = SimpleNamespace(accept=_no_files)
    rank.welcome()
    rank.hear(found[1])  # which had said something at the same moment
    assert rank.links == {found[0]} and pairs[1][1].recv(1) == b'' and not rank.why
    for one in (*pairs[0], *pairs[1]):
        one.close()


def _no_files():
    raise OSError(24, 'Too many open files')


def test_more_ranks_than_files_that_a_process_usually_opens(step):
    """The first rank opens as many as it may, and its program may open as many as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    say = 'import resource, time; print(resource.getrlimit(7)[0], flush=True); time.sleep(60)'
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (70, before[1]))
        step.start(sys.executable, '-c', say, size=1000, ranks=(0,), EASYSIF_RENDEZVOUS_TIMEOUT='60')
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert step.ranks[0].stdout.readline() == '70\n'
    limits = Path('/proc/%d/limits' % step.ranks[0].pid).read_text()
    assert re.search(r'^Max open files +1064 ', limits, re.MULTILINE)
    step.ranks[0].kill()
    step.end()
    os.rmdir('%s/easysif-%d-%s-0@n1' % (step.tmp, os.getuid(), step.name))


def test_fewer_files_than_ranks_are_an_error(step):
    limited = 'ulimit -n 80 && exec "$@"'
    done = subprocess.run(['sh', '-c', limited, 'sh', sys.executable, '-B', str(DISTRIBUTED), 'true'], env={
        'SLURM_JOB_ID': step.name.split('.')[0], 'SLURM_STEP_ID': '0', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '20',
        'SLURM_LOCALID': '0', 'SLURMD_NODENAME': 'n1', 'MASTER_ADDR': 'localhost'}, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, (
        'error: conda-python-distributed: rank 0 on n1: may open 80 files, which is too few for 20 ranks\n'
        'hint: ulimit -Hn, on this node\n'))


@pytest.mark.parametrize('program, status, how', [
    ('raise SystemExit(7)', 7, 'ended with exit code 7'),
    ('os.kill(os.getpid(), 11)', 139, 'was ended by signal 11'),
])
@pytest.mark.parametrize('rank', ['0', '2'])
def test_a_rank_that_fails_ends_all_others_and_is_named(step, program, status, how, rank):
    begin = time.monotonic()
    statuses, _, errors = step.start(sys.executable, '-c', (
        'import os, time\nif os.environ["RANK"] == "%s":\n    %s\ntime.sleep(60)' % (rank, program))).end()
    assert statuses == [status] * 3 and time.monotonic() - begin < 50
    assert errors == ('error: conda-python-distributed: rank %s on n1 %s\nhint: look above for what it printed\n'
                      % (rank, how))


def test_a_program_that_does_not_want_to_end_is_killed(step, tmp_path):
    program = ('import os, signal, sys, time\nif os.environ["RANK"] == "1":\n'
               '    while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n    sys.exit(3)\n'
               'signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen(sys.argv[1], "w").close()\ntime.sleep(60)')
    assert step.start(sys.executable, '-c', program, str(tmp_path / 'deaf'), size=2).end()[0] == [3, 3]


def test_a_rank_that_is_killed_ends_all_others(step):
    step.start(sys.executable, '-c', 'print("up", flush=True); import time; time.sleep(60)')
    assert all(process.stdout.readline() == 'up\n' for process in step.ranks.values())
    step.ranks[1].kill()
    statuses, _, errors = step.end()
    assert statuses == [1, -9, 1]
    assert errors == 'error: conda-python-distributed: rank 1 on n1 was lost\n'
    os.rmdir('%s/easysif-%d-%s-1@n1' % (step.tmp, os.getuid(), step.name))  # nobody was left to do that


def test_a_rank_that_does_not_come_is_named(step):
    program = (sys.executable, '-c', 'import time; time.sleep(60)')
    step.start(*program, size=4, ranks=(2,), EASYSIF_RENDEZVOUS_TIMEOUT='60')
    time.sleep(1)  # so that this one looks for the first rank already
    statuses, _, errors = step.start(*program, size=4, ranks=(0,), EASYSIF_RENDEZVOUS_TIMEOUT='4').end()
    assert statuses == [1, 1]
    assert errors == ('error: conda-python-distributed: rank 1, 3 did not come within 4 seconds\nhint: look above for '
                      'what it printed; EASYSIF_RENDEZVOUS_TIMEOUT=<seconds> waits longer\n')


def test_without_the_first_rank_no_other_waits_for_ever(step):
    statuses, _, errors = step.start('true', ranks=(1,), size=2, EASYSIF_RENDEZVOUS_TIMEOUT='2').end()
    assert statuses == [1] and errors.startswith(
        'error: conda-python-distributed: rank 1 on n1: the first rank could not be met on localhost within 2 seconds')
    assert errors.endswith('\nhint: getent hosts localhost, on each node\n')


def test_signals_reach_the_program(step):
    program = ('import os, signal, sys, time\nsignal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"usr1\\n"))\n'
               'signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nos.write(1, b"up\\n")\ntime.sleep(60)\n'
               'time.sleep(60)')
    step.start(sys.executable, '-c', program, size=1)
    assert step.ranks[0].stdout.readline() == 'up\n'
    step.ranks[0].send_signal(signal.SIGUSR1)
    assert step.ranks[0].stdout.readline() == 'usr1\n'
    step.ranks[0].send_signal(signal.SIGTERM)
    assert step.end()[0] == [0]


def test_a_signal_reaches_a_program_that_is_only_starting(step):
    step.start(sys.executable, '-c', 'import time; time.sleep(60)', size=1)
    children = Path('/proc/{0}/task/{0}/children'.format(step.ranks[0].pid))
    told, begin = set(), time.monotonic()
    while step.ranks[0].poll() is None:
        assert time.monotonic() - begin < 20
        with contextlib.suppress(OSError):
            for child in set(children.read_text().split()) - told:
                os.kill(int(child), signal.SIGTERM)
                told.add(child)
    assert step.end()[0] == [143]


def test_a_step_that_is_told_to_end_complains_of_nothing(step):
    step.start(sys.executable, '-c', 'print("up", flush=True); import time; time.sleep(60)')
    for process in step.ranks.values():
        process.stdout.readline()
    for process in step.ranks.values():
        process.terminate()
    statuses, _, errors = step.end()
    assert (statuses, errors) == ([143] * 3, '')


def until_its_program_has_ended(process):
    """Wait until a rank has no process below it any more."""
    children, deadline = Path('/proc/{0}/task/{0}/children'.format(process.pid)), time.monotonic() + 20
    while children.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_first_rank_that_waits_for_one_who_does_not_come_ends_when_it_is_told_to(step):
    """And with it the one that came, whose program is at work."""
    step.start(sys.executable, '-c', 'import os, time; print("up", flush=True)\n'
               'if os.environ["RANK"] == "1": time.sleep(60)', ranks=(0, 1))
    assert [step.ranks[rank].stdout.readline() for rank in (0, 1)] == ['up\n'] * 2
    until_its_program_has_ended(step.ranks[0])
    step.ranks[0].terminate()
    statuses, _, errors = step.end()
    assert (statuses, errors) == ([143, 143], '')


def test_the_first_rank_whose_program_ends_well_when_told_to_waits_for_nobody_who_did_not_come(step):
    step.start(sys.executable, '-c', 'import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n'
               'print("up", flush=True); time.sleep(60)', ranks=(0,))
    assert step.ranks[0].stdout.readline() == 'up\n'
    step.ranks[0].terminate()
    statuses, _, errors = step.end()
    assert (statuses, errors) == ([143], '')


def test_the_first_rank_that_waits_for_others_at_work_has_them_end_when_it_is_told_to(step):
    step.start(sys.executable, '-c', 'import os, time; print("up", flush=True)\n'
               'if os.environ["RANK"] != "0": time.sleep(60)')
    assert all(process.stdout.readline() == 'up\n' for process in step.ranks.values())
    until_its_program_has_ended(step.ranks[0])
    step.ranks[0].send_signal(signal.SIGINT)
    statuses, _, errors = step.end()
    assert (statuses, errors) == ([130] * 3, '')


GPUS = '4,5,6,7'


@pytest.mark.parametrize('variables, expected', [
    # a node's GPUs, which all ranks see: each gets its own
    ({'CUDA_VISIBLE_DEVICES': GPUS, 'SLURM_GPUS_ON_NODE': '4'}, [('4,5', '0', '0,1'), ('6,7', '1', '0,1')]),
    # of the scheduler for each rank
    ({'CUDA_VISIBLE_DEVICES': '4,5', 'SLURM_GPUS_ON_NODE': '4', 'SLURM_GPUS_PER_TASK': '2'},
     [('4,5', '0', '0,1'), ('4,5', '1', '0,1')]),
    ({'CUDA_VISIBLE_DEVICES': '4', 'SLURM_GPUS_ON_NODE': '2', 'SLURM_TRES_PER_TASK': 'cpu:1,gres/gpu:1'},
     [('4', '0', '0'), ('4', '0', '0')]),
    ({'CUDA_VISIBLE_DEVICES': '0', 'SLURM_GPUS_ON_NODE': '2'}, [('0', '0', '0'), ('0', '0', '0')]),
    # of the scheduler, whose ranks see all the same
    ({'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_ON_NODE': '2', 'SLURM_GPUS_PER_TASK': '1'},
     [('0,1', '0', None), ('0,1', '1', None)]),
    # what the user wants
    ({'CUDA_VISIBLE_DEVICES': GPUS, 'SLURM_GPUS_ON_NODE': '4', 'EASYSIF_GPUS': 'all'},
     [(GPUS, '0', None), (GPUS, '1', None)]),
    ({'SLURM_GPUS_ON_NODE': '4'}, [(None, '0', None), (None, '1', None)]),
])
def test_gpus_are_those_that_the_scheduler_gives(step, variables, expected):
    assert [(env.get('CUDA_VISIBLE_DEVICES'), env['LOCAL_RANK'], env.get('JAX_LOCAL_DEVICE_IDS'))
            for env in step.say(size=2, **variables)] == expected


def test_what_rocm_has_hidden_is_not_hidden_twice(step):
    envs = step.say(size=2, ROCR_VISIBLE_DEVICES='2,3', CUDA_VISIBLE_DEVICES='2,3', SLURM_GPUS_ON_NODE='2')
    assert [(env['ROCR_VISIBLE_DEVICES'], env['CUDA_VISIBLE_DEVICES']) for env in envs] == [('2', '0'), ('3', '0')]


@pytest.mark.parametrize('text, node, local', [('2', '0', '2'), ('4(x2),3', '2', '3'), ('1,5(x2)', '1', '5')])
def test_the_ranks_of_a_node_are_counted_as_slurm_writes_them(step, text, node, local):
    assert step.say(size=1, SLURM_STEP_TASKS_PER_NODE=text, SLURM_NODEID=node)[0]['LOCAL_WORLD_SIZE'] == local


@pytest.mark.parametrize('version, own, expected', [
    ('0.4.31', '1', '0'), ('0.4.31', None, '1'), ('0.4.32', '1', '1'), ('0.4.34.dev20241018', '1', '1'),
    ('0.3.25', '1', '0'), (None, '1', '1')])
def test_a_jax_that_only_knows_slurm_takes_the_gpu_that_the_rank_sees(step, tmp_path, version, own, expected):
    """JAX before 0.4.32 takes the GPU whose number is SLURM_LOCALID; with one GPU for each rank that is not there."""
    if version:
        (tmp_path / 'packages' / ('jax-%s.dist-info' % version)).mkdir(parents=True)
    (tmp_path / 'site.py').write_text(SITE_OF_IMAGE)
    env = {'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_GPUS_ON_NODE': '2'}
    if own is None:
        env['EASYSIF_GPUS'] = 'all'
    for rank in (0, 1):
        pid = {'SLURM_JOB_ID': step.name.split('.')[0], 'SLURM_STEP_ID': '0', 'SLURM_PROCID': str(rank),
               'SLURM_LOCALID': str(rank), 'SLURMD_NODENAME': 'n1', 'SLURM_NTASKS': '2', 'MASTER_ADDR': 'localhost'}
        step.ranks[rank] = subprocess.Popen(
            [sys.executable, '-B', '-s', str(tmp_path / 'site.py'), str(DISTRIBUTED), str(tmp_path / 'packages'),
             sys.executable, '-c', SAY], env=dict(os.environ, TMPDIR=str(step.tmp), **env, **pid), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    statuses, told, errors = step.end()
    assert (statuses, errors) == ([0, 0], '')
    assert json.loads(told[1])['SLURM_LOCALID'] == expected and json.loads(told[1])['RANK'] == '1'


def test_a_full_disk_is_no_reason_not_to_begin(monkeypatch, tmp_path):
    monkeypatch.setattr(ends.tempfile, 'mkdtemp', lambda: _full())
    assert ends.rehearse() is None
    monkeypatch.setattr(ends.tempfile, 'mkdtemp', lambda: str(tmp_path / 'made'))  # a file there cannot be made
    assert ends.rehearse() is None


def _full():
    raise OSError(28, 'No space left on device')


def test_a_port_that_is_taken_between_two_looks_at_it_is_not_used(step, monkeypatch):
    taken, real = [], links.serve

    def serve(port, others):
        if not taken:
            taken.append(socket.socket())
            taken[0].bind(('', port))
            taken[0].listen(1)
        return real(port, others)
    monkeypatch.setattr(links, 'serve', serve)
    rank = ranks.Rank(distributed.Step({
        'SLURM_JOB_ID': step.name.split('.')[0], 'SLURM_STEP_ID': '0', 'SLURM_PROCID': '0', 'SLURM_NTASKS': '2',
        'SLURM_LOCALID': '0', 'MASTER_ADDR': 'localhost'}), ['true'])
    rank.open()
    ports = ports_of(step)
    assert (rank.server.getsockname()[1], rank.port) == (ports[1], ports[2])
    for one in (taken[0], rank.server, rank.selector, *rank.kept):
        one.close()


def error_of(*argv, **variables):
    env = {'PATH': os.environ['PATH'], **variables}
    done = subprocess.run([sys.executable, '-B', str(DISTRIBUTED), *argv], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 1
    return done.stdout


def test_outside_a_job_it_is_said_what_is_missing(tmp_path):
    hint = ('hint: srun --ntasks=4 singularity exec "$SIF" conda-python-distributed PROGRAM.py, in a job of Slurm\n')
    assert error_of('true') == (
        'error: conda-python-distributed: this is no rank of a job step of Slurm: SLURM_JOB_ID, SLURM_STEP_ID, '
        'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, MASTER_ADDR are not set\n' + hint)
    step = dict.fromkeys(('SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURM_PROCID', 'SLURM_LOCALID'), '0')
    assert error_of('true', SLURM_NTASKS='1', **step) == (
        'error: conda-python-distributed: this is no rank of a job step of Slurm: MASTER_ADDR is not set\n' + hint)
    assert error_of('true', SLURM_NTASKS='x', MASTER_ADDR='a', **step).startswith(
        'error: conda-python-distributed: the variables of Slurm cannot be understood (invalid literal')


def test_a_directory_for_caches_that_is_not_ours_is_not_used(step):
    path = step.tmp / ('easysif-%d-%s-0@n1' % (os.getuid(), step.name))
    path.symlink_to('/tmp')
    statuses, _, errors = step.start('true', size=1).end()
    assert statuses == [1] and errors == (
        'error: conda-python-distributed: rank 0 on n1: no directory for caches can be made: %s (File exists)\n'
        'hint: export TMPDIR=<a directory on the local disk>\n' % path)
    path.unlink()


def test_what_a_killed_rank_left_is_cleared_away_by_the_next(step):
    old, new, used, elsewhere = (step.tmp / ('easysif-%d-%s' % (os.getuid(), rank)) for rank in (
        '1.0-0@n1', '2.0-0@n1', '3.0-0@n1', '4.0-0@n2'))
    for path in (old, new, used, elsewhere):
        (path / 'triton').mkdir(parents=True)
    for path in (old, used, elsewhere):
        os.utime(path, (0, 0))
    handle = os.open(used, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    assert step.start('true', size=1).end()[0] == [0]
    assert set(step.tmp.iterdir()) == {new, used, elsewhere}
    os.close(handle)
    for path in (new, used, elsewhere):
        shutil.rmtree(path)


def test_a_program_that_is_not_there_is_named(step):
    statuses, _, errors = step.start('/no/such', size=1).end()
    assert statuses == [127] and errors.startswith(
        'error: conda-python-distributed: rank 0 on n1: /no/such: No such file or directory\n')
