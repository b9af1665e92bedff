# SPDX-License-Identifier: GPL-2.0-only
"""Squashfs files: whether one is whole, and what is in it."""

import os
import struct
import uuid

from easysif.errors import EasySIFError
from easysif.run import run

SUPERBLOCK = 96  # bytes; magic "hsqs" at 0, length of the file system (bytes_used) as 64-bit word at 40


def problem(path):
    """Return what is wrong with a squashfs file, None if it begins and ends as it should (str or None).

    :param path: the file (str)
    """
    try:
        with open(path, 'rb') as handle:
            head = handle.read(SUPERBLOCK)
            size = os.fstat(handle.fileno()).st_size
    except OSError as err:
        return err.strerror
    if len(head) < SUPERBLOCK or head[:4] != b'hsqs':
        return 'it is no squashfs file'
    used = struct.unpack_from('<Q', head, 40)[0]
    if size < used:
        return 'it is cut off: %d of %d bytes' % (size, used)
    return None


def names(path):
    """Return the paths in a squashfs file, below its root (set of bytes).

    :raises EasySIFError: unsquashfs cannot read it
    """
    # a name may hold a newline, so entries are told apart by a root that no file has
    root = b'root-%s' % uuid.uuid4().hex.encode()
    listing = run(['unsquashfs', '-d', root.decode(), '-l', path], binary=True).stdout
    entries = (b'\n' + listing).split(b'\n' + root)[1:]
    entries[-1:] = [entry[:-1] if entry.endswith(b'\n') else entry for entry in entries[-1:]]
    return {entry[1:] for entry in entries if entry}


def check(path, where):
    """Raise an error if the file is no whole squashfs.

    :param path: the file (str)
    :param where: the module or command concerned (str)
    :raises EasySIFError: it is not
    """
    found = problem(path)
    if found:
        raise EasySIFError(where, 'the squashfs file is damaged: %s' % found, facts=[('file', path)],
                           hint='mv -- "%s" "%s.damaged"' % (path, path))
