# SPDX-License-Identifier: GPL-2.0-only
"""How far a download is: a bar on a terminal, else a line now and then. Imports terminal and text only."""

import threading
import time

from easysif.terminal import Line
from easysif.text import human

BAR = 24     #: columns of the bar itself
BEAT = 0.2   #: seconds between two drawings
QUIET = 60   #: seconds between two lines where there is no terminal


class Progress:
    """Counts bytes as they arrive, from several threads, and shows how many there are and how fast they come.

    :param name: what is fetched, for people (str)
    :param total: how many bytes there will be (int), None where that is not known
    :param tell: takes a line for the log where there is no terminal (callable), None for nobody
    :param stream: where the bar is drawn if it is a terminal, standard error where None
    """

    def __init__(self, name, total=None, tell=None, stream=None):
        self.name, self.total, self._tell, self._line = name, total, tell, Line(stream=stream)
        self._lock, self._begin, self._done = threading.Lock(), time.monotonic(), 0
        self._next = self._begin + (0 if self._line.shows else QUIET)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self._line.clear()
        if kind is None and self._tell:
            self._tell('fetched %s' % self._words())

    def add(self, number):
        """Count some more bytes, or fewer where some have to come again (int)."""
        with self._lock:
            self._done += number
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + (BEAT if self._line.shows else QUIET)
            if self._line.shows:
                self._line.show(self._bar())
            elif self._tell:
                self._tell('fetching %s' % self._words())

    def _bar(self):
        part = min(1, self._done / self.total) if self.total else 0
        bar = '[%s] %3d %%  ' % (('#' * int(BAR * part)).ljust(BAR, '.'), 100 * part) if self.total else ''
        return bar + self._words()

    def _words(self):
        speed = self._done / max(time.monotonic() - self._begin, 0.001)
        done = human(self._done) + (' of %s' % human(self.total) if self.total and self._done < self.total else '')
        return '%s  %s/s  %s' % (done, human(speed), self.name)
