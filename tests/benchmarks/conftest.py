# SPDX-License-Identifier: GPL-2.0-only
"""What the benchmarks share: runs side by side, and the table that they write.

A claim is a ratio of medians in one run. The contestants take turns, so that a busy moment of the machine meets all.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass

import pytest

from overlays import IMPORT

# A small process between us and what is measured: the peak memory of a child counts what its parent held at the start.
LAUNCHER = '''
import json, os, sys, time
start = time.monotonic()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - start, used.ru_maxrss]), file=sys.stderr)
'''

#: about 620 MB in 7,700 files, most of which JAX brings; pip and setuptools are in any virtual environment elsewhere
PACKAGES = ('jax', 'optax', 'pip', 'setuptools')

TABLE = pytest.StashKey()


@dataclass(frozen=True)
class Measured:
    """Median and least of the wall times in seconds, and the most memory that any process took, in MiB."""

    seconds: float
    least: float
    memory: float


def pytest_addoption(parser):
    """Take the file that the table is written to."""
    parser.addoption('--table', help='file that the results are written to')


def pytest_configure(config):
    """Start with an empty table."""
    config.stash[TABLE] = []


def pytest_sessionfinish(session, exitstatus):
    """Write the table, if there is anything in it."""
    path, rows = session.config.getoption('--table'), session.config.stash[TABLE]
    if not path or not rows:
        return
    lines = ['# Benchmarks', '', 'Made by `tools/run-tests --benchmarks` on %s, %d processors, Python %s.' % (
                 platform.machine(), len(os.sched_getaffinity(0)), platform.python_version()),
             'Each line is one run; times are medians of contestants that take turns.', '',
             '| what | ours | against | ratio | limit |', '|---|---|---|---|---|']
    lines += ['| %s |' % ' | '.join(row) for row in rows]
    with open(path, 'w', encoding='utf-8') as handle:
        handle.write('\n'.join(lines) + '\n')


@pytest.fixture
def measure():
    """A function that runs commands in turns: ``measure(rounds, name=(argv, env, prepare), …)`` -> name: Measured."""
    def run(rounds, **contestants):
        seconds, memory = {name: [] for name in contestants}, {name: 0 for name in contestants}
        for _ in range(rounds):
            for name, (argv, env, prepare) in contestants.items():
                prepare()
                process = subprocess.run([sys.executable, '-I', '-S', '-c', LAUNCHER, *map(str, argv)], env=env,
                                         stdin=subprocess.DEVNULL, capture_output=True)
                status, elapsed, peak = json.loads(process.stderr.splitlines()[-1])
                assert status == 0, (argv, process.stdout.decode(), process.stderr.decode())
                seconds[name].append(elapsed)
                memory[name] = max(memory[name], peak / 1024)
        return {name: Measured(statistics.median(seconds[name]), min(seconds[name]), memory[name])
                for name in contestants}
    return run


@pytest.fixture
def claim(request):
    """A function that holds a ratio against its limit and puts it into the table."""
    def check(what, ours, against, ratio, limit, most=True):
        bound = '%s %s' % ('≤' if most else '≥', limit)
        request.config.stash[TABLE].append((what, ours, against, '%.2f' % ratio, bound))
        assert ratio <= limit if most else ratio >= limit, '%s: %.3f, limit %s' % (what, ratio, limit)
    return check


@pytest.fixture(scope='session')
def jax_overlay(standins, tmp_path_factory):
    """A module on an image with Python alone, for a user whose overlay holds JAX, by pip (standins.Module)."""
    module = standins('python').installed_for(tmp_path_factory.mktemp('overlay'))
    module.shell('python3 -m pip install --quiet --ignore-installed ' + ' '.join(PACKAGES))
    module.run('python3', *IMPORT)
    return module
