# SPDX-License-Identifier: GPL-2.0-only
"""runtime.py: which runtime is taken, what of the caller's shell it gets, and its command lines."""

import shutil
from types import SimpleNamespace

import pytest

from easysif import runtime
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.run import run

APPTAINER = runtime.Runtime('/opt/apptainer', 'apptainer', (1, 4, 5))


def find(setting='auto'):
    return runtime.find(SimpleNamespace(runtime=setting), 'jax-24.10.eb')


def program(directory, name, text):
    """Put a program on disk that prints a text whatever it is asked."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text('#!/bin/sh\necho "%s"\n' % text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize('said, name, version', [
    ('apptainer version 1.4.5', 'apptainer', (1, 4, 5)),
    ('apptainer version 1.3.0-1.el9', 'apptainer', (1, 3, 0)),
    ('singularity-ce version 4.1.3-dirty', 'singularity', (4, 1, 3)),
    ('singularity version 3.8.7-1.el8', 'singularity', (3, 8, 7)),
    ('singularity-ce version 4.2', 'singularity', (4, 2, 0)),
])
def test_a_runtime_says_itself_what_it_is(tmp_path, said, name, version):
    path = program(tmp_path / 'bin', 'singularity', said)
    assert find(str(path)) == runtime.Runtime(str(path), name, version)


def test_auto_prefers_apptainer_to_singularity(tmp_path, monkeypatch):
    program(tmp_path / 'bin', 'singularity', 'singularity-ce version 4.1.3')
    monkeypatch.setenv('PATH', '%s:/usr/bin:/bin' % (tmp_path / 'bin'))
    assert find().name == 'singularity'
    program(tmp_path / 'bin', 'apptainer', 'apptainer version 1.4.5')
    assert find().path == str(tmp_path / 'bin/apptainer')
    assert find('singularity').path == str(tmp_path / 'bin/singularity')


def test_a_path_stays_good_in_every_directory(tmp_path, monkeypatch):
    program(tmp_path / 'bin', 'apptainer', 'apptainer version 1.4.5')
    monkeypatch.setenv('PATH', 'bin:/usr/bin:/bin')
    assert find().path == str(tmp_path / 'bin/apptainer')


def test_the_real_runtime_is_found():
    found = find()
    assert found.path == (shutil.which('apptainer') or shutil.which('singularity'))
    assert found.version >= (1, 0, 0)


def test_no_runtime_on_path(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(EasySIFError) as err:
        find()
    assert str(err.value) == ('jax-24.10.eb: no container runtime: neither apptainer nor singularity is on PATH\n'
                              'hint: module load apptainer, or set runtime in your site file')
    assert err.value.exit_code == TOOL


def test_the_runtime_of_the_site_is_not_there(tmp_path, monkeypatch):
    program(tmp_path / 'bin', 'apptainer', 'apptainer version 1.4.5')
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    with pytest.raises(EasySIFError) as err:
        find('singularity')
    assert str(err.value) == ("jax-24.10.eb: no container runtime: 'singularity' is not on PATH\n"
                              '  also here  apptainer\n'
                              'hint: set runtime in your site file (auto takes what is on PATH)')
    with pytest.raises(EasySIFError) as err:
        find('/opt/none')
    assert "no container runtime: '/opt/none' is not an executable file" in str(err.value)
    assert err.value.exit_code == TOOL


def test_something_else_is_no_runtime(tmp_path):
    path = program(tmp_path / 'bin', 'true', '')
    with pytest.raises(EasySIFError) as err:
        find(str(path))
    assert str(err.value) == ("jax-24.10.eb: '%s' is no container runtime\n"
                              '  --version  (nothing)\n'
                              'hint: set runtime in your site file' % path)
    assert err.value.exit_code == INPUT


@pytest.mark.parametrize('name', [
    'APPTAINER_BIND', 'SINGULARITY_BINDPATH', 'APPTAINER_NV', 'SINGULARITYENV_PREPEND_PATH', 'APPTAINERENV_X',
    'PYTHONPATH', 'PYTHONHOME', 'PYTHONNOUSERSITE', 'LD_PRELOAD', 'LD_LIBRARY_PATH', 'VIRTUAL_ENV', 'CONDA_PREFIX',
    'WITH_CONDA', 'WITH_VENV', 'WITH_CONDA_VENV', 'BASH_ENV', 'ENV', 'BASH_FUNC_module%%'])
def test_what_modules_set_does_not_reach_the_runtime(monkeypatch, name):
    monkeypatch.setenv(name, 'from a module')
    assert name not in APPTAINER.environment()


@pytest.mark.parametrize('name', [
    'APPTAINER_DOCKER_USERNAME', 'SINGULARITY_DOCKER_PASSWORD', 'APPTAINER_USERNS', 'APPTAINER_CONFIGDIR',
    'SINGULARITY_CACHEDIR', 'APPTAINER_TMPDIR', 'PATH', 'HOME', 'https_proxy', 'PIP_INDEX_URL', 'ENVIRONMENT',
    'LD_PRELOADED', 'EB_PYTHON'])
def test_what_is_the_users_own_reaches_the_runtime(monkeypatch, name):
    monkeypatch.setenv(name, "the user's")
    assert APPTAINER.environment()[name] == "the user's"


def test_environment_adds_what_it_is_given():
    env = APPTAINER.environment({'APPTAINER_NOHTTPS': '1'}, {'X': 'a b'})
    assert (env['APPTAINER_NOHTTPS'], env['APPTAINERENV_X']) == ('1', 'a b')
    singularity = runtime.Runtime('/opt/singularity', 'singularity', (4, 1, 0))
    assert singularity.environment(inside={'X': 'a b'})['SINGULARITYENV_X'] == 'a b'


def test_exec_argv_is_a_plain_command_line(tmp_path):
    argv = APPTAINER.exec_argv('-x y.sif', ['ls', '-l', 'a b'], flags=['--cleanenv'], binds=[
        '/a:/b:image-src=/,ro', ('/c d', '/c'), ('/e', '/f', 'ro')])
    assert argv == ['/opt/apptainer', '--silent', 'exec', '--cleanenv', '--bind', '/a:/b:image-src=/,ro',
                    '--bind', '/c d:/c', '--bind', '/e:/f:ro', '%s/-x y.sif' % tmp_path, 'ls', '-l', 'a b']


@pytest.mark.parametrize('path', ['/a:b', '/a,b', '/a\nb'])
def test_a_path_that_binds_cannot_carry_is_refused(path):
    with pytest.raises(EasySIFError) as err:
        APPTAINER.exec_argv('x.sif', ['ls'], binds=[(path, '/inside')])
    assert str(err.value) == (
        path.replace('\n', '\\n') + ': cannot be seen inside a container: its path holds a colon, comma or newline\n'
        'hint: move it to a path without these characters')


@pytest.fixture(scope='module')
def sif(tmp_path_factory):
    """An image of a Debian busybox and nothing else, in a path that looks like much else (str)."""
    directory = tmp_path_factory.mktemp('image')
    root = directory / 'root/bin'
    root.mkdir(parents=True)
    shutil.copy(shutil.which('busybox'), root)
    (root / 'sh').symlink_to('busybox')
    path = str(directory / 'docker:it is, $x.sif')
    built = find()
    run([built.path, 'build', path, str(root.parent)], env=built.environment())
    return path


@pytest.mark.e2e
def test_a_command_runs_inside_with_values_as_they_are(sif, tmp_path, monkeypatch):
    monkeypatch.setenv('APPTAINER_BIND', '/is-not-there')
    monkeypatch.setenv('PYTHONPATH', '/from-a-module')
    value = '$(echo EVIL) `echo EVIL` "q" \\n\n$HOME'
    shared = tmp_path / 'with space $x'
    shared.mkdir()
    (shared / 'file').write_text('seen')
    found = find()
    result = run(found.exec_argv(sif, ['sh', '-c', 'printf "%s|" "$X" "${PYTHONPATH-}"; /bin/busybox cat /b/file'],
                                 binds=[(str(shared), '/b', 'ro')]), env=found.environment(inside={'X': value}))
    assert (result.stdout, result.stderr) == (value + '||seen', '')


@pytest.mark.e2e
def test_errors_of_the_runtime_stay_visible(sif):
    found = find()
    with pytest.raises(EasySIFError, match='last line  FATAL: .*nosuch'):
        run(found.exec_argv(sif, ['nosuch']), env=found.environment())
