# SPDX-License-Identifier: GPL-2.0-only
"""Locks: one holder at a time, whoever dies, is suspended or sits on another host."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

import harness
from easysif import holder
from easysif import lock as module
from easysif.errors import EasySIFError
from easysif.lock import Lock

#: begins every process of these tests: time runs faster, and its arguments are the lock and what the test has for it
BEGIN = '''
import os, signal, socket, sys, time
from easysif import holder, lock
from easysif.errors import EasySIFError
from easysif.lock import Lock
lock.BEAT, lock.NEAR, lock.FAR, lock.POLL = 0.05, 0.5, 0.5, 0.02
path, rest = sys.argv[1], sys.argv[2:]
'''
AS_IT_IS = {name: getattr(module, name) for name in ('BEAT', 'NEAR', 'FAR', 'POLL')}
HOLD = 'with Lock(path, "other.eb"):\n    print("in", flush=True)\n    time.sleep(600)\n'


class Process(subprocess.Popen):
    """A process that runs Python with BEGIN before it; its output is text."""

    def __init__(self, code, path, *args, before=()):
        super().__init__([*before, sys.executable, '-c', BEGIN + code, str(path), *map(str, args)], text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                         env=dict(os.environ, PYTHONPATH=str(harness.CLONE / 'tools')))

    def says(self, line):
        assert self.stdout.readline() == line + '\n', self.stderr.read()
        return self

    def ends(self):
        out, err = self.communicate(timeout=60)
        assert self.returncode == 0, err
        return out


@pytest.fixture
def start():
    """A function that starts a Process, which is ended after the test."""
    running = []

    def begin(*args, **options):
        running.append(Process(*args, **options))
        return running[-1]
    yield begin
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Time runs faster: beats of 0.05 s, patience of 0.4 s here and 0.6 s elsewhere."""
    for name, value in (('BEAT', 0.05), ('NEAR', 0.4), ('FAR', 0.6), ('POLL', 0.02)):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only where a lock waits, and the time between two beats and so on as it is (Clock)."""
    clock = Clock()
    for name, value in AS_IT_IS.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, 'time', clock)
    return clock


class Clock:
    """What stands for the module `time`: ``now`` is the seconds that were waited, ``beat`` is called at each wait."""

    def __init__(self):
        self.now, self.beat = 0, lambda: None

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.beat()


@pytest.fixture
def path(tmp_path):
    """Where the lock is (Path); its directory is there and holds nothing else."""
    (tmp_path / 'locks').mkdir()
    return tmp_path / 'locks' / 'x.lock'


@pytest.fixture
def held(path):
    """A function that makes the lock of a process that is not there: ``held(record values…, age=seconds)``."""
    def make(text=None, age=0, **values):
        path.mkdir()
        record = json.loads(holder.write('other.eb', 'token'))
        record.update({'pid': 4194305, 'user': 'alice', 'since': 0, **values})
        (path / 'holder').write_text(json.dumps(record) if text is None else text)
        os.utime(path, (time.time() - age,) * 2)
    return make


OTHER_SPACE = {'namespaces': 'pid:[1] time:[2]'}
LIVING = {'pid': os.getpid(), 'started': holder._process(os.getpid())[1]}


def told(path, **options):
    """Take a lock and give it back; return what was told, and the lock."""
    lines = []
    with Lock(path, 'x', tell=lines.append, **options) as lock:
        lock.check()
        assert json.loads((path / 'holder').read_text())['pid'] == os.getpid()
    assert os.listdir(path.parent) == []
    return lines, lock


def refused(path, **options):
    """Ask for a lock that another one has; return the message."""
    before = sorted(os.listdir(path.parent))
    with pytest.raises(EasySIFError) as err:
        Lock(path, 'x', **options).__enter__()
    assert sorted(os.listdir(path.parent)) == before
    return str(err.value)


# --- the living -------------------------------------------------------------------------------------------------------

def test_a_living_holder_is_named(path, start):
    process = start(HOLD, path).says('in')
    assert re.sub('since .*', 'since …', refused(path)) == (
        'x: another process is at work here\n  holder  %s\n  lock    %s\nhint: wait for it to end, then run the same '
        'command again' % ('process %d of %s on %s (other.eb), since …'
                           % (process.pid, os.environ.get('USER'), socket.gethostname()), path))
    assert refused(path, hint='eb --wait x.eb').endswith('\nhint: eb --wait x.eb')


def test_a_suspended_holder_on_this_host_is_alive(path, start):
    process = start(HOLD, path).says('in')
    process.send_signal(signal.SIGSTOP)
    time.sleep(module.NEAR + 0.1)
    assert 'another process is at work here' in refused(path)


def test_one_may_wait_for_a_while(path, start, clock):
    start(HOLD, path).says('in')
    lines = []
    assert 'another process is at work here' in refused(path, wait=30, tell=lines.append)
    assert 30 <= clock.now < 30 + 2 * module.POLL and len(lines) == 1


def test_one_who_waits_says_for_whom_and_has_waited(path, start):
    code = 'with Lock(path, "other.eb"):\n    print("in", flush=True)\n    sys.stdin.readline()\n'
    process, lines = start(code, path).says('in'), []

    def tell(line):
        lines.append(line)
        process.stdin.write('\n')
        process.stdin.flush()
    with Lock(path, 'x', wait=None, tell=tell) as lock:
        assert lock.waited and len(lines) == 1
    assert lines[0].startswith('waiting for process %d of ' % process.pid) and '(other.eb), since 20' in lines[0]


def test_who_finds_nobody_has_not_waited(path):
    lines, lock = told(path)
    assert not lines and not lock.waited


def test_eight_at_once_take_their_turns(path, tmp_path, start):
    """Each adds to a number by reading and writing, and makes a file that must not be there."""
    code = '''
for _ in range(8):
    with Lock(path, 'x', wait=None) as held:
        os.close(os.open(rest[0] + '.inside', os.O_CREAT | os.O_EXCL))
        number = int(open(rest[0]).read())
        time.sleep(0.002)
        held.check()
        open(rest[0], 'w').write(str(number + 1))
        os.unlink(rest[0] + '.inside')
'''
    count = tmp_path / 'count'
    count.write_text('0')
    for process in [start(code, path, count) for _ in range(8)]:
        process.ends()
    assert count.read_text() == '64' and os.listdir(path.parent) == []


@pytest.mark.long
@pytest.mark.parametrize('many, elsewhere', [(8, False), (4, True)])
def test_many_at_once_take_over_from_those_who_die_one_by_one(path, tmp_path, start, held, many, elsewhere):
    """Each tells the number of its turn and dies with the lock in its hands; where all are hosts of their own, too."""
    code = '''
if int(rest[1]):
    here = socket.gethostname
    socket.gethostname = lambda: '%s-%d' % (here(), os.getpid())
with Lock(path, 'x', wait=None) as held:
    number = int(open(rest[0]).read())
    time.sleep(0.02)
    held.check()
    open(rest[0], 'w').write(str(number + 1))
    print(number, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
'''
    held()
    count = tmp_path / 'count'
    count.write_text('0')
    running = [start(code, path, count, int(elsewhere)) for _ in range(many)]
    assert sorted(process.communicate(timeout=60)[0] for process in running) == ['%d\n' % turn for turn in range(many)]
    assert os.listdir(path.parent) == [path.name]


def test_of_eight_who_find_one_dead_one_gets_it(path, held, start):
    code = 'print("go", flush=True)\nsys.stdin.readline()\n' \
           'try:\n    with Lock(path, "x"):\n        print("in", flush=True); sys.stdin.readline()\n' \
           'except EasySIFError as err:\n    print("out" if "another process" in str(err) else err)\n'
    for _ in range(3):
        held()
        running = [start(code, path).says('go') for _ in range(8)]
        for process in running:
            process.stdin.write('\n')
            process.stdin.flush()
        assert sorted(process.stdout.readline() for process in running) == ['in\n'] + ['out\n'] * 7
        for process in running:
            process.communicate('\n')
        assert os.listdir(path.parent) == []


# --- the dead ---------------------------------------------------------------------------------------------------------

def test_after_one_that_was_killed_the_next_has_it_at_once(path, start, monkeypatch):
    monkeypatch.setattr(module, 'NEAR', 1000)
    process = start(HOLD, path).says('in')
    process.kill()  # it remains as a zombie
    while holder._process(process.pid)[0] != 'Z':
        time.sleep(0.01)
    lines, lock = told(path)
    assert lines == [line for line in lines if re.fullmatch(
        r'took over the lock of process %d of .* on .* \(other.eb\), since .*, which is dead' % process.pid, line)]
    assert len(lines) == 1 and not lock.waited


@pytest.mark.parametrize('values', [{}, {'pid': 2 ** 40}, dict(LIVING, started='7'), dict(LIVING, boot='another-boot'),
                                    dict(LIVING, boot='another-boot', **OTHER_SPACE)],
                         ids=['no such process', 'no such number', 'number used again', 'before a reboot',
                              'before a reboot in a container'])
def test_who_is_dead_for_certain_is_not_waited_for(path, held, monkeypatch, values):
    monkeypatch.setattr(module, 'NEAR', 1000)
    held(**values)
    assert told(path)[0] == ['took over the lock of process %d of alice on %s (other.eb), since %s, which is dead' % (
        values.get('pid', 4194305), socket.gethostname(), time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(0)))]


UNCERTAIN = {
    'another host': {'host': 'another-host'}, 'another host of that name': {'machine': 'another'},
    'another PID namespace': OTHER_SPACE, 'unknown boot': {'boot': ''}, 'unknown start': dict(LIVING, started=''),
    'no JSON': {'text': '{'},
    'another format': {'text': '%s 4194305 7' % socket.gethostname()}, 'no mapping': {'text': '[1]'},
    'a record that lacks the number': {'pid': None}, 'a number that means a group': {'pid': -1},
    'a time that is none': {'since': 10 ** 30}, 'deep': {'text': '[' * 10 ** 6}}


@pytest.fixture(params=['EasyBuild\'s own', *UNCERTAIN])
def uncertain(request, path, held):
    """A function that makes a lock of which nobody knows from here whether its holder lives (patience in seconds)."""
    def make(age=0):
        if request.param in UNCERTAIN:
            held(age=age, **UNCERTAIN[request.param])
        else:
            path.mkdir()
            os.utime(path, (time.time() - age,) * 2)
        return module.FAR if request.param.startswith('another host') else module.NEAR
    return make


def test_one_who_may_be_dead_is_watched_for_as_long_as_it_takes(path, uncertain, clock):
    patience = uncertain()
    lines, lock = told(path)
    # less what has passed before the first look, which on a busy machine may be seconds
    assert patience - 25 <= clock.now <= patience + 2 * module.POLL
    assert len(lines) == 2 and not lock.waited
    assert re.fullmatch('waiting for .*, at most %d s for a sign of life' % patience, lines[0])
    assert re.fullmatch('took over the lock of .*, which is dead', lines[1])


def test_a_clock_that_went_backwards_makes_no_lock_immortal(path, uncertain, clock):
    patience = uncertain(age=-10 ** 6)
    told(path)
    assert patience <= clock.now <= patience + 2 * module.POLL


def test_what_was_silent_for_long_is_not_watched_for_long(path, uncertain, clock):
    """One on another host must be seen to miss two beats: its clock may go wrong."""
    patience = uncertain(age=10 ** 6)
    told(path)
    assert clock.now <= (0 if patience == module.NEAR else 2.5 * module.BEAT + 2 * module.POLL)
    assert patience == module.NEAR or clock.now >= 2 * module.BEAT


@pytest.mark.parametrize('step', [1, -1])
def test_one_who_gives_signs_of_life_is_respected(path, uncertain, clock, step):
    """Wherever its clock goes."""
    patience, beats = uncertain(), []

    def live():
        if clock.now >= module.BEAT * (len(beats) + 1):
            beats.append(clock.now)
            os.utime(path, (time.time() + step * len(beats),) * 2)

    clock.beat = live
    assert 'another process is at work here' in refused(path)
    assert 'another process is at work here' in refused(path, wait=3 * patience)


def test_one_in_another_pid_namespace_lives_and_dies(path, start, monkeypatch):
    """A real one: a number means another process there, and the /proc that it sees is not its own."""
    process = start(HOLD, path, before=['unshare', '--user', '--pid', '--fork', '--kill-child']).says('in')
    monkeypatch.setattr(module, 'NEAR', 60)
    record = json.loads((path / 'holder').read_text())
    assert (record['pid'], record['started']) == (1, '')
    assert 'holder  process 1 of ' in refused(path)
    code = 'lock.NEAR = 60\ntry:\n    Lock(path, "x").__enter__()\nexcept EasySIFError as err:\n    print(err)\n'
    inside = start(code, path, before=['unshare', '--user', '--pid', '--fork'])
    assert 'holder  process 1 of ' in inside.ends()
    process.kill()
    process.wait()
    monkeypatch.setattr(module, 'time', Clock())
    assert told(path)[0][0].startswith('waiting for process 1 of ')


def test_where_proc_is_hidden_signs_of_life_count(path, start, monkeypatch):
    process = start(HOLD, path).says('in')
    seen = holder._process
    monkeypatch.setattr(module, 'NEAR', 60)
    monkeypatch.setattr(holder, '_process', lambda pid: ('', ''))
    assert 'holder  process %d of ' % process.pid in refused(path)
    process.kill()
    while seen(process.pid)[0] != 'Z':
        time.sleep(0.01)
    monkeypatch.setattr(module, 'time', Clock())
    assert len(told(path)[0]) == 2


def test_another_users_process_is_alive(path, held, monkeypatch):
    held(pid=1, started=holder._process(1)[1])
    assert holder._process(1)[1] and os.getuid()
    assert 'holder  process 1 of alice' in refused(path)


def test_what_others_wrote_is_shown_and_not_obeyed(path, held, clock):
    held(host='another\x1b[2Jhost', where='x\nhint: rm -rf /', age=10 ** 6)
    lines, _ = told(path)
    assert len(lines) == 2 and all(r'another\x1b[2Jhost (x\nhint: rm -rf /)' in line for line in lines)


@pytest.mark.parametrize('kind', ['pipe', 'link', 'file that cannot be read'])
def test_a_record_that_is_no_file_to_be_read_is_none(path, kind):
    path.mkdir()
    if kind == 'pipe':
        os.mkfifo(path / 'holder')
    elif kind == 'link':
        (path / 'holder').symlink_to('/proc/kmsg')
    else:
        (path / 'holder').touch(0)
    os.utime(path, (1, 1))
    assert told(path)[0] == ['took over the lock of a process that left no name, which is dead']


def test_a_host_without_what_tells_hosts_apart_still_has_locks(path, monkeypatch):
    monkeypatch.setattr(holder, '_line', lambda path: '')
    monkeypatch.setattr(holder, '_link', lambda path: '')
    monkeypatch.setattr(os, 'getuid', lambda: 4242424242 % 2 ** 31)
    with Lock(path, 'x'):
        assert json.loads((path / 'holder').read_text())['user'] == str(os.getuid())
        assert 'another process is at work here' in refused(path)


# --- what is lost is noticed ------------------------------------------------------------------------------------------

def test_who_was_suspended_and_lost_it_finds_out_and_harms_nobody(path, start):
    code = '''
socket.gethostname = lambda: 'another-host'
try:
    with Lock(path, 'other.eb') as held:
        held.check()
        print('in', flush=True)
        sys.stdin.readline()
        held.check()
except EasySIFError as err:
    print(err)
'''
    process = start(code, path).says('in')
    process.send_signal(signal.SIGSTOP)
    with Lock(path, 'x') as lock:
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate('\n')
        assert out.startswith('other.eb: the lock was lost, as after a long time without a sign of life\n')
        assert '\n  holder  process %d of ' % os.getpid() in out
        lock.check()
    assert os.listdir(path.parent) == []


def test_a_lock_that_was_removed_is_lost(path):
    with Lock(path, 'x') as lock:
        os.unlink(path / 'holder')
        os.rmdir(path)
        with pytest.raises(EasySIFError) as err:
            lock.check()
        assert str(err.value) == ('x: the lock was lost, as after a long time without a sign of life\n'
                                  '  holder  nobody\n  lock    %s\nhint: run the same command again' % path)
        with Lock(path, 'y') as second:
            lock._give_back()
            second.check()


def test_a_forked_child_neither_has_the_lock_nor_gives_it_back(path):
    with Lock(path, 'x') as lock:
        child = os.fork()
        if not child:
            try:
                lock.__exit__(None, None, None)
                lock.check()
            except EasySIFError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        lock.check()


def test_a_heart_goes_on_after_a_beat_that_failed(path, monkeypatch):
    beats = []

    real = os.utime

    def utime(*args):
        beats.append(args)
        if len(beats) < 4:
            raise OSError(5, 'Input/output error')
        return real(*args)

    with Lock(path, 'x') as lock:
        monkeypatch.setattr(os, 'utime', utime)
        real(path, (1, 1))
        lock.check()  # which does not fail for it, either
        deadline = time.monotonic() + 60
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1 and len(beats) >= 4


# --- where it is made -------------------------------------------------------------------------------------------------

def test_what_is_missing_above_it_is_made_and_stays(tmp_path):
    with Lock(tmp_path / 'a' / 'b' / 'x.lock', 'x') as lock:
        lock.check()
    assert os.listdir(tmp_path / 'a' / 'b') == []


@pytest.mark.parametrize('umask', [0o000, 0o002, 0o022, 0o077])
@pytest.mark.parametrize('mode, expected', [(0o2775, 0o775), (0o755, 0o755), (0o2750, 0o750), (0o700, 0o700),
                                            (0o777, 0o775)])
def test_a_lock_is_as_open_to_the_group_as_where_it_lies(tmp_path, mode, expected, umask):
    locks = tmp_path / 'top' / '.locks'
    locks.parent.mkdir()
    locks.parent.chmod(mode)
    before = os.umask(umask)
    try:
        with Lock(locks / 'x.lock', 'x'):
            above, *modes = [stat.S_IMODE(path.stat().st_mode)
                             for path in (locks, locks / 'x.lock', locks / 'x.lock' / 'holder')]
    finally:
        os.umask(before)
    assert modes == [expected, expected & 0o664] and above == mode & 0o2775


def test_a_parent_that_others_remove_when_it_is_empty_is_made_again(tmp_path):
    path, ended = tmp_path / 'locks' / 'x.lock', threading.Event()

    def remove():
        while not ended.is_set():
            with suppress(OSError):
                os.rmdir(path.parent)
            time.sleep(0.0002)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(30):
            with Lock(path, 'x', wait=None) as lock:
                lock.check()
    finally:
        ended.set()
        remover.join()


@pytest.mark.parametrize('options, reason, hint', [('ro', 'Read-only file system', 'ls -ld'),
                                                   ('nr_inodes=1', 'No space left on device', 'df -h')])
def test_a_lock_on_a_file_system_that_is_read_only_or_full_cannot_be_made(tmp_path, start, options, reason, hint):
    code = 'try:\n    Lock(path, "x.eb").__enter__()\nexcept EasySIFError as err:\n    print(err)\n'
    path = tmp_path / 'not there' / 'x.lock'
    process = start(code, path, before=['unshare', '--map-root-user', '--mount', 'sh', '-c',
                                        'mount -t tmpfs -o %s none "$0" && exec "$@"' % options, tmp_path])
    assert process.ends() == 'x.eb: the lock cannot be made (%s)\n  lock  %s\nhint: %s -- %s\n' % (
        reason, path, hint, tmp_path)


def test_a_lock_that_cannot_be_written_leaves_nothing(path, start):
    code = 'try:\n    Lock(path, "x.eb").__enter__()\nexcept EasySIFError as err:\n    print(err)\n'
    process = start(code, path, before=['sh', '-c', 'ulimit -f 0; exec "$@"', 'sh'])
    assert process.ends().startswith('x.eb: the lock cannot be made (File too large)\n')
    assert os.listdir(path.parent) == []


def test_a_file_in_the_place_of_the_lock_is_left_alone(path):
    path.write_text('mine')
    assert refused(path) == ('x: the lock cannot be made (Not a directory)\n  lock  %s\nhint: ls -ld -- %s'
                             % (path, path.parent))
    assert path.read_text() == 'mine'


@pytest.mark.parametrize('reason', ['Directory not empty', 'Permission denied'])
def test_a_dead_ones_lock_that_cannot_be_removed_is_said(path, held, reason):
    held()
    if reason == 'Permission denied':
        path.chmod(0o555)
    else:
        (path / 'somebody\'s').write_text('file')
    try:
        assert refused(path) == ('x: the lock of a dead process cannot be removed (%s)\n  lock  %s\nhint: rm -r -- %s'
                                 % (reason, path, path))
        assert (path / 'somebody\'s').exists() == (reason == 'Directory not empty')
    finally:
        path.chmod(0o755)


def test_one_can_ask_whether_nobody_has_it_for_certain(path, held):
    assert Lock(path, 'x').is_free()
    with Lock(path, 'y'):
        assert not Lock(path, 'x').is_free()
    held()
    assert Lock(path, 'x').is_free() and path.exists()
    (path / 'holder').unlink()
    assert not Lock(path, 'x').is_free()


def test_what_killed_ones_left_beside_it_goes(path):
    aside = Lock(path, 'x')._aside
    for name in ('1', '2'):
        os.mkdir(aside + name)
    for other in (path.parent / '.1', path.parent / 'y.lock'):
        other.mkdir()
    with open(os.path.join(aside + '1', 'holder'), 'w'):
        pass
    with Lock(path, 'x'):
        pass
    assert sorted(os.listdir(path.parent)) == ['.1', 'y.lock']


def test_a_server_that_denies_what_it_did_is_not_believed(path, monkeypatch):
    """NFS repeats a request whose answer was lost."""
    def rename(*args, call=os.rename):
        call(*args)
        raise FileNotFoundError(2, 'No such file or directory')

    monkeypatch.setattr(os, 'rename', rename)
    lock = told(path)[1]
    assert not lock.waited


def test_what_nfs_keeps_while_it_is_read_is_waited_for(path, monkeypatch):
    """It renames a file that is removed while another one has it open."""
    tries = []

    def rmdir(name, call=os.rmdir):
        tries.append(name)
        if len(tries) < 3:
            raise OSError(39, 'Directory not empty')
        call(name)

    with Lock(path, 'x'):
        monkeypatch.setattr(os, 'rmdir', rmdir)
    assert tries == [str(path)] * 3 and os.listdir(path.parent) == []


def test_an_interrupt_while_it_is_made_leaves_nothing(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Lock, '_sweep', interrupt)
    with pytest.raises(KeyboardInterrupt):
        Lock(path, 'x').__enter__()
    assert os.listdir(path.parent) == []
