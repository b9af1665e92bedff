# SPDX-License-Identifier: GPL-2.0-only
"""When wrappers share an image on a node, and what is told where that cannot be, without containers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import harness
from easysif.data import helper
from easysif.errors import EasySIFError
from easysif.run import become
from easysif.running import node
from easysif.running.words import is_image
from easysif.site import resolve
from fakes import Fake
from made_up import MadeUp

sys.path.append(helper('node'))
import environment  # noqa: E402 (they are shipped as files, not as modules)
import join  # noqa: E402
import meeting  # noqa: E402

#: a runtime that cannot make containers in user namespaces; the others wait for a file `go`
RUNTIME = '''#!/bin/sh
case "$*" in
    --version) echo 'apptainer version 1.0.0' ;;
    *--userns*) echo 'FATAL: unknown flag: --userns' >&2; exit 255 ;;
    *) while [ ! -e go ]; do sleep 0.05; done; shift 3; echo "own: $*" ;;
esac
'''

WARNING = '''\
warning: jax/24.10: the image cannot be shared on this node, each process mounts it for itself
  reason  %s
hint: export EASYSIF_SHARE=none
'''


@pytest.fixture
def fake(tmp_path):
    """A function that makes a module whose runtime cannot share: ``fake(share='node')`` (Fake)."""
    runtime = tmp_path / 'apptainer'
    runtime.write_text(RUNTIME)
    runtime.chmod(0o755)

    def make(share='none', **values):
        fake = Fake(tmp_path / 'p', python_env=None, eb_python=sys.executable, **values)
        fake.site(runtime=str(runtime), share=share)
        (fake.root / 'easysif' / 'node').symlink_to(helper('node'))
        (fake.root / 'bin').mkdir()
        (fake.root / 'bin' / 'python').symlink_to('../easysif/wrapper')
        return fake
    return make


def start(fake, *argv, preexec=None, **env):
    """Start a command of a module, as one of its wrappers unless told otherwise, and return its process (Popen)."""
    values = {'PATH': harness.SYSTEM_PATH, 'HOME': str(fake.prefix), 'PBS_JOBID': str(fake.prefix), **env}
    return subprocess.Popen([str(arg) for arg in argv or (fake.root / 'bin' / 'python', 'x')], env=values,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=preexec)


def test_what_cannot_be_shared_runs_on_its_own_which_one_process_tells(fake, tmp_path):
    fake = fake()
    processes = [start(fake, EASYSIF_SHARE='node') for _ in range(3)]
    deadline = time.monotonic() + 300
    try:
        while not all(harness.Path('/proc/%d/cmdline' % one.pid).read_text().split('\0')[1:2] == [
                str(tmp_path / 'apptainer')] for one in processes):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        (tmp_path / 'go').touch()
    ends = [process.communicate(timeout=300) for process in processes]
    assert [out for out, _ in ends] == ['own: python x\n'] * 3
    assert sorted(error for _, error in ends) == ['', '', WARNING % 'FATAL: unknown flag: --userns']


@pytest.mark.parametrize('share, env, is_tried', [
    ('none', {'SLURM_JOB_ID': '1'}, False),
    ('node', {}, False),
    ('node', {'SLURM_JOB_ID': '1'}, True),
    ('node', {'SLURM_JOB_ID': '1', 'SLURM_LOCALID': '0'}, True),
    ('node', {'SLURM_JOB_ID': '1', 'SLURM_LOCALID': '3'}, False),  # rank 0 of the node tells it
    ('node', {'SLURM_JOB_ID': '1', 'EASYSIF_SHARE': 'none'}, False),
    ('none', {'EASYSIF_SHARE': 'node'}, True),
])
def test_the_user_decides_else_the_site_for_its_jobs(share, env, is_tried, fake, tmp_path):
    (tmp_path / 'go').touch()
    out, error = start(fake(share), **env).communicate(timeout=300)
    assert (out, error) == ('own: python x\n', WARNING % 'FATAL: unknown flag: --userns' if is_tried else '')


@pytest.mark.parametrize('env, is_told', [({'SLURM_STEP_ID': '0', 'EASYSIF_SHARE': 'node'}, True),
                                          ({'SLURM_STEP_ID': '0'}, False), ({'EASYSIF_SHARE': 'node'}, False)])
def test_ranks_to_which_slurm_tells_no_tmpdir_share_with_the_one_to_which_it_does(env, is_told, fake):
    fake, binds = fake(), []
    for values in ({}, {'TMPDIR': '/tmp'}):
        out = start(fake, fake.root / 'easysif' / 'wrapper', 'print-environment', **env, **values).communicate()[0]
        binds.append([line for line in out.splitlines() if line.startswith(('APPTAINER_BINDPATH=', 'TMPDIR='))])
    assert (binds[0] == binds[1]) == is_told and 'TMPDIR=/tmp' in binds[1], binds


def close_two():
    """Close standard input and output, whose numbers the next two files get."""
    os.closerange(0, 2)


@pytest.mark.parametrize('how', [lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), close_two])
def test_who_closed_its_files_or_asks_for_no_children_finds_the_keeper(how, fake, tmp_path):
    (tmp_path / 'go').touch()
    (tmp_path / 'x.sif').touch()
    process = start(fake(), sys.executable, '-I', '-S', '-B', helper('node'), 'join', '--module', 'jax/24.10',
                    '--shell', '/bin/sh', tmp_path / 'apptainer', tmp_path / 'x.sif', 'x', preexec=how)
    assert process.communicate(timeout=300)[1].startswith(WARNING % 'FATAL: unknown flag: --userns')


def test_an_image_without_a_shell_is_not_shared(fake, tmp_path):
    (tmp_path / 'go').touch()
    fake = fake(shell='')
    assert start(fake, EASYSIF_SHARE='node').communicate(timeout=300)[1] == WARNING % 'it has no shell'


def test_a_word_that_is_none_is_an_error(fake):
    process = start(fake(), EASYSIF_SHARE='yes')
    assert process.communicate(timeout=300)[1] == (
        "error: EASYSIF_SHARE must be node or none, not 'yes'\nhint: export EASYSIF_SHARE=node\n")
    assert process.returncode == 1


def test_where_there_is_no_python_that_is_told(fake, tmp_path):
    (tmp_path / 'go').touch()
    fake = fake()
    wrapper = fake.root / 'easysif' / 'wrapper'
    wrapper.write_text(wrapper.read_text().replace('/usr/bin/python3', '/nowhere').replace(
        '"${EB_PYTHON-}" "$es_eb_python"', '/nowhere'))
    what = ('jax/24.10: no Python 3.9 or newer on this node, by which processes share the image\n'
            'hint: export EB_PYTHON=<python3>\n')
    assert start(fake, EASYSIF_SHARE='node').communicate(timeout=300) == ('own: python x\n', 'warning: ' + what)
    assert start(fake, EASYSIF_SHARE='node', SLURM_LOCALID='1').communicate(timeout=300) == ('own: python x\n', '')
    assert start(fake, wrapper, 'node-exec', 'python').communicate(timeout=300) == ('', 'error: ' + what)
    module = fake.root / 'easysif' / 'module.sh'
    module.write_text(module.read_text().replace("es_python_env=''", "es_python_env='jax'"))
    (fake.root / 'bin' / 'make-squashfs').symlink_to('../easysif/wrapper')
    assert start(fake, fake.root / 'bin' / 'make-squashfs').communicate(timeout=300) == ('', (
        'error: jax/24.10: no Python 3.9 or newer on this node to run make-squashfs with\n'
        'hint: export EB_PYTHON=<python3>\n'))


def test_node_exec_shares_or_fails(fake):
    fake = fake()
    for command in ('python', 'another'):
        process = start(fake, fake.root / 'easysif' / 'wrapper', 'node-exec', command)
        assert process.communicate(timeout=300) == ('', (
            'error: jax/24.10: the image cannot be shared on this node\n  reason  FATAL: unknown flag: --userns\n'
            'hint: leave out node-exec; each process then mounts the image for itself\n'))
        assert process.returncode == 3


def test_modules_and_images_that_node_exec_does_not_take(tmp_path):
    MadeUp(tmp_path / 'p', 'toy/1')
    shutil.rmtree(tmp_path / 'p' / 'software' / 'toy' / '1' / 'easysif' / 'node')
    site = resolve({}).site

    def told(word):
        with pytest.raises(EasySIFError) as raised:
            node.argv(word, ['true'], site, lambda: str(tmp_path / 'p'))
        return str(raised.value)
    assert told('./no.sif') == './no.sif: there is no such image\nhint: ls -l -- ./no.sif'
    assert told('docker://a/b c') == (
        "docker://a/b c: is no file yet\nhint: apptainer pull image.sif 'docker://a/b c'")
    assert told('toy') == ('toy/1: its wrappers cannot share the image yet, they were made by an older EasySIF\n'
                           'hint: easysif refresh toy/1 --prefix %s' % (tmp_path / 'p'))
    assert told('toi').startswith('toi: is not installed here\n')


def test_a_file_of_a_modules_name_does_not_hide_the_module(tmp_path, monkeypatch):
    """What lies in a working directory is not looked at where a module is so called; ./NAME means the file."""
    MadeUp(tmp_path / 'p', 'toy/1')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'toy').mkdir()
    for name in ('toy/1', 'other', 'x.sif'):
        (tmp_path / name).touch()
    meant = {word: is_image(word, lambda: str(tmp_path / 'p')) for word in (
        'toy', 'toy/1', './toy/1', '../toy', '/toy', 'toy.sif', 'x.sif', 'other', 'no', 'docker://toy', 'toy/1.sif')}
    assert [word for word in meant if not meant[word]] == ['toy', 'toy/1', 'no']
    (tmp_path / 'toy' / '1').unlink()
    (tmp_path / 'toy').rmdir()
    (tmp_path / 'toy').touch()
    assert not is_image('toy', lambda: str(tmp_path / 'p'))


def test_a_program_that_cannot_be_started_is_told(tmp_path):
    with pytest.raises(EasySIFError) as raised:
        become([str(tmp_path / 'nothing')])
    assert str(raised.value).startswith('%s/nothing: could not be started (No such file or directory)\n' % tmp_path)


def reason(function, *args):
    """Return why something cannot be shared (str)."""
    with pytest.raises(join.CannotShare) as raised:
        function(*args)
    return str(raised.value)


def test_why_an_image_cannot_be_shared(tmp_path, monkeypatch, capsys):
    image = tmp_path / 'x.sif'
    image.touch()
    meet = ({'shell': '/bin/sh'}, '/bin/false', str(image), dict(os.environ), {})
    assert reason(join.open_namespaces, 2 ** 22 + 1) == 'its namespaces cannot be opened (No such file or directory)'
    assert reason(join.open_namespaces, os.getpid()) == 'it has no namespaces of its own'
    monkeypatch.setattr(join.os, 'readlink', lambda path: path)
    assert reason(join.open_namespaces, os.getpid()) == 'its processes have numbers of their own (isolation: pid)'
    monkeypatch.setattr(meeting, 'PATIENCE', 0)
    assert reason(join.meet, *meet) == 'the process that mounts it does not start, or is ended'
    monkeypatch.undo()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(meeting.addresses(*meet[1:])[1])
        server.listen()
        monkeypatch.setattr(meeting.struct, 'unpack', lambda *_: (1, -1, 1))
        assert reason(join.meet, *meet) == 'another user holds its address'


@pytest.mark.long
@pytest.mark.parametrize('listens', [False, True])
def test_another_user_who_has_the_address_and_says_nothing_costs_no_time(tmp_path, monkeypatch, listens):
    """One who does not listen, or lets nobody in: who that is the kernel does not tell, but it is none of us."""
    image = tmp_path / 'x.sif'
    image.touch()
    meet = ({'shell': '/bin/sh'}, '/bin/false', str(image), dict(os.environ), {})
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        name = meeting.addresses(*meet[1:])[1]
        server.bind(name)
        if listens:
            server.listen(0)
            other.setblocking(False)
            other.connect_ex(name)  # and is let in as little as we are
        assert not meeting.is_anothers(name)
        monkeypatch.setattr(meeting, 'PATIENCE', 2)  # of one of us who has it, it is waited for
        assert reason(join.meet, *meet) == 'the process that mounts it does not start, or is ended'
        monkeypatch.undo()
        monkeypatch.setattr(meeting, 'our_files', set)  # as if this process were that of another user
        begin = time.monotonic()
        assert reason(join.meet, *meet) == 'another user holds its address'
        assert time.monotonic() - begin < meeting.PATIENCE / 2
    assert not meeting.is_anothers(name)
    monkeypatch.setattr('builtins.open', lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert not meeting.is_anothers(name)


#: a runtime that says more than a pipe holds before and after the container is there; the last words count
LOUD = """#!/bin/sh
yes 'nothing of interest' | head -c 300000 >&2
echo 'and this' >&2
case $0 in
    */fails) echo >&2; exit 9 ;;
esac
echo 'of the image'
sh -c 'echo $$; head -c 300000 /dev/zero >&2; : >done; while read -r line; do :; done'
"""


#: keeps an image by a runtime, until this has said all, and tells why it cannot
KEEP = """
import os, sys, time
sys.path.append(sys.argv[1])
from keeper import Keeper
keeper = Keeper(None, sys.argv[2], 'i.sif', '/bin/sh')
answer = keeper.try_mount()
while 'holder' in answer and not os.path.exists('done'):
    time.sleep(0.02)
print(answer.get('failed'), flush=True)
keeper.unmount()
"""


@pytest.mark.parametrize('name, why', [('fails', 'and this'), ('works', 'None')])
def test_a_runtime_that_says_much_is_not_in_its_own_way(name, why, tmp_path):
    (tmp_path / name).write_text(LOUD)
    (tmp_path / name).chmod(0o755)
    argv = [sys.executable, '-c', KEEP, helper('node'), tmp_path / name]
    assert subprocess.run(argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=300).stdout == why + '\n'


@pytest.mark.parametrize('shell', ['dash', 'bash', 'busybox sh'])
@pytest.mark.parametrize('is_killed', [True, False])
def test_what_a_killed_runtime_leaves_is_ended_with_the_last_that_share(shell, is_killed, tmp_path):
    """Of the processes that it is told of, those that began when it is told; none where the runtime can do so."""
    serving, other = (subprocess.Popen(['sleep', '300']) for _ in range(2))
    text = harness.Path(helper('node'), 'hold').read_text()
    holder = subprocess.Popen([*shell.split(), '-c', text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == '%d\n' % holder.pid
        began = harness.Path('/proc/%d/stat' % serving.pid).read_text().rpartition(')')[2].split()[19]
        holder.stdin.write('%d %s\n%d 1\n%d 1\n' % (serving.pid, began, other.pid, 2 ** 22 + 1))
        holder.stdin.flush()
        if is_killed:
            holder.kill()
            holder.wait(300)
        holder.stdin.close()
        if is_killed:
            assert serving.wait(300) == -signal.SIGKILL
        else:
            assert holder.wait(300) == 0 and serving.poll() is None
        assert other.poll() is None
    finally:
        for process in (serving, other, holder):
            process.kill()
            process.wait()


def test_a_namespace_that_cannot_be_entered(monkeypatch, capsys):
    found = {'holder': os.getpid(), 'outside': dict(os.environ), 'inside': {}, 'mentioned': [], 'directory': None}
    answers = []
    monkeypatch.setattr(join, 'meet', lambda *_: ([], found))
    monkeypatch.setattr(join, 'open_namespaces', lambda _: [os.open('/', os.O_RDONLY), os.open('/', os.O_RDONLY)])
    monkeypatch.setattr(join.ctypes, 'CDLL', lambda *_, **__: SimpleNamespace(setns=lambda *_: answers.pop(0)))
    monkeypatch.setattr(join.ctypes, 'get_errno', lambda: 1)
    answers[:] = [-1]
    assert reason(join.join, {}, 'r', 'i.sif', ['true']) == (
        'its namespaces cannot be entered (Operation not permitted)')
    answers[:] = [0, -1]
    with pytest.raises(SystemExit) as raised:
        join.join({}, 'r', 'i.sif', ['true'])
    assert raised.value.code == 3 and capsys.readouterr().err == (
        'error: i.sif: its namespaces cannot be entered (Operation not permitted)\nhint: export EASYSIF_SHARE=none\n')


@pytest.mark.parametrize('word, told', [('', ''), ('a\x1b[31m', r'a\x1b[31m')])
def test_a_command_that_cannot_be_one_is_told(monkeypatch, capsys, word, told):
    monkeypatch.setattr(join.os, 'environ', {})
    with pytest.raises(SystemExit) as raised:
        join.become([word, 'x'], {'PATH': '/nowhere'}, 'toy/1', 'apptainer exec "i.sif"')
    assert (raised.value.code, capsys.readouterr().err) == (
        127, "error: toy/1: command '%s' is not in the image\nhint: see what there is: apptainer exec \"i.sif\" "
             'ls /usr/bin\n' % told)


OUTSIDE = {'PLAIN': '1', 'GONE': 'x', 'IMAGES': 'host', 'APPTAINERENV_A': '1', 'PATH': '/host', environment.PROBE: '1'}
INSIDE = {'PLAIN': '1', 'GONE': 'x', 'IMAGES': 'of the image', 'A': '1', 'PATH': '/bin', environment.PROBE: '1'}


@pytest.mark.parametrize('own, changed', [
    ({}, {}),
    ({'PLAIN': '2', 'NEW': 'ü\n"'}, {'PLAIN': '2', 'NEW': 'ü\n"'}),
    ({'GONE': None}, {'GONE': None}),
    ({'IMAGES': 'other'}, {}),
    ({'APPTAINERENV_A': '2', 'SINGULARITYENV_A': '3', 'SINGULARITYENV_B': '4'}, {'A': '2', 'B': '4'}),
    ({'APPTAINERENV_A': None, 'A': '5'}, {'A': '5'}),
    ({'APPTAINERENV_A': None}, {'A': None}),
    ({'PATH': '/other', 'BASH_FUNC_f%%': '() { :; }', 'APPTAINER_X': '1'}, {}),
])
def test_the_environment_inside_has_what_differs(own, changed):
    def updated(base, changes):
        return {name: value for name, value in dict(base, **changes).items() if value is not None}
    found = {'outside': OUTSIDE, 'inside': INSIDE, 'mentioned': []}
    expected = updated(INSIDE, changed)
    del expected[environment.PROBE]
    assert environment.inside(found, updated(OUTSIDE, own)) == expected


def test_an_environment_that_is_clean_stays_so():
    found = {'outside': OUTSIDE, 'inside': {'PATH': '/bin'}, 'mentioned': []}
    assert environment.inside(found, dict(OUTSIDE, NEW='1', APPTAINERENV_C='2')) == {'PATH': '/bin', 'C': '2'}


@pytest.mark.parametrize('own, names', [
    ({'PLAIN': '2', 'APPTAINERENV_A': '2'}, []),
    ({'SEEN': '2'}, ['SEEN']),
    ({'APPTAINERENV_A': '$HOME'}, ['APPTAINERENV_A']),
    ({'APPTAINERENV_PREPEND_PATH': '/x'}, ['APPTAINERENV_PREPEND_PATH']),
])
def test_what_the_runtime_would_compute_with_is_not_guessed(own, names):
    found = {'outside': OUTSIDE, 'inside': INSIDE, 'mentioned': ['SEEN', 'export']}
    assert environment.needs_own_container(found, dict(OUTSIDE, **own)) == names


def test_processes_share_what_they_may_and_nothing_else(tmp_path, monkeypatch):
    image = tmp_path / 'x.sif'
    image.touch()
    base = {'HOME': '/h', 'SLURM_JOB_ID': '1', 'SLURM_STEP_ID': '0', 'APPTAINER_BIND': '/x'}

    def address(also=(), **changes):
        return meeting.addresses('/usr/bin/apptainer', str(image), dict(base, **changes), dict(also))[1]
    same = address()
    assert len(same.encode()) < 108 and same[0] == '\0'
    assert address(SLURM_PROCID='1', CUDA_VISIBLE_DEVICES='1', APPTAINERENV_A='1', APPTAINER_NAME='x') == same
    others = [address(**changes) for changes in (
        {'SLURM_JOB_ID': '2'}, {'SLURM_STEP_ID': '1'}, {'SLURMD_NODENAME': 'n2'}, {'APPTAINER_BIND': '/y'},
        {'SINGULARITY_NV': '1'}, {'HOME': '/i'}, {'also': {'cwd': '/'}})]
    image.write_text('another')
    others.append(address())
    overlay = tmp_path / 'o'
    for name in ('first', 'second'):  # is packed anew, say
        (tmp_path / name).write_text(name)
        (tmp_path / name).rename(overlay)
        others.append(address(SINGULARITY_BINDPATH='/nowhere,%s:/user-software:image-src=/' % overlay))
    for kind in ('mnt', 'pid'):  # a private /tmp; numbers of processes that mean others
        monkeypatch.setattr(meeting.os, 'readlink', lambda path, kind=kind: 'other' if path.endswith(kind) else 'same')
        others.append(address())
    assert len({same, *others}) == 1 + len(others)
