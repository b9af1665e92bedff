# SPDX-License-Identifier: GPL-2.0-only
"""An installation that fails, at any step and in any way, leaves what stood there as it was."""

import os
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e

STEPS = ('fetch', 'ready', 'extract', 'patch', 'prepare', 'configure', 'build', 'test', 'install', 'extensions',
         'postiter', 'postproc', 'sanitycheck', 'cleanup', 'module', 'permissions', 'package', 'testcases')

#: those between which something of an environment module is made
CRITICAL = ('install', 'sanitycheck', 'module', 'package')

HOOK = '''
def post_%s_hook(self):
    if self.version.startswith(%r):
        raise EasyBuildError('injected after %s')
'''


class Matrix:
    """Recipes that fail after one step each: fresh, and again as a rebuild of an installation that stands."""

    def __init__(self, directory, toy, python, site):
        self.directory, self.prefix, self.site = directory, directory / 'prefix', site
        (directory / 'hooks.py').write_text('from easybuild.tools.build_log import EasyBuildError\n' + ''.join(
            HOOK % (step, step + '0', step) for step in STEPS))
        (directory / 'toy.sif').symlink_to(toy)
        (directory / 'python.sif').symlink_to(python)
        self.recipes = [toys.recipe(directory, version=step + '0', commands=['fine'], tests=['/usr/bin/true'],
                                    postinstallcmds=['touch %(installdir)s/mine']) for step in STEPS]
        self.recipes += [toys.recipe(directory, version=step + '0-env', image='python.sif', python_env='toy')
                         for step in CRITICAL]
        self.modules = ['toy/%s' % path.stem[len('toy-'):] for path in self.recipes]

    def run(self, *args):
        """Run one eb over all of them; return what it printed of each, by module (dict)."""
        result = harness.run_eb([*self.recipes, '--dump-test-report=%s' % (self.directory / 'report'), *args],
                                self.prefix, self.directory / 'home', self.site, check=False)
        parts = result.output.split('== processing EasyBuild easyconfig ')[1:]
        return dict(zip(self.modules, parts))

    def state(self, module):
        """Return all that is on disk of a module (dict)."""
        paths = {'overlay': self.prefix / 'overlays' / module, 'root': self.prefix / 'software' / module}
        state = {name: toys.snapshot(path) if path.exists() else None for name, path in paths.items()}
        for place in ('all', 'tools'):
            path = self.prefix / 'modules' / place / (module + '.lua')
            state[place] = (path.read_bytes() if path.exists() else None, path.is_symlink() and os.readlink(path))
        state['beside'] = sorted(path.name for path in (self.prefix / 'software' / 'toy').glob('*.*'))
        return state


@pytest.fixture(scope='module')
def matrix(tmp_path_factory, toy, images, registry):
    directory = tmp_path_factory.mktemp('matrix')
    site = directory / 'site.yaml'
    site.write_text(yaml.safe_dump(harness.site_settings(registry)))
    return Matrix(directory, toy, images.sif('python'), site)


@pytest.fixture(scope='module')
def fresh(matrix):
    """What eb printed, and what was there then, of recipes that failed where nothing stood: module -> (str, dict)."""
    printed = matrix.run('--hooks=%s' % (matrix.directory / 'hooks.py'))
    return {module: (printed[module], matrix.state(module)) for module in matrix.modules}, toys.files(matrix.prefix)


@pytest.fixture(scope='module')
def again(matrix, fresh):
    """The same of rebuilds that failed, with what stood there before: module -> (str, dict, dict)."""
    for module, text in matrix.run().items():
        assert 'COMPLETED: Installation ended successfully' in text, text
    for module in matrix.modules:
        overlay = matrix.prefix / 'overlays' / module
        if overlay.exists():
            (overlay / 'user-software' / 'mine').write_text('precious')
            (overlay / 'user-software' / 'mine').chmod(0o600)
            harness.run(['mksquashfs', overlay / 'user-software', overlay / 'user-software.squashfs', '-quiet'])
    before = {module: matrix.state(module) for module in matrix.modules}
    printed = matrix.run('--rebuild', '--hooks=%s' % (matrix.directory / 'hooks.py'))
    return {module: (printed[module], before[module], matrix.state(module)) for module in matrix.modules}


MODULES = ['toy/%s0' % step for step in STEPS] + ['toy/%s0-env' % step for step in CRITICAL]


@pytest.mark.parametrize('module', MODULES)
def test_a_fresh_installation_that_fails_leaves_nothing(fresh, module):
    text, state = fresh[0][module]
    assert 'injected after %s' % module[len('toy/'):].split('0')[0] in text, text
    assert state == {'overlay': None, 'root': None, 'all': (None, False), 'tools': (None, False), 'beside': []}


def test_failures_leave_no_file(fresh):
    assert fresh[1] == set()


@pytest.mark.parametrize('module', MODULES)
def test_a_rebuild_that_fails_leaves_what_stood_there(again, module):
    text, before, after = again[module]
    assert 'injected after %s' % module[len('toy/'):].split('0')[0] in text, text
    assert after == before
    assert before['root']['mine' if not module.endswith('env') else 'python.sif'] and before['all'][0]
    if module.endswith('env'):
        assert before['overlay']['user-software/mine'][0] == '-rw-------'


@pytest.fixture
def stands(eb, prefix, tmp_path, toy):
    """An installation with a command that starts at once or never ends, as $HANGS says: its recipe (Path)."""
    recipe = toys.recipe(tmp_path, commands=['hangs'])
    eb(recipe, '--sourcepath=%s' % toy.parent)
    return recipe


def running(marker):
    """Return the processes that have a text among their arguments or in their environment (dict of id to arguments)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            arguments, environment = (Path('/proc', pid, name).read_bytes() for name in ('cmdline', 'environ'))
        except OSError:  # gone, or of somebody else
            continue
        if marker.encode() in arguments + environment:
            found[int(pid)] = arguments.replace(b'\0', b' ').decode('utf-8', 'replace')
    return found


def in_sessions(sessions):
    """Return the ids of all processes that belong to some sessions (list of int)."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
        try:
            found += [pid] * (os.getsid(pid) in sessions)
        except ProcessLookupError:
            continue
    return found


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rebuild_leaves_no_trace(stands, prefix, tmp_path, toy, site_file, number):
    before = toys.snapshot(prefix, 'software/.locks')
    marker = 'marker-%s' % uuid.uuid4().hex
    env = dict(harness.eb_environment(prefix, tmp_path / 'home', site_file()), HANGS=marker)
    process = subprocess.Popen(['eb', stands, '--rebuild', '--sourcepath=%s' % toy.parent], env=env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not any('sleep 300' in line for line in running(marker).values()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    sessions = {os.getsid(pid) for pid in running(marker)}  # what serves the mounts has another environment
    os.killpg(process.pid, number)  # as a terminal and a batch system do
    assert process.wait(timeout=60) != 0
    while running(marker) or in_sessions(sessions):
        assert time.monotonic() < deadline, (running(marker), in_sessions(sessions))
        time.sleep(0.1)
    assert toys.snapshot(prefix, 'software/.locks') == before


def test_a_failed_rebuild_is_undone_also_where_images_are_fetched_to_another_file_system(stands, eb, prefix, tmp_path):
    before = toys.snapshot(prefix, 'build')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as sources:
        assert os.stat(sources).st_dev != os.stat(prefix).st_dev
        toys.recipe(tmp_path, image='docker://docker.io/stand-in/busybox:1', commands=['cat'],
                    sanity_check_commands=['cat /not-there'])
        result = eb(stands, '--rebuild', '--sourcepath=%s' % sources, check=False)
        assert result.status != 0 and 'cat /not-there failed' in result.output
        # for the next try
        assert sorted(path.suffix for path in Path(sources).rglob('toy-1.0-*')) == ['.json', '.sif']
    assert toys.snapshot(prefix, 'build') == before  # the log of the build is kept


@pytest.mark.parametrize('then', ['fails', 'succeeds'])
def test_after_a_killed_rebuild_the_next_one_finds_what_stood_there(stands, eb, prefix, tmp_path, toy, then):
    before = toys.snapshot(prefix / 'software' / 'toy' / '1.0')
    hooks = tmp_path / 'hooks.py'
    hooks.write_text('import os\n\n\ndef post_install_hook(self):\n    os.kill(os.getpid(), 9)\n')
    arguments = [stands, '--rebuild', '--sourcepath=%s' % toy.parent]
    assert eb(*arguments, '--hooks=%s' % hooks, check=False).status in (-9, 137)
    assert toys.snapshot(prefix / 'software' / 'toy' / '1.0') == before
    assert '.1.0.new' in os.listdir(prefix / 'software' / 'toy')
    hooks.write_text("def post_install_hook(self):\n    raise KeyError('injected')\n")
    result = eb(*arguments, *(['--hooks=%s' % hooks] if then == 'fails' else []), check=False)
    after = toys.snapshot(prefix / 'software' / 'toy' / '1.0')
    assert os.listdir(prefix / 'software' / 'toy') == ['1.0']
    if then == 'fails':
        assert result.status != 0 and after == before
    else:
        assert result.status == 0 and after['toy.sif'] == before['toy.sif'] and after['easysif.json']


def test_a_module_file_is_brought_back_where_only_it_was_made_anew(stands, eb, prefix, tmp_path):
    module = prefix / 'modules' / 'all' / 'toy' / '1.0.lua'
    module.write_text('-- somebody else wrote this\n')
    hooks = tmp_path / 'hooks.py'
    hooks.write_text("def post_module_hook(self):\n    raise KeyError('injected')\n")
    assert eb(stands, '--rebuild', '--module-only', '--hooks=%s' % hooks, check=False).status != 0
    assert module.read_text() == '-- somebody else wrote this\n'
    eb(stands, '--rebuild', '--module-only')
    assert 'family' not in module.read_text() and 'SIFTOY' in module.read_text()
