# SPDX-License-Identifier: GPL-2.0-only
"""Files and directories that are there whole or not at all: written, exchanged, synced, removed."""

import ctypes
import hashlib
import os
import re
import shutil
import signal
import stat
import sys
import threading
from contextlib import contextmanager, suppress

from easysif.errors import EasySIFError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)
#: what a killed process leaves of writing a file of that name; hidden, or Lmod would show it
LITTER = re.compile(r'\.(.+)\.new-\d+\Z')
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def write(path, content, mode=0o664):
    """Write a text file beside its place, sync it and rename it there; leave it alone where it is the same already.

    :param path: the file (str); its directory is made
    :param content: the text (str)
    :param mode: permissions (int), of which the umask takes what it takes
    :returns: whether anything changed (bool)
    :raises EasySIFError: the file cannot be written
    """
    try:
        with open(path, encoding='utf-8') as handle:
            if handle.read() == content:
                return False
    except (OSError, ValueError):
        pass
    with written_beside(path, content, mode) as beside:
        os.rename(beside, path)
    return True


@contextmanager
def written_beside(path, content, mode=0o664):
    """Write a text file beside its place, sync it, and give where it is; it goes at the end if it is still there.

    The parameters are those of :func:`write`.

    :raises EasySIFError: it cannot be written, or the block cannot rename it
    """
    directory, made = os.path.dirname(path), name_beside(path)
    try:
        os.makedirs(directory, exist_ok=True)
        try:
            handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with open(handle, 'w', encoding='utf-8') as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            yield made
        finally:
            with suppress(FileNotFoundError):
                os.unlink(made)
    except OSError as err:
        raise EasySIFError(path, 'cannot be written (%s)' % err.strerror,
                           hint='check: ls -ld %s; df %s' % ((directory,) * 2)) from err


def name_beside(path):
    """Return where a file is written before it is renamed to its place (str): beside it, hidden, ours alone."""
    return os.path.join(os.path.dirname(path), '.%s.new-%d' % (os.path.basename(path), os.getpid()))


def free_name(path):
    """Return a path, or where something has it already the first of ``path-2``, ``path-3``… that is free (str)."""
    name, number = path, 1
    while os.path.lexists(name):
        number += 1
        name = '%s-%d' % (path, number)
    return name


def link(target, path):
    """Make a symbolic link, in the place of what was there before.

    :param target: where it leads, literally (str)
    :param path: the link (str)
    :raises OSError: it cannot be made
    """
    made = name_beside(path)
    os.symlink(target, made)
    try:
        os.rename(made, path)
    except BaseException:
        os.unlink(made)
        raise


def rewrite(path, content):
    """Write a file that nobody uses yet, in place, so that it keeps its permissions, also where they are read-only.

    :param path: the file (str or bytes)
    :param content: the bytes
    """
    with writable(path), open(path, 'wb') as handle:
        handle.write(content)


def sweep(path):
    """Remove what killed processes left of writing a file; to be called where no other one writes it.

    :param path: the file (str)
    """
    for other in beside(path):
        with suppress(OSError):
            os.unlink(other)


def beside(path):
    """Return what sessions that were killed left of writing a file (list of str).

    :param path: the file (str)
    """
    directory, name = os.path.split(path)
    with suppress(OSError):
        return [os.path.join(directory, other) for other in os.listdir(directory)
                if (litter := LITTER.match(other)) and litter[1] == name]
    return []


def inode(path):
    """Return what tells a file or directory from any other one that is there (tuple), None without one."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def identity(path):
    """Return what tells a file from any other one, and from itself when it was changed (tuple), None without one."""
    try:
        return identity_of(os.stat(path))
    except OSError:
        return None


def identity_of(info):
    """Return the same by what stat says of a file (tuple)."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def sha256(path):
    """Return the sha256 of a small file (str), None where it cannot be read."""
    try:
        with open(path, 'rb') as handle:
            return hashlib.sha256(handle.read()).hexdigest()
    except OSError:
        return None


def remove_tree(path):
    """Remove a directory with all that is in it, also where directories in it are read-only; a link, as such.

    :param path: the directory (str), which need not be there
    :raises OSError: something of it cannot be removed
    """
    if os.path.islink(path):
        os.unlink(path)
        return
    if not os.path.isdir(path):
        return
    _open(path)
    for parent, directories, _ in os.walk(path):
        for name in directories:
            if not os.path.islink(os.path.join(parent, name)):
                _open(os.path.join(parent, name))
    shutil.rmtree(path)


def _open(directory):
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):  # another user's may be open to us all the same
        os.chmod(directory, stat.S_IRWXU)


@contextmanager
def writable(path):
    """Make a file or directory of ours writable for the block, where an installation is read-only.

    :param path: the file or directory (str or bytes)
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if os.access(path, os.W_OK):
        yield
        return
    with suppress(OSError):  # not ours: writing to it says so
        os.chmod(path, mode | stat.S_IWUSR)
    try:
        yield
    finally:
        with suppress(OSError):
            os.chmod(path, mode)


def exchange(one, other):
    """Exchange two directories at one moment; return whether this file system and system can (bool)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc before 2.28
        return False
    return not renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


@contextmanager
def ended_in_order():
    """Let signals that would end this process at once raise SystemExit in the block, so that it cleans up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number, _):
        for other in deadly:  # what cleans up now is not to be cut short
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    deadly = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def undisturbed():
    """Let signals that would end this process wait until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for number in caught:
            signal.raise_signal(number)


def existing_directory(path):
    """Return the path if it is a directory, else the nearest one above it that is there (str)."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def free_space(directory):
    """Return how many bytes this user can still write below a directory (int); of a quota nothing is known."""
    info = os.statvfs(directory)
    return info.f_frsize * (info.f_bavail if os.geteuid() else info.f_bfree)


def sync(directory, without=frozenset()):
    """Bring a directory with all that is in it to the disk.

    :param without: inodes of files that are there already (set of int)
    """
    for parent, _, names in os.walk(directory):
        for path in (os.path.join(parent, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path) and os.stat(path).st_ino not in without:
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        sync_directory(parent)


def sync_directory(path):
    """Bring the names in a directory to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
