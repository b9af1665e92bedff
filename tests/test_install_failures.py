# SPDX-License-Identifier: GPL-2.0-only
"""An installation that fails, at any step and in any way, leaves what stood there as it was."""

import os
import signal
import subprocess
import time
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


def test_failures_leave_no_temporary_file(fresh):
    assert fresh[1] == {'easysif/site.lua', 'easysif/site.sh', 'easysif/prefix.json'}


@pytest.mark.parametrize('module', MODULES)
def test_a_rebuild_that_fails_leaves_what_stood_there(again, module):
    text, before, after = again[module]
    assert 'injected after %s' % module[len('toy/'):].split('0')[0] in text, text
    assert after == before
    assert before['root']['mine' if not module.endswith('env') else 'python.sif'] and before['all'][0]
    if module.endswith('env'):
        assert before['overlay']['user-software/mine'][0] == '-rw-------'
