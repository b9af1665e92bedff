# SPDX-License-Identifier: GPL-2.0-only
"""A bar on the terminal that shows how far a process is, by the bytes that it has read or written so far."""

import threading
from contextlib import contextmanager

from easysif.terminal import Line
from easysif.text import human

WIDTH = 30  #: characters of the bar
PAUSE = 0.2  #: seconds between two looks


class Progress:
    """Shows bars on the error output, if that is a terminal; in the log of a job nothing."""

    def __init__(self):
        self._line = Line()

    @contextmanager
    def of(self, what, total, counter):
        """Show how far a process is while the block runs; give it a function that takes the number of the process.

        :param what: what is at work, as in ``packing`` (str)
        :param total: bytes that it will have read or written at the end (int)
        :param counter: what counts them in /proc/PID/io, ``rchar`` or ``wchar`` (str)
        """
        done, threads = threading.Event(), []

        def follow(process):
            if self._line.shows:
                threads.append(threading.Thread(target=self._follow, args=(process, what, total, counter, done)))
                threads[0].start()
        try:
            yield follow
        finally:
            done.set()
            for thread in threads:
                thread.join()
                self._line.clear()

    def _follow(self, process, what, total, counter, done):
        while not done.wait(PAUSE):
            count = min(_read(process, counter), total)
            share = count / total if total else 0
            bar = '#' * int(share * WIDTH)
            self._line.show('%s [%-*s] %3d %%  %s of %s' % (what, WIDTH, bar, 100 * share, human(count), human(total)))


def _read(process, counter):
    """Return what a process has read or written (int), 0 where that is not told."""
    try:
        with open('/proc/%d/io' % process, encoding='ascii') as handle:
            return dict((name, int(value)) for name, value in (line.split(': ') for line in handle))[counter]
    except (OSError, KeyError, ValueError):
        return 0
