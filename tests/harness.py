# SPDX-License-Identifier: GPL-2.0-only
"""What the end-to-end tests work with: the clone, its environment, the stand-in images, a registry, a shell.

The fixtures of conftest.py hand these out; session fixtures and benchmarks use them directly.
"""

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[1]
IMAGES = CLONE / 'tests' / 'images'
LMOD = Path('/usr/share/lmod/lmod')
LMOD_INIT = '. %s/init/bash' % LMOD
SYSTEM_PATH = '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin'
CA_BUNDLE = '/etc/ssl/certs/ca-certificates.crt'

# What tools/run-tests tells, read before the tests' environment is emptied of EASYSIF_*.
CACHE = Path(os.environ.get('EASYSIF_TEST_CACHE', '/nonexistent'))

# Environment Modules lie beside Lmod, which is the one that is installed.
MODULECMD = CACHE / 'environment-modules' / 'modulecmd.tcl'
MODULES_INIT = 'eval "$(tclsh %s bash autoinit)"' % MODULECMD

# What reaches the package index from inside an image. The certificates of a site are a setting: see site_settings.
INDEX = {name: value for name, value in os.environ.items()
         if name in ('PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL', 'PIP_TRUSTED_HOST', 'PIP_DEFAULT_TIMEOUT')
         or name.lower().endswith('_proxy')}

MANIFESTS = ('application/vnd.oci.image.manifest.v1+json', 'application/vnd.oci.image.index.v1+json')


def long(values):
    """Return what a test is parametrized with, left out of the fast mode: it differs little from what is tried there.

    :param values: one value, or a tuple of several
    """
    return pytest.param(*(values if isinstance(values, tuple) else (values,)), marks=pytest.mark.long)


@dataclass(frozen=True)
class Result:
    """What a command left: exit status (negative: the signal), what it printed (str)."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self):
        """Both outputs, one after the other (str)."""
        return self.stdout + self.stderr


def run(argv, env=None, stdin='', check=True, cwd=None, timeout=600):
    """Run a command and return its Result; with ``check`` anything but exit status 0 fails the test with its output.

    Its standard input is ``stdin`` (str or bytes), never a terminal. Output is decoded as UTF-8, replacing what is not.
    """
    process = subprocess.run([str(arg) for arg in argv], env=env, cwd=cwd, timeout=timeout, capture_output=True,
                             input=stdin.encode() if isinstance(stdin, str) else stdin)
    result = Result(process.returncode, *(data.decode('utf-8', 'replace') for data in (process.stdout, process.stderr)))
    if check and result.status:
        raise AssertionError('exit status %d of: %s\n%s' % (result.status, ' '.join(map(str, argv)), result.output))
    return result


def user_environment(home):
    """Return the environment of a user who has just logged in, with the container runtime on PATH (dict).

    :param home: the home directory, made if missing (path)
    """
    Path(home).mkdir(parents=True, exist_ok=True)
    return dict(INDEX, HOME=str(home), USER=os.environ.get('USER', 'user'), LANG='C.UTF-8', TERM='dumb',
                PATH='%s:%s' % (CACHE / 'runtime' / 'bin', SYSTEM_PATH), SHELL='/bin/bash',
                TMPDIR=os.environ.get('TMPDIR', '/tmp'))


def eb_environment(prefix, home, site=None):
    """Return the environment that tools/env.sh makes, for a prefix of the test's own (dict).

    :param site: site profile (path), the library's choice where None
    """
    env = user_environment(home)
    env.update(PYTHONPATH='%s:%s' % (CLONE, CLONE / 'tools'), EASYBUILD_PREFIX=str(prefix),
               EASYBUILD_MODULES_TOOL='Lmod', LMOD_CMD=str(LMOD / 'libexec' / 'lmod'),
               EB_PYTHON=str(CACHE / 'python' / 'bin' / 'python'), PYTHONDONTWRITEBYTECODE='1',
               PATH='%s:%s' % (CLONE / 'tools' / 'bin', env['PATH']))
    if site:
        env['EASYSIF_SITE'] = str(site)
    return env


def run_shell(script, prefix, home, env=None, **options):
    """Run a script in a fresh bash where Lmod is initialised and finds the modules below a prefix; return its Result.

    The script runs under ``set -e``. ``env`` adds to the user's environment; a value None takes a variable away.
    """
    environment = dict(user_environment(home), **(env or {}))
    environment = {name: str(value) for name, value in environment.items() if value is not None}
    start = LMOD_INIT + '; module use "$1"; shift; set -e\n'
    return run(['bash', '--noprofile', '--norc', '-c', start + script, 'bash', Path(prefix) / 'modules' / 'all'],
               env=environment, **options)


def peaks(argv, env):
    """Run a command and return the most memory that each of its processes took: id and name -> MiB (dict).

    Every process counts, whoever waits for it: they are looked at all the time.
    """
    mark, found = b'PEAKS=%d' % os.getpid(), {}
    with subprocess.Popen([str(arg) for arg in argv], env=dict(env, PEAKS=str(os.getpid())), stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for pid in filter(str.isdigit, os.listdir('/proc')):
                try:
                    if mark not in Path('/proc', pid, 'environ').read_bytes().split(b'\0'):
                        continue
                    status = dict(line.split(':', 1) for line in Path('/proc', pid, 'status').read_text().splitlines())
                except OSError:  # gone, or of somebody else
                    continue
                if 'VmHWM' in status:
                    name = '%s %s' % (pid, status['Name'].strip())
                    found[name] = max(found.get(name, 0), int(status['VmHWM'].split()[0]) / 1024)
            time.sleep(0.05)
    assert process.returncode == 0, argv
    return found


class Registry:
    """The registry of tests/images/serve over the stand-in images, as long as the with block lasts."""

    def __enter__(self):
        if not (CACHE / 'registry').is_dir():
            raise AssertionError('there are no stand-in images here: start the tests with tools/run-tests, not --fast')
        self.server = subprocess.Popen([IMAGES / 'serve', CACHE / 'registry'], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE)
        self.address = self.server.stdout.readline().decode().strip()
        assert self.address, 'docker-registry did not start'
        return self

    def __exit__(self, *exc_info):
        self.server.stdin.close()
        self.server.wait(timeout=60)

    @property
    def url(self):
        """Its URL, plain http (str)."""
        return 'http://%s' % self.address

    def manifest(self, repository, tag):
        """Return digest (``sha256:…``) and content of a manifest or an index (str, dict)."""
        request = urllib.request.Request('%s/v2/%s/manifests/%s' % (self.url, repository, tag),
                                         headers={'Accept': ', '.join(MANIFESTS)})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers['Docker-Content-Digest'], json.load(answer)


class Images:
    """The stand-in images, by the names of tests/images/NAME.image.

    :param registry: what serves them (Registry)
    """

    HOSTS = {'nvidia': 'nvcr.io', 'biocontainers': 'quay.io'}

    def __init__(self, registry):
        self.registry = registry

    def path(self, name):
        """Return repository and tag within the registry (str, str)."""
        text = (IMAGES / ('%s.image' % name)).read_text()
        return tuple(re.search('^reference=(.+)$', text, re.M).group(1).rsplit(':', 1))

    def upstream(self, name):
        """Return the reference that a recipe has for it, which only a mirror answers here: ``docker://…`` (str)."""
        repository, tag = self.path(name)
        return 'docker://%s/%s:%s' % (self.HOSTS.get(repository.split('/')[0], 'docker.io'), repository, tag)

    def local(self, name):
        """Return where it really is, plain http: ``docker://127.0.0.1:…`` (str)."""
        return 'docker://%s/%s' % (self.registry.address, ':'.join(self.path(name)))

    def digest(self, name):
        """Return the digest of its manifest: ``sha256:…`` (str)."""
        return self.registry.manifest(*self.path(name))[0]

    def sif(self, name):
        """Return a SIF file of it, read-only, built when it is first asked for and kept in the cache (Path)."""
        sif = CACHE / 'sif' / ('%s-%s.sif' % (name, self.digest(name)[7:19]))
        if not sif.exists():
            sif.parent.mkdir(exist_ok=True)
            part = sif.with_name('%s.%d' % (sif.name, os.getpid()))
            run(['apptainer', 'build', '--disable-cache', '--no-https', '--mksquashfs-args',
                 '-comp zstd -Xcompression-level 3 -b 256K -mem 256M', part, self.local(name)],
                env=user_environment(CACHE / 'home'))
            part.chmod(0o444)
            part.rename(sif)
        return sif


def site_settings(registry):
    """Return the settings of a site whose mirror is our registry (dict)."""
    settings = {'registry_mirrors': {host: [registry.url] for host in ('nvcr.io', 'quay.io', 'docker.io')}}
    if os.environ.get('PIP_CERT', CA_BUNDLE) != CA_BUNDLE:
        settings['ca_certificates'] = os.environ['PIP_CERT']
    return settings


def run_eb(args, prefix, home, site=None, env=None, **options):
    """Run the real ``eb`` of the clone and return its Result.

    :param env: variables on top of those of ``eb_environment`` (dict)
    """
    environment = dict(eb_environment(prefix, home, site), **(env or {}))
    return run(['eb', *args], env=environment, **options)


def unpinned(recipe, directory):
    """Return a recipe of ours as it is, or a copy of it without its digest: stand-ins have others (str).

    :param recipe: its path, or its file name (str)
    :param directory: where copies are written (Path)
    """
    path = Path(recipe) if '/' in str(recipe) else next((CLONE / 'easyconfigs').rglob(recipe))
    text = path.read_text()
    if '\ndigest = ' not in text:
        return str(recipe)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / path.name).write_text(''.join(
        line for line in text.splitlines(True) if not line.startswith('digest = ')))
    return str(directory / path.name)


def killed(call, number, function):
    """Run a function in a copy of this process that is killed where it uses a function of ``os``, the n-th time.

    :returns: whether it was (bool)
    """
    child = os.fork()
    if not child:
        left, original = [number], getattr(os, call)

        def kill(*args, **options):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)
        setattr(os, call, kill)
        try:
            function()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def age(directory):
    """Make all files below a directory an hour older."""
    for path in directory.rglob('*'):
        if path.is_file():
            os.utime(path, (time.time() - 3600,) * 2)
