# SPDX-License-Identifier: GPL-2.0-only
"""Directories of a user that are made when they are first needed, and removed when what we put there is gone."""

import os
from contextlib import suppress


def missing(path):
    """Return a directory, and those above it, as far as they are not there (list of str).

    :param path: the directory, an absolute path (str)
    """
    found = []
    while not os.path.isdir(path):
        found.append(path)
        path = os.path.dirname(path)
    return found


def remove_empty(paths):
    """Remove those of some directories that are empty, the innermost first.

    :param paths: the directories; they may be gone (iterable of str)
    """
    for path in sorted(paths, key=len, reverse=True):
        with suppress(OSError):  # it is not empty, or is gone
            os.rmdir(path)
