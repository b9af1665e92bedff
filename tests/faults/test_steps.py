# SPDX-License-Identifier: GPL-2.0-only
"""An install and a rebuild that fail before or after any step of EasyBuild leave everything as it was."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from easybuild.tools.hooks import STEP_NAMES

import toys
from scene import WORKERS, Scene, tree

pytestmark = pytest.mark.e2e

KINDS = ('fail', 'crash')
MOMENTS = ['%s_%s' % (when, step) for step in STEP_NAMES for when in ('pre', 'post')]
#: before the first step and after each: before each other one is the same moment, but for what EasyBuild tells of it
EACH, AGAIN = MOMENTS[:1] + MOMENTS[1::2], MOMENTS[2::2]


def faults(moments, turn):
    """Return a fault for each moment, of both kinds in turns (dict)."""
    return {moment: {'step': moment, 'do': KINDS[(number + turn) % 2]} for number, moment in enumerate(moments)}


#: by day and by night
USUAL, OTHER = [faults(EACH, 0), faults(AGAIN, 0)], [faults(EACH, 1), faults(AGAIN, 1)]

#: moments at which a module with a virtual environment fails, too
PYTHON = ('post_install', 'post_module')


class Row:
    """A scene with a recipe for each of some moments, which is its version.

    :param faults: moment -> fault (dict)
    """

    def __init__(self, scene, faults, python):
        self.scene, self.faults, self.python = scene, faults, python
        values = {'sanity_check_commands': None, 'tests': ['/usr/bin/true']}
        self.recipes = [scene.recipe(scene.directory, moment, 0, **values) for moment in faults]
        for moment in filter(faults.get, PYTHON):
            self.recipes.append(scene.recipe(scene.directory, moment, 0, versionsuffix='-env', image=str(python.name),
                                             python_env='toy', **values))
        self.modules = [recipe.stem[len('toy-'):] for recipe in self.recipes]

    def eb(self, *args, faults=True):
        """Run one eb over all of them; return what it printed of each, by version (dict)."""
        result = self.scene.eb(*self.recipes, *args, '--dump-test-report=%s' % (self.scene.directory / 'report'),
                               faults=self.faults if faults else None, check=False)
        return dict(zip(self.modules, result.output.split('== processing EasyBuild easyconfig ')[1:]))

    def state(self, version):
        """Return all that is on disk of a module (dict), {} where there is nothing."""
        paths = ['%s/toy/%s' % (place, version) for place in ('overlays', 'software')]
        paths += ['modules/%s/toy/%s.lua' % (place, version) for place in ('all', 'tools')]
        paths += ['software/toy/.%s.%s' % (version, word) for word in ('new', 'old')]
        found = {}
        for path in (self.scene.prefix / path for path in paths):
            if os.path.lexists(path):
                info = os.lstat(path)
                found[path] = (tree(path), info.st_mode, info.st_mtime_ns,
                               path.read_bytes() if path.is_file() else None)
        return found

    def go(self):
        """Fail everywhere, then install all, then fail again; return what was seen, by version (dict of tuples)."""
        fresh = self.eb()
        nothing = {module: self.state(module) for module in self.modules}, toys.files(self.scene.prefix)
        for module, text in self.eb(faults=False).items():
            assert 'COMPLETED: Installation ended successfully' in text, text
        for module in self.modules:
            mine = self.scene.prefix / 'overlays' / 'toy' / module / 'user-software' / 'mine'
            mine.parent.mkdir(exist_ok=True)
            mine.write_text('precious')
            mine.chmod(0o600)
        before, listing = {module: self.state(module) for module in self.modules}, self.scene.listing()
        again = self.eb('--rebuild')
        after = {module: self.state(module) for module in self.modules}
        assert nothing[1] == set() and self.listing() == listing
        self.scene.nothing_runs()
        assert self.scene.look().keys() == {'toy/%s' % module for module in self.modules}
        return {module: (fresh[module], nothing[0][module], again[module], before[module], after[module])
                for module in self.modules}

    def listing(self):
        """Return what is in the prefix, but for the directories of builds that failed (set of str)."""
        return {path for path in self.scene.listing() if not path.startswith('build/')}


@pytest.fixture
def fail(tmp_path, toy, images, registry):
    """A function that does all of that for some faults."""
    def call(faults):
        rows = []
        for number in range(WORKERS):
            directory = tmp_path / str(number)
            directory.mkdir()
            for sif in (toy, images.sif('python')):
                (directory / sif.name).symlink_to(sif)
            rows.append(Row(Scene(directory, toy, registry), dict(list(faults.items())[number::WORKERS]),
                            images.sif('python')))
        with ThreadPoolExecutor(WORKERS) as pool:
            return {module: seen for row in pool.map(Row.go, rows) for module, seen in row.items()}
    return call


@pytest.mark.fault('a failure, by EasyBuild or by a defect, before and after each step of an install and of a rebuild')
@pytest.mark.parametrize('chosen', [*USUAL, *(pytest.param(one, marks=pytest.mark.nightly) for one in OTHER)],
                         ids=['after', 'before', 'after, other kind', 'before, other kind'])
def test_a_step_fails(fail, moment, chosen):
    for module, (fresh, nothing, again, before, after) in fail(chosen).items():
        # of what is no error of its own EasyBuild tells at the end only
        told = '' if chosen[module.partition('-')[0]]['do'] == 'crash' else 'injected'
        with moment():
            assert told in fresh and 'COMPLETED' not in fresh and nothing == {}, fresh
        with moment():
            assert told in again and 'COMPLETED' not in again and after == before and len(before) == 4, again
