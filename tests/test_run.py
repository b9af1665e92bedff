# SPDX-License-Identifier: GPL-2.0-only
"""Processes that are stopped end with all that they started."""

import os
import signal
import threading
import time

import pytest

from easysif import run as module
from easysif.run import run

#: prints its id and that of a child in a group of its own, as the runtimes have them for their mounts
FAMILY = 'set -m; sleep 300 & echo $$ $! >ids; fg'


def ids(tmp_path):
    """Return the process ids that FAMILY wrote, once it did (list of int)."""
    path = tmp_path / 'ids'
    while not path.exists() or not path.read_text().endswith('\n'):
        time.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


def assert_gone(processes):
    deadline = time.monotonic() + 10
    while [pid for pid in processes if os.path.exists('/proc/%d' % pid)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize('trap', ['', 'trap "" TERM; '])
def test_a_time_out_ends_a_command_and_what_it_started(tmp_path, monkeypatch, trap):
    monkeypatch.setattr(module, 'PATIENCE', 0.5)
    result = run(['bash', '-c', trap + FAMILY], cwd=tmp_path, timeout=1, check=False)
    assert result.status in (-signal.SIGTERM, -signal.SIGKILL)
    assert_gone(ids(tmp_path))


def test_an_interrupt_ends_a_command_and_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', 0.5)

    def interrupt():
        ids(tmp_path)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(['bash', '-c', FAMILY], cwd=tmp_path)
    assert_gone(ids(tmp_path))
