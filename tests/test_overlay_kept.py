# SPDX-License-Identifier: GPL-2.0-only
"""Whatever eb and easysif do to a module, and whatever becomes of its installation, the overlay stays as it is."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
import toys

pytestmark = pytest.mark.e2e

#: state of an overlay -> what makes it, beside a file of the user's in the virtual environment
STATES = {
    'directory': ':',
    'squashfs': 'make-squashfs --remove',
    'both': 'make-squashfs',
    'neither': 'rm -r "$USER_SOFTWARE"',
    'damaged': 'make-squashfs --remove; truncate -s 200 "$USER_SOFTWARE.squashfs"',
    'kept': 'make-squashfs; unmake-squashfs; make-squashfs',
}


class Prefix:
    """A prefix with a module for some of the states, whose version is the state.

    :param directory: a directory of its own (Path)
    :param images: the stand-in images (harness.Images)
    :param states: the states (list of str)
    """

    def __init__(self, directory, images, site, states):
        self.directory, self.prefix, self.site, self.states = directory, directory / 'prefix', site, states
        self.image = images.sif('python')
        directory.mkdir()
        self.recipes = [self.recipe(directory / 'good', state) for state in states]
        self.failing = [self.recipe(directory / 'bad', state, sanity_check_commands=['python3 -c "exit(1)"'])
                        for state in states]

    def recipe(self, directory, state, **values):
        """Write a recipe (Path)."""
        return toys.recipe(directory, version=state, image=self.image.name, python_env='toy',
                           **dict({'sanity_check_commands': ['python3 -c "import pip"']}, **values))

    def eb(self, *args, recipes=None, check=True):
        """Run one eb over all of them."""
        return harness.run_eb([*(recipes or self.recipes), '--sourcepath=%s' % self.image.parent, *args], self.prefix,
                              self.directory / 'home', self.site, check=check)

    def easysif(self, *args):
        """Run the command easysif."""
        harness.run(['easysif', *args], env=harness.eb_environment(self.prefix, self.directory / 'home', self.site))

    def modules(self):
        """Return the names of all (list of str)."""
        return ['toy/%s' % state for state in self.states]

    def make_states(self):
        """Let the user have packages, and each overlay be in its state."""
        for state in self.states:
            harness.run_shell('''
                module load toy/%s
                mine=$USER_SOFTWARE/venv/toy/mine
                echo precious >"$mine"; chmod 600 "$mine"; touch -d 2001-01-01 "$mine"
                %s
            ''' % (state, STATES[state].replace(';', '\n')), self.prefix, self.directory / 'home')

    def overlays(self):
        """Return all that there is of each overlay: state -> path -> mode, link or hash, time (dict).

        Without our own links to the installation, which come and go with it.
        """
        found = {}
        for state in self.states:
            top = self.prefix / 'overlays' / 'toy' / state
            if state == 'neither':  # eb makes a virtual environment there, in which nothing is of the user's
                shutil.rmtree(top / 'user-software', ignore_errors=True)
                (top / 'made-for').unlink(missing_ok=True)  # which image it is for
            found[state] = {path: (*what, os.lstat(top / path).st_mtime_ns)
                            for path, what in toys.snapshot(top).items()
                            if '/' in path or not (top / path).is_symlink()}
        return found

    def remove(self, place, end=''):
        """Remove something of each module by hand."""
        for state in self.states:
            path = self.prefix / place / 'toy' / (state + end)
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def live(self):
        """Let happen all that may, and return what there is of the overlays after each (dict of dicts)."""
        self.eb()
        self.make_states()
        found = {'before': self.overlays()}

        def note(what):
            found[what] = self.overlays()
        self.eb('--rebuild')
        note('eb --rebuild')
        self.eb('--force')
        note('eb --force')
        self.remove('modules/all', '.lua')
        self.eb()
        note('eb after the module file was removed')
        told = self.eb('--rebuild', '--dump-test-report=%s' % (self.directory / 'report'), recipes=self.failing,
                       check=False)
        assert told.status and told.output.count('[FAILED]') == len(self.states), told.output
        note('a failing rebuild')
        self.easysif('refresh', *self.modules())
        note('easysif refresh')
        self.remove('software')
        note('rm -rf of the installation')
        self.eb('--rebuild')
        note('eb after the installation was removed')
        for module in self.modules():
            self.easysif('remove', module)
        note('easysif remove')
        self.eb()
        note('eb after easysif remove')
        return found


def test_the_overlay_stays_as_it_is(tmp_path, images, site_file):
    states, site = list(STATES), site_file()
    prefixes = [Prefix(tmp_path / str(number), images, site, states[number::2]) for number in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(Prefix.live, prefixes):
            before = found.pop('before')
            assert [state for state in before if not before[state]] in ([], ['neither']) and len(found) == 9
            for event, overlays in found.items():
                for state, paths in overlays.items():
                    assert paths == before[state], (event, state)
