# SPDX-License-Identifier: GPL-2.0-only
"""Who holds a lock: the record that a process leaves in it, and whether that process is dead for certain."""

import json
import os
import pwd
import socket
import time

from easysif.errors import escaped

NAME = 'holder'  #: the file in a lock's directory
LONGEST = 1 << 16  #: characters of it that are read
FIELDS = {'host': str, 'machine': str, 'boot': str, 'namespaces': str, 'pid': int, 'started': str,
          'user': str, 'where': str, 'since': int, 'token': str}


def write(where, token):
    """Return the record of this process (str).

    :param where: the command or module that it is at work on (str)
    :param token: what tells this lock from others that this process holds or held (str)
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    return json.dumps(dict(_place(), pid=os.getpid(), started=_process(os.getpid())[1], user=user, where=str(where),
                           since=int(time.time()), token=token))


def read(directory):
    """Return the record in a lock's directory, '' where there is none that can be read (str).

    :param directory: its descriptor (int)
    """
    try:
        descriptor = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
        with open(descriptor, encoding='utf-8') as handle:
            return handle.read(LONGEST)
    except (OSError, ValueError):
        return ''


def parse(text):
    """Return a record as dict, None for what is none of ours: what others write may be anything."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or any(type(record.get(name)) is not kind for name, kind in FIELDS.items()):
        return None
    return record if record['pid'] > 0 and 0 <= record['since'] < 2 ** 40 else None


def describe(record):
    """Return a holder in words (str).

    :param record: its record (dict), None where there is none
    """
    if not record:
        return 'a process that left no name'
    since = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record['since']))
    return escaped('process %(pid)d of %(user)s on %(host)s (%(where)s), since ' % record + since)


def is_elsewhere(record):
    """Return whether a holder is on another host, as far as we can tell (bool)."""
    return bool(record) and (record['host'], record['machine']) != _host()


def is_dead(record):
    """Return whether a holder is dead, None where that cannot be known from here (bool or None)."""
    if not record or is_elsewhere(record):
        return None
    here = _place()
    if not record['boot'] or not here['boot']:
        return None
    if record['boot'] != here['boot']:
        return True
    if record['namespaces'] != here['namespaces']:
        return None
    try:
        os.kill(record['pid'], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        pass
    state, started = _process(record['pid'])
    if not started or not record['started']:
        return None
    return started != record['started'] or state in 'ZX'


def is_dead_in(path):
    """Return whether the holder that a directory names is dead, None where that cannot be known (bool or None).

    :param path: the directory (str); one that is not ours to read is nobody's that we know
    """
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return is_dead(parse(read(directory)))
    finally:
        os.close(directory)


def _host():
    # a name alone may be that of several, as 'localhost' is; an identity alone that of all that boot from one image
    return socket.gethostname(), _line('/etc/machine-id')


def _place():
    """Return within what a process number means something (dict)."""
    host, machine = _host()
    spaces = [_link('/proc/self/ns/' + name) for name in ('pid', 'time')]
    return {'host': host, 'machine': machine, 'boot': _line('/proc/sys/kernel/random/boot_id'),
            'namespaces': ' '.join(spaces)}


def _process(pid):
    """Return state and start of a process, in ticks since boot, as numbers are used again; ('', '') where hidden."""
    if _link('/proc/self') != str(os.getpid()):  # it shows another namespace
        return '', ''
    words = _line('/proc/%d/stat' % pid).rpartition(')')[2].split()
    return (words[0], words[19]) if len(words) > 19 else ('', '')


def _line(path):
    try:
        with open(path, encoding='utf-8', errors='replace') as handle:
            return handle.read().strip()
    except OSError:
        return ''


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ''
