# SPDX-License-Identifier: GPL-2.0-only
"""Bytes that come over a network into a file: hashed on the way, and continued where the connection was cut.

One pass: when the last byte is there, its sha256 is known.
"""

import hashlib
import os
import re
import time

from easysif.images import onepass, space
from easysif.images.transport import NoAnswer

WAITS = (1, 2, 4, 8, 16)  #: seconds before the next try; as many in a row may fail without one new byte


class Download:
    """One file on its way, from one source after the other.

    :param path: the file, which must not exist (str)
    :param what: what is fetched, for messages (str)
    :param where: the recipe, for messages (str)
    :param size: how many bytes it must have (int), None where that is not known
    :param digest: ``sha256:…`` that it must have (str), None where that is not known
    :param count: is called with the number of bytes that arrived (callable: int), or have to come again (negative)
    """

    def __init__(self, path, what, where, size=None, digest=None, count=lambda number: None):
        self.path, self.what, self.where, self.digest, self._count = path, what, where, digest, count
        self._given, self._size, self._offset, self._hash = size, size, 0, hashlib.sha256()
        self._validator = self._fd = self._writer = None

    def __enter__(self):
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return self

    def __exit__(self, *_):
        os.close(self._fd)

    @property
    def sha256(self):
        """The digest of what has arrived, ``sha256:…`` (str)."""
        return 'sha256:%s' % self._hash.hexdigest()

    def take(self, ask):
        """Fetch what is missing from one source, trying again for as long as something comes.

        :param ask: gives the answer to a request with some headers (callable: dict -> context manager of Answer)
        :raises NoAnswer: the source does not give all of it
        :raises EasySIFError: there is no room for it
        """
        self._validator, most, failures = None, self._offset, 0
        while True:
            try:
                return self._try(ask)
            except NoAnswer as err:
                if err.status == 416:  # the file is shorter than what we have of it
                    self._restart()
                elif not err.again:
                    raise
                failures = 0 if self._offset > most else failures + 1
                most = max(most, self._offset)
                if failures > len(WAITS):
                    raise
                time.sleep(max(WAITS[max(failures - 1, 0)], err.wait))
            except OSError as err:
                if err.errno not in space.FULL:
                    raise
                raise space.lacking(os.path.dirname(os.path.abspath(self.path)), self._size or self._offset, self.what,
                                    self.where, space.ELSEWHERE) from err

    def _try(self, ask):
        if not (self._validator or self.digest):  # nobody could tell whether the rest belongs to what is there
            self._restart()
        headers = {'Range': 'bytes=%d-' % self._offset} if self._offset else {}
        if self._offset and self._validator:
            headers['If-Range'] = self._validator
        with ask(headers) as answer:
            if not (self._offset and self._continues(answer)):
                self._begin(answer)
            for chunk in answer.chunks():
                if self._size is not None and self._offset + len(chunk) > self._size:
                    raise NoAnswer('has more than %d bytes' % self._size)
                self._writer.write(memoryview(chunk), self._offset)
                self._hash.update(chunk)
                self._offset += len(chunk)
                self._count(len(chunk))
        if self._size is not None and self._offset < self._size:
            raise NoAnswer('connection was cut after %d of %d bytes' % (self._offset, self._size), again=True)

    def _continues(self, answer):
        """Tell whether an answer goes on where we are (bool)."""
        part = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', answer.headers.get('Content-Range', ''))
        if answer.status != 206 or not part or int(part[1]) != self._offset:
            return False
        same = self._validator in (None, validator(answer.headers))
        return same and (part[2] == '*' or self._size in (None, int(part[2])))

    def _begin(self, answer):
        self._restart()
        if answer.status != 200:
            raise NoAnswer('sends another part than the one that was asked for', again=True)
        if answer.headers.get('Content-Encoding', 'identity') != 'identity':
            raise NoAnswer('sends the file packed (%s)' % answer.headers['Content-Encoding'])
        length = answer.length()
        if None not in (length, self._given) and length != self._given:
            raise NoAnswer('has %d bytes, not %d' % (length, self._given))
        self._size = self._given if length is None else length
        space.reserve(self._fd, self.path, self._size or 0, self.what, self.where, space.ELSEWHERE)
        self._validator = validator(answer.headers)

    def _restart(self):
        if self._offset:
            self._count(-self._offset)
            os.ftruncate(self._fd, 0)
        self._offset, self._hash, self._writer = 0, hashlib.sha256(), onepass.Writer(self._fd)


def validator(headers):
    """Return what tells this state of a file from others: its strong ETag, else its date (str), None without both."""
    etag = headers.get('ETag', '')
    return etag if re.fullmatch(r'"[^"]*"', etag) else headers.get('Last-Modified')
