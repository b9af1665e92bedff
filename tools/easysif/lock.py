# SPDX-License-Identifier: GPL-2.0-only
"""A lock that works where flock does not (Lustre, NFS): a directory that names its holder and shows signs of life.

It is made beside its place, with the record of the holder in it, and renamed there, which fails where one is that is
not empty. So a lock of ours is never empty, and an empty one may be replaced: a dead holder's lock is taken over by
removing the record from that very directory, by its descriptor, and renaming a new one over it. However many find it
dead at the same moment, and however long one of them is suspended in between, none harms a lock made since.
"""

import errno
import hashlib
import os
import secrets
import shlex
import threading
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

from easysif import holder
from easysif.errors import EasySIFError

BEAT = 10  #: seconds between the signs of life of a holder
NEAR = 30  #: seconds without one after which a holder that may be on this host, or has no record, counts as dead
FAR = 120  #: the same for one on another host: what NFS shows of it may be a minute old
POLL = 1  #: seconds between two looks at a lock that another one holds, at most


class Lock:
    """Holds a directory as lock while the ``with`` block runs, for this process and not for its children.

    ``waited`` says then whether another one has had it since this one began to ask for it, and gave it back (bool).

    :param path: the directory (str); that in which it lies is made
    :param where: the command or module that wants it, for messages (str)
    :param wait: seconds to wait for a living holder (float), None for as long as it takes. It takes up to NEAR or FAR
        seconds, whatever this says, to learn of a holder elsewhere whether it lives
    :param tell: called with a line of text when it begins to wait, and when it has taken over the lock of a dead one
    :param hint: what the user can do where another one holds it (str)
    :raises EasySIFError: another process holds it, which is named; or the directory cannot be made
    """

    def __init__(self, path, where, wait=0, tell=None, hint=None):
        self.path, self.where, self.wait, self.hint = os.fspath(path), where, wait, hint
        self.tell = tell or (lambda line: None)
        self.waited = False
        self._directory = self._pulse = None
        name = hashlib.sha256(os.path.basename(self.path).encode()).hexdigest()[:16]
        self._aside = os.path.join(os.path.dirname(os.path.abspath(self.path)), '.%s.' % name)

    def __enter__(self):
        self._pid, self._token, self._done = os.getpid(), secrets.token_hex(8), threading.Event()
        self._record = holder.write(self.where, self._token)
        try:
            self._acquire()
            self._sweep()
            self._pulse = threading.Thread(target=self._live, daemon=True)
            self._pulse.start()
        except OSError as err:
            self._give_back()
            is_full = err.errno in (errno.ENOSPC, errno.EDQUOT)
            there = _above(self.path, os.path.ismount if is_full else os.path.isdir)
            raise self._failure('the lock cannot be made', err, 'df -h -- %s' if is_full else 'ls -ld -- %s',
                                there) from err
        except BaseException:
            self._give_back()
            raise
        return self

    def __exit__(self, *_):
        self._give_back()

    def is_free(self):
        """Return whether nobody has it for certain: none is there, or its holder is known to be dead (bool)."""
        with self._look() as found:
            return not found or bool(holder.is_dead(found.record))

    def check(self):
        """Make sure that it is still ours: to be called right before something is published.

        :raises EasySIFError: another one took it over, as this process gave no sign of life, or it was removed
        """
        if os.getpid() == self._pid:
            with suppress(OSError):
                os.utime(self._directory)
        with self._look() as found:
            if found and found.text == self._record and os.getpid() == self._pid:
                return
            facts = [('holder', holder.describe(found.record) if found else 'nobody'), ('lock', self.path)]
        raise EasySIFError(self.where, 'the lock was lost, as after a long time without a sign of life', facts=facts,
                           hint='run the same command again')

    def _acquire(self):
        began, pause, watch = time.monotonic(), POLL / 32, None
        while True:
            with self._look() as found:
                if watch and (not found or found.text and found.text != watch.text):
                    watch, self.waited = None, True
                if found:
                    watch = self._watched(watch, found)
                if not found or watch.dead:
                    if found:
                        self._empty(found)
                    if self._make():
                        if found:
                            self.tell('took over the lock of %s, which is dead' % holder.describe(watch.record))
                        return
                    if not found:
                        continue
                elif watch.alive and self.wait is not None and time.monotonic() - began >= self.wait:
                    raise self._refusal(watch.record)
                elif not watch.told and time.monotonic() - watch.began >= POLL / 8:
                    watch.told = True
                    bound = '' if watch.alive else ', at most %d s for a sign of life' % _patience(watch.record)
                    self.tell('waiting for %s%s' % (holder.describe(watch.record), bound))
            time.sleep(pause)
            pause = min(2 * pause, POLL)

    @contextmanager
    def _look(self):
        """Give what is in the lock's place now: None, or a directory, what shows that it changes, text and record."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        try:
            info = os.fstat(directory)
            text = holder.read(directory)
            yield SimpleNamespace(directory=directory, seen=(info.st_ino, info.st_mtime_ns), text=text,
                                  record=holder.parse(text))
        finally:
            os.close(directory)

    def _watched(self, watch, found):
        """Return what is known of a holder by now: whether it is dead or alive for sure, its last sign of life."""
        now = time.monotonic()
        if not watch:
            watch = SimpleNamespace(record=found.record, text=found.text, seen=found.seen, began=now, told=False,
                                    sign=None, dead=False, alive=False)
        known = holder.is_dead(watch.record)
        if known is not None:
            watch.dead, watch.alive = known, not known
        elif watch.sign is None:
            watch.sign = now - self._silence(found)
        elif found.seen != watch.seen:
            watch.alive, watch.sign = True, now
        if known is None and now - watch.sign > _patience(watch.record):
            watch.dead = True
        watch.seen = found.seen
        return watch

    def _silence(self, found):
        """Return for how many seconds it gave no sign of life, by the clock of the file system (float).

        Of another host's not all is believed, as on Lustre each host sets times by its own clock: it has to be seen to
        miss two beats. Where a clock went backwards there is only what is seen from now on.
        """
        clock = self._aside + secrets.token_hex(8)
        try:
            os.mkdir(clock)
            silence = (os.stat(clock).st_mtime_ns - found.seen[1]) / 1e9
        except FileNotFoundError:  # another one removed the parent, as it was empty, or swept
            return 0
        finally:
            _remove(clock)
        most = FAR - 2.5 * BEAT if holder.is_elsewhere(found.record) else silence
        return max(min(silence, most), 0)

    def _empty(self, found):
        """Take the record out of a dead holder's directory, which nobody can mistake for a new one's."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(holder.NAME, dir_fd=found.directory)
            # what NFS keeps of a record that is being read goes by itself
            others = [name for name in os.listdir(found.directory) if not name.startswith('.nfs')]
            if others:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        except OSError as err:
            raise self._failure('the lock of a dead process cannot be removed', err, 'rm -r -- %s', self.path) from err

    def _make(self):
        """Put a lock of ours into place, unless another one is faster; return whether it is ours (bool)."""
        beside, directory = self._aside + self._token, None
        try:
            mode = self._parent()
            os.mkdir(beside, 0o700)
            directory = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
            with open(os.path.join(beside, holder.NAME), 'w', encoding='utf-8') as handle:
                handle.write(self._record)
                os.fchmod(handle.fileno(), mode & 0o664)
            os.chmod(beside, mode & 0o775)  # whoever may make a lock here may also take over this one
            os.rename(beside, self.path)
        except FileNotFoundError:  # another one removed the parent, as it was empty, or swept
            pass
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.waited = True  # it was faster
        finally:
            with self._look() as found:  # a network file system may have done it and say that it has not
                if found and found.text == self._record:
                    self._directory, directory = directory, None
            if directory is not None:
                os.close(directory)
                _remove(beside)
        return self._directory is not None

    def _parent(self):
        """Make the directory in which the lock lies, as open to the group as the one that is there; return its mode."""
        missing, path = [], os.path.dirname(os.path.abspath(self.path))
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        mode = os.stat(path).st_mode
        for path in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(path)
                os.chmod(path, mode & 0o2775)
        return mode

    def _sweep(self):
        """Remove what killed ones left beside. One that is at this moment made there is made again."""
        parent, beginning = os.path.split(self._aside)
        for name in os.listdir(parent):
            if name.startswith(beginning):
                _remove(os.path.join(parent, name))

    def _live(self):
        while not self._done.wait(BEAT):
            with suppress(OSError):  # a server may be away for a while; who took it over has another directory
                os.utime(self._directory)

    def _give_back(self):
        if self._directory is None or os.getpid() != self._pid:
            return
        directory, self._directory = self._directory, None
        self._done.set()
        if self._pulse:
            self._pulse.join()
        with suppress(OSError):
            os.unlink(holder.NAME, dir_fd=directory)  # of our own directory only, whoever has its place by now
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(directory)):
                _remove_empty(self.path)
        os.close(directory)

    def _refusal(self, record):
        return EasySIFError(self.where, 'another process is at work here',
                            facts=[('holder', holder.describe(record)), ('lock', self.path)],
                            hint=self.hint or 'wait for it to end, then run the same command again')

    def _failure(self, what, err, hint='ls -ld -- %s', path=None):
        return EasySIFError(self.where, '%s (%s)' % (what, err.strerror), facts=[('lock', self.path)],
                            hint=hint % shlex.quote(path or os.path.dirname(os.path.abspath(self.path))))


def _above(path, is_meant):
    """Return the nearest directory above a path for which a function says so (str)."""
    path = os.path.dirname(os.path.abspath(path))
    while not is_meant(path) and path != '/':
        path = os.path.dirname(path)
    return path


def _patience(record):
    return FAR if holder.is_elsewhere(record) else NEAR


def _remove(path):
    """Remove what was made beside a lock, if it is there."""
    with suppress(OSError):
        os.unlink(os.path.join(path, holder.NAME))
    with suppress(OSError):
        os.rmdir(path)


def _remove_empty(path):
    """Remove an empty directory. NFS keeps a file in it that somebody is reading, for so long."""
    for _ in range(20):
        try:
            return os.rmdir(path)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            time.sleep(0.05)
