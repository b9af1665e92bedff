# SPDX-License-Identifier: GPL-2.0-only
"""A lock that works where flock does not (Lustre, NFS): a directory, which can be made only once."""

import os
import shutil
import socket
import threading

from easysif.errors import EasySIFError

BEAT = 10  #: seconds between the signs of life of a holder
GONE = 3 * BEAT  #: seconds without one after which a holder on this host whose process is not there counts as dead
DEAD = 120  #: the same for a holder on another host


class Lock:
    """Holds a directory as lock while the ``with`` block runs. The lock of a dead process is taken over.

    :param path: the directory (str)
    :param where: the command or module that wants it, for messages (str)
    :raises EasySIFError: another process holds it, which is named; or the directory cannot be made
    """

    def __init__(self, path, where):
        self.path, self.where = path, where
        self.holder = '%s %d %s' % (socket.gethostname(), os.getpid(), _started(os.getpid()))
        self.done = threading.Event()

    def __enter__(self):
        try:
            try:
                os.mkdir(self.path)
            except FileExistsError:
                self._put_aside_if_dead()
                os.mkdir(self.path)
            with open(os.path.join(self.path, 'holder'), 'w', encoding='utf-8') as handle:
                handle.write(self.holder)
        except FileExistsError:  # another one was faster
            raise self._refusal(self._read(self.path)) from None
        except OSError as err:
            raise EasySIFError(self.where, 'the lock cannot be made (%s)' % err.strerror, facts=[('lock', self.path)],
                               hint='df -h %s' % os.path.dirname(self.path)) from err
        threading.Thread(target=self._live, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.done.set()
        if self._read(self.path) == self.holder:
            shutil.rmtree(self.path, ignore_errors=True)

    def _live(self):
        while not self.done.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:
                return

    def _put_aside_if_dead(self):
        holder = self._read(self.path)
        if self._is_alive(holder):
            raise self._refusal(holder)
        aside = '%s.%s-%d' % (self.path, socket.gethostname(), os.getpid())
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:  # another one found it dead, too
            return
        if self._read(aside) != holder:  # and has it already
            os.rename(aside, self.path)
            raise self._refusal(self._read(self.path))
        shutil.rmtree(aside, ignore_errors=True)

    def _is_alive(self, holder):
        if _is_here(holder) and _started(holder.split()[1]) == holder.split()[2]:
            return True
        # on another host, not written yet, or not to be seen from here, as where /proc hides others or in another PID
        # namespace: by the clock of the file system, which is one for all hosts
        clock = '%s.clock-%s-%d' % (self.path, socket.gethostname(), os.getpid())
        os.mkdir(clock)
        try:
            return os.stat(clock).st_mtime - os.stat(self.path).st_mtime < _patience(holder)
        except FileNotFoundError:
            return False
        finally:
            os.rmdir(clock)

    def _refusal(self, holder):
        host, pid, _ = (holder.split() + ['an unknown host', '?', ''])[:3] if holder else ('an unknown host', '?', '')
        return EasySIFError(self.where, 'another process is at work here',
                            facts=[('holder', 'process %s on %s' % (pid, host)), ('lock', self.path)],
                            hint='wait for it; the lock of a dead one is taken over after %d seconds'
                                 % _patience(holder))

    @staticmethod
    def _read(path):
        try:
            with open(os.path.join(path, 'holder'), encoding='utf-8') as handle:
                return handle.read()
        except (OSError, ValueError):  # being made or taken away at this moment
            return ''


def _is_here(holder):
    return holder.split()[:1] == [socket.gethostname()] and len(holder.split()) == 3


def _patience(holder):
    return GONE if _is_here(holder) else DEAD


def _started(pid):
    """Return when a process of this host was started, in ticks since boot: numbers are used again (str, '' if none)."""
    try:
        with open('/proc/%s/stat' % pid, encoding='utf-8', errors='replace') as handle:
            return handle.read().rpartition(')')[2].split()[19]
    except (OSError, IndexError):
        return ''
