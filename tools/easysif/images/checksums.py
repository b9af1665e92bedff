# SPDX-License-Identifier: GPL-2.0-only
"""``checksums`` of a recipe, which mean what they mean to EasyBuild: the first of them is that of the image's file.

The library never imports EasyBuild, so its rules stand here again; a test holds both against each other.
"""

import hashlib
import os
import re
import zlib

from easysif.errors import EasySIFError
from easysif.images.place import check, sha256_of

CHUNK = 1 << 20  #: bytes that are read at once
LENGTHS = {64: 'sha256', 32: 'md5'}  #: what a checksum is that is a text alone, by the number of its digits
NESTED = 99  #: where EasyBuild takes no lists in lists any more


def _hashed(kind):
    return lambda: hashlib.new(kind, usedforsecurity=False)


class _Summed:
    """A sum of zlib, which EasyBuild writes as 0x and a decimal number."""

    def __init__(self, function):
        self.function, self.value = function, function(b'')

    def update(self, data):
        self.value = self.function(data, self.value)

    def hexdigest(self):
        return '0x%d' % self.value


KINDS = {**{kind: _hashed(kind) for kind in ('md5', 'sha1', 'sha256', 'sha512')},
         'adler32': lambda: _Summed(zlib.adler32), 'crc32': lambda: _Summed(zlib.crc32), 'size': None}


def sha256_in(checksums):
    """Return the sha256 that the image's file must have (str), None where they give another kind, or none.

    :param checksums: of the recipe (list), None for none
    """
    first = checksums[0] if isinstance(checksums, (list, tuple)) and checksums else None
    if isinstance(first, tuple) and len(first) == 2 and first[0] == 'sha256':
        first = first[1]
    return first if isinstance(first, str) and re.fullmatch('[0-9a-f]{64}', first) else None


def verify(path, name, checksums, where, sha256=None):
    """Do nothing where a file has the checksums that a recipe gives, or it gives none.

    :param path: the file (str)
    :param name: what the recipe calls it (str), by which a mapping is asked
    :param checksums: of the recipe (list), None for none
    :param where: the recipe, for messages (str)
    :param sha256: what the file has, with or without ``sha256:`` (str), None where it is not known
    :raises EasySIFError: it has others, or they are none
    """
    if not checksums:
        return
    if sha256 and sha256_in(checksums):
        check(sha256.rpartition(':')[2], sha256_in(checksums), path, where, 'checksums')
    else:
        _File(path, name, where, checksums).verify()


class _File:
    """A file that is held against checksums; each kind is computed once."""

    def __init__(self, path, name, where, checksums):
        self.path, self.name, self.where, self.checksums, self.computed = path, name, where, checksums, {}

    def verify(self):
        """Hold it against the first of the checksums.

        :raises EasySIFError: it has others, or they are none
        """
        if not isinstance(self.checksums, (list, tuple)):
            raise self._wrong(self.checksums, 'a list is needed, with one for each file')
        wanted = self._read(self.checksums[0])
        if wanted is not None and not self._has(wanted):
            raise EasySIFError(self.where, 'checksums do not match %s' % self.path, facts=[
                ('recipe', wanted if isinstance(wanted, str) else repr(wanted)), ('found', sha256_of(self.path))],
                hint='review the file; if it is right, write the sha256 found into checksums')

    def _read(self, entry, level=0, is_of_name=False):
        """Return an entry as EasyBuild reads it: a list is of several that must all match, a tuple is a kind and its
        value, or alternatives.

        :param level: how deep it is in lists (int)
        :param is_of_name: it stands in a mapping, which holds no other one (bool)
        """
        if entry is None and not level or isinstance(entry, str):
            return entry
        if isinstance(entry, (list, tuple)):
            if len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], (str, int)):
                return entry if isinstance(entry[1], str) and not level else tuple(entry)
            if level < 2:
                deeper = NESTED if isinstance(entry, tuple) or level else 1
                return (tuple if deeper == NESTED else list)(self._read(one, deeper, is_of_name) for one in entry)
        if isinstance(entry, dict) and not is_of_name:
            return {name: self._read(one, is_of_name=True) for name, one in entry.items()}
        raise self._wrong(entry, 'it is none')

    def _has(self, wanted):
        """Tell whether it has a checksum, one of a tuple of them, all of a list of them (bool)."""
        if isinstance(wanted, list):
            return all([self._has(one) for one in wanted])
        if isinstance(wanted, dict):
            if self.name not in wanted:
                raise self._wrong(wanted, 'it has none of %s' % self.name)
            return wanted[self.name] is None or self._has(wanted[self.name])
        if isinstance(wanted, str):
            if len(wanted) not in LENGTHS:
                raise self._wrong(wanted, 'it has %d characters; a sha256 has 64, an md5 32' % len(wanted))
            return self._compute(LENGTHS[len(wanted)]) == wanted
        if len(wanted) == 2 and isinstance(wanted[0], str) and wanted[0] in KINDS:
            return self._compute(wanted[0]) == wanted[1]
        return any([self._has(one) for one in wanted])

    def _compute(self, kind):
        if kind not in self.computed:
            if kind == 'size':
                self.computed[kind] = os.path.getsize(self.path)
            else:
                digest = KINDS[kind]()
                with open(self.path, 'rb') as handle:
                    for chunk in iter(lambda: handle.read(CHUNK), b''):
                        digest.update(chunk)
                self.computed[kind] = digest.hexdigest()
        return self.computed[kind]

    def _wrong(self, entry, why):
        return EasySIFError(self.where, 'checksums are nothing that a file could have: %r' % (entry,),
                            facts=[('because', why), ('kinds', ', '.join(sorted(KINDS)))],
                            hint="sha256sum %s, and write checksums = ['…']" % self.name)
