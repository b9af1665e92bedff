# SPDX-License-Identifier: GPL-2.0-only
"""What is in an image store: SIF files, and hidden beside them a record for each that ``easysif store add`` put there.

A record ties the name of a file to its sha256, and to size and time of change, so that a file which somebody put over
it by hand is seen without reading it. A file without a record is the site's own: it is used, and never removed. The
record is written before the file gets its name, and means nothing without it, so a crash leaves nothing half.
"""

import hashlib
import json
import os
import re
import shlex
import stat
from dataclasses import dataclass
from typing import Optional

from easysif import files, modes
from easysif.errors import EasySIFError
from easysif.lock import Lock

HIDDEN = '.easysif'  #: the directory in a store that is ours
LONGEST = 200        #: bytes of a name, so that its record has one as well
MODE = 0o755         #: of a store that is made here: all may read, its owner writes
SHA256 = re.compile('[0-9a-f]{64}')
#: what is in a record and is no text
TYPES = {'schema': int, 'size': int, 'mtime_ns': int, 'build_args': dict}

RECORDED, CHANGED, BY_HAND = 'recorded', 'changed', 'by hand'


@dataclass(frozen=True)
class Entry:
    """A file of a store.

    :param name: its name in the store (str)
    :param path: the file (str)
    :param info: what stat says of it (os.stat_result)
    :param state: ``recorded``; ``changed``, if the record is of what was there before; ``by hand``, without one (str)
    :param record: sha256, size and origin of what ``easysif store add`` put there (dict), empty without a record
    """

    name: str
    path: str
    info: os.stat_result
    state: str
    record: dict

    @property
    def sha256(self):
        """The sha256 that it should have (str), None where that is not known."""
        return self.record['sha256'] if self.state == RECORDED else None

    @property
    def identity(self):
        """What two names of one file have in common (tuple)."""
        return self.info.st_dev, self.info.st_ino


class Store:
    """The image store in a directory.

    :param directory: the directory (str), which need not be there
    :param option: what a command has to be given for it (str): `` --store DIR``, '' for the one of the site
    """

    def __init__(self, directory, option=''):
        self.directory, self.option = os.path.abspath(directory), option
        self.hidden = os.path.join(self.directory, HIDDEN)

    def path(self, name):
        """Return where the file of a name is, or would be (str)."""
        return os.path.join(self.directory, name)

    def entry(self, name):
        """Return the file of a name (Entry), None where there is none."""
        try:
            info = os.stat(self.path(name))
        except OSError:
            return None
        if not stat.S_ISREG(info.st_mode):
            return None
        record = self._record(name)
        state = BY_HAND if not record else RECORDED if _ties(record, info) else CHANGED
        return Entry(name, self.path(name), info, state, record)

    def entries(self):
        """Return all files of the store (list of Entry, in the order of names).

        :raises EasySIFError: it is not there or cannot be read
        """
        try:
            names = sorted(name for name in os.listdir(self.directory) if not name.startswith('.'))
        except OSError as err:
            raise EasySIFError(self.directory, 'the image store cannot be read (%s)' % err.strerror,
                               hint='ls -ld -- %s' % shlex.quote(self.directory)) from err
        return [entry for entry in map(self.entry, names) if entry]

    def having(self, fits):
        """Return the recorded files that fit (list of Entry), none where the store is not to be read.

        :param fits: tells by its record whether it is the right one (callable: dict -> bool)
        """
        try:
            return [one for one in self.entries() if one.state == RECORDED and fits(one.record)]
        except EasySIFError:
            return []

    def find(self, fits):
        """Return the first of them (Entry), None where there is none."""
        return next(iter(self.having(fits)), None)

    def check_closed(self, where, path=None):
        """Do nothing where only the owner of the store and its group can have put into it what is there.

        :param path: a file of the store that is to be believed as well (str)
        :raises EasySIFError: everybody may write to it
        """
        for one in filter(None, (self.directory, self.hidden, path)):
            problem = open_to_all(one, where)
            if problem:
                raise problem

    def lock(self, name, where, wait=None, tell=None):
        """Return the lock under which the file of a name is put in or taken out (Lock)."""
        return self.lock_of(key(name), where, wait, tell)

    def lock_of(self, one, where, wait=None, tell=None):
        """Return the same lock by the `key` of the name (Lock)."""
        return Lock(os.path.join(self.hidden, 'lock-%s' % one), where, wait=wait, tell=tell)

    def write_record(self, name, values):
        """Write the record of a file that gets its name right after.

        :raises EasySIFError: it cannot be written
        """
        path = self._record_path(name)
        with self.modes().publishing(path):
            files.write(path, json.dumps(values, indent=2, sort_keys=True) + '\n', 0o644)

    def forget(self, name):
        """Remove the record of a file that is gone."""
        try:
            os.unlink(self._record_path(name))
        except FileNotFoundError:
            pass

    def records(self):
        """Return the names for which there are records (list of str)."""
        try:
            return sorted(name[:-len('.json')] for name in os.listdir(self.hidden)
                          if name.endswith('.json') and not name.startswith('.'))
        except OSError:
            return []

    def modes(self):
        """Return what the directory of the store grants to others (Modes)."""
        return modes.Modes(self.directory)

    def prepare(self, where):
        """Make the store where it is not there, and make sure that we may write to it.

        :raises EasySIFError: it cannot be made, or we may not
        """
        try:
            if not os.path.isdir(self.directory):
                os.makedirs(self.directory)
                os.chmod(self.directory, MODE)
        except OSError as err:
            raise EasySIFError(where, 'the image store cannot be made (%s)' % err.strerror,
                               facts=[('store', self.directory)],
                               hint='ls -ld -- %s' % shlex.quote(os.path.dirname(self.directory))) from err
        if not os.access(self.directory, os.W_OK | os.X_OK):
            info = os.stat(self.directory)
            read_only = os.statvfs(self.directory).f_flag & os.ST_RDONLY
            raise EasySIFError(where, 'you may not write to the image store',
                               facts=[('store', self.directory), ('owner', modes.owner(info)),
                                      ('mode', stat.filemode(info.st_mode)),
                                      *([('file system', 'read-only')] if read_only else [])],
                               hint='ask %s, or use another one: --store DIR' % modes.owner(info))
        with self.modes().publishing(self.hidden):
            os.makedirs(self.hidden, exist_ok=True)

    def _record(self, name):
        try:
            with open(self._record_path(name), encoding='utf-8') as handle:
                record = json.load(handle)
        except (OSError, ValueError, RecursionError):
            return {}
        is_sound = isinstance(record, dict) and SHA256.fullmatch(str(record.get('sha256'))) and (
            {'size', 'mtime_ns'} <= record.keys()) and all(
            isinstance(value, TYPES.get(key, str)) for key, value in record.items())
        return record if is_sound else {}

    def _record_path(self, name):
        return os.path.join(self.hidden, name + '.json')


def check_name(name, where):
    """Do nothing where a file of a store may be called so: as recipes can name it, and not hidden.

    :raises EasySIFError: it may not
    """
    if (not name.endswith('.sif') or name.startswith('.') or '/' in name or not name.isprintable()
            or name != name.strip() or len(os.fsencode(name)) > LONGEST):
        raise EasySIFError(where, "no recipe could name a file of the image store '%s'" % name,
                           facts=[('allowed', 'NAME.sif on one line, not hidden, at most %d bytes' % LONGEST)],
                           hint='easysif store add --name NAME.sif %s' % shlex.quote(where))


def key(name):
    """Return what stands for a name in those of our own files, whatever characters it has (str)."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def open_to_all(path, where):
    """Return what is wrong with a file or directory of a store that everybody may write to (EasySIFError or None)."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    if not info.st_mode & stat.S_IWOTH:
        return None
    label, what = 'file', 'a file of the image store can be written by everybody, so it is not believed'
    if stat.S_ISDIR(info.st_mode):
        label, what = 'directory', 'the image store can be written by everybody, so it is not believed'
    hint, owner = 'chmod o-w %s' % shlex.quote(path), modes.owner(info)
    return EasySIFError(where, what, facts=[(label, path), ('mode', stat.filemode(info.st_mode)), ('owner', owner)],
                        hint=hint if info.st_uid == os.geteuid() else 'ask %s: %s' % (owner, hint))


def of_site(site, directory: Optional[str], where):
    """Return the image store that a user means (Store): the one named, else that of the site.

    :param site: the resolved site (Site)
    :param directory: what the user named (str), None for nothing
    :raises EasySIFError: there is neither
    """
    if not (directory or site.image_store):
        raise EasySIFError(where, "site '%s' has no image store" % site.name,
                           hint='set image_store in the site file, or: %s --store DIR' % where)
    return Store(directory, ' --store %s' % shlex.quote(directory)) if directory else Store(site.image_store)


def _ties(record, info):
    return (record['size'], record['mtime_ns']) == (info.st_size, info.st_mtime_ns)
