# SPDX-License-Identifier: GPL-2.0-only
"""Images that were fetched or made and wait to be installed: one file for each digest, tied to its bytes by a record.

Of several processes that want the same image one makes it and the others take it. Each that takes one has a hard
link of its own, so that none needs to care when another one is done with it. What somebody else has put there counts
only where they may write to the prefix as well.
"""

import atexit
import glob
import json
import os
import re
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Optional

from easysif import files, modes
from easysif.errors import EasySIFError
from easysif.images.place import DIGEST, sha256_of
from easysif.lock import Lock

IMAGE = re.compile(r'image-[0-9a-f]{12}\.sif')
#: what a killed process may leave
LEFT = re.compile(r'(image-[0-9a-f]{12}\.sif)\.(part-[0-9]+|lock)')
USED = re.compile(r'image-[0-9a-f]{12}\.sif\.used-(?P<host>.+)-(?P<pid>[0-9]+)-(?P<since>[0-9]+)')
FAR = 7 * 86400  #: seconds after which no process of another host installs any more what it took


@dataclass(frozen=True)
class Obtained:
    """A SIF file, and what is known of where it came from.

    :param path: the file (str)
    :param own: EasySIF made it, so a hard link may be made (bool)
    :param kept: the file of which this is a link of our own, which goes when it is installed (str), None for others
    :param expected: the sha256 that the file must have (str), None where that is not known
    :param origin: digests and names for ``easysif.json`` (dict)
    :param note: what the user has to know of it (str), None where it is what one would expect
    :param told_by: where ``expected`` stands, as images.place knows it (str)
    :param link: it is run from where it is, without a copy (bool)
    :param verified: identity of the file that was read and has ``expected``, as `files.identity` tells it (tuple)
    """

    path: str
    own: bool = False
    kept: Optional[str] = None
    expected: Optional[str] = None
    origin: dict = field(default_factory=dict)
    note: Optional[str] = None
    told_by: str = DIGEST
    link: bool = False
    verified: Optional[tuple] = field(default=None, compare=False)

    def forget(self):
        """It is installed: remove what was kept until then, so that one copy is left."""
        if self.kept:
            _unlink(_record(self.kept))  # an image without a record means nothing
            _unlink(self.kept)
            _unlink(self.path)

    def release(self):
        """It is not going to be installed by this process: what is kept waits for another one."""
        if self.kept and self.path != self.kept:
            _unlink(self.path)


def directories(site, sources, build):
    """Return where images are kept until they are installed, and where temporary files go (tuple of str), both made.

    The first is one directory for all recipes, as several of them may have the same image.

    :param site: its ``cache_dir`` and ``tmp_dir`` are used
    :param sources: the first of EasyBuild's source paths (str)
    :param build: the build directory of this installation (str)
    :raises OSError: what the site names cannot be made
    """
    downloads = site.cache_dir or os.path.join(sources, 'easysif')
    if not site.cache_dir and not os.access(files.existing_directory(downloads), os.W_OK):
        downloads = build
    for directory in filter(None, (site.cache_dir, site.tmp_dir)):
        os.makedirs(directory, exist_ok=True)
    return downloads, site.tmp_dir or build


class Kept:
    """The images that wait in one directory.

    :param directory: where they are (str)
    :param where: the recipe, for messages (str)
    :param lock: ``wait``, ``tell`` and ``hint`` of Lock, for when another process makes the same one (dict)
    :param prefix: EasyBuild's install path (str), None for none
    """

    def __init__(self, directory, where, lock, prefix=None):
        self.directory, self.where, self.lock, self.prefix = directory, where, lock, prefix
        self._release_dead()

    def find(self, digest, fits):
        """Return the image of a digest if it is there, whole and fits (Obtained or None).

        :param digest: 12 or more hexadecimal digits, with or without what stands before a colon (str)
        :param fits: tells by its record, origin and ``sha256``, whether it is the right one (callable: dict -> bool)
        """
        return self._take(self._target(digest), fits)

    def newest(self, fits):
        """Return of all images the newest that fits (Obtained or None)."""
        targets = glob.glob(os.path.join(glob.escape(self.directory), 'image-%s.sif' % ('[0-9a-f]' * 12)))
        dated = []
        for target in targets:
            with suppress(OSError):
                dated.append((os.path.getmtime(target), target))
        return next(filter(None, (self._take(target, fits) for _, target in sorted(dated, reverse=True))), None)

    def make(self, digest, fits, make, known=lambda: None):
        """Make an image, and the record of its origin beside it, which is there only if the image is complete.

        :param make: writes it to a path and returns its origin (callable: str -> dict)
        :param known: what else may be there since another process is done (callable: -> Obtained or None)
        :raises EasySIFError: a stranger's file is in the way
        """
        target = self._target(digest)
        with Lock(target + '.lock', self.where, **self.lock) as lock:
            self._sweep(target)
            found = self._take(target, fits) or known()
            if found:
                return found
            self._clear_strangers(target)
            part = '%s.part-%d' % (target, os.getpid())
            try:
                origin = make(part)
                sha256 = _sync(part)
                lock.check()
                if os.path.exists(_record(target)):
                    os.unlink(_record(target))
                os.rename(part, target)
            finally:
                if os.path.lexists(part):
                    os.unlink(part)
            files.write(_record(target), json.dumps(dict(origin, sha256=sha256), indent=2, sort_keys=True) + '\n')
            path = _link(target)
            return Obtained(path, True, target, sha256, origin, verified=files.identity(path))

    def clear(self):
        """Remove all that waits, but for what another process makes or installs."""
        self._sweep(None)
        names = os.listdir(self.directory) if os.path.isdir(self.directory) else []
        for name in filter(IMAGE.match, names):
            target = os.path.join(self.directory, IMAGE.match(name)[0])
            if any(other.startswith(os.path.basename(target) + '.used-') for other in names):
                continue
            lock = Lock(target + '.lock', self.where)
            if lock.is_free():
                with suppress(EasySIFError), lock:  # another one may be faster
                    for path in (_record(target), target):
                        _unlink(path)

    def _target(self, digest):
        return os.path.join(self.directory, 'image-%s.sif' % digest.rpartition(':')[2][:12])

    def _take(self, target, fits):
        path = None
        try:
            with open(_record(target), encoding='utf-8') as handle:
                origin = json.load(handle) if self.is_ours(os.lstat(_record(target))) else None
            if isinstance(origin, dict) and fits(origin):
                path, sha256 = _link(target), origin.pop('sha256', None)
                verified = files.identity(path)
                if self.is_ours(os.lstat(path)) and sha256_of(path) == sha256:
                    return Obtained(path, True, target, sha256, origin, verified=verified)
        except (OSError, ValueError):
            pass
        if path and path != target:
            _unlink(path)
        return None

    def is_ours(self, info):
        """Tell by what lstat says of a file whether only those can have put it here who may write to the prefix (bool).

        :param info: what lstat says (os.stat_result)
        """
        prefix = os.stat(self.prefix) if self.prefix and os.path.isdir(self.prefix) else None
        here = os.stat(self.directory)
        group = here.st_mode & stat.S_IWGRP and not (
            prefix and prefix.st_mode & stat.S_IWGRP and prefix.st_gid == here.st_gid)
        is_closed = not group and not here.st_mode & stat.S_IWOTH
        return stat.S_ISREG(info.st_mode) and (
            is_closed or info.st_uid in (0, os.geteuid(), prefix.st_uid if prefix else 0))

    def _clear_strangers(self, target):
        """Remove what strangers have put where an image is to be, before it is fetched."""
        for path in filter(os.path.lexists, (_record(target), target)):
            info = os.lstat(path)
            if not self.is_ours(info):
                _unlink(path)
                if os.path.lexists(path):
                    raise EasySIFError(self.where, 'a file of another user is where the image is to be kept',
                                       facts=[('file', path), ('owner', modes.owner(info))],
                                       hint='ask %s to remove it, or export EASYSIF_CACHE_DIR=/path'
                                       % modes.owner(info))

    def _release_dead(self):
        """Remove the links of processes that were killed: each may hold a whole image on the disk."""
        for name in os.listdir(self.directory) if os.path.isdir(self.directory) else ():
            used = USED.fullmatch(name)
            if used and (not _is_alive(int(used['pid'])) if used['host'] == socket.gethostname()
                         else time.time() - int(used['since']) > FAR):
                _unlink(os.path.join(self.directory, name))

    def _sweep(self, ours):
        """Remove what killed processes left: of what we make now, and of what nobody makes."""
        for target in {match.group(1) for match in map(LEFT.fullmatch, os.listdir(self.directory)) if match}:
            target = os.path.join(self.directory, target)
            lock = Lock(target + '.lock', self.where)
            if target == ours:
                _clear(target)
            elif lock.is_free():
                with suppress(EasySIFError), lock:  # another one may be faster
                    _clear(target)


def file_digest(record):
    """Return the digest of the file that a record is about (str)."""
    return 'sha256:%s' % record.get('sha256')


def _record(target):
    return target + '.json'


def _link(target):
    """Return a hard link of our own to an image (str), itself where this file system has none."""
    path = '%s.used-%s-%d-%d' % (target, socket.gethostname(), os.getpid(), time.time())
    _unlink(path)
    try:
        os.link(target, path)
    except FileNotFoundError:
        raise
    except OSError:
        return target
    atexit.register(_unlink, path)  # where it comes to no installation
    return path


def _clear(target):
    files.sweep(_record(target))
    for part in glob.glob(glob.escape(target) + '.part-*'):
        _unlink(part)


def _unlink(path):
    with suppress(OSError):
        os.unlink(path)


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _sync(path):
    """Bring a file to the disk, and return its sha256 (str)."""
    with open(path, 'rb') as handle:
        os.fsync(handle.fileno())
    return sha256_of(path)
