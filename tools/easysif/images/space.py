# SPDX-License-Identifier: GPL-2.0-only
"""Whether there is room for an image, before its first byte is written. Imports files and texts only."""

import ctypes
import errno
import os

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.text import human

FULL = (errno.ENOSPC, errno.EDQUOT)
#: what to do where what is fetched has no room
ELSEWHERE = 'free some space there (or quota), or: export EASYSIF_CACHE_DIR=<a directory with more room>'
#: what to do where an image has to go to that very place
AGAIN = 'free some space there (or quota), then the same again'
KEEP_SIZE = 1  # of fallocate(2)


def check(directory, needed, what, where, hint=None):
    """Do nothing where a directory has room for so many bytes.

    :param directory: where they go (str)
    :param needed: how many (int)
    :param what: what needs them, for people (str)
    :param where: the recipe, for messages (str)
    :param hint: how to get more room (str), the usual where None
    :raises EasySIFError: the file system has less for us
    """
    free = files.free_space(directory)
    if needed > free:
        raise lacking(directory, needed, what, where, hint)


def reserve(fd, path, needed, what, where, hint=None):
    """Have the file system set so many bytes aside for a file, which asks the quota as well; its size stays.

    :param fd: descriptor of the file, empty and open for writing (int)
    :param path: the file (str)

    The other parameters, and what is raised, are those of `check`, which serves where the file system cannot.
    """
    check(os.path.dirname(os.path.abspath(path)), needed, what, where, hint)
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except AttributeError:  # musl before 1.1
        return
    failed = needed and fallocate(fd, KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(needed))
    if failed and ctypes.get_errno() in FULL:
        raise lacking(os.path.dirname(os.path.abspath(path)), needed, what, where, hint)


def lacking(directory, needed, what, where, hint=None):
    """Return the error that tells how much room is needed where (EasySIFError).

    The parameters are those of `check`.
    """
    return EasySIFError(where, 'not enough space for the image in %s' % directory,
                        facts=[('needed', '%s  (%s)' % (human(needed), what)),
                               ('free', human(files.free_space(directory)))],
                        hint=hint or 'free some space there (or quota), or install elsewhere: eb --prefix DIR',
                        exit_code=TOOL)
