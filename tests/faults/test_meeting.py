# SPDX-License-Identifier: GPL-2.0-only
"""Many eb at once, and locks that others left behind."""

import json
import os
import time

import pytest

from scene import check

pytestmark = pytest.mark.e2e

MANY = 8
DONE = 'COMPLETED: Installation ended successfully'
WORK = '== sanity checking...'


def together(scene, recipes, *args):
    """Start an eb of each recipe at once; return exit status and output of each (list)."""
    started = [scene.start(recipe, *args) for recipe in recipes]
    outputs = [process.communicate(timeout=300)[0].decode('utf-8', 'replace') for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs)]


def meeting(scene, recipe, *args, met):
    """Start many eb of one recipe, of which the first stops in the middle until the others have met it; return exit
    status and output of each (list).

    :param met: tells whether one has, by its exit status, None while it runs, and what it has printed (callable)
    """
    outputs = [scene.directory / ('output-%d' % number) for number in range(MANY)]
    started = []
    for path in outputs:
        with open(path, 'wb') as output:
            started.append(scene.start(recipe, *args, stdout=output, faults={
                '1.0': {'do': 'ask', 'step': 'post_install'}}))

    def seen():
        return [(process.poll(), path.read_text('utf-8', 'replace')) for process, path in zip(started, outputs)]
    asked, deadline = scene.directory / 'asked', time.monotonic() + 300
    while not asked.exists() or sum(met(*one) for one in seen()) < MANY - 1:
        assert time.monotonic() < deadline, seen()
        time.sleep(0.05)
    asked.unlink()
    for process in started:
        process.wait(timeout=300)
    found = seen()
    for path in outputs:
        path.unlink()
    return found


@pytest.mark.fault('8 installs of one recipe at once, seven of which are told')
def test_one_of_many_installs_and_the_others_say_who(scene, moment):
    scene.restore(None)
    results = meeting(scene, scene.recipes[0], met=lambda status, _: status is not None)
    for status, output in results:
        with moment():
            if WORK in output:
                assert status == 0 and DONE in output, output
            else:
                assert status != 0 and 'another process is at work here\n  holder  process ' in output, output
                assert 'hint: eb --wait-on-lock-limit=-1 ' in output
    assert sum(WORK in output for _, output in results) == 1
    check(scene, [0])


@pytest.mark.fault('8 installs and 8 rebuilds of one recipe at once, seven of which wait')
@pytest.mark.parametrize('rebuild', [False, True])
def test_one_of_many_installs_and_the_others_wait(scene, moment, rebuild):
    scene.restore(0 if rebuild else None)
    results = meeting(scene, scene.recipes[1], '--wait-on-lock-limit=-1', *['--rebuild'] * rebuild,
                      met=lambda _, output: 'waiting for process ' in output)
    for status, output in results:
        with moment():
            assert status == 0, output
            assert WORK in output or 'waiting for process ' in output, output
    assert sum(WORK in output for _, output in results) == 1
    check(scene, [1])


@pytest.mark.fault('8 installs of 8 recipes at once')
def test_many_install_many(scene, moment):
    versions = ['2.%d' % number for number in range(MANY)]
    recipes = [scene.recipe(scene.directory, version, 5) for version in versions]
    results = together(scene, recipes)
    said = scene.look()
    for version, (status, output) in zip(versions, results):
        with moment():
            assert (status, said.pop('toy/' + version)) == (0, '5'), output
    scene.remove(*versions)
    check(scene, [0])


def lock(scene):
    """Return where the lock of the installation is (Path)."""
    root = str(scene.prefix / 'software' / 'toy' / '1.0')
    return scene.prefix / 'software' / '.locks' / (root.replace('/', '_') + '.lock')


@pytest.mark.fault('a lock that a killed EasyBuild left')
def test_a_lock_of_easybuild_itself(scene, moment):
    lock(scene).mkdir(parents=True)
    os.utime(lock(scene), (time.time() - 60,) * 2)
    with moment():
        assert 'took over the lock of a process that left no name, which is dead' in scene.install(1).output
        check(scene, [1])


@pytest.fixture
def left(scene):
    """A lock of a session that was killed (Path)."""
    assert scene.install(1, {'do': 'kill', 'step': 'pre_install'}, check=False).status in (-9, 137)
    assert lock(scene).is_dir()
    return lock(scene)


@pytest.mark.fault('a lock of a process that is dead, on this host')
def test_a_lock_of_a_dead_process(scene, left, moment):
    with moment():
        output = scene.install(1).output
        assert 'took over the lock of process ' in output and ', which is dead' in output
        check(scene, [1])


@pytest.mark.nightly
@pytest.mark.fault('a lock of another host, whose last sign of life was an hour ago')
def test_a_lock_of_another_host(scene, left, moment):
    record = json.loads((left / 'holder').read_text())
    (left / 'holder').write_text(json.dumps(dict(record, host='far-away', machine='another', boot='another')))
    os.utime(left, (time.time() - 3600,) * 2)
    with moment():
        output = scene.install(1, more=['--wait-on-lock-limit=60']).output
        assert 'took over the lock of process %d of ' % record['pid'] in output and ' on far-away (' in output
        check(scene, [1])
