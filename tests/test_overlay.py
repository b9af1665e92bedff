# SPDX-License-Identifier: GPL-2.0-only
"""make-squashfs and unmake-squashfs as users call them: nothing is lost or left half done, and failure is loud."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest

import harness
import standins as library
from easysif import squashfs
from easysif.errors import EasySIFError
from easysif.overlay.place import Overlay
from easysif.resources import processors
from easysif.text import human
from packing import Commands, everything, tree
from test_run import assert_gone, descendants

pytest_plugins = ['standin_fixtures']
pytestmark = pytest.mark.long


@pytest.fixture
def overlay(tmp_path):
    """The two commands over an overlay: ``overlay('make-squashfs')``."""
    return Commands(tmp_path)


# --- the way it goes --------------------------------------------------------------------------------------------------

def test_whatever_an_overlay_holds_comes_back(overlay):
    everything(overlay.directory)
    overlay.directory.chmod(0o2770)  # as that of a group
    before = tree(overlay.directory)
    result = overlay('make-squashfs')
    size = human(overlay.squashfs.stat().st_size)
    assert result.output == ('packed into %s (%s)\nnow: module reload; the directory %s is no longer used '
                             'and may be removed\n' % (overlay.squashfs, size, overlay.directory))
    assert tree(overlay.directory) == before
    assert sorted(os.listdir(overlay.root)) == ['overlay.json', 'user-software', 'user-software.squashfs']
    record = json.loads(overlay.record.read_text())['squashfs']
    assert record['size'] == overlay.squashfs.stat().st_size
    digest = harness.run(['sha256sum'], stdin=overlay.squashfs.read_bytes()).stdout
    assert record['sha256'] == digest.split()[0]
    harness.run(['chmod', '-R', 'u+w', overlay.directory])
    harness.run(['rm', '-r', overlay.directory])
    result = overlay('unmake-squashfs')
    assert result.output == ('unpacked; the squashfs file is kept as %s.1\n'
                             'now: module reload; pip install works again\n' % overlay.squashfs)
    assert tree(overlay.directory) == before and overlay.directory.stat().st_mode & 0o7777 == 0o2770
    assert (overlay.directory / 'hard link').stat().st_nlink == 2
    assert (overlay.directory / 'sparse').stat().st_blocks < 1000
    assert sorted(os.listdir(overlay.root)) == ['overlay.json', 'user-software', 'user-software.squashfs.1']


@pytest.mark.parametrize('fractions', [None, 7, 'no base64!', 'eJw=', 'eJwDAAAAAAE=', [[99, 1]], [[0, 1 << 99]]])
def test_without_a_sound_record_of_fractions_times_come_back_in_whole_seconds(overlay, fractions):
    file = overlay.directory / 'venv' / 'jax' / 'a file'
    os.utime(file, ns=(10 ** 18 + 5, 10 ** 18 + 5))
    overlay('make-squashfs')
    record = json.loads(overlay.record.read_text())
    record['squashfs']['times' if isinstance(fractions, list) else 'fractions'] = fractions
    overlay.record.write_text(json.dumps(record))
    harness.run(['rm', '-r', overlay.directory])
    overlay('unmake-squashfs')
    assert file.stat().st_mtime_ns == 10 ** 18


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"new": 1}', '{"new": "a", "old": "b", "aside": "c"}'])
def test_what_is_to_be_done_and_makes_no_sense_is_told(overlay, text):
    path = overlay.root / 'environment.json'
    path.write_text(text)
    result = overlay('make-squashfs', check=False)
    assert (result.status, result.output) == (
        1, 'error: {0}: does not say which environment is to be put where\n'
           'hint: look at what is beside it, then: mv -- {1} {2}\n'.format(
               path, *(shlex.quote(str(path) + end) for end in ('', '.damaged'))))
    assert sorted(os.listdir(overlay.root)) == ['environment.json', 'user-software']


def test_it_is_packed_with_all_processors_and_as_the_site_says(overlay):
    """Defect 12 of the peers: one processor, the slow default, and a recovery file in the home directory."""
    overlay.stand_in('mksquashfs', 'printf "%s\\n" "$@" >"$HOME/args"; exec "$REAL" "$@"')
    overlay.fake.site(squashfs={'compressor': 'gzip', 'level': 4, 'block': '64K'})
    overlay('make-squashfs')
    with open(os.path.join(overlay.env['HOME'], 'args')) as handle:
        said = ' '.join(handle.read().split('\n'))
    for words in ('-comp gzip -Xcompression-level 4 -b 64K ', '-processors %d ' % processors(),
                  '-noappend -no-recovery -no-progress -comp'):
        assert words in said
    listed = harness.run(['unsquashfs', '-s', overlay.squashfs]).stdout
    assert 'Compression gzip' in listed and 'Block size 65536' in listed
    assert os.listdir(overlay.env['HOME']) == ['args']


def test_the_cache_of_uv_is_not_packed_and_other_hidden_files_are(overlay):
    cache = overlay.directory / '.cache' / 'uv'
    (cache / 'archive').mkdir(parents=True)
    (cache / 'archive' / 'file').write_text('of a package')
    (overlay.directory / '.cache' / 'mine').write_text('mine')
    overlay('make-squashfs')
    assert 'uv/archive/file' in harness.run(['unsquashfs', '-l', overlay.squashfs]).stdout  # anybody's directory
    overlay('unmake-squashfs')
    (cache / 'CACHEDIR.TAG').write_text('Signature: 8a477f597d28d172789f06886806bc55')
    link = overlay.directory / 'venv' / 'link'
    for target in ('/user-software/.cache/uv/archive/file', '../.cache/uv/archive', cache):  # nothing is to dangle
        link.symlink_to(target)
        overlay('make-squashfs')
        assert 'uv/archive/file' in harness.run(['unsquashfs', '-l', overlay.squashfs]).stdout
        overlay('unmake-squashfs')
        link.unlink()
    link.symlink_to('/user-software/.cache')
    overlay('make-squashfs', '--remove')
    listed = harness.run(['unsquashfs', '-l', overlay.squashfs]).stdout
    assert '.cache/mine' in listed and '/uv' not in listed and not overlay.directory.exists()
    overlay('unmake-squashfs')
    assert os.listdir(overlay.directory / '.cache') == ['mine']


def test_a_quiet_mksquashfs_is_a_success(overlay):
    """Defect 1 of the peers: no output was a failure."""
    overlay.stand_in('mksquashfs', 'exec "$REAL" "$@" >/dev/null 2>&1')
    overlay('make-squashfs')
    assert squashfs.problem(str(overlay.squashfs)) is None


def test_options_are_known_by_their_help_only(overlay):
    assert 'usage: make-squashfs' in overlay('make-squashfs', '--help').stdout
    result = overlay('unmake-squashfs', '--replac', check=False)
    assert (result.status, result.output) == (
        2, "error: unmake-squashfs: unrecognized arguments: --replac\nhint: did you mean '--replace'?\n")


# --- which Python -----------------------------------------------------------------------------------------------------

def test_it_needs_no_python_on_path(overlay, tmp_path):
    few = tmp_path / 'few'
    few.mkdir()
    for name in ('mksquashfs', 'unsquashfs', 'sync'):
        (few / name).symlink_to('/usr/bin/' + name)
    overlay('make-squashfs', PATH=str(few))


def test_a_python_that_is_a_wrapper_of_ours_is_not_used(overlay):
    (overlay.fake.root / 'bin' / 'python3').symlink_to('../easysif/wrapper')
    overlay('make-squashfs', EB_PYTHON='python3', PATH='%s:%s' % (overlay.fake.root / 'bin', harness.SYSTEM_PATH))


@pytest.mark.parametrize('wrong', ['/nonexistent/python', '/bin/false'])
def test_a_python_that_does_not_work_is_passed_over(overlay, wrong):
    overlay('make-squashfs', EB_PYTHON=wrong)


def test_files_and_variables_of_the_user_do_not_disturb_it(overlay, tmp_path):
    work = tmp_path / 'work'
    (work / 'easysif').mkdir(parents=True)
    for name in ('json.py', 'argparse.py', 'easysif/__init__.py'):
        (work / name).write_text('raise SystemExit("wrong module")\n')
    env = dict(overlay.env, PYTHONPATH=str(work), PYTHONHOME='/nonexistent', PYTHONSTARTUP=str(work / 'json.py'))
    harness.run([overlay.fake.root / 'bin' / 'make-squashfs'], env=env, cwd=work)


def test_it_leaves_nothing_in_the_installation(overlay):
    before = tree(overlay.fake.root)
    overlay('make-squashfs')
    overlay('unmake-squashfs')
    assert tree(overlay.fake.root) == before


# --- nothing to do ----------------------------------------------------------------------------------------------------

def test_there_is_nothing_to_pack(overlay):
    harness.run(['rm', '-r', overlay.directory / 'venv'])
    overlay.fails('make-squashfs', 1, 'make-squashfs: there is nothing to pack', 'hint: pip install a package first')
    overlay.directory.rmdir()
    overlay.directory.with_name('user-software').write_text('a file')
    overlay.fails('make-squashfs', 1, 'there is nothing to pack')


def test_it_is_packed_already(overlay):
    overlay('make-squashfs')
    overlay.fails('make-squashfs', 1, 'make-squashfs: the overlay of jax/24.10 is packed already',
                  'hint: unmake-squashfs && module reload, then add packages, then make-squashfs')


def test_a_damaged_file_in_the_way_is_said_to_be_damaged(overlay):
    overlay.squashfs.write_bytes(b'hsqs')
    for command in ('make-squashfs', 'unmake-squashfs'):
        result = overlay(command, check=False)
        words = [shlex.quote('%s%s' % (overlay.squashfs, end)) for end in ('', '.damaged')]
        assert result.status == 1 and result.stderr == (
            'error: %s: the squashfs file is damaged: it is no squashfs file\n  file  %s\nhint: mv -- %s %s\n' % (
                command, overlay.squashfs, *words))


def test_a_packed_file_that_is_cut_off_is_not_unpacked(overlay):
    overlay('make-squashfs')
    used = int.from_bytes(overlay.squashfs.read_bytes()[40:48], 'little')
    os.truncate(overlay.squashfs, used - 1)
    result = overlay('unmake-squashfs', check=False)
    assert result.status == 1 and 'the squashfs file is damaged: it is cut off: ' in result.stderr
    assert overlay.squashfs.exists() and overlay.directory.exists()


def test_it_is_not_packed(overlay):
    overlay.fails('unmake-squashfs', 1, 'unmake-squashfs: the overlay of jax/24.10 is not packed',
                  'hint: pip install works as it is')


def test_a_directory_that_is_the_same_stays(overlay):
    overlay('make-squashfs')
    before = tree(overlay.directory)
    overlay('unmake-squashfs')
    assert tree(overlay.directory) == before and not overlay.squashfs.exists()


@pytest.mark.parametrize('change', ['added', 'changed', 'removed', 'record'])
def test_a_directory_that_differs_is_not_touched(overlay, change):
    overlay('make-squashfs')
    file = overlay.directory / 'venv' / 'jax' / 'a file'
    {'added': lambda: file.with_name('new').write_text('x'), 'changed': lambda: file.write_text('more content'),
     'removed': file.unlink, 'record': lambda: overlay.record.write_text('{')}[change]()
    overlay.fails('unmake-squashfs', 1, 'unmake-squashfs: a directory is there that may differ from the squashfs file',
                  '  directory  %s\n  squashfs   %s\n' % (overlay.directory, overlay.squashfs),
                  'hint: unmake-squashfs --use-directory keeps the directory, unmake-squashfs --replace unpacks the '
                  'squashfs; what is not used is kept as a squashfs file')


def test_an_overlay_that_may_not_be_written_is_said(overlay, monkeypatch):
    overlay.root.chmod(0o555)
    try:
        overlay.fails('make-squashfs', 1, 'make-squashfs: the overlay may not be written\n  directory  %s\n'
                      'hint: chmod u+w -- %s\n' % (overlay.root, shlex.quote(str(overlay.root))))
        monkeypatch.setattr(os, 'geteuid', lambda: 4294967000)
        with pytest.raises(EasySIFError) as caught, Overlay(str(overlay.root), 'jax/24.10', 'make-squashfs').alone():
            pass
    finally:
        overlay.root.chmod(0o755)
    assert str(caught.value) == ('make-squashfs: the overlay belongs to somebody else\n  directory  %s\nhint: export '
                                 'EASYSIF_OVERLAYS=<a directory of yours> && module reload' % overlay.root)


# --- mksquashfs that fails --------------------------------------------------------------------------------------------

FAILURES = {  # defect 1 of the peers: all of these were a success, with the advice to remove the directory
    'fails': ('echo "FATAL ERROR: no space" >&2; exit 1', 'exit code  1'),
    'is killed': ('kill -9 $$', 'exit code  killed by SIGKILL'),
    'is killed half way': ('head -c 5000 /dev/zero >"$2"; kill -15 $$', 'exit code  killed by SIGTERM'),
    'writes nothing': ('exit 0', 'mksquashfs left no whole file (No such file or directory); nothing was changed'),
    'writes half': ('"$REAL" "$@" >/dev/null; truncate -s 300 "$2"',
                    'mksquashfs left no whole file (it is cut off: 300 of '),
    'writes something else': ('head -c 5000 /dev/zero >"$2"', 'mksquashfs left no whole file (it is no squashfs file)'),
    'leaves a file out': ('"$REAL" "$@" -e "venv/jax/a file" >/dev/null',
                          '1 files are not in the squashfs as they are'),
    'writes an empty file': ('cp -a "$1" "$HOME/copy"; : >"$HOME/copy/venv/jax/a file"; shift; '
                             '"$REAL" "$HOME/copy" "$@" >/dev/null', '1 files are not in the squashfs as they are'),
}


@pytest.mark.parametrize('what', FAILURES)
def test_a_mksquashfs_that_fails_changes_nothing(overlay, what):
    script, said = FAILURES[what]
    overlay.stand_in('mksquashfs', script)
    result = overlay.fails('make-squashfs', 3, 'make-squashfs: ', said)
    assert 'hint: ' in result.stderr
    assert os.listdir(overlay.root) == ['user-software']


def test_a_full_disk_changes_nothing(overlay):
    (overlay.directory / 'big').write_bytes(os.urandom(3 << 20))
    argv = ['bash', '-c', 'ulimit -f 1000; exec "$0"', overlay.fake.root / 'bin' / 'make-squashfs']
    result = harness.run(argv, env=overlay.env, check=False)
    assert result.status == 3 and os.listdir(overlay.root) == ['user-software']
    assert 'make-squashfs: mksquashfs failed; nothing was changed' in result.stderr and 'ulimit -f' in result.stderr
    overlay('make-squashfs')
    harness.run(['rm', '-r', overlay.directory])
    argv[-1] = overlay.fake.root / 'bin' / 'unmake-squashfs'
    result = harness.run(argv, env=overlay.env, check=False)
    assert result.status == 3 and sorted(os.listdir(overlay.root)) == ['overlay.json', 'user-software.squashfs']


def test_without_mksquashfs_it_says_so(overlay, tmp_path):
    (tmp_path / 'empty').mkdir()
    overlay.fails('make-squashfs', 3, 'make-squashfs: mksquashfs is not on PATH',
                  'hint: ask for the package squashfs-tools, or try on another node', PATH=str(tmp_path / 'empty'))


@pytest.mark.parametrize('kind', ['file', 'directory'])
def test_what_cannot_be_read_is_named(overlay, kind):
    path = overlay.directory / "it's"
    path.mkdir() if kind == 'directory' else path.write_text('x')
    path.chmod(0)
    try:
        overlay.fails('make-squashfs', 1, 'make-squashfs: a file of the overlay cannot be read (Permission denied)',
                      '  file  %s' % path, 'hint: chmod %s -- %s' % (
                          'u+rx' if kind == 'directory' else 'u+r', shlex.quote(str(path))))
    finally:
        path.chmod(0o755)


@pytest.mark.parametrize('change', ['echo more >>"$1/venv/jax/a file"', ': >"$1/new"', 'rm "$1/venv/jax/a file"',
                                    'sleep 0.01; echo CONTENT | tr -d "\\n" >"$1/venv/jax/a file"'])
def test_a_file_that_changes_meanwhile_is_noticed(overlay, change):
    """The last one has the same length, within the same second."""
    overlay.stand_in('mksquashfs', '"$REAL" "$@" >/dev/null; %s' % change)
    result = overlay('make-squashfs', check=False)
    assert result.status == 1 and os.listdir(overlay.root) == ['user-software']
    assert 'error: make-squashfs: the directory changed while it was packed\n' in result.stderr
    assert 'hint: wait for pip to end, then: make-squashfs' in result.stderr


def test_an_unsquashfs_that_fails_changes_nothing(overlay):
    """Defect 14 of the peers: it was unpacked in place, and what was left half done blocked the next try."""
    overlay('make-squashfs')
    harness.run(['rm', '-r', overlay.directory])
    overlay.stand_in('unsquashfs', '"$REAL" "$@" >/dev/null; exit 1')
    overlay.fails('unmake-squashfs', 3, 'unmake-squashfs: unsquashfs failed; nothing was changed')
    overlay.stand_in('unsquashfs', 'case $* in *-ll*) exec "$REAL" "$@" ;; esac\n'
                                   '"$REAL" "$@" >/dev/null; while [ "$1" != -d ]; do shift; done; '
                                   ': >"$2/venv/jax/a file"')
    overlay.fails('unmake-squashfs', 1, '1 files were not unpacked as they are', '  first  venv/jax/a file')


# --- two at once, and what the dead leave -----------------------------------------------------------------------------

SLOW = 'touch "$HOME/started"; "$REAL" "$@" >/dev/null; until [ -e "$HOME/may-end" ]; do sleep 0.05; done'


def started(overlay):
    """Start a make-squashfs that does not end before it may and return the process."""
    overlay.stand_in('mksquashfs', SLOW)
    process = subprocess.Popen([overlay.fake.root / 'bin' / 'make-squashfs'], env=overlay.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not os.path.exists(os.path.join(overlay.env['HOME'], 'started')):
        assert process.poll() is None
        time.sleep(0.02)
    os.unlink(os.path.join(overlay.env['HOME'], 'started'))
    return process


def let_it_end(overlay):
    open(os.path.join(overlay.env['HOME'], 'may-end'), 'w').close()


def test_of_two_at_once_one_packs_and_the_other_says_who_does(overlay):
    """Defect 11 of the peers: both wrote the same file."""
    process = started(overlay)
    for command in ('make-squashfs', 'unmake-squashfs'):
        result = overlay(command, check=False)
        assert result.status == 1 and 'error: %s: another process is at work here\n' % command in result.stderr
        assert re.search(r'^  holder  process %d of .* on %s \(make-squashfs\), since ....-..-.. ..:..:..$'
                         % (process.pid, re.escape(socket.gethostname())), result.stderr, re.M)
    let_it_end(overlay)
    assert process.wait(timeout=300) == 0 and not overlay.lock.exists()
    assert squashfs.problem(str(overlay.squashfs)) is None


@pytest.mark.parametrize('number, status', [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_one_that_is_told_to_end_leaves_nothing(overlay, number, status):
    process = started(overlay)
    below = descendants(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status and b'Traceback' not in said
    assert os.listdir(overlay.root) == ['user-software']
    assert [line for line in below.values() if 'mksquashfs' in line]
    assert_gone(below)


def test_after_one_that_was_killed_the_next_goes_on(overlay):
    process = started(overlay)
    below = descendants(process.pid)
    while squashfs.problem(str(overlay.root / ('user-software.squashfs.easysif-new-%d' % process.pid))):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert_gone(below)
    assert {'.pack.lock', 'user-software.squashfs.easysif-new-%d' % process.pid} <= set(os.listdir(overlay.root))
    (overlay.root / 'user-software.easysif-new-1' / 'half').mkdir(parents=True)
    (overlay.root / 'user-software.easysif-new-1' / 'half').chmod(0o555)
    let_it_end(overlay)
    said = overlay('make-squashfs').stderr
    assert said.startswith('make-squashfs: took over the lock of process %d of ' % process.pid) and 'dead' in said
    assert sorted(os.listdir(overlay.root)) == ['overlay.json', 'user-software', 'user-software.squashfs']


# --- cost -------------------------------------------------------------------------------------------------------------

def test_packing_needs_little_memory(overlay):
    for number in range(40):
        (overlay.directory / str(number)).write_bytes(os.urandom(1 << 20) * 4)
    code = ('import resource, subprocess, sys\nsubprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n'
            'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)')
    command = overlay.fake.root / 'bin' / 'make-squashfs'
    used = harness.run([sys.executable, '-c', code, command], env=overlay.env).stdout
    assert int(used) / 1024 < 300


# --- with real images -------------------------------------------------------------------------------------------------

@pytest.mark.e2e
def test_a_day_with_an_overlay(standin, tmp_path):
    """Section 1 of the design: pip install, make-squashfs && module reload, and writable again."""
    module = standin('jax')
    wheels = [library.package(tmp_path, 'small', str(number)) for number in (1, 2)]
    script = '''
        seen() { python -c 'import small, sys; print(small.__version__, sys.executable)'; }
        pip install --quiet --no-index "%s"; seen
        make-squashfs >"$HOME/said" && module reload; seen
        rm -r "$USER_SOFTWARE"; module reload; seen
        list-packages small
        unmake-squashfs >"$HOME/said" && module reload; seen
        pip install --quiet --no-index --upgrade "%s"; seen
        make-squashfs >"$HOME/said" && module reload; seen
        ls "$CONTAINERROOT"
    ''' % tuple(wheels)
    result = module.shell('mkdir -p "$HOME"' + script)
    python = '/user-software/venv/jax/bin/python'
    assert result.stdout.split('\n') == [
        *['1 ' + python] * 3, 'Package  Version  From', 'small    1        overlay', '1 ' + python,
        *['2 ' + python] * 2, 'jax.sif', 'made-for', 'overlay.json', 'runscripts', 'user-software',
        'user-software.squashfs', 'user-software.squashfs.1', '']
    assert result.stderr == ''  # defect 15 of the peers: a warning at each command, as it was not bound read-only


@pytest.mark.e2e
def test_a_damaged_squashfs_is_said_and_the_directory_serves(standin, tmp_path):
    """Defect 3 of the peers: every command in the container failed."""
    module = standin('jax')
    module.run('pip', 'install', '--quiet', '--no-index', library.package(tmp_path, 'small', '1'))
    module.run('make-squashfs')
    os.truncate(module.overlay / 'user-software.squashfs', 200)
    result = module.run('python', '-c', 'import small; print(small.__version__)')
    assert result.stdout == '1\n' and 'warning: jax/1: user-software.squashfs is damaged and not used' in result.stderr
    loaded = module.shell('python -c "import small; print(small.__version__)"')
    assert loaded.stdout == '1\n' and 'user-software.squashfs is damaged and not used' in loaded.stderr


@pytest.mark.e2e
def test_an_image_that_vanishes_leaves_nothing_set(standin, images, tmp_path):
    """Defect 35 of the peers: SIF stayed set where the image had gone before the module was unloaded."""
    module = library.install(images.sif('busybox'), 'busybox', tmp_path / 'own')
    result = module.shell('rm -f "$SIF"; module unload %s; '
                          'echo "<${SIF-}${SIFBUSYBOX-}${APPTAINER_BINDPATH-}>"' % module.name)
    assert result.output == '<>\n'


@pytest.mark.e2e
def test_a_container_that_may_write_to_the_overlay_is_in_the_way(standin):
    """One that has the squashfs is not, and neither is that from which packages are compiled before packing."""
    module = standin('jax')
    module.run('python', '-c', '')  # makes the virtual environment
    source = module.overlay / 'user-software' / 'venv' / 'jax' / 'lib' / 'python3.11' / 'site-packages' / 'mine.py'
    source.write_text('x = 1')
    sleep = [module.bin / 'python', '-c', 'import time; print("in", flush=True); time.sleep(600)']
    processes = []
    try:
        for number in range(2):
            processes.append(subprocess.Popen(sleep, env=module.env(), stdout=subprocess.PIPE))
            processes[-1].stdout.readline()
            if number == 0:
                result = module.run('make-squashfs', check=False)
                assert result.status == 1 and result.stderr.startswith('error: make-squashfs: 1 process may write to')
                assert '/python -c im' in result.stderr and ' (in a container)\n' in result.stderr
                module.run('make-squashfs', '--force')
                processes[0].kill()
                processes[0].wait()
        assert source.with_name('__pycache__').is_dir()
        module.run('unmake-squashfs')
        module.run('make-squashfs', '--remove')
    finally:
        for process in processes:
            process.kill()
            process.communicate()
