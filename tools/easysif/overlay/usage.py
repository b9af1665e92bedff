# SPDX-License-Identifier: GPL-2.0-only
"""Which processes of this host may change the directory of an overlay. Of other users' processes only root learns."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from easysif.errors import EasySIFError
from easysif.resources import mounts
from easysif.text import shorten

INSIDE = '/user-software'  #: where the overlay is in a container
MOST = 3  #: processes that are named
LONGEST = 80  #: columns of a command line


@dataclass(frozen=True)
class User:
    """A process: its number, its command line (str), its Slurm job (str or None) and what it does (str)."""

    pid: int
    command: str
    job: str
    what: str

    def __str__(self):
        job = ', job %s' % self.job if self.job else ''
        return '%s (%s%s)' % (self.command, self.what, job)


def refuse_if_used(overlay):
    """See that no process of this host may change the directory of an overlay.

    :param overlay: the overlay (Overlay)
    :raises EasySIFError: some may, of which the first are named
    """
    found = users(overlay.directory)
    if found:
        facts = [('process %d' % user.pid, user) for user in found[:MOST]]
        if len(found) > MOST:
            facts.append(('and', '%d more' % (len(found) - MOST)))
        raise EasySIFError(
            overlay.where, '%d process%s may write to the overlay' % (len(found), '' if len(found) == 1 else 'es'),
            facts=facts,
            hint='wait for %s to end; with --force what changes meanwhile is noticed, and then nothing is done'
                 % ('it' if len(found) == 1 else 'them'))


def users(directory):
    """Return the processes that may change a directory, but for this one and those that it comes from (list of User).

    They have a file in it open for writing, or are in a container that may write to it.

    :param directory: the directory (str), which need not be there
    """
    try:
        real, info = os.fsencode(os.path.realpath(directory)), os.stat(directory)
    except OSError:
        return []
    ours, found = _ancestors(), []
    for pid in sorted(int(name) for name in os.listdir('/proc') if name.isdigit()):
        if pid not in ours:
            what = _what(pid, os.path.join(real, b''), info)
            if what:
                found.append(User(pid, _command(pid), _job(pid), what))
    return found


def _what(pid, directory, info):
    """Return by what a process may change a directory (str), None where it may not or that cannot be known."""
    with suppress(OSError):
        if os.path.samestat(os.stat('/proc/%d/root%s' % (pid, INSIDE)), info) and _is_writable(pid):
            return 'in a container'
    top = b'/proc/%d/fd/' % pid
    with suppress(OSError):
        for number in os.listdir(top):
            with suppress(OSError):
                path = os.readlink(top + number)
                if path.startswith(directory) and os.lstat(top + number).st_mode & stat.S_IWUSR:
                    return 'writes %s' % os.fsdecode(os.path.basename(path))
    return None


def _is_writable(pid):
    """Tell whether the overlay is mounted in a process's container so that it can be written (bool)."""
    writable = False
    for fields in mounts('/proc/%d/mountinfo' % pid):  # what is mounted last is what is seen
        if fields[4] == INSIDE:
            writable = 'rw' in fields[5].split(',')
    return writable


def _ancestors():
    """Return this process and those that it comes from (set of int)."""
    found, pid = set(), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        try:
            with open('/proc/%d/stat' % pid, 'rb') as handle:
                pid = int(handle.read().rpartition(b')')[2].split()[1])
        except (OSError, IndexError):
            break
    return found


def _command(pid):
    words = _read(pid, 'cmdline').split(b'\0')[:-1] or [_read(pid, 'comm').strip()]
    return shorten(' '.join(os.fsdecode(word) for word in words), LONGEST) or '?'


def _job(pid):
    for pair in _read(pid, 'environ').split(b'\0'):
        if pair.startswith(b'SLURM_JOB_ID='):
            return os.fsdecode(pair.partition(b'=')[2])
    return None


def _read(pid, name):
    try:
        with open('/proc/%d/%s' % (pid, name), 'rb') as handle:
            return handle.read()
    except OSError:
        return b''
