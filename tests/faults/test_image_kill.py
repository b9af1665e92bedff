# SPDX-License-Identifier: GPL-2.0-only
"""An eb that is killed while it fetches an image, or installs one: nothing half is seen, the next one needs no help."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from image_scene import WAYS, check

pytestmark = pytest.mark.e2e

MOMENTS = 20
ALL = [(way, (number + 0.5) / MOMENTS) for way in WAYS for number in range(MOMENTS)]


#: of every run: all moments, each of another kind of image than the one before
SOME = [(WAYS[number % len(WAYS)], (number + 0.5) / MOMENTS) for number in range(MOMENTS)]
CHOSEN = pytest.mark.parametrize('moments', [SOME, pytest.param([one for one in ALL if one not in SOME],
                                                                marks=pytest.mark.nightly)], ids=['some', 'others'])


def kill(moment, *args):
    """Return a function that kills an eb at a part of its duration, and looks what happens until the next one is done.

    :param args: of the first one (str)
    """
    def one(scene, at):
        way, part = at
        fetched, done = scene.undisturbed(way)
        scene.reset()
        fault = {'do': 'kill', 'seconds': (fetched if args else done) * part}
        with moment():
            result = scene.eb(scene.ways[way], *args, faults={'1.0': fault}, check=False)
            assert result.status in (0, -9, 137), result.output
            stands = check(scene, way, False if args else None, done=False)
            scene.eb(scene.ways[way])
            check(scene, way, True, done=not stands)
            if stands:  # then eb has nothing to do; a rebuild has
                scene.eb(scene.ways[way], '--rebuild')
                check(scene, way, True)
        scene.reset()
    return one


@pytest.mark.fault('`kill -9` of `eb --fetch` at 20 moments of it, for each of six kinds of image')
@CHOSEN
def test_a_fetch_is_killed(each_image, moment, moments):
    each_image(kill(moment, '--fetch'), moments)


@pytest.mark.fault('`kill -9` of an install at 20 moments of it, for each of six kinds of image')
@CHOSEN
def test_an_install_is_killed(each_image, moment, moments):
    each_image(kill(moment), moments)


def everything(scene):
    """Kill all processes of a session at once, as batch systems do at the end of a job."""
    for pid in scene.processes():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.fault('`kill -9` of a whole job whose build has made files of other users')
def test_a_whole_job_is_killed_in_a_build(image_scenes, moment):
    scene = image_scenes[0]
    scene.undisturbed('definition')
    definition = scene.ways['definition'].with_name('toy.def')
    text, log = definition.read_text(), scene.prefix / 'build/toy/1.0/system-system/build.log'
    definition.write_text(text + '    echo REA""DY\n    sleep 60\n')
    process = scene.start(scene.ways['definition'], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not log.exists() or '\nREADY\n' not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    everything(scene)
    process.wait()
    definition.write_text(text)
    with moment():
        check(scene, 'definition', False, done=False)
        scene.eb(scene.ways['definition'])
        check(scene, 'definition', True)
    scene.reset()
