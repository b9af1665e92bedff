# SPDX-License-Identifier: GPL-2.0-only
"""What is in the directory of an overlay: names, permissions, sizes, times, links, and how much it takes."""

import base64
import hashlib
import os
import shlex
import stat
import zlib
from array import array

from easysif import squashfs
from easysif.errors import EasySIFError

#: what uv keeps to install it again, if it says that this is a cache; it is no part of an overlay that is packed,
#: unless a link leads into it, as those of uv's link mode "symlink" do
CACHE = b'.cache/uv'
INSIDE = b'/user-software/'  #: where the overlay is in a container

SECOND = 10 ** 9  #: nanoseconds

SAMPLES, PIECE = 64, 1 << 15  # so much is compressed to learn how much smaller it gets


class Content:
    """What is in a directory, in the order of names.

    ``entries`` has (path, mode, size, time in ns, link) of everything (list); ``data`` is how many bytes its files
    take, holes left out and hard links counted once (int); ``cache`` is the directory that is left out (bytes or None).
    ``state`` changes with whatever is done to a file, which nobody can hide as one can by setting its time (str).

    :param top: the directory (str)
    :param where: the command, for messages (str)
    :raises EasySIFError: something in it cannot be read
    """

    def __init__(self, top, where):
        self.top, self.where = top, where
        self.cache = CACHE if os.path.isfile(os.path.join(os.fsencode(top), CACHE, b'CACHEDIR.TAG')) else None
        self._read()
        if self.cache and any(_leads_into_cache(os.fsencode(top), name, link) for name, *_, link in self.entries):
            self.cache = None
            self._read()

    def _read(self):
        self.data, self.entries, seen, state = 0, [], set(), hashlib.sha256()
        self.mode = os.stat(self.top).st_mode
        for entry, info in _walk(self.top, self.where, self.cache):
            self.entries.append(entry)
            state.update(repr((entry, info.st_ino, info.st_ctime_ns)).encode())
            if stat.S_ISREG(info.st_mode) and (info.st_nlink == 1 or info.st_ino not in seen):
                self.data += min(info.st_size, info.st_blocks * 512)
                if info.st_nlink > 1:
                    seen.add(info.st_ino)
        self.state = state.hexdigest()

    def is_still(self, top=None):
        """Tell whether the directory is, to the nanosecond, what it was (bool).

        :param top: another one that is to be the same (str)
        """
        now = _walk(top or self.top, self.where, self.cache)
        return all(before == entry for before, (entry, _) in _together(self.entries, now))

    def fingerprint(self):
        """Return what is the same for a directory and what is unpacked from its squashfs (str)."""
        digest = hashlib.sha256()
        for name, mode, size, time, link in self.entries:
            digest.update(repr((name, mode, size, time // SECOND, link)).encode())  # a squashfs keeps whole seconds
        return digest.hexdigest()

    def fractions(self):
        """Return the fractions of a second of all times, in the order of names, as `restore_times` takes them (str)."""
        numbers = array('I', (time % SECOND for *_, time, _ in self.entries))
        return base64.b64encode(zlib.compress(numbers.tobytes())).decode('ascii')

    def odd_times(self):
        """Return the times that no squashfs keeps, of before 1970 and after 2106: numbers of entries, times (list)."""
        times = [entry[3] for entry in self.entries]
        return [[number, time] for number, time in enumerate(times) if not 0 <= time // SECOND < 1 << 32]

    def restore_odd_times(self, times):
        """Give entries such a time.

        :param times: what `odd_times` returned for the same names (list)
        :raises OSError: it cannot be done
        """
        for number, time in times:
            name, mode, size, _, link = self.entries[number]
            os.utime(os.path.join(os.fsencode(self.top), name), ns=(time, time), follow_symlinks=False)
            self.entries[number] = name, mode, size, time, link

    def restore_times(self, fractions):
        """Give everything the time that it had, which a squashfs keeps in whole seconds only.

        :param fractions: what `fractions` returned for the same names (str)
        :raises OSError: it cannot be done
        """
        numbers = array('I', zlib.decompress(base64.b64decode(fractions)))
        for (name, *_, time, _), fraction in zip(self.entries, numbers):
            path, whole = os.path.join(os.fsencode(self.top), name), time // SECOND * SECOND
            os.utime(path, ns=(whole + fraction, whole + fraction), follow_symlinks=False)

    def listed(self):
        """Return what ``squashfs.listing`` of its squashfs tells (set)."""
        return {squashfs.entry(b'', self.mode, 0),
                *(squashfs.entry(name, mode, size, link) for name, mode, size, _, link in self.entries)}

    def files(self):
        """Return how many files, links and so on there are, without directories (int)."""
        return sum(not stat.S_ISDIR(mode) for _, mode, *_ in self.entries)

    def least_packed(self):
        """Return how many bytes its squashfs takes for certain (int).

        A quarter of what a fast compressor makes of some pieces of it, as others do better, and find duplicates.
        """
        regular = [(name, size) for name, mode, size, *_ in self.entries if stat.S_ISREG(mode)]
        total = sum(size for _, size in regular)
        step, next_one, before, read, packed = max(total // SAMPLES, PIECE), 0, 0, 0, 0
        for name, size in regular:
            while next_one < before + size:
                piece = _piece(os.path.join(os.fsencode(self.top), name), next_one - before)
                read += len(piece)
                packed += len(zlib.compress(piece, 1))
                next_one += step
            before += size
        return int(self.data * min(packed / read, 1) / 4) if read else 0


def _leads_into_cache(top, name, link):
    if not link:
        return False
    if link.startswith(INSIDE):
        link = os.path.join(top, link[len(INSIDE):])
    cache, target = [os.path.realpath(os.path.join(top, path)) for path in (
        CACHE, os.path.join(os.path.dirname(name), link))]
    return os.path.join(target, b'').startswith(os.path.join(cache, b''))


def _walk(top, where, without):
    """Yield all that is in a directory, in the order of names: an entry (tuple) and what lstat tells of it.

    :param without: path of what is left out (bytes), None for nothing
    :raises EasySIFError: something cannot be read
    """
    top, user = os.fsencode(top), os.geteuid()
    length = len(os.path.join(top, b''))
    left = [top]
    while left:
        here = left.pop()
        try:
            with os.scandir(here) as scan:
                found = sorted(scan, key=lambda entry: entry.name)
        except OSError as err:
            raise unreadable(err, where) from err
        below = []
        for entry in found:
            if entry.path[length:] == without:
                continue
            try:
                info = entry.stat(follow_symlinks=False)
                link = os.readlink(entry.path) if stat.S_ISLNK(info.st_mode) else b''
            except OSError as err:
                raise unreadable(err, where) from err
            is_file = stat.S_ISREG(info.st_mode)
            if is_file and user and (info.st_uid != user or not info.st_mode & stat.S_IRUSR):
                if not os.access(entry.path, os.R_OK):
                    raise unreadable(PermissionError(13, 'Permission denied', entry.path), where)
            if stat.S_ISDIR(info.st_mode):
                below.append(entry.path)
            size = info.st_size if is_file else 0
            yield (entry.path[length:], info.st_mode, size, info.st_mtime_ns, link), info
        left.extend(reversed(below))


def _together(one, other):
    """Yield the items of two iterables in pairs; where one is shorter, None stands for what it lacks."""
    other = iter(other)
    for item in one:
        yield item, next(other, (None, None))
    for item in other:
        yield None, item


def _piece(path, offset):
    with open(path, 'rb') as handle:
        handle.seek(offset)
        return handle.read(PIECE)


def unreadable(err, where):
    """Return the error that a file of an overlay cannot be read (EasySIFError).

    :param err: what the system says (OSError)
    :param where: the command, for messages (str)
    """
    if isinstance(err, FileNotFoundError):
        return EasySIFError(where, 'the directory changed while it was read',
                            facts=[('file', os.fsdecode(err.filename))],
                            hint='wait for pip to end, then the same command again')
    return EasySIFError(where, 'a file of the overlay cannot be read (%s)' % err.strerror,
                        facts=[('file', os.fsdecode(err.filename))],
                        hint='chmod %s -- %s' % ('u+rx' if os.path.isdir(err.filename) else 'u+r',
                                                 shlex.quote(os.fsdecode(err.filename))))
