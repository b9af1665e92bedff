# SPDX-License-Identifier: GPL-2.0-only
"""An eb that is killed at any moment: until the next one all modules work, and the next one needs no help."""

import pytest

from scene import check, critical, earlier, moments

pytestmark = pytest.mark.e2e


@pytest.fixture(scope='module')
def calls(scenes):
    """What a rebuild and an install call from the moment on in which the new one takes its place (dict of lists)."""
    scene, found = scenes[0].restore(0), {}
    for name, generation in (('rebuild', 1), ('install', 0)):
        record = scene.directory / name
        scene.restore(None if name == 'install' else 0).install(generation, {'call': 0, 'record': str(record)})
        found[name] = record.read_text().splitlines()
    assert sum(line.startswith('exchange ') for line in found['rebuild']) == 1
    return found


@pytest.fixture(scope='module')
def seconds(scenes):
    """How long a rebuild takes, from the moment on in which eb has read its options (float)."""
    clock = scenes[0].directory / 'clock'
    scenes[0].restore(0).install(1, {'clock': str(clock)})
    return float(clock.read_text())


def kill(scene, generation, fault):
    """Kill an install of a generation; return whether it was done before (bool)."""
    result = scene.install(generation, dict(fault, do='kill'), check=False)
    assert result.status in (0, -9, 137), result.output
    return result.status == 0


def kill_rebuild(moment):
    """Return a function that kills a rebuild at a moment and looks what happens until the next one is done."""
    def one(scene, fault):
        stands = scene.stands()
        with moment():
            while kill(scene, 1 - stands, fault):
                check(scene, [1 - stands])
                stands, fault = 1 - stands, earlier(fault)
            check(scene, [0, 1], done=False)
            scene.install(1 - stands)
            check(scene, [1 - stands])
    return one


def kill_install(moment):
    """The same for an install where nothing stands. Where it stands by then, eb has nothing to do; a rebuild has."""
    def one(scene, fault):
        scene.reset()
        with moment():
            while kill(scene, 0, fault):
                scene.reset()
                fault = earlier(fault)
            stands = check(scene, [None, 0], done=False)
            scene.eb(scene.recipes[0])
            assert check(scene, [0], done=stands is None) == 0
            if stands is not None:
                scene.install(0)
                check(scene, [0])
    return one


KINDS = {'rebuild': kill_rebuild, 'install': kill_install}


@pytest.mark.fault('`kill -9` of a rebuild at a system call that puts it in its place')
def test_a_rebuild_is_killed_at_a_call(scenes, each, calls, moment):
    scenes[0].restore(0)
    scenes[1].restore(1)
    each(kill_rebuild(moment), [{'call': number} for number in critical(calls['rebuild'])])


@pytest.mark.fault('`kill -9` of an install at a system call that puts it in its place')
def test_an_install_is_killed_at_a_call(each, calls, moment):
    each(kill_install(moment), [{'call': number} for number in critical(calls['install'])])


@pytest.mark.nightly
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.fault('`kill -9` at one in four of the calls that only repeat these')
def test_it_is_killed_at_a_call_in_between(scenes, each, calls, moment, kind):
    for scene in scenes:
        scene.restore(0)
    others = [number for number in range(1, len(calls[kind]) + 1) if number not in critical(calls[kind])]
    each(KINDS[kind](moment), [{'call': number} for number in others[2::4]])


@pytest.mark.fault('`kill -9` of a rebuild at a moment of its duration')
@pytest.mark.parametrize('part', [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_rebuild_is_killed_at_any_time(scenes, each, seconds, moment, part):
    for scene in scenes:
        scene.restore(0)
    each(kill_rebuild(moment), moments(seconds, part))


@pytest.mark.fault('`kill -9` of an install at a moment of its duration')
@pytest.mark.parametrize('part', [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_an_install_is_killed_at_any_time(each, seconds, moment, part):
    each(kill_install(moment), moments(seconds, part))
