# SPDX-License-Identifier: GPL-2.0-only
"""A rebuild while the module is in use."""

import subprocess
import time

import pytest

import harness
from scene import check

pytestmark = pytest.mark.e2e

REBUILDS = 3


@pytest.fixture
def start(scene):
    """A function that starts a script with the module loaded (subprocess.Popen)."""
    started = []

    def call(script):
        started.append(subprocess.Popen(
            ['bash', '--noprofile', '--norc', '-c', '. %s/init/bash; module use "$1"; module load toy/1.0; %s' % (
                harness.LMOD, script), 'bash', scene.prefix / 'modules' / 'all'], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=scene.directory,
            env=harness.user_environment(scene.directory / 'home')))
        return started[-1]
    yield call
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.fault('a rebuild while a shell runs commands of the module: calls that succeeded')
def test_every_command_succeeds_while_it_is_rebuilt(scene, start, moment):
    runs = scene.directory / 'runs'
    runs.touch()
    process = start('''
        while [ -e %s ]; do
          said=$(start-shell -c 'fine it runs' 2>&1) && [ "$said" = 'it runs' ] && echo passed || echo "failed: $said"
        done''' % runs)
    for rebuild in range(REBUILDS):
        scene.install(1 - rebuild % 2)
    runs.unlink()
    lines = process.communicate(timeout=60)[0].decode().splitlines()
    assert len(lines) > REBUILDS
    for line in lines:
        with moment():
            assert line == 'passed'
    check(scene, [1])


@pytest.mark.fault('a rebuild under a container that runs, which reads its files to the end')
def test_a_container_of_the_old_image_runs_to_the_end(scene, start, moment):
    go, begun = scene.directory / 'go', scene.directory / 'begun'
    process = start('''start-shell -c 'exec 3</bin/busybox; touch %s; while test ! -e %s; do sleep 0.1; done
        cat <&3 >/dev/null && cat /bin/* >/dev/null && fine "$GENERATION"; cat /bin/fails' ''' % (
        begun, go))
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.05)
    for rebuild in range(2):
        scene.install(1 - rebuild)
    begun.unlink()
    go.touch()
    output = process.communicate(timeout=60)[0].decode()
    go.unlink()
    with moment():
        assert (process.returncode, output) == (0, '0\n#!/bin/sh\nexit 3\n')
        check(scene, [0])
