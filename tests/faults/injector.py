# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild hooks that let faults happen in an eb, as its variable FAULTS says: version of a recipe -> fault, in JSON.

A fault has ``do``, one of ACTIONS, and when:

* ``step``: ``pre_install`` and so on, one of EasyBuild's
* ``seconds``: after eb has read its options
* ``call``: the number of a call of CALLS, counted from the moment in which an installation is to take its place; it
  does not happen any more. 0 is none of them: ``record`` names a file for the list of all
"""

import json
import os
import resource
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from easysif import files, standing

from easybuild.tools.build_log import EasyBuildError

FAULTS = json.loads(os.environ['FAULTS'])
PREFIX = os.environ['EASYBUILD_PREFIX']
LIMIT = max(fault.get('bytes', 2048) for fault in FAULTS.values())  # of a file

CALLS = ((os, 'rename'), (os, 'unlink'), (os, 'symlink'), (os, 'rmdir'), (os, 'mkdir'), (os, 'fsync'), (os, 'chmod'),
         (os, 'utime'), (files, 'exchange'))


def _fail():
    raise EasyBuildError('injected')


def _crash():
    raise KeyError('injected')


def _full():
    raise OSError(28, 'No space left on device')


def _fill():
    """Fill the disk to the last byte."""
    with suppress(OSError), open(os.path.join(PREFIX, os.pardir, 'filler'), 'wb', buffering=0) as handle:
        for size in (1 << 16, 1 << 9, 1):
            with suppress(OSError):
                while True:
                    handle.write(b'x' * size)


def _limit(process):
    """Let no file become large that a process writes, or one that it has started."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    for children in Path('/proc', str(process), 'task').glob('*/children'):
        for child in children.read_text().split():
            _limit(int(child))


def _close():
    """Make all directories of the prefix read-only, as somebody may who takes them away from us."""
    for parent, _, _ in os.walk(PREFIX, topdown=False):
        os.chmod(parent, 0o555)


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _ask():
    """Wait until whoever watches us has done what is to happen now."""
    asked = os.path.join(PREFIX, os.pardir, 'asked')
    open(asked, 'w').close()
    while os.path.exists(asked):
        time.sleep(0.01)


def _set_clock_back():
    """Let the clock be an hour earlier from now on, as far as this process sees it."""
    real = time.time
    time.time = lambda: real() - 3600


def _send(number):
    return lambda: os.kill(os.getpid(), number)


ACTIONS = {
    'fail': _fail, 'crash': _crash, 'full': _full, 'fill': _fill, 'close': _close, 'kill': _kill,
    'limit': lambda: _limit(os.getpid()),
    'ask': _ask, 'back': _set_clock_back,
    'time': lambda: _tell_time(),
    'SIGTERM': _send(signal.SIGTERM), 'SIGINT': _send(signal.SIGINT), 'SIGHUP': _send(signal.SIGHUP),
}


def _at_step(name):
    def hook(self, *args, **kwargs):
        fault = FAULTS.get(self.version, {})
        if fault.get('step') == name:
            ACTIONS[fault['do']]()
    hook.__name__ = name + '_hook'
    return hook


for _name in {fault['step'] for fault in FAULTS.values() if 'step' in fault}:
    globals()[_name + '_hook'] = _at_step(_name)


def start_hook(*_):
    """Begin to count seconds and calls."""
    for fault in FAULTS.values():
        if 'seconds' in fault:
            timer = threading.Timer(fault['seconds'], ACTIONS[fault['do']])
            timer.daemon = True
            timer.start()
        elif 'call' in fault:
            _count_calls(fault)


def _tell_time():
    for fault in FAULTS.values():
        if 'clock' in fault:
            with open(fault['clock'], 'a', encoding='utf-8') as handle:
                handle.write('%s\n' % (time.monotonic() - BEGAN))


def end_hook(*_):
    """Tell how long it took."""
    _tell_time()


BEGAN = time.monotonic()


def _count_calls(fault):
    seen, counts = [], []

    def counted(name, real):
        def call(*args, **kwargs):
            if counts and threading.current_thread() is threading.main_thread():
                seen.append('%s %s' % (name, args[0]))
                if fault.get('record'):
                    with open(fault['record'], 'a', encoding='utf-8') as handle:
                        handle.write(seen[-1] + '\n')
                if len(seen) == fault['call']:
                    ACTIONS[fault['do']]()
            return real(*args, **kwargs)
        return call

    def publish(self, texts):
        counts.append(True)
        return published(self, texts)

    def tidy(self, alone=False):
        if not alone:  # the lock was given back
            counts.clear()
        return tidied(self, alone)

    published, tidied = standing.Standing.publish, standing.Standing.tidy
    standing.Standing.publish, standing.Standing.tidy = publish, tidy
    for module, name in CALLS:
        setattr(module, name, counted(name, getattr(module, name)))
