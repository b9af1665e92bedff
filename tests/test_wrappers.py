# SPDX-License-Identifier: GPL-2.0-only
"""Wrappers: what they hand on to the command inside the image, from wherever they are called.

Without images a stand-in for the runtime prints what it was called with; the rest runs real Apptainer.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess

import pytest

import harness
import standins as library
from easysif.module import Command
from fakes import Fake, squashfs, users

pytest_plugins = ['standin_fixtures']

ARGUMENTS = ['', ' ', 'two words', 'new\nline\n', "it's", 'q"q', '*', '?', '[a]', '$(id)', '`id`', '$HOME', '${x:-y}',
             'back\\slash', '\\n', '-n', '--', '-c', '--nv', 'ünï 容器', 'tab\there', '#no', '~', '!x', '%s', 'a=b', ';',
             '&', '|', '>x', b'\xff\xfe'.decode('utf-8', 'surrogateescape')]

RUNTIME = '''#!/bin/sh
printf '%s\\0' "$$" "$@"
exec cat
'''


# --- without images -----------------------------------------------------------------------------------------------

@pytest.fixture
def fake(tmp_path):
    """An installation without a container, whose wrappers are called in every way."""
    return make(tmp_path, 'pre fix $(id)\'"')


@pytest.fixture
def runtime(tmp_path):
    """A directory with an `apptainer` that prints its process id and arguments, then its standard input."""
    path = tmp_path / 'runtime' / 'apptainer'
    path.parent.mkdir()
    path.write_text(RUNTIME)
    path.chmod(0o755)
    return path.parent


def make(tmp_path, prefix, **changes):
    changes.setdefault('commands', {'python': Command(('python',)), 'two': Command(('first', "sec'ond")),
                                    'tool': Command(('tool',), '/usr/bin/tool')})
    fake = Fake(tmp_path / prefix, **changes)
    (fake.root / 'bin').mkdir()
    for name in [*fake.inst.commands, 'start-shell', 'list-packages', 'make-squashfs', 'unmake-squashfs']:
        (fake.root / 'bin' / name).symlink_to('../easysif/wrapper')
    (fake.overlay / 'user-software' / 'venv' / 'jax').mkdir(parents=True)
    return fake


def environment(tmp_path, runtime=None, **changes):
    env = {'HOME': str(tmp_path / 'home'), 'PATH': harness.SYSTEM_PATH, 'LANG': 'C.UTF-8'}
    if runtime:
        env['PATH'] = '%s:%s' % (runtime, env['PATH'])
    env.update(changes)
    return {name: str(value) for name, value in env.items() if value is not None}


def arguments(result):
    """Return the arguments that the runtime got, without its own first ones (list of str)."""
    return result.stdout.split('\0')[1:-1]


SHELLS = {'as it is': [], 'dash': ['dash'], 'bash': ['bash', '--posix'], 'busybox': ['busybox', 'sh']}


@pytest.mark.parametrize('shell', SHELLS)
def test_arguments_pass_byte_for_byte_in_every_shell(fake, runtime, tmp_path, shell):
    out = subprocess.run([*SHELLS[shell], str(fake.root / 'bin' / 'python'), *ARGUMENTS], check=True,
                         env=environment(tmp_path, runtime), stdin=subprocess.DEVNULL, capture_output=True)
    got = os.fsdecode(out.stdout).split('\0')[1:-1]
    assert got == ['--silent', 'exec', str(fake.sif), 'python', *ARGUMENTS] and out.stderr == b''


@pytest.mark.parametrize('shell', SHELLS)
def test_what_a_wrapper_sets_is_the_same_in_every_shell(fake, tmp_path, shell):
    (tmp_path / 'd').mkdir()
    fake.site(binds=('%s/d' % tmp_path, '%s/d:/e:ro' % tmp_path), container_env={'A': 'x;y%3B'}, overlays='/o/$USER/$X')
    env = environment(tmp_path, USER='u', X='y', SINGULARITY_BINDPATH='/opt:/x:ro,/u.squashfs:/data:image-src=/,ro')
    results = [harness.run([*command, fake.root / 'easysif' / 'wrapper', 'print-environment'], env=env).stdout
               for command in (SHELLS[shell], ['dash'])]
    first, second = ([line for line in text.splitlines() if not line.startswith(('_=', 'PWD=', 'OLDPWD=', 'SHLVL='))]
                     for text in results)
    assert sorted(first) == sorted(second)


def test_what_is_for_software_of_the_host_stays_there(fake, tmp_path):
    names = ('LD_PRELOAD', 'LD_AUDIT', 'PYTHONPATH', 'PYTHONHOME', 'XALT_DIR', 'XALT_EXECUTABLE_TRACKING')
    env, said = fake.by_wrapper(tmp_path, dict.fromkeys(names, ''))
    assert said == '' and not set(names) & set(env)
    env, _ = fake.by_wrapper(tmp_path, {'XALT_DIR': "x y'$(id)", 'PYTHONPATH': '/mine', 'LD_LIBRARY_PATH': '/lib',
                                        'APPTAINERENV_PYTHONPATH': '/inside', 'MY_XALT_NAME': 'XALT_DIR=1'})
    assert 'XALT_DIR' not in env and 'PYTHONPATH' not in env and env['MY_XALT_NAME'] == 'XALT_DIR=1'
    assert env['LD_LIBRARY_PATH'] == '/lib' and env['APPTAINERENV_PYTHONPATH'] == '/inside'


def test_a_wrapper_becomes_the_runtime(fake, runtime, tmp_path):
    process = subprocess.Popen([fake.root / 'bin' / 'python'], env=environment(tmp_path, runtime),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.communicate()[0].split(b'\0')[0] == b'%d' % process.pid


def test_a_command_may_be_several_words(fake, runtime, tmp_path):
    got = arguments(harness.run([fake.root / 'bin' / 'two', 'x'], env=environment(tmp_path, runtime)))
    assert got[3:] == ['first', "sec'ond", 'x']


def test_a_python_script_is_run_so_that_it_sees_the_overlay(fake, runtime, tmp_path):
    got = arguments(harness.run([fake.root / 'bin' / 'tool', 'x'], env=environment(tmp_path, runtime)))
    assert got[3:] == ['/runscripts/lib/run-python-script', 'python3', '/usr/bin/tool', 'x']


@pytest.fixture
def installers(tmp_path):
    """An installation whose commands change packages."""
    return make(tmp_path, 'p', python_version='3.12', commands={
        'pip': Command(('pip',)), 'pip3': Command(('pip3',), '/usr/bin/pip3'), 'uv': Command(('uv',)),
        'conda': Command(('conda',)), 'python': Command(('python',))})


CHANGES = ['pip install x', 'pip -q install x', 'pip uninstall -y x', 'pip3 install x', 'uv pip install x',
           'conda install x', 'python -m pip install x', 'python -m uv pip install x']
CHANGES_NOTHING = ['pip list', 'pip', 'pip install --target=/d x', 'pip install -t /d x', 'pip install --help',
                   'uv run x', 'conda list', 'python -m pip list', 'python install', 'python -m venv install',
                   'python -m uv add install', "python '-m pip'", "python '-m uv pip'"]


@pytest.mark.parametrize('words', CHANGES)
def test_what_would_change_a_packed_overlay_is_refused(installers, runtime, tmp_path, words):
    packed = installers.overlay / 'user-software.squashfs'
    squashfs(packed)
    command, *args = words.split()
    result = harness.run([installers.root / 'bin' / command, *args], env=environment(tmp_path, runtime), check=False)
    assert (result.status, result.output) == (1, (
        'error: jax/24.10: the overlay is packed, packages cannot be changed\n  file  %s\n'
        'hint: unmake-squashfs && module reload, then the same again\n' % packed))
    packed.unlink()
    assert words.split()[-1] in harness.run([installers.root / 'bin' / command, *args],
                                            env=environment(tmp_path, runtime)).stdout


@pytest.mark.parametrize('state, hint', [
    ({'size': 199}, 'mv -- "{0}" "{0}.damaged" && module reload, then the same again'),
    ({'compressor': 4}, 'unmake-squashfs && module reload, then the same again')])
def test_packages_are_not_changed_where_a_squashfs_cannot_be_used(installers, runtime, tmp_path, state, hint):
    """Instead of what pip says of the image, into which it would install otherwise."""
    packed, env = installers.overlay / 'user-software.squashfs', environment(tmp_path, runtime)
    squashfs(packed, **state)
    installers.site(refused=('xz',))
    (installers.overlay / 'user-software').rename(installers.overlay / 'aside')
    result = harness.run([installers.root / 'bin' / 'pip', 'install', 'x'], env=env, check=False)
    assert result.status == 1 and result.stderr.endswith(
        'error: jax/24.10: the packed overlay is not used and there is no directory, packages cannot be changed\n'
        '  file  %s\nhint: %s\n' % (packed, hint.format(packed)))
    (installers.overlay / 'aside').rename(installers.overlay / 'user-software')
    assert 'install' in harness.run([installers.root / 'bin' / 'pip', 'install', 'x'], env=env).stdout


def test_what_would_change_an_overlay_that_cannot_be_written_is_refused(installers, runtime, tmp_path):
    directory = installers.overlay / 'user-software'
    directory.chmod(0o555)
    result = harness.run([installers.root / 'bin' / 'pip', 'install', 'x'], env=environment(tmp_path, runtime),
                         check=False)
    directory.chmod(0o755)
    assert (result.status, result.output) == (1, (
        'error: jax/24.10: the overlay cannot be written, packages cannot be changed\n  directory  %s\n'
        'hint: export EASYSIF_OVERLAYS=<a directory of yours> && module reload\n' % directory))


@pytest.mark.parametrize('words', CHANGES_NOTHING)
def test_what_changes_nothing_runs_in_a_packed_overlay(installers, runtime, tmp_path, words):
    squashfs(installers.overlay / 'user-software.squashfs')
    command, *args = shlex.split(words)
    got = arguments(harness.run([installers.root / 'bin' / command, *args], env=environment(tmp_path, runtime)))
    assert got[3:] == [command, *args]


def test_an_overlay_for_another_python_is_not_changed_and_the_images_commands_serve(installers, runtime, tmp_path):
    (installers.overlay / 'made-for').write_text('python 3.9\nat /p\n')
    env = environment(tmp_path, runtime)
    result = harness.run([installers.root / 'bin' / 'pip', 'install', 'x'], env=env, check=False)
    assert result.status == 1 and result.stderr.endswith(
        'error: jax/24.10: the overlay is for another Python, packages cannot be changed\n'
        '  made for       Python 3.9 /p\n  the image has  Python 3.12 /usr/bin/python3\n'
        'hint: easysif overlay rebuild jax/24.10\n')
    got = arguments(harness.run([installers.root / 'bin' / 'pip', 'list'], env=env))
    assert got[3:] == ['/usr/bin/python3', '-m', 'pip', 'list']
    assert arguments(harness.run([installers.root / 'bin' / 'python', 'x'], env=env))[3:] == ['/usr/bin/python3', 'x']
    assert os.listdir(installers.overlay / 'user-software' / 'venv' / 'jax') == []


@pytest.fixture
def elsewhere(fake, tmp_path):
    """Links to the wrapper `python` from elsewhere, by name."""
    wrapper, links = fake.root / 'bin' / 'python', tmp_path / 'my links'
    links.mkdir()
    (links / 'absolute').symlink_to(wrapper)
    (links / 'relative').symlink_to(os.path.relpath(wrapper, links))
    (links / 'chain').symlink_to('absolute')
    (links / 'bin').symlink_to(wrapper.parent)
    (links / 'renamed').symlink_to(fake.root)
    (links / 'chained bin').symlink_to('bin')
    (tmp_path / 'deep' / 'er').mkdir(parents=True)
    (tmp_path / 'deep' / 'er' / 'x').symlink_to('../../my links/chain')
    return tmp_path


@pytest.mark.parametrize('link', ['my links/absolute', 'my links/relative', 'my links/chain', 'my links/bin/python',
                                  'my links/renamed/bin/python', 'my links/chained bin/python', 'deep/er/x'])
def test_a_wrapper_is_reached_by_links(elsewhere, runtime, link):
    env = environment(elsewhere, runtime)
    path = elsewhere / link
    for command in ([path], ['./' + path.name], ['sh', path.name]):
        got = arguments(harness.run([*command, 'x'], env=env, cwd=path.parent))
        assert got[3:] == ['python', 'x']
    env['PATH'] = '%s:%s' % (path.parent, env['PATH'])
    assert arguments(harness.run(['sh', '-c', '"$1" x', 'sh', path.name], env=env))[3:] == ['python', 'x']


def test_a_link_beside_the_wrappers_is_another_name_of_one(fake, runtime, tmp_path):
    (fake.root / 'bin' / 'python3.99').symlink_to('python')
    got = arguments(harness.run([fake.root / 'bin' / 'python3.99', 'x'], env=environment(tmp_path, runtime)))
    assert got[3:] == ['python', 'x']


def test_a_name_that_is_no_command_is_an_error(fake, runtime, tmp_path):
    (fake.root / 'bin' / 'pyhton').symlink_to('../easysif/wrapper')
    result = harness.run([fake.root / 'bin' / 'pyhton'], env=environment(tmp_path, runtime), check=False)
    assert result.status == 1 and result.stdout == ''
    assert result.stderr == ("error: jax/24.10: has no command 'pyhton'\n"
                             'hint: see what it has: ls "%s/bin"\n' % fake.root)


@pytest.mark.parametrize('name', ['wrapper', 'env'])
def test_any_name_may_be_a_command(tmp_path, runtime, name):
    fake = make(tmp_path, 'p', commands={name: Command((name,))})
    assert arguments(harness.run([fake.root / 'bin' / name], env=environment(tmp_path, runtime)))[3:] == [name]


def test_what_is_called_as_tools_of_the_system_is_not_asked(tmp_path, runtime):
    stored = tmp_path / 'store' / 'jax.sif'
    stored.parent.mkdir()
    stored.write_text('1234')
    fake = make(tmp_path, 'p', sif_link=str(stored), layer='jax')  # a module that is loaded may have any of these
    squashfs(fake.root / 'layer.squashfs')
    fake.site(runtime=str(runtime / 'apptainer'))
    (runtime / 'apptainer').write_text(RUNTIME.replace('exec cat', 'exec /bin/cat'))
    for name in ('od', 'wc', 'stat', 'id', 'mkdir', 'uname', 'ln', 'rm', 'sleep', 'mv', 'readlink', 'tail', 'env'):
        (runtime / name).write_text('#!/bin/sh\necho 1 2 3\n')
        (runtime / name).chmod(0o755)
    link = tmp_path / 'elsewhere'
    link.symlink_to(fake.root / 'bin' / 'two')
    (fake.overlay / 'user-software' / 'venv' / 'jax').rmdir()  # so that it makes one, which does not come into being
    for path in ('%s:%s' % (runtime, harness.SYSTEM_PATH), ''):
        for shell in SHELLS.values():
            shell = [shutil.which(shell[0]), *shell[1:]] if shell else []
            for command in (fake.root / 'bin' / 'two', link):
                assert arguments(harness.run([*shell, command], env=environment(tmp_path, PATH=path)))[2:] == [
                    str(fake.sif), 'first', "sec'ond"]
            asked = harness.run([*shell, fake.root / 'easysif' / 'wrapper', 'print-environment'],
                                env=environment(tmp_path, PATH=path)).stdout
            assert 'SIF=%s\n' % fake.sif in asked


def test_a_copy_of_a_wrapper_says_what_to_do_instead(fake, tmp_path):
    copy = tmp_path / 'python'
    shutil.copy(fake.root / 'bin' / 'python', copy)
    result = harness.run([copy], env=environment(tmp_path), check=False)
    assert (result.status, result.stderr) == (1, (
        'error: %s: is not in the bin directory of an EasySIF module\nhint: make a link to it instead\n' % copy))


def test_the_file_behind_the_wrappers_says_how_to_call_them(fake, tmp_path):
    result = harness.run([fake.root / 'easysif' / 'wrapper'], env=environment(tmp_path), check=False)
    assert result.status == 1 and 'is called by the names of commands' in result.stderr


def test_without_a_runtime_a_wrapper_says_so(fake, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    monkeypatch.setenv('PATH', str(tmp_path / 'empty'))
    fake.site()
    env = environment(tmp_path, PATH=tmp_path / 'empty')
    result = harness.run([fake.root / 'bin' / 'python'], env=env, check=False)
    assert (result.status, result.stderr) == (1, (
        'error: jax/24.10: no container runtime: neither apptainer nor singularity is on PATH\n'
        'hint: module load apptainer, or set runtime in your site file\n'))


def test_the_sites_runtime_serves_where_path_has_none(fake, runtime, tmp_path):
    fake.site(runtime=str(runtime / 'apptainer'))
    result = harness.run([fake.root / 'bin' / 'python', 'x'], env=environment(tmp_path, PATH='/usr/bin:/bin'))
    assert arguments(result)[3:] == ['python', 'x']


def test_an_empty_environment_is_enough(fake, runtime, tmp_path):
    """Defect 6 and 7 of the peers: the guard fell over, and the failure was a success."""
    fake.site(runtime=str(runtime / 'apptainer'), overlays='/nowhere/$USER')
    fake.give_away()
    result = harness.run(['/usr/bin/env', '-i', fake.root / 'bin' / 'python', 'x'], env={})
    assert arguments(result)[3:] == ['python', 'x']
    assert 'warning: jax/24.10: there is no place for an overlay' in result.stderr


def test_without_its_image_a_wrapper_fails(fake, runtime, tmp_path):
    """Defect 6 of the peers: an error with exit status 0 lets batch chains go on."""
    fake.sif.unlink()
    result = harness.run([fake.root / 'bin' / 'python', 'x'], env=environment(tmp_path, runtime), check=False)
    assert result.status == 1 and result.stdout == '' and 'error: jax/24.10: the image is gone' in result.stderr


def test_variables_of_the_user_pass_whatever_their_names(fake, tmp_path):
    """None of the wrapper's own names is one that a user has, and what it did not set stays as it was."""
    mine = {name: 'user %s' % name for name in ('root', 'prefix', 'module', 'name', 'line', 'word', 'value', 'self',
                                                'i', 'path', 'sif', 'shell', 'python', 'status')}
    out = harness.run([fake.root / 'easysif' / 'wrapper', 'print-environment'], env=environment(tmp_path, **mine))
    got = dict(line.split('=', 1) for line in out.stdout.splitlines())
    assert {name: got.get(name) for name in mine} == mine
    assert not [name for name in got if name.startswith('es_')]


def test_a_leaked_container_variable_does_not_fool_a_wrapper(fake, runtime, tmp_path):
    env = environment(tmp_path, runtime, APPTAINER_CONTAINER='/x.sif', SINGULARITY_CONTAINER='/x.sif')
    assert arguments(harness.run([fake.root / 'bin' / 'python', 'x'], env=env))[3:] == ['python', 'x']


@pytest.mark.parametrize('action', ['make', 'unmake'])
def test_the_squashfs_commands_do_the_same_with_a_module_loaded(fake, tmp_path, action):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\n[ "$2" = -c ] || printf "%s\\0" "$@"\n')
    python.chmod(0o755)
    env = environment(tmp_path, EB_PYTHON=python, SIF='/x', EASYSIF_SET='SIF=/x;EB_PYTHON=%s' % python,
                      EASYSIF_KEPT='EB_PYTHON=%s' % python)
    got = harness.run([fake.root / 'bin' / ('%s-squashfs' % action), '--help'], env=env).stdout.split('\0')
    assert got[:5] == ['-I', '-B', '%s/easysif/lib' % fake.root, action, '--help']


def test_binds_that_are_not_there_are_left_out_when_it_runs(fake, runtime, tmp_path):
    """Defect 5 of the peers: a source that this node lacks was fatal."""
    fake.site(binds=('%s/gone' % tmp_path,))
    out = harness.run([fake.root / 'easysif' / 'wrapper', 'print-environment'], env=environment(tmp_path))
    assert '%s/gone' % tmp_path not in out.stdout


def by_wrapper(fake, tmp_path, **changes):
    """Return the environment that a wrapper makes (dict)."""
    return fake.by_wrapper(tmp_path / 'home', changes)[0]


@pytest.mark.parametrize('changed', ['SINGULARITYENV_MINE', 'APPTAINERENV_MINE'])
def test_what_the_user_changes_after_loading_is_what_the_image_sees(tmp_path, changed):
    """Under either name: Apptainer prefers the one, Singularity knows only the other."""
    fake = make(tmp_path, 'p', container_env={'MINE': 'ours', 'OTHER': 'ours'})
    env, _ = fake.by_module(tmp_path / 'home', {'N': changed, 'W': fake.root / 'easysif' / 'wrapper'},
                            'module load %(module)s; export "$N=user"; "$W" print-environment | tr "\\n" "\\0"; exit')
    other, = {'SINGULARITYENV_MINE', 'APPTAINERENV_MINE'} - {changed}
    assert env[changed] == 'user' and other not in env
    assert env['SINGULARITYENV_OTHER'] == env['APPTAINERENV_OTHER'] == 'ours'


def test_values_are_evaluated_as_they_were_escaped_for(fake, tmp_path):
    env = by_wrapper(fake, tmp_path, APPTAINER_NO_EVAL='1', SINGULARITY_NO_EVAL='1')
    assert not {'APPTAINER_NO_EVAL', 'SINGULARITY_NO_EVAL'} & set(env)


TEMPLATES = [('$X/o', {'X': '/x'}, '/x/o'), ('/a/${X}b/$X', {'X': 'x'}, '/a/xb/x'), ('/a/$X/$Y', {'X': 'x'}, ''),
             ('/a/$X', {'X': ''}, ''), ('/a/$X', {}, ''), ('/a/$USER', {'USER': 'u', 'LOGNAME': 'l'}, '/a/u'),
             ('/a/$USER', {'USER': None, 'LOGNAME': 'l'}, '/a/l'), ('/a/$USER', {'USER': None}, '/a/home')]


@pytest.mark.parametrize('template, env, place', TEMPLATES)
def test_the_sites_place_of_overlays_is_whole_or_none(fake, tmp_path, template, env, place):
    """For the module and for the wrapper."""
    fake.give_away()
    fake.site(overlays=template)
    place = place or '%s/home/.local/share/easysif/overlays' % tmp_path
    for found, _ in (fake.by_module(tmp_path / 'home', env), fake.by_wrapper(tmp_path / 'home', env)):
        assert found['CONTAINERROOT'] == place + '/jax/24.10'


# --- with real images ---------------------------------------------------------------------------------------------

PRINT = 'import json, os, sys; print(json.dumps([os.fsencode(a).hex() for a in sys.argv[1:]]))'


@pytest.fixture
def jax(standins):
    """The stand-in of JAX; tests leave its overlay as it is."""
    return standins('jax')


@pytest.mark.e2e
def test_arguments_pass_byte_for_byte(jax):
    words = ARGUMENTS[:-1]  # Apptainer itself replaces what is not UTF-8
    result = jax.run('python', '-c', PRINT, *words)
    assert [bytes.fromhex(word) for word in json.loads(result.stdout)] == [os.fsencode(word) for word in words]
    assert result.stderr == ''


@pytest.mark.e2e
def test_standard_input_and_output_pass_byte_for_byte(jax):
    data = bytes(range(256)) * 8192
    code = 'import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer); sys.stderr.write("said")'
    out = subprocess.run([jax.bin / 'python', '-c', code], input=data, capture_output=True, env=jax.env(), check=True)
    assert out.stdout == data and out.stderr == b'said'


@pytest.mark.e2e
@pytest.mark.parametrize('status', [0, 1, 42, 126, 127, 255])
def test_the_exit_status_passes(jax, status):
    assert jax.run('sh', '-c', 'exit %d' % status, check=False).status == status


@pytest.mark.e2e
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_signals_reach_the_command(jax, number):
    """Defect 25 of the peers: a shell that stayed took the signal that was meant for the job."""
    code = ('import os, signal, time; signal.signal(%d, lambda *_: (os.write(1, b"got it\\n"), os._exit(7)))\n'
            'print("ready", flush=True)\nwhile True: time.sleep(0.1)' % number)
    process = subprocess.Popen([jax.bin / 'python', '-c', code], env=jax.env(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'ready\n'
    process.send_signal(number)
    assert process.communicate(timeout=120)[0] == b'got it\n'
    assert process.returncode == 7


@pytest.mark.e2e
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_the_status_tells_a_signal_that_ended_the_command(jax, number):
    result = jax.run('sh', '-c', 'kill -%d $$' % number, check=False)
    assert result.status in (128 + number, -number)


@pytest.mark.e2e
def test_a_signal_that_the_command_does_not_catch_ends_it(jax):
    process = subprocess.Popen([jax.bin / 'sh', '-c', 'echo ready; exec sleep 600'], env=jax.env(),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.terminate()
    assert process.wait(timeout=120) in (128 + signal.SIGTERM, -signal.SIGTERM)


@pytest.mark.e2e
def test_no_shell_of_the_wrapper_stays(jax):
    process = subprocess.Popen([jax.bin / 'python', '-c', 'import sys; print("ready", flush=True); sys.stdin.read()'],
                               env=jax.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    names = [open('/proc/%d/comm' % pid).read().strip() for pid in tree(process.pid)]
    process.communicate()
    assert names[0] not in ('sh', 'dash', 'bash', 'busybox') and names[-1].startswith('python')
    assert not {'sh', 'dash', 'bash', 'busybox'} & set(names)


def tree(pid):
    """Return a process and what it started (list of int)."""
    children = open('/proc/%d/task/%d/children' % (pid, pid)).read().split()
    return [pid] + [each for child in children for each in tree(int(child))]


# Each is a way to call the wrapper `sh` with -c and a text, from a shell without our module.
WAYS = {
    'plainly': 'exec "$BIN/sh" -c "$TEXT"',
    'from sh -c': 'sh -c \'"$BIN/sh" -c "$TEXT"\'',
    'from PATH': 'PATH="$BIN:$PATH"; hash -r; sh -c "$TEXT"',
    'from xargs': 'printf "%s\\0" -c "$TEXT" | xargs -0 "$BIN/sh"',
    'without an environment': 'env -i EASYSIF_OVERLAYS="$EASYSIF_OVERLAYS" "$BIN/sh" -c "$TEXT"',
    # which has no EASYSIF_OVERLAYS: the first use of the place below the home directory is told
    'with the environment of cron': 'env -i HOME="$HOME" LOGNAME=u SHELL=/bin/sh PATH=/usr/bin:/bin sh -c '
                                    '\'"$0/sh" -c true 2>/dev/null; "$0/sh" -c "$1"\' "$BIN" "$TEXT"',
    'from a directory with blanks': 'mkdir -p "$HOME/a  b"; cd "$HOME/a  b"; "$BIN/sh" -c "$TEXT"',
    'from the root': 'cd /; "$BIN/sh" -c "$TEXT"',
    'from a directory that is gone': 'mkdir -p "$HOME/gone"; cd "$HOME/gone"; rmdir "$HOME/gone"; '
                                     '"$BIN/sh" -c "$TEXT" 2>/dev/null',
    'by a link': 'ln -sf "$BIN/sh" "$HOME/link"; "$HOME/link" -c "$TEXT"',
    'through env': '/usr/bin/env "$BIN/sh" -c "$TEXT"',
    'through timeout': 'timeout 60 "$BIN/sh" -c "$TEXT"',
    'with closed standard input': '"$BIN/sh" -c "$TEXT" <&-',
    'in the background': '"$BIN/sh" -c "$TEXT" & wait $!',
    'in a subshell with set -u': 'set -eu; ("$BIN/sh" -c "$TEXT")',
}


@pytest.mark.e2e
@pytest.mark.parametrize('way', WAYS)
def test_a_wrapper_works_without_the_module(jax, way):
    text = 'cat /STAND-IN; echo "$VIRTUAL_ENV"; exit 5'
    result = harness.run(['bash', '-c', WAYS[way]], env=jax.env(BIN=jax.bin, TEXT=text), check=False)
    assert (result.status, result.stderr) == (123 if 'xargs' in way else 5, '')
    assert result.stdout.startswith('This image is a stand-in') and result.stdout.endswith('/user-software/venv/jax\n')


@pytest.mark.e2e
def test_a_wrapper_is_the_interpreter_of_a_script(jax, tmp_path):
    link = tmp_path / 'bin'
    link.symlink_to(jax.bin)
    for name, first in (('direct', '#!%s/python -B' % link), ('env', '#!/usr/bin/env python')):
        script = tmp_path / name
        script.write_text('%s\nimport sys; print(sys.argv[1:], open("/STAND-IN").read()[:4])\n' % first)
        script.chmod(0o755)
        env = jax.env(PATH='%s:%s' % (link, jax.env()['PATH']))
        assert harness.run([script, 'a b', ''], env=env).stdout == "['a b', ''] This\n"


@pytest.mark.e2e
def test_a_wrapper_works_in_a_job(jax, slurm):
    env = dict(jax.env(TEXT='echo $SLURM_PROCID; test -e /STAND-IN'), **slurm)
    result = harness.run(['srun', '-n2', '--overcommit', jax.bin / 'sh', '-c', env['TEXT']], env=env)
    assert sorted(result.stdout.split()) == ['0', '1']


@pytest.mark.e2e
def test_a_job_that_inherits_the_environment_of_a_login_node_is_served_by_its_node(jax, slurm, tmp_path):
    """A bind and a variable of the login node that the compute node has not are not of the job."""
    (tmp_path / 'login').mkdir()
    script = ('export APPTAINER_BINDPATH="$1:/login,$APPTAINER_BINDPATH"; rmdir "$1"; '
              'unset APPTAINER_BINDPATH; srun -n1 python -c "import sys; print(sys.executable)"')
    result = jax.shell(script.replace('$1', str(tmp_path / 'login')), env=dict(slurm, EASYSIF_OVERLAYS=jax.overlays))
    assert result.stdout == '/user-software/venv/jax/bin/python\n'


@pytest.mark.e2e
def test_a_cancelled_job_tells_its_command(jax, slurm, tmp_path):
    code = ('import os, signal, sys, time\n'
            'signal.signal(15, lambda *_: (open(sys.argv[1], "w").write("told"), os._exit(0)))\n'
            'print(os.environ["SLURM_JOB_ID"], flush=True)\nwhile True: time.sleep(0.1)')
    env = dict(jax.env(), **slurm)
    process = subprocess.Popen(['srun', '-n1', jax.bin / 'python', '-c', code, tmp_path / 'note'], env=env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    harness.run(['scancel', process.stdout.readline().decode().strip()], env=env)
    process.wait(timeout=60)
    assert (tmp_path / 'note').read_text() == 'told'


INSIDE = ('import json, os; print(json.dumps([dict(os.environ), sorted({line.split()[4] for line in '
          'open("/proc/self/mountinfo")}), os.getcwd()]))')


def inside(text):
    """Return what a program saw: environment without what tells the host's shells apart, mounts, directory.

    What others mount below /tmp meanwhile is not counted.
    """
    env, mounts, directory = json.loads(text)
    mounts = [mount for mount in mounts if not mount.startswith(('/tmp/', '/sys/'))]
    drop = ('LMOD_', 'EASYSIF_', 'EBROOT', 'EBVERSION', 'BASH_FUNC')
    own = {'SHLVL', '_', 'USER_PATH', 'LOADEDMODULES', '_LMFILES_', 'MODULEPATH', 'MODULESHOME', 'MODULEPATH_ROOT',
           'BASH_ENV', 'CODE', 'BIN', 'OLDPWD', 'PWD', 'MANPATH', 'FPATH', 'ENV'}
    return {name: value for name, value in users(env).items()
            if not name.startswith(drop) and name not in own}, mounts, directory


@pytest.mark.e2e
@pytest.mark.parametrize('users_own', [{}, {'SINGULARITY_BINDPATH': '/usr/share:/mine:ro', 'APPTAINERENV_MINE': 'a b',
                                            'APPTAINER_BIND': '/usr/bin:/his', 'TMPDIR': None}],
                         ids=['nothing set', 'much set'])
def test_inside_it_is_the_same_by_wrapper_and_by_hand(jax, users_own):
    env = {name: value for name, value in dict(users_own, EASYSIF_OVERLAYS=jax.overlays).items()}
    alone = inside(harness.run([jax.bin / 'python', '-c', INSIDE], env=jax.env(**users_own)).stdout)
    said = jax.shell('singularity --quiet exec "$SIF" python -c "$CODE"; python -c "$CODE"; '
                     'apptainer --quiet exec "$SIF" python -c "$CODE"', env=dict(env, CODE=INSIDE))
    by_hand, with_module, apptainer = (inside(line) for line in said.stdout.splitlines())
    assert by_hand == with_module == alone == apptainer
    assert '/runscripts' in alone[1] and '/user-software' in alone[1]
    assert said.stderr == ''


@pytest.mark.e2e
def test_a_wrapper_is_the_same_beside_another_module(jax, standins):
    other, tool = standins('conda'), standins('samtools')
    alone = inside(jax.run('python', '-c', INSIDE).stdout)
    beside = other.shell('"$BIN/python" -c "$CODE"; module load %s; "$BIN/python" -c "$CODE"; '
                         'samtools --version | head -1; python -c "import sys; print(sys.executable)"' % tool.name,
                         env={'BIN': jax.bin, 'CODE': INSIDE, 'EASYSIF_OVERLAYS': jax.overlays})
    lines = beside.stdout.splitlines()
    for line in lines[:2]:
        env, mounts, directory = inside(line)
        for name in ('SIFCONDA', 'RUNSCRIPTSCONDA', 'SIFSAMTOOLS', 'RUNSCRIPTSSAMTOOLS'):
            env.pop(name, None)
        assert (env, mounts, directory) == alone
    assert lines[2].startswith('samtools 1.') and lines[3] == '/user-software/venv/science/bin/python'


@pytest.mark.e2e
def test_inside_a_container_a_wrapper_is_the_real_command(jax):
    """Defect 26 of the peers: the wrapper refused, or started a container in a container."""
    text = ('"$BIN/python" -c "import sys; print(sys.executable)"; PATH="$BIN:$PATH"; '
            'python -c "import sys; print(sys.executable)"; tqdm --version; '
            'python -c "import subprocess; subprocess.run([\'python\', \'-c\', \'print(1)\'])"; '
            '"$BIN/start-shell" -c "echo \\$0"; "$BIN/list-packages" tqdm | tail -n 1')
    result = jax.run('sh', '-c', text, env=jax.env(BIN=jax.bin))
    assert result.stdout.splitlines() == [*['/user-software/venv/jax/bin/python'] * 2, '4.66.1', '1', '/bin/bash',
                                          'tqdm     4.66.1   image']
    assert result.stderr == ''


@pytest.mark.e2e
def test_inside_another_image_a_wrapper_is_that_images_command(jax, standins):
    env = standins('samtools').env(BIN=jax.bin)
    result = standins('samtools').shell('singularity exec "$SIFSAMTOOLS" sh -c \'PATH="$BIN:$PATH"; '
                                        'sh -c "samtools --version | head -n 1"; python; echo $?\'', env=env)
    assert result.stdout.startswith('samtools 1.') and result.stdout.endswith('\n127\n')
    assert 'error: python: command not found in this container\n' in result.stderr


@pytest.mark.e2e
def test_squashfs_commands_run_on_the_host_only(jax):
    result = jax.run('sh', '-c', '"$BIN/make-squashfs"', env=jax.env(BIN=jax.bin), check=False)
    assert result.status == 1 and 'make-squashfs: runs on the host, not inside a container' in result.stderr


@pytest.mark.e2e
def test_the_hosts_temporary_directory_is_visible_inside(jax, tmp_path):
    (tmp_path / 'tmp dir').mkdir()
    jax.run('sh', '-c', 'echo x >"$TMPDIR/from-inside"', env=jax.env(TMPDIR=tmp_path / 'tmp dir'))
    assert (tmp_path / 'tmp dir' / 'from-inside').read_text() == 'x\n'


@pytest.mark.e2e
def test_files_of_the_host_are_where_they_were(jax, tmp_path):
    (tmp_path / 'a b').mkdir()
    jax.run('python', '-c', 'open("here", "w").write("x")', cwd=tmp_path / 'a b')
    assert (tmp_path / 'a b' / 'here').read_text() == 'x'


@pytest.mark.e2e
def test_an_image_with_one_program_and_no_shell_runs_it(standins):
    static = standins('static')
    assert static.run('echo', 'a  b', '').stdout == 'a  b \n'
    result = static.run('start-shell', check=False)
    assert (result.status, result.stderr) == (1, 'error: static/1: the image has no shell\n'
                                              'hint: use its commands from the host\n')
    result = static.run('list-packages', check=False)
    assert result.status == 1 and 'the image has no Python, so there are no packages to list' in result.stderr


@pytest.mark.e2e
@pytest.mark.parametrize('no_eval', [None, '1'])
def test_values_of_the_recipe_arrive_as_they_are(images, tmp_path, no_eval):
    value = 'a$HOME\\b`id` $(id)"c'
    module = library.install(images.sif('busybox'), 'busybox', tmp_path / 'own', commands=['sh'],
                             container_env={'VALUE': value})
    env = module.env(APPTAINER_NO_EVAL=no_eval, SINGULARITY_NO_EVAL=no_eval)
    assert module.run('sh', '-c', 'printf %s "$VALUE"', env=env).output == value


@pytest.mark.e2e
def test_nothing_is_evaluated_on_the_way(jax, tmp_path):
    """A value of the user's own that looks like shell code reaches the inside as the runtime hands it on."""
    result = jax.run('sh', '-c', 'printf "%s|" "$MINE" "$@"', 'sh', '$(touch x)', '`touch x`', cwd=tmp_path,
                     env=jax.env(MINE='$(touch x); `touch x`'))
    assert result.stdout == '$(touch x); `touch x`|$(touch x)|`touch x`|' and not (tmp_path / 'x').exists()
