# SPDX-License-Identifier: GPL-2.0-only
"""What a prefix lets its group and others do: as much is granted of what is published in it, whatever the umask."""

import os
import pwd
import shlex
import stat
import struct
from contextlib import contextmanager, suppress

from easysif import files
from easysif.errors import EasySIFError

ACCESS, DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
ENTRY = struct.Struct('<HHI')  # of such an attribute, after its version: what it is for, permissions, who
OWNER, GROUP, MASK, OTHERS = 1, 4, 16, 32
NOBODY = 0xffffffff


class Modes:
    """The permissions that a prefix grants. Nothing is ever written by others than its owner and its group.

    :param prefix: EasyBuild's install path (str); what is not there yet will be as the umask says
    """

    def __init__(self, prefix):
        self.prefix = prefix
        try:
            info = os.stat(prefix)
            mode, self.group = stat.S_IMODE(info.st_mode), info.st_gid
        except OSError:
            umask = os.umask(0o077)
            os.umask(umask)
            mode, self.group = 0o777 & ~umask, None
        group = _group_bits(prefix, mode)
        if mode & stat.S_IWOTH:  # as directories for temporary files are, which are no group's
            group &= 0o050
        self.bits = 0o700 | mode & 0o005 | group
        self.is_shared = self.group is not None and bool(self.bits & stat.S_IWGRP)

    @property
    def umask(self):
        """The umask under which what is made gets these permissions (int)."""
        return 0o777 & ~self.bits

    @contextmanager
    def publishing(self, *paths):
        """Let the block make files below the prefix, and give the permissions to them and the directories above them.

        :param paths: the files (str)
        """
        before = os.umask(self.umask)
        try:
            yield
            self.give(*paths)
        finally:
            os.umask(before)

    def give(self, *paths, above=True):
        """Give them to files and directories, as far as these are the user's own.

        :param above: also to the directories above them (bool)
        """
        top = os.path.join(self.prefix, '')
        for path in paths:
            while path.startswith(top):
                self._give(path, self.bits)
                path = os.path.dirname(path) if above else ''

    def give_all(self, directory, more=0):
        """Give them to a directory and to all in it.

        :param more: what is granted besides (int)
        """
        self._give(directory, self.bits | more)
        for parent, directories, names in os.walk(directory):
            for name in directories + names:
                self._give(os.path.join(parent, name), self.bits | more)

    def give_overlay(self, directory):
        """Give them to an overlay and to all that anybody will ever make in it, whatever their umask.

        For the latter the file system must have access control lists; elsewhere it depends on who makes something.
        """
        self.give_all(directory)
        if self.is_shared:
            entries = ((OWNER, 7), (GROUP, 7), (OTHERS, self.bits & 0o005))
            value = struct.pack('<I', 2) + b''.join(ENTRY.pack(who, bits, NOBODY) for who, bits in entries)
            for parent, _, _ in os.walk(directory):
                with suppress(OSError, AttributeError):
                    os.setxattr(parent, DEFAULT, value)

    def lend(self, path):
        """Let a file, and what is made beside it, be of the prefix's group when it is moved into the prefix.

        :param path: a file in a directory that nobody else may read (str); one in any other stays as it is
        """
        directory = os.path.dirname(path)
        if self.is_shared and not os.stat(directory).st_mode & 0o077:
            self._give(directory, 0o700)
            self._give(path, self.bits)

    def _give(self, path, bits):
        """Let group and others do what the owner may, within limits."""
        with suppress(OSError):  # gone meanwhile
            info = os.lstat(path)
            if info.st_uid != os.geteuid() or not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
                return
            mode = stat.S_IMODE(info.st_mode)
            own = mode & 0o700
            new = mode & ~0o077 | (own >> 3 | own >> 6) & bits
            if self.is_shared:
                if info.st_gid != self.group:
                    with suppress(OSError):  # not our group
                        os.chown(path, -1, self.group)
                if stat.S_ISDIR(info.st_mode):
                    new |= stat.S_ISGID
            if new != stat.S_IMODE(os.lstat(path).st_mode):
                os.chmod(path, new)


def _group_bits(path, mode):
    """Return what the group of a directory may do: with an access control list its mode says what anybody in it may."""
    try:
        content = os.getxattr(path, ACCESS)
    except (OSError, AttributeError):
        return mode & 0o070
    found = {who: bits for who, bits, _ in ENTRY.iter_unpack(content[4:])}
    return (found.get(GROUP, 0) & found.get(MASK, 7)) << 3


def check_replaceable(where, root, module):
    """Make sure that we may replace an installation and its module file, before anything is touched.

    :param where: the recipe, for messages (str)
    :param root: the installation directory (str), whether it is there or not
    :param module: the module file (str), whether it is there or not
    :raises EasySIFError: something in it is another user's, and closed to us
    """
    above = files.existing_directory(os.path.dirname(module))
    closed = [parent for parent, _, _ in os.walk(root) if not _is_open(parent)]
    closed += [] if _is_open(above) else [above]
    if closed:
        who = owner(os.stat(closed[0]))
        raise EasySIFError(where, 'what is installed belongs to somebody else, and you may not replace it',
                           facts=[('not writable', closed[0]), ('owner', who)],
                           hint='ask %s to run eb, or: find %s -type d -exec chmod g+w {} +'
                                % (who, shlex.quote(closed[0])))


def owner(info):
    """Return the name of the owner in what stat tells of a file, the number where that user has none (str)."""
    try:
        return pwd.getpwuid(info.st_uid).pw_name
    except KeyError:
        return str(info.st_uid)


def _is_open(directory):
    try:
        return os.stat(directory).st_uid == os.geteuid() or os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    except FileNotFoundError:
        return True
