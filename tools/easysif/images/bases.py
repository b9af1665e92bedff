# SPDX-License-Identifier: GPL-2.0-only
"""Bases of definitions, fetched once for all that are built at the same time or by the same process.

A base lies beside the images that wait to be installed, whole or not at all, in a directory of its own. Who builds
with it has hard links, or a copy on another file system, so that none needs to care when it goes: at the end of a
process that has used it, or when another one sees that the one that fetched it is dead.
"""

import atexit
import glob
import os
import re
import shlex
import shutil
from contextlib import suppress

from easysif import files, holder
from easysif.errors import EasySIFError
from easysif.images import pull
from easysif.images.place import sha256_of
from easysif.lock import Lock

LEFT = re.compile(r'(base-[0-9a-f]{12})\.part-[0-9]+')

_used = {}  # base that goes when this process ends -> what it was used for


class Bases:
    """The bases in one directory.

    :param kept: the images that wait there (kept.Kept)
    """

    def __init__(self, kept):
        self.kept = kept

    def bring(self, base, path, work, site, tell=None):
        """Bring a base to a path, as an OCI layout or the SIF file of an artifact.

        :param base: what the definition starts from (definition.Base), which a registry has
        :param path: where it is to be (str), which must not exist
        :param work: directory in which it will be unpacked (str)
        :param site: its ``ca_certificates`` are used
        :param tell: takes a line for the log now and then (callable: str)
        :raises EasySIFError: it is not to be had, or there is no room for it
        """
        os.makedirs(self.kept.directory, exist_ok=True)
        target = os.path.join(self.kept.directory, 'base-%s' % base.resolved.manifest_digest.rpartition(':')[2][:12])
        with Lock(target + '.lock', self.kept.where, **self.kept.lock) as lock:
            self._sweep(target)
            if not self._is_whole(target, base):
                files.remove_tree(target)
                self._fetch(target, base, work, site, tell, lock)
            try:
                _link(os.path.join(target, 'base'), path)
            except OSError as err:
                raise EasySIFError(self.kept.where, "base '%s' cannot be brought to where it is used (%s)" % (
                    base.reference, err.strerror), facts=[('directory', os.path.dirname(path))],
                    hint='df -h %s' % shlex.quote(os.path.dirname(path))) from err
        _used[target] = self.kept.where

    def _fetch(self, target, base, work, site, tell, lock):
        part = '%s.part-%d' % (target, os.getpid())
        try:
            os.mkdir(part)
            path = os.path.join(part, 'base')
            if base.is_sif:
                pull.sif(base.resolved, path, site, self.kept.where, tell)
            else:
                pull.layout(base.resolved, path, site, self.kept.where, tell, work)
            with open(os.path.join(part, holder.NAME), 'w', encoding='utf-8') as handle:
                handle.write(holder.write(self.kept.where, ''))
            files.sync(part)
            lock.check()
            os.rename(part, target)
        finally:
            files.remove_tree(part)

    def _is_whole(self, target, base):
        """Tell whether a base is there, put there by who may, and has the bytes of its digests."""
        def path_of(digest):
            path = os.path.join(target, 'base')
            return path if base.is_sif else os.path.join(path, 'blobs', 'sha256', digest.partition(':')[2])
        digests = {blob.digest for blob in base.resolved.blobs}
        digests |= set() if base.is_sif else {base.resolved.manifest_digest}
        try:
            return all(self.kept.is_ours(os.lstat(path_of(digest)))
                       and 'sha256:' + sha256_of(path_of(digest)) == digest for digest in digests)
        except OSError:
            return False

    def _sweep(self, ours):
        """Remove what killed processes left of fetching."""
        for name in os.listdir(self.kept.directory):
            left = LEFT.fullmatch(name)
            target = left and os.path.join(self.kept.directory, left[1])
            if left and (target == ours or Lock(target + '.lock', self.kept.where).is_free()):
                with suppress(OSError):
                    files.remove_tree(os.path.join(self.kept.directory, name))


def forget(directory=None):
    """Remove the bases that this process has used.

    :param directory: of which directory (str), all where None
    """
    for target, where in list(_used.items()):
        if directory in (None, os.path.dirname(target)):
            del _used[target]
            _remove(target, where)


def sweep(directory, where):
    """Remove the bases that processes fetched which were killed.

    :param where: the recipe, for messages (str)
    """
    for path in _all(directory):
        if holder.is_dead_in(path):
            with suppress(OSError):
                _remove(path, where)


def clear(directory, where):
    """Remove all bases that wait in a directory and nobody is at work with.

    :param where: the command, for messages (str)
    """
    for path in _all(directory):
        _remove(path, where)


def _all(directory):
    return glob.glob(os.path.join(glob.escape(directory), 'base-' + '[0-9a-f]' * 12))


def _remove(target, where):
    lock = Lock(target + '.lock', where)
    if os.path.isdir(target) and lock.is_free():
        with suppress(OSError, EasySIFError), lock:  # another one takes it, and removes it then
            for path in [target, *glob.glob(glob.escape(target) + '.part-*')]:
                files.remove_tree(path)


def _link(source, path):
    """Make a file or a directory again with hard links, or copies where there can be none."""
    if os.path.isdir(source):
        os.mkdir(path)
        for name in os.listdir(source):
            _link(os.path.join(source, name), os.path.join(path, name))
        return
    try:
        os.link(source, path)
    except OSError:
        shutil.copyfile(source, path)


atexit.register(forget)
