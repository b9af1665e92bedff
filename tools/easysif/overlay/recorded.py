# SPDX-License-Identifier: GPL-2.0-only
"""``overlay.json`` in the user's directory for a module: what was packed, and which packages were asked for."""

import json
import os
import shlex
import stat

from easysif import files, squashfs
from easysif.errors import EasySIFError

NAME = 'overlay.json'
SCHEMA = 1
_READ = {}  # what tells a file that was read -> its sha256


def record(root):
    """Return what is recorded of an overlay (dict), ``{'schema': 1}`` where nothing is, or what makes no sense.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :raises EasySIFError: the file cannot be read
    """
    return _read(os.path.join(root, NAME)) or {'schema': SCHEMA}


def update_record(root, **values):
    """Record something of an overlay; to be called under its lock, ``.pack.lock``. What it does not name stays.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :param values: what JSON can hold, by its key; None takes the key away
    :raises EasySIFError: it cannot be read or written, or a newer EasySIF wrote what is there
    """
    path = os.path.join(root, NAME)
    found = _read(path)
    if found is None and os.path.lexists(path):  # it makes no sense, but it may be all there is of somebody's list
        os.rename(path, files.free_name(path + '.damaged'))
    known = dict(found or {}, **values)
    if isinstance(known.get('schema'), int) and known['schema'] > SCHEMA:
        raise EasySIFError(path, 'was written by a newer EasySIF',
                           facts=[('schema', known['schema']), ('known', SCHEMA)],
                           hint='use that one, or: mv -- %s' % shlex.join([path, path + '.newer']))
    known = {key: value for key, value in dict(known, schema=SCHEMA).items() if value is not None}
    files.write(path, json.dumps(known, indent=2, sort_keys=True) + '\n')


def packages_record(root):
    """Return which packages were asked for (list of str), and what that became (list of dict), as far as it is known.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    """
    known = record(root).get('packages')
    asked, resolved = [known.get(name) if isinstance(known, dict) else None for name in ('asked', 'resolved')]
    return ([one for one in asked if isinstance(one, str)] if isinstance(asked, list) else [],
            [one for one in resolved if isinstance(one, dict)] if isinstance(resolved, list) else [])


def squashfs_records(root):
    """Return what is recorded of squashfs files, that in use and those that are kept (list of dict).

    Which is of which file the checksum tells: a command that was killed may have recorded what it did not come to do.
    """
    used = record(root).get('squashfs')
    return [one for one in [used, *kept_records(root).values()] if _is_squashfs(one)]


def kept_records(root):
    """Return what is recorded of the squashfs files that are kept: number (str) -> what is (dict).

    :param root: the user's directory for a module, CONTAINERROOT (str)
    """
    kept = record(root).get('kept')
    return {number: one for number, one in kept.items() if _is_squashfs(one)} if isinstance(kept, dict) else {}


def squashfs_record(root, path):
    """Return what is recorded of a squashfs file (dict), None where nothing is; the file is read.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :param path: the file (str)
    """
    records = squashfs_records(root)
    return next((one for one in records if one['sha256'] == sha256(path)), None)


def is_recorded(path, one):
    """Tell whether a file is what is recorded (bool); a link, or what cannot be read, is somebody's own.

    :param path: the file (str)
    :param one: what is recorded of a squashfs file (dict), None for nothing
    """
    try:
        return bool(one) and stat.S_ISREG(os.lstat(path).st_mode) and one['sha256'] == sha256(path)
    except OSError:
        return False


def sha256(path):
    """Return the sha256 of a squashfs file, which is read once as long as it does not change, under any name (str)."""
    info = os.stat(path)
    key = info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
    if key not in _READ:
        _READ[key] = squashfs.sha256(path)
    return _READ[key]


def _is_squashfs(one):
    return isinstance(one, dict) and isinstance(one.get('sha256'), str)


def _read(path):
    try:
        with open(path, encoding='utf-8') as handle:
            found = json.load(handle)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror,
                           hint='ls -l -- %s' % shlex.quote(path)) from err
    return found if isinstance(found, dict) else None
