# SPDX-License-Identifier: GPL-2.0-only
"""What was found out about an installed module: problems, each with its file and what to type, and what is unknown."""

import os
import shlex
from dataclasses import dataclass, field
from typing import Optional

from easysif.errors import EasySIFError

#: directories in which a file that nobody knows could be run in place of ours, or change what ours do
GUARDED = ('bin', 'runscripts')

OWN = 'easysif'  #: the directory of what the wrappers are made of


@dataclass
class Report:
    """What was found out about a module.

    :param module: its name (str)
    :param root: the installation directory (str)
    :param refresh: what to type to make its module file and wrappers anew (str)
    :param rebuild: what to type to install it anew (str)
    :param problems: what is wrong (list of EasySIFError)
    :param unknown: what was not recorded, or cannot be asked for (list of str)
    :param notes: what is unusual and not wrong (list of str)
    :param extra: files of which the same holds, as they lie where nothing runs them (list of str)
    :param files: number of files that were compared (int)
    :param size: bytes of the image (int), None where it was not read
    """

    module: str
    root: str
    refresh: str
    rebuild: str
    problems: list = field(default_factory=list)
    unknown: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    extra: list = field(default_factory=list)
    files: int = 0
    size: Optional[int] = None

    def wrong(self, path, what, facts=(), hint=None):
        """Add a problem; without a hint it is one that goes when the file is made anew.

        :param path: the file (str)
        """
        top = os.path.relpath(path, self.root).split(os.sep)[0]
        ours = top in (*GUARDED, OWN, os.pardir)  # all else in an installation is of the recipe's own commands
        self.problems.append(EasySIFError(self.module, what, facts=[('file', path), *facts],
                                          hint=hint or (self.refresh if ours else self.rebuild)))

    def unreadable(self, path, name, err):
        """Add the problem that a file is not there or cannot be read.

        :param name: how messages name it (str)
        :param err: why (OSError)
        """
        if isinstance(err, (FileNotFoundError, NotADirectoryError)):
            self.wrong(path, '%s is missing' % name)
        else:
            self.wrong(path, '%s cannot be read (%s)' % (name, err.strerror), hint='ls -ld %s' % shlex.quote(path))

    @property
    def may_be_asked(self):
        """Whether what would run to answer is still what was installed (bool)."""
        own = os.path.join(self.root, OWN, '')
        return not any(str(error.facts[0][1]).startswith(own) for error in self.problems)
