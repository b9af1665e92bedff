# SPDX-License-Identifier: GPL-2.0-only
"""A prefix in which installations are disturbed, and the one function that looks whether anything came to harm.

In it stand a module that nobody touches, and one that has two generations: recipes that differ in one variable.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import yaml

import harness
import toys

HOOKS = Path(__file__).with_name('injector.py')
WORKERS = 2
MOMENTS = 30

#: what is not of the installation, and differs between sessions: EasyBuild's logs and copies of recipes, empty places
OTHERS = ('ebfiles_repo', 'software/.locks', 'software/toy/0.9/easybuild', 'software/toy/1.0/easybuild')
USERS = 'overlays/toy/1.0/user-software'


def tree(directory, *without):
    """Return all that is below a directory and itself: path -> mode, link or hash, time of change (dict)."""
    found = toys.snapshot(directory, *without)
    return {path: (*what, os.lstat(os.path.join(directory, path)).st_mtime_ns) for path, what in found.items()}


def critical(lines):
    """Return the numbers of the calls that do something new: the first of each kind, some of those that only tidy."""
    numbered = [(number, *line.split(' ', 1)) for number, line in enumerate(lines, 1)]
    places = [one for one in numbered if one[2].startswith('/') or one[1] == 'fsync']
    rest = [one[0] for one in numbered if one not in places]
    firsts = [next(group)[0] for _, group in groupby(places, key=lambda one: one[1])]
    return sorted({*firsts, *rest[:1], *rest[len(rest) // 2:][:1], *rest[-1:]})


def moments(seconds, part):
    """Return moments that are spread over a duration: a few for every run of the tests, or the others."""
    return [{'seconds': seconds * (number + 0.5) / MOMENTS} for number in range(MOMENTS)
            if (number % 6 == 3) == (part == 0)]


def earlier(fault):
    """Return an earlier moment (dict), for when a run was done before: not all take as long, or as many calls."""
    return dict(fault, **{'seconds': 0.8 * fault['seconds']} if 'seconds' in fault else {'call': fault['call'] - 1})


class Place:
    """A directory in which something is disturbed, and the processes that have to do with it.

    :param directory: a directory of its own (Path)
    """

    def __init__(self, directory):
        self.directory, self.marker = directory, 'fault-%s' % uuid.uuid4().hex

    def processes(self):
        """Return what runs of our sessions, or has a file of this scene open: id -> command (dict)."""
        found = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            opened = []
            try:
                environment, arguments = (Path('/proc', pid, name).read_bytes() for name in ('environ', 'cmdline'))
                for number in os.listdir('/proc/%s/fd' % pid):
                    with suppress(FileNotFoundError):  # closed meanwhile
                        opened.append(os.readlink('/proc/%s/fd/%s' % (pid, number)))
            except OSError:  # gone, or of somebody else
                continue
            if self.marker.encode() in environment or any(path.startswith(str(self.directory)) for path in opened):
                found[int(pid)] = arguments.replace(b'\0', b' ').decode('utf-8', 'replace')
        return found

    def nothing_runs(self, patience=60):
        """Make sure that nothing of our sessions runs any more."""
        deadline = time.monotonic() + patience
        while self.processes():
            assert time.monotonic() < deadline, self.processes()
            time.sleep(0.05)


class Scene(Place):
    """One prefix, with all that belongs to it.

    :param directory: a directory of its own (Path)
    :param toy: the SIF file (Path)
    :param registry: ours (Registry)
    :param tmp: the directory for temporary files (Path), one in the other where None
    """

    def __init__(self, directory, toy, registry, tmp=None):
        super().__init__(directory)
        self.prefix, self.tmp, self.sources = directory / 'prefix', tmp or directory / 'tmp', toy.parent
        self.tmp.mkdir()
        self.site = directory / 'site.yaml'
        self.site.write_text(yaml.safe_dump(harness.site_settings(registry)))
        self.overlay = self.prefix / 'overlays' / 'toy'
        self.recipes = [self.recipe(directory / ('generation-%d' % generation), '1.0', generation)
                        for generation in (0, 1)]
        self.references, self.used = {}, False

    def recipe(self, directory, version, generation, **values):
        """Write a recipe of an environment module that says of which generation it is (Path)."""
        return toys.recipe(directory, version=version, **dict({
            'container_env': {'GENERATION': str(generation)},
            'modextravars': {'TOY_GENERATION': str(generation)},  # which stands in the module file itself
            'sanity_check_commands': ["start-shell -c 'fine it runs'"]}, **values))

    def prepare(self):
        """Install what stands, by hand what users would do with it, and note how each generation looks."""
        self.eb(self.recipe(self.directory, '0.9', 7))
        self.base = self.listing()
        for generation in (0, 1):
            self.install(generation)
            self.use()
            self.references[generation] = self.state()['root'], self.listing()
        self.before = self.state()
        return self

    def use(self):
        """Let the overlay hold what a user made."""
        mine, self.used = self.prefix / USERS / 'mine', True
        if not mine.exists():
            mine.parent.mkdir(exist_ok=True)
            mine.write_text('precious')
            mine.chmod(0o600)
            os.utime(mine, (1, 1))

    def environment(self, faults=None):
        """Return the environment of its sessions (dict)."""
        env = dict(harness.eb_environment(self.prefix, self.directory / 'home', self.site), TMPDIR=str(self.tmp),
                   MARKER=self.marker, PYTHONUNBUFFERED='1')
        return dict(env, FAULTS=json.dumps(faults)) if faults else env

    def start(self, *args, faults=None, **options):
        """Start an eb and return it (subprocess.Popen)."""
        hooks = ['--hooks=%s' % HOOKS] if faults else []
        return subprocess.Popen(['eb', *args, '--sourcepath=%s' % self.sources, *hooks],
                                env=self.environment(faults), start_new_session=True, stdin=subprocess.DEVNULL,
                                **dict({'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}, **options))

    def eb(self, *args, faults=None, check=True):
        """Run eb and return its Result."""
        process = self.start(*args, faults=faults)
        try:
            output = process.communicate(timeout=300)[0].decode('utf-8', 'replace')
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert not check or process.returncode == 0, output
        return harness.Result(process.returncode, output, '')

    def install(self, generation, fault=None, check=True, more=()):
        """Install a generation, over what stands there."""
        rebuild = ['--rebuild'] if (self.prefix / 'modules' / 'all' / 'toy' / '1.0.lua').exists() else []
        return self.eb(self.recipes[generation], *rebuild, *more, faults=fault and {'1.0': fault}, check=check)

    def restore(self, generation):
        """Have a generation stand, or nothing, as a test begins (Scene)."""
        self.empty_tmp()
        stands = self.look().get('toy/1.0')
        if generation is None and stands is not None:
            self.reset()
        elif generation is not None and stands != str(generation):
            self.install(generation)
        if generation is not None:
            self.use()
            self.empty_tmp()
        return self

    def remove(self, *versions):
        """Remove versions, with all that belongs to them, by hand."""
        for version in versions:
            for path in ('software', 'overlays', 'build'):
                shutil.rmtree(self.prefix / path / 'toy' / version, ignore_errors=True)
            for place in ('all', 'tools'):
                with suppress(FileNotFoundError):
                    (self.prefix / 'modules' / place / 'toy' / (version + '.lua')).unlink()

    def reset(self):
        """Remove the module that has generations."""
        self.remove('1.0')
        self.used = False
        self.empty_tmp()

    def empty_tmp(self):
        """Remove all temporary files of former sessions."""
        for path in self.tmp.iterdir():
            shutil.rmtree(path)

    def files(self):
        """Return where files of the module are that may be damaged: word -> Path (dict)."""
        root = self.prefix / 'software' / 'toy' / '1.0'
        return {'module': self.prefix / 'modules' / 'all' / 'toy' / '1.0.lua', 'image': root / 'toy.sif',
                'manifest': root / 'easysif.json'}

    def stands(self):
        """Return which generation stands, as its module file says (int)."""
        text = (self.prefix / 'modules' / 'all' / 'toy' / '1.0.lua').read_text()
        return int(re.search(r'GENERATION"[^"]*"(\d)"', text).group(1))

    def state(self):
        """Return all that a session must bring back (dict)."""
        state = {'overlay': tree(self.prefix / USERS), 'links': toys.snapshot(self.prefix / 'overlays', USERS[9:]),
                 'root': toys.snapshot(self.prefix / 'software' / 'toy' / '1.0', 'easybuild'),
                 'times': tree(self.prefix / 'software' / 'toy' / '1.0', 'easybuild'),
                 'other': tree(self.prefix / 'software' / 'toy' / '0.9')}
        for place in ('all', 'tools'):
            state[place] = tree(self.prefix / 'modules' / place / 'toy')
        return state

    def listing(self):
        """Return the names of all that is in the prefix, but for what EasyBuild keeps for itself (set of str)."""
        found = set(toys.snapshot(self.prefix, *OTHERS, USERS, 'sources')) - {'build'}
        return found | {'sources/' + path for path in toys.files(self.prefix / 'sources')}

    def look(self):
        """Load every module that there is, run a command in each, and return what they say: version -> generation."""
        script = '''
            for module in $(module -t avail toy 2>&1 | grep '^toy/.'); do
              (module load "$module"; echo "$module $(start-shell -c 'fine "$GENERATION"')")
            done'''
        told = harness.run_shell(script, self.prefix, self.directory / 'home', cwd=self.directory)
        return dict(line.split(' ') for line in told.stdout.splitlines())


def check(scene, generations, before=None, done=True):
    """Make sure that nothing came to harm: to be called after each fault, and after the call that follows it.

    :param scene: where it happened (Scene)
    :param generations: which of them may stand now; None is none of them
    :param before: what Scene.state() was, where nothing at all may have changed (dict)
    :param done: whether nothing may be left of the fault (bool); after kill -9 the next call sees to that
    """
    scene.nothing_runs()
    said = scene.look()
    stands = said.pop('toy/1.0', None)
    assert said == {'toy/0.9': '7'}
    stands = None if stands is None else int(stands)
    assert stands in generations
    state = scene.state()
    for part in ('overlay', 'other') if scene.used else ('other',):
        assert state[part] == scene.before[part], part
    for part in before or ():
        assert state[part] == before[part], part
    mounts = Path('/proc/self/mounts').read_text()
    assert '%s/' % scene.directory not in mounts
    if not done:
        return stands
    root, listing = scene.references[stands] if stands is not None else ({}, scene.base)
    assert state['root'] == root
    found = scene.listing()
    if before:  # EasyBuild keeps the directory of a build that failed, with its log
        found -= {path for path in found if path.startswith('build/')}
    assert found == listing
    assert toys.snapshot(scene.prefix / 'software' / '.locks') == {}
    assert sorted(path.name for path in scene.tmp.iterdir() if not path.name.startswith('eb-')) == []
    return stands
