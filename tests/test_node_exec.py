# SPDX-License-Identifier: GPL-2.0-only
"""One mount a node: an image that processes share, whatever becomes of each of them."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harness
import toys
from easysif.data import helper

pytest_plugins = ['standin_fixtures']
pytestmark = pytest.mark.e2e

#: waits for a file `go`, having said that it is there; it reads from the image before and after
WAIT = 'cat /bin/fine && : >up-$RANK; while [ ! -e go ]; do sleep 0.1; done; ls /bin >/dev/null'


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """An image of a few files, with a shell (Path)."""
    return toys.make_image(tmp_path_factory.mktemp('image'))


@pytest.fixture
def node(image, tmp_path):
    """A node of a job: starts processes that share images, and finds nothing of them left at its end (Node)."""
    node = Node(image, tmp_path)
    before = node.state()
    yield node
    for process in node.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    node.wait(lambda: not node.running())
    assert node.state() == before


class Node:
    """Processes that share images.

    :param image: the image that they share unless told otherwise (Path)
    :param directory: where they run (Path)
    """

    def __init__(self, image, directory):
        self.image, self.directory, self.processes = image, directory, []
        self.mark = 'NODE_TEST=%s' % directory
        (directory / 'tmp').mkdir()
        self.env = dict(harness.user_environment(directory / 'home'), TMPDIR=str(directory / 'tmp'), SLURM_JOB_ID='1',
                        SLURM_STEP_ID='0', SLURMD_NODENAME=str(directory), NODE_TEST=str(directory))
        harness.run(['apptainer', 'exec', image, 'true'], env=self.env)  # it makes directories in the home

    def start(self, *command, image=None, cwd=None, mask=None, options=(), **env):
        """Start a command in the shared image and return its process (Popen)."""
        runtime = harness.run(['sh', '-c', 'command -v apptainer'], env=self.env).stdout.strip()
        argv = [sys.executable, '-I', '-S', '-B', helper('node'), 'join', '--only', *options, '--shell', '/bin/sh',
                runtime, image or self.image, *command]
        process = subprocess.Popen([str(arg) for arg in argv], env=dict(self.env, **env), cwd=cwd or self.directory,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=(lambda: os.sched_setaffinity(0, mask)) if mask else None)
        self.processes.append(process)
        return process

    def hold(self, step):
        """Have a step hold the image for all steps, and return its process and that of the keeper (Popen, int)."""
        process = self.start(options=('--stay',), SLURM_STEP_ID=step)
        return process, json.loads(process.stdout.readline())['keeper']

    def ranks(self, count, **options):
        """Start so many that wait for `go`, and return them when all are there (list of Popen)."""
        begun = len(self.processes)
        found = [self.start('sh', '-c', WAIT, RANK=str(begun + number), **options) for number in range(count)]
        self.wait(lambda: all((self.directory / ('up-%d' % (begun + number))).exists() for number in range(count)))
        return found

    def go(self, *ranks):
        """Let all that wait go on, and return how they end (list of int)."""
        (self.directory / 'go').touch()
        ends = [rank.wait(300) for rank in ranks]
        assert not any(ends) or not [print(rank.stderr.read()) for rank in ranks]
        return ends

    def running(self):
        """Return number -> name of all that these processes have started and that has not ended (dict)."""
        found = {}
        for name in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                path = Path('/proc', name)
                comm = (path / 'comm').read_text().strip()
                # what serves a mount has no environment, but its image open
                files = [os.readlink(one) for one in (path / 'fd').iterdir()] if comm.startswith('squashfuse') else []
                if self.mark.encode() in (path / 'environ').read_bytes().split(b'\0') or str(self.image) in files or (
                        any(one.startswith(str(self.directory)) for one in files)):
                    found[int(name)] = comm
        return found

    def named(self, name):
        """Return those of a name (list of int)."""
        return [pid for pid, comm in self.running().items() if comm == name[:15]]

    def daemons(self):
        """Return the processes that serve mounts (list of int)."""
        return self.named('squashfuse_ll') + self.named('squashfuse')

    def state(self):
        """Return what there is of mounts, sockets, processes and files of the runtime and ours (tuple)."""
        sockets = set(re.findall('@easysif-%d-.*' % os.getuid(), Path('/proc/net/unix').read_text(errors='replace')))
        return (Path('/proc/self/mounts').read_text(), sockets, sorted(self.running()),
                toys.files(self.directory / 'tmp'), toys.files(self.directory / 'home'))

    @staticmethod
    def wait(condition):
        """Wait until something holds."""
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_sixteen_processes_share_two_images_and_keep_what_is_their_own(node, tmp_path):
    other = tmp_path / 'other.sif'
    harness.run(['cp', node.image, other])
    ranks, processors = [], sorted(os.sched_getaffinity(0))
    for number in range(16):
        directory = tmp_path / ('of rank %d' % number)
        directory.mkdir()
        ranks.append(node.start(
            'sh', '-c', 'cat; echo "$RANK"; pwd; cat /proc/self/status; echo error >&2; cd ..; %s; exit $RANK' % WAIT,
            cwd=directory, RANK=str(number), image=(None, other)[number % 2],
            mask={processors[number % len(processors)]}))
        ranks[-1].stdin.write('input %d\n' % number)
        ranks[-1].stdin.close()
    node.wait(lambda: all((tmp_path / ('up-%d' % number)).exists() for number in range(16)))
    assert (len(node.named('easysif-keeper')), len(node.daemons())) == (2, 2)
    (tmp_path / 'go').touch()
    for number, rank in enumerate(ranks):
        assert rank.wait(300) == number
        lines, errors = rank.stdout.read().splitlines(), rank.stderr.read()
        assert lines[:3] == ['input %d' % number, str(number), str(tmp_path / ('of rank %d' % number))], errors
        status = dict(line.partition(':\t')[::2] for line in lines[3:])
        assert (status['Cpus_allowed_list'], status['PPid'], status['NoNewPrivs'], errors) == (
            str(processors[number % len(processors)]), str(rank.pid), '1', 'error\n')


def test_a_process_that_is_killed_takes_nobody_with_it(node):
    ranks = node.ranks(3)
    ranks[0].kill()  # the one that started it all
    ranks[1].send_signal(signal.SIGKILL)
    late, = node.ranks(1)
    assert len(node.daemons()) == 1
    assert node.go(ranks[2], late) == [0, 0]


def test_the_first_one_is_killed_as_soon_as_it_has_begun(node):
    first = node.start('true')
    node.wait(lambda: node.named('easysif-keeper'))
    first.kill()
    ranks = node.ranks(2)
    assert node.go(*ranks) == [0, 0]


def test_all_are_killed_at_once(node):
    for rank in node.ranks(3):
        rank.kill()


@pytest.mark.parametrize('names', [('keeper',), ('runtime',), ('keeper', 'runtime')])
def test_what_keeps_the_mounts_is_killed(names, node):
    ranks = node.ranks(2)
    runtime = {int(Path('/proc/%d/stat' % pid).read_text().rpartition(')')[2].split()[1]) for pid in node.daemons()}
    assert runtime
    for name in names:
        for pid in node.named('easysif-keeper') if name == 'keeper' else runtime:
            os.kill(pid, signal.SIGKILL)
    late = node.ranks(1)
    assert node.go(*ranks, *late) == [0, 0, 0]


def test_the_keeper_is_killed_before_anybody_is_in(node):
    rank = node.start('true')
    node.wait(lambda: node.named('easysif-keeper'))
    for pid in node.named('easysif-keeper'):
        os.kill(pid, signal.SIGKILL)
    assert rank.wait(300) == 0


def is_listening(process):
    """Return whether others can connect to a process (bool)."""
    lines = [line.split() for line in Path('/proc/net/unix').read_text(errors='replace').splitlines()]
    listening = {'socket:[%s]' % words[6] for words in lines if words[3] == '00010000'}
    for one in Path('/proc/%d/fd' % process).iterdir():
        with contextlib.suppress(OSError):  # it has just been closed
            if os.readlink(one) in listening:
                return True
    return False


def test_a_step_that_holds_the_image_ends_after_those_who_are_in_it(node):
    """Signals for all steps of a job are for the ranks, who may save their work then."""
    held, keeper = node.hold('3')
    other, same = node.hold('4')
    ranks = node.ranks(2)
    other.send_signal(signal.SIGTERM)  # the keeper does not end with that step
    assert (same, other.wait(300)) == (keeper, -signal.SIGTERM)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGALRM):
        held.send_signal(number)
    ranks += node.ranks(1)
    assert len(node.daemons()) == 1
    for _ in range(2):
        held.send_signal(signal.SIGTERM)
        node.wait(lambda: not is_listening(keeper))  # who comes now has another one
    ranks += node.ranks(2)
    assert (len(node.daemons()), held.poll()) == (2, None)
    assert node.go(*ranks) == [0] * 5
    assert held.wait(300) == 3


def test_of_two_steps_that_hold_the_image_the_second_goes_on_with_it(node):
    held, keeper = node.hold('3')
    other, same = node.hold('4')
    assert same == keeper
    held.send_signal(signal.SIGTERM)
    assert held.wait(300) == 3
    node.wait(lambda: len(node.daemons()) == 1)
    ranks = node.ranks(2)
    assert (len(node.daemons()), node.go(*ranks)) == (1, [0, 0])
    other.send_signal(signal.SIGTERM)
    assert other.wait(300) == 3


def test_signals_and_exit_codes_are_those_of_the_command(node):
    rank = node.start('sh', '-c', 'trap "exit 9" USR1; %s' % WAIT, RANK='0')
    node.wait(lambda: (node.directory / 'up-0').exists())
    rank.send_signal(signal.SIGUSR1)
    node.start('sh', '-c', WAIT, RANK='1')
    assert rank.wait(300) == 9
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        assert node.start('sh', '-c', 'kill -%d $$' % number).wait(300) == -number
    missing = node.start('nothing-of-the-kind')
    assert missing.wait(300) == 127
    assert missing.stderr.read() == ("error: {0}: command 'nothing-of-the-kind' is not in the image\n"
                                     'hint: see what there is: apptainer exec "{0}" ls /usr/bin\n').format(node.image)
    unreadable = node.start('/etc/passwd')
    assert unreadable.wait(300) == 126 and re.search(
        "command '/etc/passwd' cannot be run (.*)\nhint: .* ls -l \"/etc/passwd\"\n", unreadable.stderr.read())
    node.go(*node.processes[1:2])


def test_a_process_that_closes_all_files_still_counts(node):
    rank = node.start('sh', '-c', 'exec 100>&- 101>&- 102>&- 103>&-; ' + WAIT, RANK='0')
    node.wait(lambda: (node.directory / 'up-0').exists())
    time.sleep(0.7)  # time in which the keeper would have ended it
    assert node.go(rank) == [0]


def test_settings_of_the_runtime_and_other_steps_have_mounts_of_their_own(node, tmp_path):
    (tmp_path / 'bound').mkdir()
    ranks = [*node.ranks(1), *node.ranks(1, APPTAINER_BIND='%s:/mnt' % (tmp_path / 'bound')),
             *node.ranks(1, SLURM_STEP_ID='1'), *node.ranks(1)]
    assert len(node.daemons()) == 3
    assert node.go(*ranks) == [0] * 4


def test_a_directory_that_is_not_inside_gets_a_container_that_has_it(node, tmp_path):
    with open('/proc/self/mountinfo') as handle:
        assert '/usr/share/doc' not in handle.read()
    ranks = node.ranks(1)
    elsewhere = node.start('sh', '-c', 'pwd; ls', cwd='/usr/share/doc')
    assert elsewhere.wait(300) == 0
    assert elsewhere.stdout.read().splitlines() == ['/usr/share/doc', *sorted(os.listdir('/usr/share/doc'))]
    assert node.go(*ranks) == [0]


def test_what_cannot_be_shared_is_told(node):
    empty = node.directory / 'empty.sif'
    empty.write_text('no image')
    failing = node.start('true', image=empty)
    assert failing.wait(300) == 3
    told = failing.stderr.read()
    assert told.startswith('error: %s: the image cannot be shared on this node\n  reason  ' % empty)
    assert told.endswith('hint: leave out node-exec; each process then mounts the image for itself\n')
    apart = node.start('true', APPTAINER_PID='1')
    assert apart.wait(300) == 3
    assert 'reason  its processes have numbers of their own (isolation: pid)\n' in apart.stderr.read()


def test_the_environment_is_that_of_a_container_of_its_own(standin, tmp_path):
    module = standin('jax')
    first = subprocess.Popen([module.bin / 'sh', '-c', 'echo up; read -r line'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, env=module.env(EASYSIF_SHARE='node', GONE='x', CHANGED='1',
                                                                    APPTAINERENV_GIVEN='1', SINGULARITYENV_LOST='2'))
    assert first.stdout.readline() == b'up\n'
    found = {}
    for share in ('node', 'none'):
        env = module.env(EASYSIF_SHARE=share, CHANGED='a "b" $c\n`d`', NEW='é', APPTAINERENV_GIVEN='2', EMPTY='',
                         SLURM_PROCID='7', CUDA_VISIBLE_DEVICES='3')
        lines = module.run('env', '-0', env=env).stdout.split('\0')
        found[share] = dict(line.split('=', 1) for line in lines if '=' in line)
        del found[share]['EASYSIF_SHARE']
        found[share].pop('_', None)
    first.communicate(b'\n', timeout=300)
    assert found['node'] == found['none']
    assert (found['node']['GIVEN'], found['node']['CUDA_VISIBLE_DEVICES']) == ('2', '3') and 'GONE' not in found['node']


def test_node_exec_runs_commands_of_modules_and_of_images(standin, image, tmp_path):
    module = standin('jax')
    env = module.env(PYTHONPATH='%s:%s' % (harness.CLONE, harness.CLONE / 'tools'), EASYBUILD_PREFIX=module.prefix)
    easysif = [sys.executable, '-m', 'easysif.cli', 'node-exec']
    told = harness.run([*easysif, '--json', 'jax', '--', 'python', '-c', 'import sys; print(sys.prefix)'], env=env)
    assert told.stdout == '/user-software/venv/jax\n'
    done = json.loads(told.stderr)
    assert {name: done[name] for name in ('module', 'image', 'shared', 'number')} == {
        'module': module.name, 'image': str(module.sif), 'shared': True, 'number': 1}
    assert harness.run([*easysif, image, '--', 'ls', '/bin/fine'], env=env).stdout == '/bin/fine\n'
