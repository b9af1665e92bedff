# SPDX-License-Identifier: GPL-2.0-only
"""Where desktops are on this node: a directory each in /tmp, which is its owner's alone, and what is known of them.

/tmp, because the sockets of X are there, and their paths may not be long. The directory has, each readable by its owner
alone: ``holder``, the process of the desktop (holder.py); ``desktop.json``, once it is there; ``password``;
``Xauthority``; the sockets ``vnc``, ``web`` and ``control``; ``log``.
"""

import json
import os
import shutil
import socket
import stat
import struct
import tempfile
import time
from contextlib import contextmanager, suppress

from easysif import files, holder
from easysif.errors import TOOL, EasySIFError

TOP = '/tmp'
PREFIX = 'easysif-vnc-'
RECORD = 'desktop.json'
LOCK, SOCKET = '.X%d-lock', '.X11-unix/X%d'  #: of an X server, below /tmp
LONGEST = 64  #: characters of a lock that are read: it has 11
MOST = 107  #: bytes of the name of a socket
SILENT = 5  #: seconds for one who has the name of `alone` to listen, and let others in


@contextmanager
def alone(tell):
    """Have no two starts of this user on this node at work at once, in the block; give whether that is so (bool).

    What is held is a name of the kernel's and no file: nothing of it is left, however this process ends. Where somebody
    else has taken it, nobody is waited for.

    :param tell: called when another start is waited for (callable)
    """
    with socket.socket(socket.AF_UNIX) as ours:
        yield _take(ours, os.fsencode('\0%s%d in %s' % (PREFIX, os.getuid(), TOP))[:MOST], tell)


def _take(ours, name, tell):
    """Take a name for a socket, when who of this user has it is done; return whether it is ours (bool)."""
    end, has_told = time.monotonic() + SILENT, False
    while time.monotonic() < end:
        with suppress(OSError):
            ours.bind(name)
            ours.listen()
            return True
        with suppress(OSError), socket.socket(socket.AF_UNIX) as other:
            other.settimeout(SILENT)  # for one who lets nobody in, who may be another user
            other.connect(name)
            if struct.unpack('3i', other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] != os.getuid():
                return False
            if not has_told:
                tell()
            end, has_told = None, True  # as long as it takes
            other.settimeout(None)
            other.recv(1)
        end = time.monotonic() + SILENT if end is None else end
        time.sleep(0.01)
    return False


def make(where):
    """Make the directory of a new desktop, held by this process, and return its path (str).

    :param where: the command, for messages (str)
    :raises EasySIFError: it cannot be made
    """
    try:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=TOP)
    except OSError as err:
        raise EasySIFError(where, 'no directory can be made in %s (%s)' % (TOP, err.strerror), exit_code=TOOL,
                           hint='df -h %s; ls -ld %s' % (TOP, TOP)) from err
    try:
        hold(path, where)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def hold(path, where):
    """Have a desktop be this process's."""
    files.write(os.path.join(path, holder.NAME), holder.write(where, os.path.basename(path)), 0o600)


def write_private(path, text):
    """Write a new file that nobody else may read, whatever the umask."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w', encoding='utf-8') as handle:
        handle.write(text)


def found():
    """Yield the directories of this user on this node, with what holds each: path (str), record (dict or None)."""
    with suppress(OSError):
        for name in sorted(os.listdir(TOP)):
            path = os.path.join(TOP, name)
            if name.startswith(PREFIX) and _is_ours(path):
                yield path, _holder(path)


def desktops():
    """Return the desktops of this user that run on this node, by their displays (list of dict)."""
    running = []
    for path, held in found():
        if holder.is_dead(held) is False:  # where that is not known, its number may be that of another process here
            with suppress(OSError, ValueError), open(os.path.join(path, RECORD), encoding='utf-8') as handle:
                running.append(dict(json.load(handle), pid=held['pid'], started=held['started']))
    return sorted(running, key=lambda one: one['display'])


def sweep(is_alone=False):
    """Remove what desktops have left whose process was killed.

    :param is_alone: no start is at work, so that nobody is about to hold what nobody holds (bool)
    """
    for path, held in found():
        if holder.is_dead(held) if held else is_alone:
            remove(path)


def remove(path):
    """Remove all of a desktop that is no more: its directory, and what its X server left in /tmp."""
    with suppress(OSError, ValueError), open(os.path.join(path, RECORD), encoding='utf-8') as handle:
        _remove_display(json.load(handle)['display'])
    shutil.rmtree(path, ignore_errors=True)


def _remove_display(number):
    """Remove lock and socket of a display whose server was killed, unless somebody has it again."""
    lock = os.path.join(TOP, LOCK % number)
    with suppress(OSError, ValueError):
        with open(lock, encoding='ascii', opener=_open_lock) as handle:
            server = int(handle.read(LONGEST))
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            for path in (os.path.join(TOP, SOCKET % number), lock):
                with suppress(FileNotFoundError):
                    os.unlink(path)


def _open_lock(path, flags):
    """Open a file in /tmp, where other users may have put a pipe or a link of that name (int)."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _is_ours(path):
    """Return whether a directory is this user's alone (bool), and no link."""
    with suppress(OSError):
        found = os.lstat(path)
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return False


def _holder(path):
    with suppress(OSError):
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return holder.parse(holder.read(directory))
        finally:
            os.close(directory)
    return None
