# SPDX-License-Identifier: GPL-2.0-only
"""What runs inside: Python with overlay before image, conda, the venv and who makes it, start-shell, list-packages."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

import harness
import standins as library
from test_wrappers import environment, make

pytest_plugins = ['standin_fixtures']

WHO = 'import sys; print(sys.executable)'
VENV = '/user-software/venv/%s/bin/python'


# --- the lock under which the first wrapper makes the venv, with a stand-in for the runtime -------------------------

RUNTIME = '''#!/bin/sh
bind=${APPTAINER_BINDPATH%%:/user-software*}
for last; do :; done
case "$*" in
    *make_venv.py*)
        mkdir -p "$bind${last#/user-software}"; echo made >>"$HOME/made"
        [ -z "${UNTIL-}" ] || until [ -e "$UNTIL" ]; do /bin/sleep 0.05; done
        echo whole >"$bind${last#/user-software}/is" ;;
    *) echo "ran $last" ;;
esac
'''


@pytest.fixture
def fake(tmp_path):
    """An installation of others without a container, an empty overlay and a `venv` that is made by a stand-in."""
    fake = make(tmp_path, 'pre fix', python_version='3.12', image='sha256:' + 'a' * 64)
    (fake.prefix / 'easysif' / 'prefix.json').chmod(0o444)
    runtime = tmp_path / 'runtime'
    runtime.mkdir()
    (runtime / 'apptainer').write_text(RUNTIME)
    (runtime / 'apptainer').chmod(0o755)
    fake.mine = tmp_path / 'mine' / 'jax' / '24.10'
    (fake.mine / 'user-software').mkdir(parents=True)
    fake.env = environment(tmp_path, runtime, EASYSIF_OVERLAYS=tmp_path / 'mine')
    (tmp_path / 'home').mkdir(exist_ok=True)
    return fake


def left(fake):
    """Return what lies beside the overlay: nothing may (set)."""
    return {path.name for path in fake.mine.iterdir()} - {'user-software', 'made-for', 'runscripts', 'jax.sif'}


def made(tmp_path):
    """Return how often the venv was made (int)."""
    return (tmp_path / 'home' / 'made').read_text().count('made')


def test_the_first_of_many_wrappers_makes_the_venv(fake, tmp_path):
    env = dict(fake.env, UNTIL=tmp_path / 'go')
    running = [subprocess.Popen([fake.root / 'bin' / 'python', str(number)], env=env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for number in range(8)]
    time.sleep(0.5)  # in which all may have come
    (tmp_path / 'go').touch()
    for number, process in enumerate(running):
        assert process.communicate() == (b'ran %d\n' % number, b'')
    assert made(tmp_path) == 1 and (fake.mine / 'user-software/venv/jax').is_dir() and left(fake) == set()
    assert (fake.mine / 'made-for').read_text() == 'python 3.12\nat /usr/bin/python3\nimage sha256:%s\n' % (
        'a' * 64)
    assert os.readlink(fake.mine / 'runscripts') == '%s/runscripts' % fake.root
    assert os.readlink(fake.mine / 'jax.sif') == str(fake.sif)
    harness.run([fake.root / 'bin' / 'python'], env=env)
    assert made(tmp_path) == 1


def test_a_maker_that_was_killed_is_replaced_at_once(fake, tmp_path):
    process = subprocess.Popen([fake.root / 'bin' / 'python'], env=dict(fake.env, UNTIL='/nowhere'),
                               stdin=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / 'home' / 'made').exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert left(fake) == {'.venv.lock', '.venv.new-%s-%d' % (socket.gethostname(), process.pid)}
    start = time.monotonic()
    assert harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env).output == 'ran x\n'
    assert time.monotonic() - start < 50 and made(tmp_path) == 2 and left(fake) == set()  # another is given a minute


@pytest.mark.parametrize('number, status', [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_maker_that_is_told_to_end_leaves_nothing(fake, tmp_path, number, status):
    process = subprocess.Popen([fake.root / 'bin' / 'python'], env=dict(fake.env, UNTIL='/nowhere'),
                               stdin=subprocess.DEVNULL, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (tmp_path / 'home' / 'made').exists():
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == status and left(fake) == set()


@pytest.mark.long
def test_one_who_makes_it_elsewhere_is_waited_for(fake, tmp_path):
    lock = fake.mine / '.venv.lock'
    lock.mkdir()
    (lock / 'holder').write_text('1 another-host\n')
    process = subprocess.Popen([fake.root / 'bin' / 'python', 'x'], env=fake.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE)
    time.sleep(1.5)
    assert process.poll() is None
    (fake.mine / 'user-software/venv/jax').mkdir(parents=True)
    assert process.communicate(timeout=60)[0] == b'ran x\n' and lock.exists()
    assert not (tmp_path / 'home' / 'made').exists()


def start(fake, **env):
    """Start a wrapper that makes the venv, wait until it is at it and return the process."""
    made = os.path.join(fake.env['HOME'], 'made')
    before = os.path.getsize(made) if os.path.exists(made) else 0
    process = subprocess.Popen([fake.root / 'bin' / 'python', 'x'], env=dict(fake.env, **env),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not os.path.exists(made) or os.path.getsize(made) == before:
        time.sleep(0.02)
    return process


@pytest.fixture
def minutes(fake):
    """Wrappers whose seconds of waiting are hundredths."""
    wrapper = fake.root / 'easysif' / 'wrapper'
    text = wrapper.read_text()
    assert text.count('command -p sleep 1\n') == 1
    wrapper.write_text(text.replace('command -p sleep 1\n', 'command -p sleep 0.01\n'))


@pytest.mark.long
def test_a_slow_maker_keeps_its_lock_and_what_is_there_is_whole(fake, tmp_path, minutes):
    """One who has waited for a minute makes the venv, too; the other then drops its own."""
    slow = start(fake, UNTIL=tmp_path / 'go')
    venv = fake.mine / 'user-software/venv/jax'
    assert not venv.exists()
    holder = (fake.mine / '.venv.lock' / 'holder').read_text()
    assert holder == '%d %s\n' % (slow.pid, socket.gethostname())
    assert harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env).output == 'ran x\n'
    assert os.listdir(venv) == ['is'] and slow.poll() is None
    assert (fake.mine / '.venv.lock' / 'holder').read_text() == holder
    (venv / 'of the first').touch()
    (tmp_path / 'go').touch()
    assert slow.communicate(timeout=60) == (b'ran x\n', b'')
    assert sorted(os.listdir(venv)) == ['is', 'of the first'] and made(tmp_path) == 2 and left(fake) == set()


def test_the_lock_of_a_dead_one_elsewhere_is_waited_for_a_minute(fake, tmp_path, minutes):
    lock = fake.mine / '.venv.lock'
    lock.mkdir()
    (lock / 'holder').write_text('1 another-host\n')
    assert harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env).output == 'ran x\n'
    assert made(tmp_path) == 1 and os.listdir(lock) == ['holder'] and left(fake) == {'.venv.lock'}


def test_what_dead_makers_of_this_host_left_goes_with_the_next(fake, tmp_path):
    gone = subprocess.Popen(['true'])
    gone.wait()
    here = socket.gethostname()
    for name in ('%s-%d' % (here, gone.pid), '%s-%d.%d' % (here, os.getpid(), gone.pid), '%s-1' % here,
                 '%s-%d' % (here, os.getpid()), '%s-2-%d' % (here, gone.pid), 'another-host-%d' % gone.pid):
        (fake.mine / ('.venv.new-%s' % name) / 'half').mkdir(parents=True)
    assert harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env).output == 'ran x\n'
    assert left(fake) == {'.venv.new-%s-1' % here, '.venv.new-%s-%d' % (here, os.getpid()),
                          '.venv.new-%s-2-%d' % (here, gone.pid), '.venv.new-another-host-%d' % gone.pid}


def test_a_maker_whose_directory_was_taken_away_publishes_nothing(fake, tmp_path):
    """It lives unseen, as in another PID namespace, and a maker that took it for dead is at the same venv."""
    slow = start(fake, UNTIL=tmp_path / 'go')
    new = fake.mine / ('.venv.new-%s-%d' % (socket.gethostname(), slow.pid))
    new.rename(fake.mine / 'aside')
    (tmp_path / 'go').touch()
    said = slow.communicate(timeout=60)
    assert said[0] == b'ran x\n' and b'the venv for your packages could not be made' in said[1]
    assert not (fake.mine / 'user-software/venv/jax').exists()


def test_a_venv_that_cannot_be_made_is_said_and_the_command_runs(fake):
    (fake.mine / 'user-software').chmod(0o755)
    (fake.mine / 'user-software' / 'venv').write_text('in the way')
    result = harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env)
    assert result.stdout == 'ran x\n' and left(fake) == set()
    assert result.stderr.startswith('warning: jax/24.10: the venv for your packages could not be made\n  reason  ')
    assert result.stderr.endswith('hint: df -h "%s"; ls -ld "%s"\n' % (fake.mine, fake.mine))


def test_where_the_lock_cannot_be_made_nobody_waits(fake):
    fake.mine.chmod(0o555)
    try:
        result = harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env, timeout=50)
    finally:
        fake.mine.chmod(0o755)
    assert result.stdout == 'ran x\n' and 'reason  cannot make %s/.venv.new-' % fake.mine in result.stderr


def test_an_overlay_that_one_may_only_read_is_left_alone(fake, tmp_path):
    (fake.mine / 'user-software').chmod(0o555)
    assert harness.run([fake.root / 'bin' / 'python', 'x'], env=fake.env).output == 'ran x\n'
    assert not (tmp_path / 'home' / 'made').exists()


# --- Python, with real images ---------------------------------------------------------------------------------------

@pytest.fixture
def home(tmp_path):
    """A home directory as the image sees it: variables for Apptainer (dict)."""
    (tmp_path / 'inner').mkdir()
    return {'APPTAINER_HOME': '%s:%s' % (tmp_path / 'inner', os.path.expanduser('~%s' % os.environ['USER']))}


@pytest.mark.e2e
@pytest.mark.parametrize('image', ['jax', 'venv', 'conda', 'python'])
def test_the_first_wrapper_makes_the_venv_of_a_user_and_packages_of_the_image_are_seen(standin, image):
    """Also without ensurepip (jax), where the image's Python is itself a venv, and with the Python of conda."""
    module = standin(image)
    env = {'jax': 'jax', 'venv': 'tools', 'conda': 'science', 'python': 'py'}[image]
    assert not module.overlay.exists()
    result = module.run('python3' if image == 'python' else 'python', '-c', WHO + '; import pip; '
                        + ('' if image == 'python' else 'import tqdm; print(tqdm.__version__)'))
    assert result.stdout.split()[0].rstrip('3') == VENV % env and result.stderr == ''
    assert image == 'python' or result.stdout.split()[1] == '4.66.1'
    assert {path.name for path in module.overlay.iterdir()} == {
        '%s.sif' % image, 'made-for', 'runscripts', 'user-software'}


@pytest.mark.e2e
@pytest.mark.parametrize('image', ['jax', 'venv', 'conda'])
def test_the_overlay_comes_before_the_image(standin, tmp_path, home, image):
    """An absolute first line of a script in the image names a Python that knows no venv: its wrapper mends that."""
    module = standin(image)
    env = module.env(**home)
    assert module.run('tqdm', '--version', env=env).stdout == '4.66.1\n'
    result = module.run('pip', 'install', '--quiet', '--no-index', library.package(tmp_path, 'tqdm', '9.8'), env=env)
    assert result.stderr == ''
    assert module.run('python', '-c', 'import tqdm; print(tqdm.__version__)', env=env).stdout == '9.8\n'
    assert module.run('tqdm', env=env).stdout == 'tqdm 9.8\n'
    assert list((tmp_path / 'inner').rglob('*')) == []
    assert module.run('list-packages', 'tqdm', env=env).stdout.splitlines()[1] == 'tqdm     9.8      overlay'
    again = module.run('pip', 'install', '--quiet', '--no-index', '--upgrade',
                       library.package(tmp_path, 'tqdm', '9.9', 'tqdm'), env=env)
    assert again.stderr == '' and module.run('tqdm', env=env).stdout == 'tqdm 9.9\n'
    assert harness.run(['grep', '-c', 'user-software', module.overlay / 'user-software/venv' / name_of(module)
                        / 'bin/tqdm']).stdout == '1\n'


def name_of(module):
    return os.listdir(module.overlay / 'user-software' / 'venv')[0]


@pytest.mark.e2e
def test_packages_of_the_home_directory_are_not_seen(standins, tmp_path, home):
    """Defect 28 of the peers: ~/.local shadowed packages of the image."""
    module = standins('jax')
    site = tmp_path / 'inner' / '.local' / 'lib' / 'python3.11' / 'site-packages' / 'tqdm'
    site.mkdir(parents=True)
    (site / '__init__.py').write_text('__version__ = "of the home"\n')
    for command in ([module.bin / 'python'], ['apptainer', '--quiet', 'exec', '--env', 'PYTHONNOUSERSITE=', module.sif,
                                              'python3']):
        out = harness.run([*command, '-c', 'import tqdm; print(tqdm.__version__)'], env=module.env(**home)).stdout
        assert out == ('4.66.1\n' if len(command) == 1 else 'of the home\n')  # it would be, if it were not for us


@pytest.mark.e2e
def test_pip_never_installs_into_the_home_directory(standin, tmp_path, home):
    module = standin('jax')
    result = module.run('pip', 'install', '--user', '--no-index', library.package(tmp_path, 'small', '1'), check=False,
                        env=module.env(**home))
    assert result.status != 0 and 'ERROR: ' in result.stderr
    assert list((tmp_path / 'inner').rglob('small')) == []


@pytest.mark.e2e
def test_pip_in_a_packed_overlay_fails_loudly(standin, tmp_path, home):
    module = standin('jax')
    env = module.env(**home)
    module.run('pip', 'install', '--quiet', '--no-index', library.package(tmp_path, 'small', '1'), env=env)
    module.run('make-squashfs', env=env)
    result = module.run('pip', 'install', '--no-index', '--upgrade', library.package(tmp_path, 'small', '2'), env=env,
                        check=False)
    assert result.status == 1 and 'the overlay is packed, packages cannot be ' in result.stderr
    assert list((tmp_path / 'inner').rglob('small')) == []
    assert module.run('python', '-c', 'import small; print(small.__version__)', env=env).stdout == '1\n'


@pytest.mark.e2e
def test_certificates_of_the_site_are_what_pip_and_ssl_use(images, tmp_path):
    bundle = tmp_path / 'certificates of the site.pem'
    bundle.write_text(open(harness.CA_BUNDLE).read())
    module = library.install(images.sif('python'), 'python', tmp_path / 'own',
                             settings={'ca_certificates': str(bundle)}, python_env='py', commands=['python3', 'pip'])
    code = ('import os, ssl; print(ssl.get_default_verify_paths().cafile, os.environ["PIP_CERT"], '
            'os.environ["REQUESTS_CA_BUNDLE"], len(ssl.create_default_context().get_ca_certs()), sep="|")')
    env = module.env(PIP_CERT=None, REQUESTS_CA_BUNDLE=None, SSL_CERT_FILE=None)
    found = module.run('python3', '-c', code, env=env).stdout.strip().split('|')
    assert found[:3] == [str(bundle)] * 3 and int(found[3]) > 0
    users = module.run('python3', '-c', 'import os; print(os.environ["PIP_CERT"])', env=dict(env, PIP_CERT='/mine'))
    assert users.stdout == '/mine\n'


# --- conda ----------------------------------------------------------------------------------------------------------

ACTIVE = ('$WITH_CONDA && python -c "import os, sys; print(sys.executable, os.environ[\'CONDA_PREFIX\'], '
          'os.environ[\'SCIENCE_ACTIVATED\'])"')


@pytest.mark.e2e
@pytest.mark.parametrize('shell', ['dash', 'bash'])
def test_conda_is_activated_and_the_overlay_stays_in_front(standins, shell):
    module = standins('conda')
    result = module.shell('singularity --quiet exec "$SIF" %s -c %s' % (shell, "'%s'" % ACTIVE.replace("'", "'\\''")))
    assert result.stdout == VENV % 'science' + ' /opt/miniconda3/envs/science 1\n' and result.stderr == ''
    both = ACTIVE.replace('WITH_CONDA', 'WITH_CONDA_VENV')
    result = module.shell('singularity --quiet exec "$SIF" %s -euc %s' % (shell, "'%s'" % both.replace("'", "'\\''")))
    assert result.stdout == VENV % 'science' + ' /opt/miniconda3/envs/science 1\n' and result.stderr == ''


@pytest.mark.e2e
def test_without_activation_conda_is_on_the_path_behind_the_overlay(standins):
    module = standins('conda')
    result = module.run('start-shell', '-c', 'echo "$PATH|$CONDA_PREFIX|$CONDA_DEFAULT_ENV"; which -a python')
    path, prefix, name = result.stdout.splitlines()[0].split('|')
    assert path.startswith('/runscripts:/user-software/venv/science/bin:/opt/miniconda3/envs/science/bin:')
    assert (prefix, name) == ('/opt/miniconda3/envs/science', 'science')
    assert result.stdout.splitlines()[1:3] == [VENV % 'science', '/opt/miniconda3/envs/science/bin/python']


@pytest.mark.e2e
def test_an_image_that_defines_with_conda_keeps_it(standins):
    module = standins('conda-active')
    result = module.shell('echo "$WITH_CONDA"; singularity --quiet exec "$SIF" bash -c \'echo "$WITH_CONDA"; '
                          '$WITH_CONDA && $WITH_VENV && which python; echo "$CONDA_PREFIX"; '
                          '$WITH_CONDA_VENV && which python\'')
    assert result.stdout.splitlines() == ['. /opt/miniconda3/bin/activate science'] * 2 + [
        VENV % 'science', '/opt/miniconda3/envs/science', VENV % 'science']


@pytest.mark.e2e
@pytest.mark.parametrize('image', ['jax', 'venv'])
def test_with_conda_is_nothing_where_the_image_has_none(standins, image):
    result = standins(image).shell('singularity --quiet exec "$SIF" sh -c \'$WITH_CONDA && $WITH_VENV && '
                                   '$WITH_CONDA_VENV && echo "$PATH"\'')
    venv = VENV % {'jax': 'jax', 'venv': 'tools'}[image]
    assert result.stdout.startswith('/runscripts:') or result.stdout.startswith(os.path.dirname(venv))


@pytest.mark.e2e
def test_conda_that_cannot_be_activated_fails(standins, tmp_path):
    """Defect 17 of the peers: a failed activation was hidden, and the wrong Python went on."""
    module = standins('conda')
    (tmp_path / 'conda.sh').write_text('conda() { echo "no such environment" >&2; return 1; }\n')
    env = module.env(APPTAINER_BIND='%s:/opt/miniconda3/etc/profile.d/conda.sh' % (tmp_path / 'conda.sh'))
    for command in ('. /runscripts/init-conda', '. /runscripts/init-conda-venv', 'conda-python-simple -c "print(1)"'):
        result = module.run('start-shell', '-c', command + ' || echo failed', env=env)
        assert (result.stdout, result.stderr) == ('failed\n', 'no such environment\n')


@pytest.mark.e2e
@pytest.mark.parametrize('image, venv', [('jax', 'jax'), ('conda', 'science'), ('python', 'py')])
def test_conda_python_simple_becomes_python(standins, image, venv):
    module = standins(image)
    result = module.shell('singularity --quiet exec "$SIF" conda-python-simple -c %r "a b" ""' % (
        'import sys; print(sys.executable, sys.argv[1:]); sys.exit(3)'), check=False)
    assert (result.status, result.stdout) == (3, VENV % venv + " ['a b', '']\n")


# --- start-shell and list-packages ----------------------------------------------------------------------------------

@pytest.mark.e2e
@pytest.mark.parametrize('image, line, shown', [('jax', 'command -v python', VENV % 'jax'),
                                                ('busybox', 'echo "<$WITH_CONDA>"', '<true>')])
def test_a_shell_on_a_terminal_has_everything_activated(standins, image, line, shown):
    """Defect 34 of the peers: the activation was passed as text, or lost. Also in an image without bash."""
    module, prompt = standins(image), '[%s.sif] / $ ' % image
    status, text = library.on_terminal([module.bin / 'start-shell'], dict(module.env(), PS1='mine', TERM='xterm'),
                                       [(prompt, line + '\r'), (prompt, 'exit 7\r')], cwd='/')
    assert status == 7 and shown in text
    assert 'Apptainer>' not in text and 'job control' not in text


@pytest.mark.e2e
def test_a_shell_with_arguments_does_what_bash_would(standins, tmp_path):
    module = standins('jax')
    script = tmp_path / 'a script'
    script.write_text('#!/usr/bin/false\necho "$0|$1|$#|$VIRTUAL_ENV|${BASH_VERSION%%.*}"\nexit 9\n')
    result = module.run('start-shell', script, 'x y', '', check=False)
    assert (result.status, result.stdout) == (9, '%s|x y|2|/user-software/venv/jax|5\n' % script)
    assert module.run('start-shell', '-c', 'echo "$@" "$0"', 'zero', 'one').stdout == 'one zero\n'
    assert module.run('start-shell', '-euc', 'false; echo no', check=False).status == 1


@pytest.mark.e2e
@pytest.mark.parametrize('image', ['conda', 'busybox'])
def test_a_shell_reads_a_script_from_its_standard_input(standins, image):
    result = standins(image).run('start-shell', stdin='echo "<${SCIENCE_ACTIVATED-}>"\nexit 4\n', check=False)
    assert (result.status, result.stderr) == (4, '')
    assert result.stdout == ('<1>\n' if image == 'conda' else '<>\n')


@pytest.mark.e2e
def test_packages_are_listed_with_where_they_come_from(standin, tmp_path):
    module = standin('jax')
    module.run('pip', 'install', '--quiet', '--no-index', library.package(tmp_path, 'Small_Thing', '1.0'))
    table = module.run('list-packages').stdout.splitlines()
    assert table[0].split() == ['Package', 'Version', 'From'] and len({line.index('  ') >= 0 for line in table}) == 1
    rows = [line.split() for line in table[1:]]
    assert ['Small_Thing', '1.0', 'overlay'] in rows and ['tqdm', '4.66.1', 'image'] in rows
    names = [row[0].lower().replace('_', '-') for row in rows]
    assert names == sorted(names)
    assert json.loads(module.run('list-packages', '--json', 'small.thing').stdout) == [
        {'name': 'Small_Thing', 'version': '1.0', 'from': 'overlay'}]
    result = module.run('list-packages', 'tqdm', 'nothing', check=False)
    assert result.status == 1 and result.stdout.splitlines()[1].split() == ['tqdm', '4.66.1', 'image']
    assert result.stderr == 'error: list-packages: not installed: nothing\nhint: pip install nothing\n'
    assert 'usage: list-packages [-h] [--json] [NAME ...]' in module.run('list-packages', '--help').stdout
    assert module.run('list-packages', '--wrong', check=False).status == 2


@pytest.mark.e2e
def test_packages_are_listed_into_a_pipe_that_closes(standins):
    result = harness.run(['bash', '-c', '"$0" | head -n 1', standins('jax').bin / 'list-packages'],
                         env=standins('jax').env())
    assert result.stdout.split() == ['Package', 'Version', 'From'] and result.stderr == ''


@pytest.mark.e2e
def test_an_image_without_python_has_no_packages_to_list(standins):
    result = standins('busybox').run('list-packages', check=False)
    assert (result.status, result.stderr) == (1, (
        'error: busybox/1: the image has no Python, so there are no packages to list\n'
        'hint: start-shell, then ask the package manager of the image\n'))


@pytest.mark.e2e
def test_the_help_of_a_module_names_what_it_offers(installed_jax, shell):
    said = shell('module help jax; module whatis jax', prefix=installed_jax).output
    for words in ('Composable transformations', 'python, python3, pip', 'start-shell', 'singularity exec $SIF',
                  'pip install', 'list-packages', 'make-squashfs', 'unmake-squashfs'):
        assert words in said
