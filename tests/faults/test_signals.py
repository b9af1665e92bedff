# SPDX-License-Identifier: GPL-2.0-only
"""An eb that is told to end puts everything in order before it does."""

import os
import signal
import time

import pytest

from scene import check

pytestmark = pytest.mark.e2e

SIGNALS = ('SIGTERM', 'SIGINT', 'SIGHUP')
STEPS = ('pre_build', 'post_install', 'post_sanitycheck', 'post_package')
PARTS = [STEPS[1:2], pytest.param((STEPS[0], *STEPS[2:]), marks=pytest.mark.nightly)]


def faults(steps):
    return [{'do': number, 'step': step} for number in SIGNALS for step in steps]


def interrupt(moment):
    """Return a function that interrupts an install of another generation and looks what stands."""
    def one(scene, fault):
        before = scene.state()
        stands = scene.stands() if before['root'] else None
        generation = 1 - (stands or 0)
        with moment():
            result = scene.install(generation, fault, check=False)
            published = fault.get('call')
            assert result.status != 0 or published, result.output
            now = check(scene, [generation] if published else [stands], before=None if published else before)
            if now != generation:
                scene.install(generation)
                check(scene, [generation])
    return one


@pytest.mark.fault('SIGTERM, SIGINT, SIGHUP in a rebuild')
@pytest.mark.parametrize('steps', PARTS)
def test_a_rebuild_is_interrupted_between_steps(scenes, each, moment, steps):
    for scene in scenes:
        scene.restore(0)
    each(interrupt(moment), faults(steps))


@pytest.mark.fault('SIGTERM, SIGINT, SIGHUP while the new one takes the place of the old one, which ends first')
def test_a_rebuild_is_interrupted_when_it_is_published(scenes, each, moment):
    for scene in scenes:
        scene.restore(0)
    each(interrupt(moment), [{'do': number, 'call': 5} for number in SIGNALS])


@pytest.mark.fault('SIGTERM, SIGINT, SIGHUP in an install')
@pytest.mark.parametrize('steps', PARTS)
def test_an_install_is_interrupted_between_steps(scenes, each, moment, steps):
    def one(scene, fault):
        scene.restore(None)
        interrupt(moment)(scene, fault)
    each(one, faults(steps))


@pytest.mark.fault('SIGTERM, SIGINT, SIGHUP, SIGKILL for all processes of a terminal, while a test runs in a container')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_command_that_is_tested_is_interrupted(scene, moment, number):
    before, asked = scene.state(), scene.directory / 'it-runs'
    recipe = scene.recipe(scene.directory / 'hanging', '1.0', 1,
                          sanity_check_commands=["start-shell -c 'touch %s; sleep 300'" % asked])
    with moment():
        process = scene.start(recipe, '--rebuild')
        while not asked.exists():
            assert process.poll() is None
            time.sleep(0.05)
        asked.unlink()
        os.killpg(process.pid, number)
        assert process.wait(timeout=60) != 0
        process.stdout.close()
        if number == signal.SIGKILL:
            check(scene, [0], done=False)
        else:
            check(scene, [0], before)
        scene.install(1)
        check(scene, [1])
