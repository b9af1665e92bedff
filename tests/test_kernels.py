# SPDX-License-Identifier: GPL-2.0-only
"""easysif kernel: what it writes and removes, what its launcher hands on, and that nothing of a kernel is left."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core import paths

import harness
import toys
from easysif import layout
from easysif.data import helper
from easysif.running import jupyter
from made_up import PYTHON, MadeUp

pytestmark = pytest.mark.usefixtures('its_prefix')

#: a runtime that tells its arguments and variables, and what a container would answer to a question
RUNTIME = '''#!/bin/sh
case "$*" in *--check) exec cat "$HOME/../answer" ;; esac
printf '%s\\0' "$@" >"$HOME/../arguments"
exec env -0
'''
FOUND = {'python': '3.11.2', 'ipykernel': '7.4.0', 'place': '/user-software/venv/toy/lib/x/ipykernel/__init__.py',
         'error': None, 'debugger': True}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home (Path), in which Jupyter itself makes nothing."""
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    return Path(os.environ['HOME'])


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """A function that says what the module answers: a runtime that is none is on PATH."""
    runtime = tmp_path / 'runtime' / 'apptainer'
    runtime.parent.mkdir()
    runtime.write_text(RUNTIME)
    runtime.chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (runtime.parent, os.environ['PATH']))

    def write(**changes):
        (tmp_path / 'answer').write_text('noise\neasysif kernel %s\n' % json.dumps(dict(FOUND, **changes)))
    write()
    return write


@pytest.fixture
def toy(prefix, answer):
    """An installed module with an overlay (MadeUp)."""
    made = MadeUp(prefix, 'Toy/1+x', needs=('nvidia-gpu',))
    (made.overlay / 'user-software' / 'venv' / 'toy').mkdir(parents=True)
    return made


def kernels(home):
    """Return where kernels are put (Path)."""
    return home / '.local' / 'share' / 'jupyter' / 'kernels'


def error(easysif, *argv, code=1):
    """Run a command that must fail and return what it says (str)."""
    status, out, err = easysif('kernel', *argv)
    assert (status, out) == (code, '')
    return err


# --- what is written and removed ----------------------------------------------------------------------------------


def test_a_kernel_is_added_listed_and_removed_without_a_trace(easysif, home, toy):
    before = toys.snapshot(home)
    path = kernels(home) / 'toy-1-x'
    assert easysif('kernel', 'add', 'Toy') == (
        0, 'Toy/1+x: is now a kernel of Jupyter, "Toy/1+x"\n  directory  %s\n'
           '  runs       ipykernel 7.4.0 of the overlay, Python 3.11.2\n' % path, '')
    spec = KernelSpecManager().get_kernel_spec('toy-1-x')
    assert spec.argv == ['/bin/sh', str(path / 'launch'), str(toy.root), 'Toy/1+x', '-f', '{connection_file}']
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ('Toy/1+x', 'python', 'signal')
    assert spec.metadata['debugger'] is True and spec.env == {}
    assert {one: oct((path / one).stat().st_mode & 0o777) for one in ('.', 'launch', 'kernel.json')} == {
        '.': '0o700', 'launch': '0o600', 'kernel.json': '0o600'}
    code, out, err = easysif('kernel', 'list')
    assert (code, [line.split() for line in out.splitlines()], err) == (0, [
        ['kernel', 'state', 'module', 'shown', 'as', 'directory'],
        ['toy-1-x', 'fine', 'Toy/1+x', 'Toy/1+x', str(path)]], '')
    assert easysif('kernel', 'add', 'Toy', '--display-name', 'My "Töy"')[1].startswith(
        'Toy/1+x: is the same kernel of Jupyter, "My "Töy""\n')
    assert KernelSpecManager().get_kernel_spec('toy-1-x').display_name == 'My "Töy"'
    assert easysif('kernel', 'add', 'Toy', '--name', 'other')[0] == 0
    assert easysif('kernel', 'remove', 'Toy', '--name', 'toy-1-x') == (0, 'removed %s\n' % path, '')
    assert easysif('kernel', 'remove', 'Toy') == (0, 'removed %s/other\n' % kernels(home), '')
    assert toys.snapshot(home) == before
    assert easysif('kernel', 'list') == (0, 'no kernels; make one: easysif kernel add MODULE\n', '')


def test_it_says_as_json_what_it_did(easysif, home, toy):
    path = kernels(home) / 'k'
    told = {'name': 'k', 'directory': str(path), 'display_name': 'K', 'module': 'Toy/1+x', 'root': str(toy.root),
            'environment': {'A': 'b=c, $d %'}, 'problem': None}
    argv = ['kernel', 'add', 'Toy', '--name', 'k', '--display-name', 'K', '--env', 'A=b=c, $d %', '--json']
    found = {'python': '3.11.2', 'ipykernel': '7.4.0', 'from': 'overlay', 'debugger': True}
    assert json.loads(easysif(*argv)[1]) == {'kernel': told, 'replaced': False, 'found': found}
    assert json.loads(easysif(*argv)[1]) == {'kernel': told, 'replaced': True, 'found': found}
    assert json.loads(easysif('kernel', 'list', 'Toy', '--json')[1]) == {'kernels': [told]}
    assert json.loads(easysif('kernel', 'list', 'other', '--json')[1]) == {'kernels': []}
    (path / 'logo-64x64.png').write_text('mine')
    assert json.loads(easysif('kernel', 'remove', 'Toy', '--json')[1]) == {
        'removed': [told], 'kept': [str(path / 'logo-64x64.png')]}
    assert toys.files(kernels(home)) == {'k/logo-64x64.png'}


def test_what_is_not_ours_stays_and_is_named(easysif, home, toy):
    assert easysif('kernel', 'add', 'Toy', '--name', 'k')[0] == 0
    (kernels(home) / 'k' / 'logo.svg').write_text('mine')
    (kernels(home) / 'k' / '.launch.new-1').write_text('of an add that was killed')
    assert easysif('kernel', 'remove', 'Toy') == (
        0, 'removed %(k)s\nkept  %(k)s/logo.svg, which is not ours\n' % {'k': kernels(home) / 'k'}, '')
    foreign = kernels(home) / 'python3'
    foreign.mkdir()
    (foreign / 'kernel.json').write_text('{"argv": [], "display_name": "Python", "language": "python"}')
    before = toys.snapshot(home)
    assert error(easysif, 'add', 'Toy', '--name', 'python3') == (
        'error: %s: is there already, and not from easysif kernel\n'
        'hint: choose another name: --name python3-easysif\n' % foreign)
    assert error(easysif, 'remove', 'Toy') == (
        'error: Toy: has no kernel here\n  kernels  none\nhint: easysif kernel list\n')
    assert error(easysif, 'remove', 'Toy', '--name', 'python3').startswith('error: Toy: has no kernel python3 here\n')
    assert toys.snapshot(home) == before


def test_an_add_that_was_killed_is_finished_by_the_next_one(easysif, home, toy):
    (kernels(home) / 'toy-1-x').mkdir(parents=True)
    (kernels(home) / 'toy-1-x' / '.kernel.json.new-1').write_text('{')
    (kernels(home) / 'toy-1-x' / 'launch').write_text('half')
    assert easysif('kernel', 'list')[1].startswith('no kernels')
    assert easysif('kernel', 'add', 'Toy')[0] == 0
    assert (kernels(home) / 'toy-1-x' / 'launch').read_text() == Path(helper('kernel')).read_text()
    assert easysif('kernel', 'remove', 'Toy')[1].count('\n') == 1
    assert toys.files(home) == set()


def test_the_kernel_of_another_module_is_not_replaced(easysif, home, toy, prefix):
    other = MadeUp(prefix, 'toy/2')
    assert easysif('kernel', 'add', 'Toy/1+x', '--name', 'k')[0] == 0
    assert error(easysif, 'add', 'toy/2', '--name', 'k') == (
        'error: %s/k: is the kernel of another module\n  its module    Toy/1+x\n  installation  %s\n'
        'hint: choose another name with --name, or: easysif kernel remove Toy/1+x --name k\n' % (
            kernels(home), toy.root))
    place = prefix.parent / 'ju pyter'
    assert easysif('kernel', 'add', 'Toy/1+x', '--name', 'k', '--jupyter-prefix', str(place))[0] == 0
    assert error(easysif, 'add', 'toy/2', '--name', 'k', '--jupyter-prefix', str(place)).endswith(
        "easysif kernel remove Toy/1+x --name k --jupyter-prefix '%s'\n" % place)
    assert easysif('kernel', 'add', 'toy/2')[0] == 0
    other_prefix = MadeUp(prefix.parent / 'other', 'toy/2')
    assert easysif('kernel', 'add', 'toy/2', '--prefix', str(other_prefix.prefix), '--name', 'z')[0] == 0
    assert error(easysif, 'remove', 'toy/2') == (
        'error: toy/2: means several modules\n  toy-2  toy/2 in %s\n  z      toy/2 in %s\n'
        'hint: easysif kernel remove toy/2 --name toy-2\n' % (other.root, other_prefix.root))


def test_a_kernel_whose_module_is_gone_is_told_and_can_be_removed(easysif, home, toy):
    assert easysif('kernel', 'add', 'Toy')[0] == 0
    path = kernels(home) / 'toy-1-x'
    code, out, err = easysif('remove', 'Toy')
    assert (code, err) == (0, '') and out.endswith(
        'the kernel toy-1-x of Jupyter no longer starts; to remove it: easysif kernel remove Toy/1+x\n')
    code, out, _ = easysif('kernel', 'list')
    assert (code, out.splitlines()[1].split()[:3]) == (0, ['toy-1-x', 'broken', 'Toy/1+x'])
    assert out.splitlines()[2] == ('toy-1-x: its module is not installed any more; to remove it: '
                                   'easysif kernel remove Toy/1+x --name toy-1-x')
    started = harness.run(['/bin/sh', path / 'launch', toy.root, 'Toy/1+x', '-f', '/x/y'], check=False)
    assert (started.status, started.stdout, started.stderr) == (
        1, '', 'error: Toy/1+x: the module of this kernel is not installed any more\n  installation  %s\n'
               'hint: easysif kernel remove Toy/1+x\n' % toy.root)
    assert easysif('kernel', 'remove', 'Toy') == (0, 'removed %s\n' % path, '')


@pytest.mark.parametrize('gone, problem', [
    ('runscripts/lib/kernel.py', 'its module was installed anew by an EasySIF that does not know kernels'),
    (None, 'its launcher is gone')])
def test_a_kernel_that_is_not_whole_is_told(easysif, home, toy, gone, problem):
    assert easysif('kernel', 'add', 'Toy')[0] == 0
    (toy.root / gone if gone else kernels(home) / 'toy-1-x' / 'launch').unlink()
    assert json.loads(easysif('kernel', 'list', '--json')[1])['kernels'][0]['problem'] == problem


# --- where --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('variables', [{}, {'JUPYTER_DATA_DIR': '/data'}, {'XDG_DATA_HOME': '/xdg'},
                                       {'JUPYTER_PATH': '/one:/two', 'XDG_DATA_HOME': ''}])
def test_kernels_are_where_jupyter_itself_looks(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert jupyter.user_directory() == paths.jupyter_data_dir()
    ours, theirs = jupyter.directories(), paths.jupyter_path()
    assert [path for path in theirs if not path.startswith(sys.prefix)] == ours
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    assert set(paths.jupyter_path()) == set(jupyter.directories())


@pytest.mark.parametrize('option', ['--jupyter-prefix', '--sys-prefix'])
def test_kernels_for_all_users_of_a_jupyter_can_be_read_by_them(easysif, home, toy, tmp_path, monkeypatch, option):
    place = tmp_path / 'ju pyter'
    place.mkdir()
    monkeypatch.setenv('VIRTUAL_ENV', str(place))
    argv = [option, str(place)] if option == '--jupyter-prefix' else [option]
    before, umask = toys.snapshot(place), os.umask(0o077)
    try:
        assert easysif('kernel', 'add', 'Toy', *argv)[0] == 0
    finally:
        os.umask(umask)
    assert {mode for mode, _ in toys.snapshot(place).values()} == {'drwxr-xr-x', '-rw-r--r--'}
    assert toys.files(place) == {'share/jupyter/kernels/toy-1-x/' + one for one in ('launch', 'kernel.json')}
    assert toys.files(home) == set()
    assert 'toy-1-x' in easysif('kernel', 'list', *argv)[1] and 'toy-1-x' in easysif('kernel', 'list')[1]
    assert easysif('remove', 'Toy')[1].endswith(": easysif kernel remove Toy/1+x --jupyter-prefix '%s'\n" % place)
    assert easysif('kernel', 'list')[1].endswith(" --name toy-1-x --jupyter-prefix '%s'\n" % place)
    assert error(easysif, 'remove', 'Toy').startswith('error: Toy: has no kernel here\n')
    assert easysif('kernel', 'remove', 'Toy', *argv)[0] == 0
    assert toys.snapshot(place) == before


def test_without_an_active_environment_there_is_no_sys_prefix(easysif, toy, monkeypatch):
    for name in ('VIRTUAL_ENV', 'CONDA_PREFIX'):
        monkeypatch.delenv(name, raising=False)
    assert error(easysif, 'add', 'Toy', '--sys-prefix') == (
        'error: easysif kernel: no Python environment is active in this shell\n'
        '  looked at  VIRTUAL_ENV, CONDA_PREFIX\n'
        'hint: . DIR/bin/activate; or name what Jupyter is installed in: --jupyter-prefix DIR\n')


def test_where_nothing_can_be_written_it_is_said(easysif, home, toy, tmp_path):
    home.chmod(0o555)
    assert error(easysif, 'add', 'Toy') == (
        'error: %s: no kernel can be put here (Permission denied)\n'
        'hint: another place, for Jupyter as well: export JUPYTER_DATA_DIR=<a directory of yours>\n' % kernels(home))
    place = tmp_path / 'shared'
    place.mkdir()
    place.chmod(0o555)
    assert error(easysif, 'add', 'Toy', '--jupyter-prefix', str(place)) == (
        'error: %(p)s/share/jupyter/kernels: no kernel can be put here (Permission denied)\n'
        'hint: ls -ld -- %(p)s/share/jupyter; for you alone: without --jupyter-prefix and --sys-prefix\n' % {
            'p': place})
    home.chmod(0o755)
    assert easysif('kernel', 'add', 'Toy')[0] == 0
    (kernels(home) / 'toy-1-x').chmod(0o555)
    assert error(easysif, 'remove', 'Toy') == (
        'error: %(k)s: cannot be removed (Permission denied)\nhint: ls -la -- %(k)s\n' % {
            'k': kernels(home) / 'toy-1-x'})
    assert error(easysif, 'add', 'Toy', '--display-name', 'new').startswith(
        'error: %s/toy-1-x/kernel.json: cannot be written (Permission denied)\n' % kernels(home))
    (kernels(home) / 'toy-1-x').chmod(0o755)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name, near', [('a b', 'a-b'), ('Töy', 't-y'), ('../x', 'x'), ('', 'my-kernel'),
                                        ('..', 'my-kernel'), ('UP', 'up')])
def test_names_that_jupyter_does_not_take_are_refused(easysif, toy, home, name, near):
    assert error(easysif, 'add', 'Toy', '--name=' + name) == (
        'error: easysif kernel: Jupyter does not take this for the name of a kernel\n  name      %s\n'
        '  may hold  small letters, digits, and . _ -\nhint: --name %s\n' % (name, near))
    assert toys.snapshot(home) == {}


def test_paths_into_which_jupyter_would_put_something_are_refused(easysif, toy, monkeypatch, tmp_path):
    monkeypatch.setenv('JUPYTER_DATA_DIR', str(tmp_path / '{prefix}'))
    assert error(easysif, 'add', 'Toy') == (
        'error: %s/{prefix}/kernels/toy-1-x: Jupyter would replace a part of this path\n  part  {prefix}\n'
        'hint: another place, for Jupyter as well: export JUPYTER_DATA_DIR=<a directory of yours>\n' % tmp_path)
    assert error(easysif, 'add', 'Toy', '--jupyter-prefix', str(tmp_path / '{prefix}')).endswith(
        'hint: easysif kernel add Toy/1+x --jupyter-prefix DIR\n')
    monkeypatch.delenv('JUPYTER_DATA_DIR')
    odd = MadeUp(tmp_path / '{prefix}', 'odd/1')
    assert error(easysif, 'add', 'odd', '--prefix', str(odd.prefix)).endswith(
        'hint: eb --installpath=DIR RECIPE.eb; easysif kernel add odd/1 --prefix DIR\n')


@pytest.mark.parametrize('pair', ['A', '=x', '1A=x', 'A B=x'])
def test_variables_have_a_name_and_a_value(easysif, toy, pair):
    assert error(easysif, 'add', 'Toy', '--env', pair) == (
        'error: easysif kernel: --env wants NAME=VALUE\n  found  %s\nhint: --env OMP_NUM_THREADS=4\n' % pair)


def test_a_module_without_ipykernel_is_told_where_it_would_go(easysif, toy, answer, prefix):
    answer(ipykernel=None, place=None)
    begin = 'error: Toy/1+x: has no ipykernel, which runs the cells of a notebook\n  image    does not bring it\n'
    assert error(easysif, 'add', 'Toy') == begin + (
        '  overlay  %s\nhint: module load Toy/1+x && pip install ipykernel\n' % toy.overlay)
    shutil.rmtree(toy.overlay / 'user-software')
    toy.pack()
    assert error(easysif, 'add', 'Toy') == begin + (
        '  overlay  %s\nhint: easysif overlay unpack Toy/1+x && module load Toy/1+x && pip install ipykernel\n'
        % toy.overlay)
    tool = MadeUp(prefix, 'tool/2', python_env=None)
    tool.inside['python'] = PYTHON
    tool.record()
    assert error(easysif, 'add', 'tool').endswith(
        '  overlay  none\nhint: its recipe gives no python_env, so nothing can be added: easysif show tool/2\n')


def test_a_module_that_cannot_run_kernels_is_told(easysif, toy, answer, tmp_path):
    answer(error='No module named zmq')
    assert error(easysif, 'add', 'Toy', code=3) == (
        'error: Toy/1+x: ipykernel cannot be imported\n  error  No module named zmq\n'
        'hint: module load Toy/1+x && python -c "import ipykernel"\n')
    (tmp_path / 'answer').unlink()
    said = error(easysif, 'add', 'Toy', code=3)
    assert said.startswith('error: sh: what is inside cannot be found out\n  command    /bin/sh ')
    assert said.endswith('hint: easysif verify Toy/1+x\n')
    (toy.root / 'runscripts' / 'lib' / 'kernel.py').unlink()
    assert error(easysif, 'add', 'Toy') == (
        'error: Toy/1+x: was installed by an EasySIF that did not know kernels yet\n  installation  %s\n'
        'hint: easysif refresh Toy/1+x\n' % toy.root)
    for lacks, inside in (('shell', dict(toy.inside, shell=None)), ('Python', dict(toy.inside, python=None))):
        toy.record(inside=inside)
        assert error(easysif, 'add', 'Toy') == (
            'error: Toy/1+x: has no %s, and a kernel of Jupyter needs one\n  installation  %s\n'
            'hint: easysif show Toy/1+x\n' % (lacks, toy.root))


def test_the_prefix_in_a_hint_is_where_the_installation_is_whatever_directories_are_called(easysif, tmp_path):
    made = MadeUp(tmp_path / 'software' / 'p', 'toy/1')
    (made.root / 'runscripts' / 'lib' / 'kernel.py').unlink()
    root = made.prefix / 'apps' / 'toy' / '1'
    (made.prefix / 'software').rename(made.prefix / 'apps')
    layout.note(str(made.prefix), str(root), 'toy/1', str(made.modulefile))
    assert error(easysif, 'add', 'toy', '--prefix', str(made.prefix)).endswith(
        '  installation  %s\nhint: easysif refresh toy/1 --prefix %s\n' % (root, made.prefix))


# --- the launcher -------------------------------------------------------------------------------------------------


def launched(toy, directory, **variables):
    """Start the launcher and return what the runtime got: its variables (dict) and arguments (list of str)."""
    env = dict(os.environ, **variables)
    told = harness.run(['/bin/sh', helper('kernel'), toy.root, toy.name, '-f', '%s/kernel-1.json' % directory],
                       env=env).stdout
    argv = Path(env['HOME'], '..', 'arguments').read_text().split('\0')[:-1]
    return dict(pair.split('=', 1) for pair in told.split('\0') if pair), argv


def test_the_launcher_binds_the_connection_files_directory_and_passes_gpus_whatever_is_loaded(toy, tmp_path, home):
    directory = tmp_path / 'run time ünï $x'
    directory.mkdir()
    env, argv = launched(toy, directory, APPTAINER_BINDPATH='/opt', SINGULARITY_BINDPATH='/srv', VIRTUAL_ENV='/mine',
                         CONDA_PREFIX='/conda', CONDA_SHLVL='2', PYTHONPATH='/mine', root='exported', SIF='/other.sif')
    assert argv == ['--silent', 'exec', str(toy.sif), '/bin/sh', '/runscripts/conda-python-simple', '-B',
                    '/runscripts/lib/kernel.py', 'Toy/1+x', '-f', '%s/kernel-1.json' % directory]
    for name in ('APPTAINER_BINDPATH', 'SINGULARITY_BINDPATH'):
        binds = env[name].split(',')
        assert {'%s:%s' % (directory, directory), '/opt', '/srv'} <= set(binds)
        assert '%s/user-software:/user-software' % toy.overlay in binds
    assert (env['APPTAINER_NV'], env['SINGULARITY_NV'], env['root'], env['SIF']) == ('1', '1', 'exported', str(toy.sif))
    assert not {'VIRTUAL_ENV', 'CONDA_PREFIX', 'CONDA_SHLVL', 'PYTHONPATH'} & set(env)
    assert env['APPTAINERENV_VIRTUAL_ENV'] == '/user-software/venv/toy'
    shutil.rmtree(toy.overlay / 'user-software')
    assert launched(toy, directory)[1] == argv


@pytest.mark.parametrize('name', ['a:b', 'a,b', 'a\\b', 'a^b', 'a\nb'])
def test_a_directory_that_no_bind_can_carry_is_refused(toy, tmp_path, name):
    told = harness.run(['/bin/sh', helper('kernel'), toy.root, toy.name, '-f', tmp_path / name / 'k.json'], check=False)
    assert (told.status, told.stdout, told.stderr) == (
        1, '', 'error: Toy/1+x: no image can see the directory of the connection file\n  directory  %s\n'
               'hint: export JUPYTER_RUNTIME_DIR=<a directory without : , ^ and \\ in its path>, and start Jupyter '
               'again\n' % (tmp_path / name))


def test_the_same_launcher_serves_busybox(toy, tmp_path):
    told = harness.run(['busybox', 'sh', helper('kernel'), toy.root, toy.name, '-f', tmp_path / 'k.json'])
    assert 'APPTAINER_BINDPATH=' in told.stdout


#: stands for a container that is about to start: what serves its image is there, in a group of its own
STARTING = '''#!%s
import os
server = os.fork()
if not server:
    os.setpgid(0, 0)
    os.execvp('sleep', ['sleep', '1000'])
with open(os.environ['TOLD'] + '.new', 'w') as handle:
    handle.write(str(server))
os.rename(os.environ['TOLD'] + '.new', os.environ['TOLD'])
os.execvp('sleep', ['sleep', '1000'])
''' % sys.executable


def wait_until(condition):
    """Wait until a function returns something true."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, 'never true'
        time.sleep(0.02)


@pytest.mark.long
def test_what_serves_the_image_ends_with_a_launcher_that_is_killed_before_there_is_a_kernel(tmp_path):
    start, told = tmp_path / 'bin' / 'start-shell', tmp_path / 'told'
    start.parent.mkdir()
    start.write_text(STARTING)
    start.chmod(0o755)
    launcher = subprocess.Popen(['/bin/sh', helper('kernel'), tmp_path, 'toy/1', '-f', tmp_path / 'k.json'],
                                env=dict(os.environ, TOLD=str(told)), start_new_session=True)

    def left(*words):
        return [path for path in Path('/proc').glob('[0-9]*/cmdline') if command(path) in words]

    def command(path):
        try:
            return path.read_bytes()
        except OSError:
            return b''
    guard = b'\0'.join(os.fsencode(one) for one in (
        '/bin/sh', helper('kernel'), '--after', str(launcher.pid), began(launcher.pid), ''))
    wait_until(told.exists)
    wait_until(lambda: left(guard))
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not Path('/proc', told.read_text(), 'cmdline').exists() and not left(guard))


def began(process):
    """Return when a process began, as the kernel tells it (str)."""
    return Path('/proc/%d/stat' % process).read_text().rpartition(')')[2].split()[19]


def test_a_process_that_has_the_number_of_a_launcher_again_is_left_alone():
    other = subprocess.Popen(['sleep', '1000'], start_new_session=True)
    before = str(int(began(other.pid)) - 1)
    assert subprocess.call(['/bin/sh', helper('kernel'), '--after', str(other.pid), before], timeout=60) == 0
    assert other.poll() is None
    other.kill()
    other.wait()


# --- inside -------------------------------------------------------------------------------------------------------

#: stands for ipykernel: tells what it is, starts what would outlive it, and what comes to it
KERNEL = '''
import os, signal, subprocess, sys, time
def tell(*words):
    with open(os.environ['TOLD'], 'a') as handle:
        handle.write(' '.join(map(str, words)) + '\\n')
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: tell('got', signal.Signals(number).name))
subprocess.Popen(['sleep', '1000'], start_new_session=True)
subprocess.Popen(['sh', '-c', 'sleep 1000 & exec sleep 1000'])
tell('pid', os.getpid(), os.getpgid(0), os.environ['JPY_PARENT_PID'], os.getppid())
tell('env', os.environ.get('A'), os.environ.get('VIRTUAL_ENV'), 'EASYSIF_KERNEL_ENV' in os.environ, sys.argv[1:])
while not os.path.exists(os.environ['TOLD'] + '.end'):
    time.sleep(0.05)
if os.environ.get('HOW'):
    os.kill(os.getpid(), int(os.environ['HOW']))
sys.exit(7)
'''

#: stands for the container runtime: starts what serves the image, and the kernel, hands on signals
RUNTIME_PARENT = '''
import os, signal, subprocess, sys
server = subprocess.Popen([sys.argv[1], '1000'], start_new_session=True)
child = subprocess.Popen(sys.argv[2:])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, _: child.send_signal(number))
status = child.wait()
server.kill()
server.wait()
sys.exit(status)
'''


class Running:
    """A kernel without a container: ``runtime`` (Popen) and what it told.

    :param directory: for its files (Path)
    :param variables: its environment
    """

    def __init__(self, directory, **variables):
        self.told, self.mark = directory / 'told', 'KERNEL_MARK=%s' % directory
        (directory / 'lib').mkdir()
        (directory / 'lib' / 'ipykernel.py').write_text('')
        (directory / 'lib' / 'ipykernel_launcher.py').write_text(KERNEL)
        (directory / 'squashfuse_ll').symlink_to('/bin/sleep')
        (directory / 'connection.json').write_text('{}')
        env = dict(os.environ, PYTHONPATH=str(directory / 'lib'), TOLD=str(self.told), KERNEL_MARK=str(directory),
                   **variables)
        self.runtime = subprocess.Popen(
            [sys.executable, '-c', RUNTIME_PARENT, directory / 'squashfuse_ll', sys.executable,
             helper('runscripts/lib/kernel.py'), 'toy/1', '-f', directory / 'connection.json'],
            env=env, start_new_session=True, stdin=subprocess.DEVNULL)

    def wait_for(self, text):
        """Wait until it has told something, and return all that it told (str)."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if self.told.exists() and text in self.told.read_text():
                return self.told.read_text()
            time.sleep(0.02)
        raise AssertionError('never told %s' % text)

    def left(self):
        """Return the processes that are there (dict: int -> command)."""
        found = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                if self.mark.encode() in Path('/proc', pid, 'environ').read_bytes().split(b'\0'):
                    found[int(pid)] = Path('/proc', pid, 'cmdline').read_bytes().replace(b'\0', b' ').decode()
            except OSError:
                continue
        return found

    def wait_for_all(self):
        """Wait until all are there: runtime, server, ours, the kernel, and three that it started."""
        self.wait_for('env ')
        end = time.monotonic() + 60
        while len(self.left()) != 7:
            assert time.monotonic() < end, self.left()
            time.sleep(0.05)

    def wait_for_end(self):
        """Wait until nothing of it is left."""
        end = time.monotonic() + 60
        while self.left():
            assert time.monotonic() < end, self.left()
            time.sleep(0.05)


@contextmanager
def running(directory, **variables):
    """Run a kernel without a container in the block; what it would leave is ended (Running)."""
    one = Running(directory, **variables)
    try:
        one.wait_for_all()
        yield one
    finally:
        for pid in one.left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.runtime.wait()


def test_a_kernel_has_its_variables_its_parent_and_a_group_of_its_own(tmp_path):
    with running(tmp_path, EASYSIF_KERNEL_ENV='A=%24x%20y%2C%3D,VIRTUAL_ENV=/mine', JPY_PARENT_PID='1') as kernel:
        pid, group, told, parent = kernel.wait_for('env ').splitlines()[0].split()[1:]
        assert pid == group and told == parent
        assert kernel.told.read_text().splitlines()[1] == (
            "env $x y,= None False ['-f', '%s/connection.json']" % tmp_path)
        (tmp_path / 'told.end').touch()
        assert kernel.runtime.wait(60) == 7
        kernel.wait_for_end()


@pytest.mark.parametrize('to_group', [False, True])
def test_signals_reach_the_kernel_once(tmp_path, to_group):
    with running(tmp_path) as kernel:
        for name in ('SIGINT', 'SIGUSR1', 'SIGTERM'):
            (os.killpg if to_group else os.kill)(kernel.runtime.pid, getattr(signal, name))
            kernel.wait_for('got ' + name)
        assert re.findall('got (.*)', kernel.told.read_text()) == ['SIGINT', 'SIGUSR1', 'SIGTERM']


def test_a_kernel_that_dies_of_a_signal_takes_all_with_it(tmp_path):
    with running(tmp_path, HOW='9') as kernel:
        (tmp_path / 'told.end').touch()
        assert kernel.runtime.wait(60) == 128 + 9
        kernel.wait_for_end()


@pytest.mark.parametrize('to_group', [False, True])
def test_nothing_is_left_where_the_runtime_is_killed(tmp_path, to_group):
    with running(tmp_path) as kernel:
        (os.killpg if to_group else os.kill)(kernel.runtime.pid, signal.SIGKILL)
        kernel.runtime.wait()
        kernel.wait_for_end()
        assert 'got' not in kernel.told.read_text()


@pytest.mark.long
def test_nothing_is_left_where_jupyter_is_killed(tmp_path):
    script = 'import os, sys, time; sys.path[:0] = %r; from test_kernels import Running; from pathlib import Path\n' \
             'Running(Path(%r), JPY_PARENT_PID=str(os.getpid())); time.sleep(1000)' % (sys.path, str(tmp_path))
    with subprocess.Popen([sys.executable, '-c', script]) as server:
        one = Running.__new__(Running)
        one.told, one.mark = tmp_path / 'told', 'KERNEL_MARK=%s' % tmp_path
        try:
            one.wait_for_all()
        finally:
            server.kill()
            server.wait()
        one.wait_for_end()


def test_inside_it_is_said_what_is_missing(tmp_path):
    script = helper('runscripts/lib/kernel.py')
    told = harness.run(['/usr/bin/python3', '-I', '-S', script, 'toy/1', '--check'], check=False)
    assert told.status, 'it is not to be run without its directory'
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    python = ['/usr/bin/python3', '-S', script, 'toy/1']
    assert json.loads(harness.run([*python, '--check'], env=env).stdout[len('easysif kernel '):]) == dict(
        FOUND, python=harness.run(['/usr/bin/python3', '-V']).stdout.split()[1], ipykernel=None, place=None,
        debugger=False)
    told = harness.run([*python, '-f', '/nowhere'], env=env, check=False)
    assert (told.status, told.stderr) == (1, 'error: toy/1: has no ipykernel, neither in the image nor in the overlay\n'
                                             'hint: module load toy/1 && pip install ipykernel\n')
    (tmp_path / 'ipykernel.py').write_text('import missing_thing')
    told = json.loads(harness.run([*python, '--check'], env=env).stdout[len('easysif kernel '):])
    assert told['error'] == "No module named 'missing_thing'" and told['ipykernel'] is None
    told = harness.run([*python, '-f', '/nowhere/k'], env=env, check=False)
    assert (told.status, told.stderr) == (
        1, 'error: toy/1: the connection file cannot be seen inside the image\n  file  /nowhere/k\n'
           'hint: export JUPYTER_RUNTIME_DIR=<a directory in your home>, and start Jupyter again\n')
    (tmp_path / 'ipykernel.py').write_text('raise ValueError("no")')
    assert json.loads(harness.run([*python, '--check'], env=env).stdout[len('easysif kernel '):])[
        'error'] == 'ValueError: no'
    (tmp_path / 'ipykernel.py').write_text('__version__ = "9"')
    (tmp_path / 'debugpy.py').write_text('')
    found = json.loads(harness.run([*python, '--check'], env=env).stdout[len('easysif kernel '):])
    assert (found['ipykernel'], found['place'], found['debugger']) == ('9', str(tmp_path / 'ipykernel.py'), True)
