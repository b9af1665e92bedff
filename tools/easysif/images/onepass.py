# SPDX-License-Identifier: GPL-2.0-only
"""One pass over the bytes of a file: copied and hashed at the same time, in bounded memory. Imports nothing of ours."""

import errno
import hashlib
import os
import queue
import threading
from collections import deque

CHUNK = 1 << 20     #: bytes read at once; larger ones fall out of the processor's cache between writing and hashing
CHUNKS = 8          #: how many of them are under way
STRIDE = 8 * CHUNK  #: how often the kernel is told what is read next and what is written
KEPT = 64 * CHUNK   #: bytes written that stay in memory while the disk takes them


def copy(source, target):
    """Copy all bytes of one open file to another, holes as holes, and return their sha256 (str).

    This thread reads and writes while another one hashes, which lets go of Python's lock.

    :param source: descriptor to read from (int)
    :param target: descriptor of an empty file (int)
    :raises OSError: reading or writing failed
    """
    size, offset, hasher, zeros = os.fstat(source).st_size, 0, _Hasher(), bytes(CHUNK)
    writer = Writer(target)
    try:
        while True:
            _read_ahead(source, offset)
            data = seek(source, offset, os.SEEK_DATA, size) if offset < size else offset
            if data > offset:
                length = min(CHUNK, data - offset)
                hasher.feed(zeros, length)
            else:
                buffer, hole = hasher.buffer(), seek(source, offset, os.SEEK_HOLE, size) if offset < size else size
                most = min(CHUNK, hole - offset) if hole > offset else CHUNK  # it may have grown
                length = os.preadv(source, [memoryview(buffer)[:most]], offset)
                if not length:
                    break
                hasher.feed(buffer, length)
                writer.write(memoryview(buffer)[:length], offset)
            offset += length
        os.ftruncate(target, offset)
    finally:
        digest = hasher.finish()
    return digest


def sha256(fd):
    """Return the sha256 of an open file (str, 64 hexadecimal digits).

    :raises OSError: reading failed
    """
    digest, buffer, offset = hashlib.sha256(), bytearray(CHUNK), 0
    while True:
        _read_ahead(fd, offset)
        length = os.preadv(fd, [buffer], offset)
        if not length:
            return digest.hexdigest()
        digest.update(memoryview(buffer)[:length])
        offset += length


def seek(fd, offset, whence, size):
    """Return where the next data or hole begins (int); one file of data where the file system cannot tell."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as err:
        return offset if whence == os.SEEK_DATA and err.errno != errno.ENXIO else size


def _read_ahead(fd, offset):
    if offset % STRIDE == 0:
        os.posix_fadvise(fd, offset + STRIDE, STRIDE, os.POSIX_FADV_WILLNEED)


class Writer:
    """Writes a file from its beginning to its end, holes left out, and lets the disk begin with what is written.

    :param fd: descriptor of the file (int)
    """

    def __init__(self, fd):
        self._fd, self._since, self._marks = fd, 0, deque(maxlen=KEPT // STRIDE + 1)

    def write(self, view, offset):
        """Write bytes that follow those written before (memoryview), where they belong (int).

        :raises OSError: writing failed
        """
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], offset + done)
        self._since += done
        if self._since < STRIDE:
            return
        # On Linux this starts writing what is dirty, without waiting, and forgets what is on the disk already. Else
        # the disk idles until the fsync at the end, and the copy takes all free memory, slow to get on busy nodes.
        # It goes by bytes, not by places: a file that is mostly holes would begin anew with each piece between them.
        start = self._marks[0] if self._marks else 0
        os.posix_fadvise(self._fd, start, offset + done - start, os.POSIX_FADV_DONTNEED)
        self._marks.append(offset + done)
        self._since = 0


class _Hasher:
    """A thread that takes sha256 of buffers in the order in which they are fed, and lends CHUNKS of them in turn."""

    def __init__(self):
        self._sum, self._free, self._full = hashlib.sha256(), queue.Queue(), queue.Queue()
        self._lent = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def buffer(self):
        """Return a buffer to fill, waiting for one where all are under way (bytearray)."""
        if self._lent < CHUNKS:
            self._lent += 1
            return bytearray(CHUNK)
        return self._free.get()

    def feed(self, buffer, length):
        """Hand over the first bytes of a buffer; it must not change until :meth:`buffer` returns it again."""
        self._full.put((buffer, length))

    def finish(self):
        """Return the sha256 of all that was fed (str)."""
        self._full.put(None)
        self._thread.join()
        return self._sum.hexdigest()

    def _work(self):
        for buffer, length in iter(self._full.get, None):
            self._sum.update(memoryview(buffer)[:length])
            if isinstance(buffer, bytearray):
                self._free.put(buffer)
