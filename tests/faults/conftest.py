# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of the tests with faults, and what counts them: `tools/run-tests --reliability` writes the table."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import pytest

pytest.register_assert_rewrite('scene', 'overlay_scene', 'image_scene')
from image_scene import ImageScene, upstream  # noqa: E402
from overlay_scene import OverlayScene  # noqa: E402
from scene import WORKERS, Scene  # noqa: E402

ROWS = pytest.StashKey()
BEGIN, END = '<!-- made by tools/run-tests --reliability -->\n', '<!-- end -->\n'


def pytest_addoption(parser):
    """Take the file whose table is written."""
    parser.addoption('--reliability', help='file that the table of faults is written to')


def pytest_configure(config):
    """Start with an empty table."""
    config.addinivalue_line('markers', 'nightly: takes long; only in tools/run-tests --nightly and --reliability')
    config.addinivalue_line('markers', 'fault(text): a row of docs/reliability.md, whose moments the test counts')
    config.stash[ROWS] = {}


def pytest_sessionfinish(session, exitstatus):
    """Write the table into its page, if anything was counted. Rows of faults that were not chosen this time stay."""
    path, rows = session.config.getoption('--reliability', None), session.config.stash[ROWS]
    if not path or not rows:
        return
    with open(path, encoding='utf-8') as handle:
        before, _, rest = handle.read().partition(BEGIN)
    written, _, after = rest.partition(END)
    others = re.findall(r'^\| (.+) \| (\d+) \| (\d+) \|$', written, re.M)
    rows = dict({fault: list(map(int, counts)) for fault, *counts in others if fault != 'all'}, **rows)
    lines = ['| fault | moments | nothing came to harm |', '|---|---|---|']
    lines += ['| %s | %d | %d |' % (fault, *counts) for fault, counts in rows.items()]
    lines += ['| all | %d | %d |' % tuple(map(sum, zip(*rows.values())))]
    with open(path, 'w', encoding='utf-8') as handle:
        handle.write(before + BEGIN + '\n'.join(lines) + '\n' + END + after)


def pytest_collection_modifyitems(config, items):
    """What is marked nightly takes part in `tools/run-tests --nightly` and when the table is made."""
    if config.getoption('--hypothesis-profile') == 'nightly' or config.getoption('--reliability', None):
        return
    rest = [item for item in items if item.get_closest_marker('nightly')]
    items[:] = [item for item in items if item not in rest]
    config.hook.pytest_deselected(items=rest)


@pytest.fixture
def moment(request):
    """A context manager: one moment of the fault that the test is marked with, which passes if the block ends well."""
    fault = request.node.get_closest_marker('fault').args[0]
    counts, lock = request.config.stash[ROWS].setdefault(fault, [0, 0]), Lock()

    @contextmanager
    def counted():
        with lock:
            counts[0] += 1
        yield
        with lock:
            counts[1] += 1
    return counted


@pytest.fixture(scope='session')
def scenes(tmp_path_factory, toy, registry):
    """Some scenes, as many as there are workers (list of Scene)."""
    made = [Scene(tmp_path_factory.mktemp('scene'), toy, registry) for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(Scene.prepare, made))


@pytest.fixture
def scene(scenes):
    """One scene, in which generation 0 stands (Scene)."""
    return scenes[0].restore(0)


@pytest.fixture
def each(scenes):
    """A function that calls another one with each of some things and with a scene, with several scenes at once."""
    return in_turns(scenes)


@pytest.fixture(scope='session')
def archives(tmp_path_factory):
    """Where the archives of the toy image are (Path)."""
    return tmp_path_factory.mktemp('archives')


@pytest.fixture(scope='session')
def server(archives, toy):
    """What serves the toy image in all ways (helpers_registry.stub)."""
    with upstream(archives, toy) as running:
        yield running


@pytest.fixture(scope='session')
def image_scenes(tmp_path_factory, toy, server, archives):
    """Some scenes in which the image comes in all ways, as many as there are workers (list of ImageScene)."""
    made = [ImageScene(tmp_path_factory.mktemp('scene'), toy, server, archives) for _ in range(WORKERS)]
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(ImageScene.prepare, made))


@pytest.fixture
def each_image(image_scenes):
    """As `each`, with these."""
    return in_turns(image_scenes)


@pytest.fixture(scope='session')
def overlays(tmp_path_factory):
    """Some overlays, as many as there are workers (list of OverlayScene)."""
    return [OverlayScene(tmp_path_factory.mktemp('overlay')).prepare() for _ in range(WORKERS)]


@pytest.fixture
def each_overlay(overlays):
    """As `each`, with overlays."""
    return in_turns(overlays)


def in_turns(scenes):
    """Return a function that calls another one with each of some things and one of the scenes, which take turns."""
    def call(function, things):
        things, failures = list(enumerate(things)), []

        def work(number):
            for thing in (thing for index, thing in things if index % WORKERS == number):
                try:
                    function(scenes[number], thing)
                except AssertionError as err:
                    failures.append('%s: %s' % (thing, err))
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(work, range(WORKERS)))
        assert not failures, '\n\n'.join(failures)
    return call
