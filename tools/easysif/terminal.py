# SPDX-License-Identifier: GPL-2.0-only
"""A line on the terminal that says what is at work, and is gone before anything else is printed."""

import shutil
import sys

from easysif.text import shorten

CLEAR = '\r\033[K'  #: back to the beginning of the line, and erase to its end


class Line:
    """The line; where the output is no terminal, as in the log of a job, nothing is shown.

    :param quiet: show nothing (bool)
    :param stream: where it is shown, standard error where None
    """

    def __init__(self, quiet=False, stream=None):
        self._stream = stream or sys.stderr
        self.shows = not quiet and self._stream.isatty()

    def show(self, text):
        """Show what is at work, in place of what was shown before (str)."""
        self._write(CLEAR + shorten(text, shutil.get_terminal_size().columns - 1))

    def clear(self):
        """Take the line away."""
        self._write(CLEAR)

    def _write(self, text):
        if self.shows:
            self._stream.write(text)
            self._stream.flush()
