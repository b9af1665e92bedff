# SPDX-License-Identifier: GPL-2.0-only
"""make-squashfs and unmake-squashfs that are killed at any moment: no file is lost, and the next call needs no help."""

import statistics
import time

import pytest

from overlay_scene import NEXT, PACK, REMOVE, UNPACK, check
from scene import critical, earlier, moments

pytestmark = pytest.mark.e2e

#: command -> the state before, and all in which it may be when the command is killed
COMMANDS = {PACK: ('directory', ['directory', 'both']),
            REMOVE: ('directory', ['directory', 'both', 'squashfs']),
            UNPACK: ('squashfs', ['squashfs', 'both', 'unpacked'])}


def kill(moment, command):
    """Return a function that kills a command at a moment, looks what became of the overlay, and types what is next."""
    def one(scene, fault):
        before, allowed = COMMANDS[command]
        with moment():
            while scene.restore(before).kill(fault, *command):
                check(scene, allowed[-1:])
                fault = earlier(fault)
            state = check(scene, allowed, done=False)
            following = command if command in NEXT[state] else next(iter(NEXT[state]))
            scene(*following)
            check(scene, [NEXT[state][following]])
    return one


@pytest.fixture(scope='module')
def seconds(overlays):
    """How long each command takes (dict of float)."""
    found = {}
    for command, (before, _) in COMMANDS.items():
        times = []
        for _ in range(3):
            overlays[0].restore(before)
            start = time.monotonic()
            overlays[0](*command)
            times.append(time.monotonic() - start)
        found[command] = statistics.median(times)
    return found


def spread(seconds, part):
    """Return moments that are spread over a duration; at every second one all processes die at once."""
    return [dict(fault, all=bool(number % 2)) for number, fault in enumerate(moments(seconds, part))]


@pytest.mark.fault('`kill -9` of `make-squashfs` at a moment of its duration')
@pytest.mark.parametrize('part', [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_packing_is_killed_at_any_time(each_overlay, seconds, moment, part):
    each_overlay(kill(moment, PACK), spread(seconds[PACK], part))


@pytest.mark.fault('`kill -9` of `unmake-squashfs` at a moment of its duration')
@pytest.mark.parametrize('part', [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_unpacking_is_killed_at_any_time(each_overlay, seconds, moment, part):
    each_overlay(kill(moment, UNPACK), spread(seconds[UNPACK], part))


@pytest.mark.fault('`kill -9` of `make-squashfs [--remove]` or `unmake-squashfs` at a call that changes files')
@pytest.mark.parametrize('command', [pytest.param(PACK, marks=pytest.mark.nightly), REMOVE, UNPACK], ids=' '.join)
def test_it_is_killed_at_a_call(overlays, each_overlay, moment, command):
    scene, record = overlays[0].restore(COMMANDS[command][0]), overlays[0].directory / 'calls'
    record.unlink(missing_ok=True)
    scene(*command, EB_PYTHON=str(scene.injector()), CALL='0', RECORD=str(record))
    lines = record.read_text().splitlines()
    assert any(line.startswith('rename ') for line in lines)
    each_overlay(kill(moment, command), [{'call': number} for number in critical(lines)])
