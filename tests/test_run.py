# SPDX-License-Identifier: GPL-2.0-only
"""Processes get what they were meant to get, and end with all that they started when we stop or die."""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import harness
from easysif import run as module
from easysif.errors import TOOL, EasySIFError
from easysif.run import run
from easysif.text import exit_code

#: prints its id and that of a child in a group of its own, as the runtimes have them for their mounts
FAMILY = 'set -m; sleep 300 & echo $$ $! >ids; fg'


def ids(tmp_path):
    """Return the process ids that FAMILY wrote, once it did (list of int)."""
    path = tmp_path / 'ids'
    while not path.exists() or not path.read_text().endswith('\n'):
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


def assert_gone(processes):
    deadline = time.monotonic() + 60
    while [pid for pid in processes if os.path.exists('/proc/%d' % pid)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def marked(tmp_path):
    """Return the processes that have a variable MARK of this test, and their command lines (dict of int: str)."""
    mark, found = b'MARK=' + os.fsencode(tmp_path), {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/environ' % name, 'rb') as environ, open('/proc/%s/cmdline' % name, 'rb') as line:
                if mark in environ.read().split(b'\0'):
                    found[int(name)] = line.read().replace(b'\0', b' ').decode()
        except OSError:  # it has ended, or it is another user's
            continue
    return found


def wait_for(condition, seconds=60):
    """Wait until a function returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return condition()


@pytest.fixture
def caller(tmp_path):
    """A function that starts a Python that runs a command, marked; what is left of all after the test is killed."""
    def start(argv, code='run(sys.argv[1:])', **env):
        return subprocess.Popen([sys.executable, '-c', 'import os, sys, time\nfrom easysif.run import run\n' + code,
                                 *map(str, argv)], cwd=tmp_path,
                                env={**os.environ, 'PYTHONPATH': str(harness.CLONE / 'tools'), 'MARK': str(tmp_path),
                                     **env})
    yield start
    for process in marked(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


# --- what a command gets, and what comes back -------------------------------------------------------------------------

def test_arguments_arrive_byte_by_byte():
    words = ['', ' ', "a'b\"c", '$HOME `id` \\', 'two\nlines', 'ü', os.fsdecode(b'\xff\x01'), '-n', '*']
    result = run(['printf', '%s\\0', *words], binary=True)
    assert result.stdout == b''.join(os.fsencode(word) + b'\0' for word in words) and result.stderr == ''
    assert result.argv == ('printf', '%s\\0', *words)


def test_the_environment_is_the_one_that_was_given(monkeypatch):
    odd = {'A': os.fsdecode(b'\xff'), 'BASH_FUNC_x%%': '() { :; }', 'E': ''}
    assert sorted(run([shutil.which('env'), '-0'], env=odd, binary=True).stdout.split(b'\0')[:-1]) == sorted(
        os.fsencode('%s=%s' % item) for item in odd.items())
    monkeypatch.setenv('MARK', 'of the caller')
    assert run(['sh', '-c', 'echo "$MARK"']).stdout == 'of the caller\n'


def test_a_command_is_looked_for_where_its_own_path_says(tmp_path):
    for name, mode in (('first', 0o644), ('second', 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'tool').write_text('#!/bin/sh\necho %s\n' % name)
        (tmp_path / name / 'tool').chmod(mode)
    assert run(['tool'], env={'PATH': '%s:%s:%s' % (tmp_path, tmp_path / 'first', tmp_path / 'second')}
               ).stdout == 'second\n'
    assert run(['./tool'], cwd=tmp_path / 'second').stdout == 'second\n'


def test_a_command_works_where_it_was_told_to_or_where_we_are(tmp_path, monkeypatch):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    assert run(['pwd', '-P'], cwd=tmp_path / 'a').stdout == '%s\n' % (tmp_path / 'a')
    monkeypatch.chdir(tmp_path / 'a')
    assert run(['pwd', '-P']).stdout == '%s\n' % (tmp_path / 'a')
    assert run(['pwd', '-P'], cwd='b').stdout == '%s\n' % (tmp_path / 'a' / 'b')
    (tmp_path / 'a').rename(tmp_path / 'c')
    assert run(['ls']).stdout == 'b\n'
    monkeypatch.chdir(tmp_path / 'c' / 'b')
    (tmp_path / 'c' / 'b').rmdir()
    assert run(['echo', 'fine']).stdout == 'fine\n'


@pytest.mark.parametrize('umask', [0o002, 0o077])
def test_a_command_has_our_umask(umask):
    before = os.umask(umask)
    try:
        assert int(run(['sh', '-c', 'umask']).stdout, 8) == umask == os.umask(umask)
    finally:
        os.umask(before)


def test_a_command_is_alone_in_its_session_with_three_descriptors_and_all_signals():
    inherited, _ = os.pipe()
    os.set_inheritable(inherited, True)
    number = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        code = ('import os, signal\nprint(os.getsid(0) == os.getpgid(0) == os.getpid(), os.listdir("/proc/self/fd"), '
                'signal.pthread_sigmask(signal.SIG_BLOCK, []))\nprint(open("/proc/self/status").read())')
        said = run([sys.executable, '-I', '-S', '-c', code]).stdout
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, number)
        os.close(inherited)
    assert said.startswith("True ['0', '1', '2', '3'] set()\n")  # 3 is the directory that it lists
    ignored = run(['grep', 'SigIgn', '/proc/self/status']).stdout.split()[1]
    assert not int(ignored, 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | 1 << signal.SIGCHLD - 1)


def test_what_it_is_to_read_and_what_it_prints_may_be_large():
    text = 'line ü\n' * 200000
    result = run(['sh', '-c', 'tee /dev/stderr'], stdin=text)
    assert result.stdout == result.stderr == text
    assert run(['true'], stdin=text).status == 0
    began = time.monotonic()
    assert len(run(['cat'], stdin='x' * (1 << 25)).stdout) == 1 << 25 and time.monotonic() - began < 60
    assert run(['cat'], stdin='').stdout == run(['cat']).stdout == ''


def test_both_outputs_go_to_the_log_in_their_order(tmp_path):
    log = tmp_path / 'log'
    log.write_text('before\n')
    result = run(['sh', '-c', 'echo one; echo two >&2; echo three'], log=log)
    assert log.read_text() == 'before\none\ntwo\nthree\n' and (result.stdout, result.stderr) == ('', '')


@pytest.mark.parametrize('script, status, words', [('exit 3', 3, '3'), ('kill -TERM $$', -15, 'killed by SIGTERM'),
                                                   ('kill -40 $$', -40, None), ('exit 255', 255, '255')])
def test_how_it_ended_is_told(script, status, words):
    result = run(['sh', '-c', script], check=False)
    assert result.status == status and exit_code(status) == (words or exit_code(-40))
    with pytest.raises(EasySIFError) as err:
        run(['sh', '-c', script])
    assert str(err.value).startswith("sh: command failed\n  command    sh -c '%s'\n  exit code  %s" % (
        script, exit_code(status)))


@pytest.mark.parametrize('reason, change', [
    ('No such file or directory', lambda path: path.unlink()), ('Permission denied', lambda path: path.chmod(0o644)),
    ('Exec format error', lambda path: path.write_text('no script'))])
def test_what_cannot_be_started_is_said(tmp_path, reason, change):
    path = tmp_path / 'tool'
    path.touch(0o755)
    change(path)
    with pytest.raises(EasySIFError) as err:
        run([path])
    assert str(err.value) == '%s: could not be started (%s)\nhint: command -v %s' % (path, reason, path)
    assert err.value.exit_code == TOOL


@pytest.mark.parametrize('argv, options, reason', [
    (['no-such-command'], {}, 'No such file or directory'),
    (['true'], {'cwd': '/no/such'}, 'No such file or directory'),
    (['echo', 'a\0b'], {}, 'Invalid argument'), (['true', 'x' * (1 << 20)], {}, 'Argument list too long'),
    (['true'], {'env': {'A=': ''}}, 'Invalid argument')])
def test_what_cannot_be_started_as_asked_is_said(argv, options, reason):
    with pytest.raises(EasySIFError) as err:
        run(argv, **options)
    assert '%s: could not be started (%s)\n' % (argv[0], reason) in str(err.value)


# --- what it costs ----------------------------------------------------------------------------------------------------

def test_commands_leave_neither_descriptors_nor_processes(tmp_path):
    run(['true'])
    gc.collect()  # what other tests had open
    before = os.listdir('/proc/self/fd')
    for _ in range(20):
        run(['true'], stdin='x')
        run(['false'], check=False, log=tmp_path / 'log')
        with pytest.raises(EasySIFError):
            run(['no-such-command'])
    assert len(os.listdir('/proc/self/fd')) == len(before)
    with open('/proc/self/task/%d/children' % threading.main_thread().native_id) as handle:
        children = handle.read().split()
    assert len([child for child in children if b'supervisor.py' in open('/proc/%s/cmdline' % child, 'rb').read()]) == 1
    wait_for(lambda: not open('/proc/%d/task/%d/children' % ((module._starter._process.pid,) * 2)).read())


def test_nothing_is_left_of_one_that_ended(tmp_path, caller):
    assert caller(['true']).wait() == 0
    assert marked(tmp_path) == {}


def test_one_process_starts_all_commands():
    started = {run(['sh', '-c', 'ps -o ppid= -p $PPID']).stdout for _ in range(3)}
    assert len(started) == 1 and int(started.pop()) not in (os.getpid(), os.getppid())


def test_threads_may_run_commands_at_once():
    said = {}

    def many(name):
        said[name] = [run(['sh', '-c', 'echo "$0"', '%s %d' % (name, number)]).stdout for number in range(10)]

    threads = [threading.Thread(target=many, args=(name,)) for name in 'abcdefgh']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {name: ['%s %d\n' % (name, number) for number in range(10)] for name in 'abcdefgh'}


# --- what is stopped --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('trap', ['', 'trap "" TERM; '])
def test_a_time_out_ends_a_command_and_what_it_started(tmp_path, monkeypatch, trap):
    monkeypatch.setattr(module, 'PATIENCE', 0.5)
    result = run(['bash', '-c', trap + FAMILY], cwd=tmp_path, timeout=1, check=False)
    assert result.status in (-signal.SIGTERM, -signal.SIGKILL)
    assert_gone(ids(tmp_path))


def test_a_time_out_leaves_what_was_printed_until_then(tmp_path):
    result = run(['sh', '-c', 'echo early; sleep 300'], timeout=0.3, check=False)
    assert (result.status, result.stdout) == (-signal.SIGTERM, 'early\n')


def test_an_interrupt_ends_a_command_and_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 0.5)

    def interrupt():
        ids(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(['bash', '-c', FAMILY], cwd=tmp_path)
    assert_gone(ids(tmp_path))


# --- when we die ------------------------------------------------------------------------------------------------------

DAEMON = ('import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork() and os._exit(0)\n'
          'os.setsid()\nos.fork() and os._exit(0)\nos.closerange(0, 9)\ntime.sleep(1000)')
SLEEPERS = {'children': ('sleep 1000 & sleep 1000', 2),
            'groups of their own': ('set -m; sleep 1000 & sleep 1000 & wait', 3),
            'deaf': ('trap "" TERM HUP INT; sleep 1000 & sleep 1000; sleep 1000', 3),
            'a daemon': ('"$0" -I -S -c "$1"; sleep 1000', 3),
            'one that closed its outputs': ('exec >&- 2>&-; sleep 1000', 2)}


@pytest.mark.long
@pytest.mark.parametrize('kind', SLEEPERS)
@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_when_we_are_killed_nothing_remains(tmp_path, caller, kind, number):
    script, count = SLEEPERS[kind]
    process = caller(['bash', '-c', script, sys.executable, DAEMON])
    wait_for(lambda: len([line for line in marked(tmp_path).values() if 'easysif.run' not in line]) >= count
             and 'sleep 1000' in ''.join(marked(tmp_path).values()))
    time.sleep(0.1)
    process.send_signal(number)
    process.wait()
    wait_for(lambda: not marked(tmp_path))


def test_whenever_we_are_killed_nothing_remains(tmp_path, caller):
    log = tmp_path / 'log'
    running = [caller(['sh', '-c', 'sleep 1000 & sleep 0.01; echo .'], 'while True: run(sys.argv[1:], log="log")')
               for _ in range(10)]
    wait_for(lambda: log.exists() and log.stat().st_size > 2 * len(running))  # so one of them is at its second
    for process in running:
        time.sleep(random.random() / 10)
        process.kill()
        process.wait()
    wait_for(lambda: not [line for line in marked(tmp_path).values() if line != 'sleep 1000 '])
    assert marked(tmp_path) != {}  # what commands that ended well left behind is theirs


def test_when_we_are_killed_while_the_next_one_waits_for_its_supervisor_nothing_remains(tmp_path, caller):
    """The process that forks supervisors is stopped and goes on after we are gone."""
    process = caller([], 'run(["true"])\nopen("ready", "w").close()\ntime.sleep(0.5)\nrun(["sleep", "1000"])')
    wait_for((tmp_path / 'ready').exists)
    starter, = [int(child) for child in Path('/proc/%d/task/%d/children' % ((process.pid,) * 2)).read_text().split()]
    os.kill(starter, signal.SIGSTOP)
    time.sleep(1)
    process.kill()
    process.wait()
    os.kill(starter, signal.SIGCONT)
    wait_for(lambda: not marked(tmp_path))


def test_a_killed_process_that_forks_supervisors_is_replaced(tmp_path):
    run(['true'])
    os.kill(module._starter._process.pid, signal.SIGKILL)
    module._starter._process.wait()
    assert run(['echo', 'fine']).stdout == 'fine\n'


def test_a_killed_supervisor_takes_its_command_with_it(tmp_path):
    code = 'import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(1000)'
    result = run([sys.executable, '-c', code], check=False)
    assert result.status == -signal.SIGKILL


def test_where_nothing_can_be_forked_it_is_said(tmp_path, caller):
    if not os.getuid():
        raise AssertionError('root has no limit of processes')
    code = ('run(["true"])\nimport resource, easysif.run as module\n'
            'resource.prlimit(module._starter._process.pid, resource.RLIMIT_NPROC, (0, 0))\n'
            'try:\n    run(["true"])\nexcept Exception as err:\n    open("said", "w").write(str(err))')
    assert caller([], code).wait() == 0
    assert (tmp_path / 'said').read_text().startswith('true: could not be started (Resource temporarily unavailable)\n')


def test_a_forked_child_runs_commands_of_its_own(tmp_path):
    run(['true'])
    child = os.fork()
    if not child:
        os._exit(run(['sh', '-c', 'exit 7'], check=False).status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert run(['echo', 'fine']).stdout == 'fine\n'


@pytest.mark.e2e
def test_when_we_are_killed_mksquashfs_ends(tmp_path, caller):
    (tmp_path / 'tree').mkdir()
    with open(tmp_path / 'tree' / 'noise', 'wb') as handle:
        for _ in range(64):
            handle.write(os.urandom(1 << 20))
    process = caller(['mksquashfs', tmp_path / 'tree', tmp_path / 'out', '-comp', 'xz', '-processors', '1'])
    wait_for(lambda: (tmp_path / 'out').exists())
    assert [line for line in marked(tmp_path).values() if line.startswith('mksquashfs ')]
    process.kill()
    process.wait()
    wait_for(lambda: not marked(tmp_path))


@pytest.mark.e2e
@pytest.mark.parametrize('action', ['exec', 'build'])
def test_when_we_are_killed_a_container_and_its_mounts_end(tmp_path, caller, toy, action):
    for name in ('tmp', 'bind'):
        (tmp_path / name).mkdir()
    definition = tmp_path / 'x.def'
    definition.write_text('Bootstrap: localimage\nFrom: %s\n%%post\n    sleep 4321\n' % toy)
    arguments = {'exec': ['exec', '--bind', '%s:/mnt' % (tmp_path / 'bind'), toy, 'sleep', '4321'],
                 'build': ['build', tmp_path / 'x.sif', definition]}[action]

    process = caller(['apptainer', *arguments],
                     **dict(harness.user_environment(tmp_path / 'home'), TMPDIR=str(tmp_path / 'tmp')))
    wait_for(lambda: [line for line in descendants(process.pid).values() if line.endswith('sleep 4321 ')
                      and len(line) < 20])
    inside = descendants(process.pid)
    process.kill()
    process.wait()
    assert_gone(inside)
    with open('/proc/self/mountinfo') as handle:
        assert str(tmp_path) not in handle.read()
    assert os.listdir(tmp_path / 'tmp') == os.listdir(tmp_path / 'bind') == []


def descendants(top):
    """Return the processes that descend from one, and their command lines (dict of int: str)."""
    parents, found = {}, {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open('/proc/%s/stat' % name, 'rb') as status, open('/proc/%s/cmdline' % name, 'rb') as line:
                parents[int(name)] = (int(status.read().rpartition(b')')[2].split()[1]),
                                      line.read().replace(b'\0', b' ').decode('utf-8', 'replace'))
        except OSError:  # it has ended
            continue
    new = {top}
    while new:
        new = {process for process, (parent, _) in parents.items() if parent in new}
        found.update((process, parents[process][1]) for process in new)
    return found
