# SPDX-License-Identifier: GPL-2.0-only
"""easysif overlay install, export, rebuild in real containers, with wheels and an index of our own, pip and uv."""

import hashlib
import http.server
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from functools import partial

import pytest

import harness
import standins
import toys

pytest_plugins = ['standin_fixtures']
pytestmark = pytest.mark.e2e

HINT = 'hint: to have another one nevertheless: PIP_CONSTRAINT=/dev/null '


class Index:
    """A package index of wheels made on the spot, served on the loopback address with hashes: ``url``.

    :param directory: where it is (Path)
    """

    def __init__(self, directory):
        self.directory = directory
        (directory / 'simple').mkdir(parents=True)
        handler = partial(Quiet, directory=directory)
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self.url = 'http://127.0.0.1:%d/simple' % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name, version, **options):
        """Add a wheel and return its sha256 (str)."""
        wheel = standins.package(self.directory, name, version, **options)
        self.list(name)
        return hashlib.sha256(wheel.read_bytes()).hexdigest()

    def remove(self, name, version):
        """Remove a wheel."""
        (self.directory / ('%s-%s-py3-none-any.whl' % (name, version))).unlink()
        self.list(name)

    def list(self, name):
        """Write the page of a package."""
        page = self.directory / 'simple' / name / 'index.html'
        page.parent.mkdir(exist_ok=True)
        page.write_text('<!DOCTYPE html><html><body>%s</body></html>' % ''.join(
            '<a href="../../%s#sha256=%s">%s</a>\n' % (path.name, hashlib.sha256(path.read_bytes()).hexdigest(),
                                                       path.name)
            for path in sorted(self.directory.glob('%s-*.whl' % name))))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def index(tmp_path):
    """An index with `alpha` in two versions, which wants `beta`, and another `tqdm` than the image's (Index)."""
    running = Index(tmp_path / 'index')
    running.hashes = {'alpha': running.add('alpha', '1.0', requires=['beta']), 'beta': running.add('beta', '1.5')}
    running.add('alpha', '2.0', requires=['beta'])
    running.add('gamma', '1')
    running.add('tqdm', '9.0')
    running.add('wants', '1', requires=['tqdm'])
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture(scope='module')
def installed(images, tmp_path_factory):
    """A module of an image whose Python brings tqdm 4.66.1, which the recipe names, installed once (Module)."""
    prefix = tmp_path_factory.mktemp('packages') / 'pre fix'
    return standins.install(images.sif('venv'), 'tools', prefix, provides=['tqdm/4.66.1'],
                            **standins.RECIPES['venv'])


@pytest.fixture
def module(installed, index, tmp_path):
    """The same for a user with an empty overlay of their own; ``env`` finds our index only (Module)."""
    marker = installed.prefix / 'easysif' / 'prefix.json'
    marker.chmod(0o444)
    mine = installed.installed_for(tmp_path)
    variables = {name: None for name in harness.INDEX if name.startswith('PIP_')}
    known = installed.env
    mine.env = lambda **changes: type(mine).env(mine, **{
        **variables, 'PIP_INDEX_URL': index.url, 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PIP_NO_CACHE_DIR': '1',
        'UV_PYTHON_DOWNLOADS': 'never', 'PYTHONPATH': os.pathsep.join(sys.path), **changes})
    assert known
    return mine


@pytest.fixture
def easysif(module):
    """A function that runs ``easysif overlay`` for the module: ``easysif('install', *args, **variables)`` (Result)."""
    def call(command, *args, check=True, **variables):
        return harness.run([sys.executable, '-m', 'easysif.cli', 'overlay', command, module.name, *args, '--prefix',
                            module.prefix], env=module.env(**variables), check=check)
    return call


def record(module):
    """Return what is recorded of packages: asked (list of str), resolved: name -> (version, sha256) (dict)."""
    known = json.loads((module.overlay / 'overlay.json').read_text())['packages']
    return known['asked'], {one['name']: (one['version'], one['sha256']) for one in known['resolved']}


def versions(module):
    """Return what Python finds in the overlay: name -> version (dict of str)."""
    told = json.loads(module.run('list-packages', '--json').stdout)
    return {one['name']: one['version'] for one in told if one['from'] == 'overlay' and one['name'] != 'pip'}


def test_what_is_installed_is_recorded_written_down_and_made_anew_elsewhere(module, easysif, index, tmp_path):
    quoted = shlex.quote(str(module.prefix))
    (tmp_path / 'requirements.txt').write_text('alpha<2  # for the course\n')
    asked = ['install', '-r', tmp_path / 'requirements.txt']
    module.run('python', '-c', '')  # makes the virtual environment
    before = toys.snapshot(module.overlay)
    assert easysif(*asked, '--dry-run').stdout == 'would install  alpha 1.0\nwould install  beta 1.5\n'
    would = json.loads(easysif(*asked, '--dry-run', '--json').stdout)
    assert toys.snapshot(module.overlay) == before and would['dry_run'] is True
    done = easysif(*asked)
    assert done.stdout == 'installed  alpha 1.0\ninstalled  beta 1.5\n'
    known = json.loads((module.overlay / 'overlay.json').read_text())['packages']
    assert {name: would[name] for name in ('asked', 'resolved')} == known and would['module'] == 'tools/1'
    assert [one['name'] for one in would['installed']] == ['alpha', 'beta']
    exact = {'alpha': ('1.0', index.hashes['alpha']), 'beta': ('1.5', index.hashes['beta'])}
    assert record(module) == (['alpha<2'], exact)
    assert easysif('install', 'alpha').stdout == 'tools/1 has all of it already\n'
    gamma = hashlib.sha256((index.directory / 'gamma-1-py3-none-any.whl').read_bytes()).hexdigest()
    module.run('pip', 'install', 'gamma', env=module.env())
    index.add('delta', '1')
    module.run('pip', 'install', 'delta', env=module.env())
    index.remove('delta', '1')
    lock = tmp_path / 'tools.lock'
    told = easysif('export', '--output', lock)
    assert told.stdout == '4 packages of tools/1: %s\n' % lock
    assert told.stderr == 'warning: without hash, as no index has it: delta==1\n'
    text = lock.read_text()
    found = json.loads(easysif('export', '--json').stdout)
    assert (found['module'], found['output']) == ('tools/1', None)
    assert found['without_hash'] == {'delta==1': 'no index has it'}
    assert {one['name']: one['version'] for one in found['packages']} == {
        'alpha': '1.0', 'beta': '1.5', 'gamma': '1', 'delta': '1'}
    assert '# module: tools/1\n' in text and '# python: 3.11.' in text and '# without hash: delta==1\n' in text
    assert 'gamma==1 \\\n    --hash=sha256:%s\n' % gamma in text

    module.run('make-squashfs', '--remove', env=module.env())
    assert easysif('export').stdout == text  # packed
    packed = easysif('install', 'gamma', check=False)
    assert (packed.status, packed.stderr) == (
        1, 'error: tools/1: the overlay is packed, packages cannot be added\n  directory  %s\n'
        'hint: easysif overlay unpack tools/1 --prefix %s\n' % (module.overlay, quoted))

    inside = module.run('start-shell', '-c', 'python -m pip install gamma; pip install gamma', env=module.env(),
                        check=False)
    assert inside.stderr == 2 * (
        'error: pip: the overlay is packed, packages cannot be installed\nhint: unmake-squashfs && module reload, then '
        'the same again (on the host: exit first if you are inside)\n')

    away = module.overlay.rename(tmp_path / 'away')  # another machine
    module.run('pip', 'install', '--no-deps', '-r', lock, env=module.env())  # plain pip reads it
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5', 'gamma': '1'}
    shutil.rmtree(module.overlay)
    failed = easysif('rebuild', '--from', lock, check=False)
    assert failed.status == 1 and failed.stdout == ''
    assert failed.stderr.startswith('error: tools/1: delta==1 could not be had: ERROR: Could not find a version that '
                                    'satisfies the requirement delta==1')
    assert failed.stderr.endswith('hint: nothing was changed; for the others alone: '
                                  'easysif overlay rebuild tools/1 --partial --prefix %s\n' % quoted)
    assert versions(module) == {} and not (module.overlay / 'overlay.json').exists()
    part = easysif('rebuild', '--from', lock, '--partial', check=False)
    assert part.status == 1 and part.stderr.count('could not be had') == 1
    assert record(module)[1] == dict(exact, gamma=('1', gamma))
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5', 'gamma': '1'}
    assert {path.name for path in (module.overlay / 'user-software').iterdir()} == {'venv'}
    sif = toys.sha256(module.sif)
    made_for = 'python 3.11\nat /opt/venv/bin/python3\nimage sha256:%s\n' % sif
    assert (module.overlay / 'made-for').read_text() == made_for
    assert away.is_dir()


def test_packages_for_another_python_are_made_anew_for_that_of_the_image(module, easysif, index):
    easysif('install', 'alpha<2')
    made_for = module.overlay / 'made-for'
    venv = module.overlay / 'user-software' / 'venv' / 'tools'
    now = made_for.read_text()
    (venv / 'lib' / 'python3.11').rename(venv / 'lib' / 'python3.9')
    made_for.write_text(now.replace('python 3.11', 'python 3.9'))
    refused = easysif('install', 'gamma', check=False)
    assert refused.status == 1 and refused.stderr.startswith(
        'error: tools/1: the overlay is for another Python, packages cannot be added\n'
        '  made for       Python 3.9\n  the image has  Python 3.11.')
    assert '\nhint: easysif overlay rebuild tools/1 --prefix ' in refused.stderr
    told = easysif('rebuild').stdout
    assert 'with what %s has:\n  alpha 1.0\n  beta 1.5\n' % venv in told
    assert made_for.read_text() == now and versions(module) == {'alpha': '1.0', 'beta': '1.5'}
    assert record(module)[0] == ['alpha<2']


def test_after_loss_the_same_is_made_anew_and_what_was_there_is_kept(module, easysif, index):
    easysif('install', 'alpha==1.0')
    venv = module.overlay / 'user-software' / 'venv' / 'tools'
    (module.overlay / 'user-software' / 'mine').write_text('precious')
    shutil.rmtree(venv)
    before = toys.snapshot(module.overlay)
    would = easysif('rebuild', '--dry-run').stdout
    assert would == ('would make the virtual environment anew, with what %s has:\n  alpha 1.0\n  beta 1.5\n'
                     % (module.overlay / 'overlay.json'))
    assert toys.snapshot(module.overlay) == before
    assert 'the old one is kept' not in easysif('rebuild').stdout
    assert [path.name for path in venv.parent.iterdir()] == ['tools']
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5'}
    (venv / 'bin' / 'mine').write_text('of the old one')
    alpha = index.directory / 'alpha-1.0-py3-none-any.whl'
    genuine = alpha.read_bytes()
    index.add('alpha', '1.0', requires=['beta', 'gamma'])  # the same name, another file
    index.remove('beta', '1.5')
    built = index.directory / 'beta-1.5-1-py3-none-any.whl'  # the same version, another name
    standins.package(index.directory, 'beta', '1.5', command='beta').rename(built)
    index.list('beta')
    forged = easysif('rebuild', check=False)
    assert forged.status == 1 and ('alpha==1.0 could not be had: the file is another one than it was: alpha-1.0-py3'
                                   in forged.stderr)
    assert (venv / 'bin' / 'mine').exists()
    alpha.write_bytes(genuine)
    index.list('alpha')
    told = easysif('rebuild').stdout
    assert 'another file than it was: beta==1.5 (%s)\n' % built.name in told
    kept = module.overlay / 'user-software.before-rebuild'
    assert told.endswith("the old one is kept as %s; once you need it no more: rm -r -- %s\n" % (kept, kept))
    assert (kept / 'bin' / 'mine').exists() and not (venv / 'bin' / 'mine').exists()
    assert (module.overlay / 'user-software' / 'mine').read_text() == 'precious'
    assert ' is kept as %s-2; ' % kept in easysif('rebuild').stdout
    assert 'old        %s-2, of before a rebuild; ' % kept in easysif('status').stdout
    assert [path.name for path in venv.parent.iterdir()] == ['tools']  # so it is not packed
    module.run('make-squashfs', env=module.env())
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5'}
    assert easysif('remove', '--yes').stdout.count('.before-rebuild') == 2
    assert not list(module.overlay.glob('user-software*'))


def test_what_the_image_brings_is_protected(module, easysif):
    quoted = shlex.quote(str(module.prefix))
    told = module.run('pip', 'install', 'tqdm==9.0', env=module.env(), check=False)
    assert told.status == 1 and 'error: pip: tqdm is of the image, and protected' in told.stderr
    assert told.stderr.endswith(HINT + 'pip install tqdm==9.0\n')
    hook, = module.overlay.glob('user-software/venv/tools/lib/*/site-packages/easysif.pth')
    hook.unlink()  # as in an environment that was made earlier
    module.run('pip', 'uninstall', '--yes', 'gamma', env=module.env())
    assert hook.exists()
    told = module.run('start-shell', '-c', 'python3 -Im pip install tqdm==9.0', env=module.env(), check=False)
    assert told.status == 1 and told.stderr.endswith(HINT + 'pip install tqdm==9.0\n')
    assert not list((module.root / 'runscripts').rglob('*.pyc'))
    told = easysif('install', 'tqdm>5', check=False)
    assert told.status == 1 and '\n  the image has  tqdm==4.66.1\n' in told.stderr
    assert told.stderr.endswith(HINT + "easysif overlay install tools/1 'tqdm>5' --prefix %s\n" % quoted)
    easysif('install', 'wants')
    assert versions(module) == {'wants': '1'}
    assert module.run('pip', 'install', '--force-reinstall', 'wants', env=module.env(), check=False).status == 1
    for hint in ('', '/dev/null'):
        module.run('pip', 'install', 'tqdm==9.0', env=module.env(PIP_CONSTRAINT=hint))
        assert versions(module)['tqdm'] == '9.0'
        module.run('pip', 'uninstall', '--yes', 'tqdm', env=module.env())
    loaded = module.shell('pip install tqdm==9.0 || PIP_CONSTRAINT= pip install tqdm==9.0', env=module.env())
    assert HINT in loaded.stderr and versions(module)['tqdm'] == '9.0'
    easysif('rebuild')
    assert versions(module) == {'wants': '1', 'tqdm': '9.0'}  # it was asked for


def test_an_index_that_cannot_be_reached_is_no_index_without_a_package(module, easysif, index, tmp_path):
    index.add('delta', '1')
    module.run('pip', 'install', 'delta', env=module.env())
    index.remove('delta', '1')
    away = 'http://me:secret@127.0.0.1:9/simple'
    told = easysif('export', '--extra-index-url', away, '--output', tmp_path / 'lock', check=False, PIP_RETRIES='0')
    assert told.status == 3 and not (tmp_path / 'lock').exists()
    first, address, why, hint = told.stderr.splitlines()
    assert first == 'error: tools/1: the package index cannot be reached to ask for hashes, nothing was written'
    assert address == '  address  http://127.0.0.1:9/simple/delta/' and why.startswith('  reason   connection error: ')
    assert hint == 'hint: look at PIP_INDEX_URL, https_proxy and pip.conf: pip inside the image uses yours'
    for command, before in (('install', ''), ('rebuild', 'nothing was changed; ')):
        told = easysif(command, *['gamma'] * (command == 'install'), check=False, PIP_INDEX_URL=away, PIP_RETRIES='0')
        assert told.status == 3 and 'error: tools/1: pip cannot reach the package index\n  address  ' in told.stderr
        assert told.stderr.endswith('\nhint: %s%s\n' % (before, hint[len('hint: '):]))
        assert 'secret' not in told.stderr
    plain = module.run('start-shell', '-c', 'python -m pip install gamma', check=False,
                       env=module.env(PIP_INDEX_URL=away, PIP_RETRIES='0'))
    assert ('error: pip: the package index cannot be reached\n  address  http://127.0.0.1:9/simple/gamma/'
            in plain.stderr)


def test_an_index_that_is_a_directory_is_seen_inside(module, easysif, index, tmp_path):
    """Of the host's files nothing is seen there otherwise."""
    apart = {'APPTAINER_CONTAIN': '1', 'PIP_INDEX_URL': 'file://%s/simple' % index.directory}
    assert easysif('install', 'gamma', **apart).stdout == 'installed  gamma 1\n'
    index.add('delta', '1')
    wheels = {'APPTAINER_CONTAIN': '1', 'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': str(index.directory)}
    assert easysif('install', 'delta', **wheels).stdout == 'installed  delta 1\n'
    wheel = index.directory / 'alpha-1.0-py3-none-any.whl'
    (tmp_path / 'pip.conf').write_text('[global]\nfind-links = %s\n' % index.directory)
    assert easysif('install', 'alpha @ file://%s' % wheel, APPTAINER_CONTAIN='1', PIP_NO_INDEX='1',
                   PIP_CONFIG_FILE=tmp_path / 'pip.conf').stdout == (
                       'installed  alpha 1.0\ninstalled  beta 1.5\nnot known  the hashes of alpha\n')
    project = tmp_path / 'project'
    (project / 'mine').mkdir(parents=True)
    (project / 'mine' / '__init__.py').touch()
    (project / 'setup.py').write_text('from setuptools import setup\n'
                                      'setup(name="mine", version="3", packages=["mine"])\n')
    assert easysif('install', str(project), APPTAINER_CONTAIN='1', PIP_NO_BUILD_ISOLATION='0').stdout == (
        'installed  mine 3\nnot known  the hashes of mine\n')
    nothing = easysif('install', 'x', '--find-links', tmp_path / 'nothing', check=False)
    assert nothing.stderr == ('error: easysif overlay install: --find-links names nothing that is there\n  value  %s\n'
                              'hint: ls -ld %s\n' % ((tmp_path / 'nothing',) * 2))
    ignored = easysif('install', 'x', check=False, PIP_FIND_LINKS='/no/such')
    assert "\n  pip  Location '/no/such' is ignored: " in ignored.stderr


@pytest.fixture(scope='session')
def uv(tmp_path_factory):
    """A static uv, from the package index (Path)."""
    directory = tmp_path_factory.mktemp('uv')
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--target', directory, '--platform',
                    'musllinux_1_1_%s' % os.uname().machine, '--only-binary', ':all:', 'uv'], check=True)
    return directory / 'bin' / 'uv'


def test_uv_of_the_host_installs_what_pip_chose(module, easysif, index, uv):
    without = easysif('install', '--with', 'uv', 'alpha', check=False)
    assert without.status == 1 and without.stderr.startswith(
        'error: tools/1: there is no uv in the image, nor one on this host that could run in it\n'
        'hint: easysif overlay install tools/1 uv --prefix ')
    assert without.stderr.endswith(
        'then the same again; or one for this host: pip install --target DIR --platform musllinux_1_1_%s --only-binary '
        ':all: uv; export PATH=DIR/bin:$PATH\n' % os.uname().machine)
    path = '%s:%s' % (uv.parent, module.env()['PATH'])
    done = easysif('install', '--with', 'uv', 'alpha<2', 'wants', PATH=path)
    assert done.stdout == 'installed  alpha 1.0\ninstalled  beta 1.5\ninstalled  wants 1\n'
    assert record(module)[1]['alpha'] == ('1.0', index.hashes['alpha'])
    assert not list(module.overlay.rglob('*cache'))
    installer, = (module.overlay / 'user-software' / 'venv').glob('tools/lib/*/site-packages/alpha-*/INSTALLER')
    assert installer.read_text() == 'uv'
    inside = 'uv pip install %s --index-url ' + index.url
    refused = module.run('start-shell', '-c', 'PATH=%s:$PATH; %s' % (uv.parent, inside % 'tqdm'),
                         env=module.env(SINGULARITY_BINDPATH=uv.parent), check=False)
    assert refused.status == 1 and 'tqdm==4.66.1+brought.by.the.image' in refused.stderr
    module.run('start-shell', '-c', 'PATH=%s:$PATH; %s' % (uv.parent, inside % 'gamma'),
               env=module.env(SINGULARITY_BINDPATH=uv.parent))
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5', 'wants': '1', 'gamma': '1'}
    cache = module.overlay / 'user-software' / '.cache' / 'uv'
    assert (cache / 'CACHEDIR.TAG').exists() and list(cache.glob('archive-v*'))
    gamma, = (module.overlay / 'user-software' / 'venv').glob('tools/lib/*/site-packages/gamma/__init__.py')
    assert gamma.stat().st_nlink == 2  # one of them in the cache


def test_uv_of_the_image_takes_what_pip_chose_from_whatever_index(module, easysif, index, tmp_path):
    """It is in the overlay here, which is as good. Of two indexes uv itself looks into the first that knows it."""
    real = {name: harness.INDEX.get(name) for name in ('PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL')}
    module.run('pip', 'install', '--quiet', 'uv', env=module.env(**real))
    older = Index(tmp_path / 'older')
    older.add('alpha', '0.9')
    done = easysif('install', '--with', 'uv', 'alpha', PIP_EXTRA_INDEX_URL=older.url)
    assert done.stdout == 'installed  alpha 2.0\ninstalled  beta 1.5\n'
    older.server.shutdown()


def test_an_old_pip_installs_and_what_it_cannot_tell_is_told(module, easysif, index):
    """22.2 is the first that reports what it resolved."""
    real = {name: harness.INDEX.get(name) for name in ('PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL')}
    module.run('pip', 'install', '--quiet', 'pip==21.3.1', env=module.env(**real))
    assert easysif('install', 'alpha<2').stdout == (
        'installed  alpha 1.0\ninstalled  beta 1.5\nnot known  the hashes of alpha, beta\n')
    told = easysif('export')
    assert told.stderr == ('warning: without hash, as pip 21.3.1 does not tell, which 22.2 and newer do (pip install '
                           '--upgrade pip): alpha==1.0, beta==1.5\n')
    assert '# without hash: alpha==1.0\n' in told.stdout
    easysif('rebuild')
    assert versions(module) == {'alpha': '1.0', 'beta': '1.5'}
