# SPDX-License-Identifier: GPL-2.0-only
"""Squashfs files: whether one is whole, and what is in it."""

import hashlib
import os
import shlex
import stat
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
    length = used(head)
    if size < length:
        return 'it is cut off: %d of %d bytes' % (size, length)
    return None


def used(head):
    """Return how long the file system in a squashfs file is, without what fills it up (int).

    :param head: its first SUPERBLOCK bytes
    """
    return struct.unpack_from('<Q', head, 40)[0]


def sha256(path, sync=False):
    """Return the sha256 of a file of any size (str).

    :param sync: bring it to the disk as well (bool)
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as handle:
        for piece in iter(lambda: handle.read(1 << 20), b''):
            digest.update(piece)
        if sync:
            os.fsync(handle.fileno())
    return digest.hexdigest()


def listing(path):
    """Return what is in a squashfs file: what `entry` makes of each (set), of its root, which has no name, as well.

    :raises EasySIFError: unsquashfs cannot read it
    """
    # A name may hold a newline, so entries are told apart by a root that no file has. Each piece is a name and, in its
    # last line, the facts of the next: "-rw-r--r-- user/group   12 2025-01-31 10:00".
    root = b' root-%s' % uuid.uuid4().hex.encode()
    first, *pieces = run(['unsquashfs', '-d', root[1:].decode(), '-ll', path], binary=True).stdout.split(root)
    found, facts = set(), first.rpartition(b'\n')[2]
    for piece in pieces:
        name, _, following = piece.rpartition(b'\n')
        words = facts.split()
        found.add((words[0].decode(), int(words[-3]) if words[0].startswith(b'-') else 0, name[1:]))
        facts = following
    return found


def entry(name, mode, size, link=b''):
    """Return what `listing` tells of a file: type and permissions (str), bytes of a regular file (int), name (bytes).

    :param name: path below the root (bytes)
    :param link: what a symbolic link points to (bytes)
    """
    shown = name + b' -> ' + link if stat.S_ISLNK(mode) else name
    return stat.filemode(mode), size if stat.S_ISREG(mode) else 0, shown


def permissions(mode):
    """Return the permissions (int) that `listing` tells of a file as ``-rwxr-x---`` (str)."""
    special = ((stat.S_ISUID, mode[3]), (stat.S_ISGID, mode[6]), (stat.S_ISVTX, mode[9]))
    return (sum(0o400 >> place for place, char in enumerate(mode[1:]) if char not in '-ST')
            | sum(bit for bit, char in special if char in 'sStT'))


def check(path, where):
    """Raise an error if the file is no whole squashfs.

    :param path: the file (str)
    :param where: the module or command concerned (str)
    :raises EasySIFError: it is not
    """
    found = problem(path)
    if found:
        raise EasySIFError(where, 'the squashfs file is damaged: %s' % found, facts=[('file', path)],
                           hint='mv -- %s %s' % (shlex.quote(path), shlex.quote(path + '.damaged')))
