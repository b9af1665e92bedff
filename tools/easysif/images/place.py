# SPDX-License-Identifier: GPL-2.0-only
"""How one image file becomes the installed one: linked, reflinked, copied or referred to, its sha256 taken on the way.

Written beside, verified, synced, renamed: under the final name there is the whole image or what was there before.
A copy is one pass over the source, whose bytes go to the disk and through sha256 at the same time, in bounded memory.
Imports errors, files, onepass and space only.
"""

import fcntl
import os
import shlex
import stat
from contextlib import contextmanager
from dataclasses import dataclass

from easysif import files
from easysif.errors import EasySIFError
from easysif.images import onepass, space

FICLONE = 0x40049409
MODE = 0o444

#: where the sha256 of an image may stand
DIGEST, CHECKSUMS, STORE = 'digest', 'checksums', 'store'


@dataclass(frozen=True)
class Placed:
    """An image in its place: sha256 of its bytes (64 hexadecimal digits, str), and how it came there.

    ``how`` is ``link``, ``reflink``, ``copy`` or ``reference`` (str).
    """

    sha256: str
    how: str


def place(source, target, link=False, expected=None, where='easysif', told_by=DIGEST, verified=None, more_room=None):
    """Put an image file in its place, replacing what is there, and return its sha256 and how it was done (Placed).

    :param source: the image (str)
    :param target: where it belongs (str); its directory exists
    :param link: the source is EasySIF's own, so both may be one file (bool)
    :param expected: sha256 that it must have, with or without ``sha256:`` (str)
    :param where: what needs it, for messages (str)
    :param told_by: where that sha256 stands: DIGEST or CHECKSUMS of the recipe, or STORE (str)
    :param verified: identity of the file that is known to have that sha256, so that a link need not be read (tuple)
    :param more_room: what to do where space is lacking, for messages (str), another prefix where None
    :raises EasySIFError: it cannot be read or written, has another digest, changed meanwhile, or space is lacking;
                          the target and the source are then as they were
    """
    with _into_place(source, target, where, more_room) as (source_fd, part):
        if os.path.exists(target) and not os.path.islink(target) and os.path.samefile(source, target):
            raise EasySIFError(where, 'image would be put over itself: %s' % target, facts=[('source', source)])
        if link and _link(source, source_fd, part):
            is_known = verified == files.identity_of(os.fstat(source_fd))
            sha256, how = _hexadecimal(expected) if is_known else onepass.sha256(source_fd), 'link'
        else:
            sha256, how = _bring(source, source_fd, part, where, more_room)
        check(sha256, expected, source, where, told_by)
    return Placed(sha256, how)


def refer(source, target, expected=None, where='easysif', told_by=DIGEST):
    """Put a symbolic link to an image file in its place, after reading the image; the parameters are those of place.

    The image itself is not touched.

    :raises EasySIFError: it cannot be read, has another digest or changed meanwhile, or the link cannot be made
    """
    with _into_place(source, target, where) as (source_fd, part):
        sha256 = _unchanged(source, source_fd, onepass.sha256, where)
        check(sha256, expected, source, where, told_by)
        os.symlink(source, part)
        if not os.path.samestat(os.stat(part), os.fstat(source_fd)):
            raise _changed(source, where, 'file', 'another one has that name now')
    return Placed(sha256, 'reference')


@contextmanager
def _into_place(source, target, where, more_room=None):
    """Let the block make ``part`` (str) of the open source (int), and put it into its place; else it goes."""
    part = '%s.part-%d' % (target, os.getpid())
    source_fd = _open(source, where)
    try:
        _remove(part)
        yield source_fd, part
        os.rename(part, target)
        _sync_directory(target)
    except OSError as err:
        raise _failed(err, source, source_fd, target, where, more_room) from err
    finally:
        os.close(source_fd)
        _remove(part)


def sha256_of(path):
    """Return the sha256 of a file (str, 64 hexadecimal digits).

    :raises OSError: it cannot be read
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return onepass.sha256(fd)
    finally:
        os.close(fd)


def check(sha256, expected, source, where, told_by=DIGEST):
    """Do nothing where a file has the sha256 that it should have.

    :param sha256: what it has (str)
    :param source: the file or who served it, for messages (str)

    The other parameters are those of place.

    :raises EasySIFError: it has another one
    """
    wanted = _hexadecimal(expected)
    if not wanted or sha256 == wanted:
        return
    if told_by == STORE:
        raise EasySIFError(where, 'the file of the image store is not what was put there',
                           facts=[('file', source), ('recorded', 'sha256:' + wanted), ('found', 'sha256:' + sha256)],
                           hint='easysif store verify')
    if told_by == CHECKSUMS:
        raise EasySIFError(where, 'checksums do not match %s' % source, facts=[('recipe', wanted), ('found', sha256)],
                           hint='review the file; if it is right, write the sha256 found into checksums')
    raise EasySIFError(where, 'digest does not match the image',
                       facts=[('recipe', 'sha256:' + wanted), ('found', 'sha256:%s  (%s)' % (sha256, source))],
                       hint="fetch the file again; if it is the right one, write digest = 'sha256:%s'" % sha256)


def _hexadecimal(digest):
    return (digest or '').rpartition(':')[2].lower()


def _open(source, where):
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise EasySIFError(where, 'image file cannot be read: %s (%s)' % (source, err.strerror)) from err
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise EasySIFError(where, 'image is not a file: %s' % source)


def _bring(source, source_fd, part, where, more_room):
    """Make ``part`` a copy of the image, on disk and with its final mode; return its sha256 (str) and how (str)."""
    part_fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if _reflink(source_fd, part_fd):
            sha256, how = onepass.sha256(part_fd), 'reflink'
        else:
            _check_space(source, source_fd, part, where, more_room)
            sha256, how = _unchanged(source, source_fd, lambda fd: onepass.copy(fd, part_fd), where), 'copy'
        os.fchmod(part_fd, MODE)
        os.fsync(part_fd)
    finally:
        os.close(part_fd)
    return sha256, how


def _link(source, source_fd, part):
    """Make ``part`` a hard link to the image, on disk and with its final mode; tell whether that was possible."""
    try:
        os.link(os.path.realpath(source), part)
    except OSError:
        return False  # another file system, or one without links: a copy does
    if not os.path.samestat(os.stat(part), os.fstat(source_fd)):
        os.unlink(part)
        return False  # the name is another file's by now: a copy of what we have open does
    if stat.S_IMODE(os.fstat(source_fd).st_mode) != MODE:
        os.fchmod(source_fd, MODE)
    os.fsync(source_fd)
    return True


def _reflink(source_fd, part_fd):
    try:
        fcntl.ioctl(part_fd, FICLONE, source_fd)
    except OSError:
        return False  # most file systems cannot; those that can cannot across two of them
    return True


def _unchanged(source, source_fd, read, where):
    """Return what reading a file gives, if the file is the same before and after."""
    before = os.fstat(source_fd)
    sha256 = read(source_fd)
    after = os.fstat(source_fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise _changed(source, where, 'size', '%d bytes, then %d' % (before.st_size, after.st_size))
    return sha256


def _changed(source, where, label, how):
    return EasySIFError(where, 'image changed while it was read: %s' % source, facts=[(label, how)],
                        hint='wait until whoever writes it is done, then try again')


def _check_space(source, source_fd, part, where, more_room):
    """Raise where a copy has no room, before the first byte of it is written."""
    status = os.fstat(source_fd)
    # blocks are counted only where there are holes: some file systems count them long after the file is written
    sparse = onepass.seek(source_fd, 0, os.SEEK_HOLE, status.st_size) < status.st_size
    needed = min(status.st_size, status.st_blocks * 512) if sparse else status.st_size
    space.check(_directory(part), needed, source, where, more_room)


def _failed(err, source, source_fd, target, where, more_room):
    if err.errno in space.FULL:
        return space.lacking(_directory(target), os.fstat(source_fd).st_size, source, where, more_room)
    return EasySIFError(where, 'image cannot be put into %s (%s)' % (_directory(target), err.strerror),
                        facts=[('source', source), ('target', target)],
                        hint='ls -ld %s' % shlex.quote(_directory(target)))


def _directory(path):
    return os.path.dirname(os.path.abspath(path))


def _sync_directory(path):
    fd = os.open(_directory(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
