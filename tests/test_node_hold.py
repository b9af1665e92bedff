# SPDX-License-Identifier: GPL-2.0-only
"""An image that is kept for all steps of a job: who may ask for it, and what is told where it fails.

On a real Slurm, with containers: tests/test_slurm_jobs.py.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

import harness
from easysif.cli import main
from easysif.data import helper
from easysif.errors import EasySIFError
from easysif.running import node
from easysif.site import resolve
from made_up import MadeUp

sys.path.append(helper('node'))
import join  # noqa: E402 (they are shipped as files, not as modules)
import launch  # noqa: E402
import meeting  # noqa: E402

JOB = {'SLURM_JOB_ID': '7', 'SLURM_JOB_NUM_NODES': '2', 'SLURM_MEM_PER_CPU': '10', 'SLURM_NTASKS': '64',
       'SRUN_CPUS_PER_TASK': '8', 'SLURM_EXPORT_ENV': 'ALL', 'SLURM_CONF': '/etc/x', 'SLURM_CONF_SERVER': 'y',
       'SLURM_WORKING_CLUSTER': 'c:h:1:2'}

FAILED = '''\
error: jax/1: the image cannot be kept mounted for the job
  reason  %s
hint: leave out node-hold; each job step then mounts the image for itself
'''


@pytest.fixture
def srun(tmp_path):
    """A function that makes a directory with a srun that does as told, for failures (str)."""
    def make(text):
        (tmp_path / 'bin').mkdir(exist_ok=True)
        (tmp_path / 'bin' / 'srun').write_text('#!/bin/sh\necho $$ >"$0.new" && mv "$0.new" "$0.pid"\n' + text)
        (tmp_path / 'bin' / 'srun').chmod(0o755)
        return str(tmp_path / 'bin' / 'srun')
    return make


def start(srun, *options, env=None, **more):
    """Start a step for two nodes, by a srun, and return the process (Popen)."""
    argv = [sys.executable, '-I', '-S', '-B', helper('node'), 'launch', '--module', 'jax/1', *options, srun, '2',
            'what', 'each node runs']
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, **{'stdout': subprocess.PIPE, **more},
                            env=dict(JOB, PATH=harness.SYSTEM_PATH, **(env or {})))


def word(name, **more):
    return json.dumps({'easysif': 'node-hold', 'node': name, 'step': '7.3', 'keeper': 11, 'holder': 12, **more})


def test_who_may_ask_for_it(tmp_path, monkeypatch, srun):
    MadeUp(tmp_path / 'p', 'toy/1')
    site, path = resolve({}).site, os.path.dirname(srun(''))

    def told(environ, what='toy'):
        with pytest.raises(EasySIFError) as raised:
            node.hold(what, site, lambda: str(tmp_path / 'p'), environ)
        return str(raised.value), raised.value.exit_code
    assert told({}) == ('easysif node-hold: this is no job of Slurm\nhint: salloc --nodes=1', 1)
    assert told({'PBS_JOBID': '5'})[0] == (
        'easysif node-hold: this is no job of Slurm\n  PBS_JOBID  5\n'
        'hint: leave it out: all processes of this job on a node share an image without it')
    assert told(dict(JOB, SLURM_STEP_NUM_TASKS='4'), 'a b')[0] == (
        "easysif node-hold: it is called once in a job, not by each rank\n  ranks  4\n"
        "hint: easysif node-hold 'a b', in the script before srun")
    for count in ('0', '-1', 'x', '\u00b2', '\u0662'):
        assert told(dict(JOB, SLURM_JOB_NUM_NODES=count))[0] == (
            'easysif node-hold: the job has no number of nodes\n  SLURM_JOB_NUM_NODES  %s\n'
            'hint: scontrol show job "$SLURM_JOB_ID"' % count)
    assert told(dict(JOB, PATH='/nowhere')) == (
        'easysif node-hold: srun is not on PATH\nhint: command -v srun', 3)
    assert told(dict(JOB, PATH=path), './no.sif')[0] == './no.sif: there is no such image\nhint: ls -l -- ./no.sif'
    installed = tmp_path / 'p' / 'software' / 'toy' / '1' / 'easysif' / 'node' / 'launch.py'
    installed.unlink()
    assert told(dict(JOB, PATH=path))[0] == (
        'toy/1: its wrappers cannot share the image yet, they were made by an older EasySIF\n'
        'hint: easysif refresh toy/1 --prefix %s' % (tmp_path / 'p'))


def test_what_srun_is_given(tmp_path, srun):
    """One process a node beside all others, whatever the job's own steps are to be; nothing of that counts for it."""
    path = srun('env -0 >%s/env; printf "%%s\\n" "$@" >%s/argv\necho \'%s\'\necho \'%s\'\nexec sleep 300\n' % (
        tmp_path, tmp_path, word('n2'), word('n1')))
    process = start(path, env={'SLURM_STEP_NUM_TASKS': '1'})
    out, err = process.stdout.readline(), ''
    assert (out, err, process.wait(300)) == (
        'jax/1: mounted on 2 nodes until job 7 ends; before that: scancel --signal=TERM 7.3\n', '', 0)
    argv = (tmp_path / 'argv').read_text().splitlines()
    assert {'--overlap', '--mem=0', '--job-name=node-hold', '--nodes=2', '--ntasks=2',
            '--ntasks-per-node=1'} < set(argv)
    assert argv[-2:] == ['what', 'each node runs']
    env = dict(pair.split('=', 1) for pair in (tmp_path / 'env').read_text().split('\0') if pair)
    assert {name for name in env if name.startswith(('SLURM', 'SRUN'))} == {
        'SLURM_JOB_ID', 'SLURM_EXPORT_ENV', 'SLURM_CONF', 'SLURM_WORKING_CLUSTER'}
    assert is_running(path) and os.getsid(number_of(path)) == number_of(path)  # whoever ends the script
    os.kill(number_of(path), signal.SIGKILL)


def test_a_heterogeneous_job_has_one_step_on_the_nodes_of_all_its_parts(tmp_path, monkeypatch, srun, capfd):
    path = srun('env >%s/env; printf "%%s\\n" "$@" >%s/argv\necho \'%s\'\necho \'%s\'\necho \'%s\'\n' % (
        tmp_path, tmp_path, word('n2'), word('n1'), word('n3')))
    parts = dict(JOB, PATH='%s:%s' % (os.path.dirname(path), harness.SYSTEM_PATH), SLURM_HET_SIZE='2',
                 SLURM_JOB_NUM_NODES_HET_GROUP_0='1', SLURM_JOB_NUM_NODES_HET_GROUP_1='2',
                 SLURM_JOB_ID_HET_GROUP_0='7', SLURM_JOB_ID_HET_GROUP_1='8')
    MadeUp(tmp_path / 'p', 'toy/1')
    argv = node.hold('toy', resolve({}).site, lambda: str(tmp_path / 'p'), parts)
    monkeypatch.setattr(os, 'environ', parts)
    launch.main(*argv[argv.index('launch') + 1:])
    assert capfd.readouterr().out == (
        'toy/1: mounted on 3 nodes until job 7 ends; before that: scancel --signal=TERM 7.3 8.3\n')
    words = (tmp_path / 'argv').read_text().splitlines()
    middle = words.index(':')
    assert {'--het-group=0', '--nodes=1', '--ntasks=1'} < set(words[:middle])
    assert {'--het-group=1', '--nodes=2', '--ntasks=2'} < set(words[middle:])
    assert words[middle - 2:middle] == words[-2:] == argv[-2:] and words.count('--overlap') == 2
    env = (tmp_path / 'env').read_text().splitlines()
    assert {'SLURM_HET_SIZE=2', 'SLURM_JOB_ID_HET_GROUP_1=8'} < set(env)


def number_of(srun):
    """Return the number of the process that a srun was, or still is (int)."""
    return int(harness.Path(srun + '.pid').read_text())


def is_running(srun):
    """Return whether a srun has not ended (bool)."""
    return os.path.exists('/proc/%d' % number_of(srun))


def test_what_it_says_as_json(srun):
    process = start(srun("echo 'of the site'\necho '[1]'\nprintf '%s\\n%s\\n' '{}' '{}'\n".format(
        word('n2', keeper=21), word('n1'))), '--image', '/i.sif', '--json')
    out, err = process.communicate(timeout=300)
    assert (json.loads(out), err, process.returncode) == ({
        'module': 'jax/1', 'image': '/i.sif', 'step': '7.3', 'nodes': [
            {'node': 'n1', 'keeper': 11, 'holder': 12}, {'node': 'n2', 'keeper': 21, 'holder': 12}]}, '', 0)


@pytest.mark.parametrize('text, why', [
    ('echo "srun: error: no step today" >&2\nexit 1\n', 'srun: error: no step today'),
    ('echo "error: jax/1: no Python" >&2\necho "hint: x" >&2\necho "srun: error: task 1" >&2\n', 'jax/1: no Python'),
    ('printf %999s. | tr " " x >&2\nexit 9\n', 'x' * 300),
    ('exit 9\n', 'srun ended with exit code 9'),
    ("echo '%s'\n" % word('n1'), 'srun ended with exit code 0'),
    ("echo '%s'\necho '%s'\nexec sleep 300\n" % (word('n1'), word('n2', failed='no space')), 'n2: no space'),
])
def test_why_it_fails_is_told_and_the_step_ended(srun, text, why):
    path = srun(text)
    process = start(path)
    assert process.communicate(timeout=300) == ('', FAILED % why)
    assert process.returncode == 3 and not is_running(path)


@pytest.mark.parametrize('options', [(), ('--json',)])
def test_who_cannot_be_told_has_no_step(srun, options):
    path = srun("echo '%s'\necho '%s'\nexec sleep 300\n" % (word('n1'), word('n2')))
    with open('/dev/full', 'w') as full:
        process = start(path, *options, stdout=full)
        assert process.communicate(timeout=300)[1] == FAILED % 'No space left on device'
    assert process.returncode == 3 and not is_running(path)


def test_who_has_closed_its_output_is_not_told(srun):
    path = srun("echo '%s'\necho '%s'\nexec sleep 300\n" % (word('n1'), word('n2')))
    process = start(path, preexec_fn=lambda: os.closerange(0, 3))
    assert (process.wait(300), is_running(path)) == (0, True)
    os.kill(number_of(path), signal.SIGKILL)
    process = start(srun('exit 9\n'), preexec_fn=lambda: os.closerange(0, 3))
    assert process.wait(300) == 3


def test_a_node_that_says_nothing_is_not_waited_for_for_ever(tmp_path, monkeypatch, srun, capsys):
    monkeypatch.setattr(launch, 'PATIENCE', 0.2)
    path = srun("echo 'srun: step creation disabled' >&2\nexec sleep 300\n")
    with pytest.raises(SystemExit) as raised:
        launch.main('--module', 'jax/1', path, '2', 'x')
    assert (raised.value.code, capsys.readouterr().err.splitlines()[1]) == (
        3, '  reason  it is mounted on 0 of 2 nodes after 0 seconds (srun: step creation disabled)')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_is_interrupted_takes_the_step_along(srun, number):
    path = srun('kill -%d "$PPID"\nexec sleep 300\n' % number)
    process = start(path, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    assert process.wait(300) == -signal.SIGINT and not is_running(path)


def test_what_its_caller_has_it_ignore_does_not_interrupt_it(srun):
    """As nohup does, or a script that has put it behind &."""
    path = srun('kill -INT "$PPID"\nkill -HUP "$PPID"\necho \'%s\'\necho \'%s\'\n' % (word('n1'), word('n2')))
    process = start(path, preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN)
                                              for number in (signal.SIGINT, signal.SIGHUP)])
    assert (process.wait(300), process.stderr.read()) == (0, '')


def test_what_srun_hands_on_in_pieces_is_put_together(monkeypatch):
    reading, writing = os.pipe()
    with open(writing, 'w') as out:
        out.write('of the site\n%s\n%s\n' % (word('n1'), word('n2')))
    read = os.read
    with open(reading, 'rb') as source, monkeypatch.context() as patch:
        patch.setattr(os, 'read', lambda descriptor, _: read(descriptor, 7))
        said = launch.listen(SimpleNamespace(stdout=source), 2, None)
    assert [one['node'] for one in said] == ['n1', 'n2']


def test_the_step_that_keeps_the_image_says_why_it_cannot(tmp_path):
    runtime, image = tmp_path / 'apptainer', tmp_path / 'x.sif'
    runtime.write_text("#!/bin/sh\necho 'FATAL: no such image' >&2; exit 255\n")
    runtime.chmod(0o755)
    image.touch()
    result = subprocess.run([sys.executable, '-I', '-S', '-B', helper('node'), 'join', '--stay', '--shell', '/bin/sh',
                             runtime, image], stdout=subprocess.PIPE, text=True, timeout=300, env={
                                 'SLURM_JOB_ID': str(tmp_path), 'SLURM_STEP_ID': '3', 'SLURMD_NODENAME': 'n1'})
    assert (json.loads(result.stdout), result.returncode) == (
        {'easysif': 'node-hold', 'node': 'n1', 'step': '%s.3' % tmp_path, 'failed': 'FATAL: no such image'}, 3)


def test_all_steps_of_a_job_meet_at_one_address_and_each_at_its_own(tmp_path):
    image = tmp_path / 'x.sif'
    image.touch()

    def found(**env):
        return meeting.addresses('/bin/false', str(image), env, {})
    first, second = (found(SLURM_JOB_ID='1', SLURM_STEP_ID=step, SLURMD_NODENAME='n1') for step in '01')
    script = found(SLURM_JOB_ID='1', SLURMD_NODENAME='n1')
    assert first[0] == second[0] == script[0] and len({first[0], first[1], second[1], script[1]}) == 4
    others = [found(SLURM_JOB_ID='2', SLURMD_NODENAME='n1'), found(SLURM_JOB_ID='1', SLURMD_NODENAME='n2')]
    assert first[0] not in [other[0] for other in others]
    same = found(PBS_JOBID='1')
    assert same[0] == same[1]


@pytest.mark.parametrize('who', ['ours that ends', 'of another user', 'of another user, who lets nobody in'])
def test_who_has_the_address_of_the_job_and_keeps_nothing_is_in_nobodys_way(tmp_path, monkeypatch, who):
    """The step then has a mount of its own."""
    image, began = tmp_path / 'x.sif', []
    image.touch()
    env = {'SLURM_JOB_ID': str(tmp_path), 'SLURM_STEP_ID': '0', 'SLURMD_NODENAME': 'n1'}
    names = meeting.addresses('/bin/false', str(image), env, {})
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        server.bind(names[0])
        server.listen(0 if who.endswith('lets nobody in') else meeting.TRIES)
        if who.endswith('lets nobody in'):
            other.setblocking(False)
            other.connect_ex(names[0])
            monkeypatch.setattr(meeting, 'our_files', set)
        elif who.startswith('of another'):
            monkeypatch.setattr(meeting.struct, 'unpack', lambda *_: (1, -1, 1))
        else:
            monkeypatch.setattr(meeting, 'receive', lambda _: (None, []))
        monkeypatch.setattr(meeting, 'start', lambda name, *_: began.append(name))
        monkeypatch.setattr(meeting, 'is_anothers', lambda name: len(began) > 2 or (
            name == names[0] and who != 'ours that ends'))
        with pytest.raises(join.CannotShare):
            meeting.meet({'shell': '/bin/sh'}, '/bin/false', str(image), env, {})
    assert began == [names[1]] * 3


def test_who_comes_at_the_last_moment_goes_to_the_next_keeper():
    for said, found in ((b'{"number": 1}\n', {'number': 1}), (b'{"number": 1}\n' + meeting.LAST, None), (b'{', None)):
        ours, keepers = socket.socketpair()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        with ours, keepers:
            socket.send_fds(keepers, [said], [writing])
            os.close(writing)
            keepers.shutdown(socket.SHUT_WR)
            answer, descriptors = meeting.receive(ours)
        assert (answer, len(descriptors)) == (found, 1 if found else 0)
        for descriptor in descriptors:
            os.close(descriptor)
        assert os.read(reading, 1) == b''
        os.close(reading)


def test_the_command_says_what_is_wrong(monkeypatch, capsys):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    with pytest.raises(SystemExit) as raised:
        sys.exit(main(['node-hold', 'jax']))
    assert (raised.value.code, capsys.readouterr().err) == (
        1, 'error: easysif node-hold: this is no job of Slurm\nhint: salloc --nodes=1\n')
