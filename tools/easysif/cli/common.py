# SPDX-License-Identifier: GPL-2.0-only
"""What several sub-commands have in common: the option --prefix, dates, progress on a terminal."""

import os
import shutil
import stat
import sys

from easysif import installed, modes
from easysif.errors import EasySIFError
from easysif.text import shorten


def add_prefix(parser):
    """Give a parser the option --prefix."""
    parser.add_argument('--prefix', metavar='DIR', help="EasyBuild's install path (default: as EasyBuild's environment"
                                                        ' variables say, else ~/.local/easybuild)')


def prefix_of(args):
    """Return the prefix that the user means (str), which need not be there unless it was named.

    :raises EasySIFError: what was named is no directory, or the user may not look into it
    """
    if args.prefix and not os.path.isdir(args.prefix):
        raise EasySIFError(args.prefix, 'there is no such directory', hint='easysif list --prefix DIR')
    prefix = os.path.abspath(args.prefix) if args.prefix else installed.easybuild_prefix()
    if os.path.isdir(prefix) and not os.access(prefix, os.R_OK | os.X_OK):
        info = os.stat(prefix)
        owner = modes.owner(info)
        raise EasySIFError(prefix, 'you may not look into this prefix',
                           facts=[('owner', owner), ('mode', stat.filemode(info.st_mode))],
                           hint='ask %s for a prefix that you may read, or name your own with --prefix DIR' % owner)
    return prefix


class Progress:
    """A line on the terminal that says what is at work, and is gone before anything else is printed.

    :param quiet: show nothing (bool)
    """

    def __init__(self, quiet=False):
        self.shows = not quiet and sys.stderr.isatty()

    def show(self, text):
        """Show what is at work, in place of what was shown before (str)."""
        if self.shows:
            columns = shutil.get_terminal_size().columns
            sys.stderr.write('\r\033[K' + shorten(text, columns - 1))
            sys.stderr.flush()

    def clear(self):
        """Take the line away."""
        if self.shows:
            sys.stderr.write('\r\033[K')
            sys.stderr.flush()
