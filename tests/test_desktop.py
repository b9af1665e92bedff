# SPDX-License-Identifier: GPL-2.0-only
"""start-vnc, stop-vnc and vnc-info without a container: what stands for the image tells what its programs would."""

import errno
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import harness
import standins
import users
from easysif import holder
from easysif.running.desktop import COMMANDS, MODULES, command, place, reach, server, terminals

pytestmark = pytest.mark.long

#: stands for start-shell: does what FAKE_DESKTOP says, instead of starting an image
START_SHELL = '''#!%s
import json, os, signal, socket, sys, time
directory, geometry = sys.argv[-2:]
def tell(**what):
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(directory + '/control')
        control.sendall(json.dumps(what).encode() + b'\\n')
        control.recv(1)
how = os.environ.get('FAKE_DESKTOP', 'good')
if how == 'slow':
    while not os.path.exists(os.environ['FAKE_PID'] + '.go'):
        time.sleep(0.02)
if how in ('good', 'slow'):
    tell(ready=int(os.environ.get('FAKE_DISPLAY', 1)))
elif how.startswith('fail '):
    tell(failed=how[5:])
    sys.exit(1)
elif how == 'die':
    sys.exit('FATAL: the image is gone')
open(os.environ['FAKE_PID'], 'w').write(str(os.getpid()))
time.sleep(1000)
''' % sys.executable


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A module with the commands of desktops, and a directory that stands for /tmp (``run``, ``env``, ``pid``)."""
    root = tmp_path / 'root'
    library = root / 'easysif' / 'lib'
    for name in ('overlay/__init__', *MODULES):
        path = library / 'easysif' / (name + '.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(harness.CLONE / 'tools' / 'easysif' / (name + '.py'), path)
    top = Path(tempfile.mkdtemp(prefix='vnc-', dir='/tmp'))  # paths of sockets may not be long
    path = library / 'easysif' / 'running' / 'desktop' / 'place.py'
    path.write_text(path.read_text().replace("TOP = '/tmp'", 'TOP = %r' % str(top)))
    shutil.copy(harness.CLONE / 'tools/easysif/helpers/overlay_main.py', library / '__main__.py')
    (root / 'bin').mkdir()
    (root / 'bin' / 'start-shell').write_text(START_SHELL)
    (root / 'bin' / 'start-shell').chmod(0o755)
    monkeypatch.setattr(place, 'TOP', str(top))

    class Fake:
        """The module."""

        env = dict(harness.user_environment(tmp_path / 'home'), FAKE_PID=str(tmp_path / 'pid'))
        pid = tmp_path / 'pid'

        def argv(self, *args):
            """Return what a wrapper becomes (list of str)."""
            return [sys.executable, '-I', '-B', str(library), *args, '--module', 'vnc/1', '--installation', str(root),
                    '--login-host', '']

        def run(self, *args, check=True, **env):
            """Run a command (Result)."""
            return harness.run(self.argv(*args), env=dict(self.env, **env), check=check)

        def start(self, *args, **env):
            """Start a desktop, and return what is told of it (dict)."""
            return json.loads(self.run('start-vnc', '--json', *args, **env).stdout)
    fake = Fake()
    fake.top = top
    yield fake
    fake.run('stop-vnc', '--all', check=False)
    wait(lambda: not left(fake.env))
    shutil.rmtree(top)


def left(env):
    """Return the processes that have such a FAKE_PID in their environment (list of int)."""
    mark, found = ('FAKE_PID=%s' % env['FAKE_PID']).encode(), []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            if mark in Path('/proc', name, 'environ').read_bytes().split(b'\0'):
                found.append(int(name))
        except OSError:
            continue
    return found


def wait(what, seconds=60):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, 'never so'
        time.sleep(0.02)
    return what()


def test_a_desktop_is_started_told_of_and_ended_without_a_trace(fake):
    told = fake.start('--geometry', '1600x900')
    directory = Path(told['directory'])
    assert set(told) == {'display', 'host', 'job', 'module', 'geometry', 'directory', 'submit_host', 'pid', 'started',
                         'password_file', 'xauthority', 'tunnel', 'address', 'vnc_address', 'read_password'}
    assert (told['display'], told['geometry'], told['job'], told['module']) == (1, '1600x900', None, 'vnc/1')
    assert stat.filemode(directory.stat().st_mode) == 'drwx------'
    assert {path.name: stat.filemode(path.lstat().st_mode)[1:] for path in directory.iterdir()
            if path.is_file()} == dict.fromkeys(('desktop.json', 'holder', 'log', 'password'), 'rw-------')
    password = Path(told['password_file']).read_text().strip()
    assert len(password) == 8 and json.loads(fake.run('vnc-info', '--json').stdout) == [told]
    everything = [Path('/proc', str(pid), name).read_bytes()
                  for pid in left(fake.env) for name in ('cmdline', 'environ')]
    assert not [text for text in everything if password.encode() in text]
    assert password not in fake.run('vnc-info').stdout and 'cat %s\n' % told['password_file'] in fake.run(
        'vnc-info').stdout
    assert fake.run('vnc-info', '--export').stdout == 'export DISPLAY=:1 XAUTHORITY=%s\n' % told['xauthority']
    assert fake.run('stop-vnc').stdout == 'ended: desktop :1\n'
    assert left(fake.env) == [] and list(fake.top.iterdir()) == []
    host = socket.gethostname()
    assert fake.run('vnc-info').stdout == 'no desktop of yours runs on %s\n' % host
    assert fake.run('vnc-info', '--json').stdout == '[]\n'
    for name in ('stop-vnc', 'vnc-info --export'):
        refused = fake.run(*name.split(), check=False)
        assert (refused.status, refused.stderr) == (1, (
            'error: %s: no desktop of yours runs on %s\n  there are  none\nhint: start-vnc\n'
            % (name.split()[0], host)))


def test_every_start_has_a_password_of_its_own_which_a_terminal_shows(fake):
    first = Path(fake.start()['password_file']).read_text()
    fake.run('stop-vnc')
    status, shown = standins.on_terminal(fake.argv('start-vnc'), fake.env, [])
    second = Path(json.loads(fake.run('vnc-info', '--json').stdout)[0]['password_file']).read_text()
    assert status == 0 and '  password             %s\r\n' % second.strip() in shown and first != second
    assert 'desktop :1 on %s, 1280x800, vnc/1; it ends with stop-vnc\r\n' % socket.gethostname() in shown


def test_a_second_desktop_has_to_be_wanted(fake):
    fake.start()
    refused = fake.run('start-vnc', check=False)
    assert (refused.status, refused.stderr) == (1, (
        'error: start-vnc: a desktop of yours runs here already\n  display  :1\n  module   vnc/1\n'
        'hint: vnc-info; or start-vnc --another\n'))
    assert fake.start('--another', FAKE_DISPLAY='2')['display'] == 2
    assert fake.start(FAKE_DISPLAY='3', SLURM_JOB_ID='7')['job'] == '7'  # one for each job
    for name, hint in (('stop-vnc', 'stop-vnc :1; or stop-vnc --all'), ('vnc-info', 'vnc-info --export :1')):
        refused = fake.run(name, *(['--export'] if name == 'vnc-info' else []), check=False)
        assert (refused.status, refused.stderr) == (2, (
            'error: %s: several desktops of yours run here\n  displays  :1 :2 :3\nhint: %s\n' % (name, hint)))
    assert fake.run('stop-vnc', ':2', '--json').stdout == '{"stopped": [2]}\n'
    refused = fake.run('stop-vnc', '2', check=False)
    assert refused.stderr == 'error: stop-vnc: no desktop :2 of yours runs on %s\n  there are  :1 :3\n' \
                             'hint: vnc-info\n' % socket.gethostname()
    assert fake.run('stop-vnc', '--all').stdout == 'ended: desktop :1, :3\n'


@pytest.mark.parametrize('how, said', [
    ('fail no display is free: :1 to :999 are taken', 'error: start-vnc: no display is free: :1 to :999 are taken\n'
     'hint: see which are yours: vnc-info; and end them: stop-vnc --all\n'),
    ('fail the image lacks Xvnc', 'error: start-vnc: the image lacks Xvnc\n'
     'hint: add it to the definition file of the image, and install the module anew\n'),
    ('die', 'error: start-vnc: FATAL: the image is gone\nhint: try it: start-shell -c "Xvnc -version"\n')])
def test_why_a_desktop_does_not_start_is_said_and_nothing_is_left(fake, how, said):
    refused = fake.run('start-vnc', check=False, FAKE_DESKTOP=how)
    assert (refused.status, refused.stdout, refused.stderr) == (3, '', said)
    assert list(fake.top.iterdir()) == []
    wait(lambda: not left(fake.env))


def test_a_desktop_that_ends_at_once_is_told(fake, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys.modules['__main__'], '__file__', str(tmp_path / '__main__.py'), raising=False)
    monkeypatch.setattr(command, 'run', lambda *_, **__: None)
    monkeypatch.setattr(command, '_await', lambda *_: {'ready': 1})
    assert command.main(['start-vnc']) == 3
    assert capsys.readouterr().err == ('error: start-vnc: the desktop has ended at once\n'
                                       'hint: try it: start-shell -c "Xvnc -version"\n')


def test_a_desktop_whose_process_ends_before_it_tells_anything(fake, tmp_path):
    path = tmp_path / 'root/easysif/lib/easysif/running/desktop/server.py'
    path.write_text(path.read_text().replace(
        'def serve(self):', 'def serve(self):\n        print("first\\nsecond\\nthird\\nfourth", flush=True)\n'
        '        self.starter.connect(self.directory + "/start")\n        return 1\n'))
    refused = fake.run('start-vnc', check=False)
    assert (refused.status, refused.stderr) == (3, (
        'error: start-vnc: the desktop did not start\n  last lines  second\n              third\n'
        '              fourth\nhint: try it: start-shell -c "Xvnc -version"\n'))
    assert list(fake.top.iterdir()) == []


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_ended_in_the_middle_leaves_nothing_that_is_in_the_way(fake, number):
    starting = subprocess.Popen(fake.argv('start-vnc'), env=dict(fake.env, FAKE_DESKTOP='wait'),
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait(fake.pid.exists)
    starting.send_signal(number)
    starting.communicate()
    assert starting.returncode in (-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT, 130)
    wait(lambda: not left(fake.env) and not list(fake.top.iterdir()))
    assert fake.start()['display'] == 1


def test_a_desktop_whose_process_is_killed_is_cleared_away_by_the_next_start(fake):
    told = fake.start()
    (fake.top / '.X11-unix').mkdir()
    for name in (place.LOCK % 1, place.SOCKET % 1):
        (fake.top / name).write_text('%10d\n' % dead_process())
    os.kill(told['pid'], signal.SIGKILL)
    wait(lambda: not left(fake.env))
    assert Path(told['directory']).is_dir() and fake.run('vnc-info', '--json').stdout == '[]\n'
    assert sorted(path.name for path in fake.top.iterdir()) == ['.X11-unix']
    assert list((fake.top / '.X11-unix').iterdir()) == []
    assert fake.start()['directory'] != told['directory']


def test_of_two_starts_at_once_the_second_waits_and_finds_the_first(fake):
    def begun():
        names = [line.split(' in ')[-1] for line in Path('/proc/net/unix').read_text().splitlines()]
        waits = names.count(str(fake.top)) > 1
        return waits or len(list(fake.top.iterdir())) > 1 or second.poll() is not None
    first, second = (subprocess.Popen(fake.argv('start-vnc', '--json'), env=dict(fake.env, FAKE_DESKTOP='slow'),
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2))
    wait(begun)
    Path(str(fake.pid) + '.go').touch()
    said = [one.communicate() for one in (first, second)]
    assert sorted((first.returncode, second.returncode)) == [0, 1], said
    assert [err.splitlines()[:2] for _, err in said if err] == [
        ['start-vnc: waiting for another one of yours', 'error: start-vnc: a desktop of yours runs here already']]


def test_a_start_that_was_killed_before_it_held_anything_is_cleared_away(fake):
    left = fake.top / 'easysif-vnc-x'
    left.mkdir(mode=0o700)
    (left / '.holder.new-1').write_text('{')
    fake.run('vnc-info')
    assert left.exists()  # of one who may be at work
    fake.start()
    assert not left.exists()


def test_the_name_of_a_start_is_not_waited_for_where_it_is_somebody_elses(monkeypatch, tmp_path):
    monkeypatch.setattr(place, 'TOP', str(tmp_path))
    with place.alone(lambda: None) as first:
        monkeypatch.setattr(place.struct, 'unpack', lambda *_: (1, -1, -1))  # another user's, as the kernel says
        with place.alone(lambda: None) as second:
            assert (first, second) == (True, False)
    monkeypatch.undo()
    monkeypatch.setattr(place, 'TOP', str(tmp_path))
    monkeypatch.setattr(place, 'SILENT', 0.1)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as guest:
        silent.bind(os.fsencode('\0easysif-vnc-%d in %s' % (os.getuid(), tmp_path))[:107])
        with place.alone(lambda: None) as third:
            assert third is False
        silent.listen(0)
        guest.connect(silent.getsockname())  # who lets nobody in, and now has no room either
        with place.alone(lambda: None) as fourth:
            assert fourth is False


def test_a_desktop_whose_processes_are_ended_by_the_scheduler_leaves_nothing(fake):
    """At the time limit of a job Slurm sends SIGTERM to all its processes, and SIGKILL after a while."""
    fake.start()
    for process in left(fake.env):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    wait(lambda: not left(fake.env) and not list(fake.top.iterdir()))


#: what another user on the machine tries with a desktop, and whether they see that its display is taken
TRIES = '''
import importlib.util, socket, sys
directory, session, top = sys.argv[1:]
for name in ('control', 'password', 'desktop.json', 'log'):
    try:
        if name == 'control':
            socket.socket(socket.AF_UNIX).connect(directory + '/control')
        else:
            open(directory + '/' + name)
        print(name, 'was reached')
    except PermissionError:
        pass
spec = importlib.util.spec_from_file_location('session', session)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.LOCK, module.X = top + '/.X%d-lock', top + '/X%d'
print(module.is_taken(1), module.is_taken(2))
'''


@pytest.mark.e2e
def test_desktops_of_two_users_on_a_machine_do_not_meet(fake, tmp_path):
    top, root = users.TOP / 'tmp', users.TOP / 'shared' / 'root'
    path = tmp_path / 'root/easysif/lib/easysif/running/desktop/place.py'
    path.write_text(path.read_text().replace(repr(str(fake.top)), repr(str(top))))
    with users.Machine() as machine:
        machine.admin('cp -r "$1" shared; chmod -R a+rX shared', tmp_path / 'root')

        def run(user, *args, check=True, **env):
            argv = [sys.executable, '-I', '-B', root / 'easysif' / 'lib', *args, '--module', 'vnc/1', '--installation',
                    root, '--login-host', '']
            return machine.run(user, argv, env=dict(env, FAKE_PID=users.home(user) / 'pid'), check=check)
        told = json.loads(run('installer', 'start-vnc', '--json').stdout)
        machine.run('installer', ['sh', '-c', 'echo "$0" >"$1"', told['pid'], top / '.X1-lock'])
        session = users.CLONE / 'tools/easysif/helpers/runscripts/lib/desktop/session.py'
        assert machine.python('installer', TRIES, told['directory'], session, top).stdout.count('was reached') == 4
        assert machine.python('stranger', TRIES, told['directory'], session, top).stdout == 'True False\n'
        assert run('stranger', 'vnc-info', '--json').stdout == '[]\n'
        assert run('stranger', 'stop-vnc', ':1', check=False).stderr.startswith(
            'error: stop-vnc: no desktop :1 of yours runs on ')
        other = json.loads(run('stranger', 'start-vnc', '--json', FAKE_DISPLAY='2').stdout)
        assert other['display'] == 2 and other['directory'] != told['directory']
        assert json.loads(run('installer', 'vnc-info', '--json').stdout) == [told]
        for user, number in (('stranger', 2), ('installer', 1)):
            assert run(user, 'stop-vnc').stdout == 'ended: desktop :%d\n' % number
        assert machine.admin('ls -A "$1"', top).split() == ['.X1-lock']


def dead_process():
    """Return the number of a process that is no more (int)."""
    process = subprocess.Popen(['true'])
    process.wait()
    return process.pid


def test_the_lock_of_a_display_goes_also_where_its_socket_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(place, 'TOP', str(tmp_path))
    lock = tmp_path / (place.LOCK % 1)
    lock.write_text('%10d\n' % dead_process())
    place._remove_display(1)
    assert not lock.exists()


def test_the_lock_of_a_display_that_is_somebodys_again_stays(fake):
    told = fake.start()
    (fake.top / (place.LOCK % 1)).write_text('%10d\n' % os.getpid())
    fake.run('stop-vnc')
    assert [path.name for path in fake.top.iterdir()] == ['.X1-lock'] and not Path(told['directory']).exists()


def test_directories_of_others_and_links_are_left_alone(fake, tmp_path):
    (tmp_path / 'mine').mkdir(mode=0o700)
    (fake.top / 'easysif-vnc-link').symlink_to(tmp_path / 'mine')
    (fake.top / 'easysif-vnc-open').mkdir()
    (fake.top / 'easysif-vnc-open').chmod(0o755)
    for directory in (tmp_path / 'mine', fake.top / 'easysif-vnc-open'):
        (directory / holder.NAME).write_text(json.dumps(dict(json.loads(holder.write('x', 'x')), pid=dead_process())))
    assert fake.run('vnc-info', '--json').stdout == '[]\n'
    assert len(list(fake.top.iterdir())) == 2 and (tmp_path / 'mine' / holder.NAME).exists()


def test_a_desktop_of_another_host_or_container_that_has_the_same_tmp_is_none_of_this_node(fake):
    directory = Path(tempfile.mkdtemp(prefix=place.PREFIX, dir=fake.top))
    record = json.loads(holder.write('start-vnc', 'x'))  # has the number of this process
    (directory / place.RECORD).write_text('{"display": 1, "job": null, "module": "vnc/1"}')
    for change in ({'host': 'other'}, {'namespaces': 'pid:[1] time:[1]'}):
        (directory / holder.NAME).write_text(json.dumps(dict(record, **change)))
        assert place.desktops() == [] and fake.run('stop-vnc', check=False).status == 1
    (directory / holder.NAME).write_text(json.dumps(record))
    assert [one['display'] for one in place.desktops()] == [1]
    shutil.rmtree(directory)


def test_a_desktop_ends_with_the_job_step_in_which_it_was_started(fake, tmp_path):
    """Also where Slurm does not find its processes: they watch the process by which it runs the step."""
    step = tmp_path / 'slurmstepd'
    step.symlink_to('/bin/bash')
    argv = ' '.join("'%s'" % word for word in fake.argv('start-vnc', '--json'))
    script = tmp_path / 'step.sh'
    script.write_text('%s\nread line\n' % argv)
    running = subprocess.Popen(['bash', '-c', 'exec "$0" "$1"', step, script], env=fake.env,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    told = json.loads(b''.join(iter(running.stdout.readline, b'}\n')) + b'}')
    assert server.is_there(told['pid'], told['started'])
    running.communicate(b'\n')
    wait(lambda: not left(fake.env) and not list(fake.top.iterdir()))


@pytest.fixture
def session(monkeypatch):
    """The file that runs inside the image, whose displays are in a short directory of the test (``top``, Path)."""
    path = harness.CLONE / 'tools/easysif/helpers/runscripts/lib/desktop/session.py'
    spec = importlib.util.spec_from_file_location('session', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory(prefix='vnc-', dir='/tmp') as top:
        module.top = Path(top)
        monkeypatch.setattr(module, 'LOCK', top + '/.X%d-lock')
        monkeypatch.setattr(module, 'X', top + '/X%d')
        yield module


def test_a_display_is_taken_by_a_lock_of_the_living_or_unknown_and_by_a_socket_that_answers(session):
    assert not session.is_taken(1)
    for holder_of_it, taken in ((os.getpid(), True), (1, True), ('nobody', True), (dead_process(), False)):
        (session.top / '.X1-lock').write_text('%10s\n' % holder_of_it)
        assert session.is_taken(1) == taken
    (session.top / '.X1-lock').unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(session.top / 'X1'))
        server.listen()
        assert session.is_taken(1)
    assert not session.is_taken(1)  # a dead server's, and ours


def test_nobody_is_waited_for_who_puts_something_else_where_a_display_has_its_files(session, monkeypatch):
    monkeypatch.setattr(place, 'TOP', str(session.top))
    lock = session.top / '.X1-lock'
    os.mkfifo(lock)
    assert session.is_taken(1)
    place._remove_display(1)
    writer = os.open(lock, os.O_RDWR)  # of somebody who says nothing
    assert session.is_taken(1)
    place._remove_display(1)
    os.close(writer)
    lock.unlink()
    lock.symlink_to('/dev/zero')
    assert session.is_taken(1)
    place._remove_display(1)
    assert lock.is_symlink()
    lock.unlink()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        server.bind(str(session.top / 'X1'))
        server.listen(0)
        other.connect(server.getsockname())
        assert session.is_taken(1)


def test_where_all_displays_are_taken_that_is_said(session, monkeypatch, tmp_path):
    monkeypatch.setattr(session, 'LAST', 3)
    for number in (1, 2, 3):
        (session.top / ('.X%d-lock' % number)).write_text('%10d\n' % os.getpid())
    with pytest.raises(session.Failure) as failed:
        session.Session(str(tmp_path), '640x480').serve()
    assert str(failed.value) == 'no display is free: :1 to :3 are taken'


def test_what_the_programs_tell_is_heard_before_they_end(session):
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(str(session.top / 'control'))
        control.listen()
        teller = threading.Thread(target=session.tell, args=(str(session.top),), kwargs={'failed': 'x'})
        teller.start()
        connection, _ = control.accept()
        with connection:
            assert json.loads(connection.recv(64)) == {'failed': 'x'}
            teller.join(0.3)
            assert teller.is_alive()
        teller.join(60)
        assert not teller.is_alive()


def test_programs_run_in_the_home_or_where_there_is_none(session, monkeypatch, tmp_path):
    one = session.Session(str(tmp_path), '640x480')
    for home, found in ((tmp_path, tmp_path), (tmp_path / 'none', '/')):
        monkeypatch.setenv('HOME', str(home))
        one.start('sh', '-c', 'pwd > "$0"', str(tmp_path / 'where'))
        assert one.programs[-1].wait() == 0 and (tmp_path / 'where').read_text() == '%s\n' % found


def test_the_key_to_a_display_is_for_that_display_and_new_each_time(session, tmp_path):
    keys = set()
    for _ in range(2):
        session.write_authority(str(tmp_path / 'key'), 12)
        data = (tmp_path / 'key').read_bytes()
        assert data.startswith(b'\xff\xff\0\0\0\x0212\0\x12MIT-MAGIC-COOKIE-1\0\x10') and len(data) == 46
        keys.add(data[-16:])
    assert len(keys) == 2 and stat.filemode((tmp_path / 'key').stat().st_mode) == '-rw-------'


def test_its_image_is_not_shared_whatever_the_user_says(monkeypatch):
    monkeypatch.setenv('EASYSIF_SHARE', 'node')
    one = server.Server('/tmp/x', '/nowhere', {}, None)
    with one.starter:
        assert one._environment()['EASYSIF_SHARE'] == 'none'


DESKTOP = {'display': 3, 'host': 'nid001000', 'directory': '/tmp/easysif-vnc-x', 'submit_host': None}


def test_the_line_for_ssh_names_node_and_login_host():
    ways = reach.ways(DESKTOP, 'me', '')
    forward = '-L 6083:/tmp/easysif-vnc-x/web -L 5903:/tmp/easysif-vnc-x/vnc'
    assert ways == {'tunnel': 'ssh -N %s me@nid001000' % forward, 'vnc_address': 'localhost:5903',
                    'address': 'http://localhost:6083/vnc.html?autoconnect=true&resize=scale',
                    'read_password': 'ssh me@nid001000 cat /tmp/easysif-vnc-x/password'}
    job = dict(DESKTOP, submit_host='uan01')
    assert reach.ways(job, 'me', '')['tunnel'] == 'ssh -N -J me@uan01 %s me@nid001000' % forward
    assert reach.ways(job, 'me', 'lumi.csc.fi')['tunnel'] == 'ssh -N -J me@lumi.csc.fi %s me@nid001000' % forward
    assert reach.ways(DESKTOP, 'me', 'nid001000')['tunnel'] == ways['tunnel']


@pytest.mark.parametrize('argv, said', [
    (['start-vnc', '--geometry', '10x10'], "argument --geometry: must be a size such as 1600x900, from 200x200 to "
     "16384x16384, not '10x10'"),
    (['start-vnc', '--geometry', 'large'], "must be a size such as 1600x900, from 200x200 to 16384x16384, not 'large'"),
    (['stop-vnc', ':x'], "argument display: must be a display such as :1, not ':x'\nhint: stop-vnc --help\n"),
    (['stop-vnc', '--al'], "error: stop-vnc: unrecognized arguments: --al\nhint: did you mean '--all'?\n")])
def test_what_cannot_be_understood_is_refused(argv, said, capsys):
    assert command.main(argv) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize('name', COMMANDS)
def test_help_ends_with_examples_that_are_understood(name, capsys):
    with pytest.raises(SystemExit):
        command.main([name, '--help'])
    told = capsys.readouterr().out.partition('\nexamples:\n')[2].splitlines()
    assert told and all(line.startswith('  # ') for line in told[::2])
    for line in told[1::2]:
        first, *words = line.split()
        assert first == name and command._parser(name).parse_args(words)


def test_where_no_directory_can_be_made_that_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(place, 'TOP', str(tmp_path / 'gone'))
    assert command.main(['start-vnc']) == 3
    assert capsys.readouterr().err == (
        'error: start-vnc: no directory can be made in %s (No such file or directory)\n'
        'hint: df -h %s; ls -ld %s\n' % ((tmp_path / 'gone',) * 3))


def test_where_the_directory_cannot_be_held_it_goes_again(monkeypatch, tmp_path, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')
    (tmp_path / 'top').mkdir()
    monkeypatch.setattr(place, 'TOP', str(tmp_path / 'top'))
    monkeypatch.setattr(os, 'fsync', full)
    assert command.main(['start-vnc']) == 1
    assert '/holder: cannot be written (No space left on device)\nhint: ' in capsys.readouterr().err
    assert list((tmp_path / 'top').iterdir()) == []


def test_a_terminal_has_the_module_system_although_sh_hands_no_functions_on(monkeypatch, tmp_path):
    (tmp_path / 'init').mkdir()
    monkeypatch.setenv('SHELL', '/bin/bash')
    monkeypatch.delenv('MODULESHOME', raising=False)
    assert terminals.shell() == ['/bin/bash']
    monkeypatch.setenv('MODULESHOME', str(tmp_path))
    assert terminals.shell() == ['/bin/bash']
    (tmp_path / 'init' / 'bash').write_text('module() { echo "$0 $1"; }; export -f module; false')
    assert subprocess.run(terminals.shell(), input='module load', text=True, stdout=subprocess.PIPE,
                          check=True).stdout == '/bin/bash load\n'
    monkeypatch.setenv('SHELL', '/bin/zsh')
    assert terminals.shell() == ['/bin/zsh']
