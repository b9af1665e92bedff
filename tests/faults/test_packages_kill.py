# SPDX-License-Identifier: GPL-2.0-only
"""easysif overlay install and rebuild that are killed at any moment: all or nothing, and the next needs no help."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import harness
import standins
from scene import Place, earlier, moments
from test_overlay_packages import Index

pytestmark = pytest.mark.e2e

#: command -> which alpha there is after it; before, there is 1.0
COMMANDS = {('install', '--upgrade', 'alpha'): '2.0', ('rebuild',): '1.0'}
KEPT = re.compile(r'user-software\.before-rebuild(-\d+)?')


class Packages(Place):
    """A user's overlay with `alpha` 1.0 and a file of the user's in the environment; an index knows 2.0 as well.

    :param directory: a directory of its own (Path)
    :param module: the module (standins.Module)
    """

    def __init__(self, directory, module):
        super().__init__(directory)
        self.module, self.index = module.installed_for(directory), Index(directory / 'index')
        (module.prefix / 'easysif' / 'prefix.json').chmod(0o444)
        for version in ('1.0', '2.0'):
            self.index.add('alpha', version)
        self.overlay, self.copy = self.module.overlay, directory / 'before'
        self('install', 'alpha==1.0')
        (self.overlay / 'user-software' / 'venv' / 'tools' / 'mine').write_text('precious')
        self.names = set(os.listdir(self.overlay))
        harness.run(['cp', '-a', self.overlay, self.copy])

    def start(self, command, *args):
        """Start a command (subprocess.Popen)."""
        env = self.module.env(MARKER=self.marker, PYTHONPATH=os.pathsep.join(sys.path), PIP_INDEX_URL=self.index.url,
                              PIP_EXTRA_INDEX_URL=None, PIP_NO_CACHE_DIR='1')
        return subprocess.Popen([sys.executable, '-m', 'easysif.cli', 'overlay', command, self.module.name, *args,
                                 '--prefix', self.module.prefix], env=env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *command):
        """Run a command, which must succeed; return how long it took (float)."""
        start = time.monotonic()
        process = self.start(*command)
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
        assert re.fullmatch('(.*: took over the lock of .*, which is dead\n)?', errors)
        return time.monotonic() - start

    def restore(self):
        """Have the overlay be as before (Packages)."""
        shutil.rmtree(self.overlay)
        harness.run(['cp', '-a', self.copy, self.overlay])
        return self

    def kill(self, seconds, all_at_once, command):
        """Kill a command after some time; return whether it was done before (bool)."""
        process = self.start(*command)
        time.sleep(seconds)
        process.kill()
        while all_at_once and self.processes():  # also what the runtime starts in this moment
            for pid in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.communicate()
        return process.returncode == 0

    def version(self):
        """Return which `alpha` there is (str); it is whole."""
        venv = self.overlay / 'user-software' / 'venv' / 'tools'
        assert (venv / 'bin' / 'python').is_symlink() and os.listdir(venv.parent) == ['tools']
        info, = venv.glob('lib/*/site-packages/alpha-*.dist-info')
        version = info.name.split('-')[1][:-len('.dist')]
        assert version in (info.parent / 'alpha' / '__init__.py').read_text() and (info / 'RECORD').stat().st_size
        return version


@pytest.fixture(scope='module')
def packages(images, tmp_path_factory):
    """One such overlay (Packages)."""
    directory = tmp_path_factory.mktemp('packages')
    made = Packages(directory, standins.install(images.sif('venv'), 'tools', directory / 'prefix',
                                                **standins.RECIPES['venv']))
    yield made
    made.index.server.shutdown()


@pytest.mark.fault('`kill -9` of `easysif overlay install` or `rebuild` at a moment of its duration')
@pytest.mark.parametrize('part', [0, pytest.param(1, marks=pytest.mark.nightly)])
@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_it_is_killed_at_any_time(packages, moment, command, part):
    seconds = packages.restore()(*command)
    for number, fault in enumerate(moments(seconds, part)):
        with moment():
            while packages.restore().kill(fault['seconds'], number % 2, command):
                fault = earlier(fault)
            packages.nothing_runs()
            assert packages.version() in ('1.0', COMMANDS[command])
            packages(*command)
            assert packages.version() == COMMANDS[command]
            known = json.loads((packages.overlay / 'overlay.json').read_text())['packages']['resolved']
            assert [one['version'] for one in known] == [COMMANDS[command]]
            names = set(os.listdir(packages.overlay))
            kept = {name for name in names if KEPT.fullmatch(name)}
            assert names - kept == packages.names and bool(kept) == (command == ('rebuild',))
            mine, = [path for name in [*kept, 'user-software/venv/tools']
                     for path in packages.overlay.glob(name + '/mine')]
            assert mine.read_text() == 'precious'
