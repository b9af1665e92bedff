# SPDX-License-Identifier: GPL-2.0-only
"""What stands where an installation goes, and how a new one takes its place: whole, or not at all.

The new one is made beside it and put there by one exchange of two directories. What a session that was killed left is
told by what exists, so there is no journal that could be wrong:

* ``.VERSION.new``: a new one that was not finished, or the old one after the exchange. It goes.
* ``.VERSION.old`` and no installation: killed between the two renames that stand for the exchange on file systems that
  have none (NFS, Lustre). It is renamed back.
* ``.VERSION.old`` beside an installation: the old one. It goes.
* beside the module file one that was not put in its place yet, and is the one that the installation names: killed
  between the two. It is put there.
"""

import errno
import glob
import hashlib
import os
import shlex
import stat
import time
from contextlib import ExitStack, contextmanager, suppress

from easysif import files, manifest
from easysif.errors import EasySIFError
from easysif.lock import Lock

PATIENCE = 5  #: seconds in which the commands of a killed session are gone
LONGEST = 255  #: bytes of a file name on all file systems of Linux


class Standing:
    """The place of one installation, and the files outside of it that belong to it.

    :param root: the installation directory (str), whether it is there or not
    :param name: name and full version, as it stands below ``software`` (str)
    :param module: the module file (str)
    :param links: the links to the module file (list of str)
    :param scratch: directories that are not to stay behind empty (list of str)
    """

    def __init__(self, root, name, module, links, scratch=()):
        parent, version = os.path.split(root)
        self.root, self.module, self.links = root, module, links
        self.new, self.old = (os.path.join(parent, '.%s.%s' % (version, word)) for word in ('new', 'old'))
        # the one that EasyBuild itself would make, where that is no longer than a name may be; one for all spellings
        lock = os.path.join(os.path.realpath(parent), version).replace(os.sep, '_') + '.lock'
        if len(os.fsencode(lock)) > LONGEST:
            lock = '%s.lock' % hashlib.sha256(os.fsencode(root)).hexdigest()
        self.lock = os.path.join(root[:-len(name) - 1], '.locks', lock)
        self.stood = self._identity()
        self.missing = _missing_directories([parent, *scratch, *map(os.path.dirname, [self.lock, module, *links])])
        self.held = None
        self.is_made = self.is_swapped = self.is_published = self.is_stuck = False

    @contextmanager
    def alone(self, where, **how):
        """Hold the lock for the block, which gets whether another process has installed since we asked for it (bool).

        What a session that was killed left is then in order.

        :param where: the recipe or command, for messages (str)
        :param how: ``wait``, ``tell`` and ``hint`` of Lock
        :raises EasySIFError: another process has it
        """
        with files.ended_in_order(), Lock(self.lock, where, **how) as self.held:
            stands = self._identity()
            self._recover()
            try:
                yield self.held.waited and stands not in (None, self.stood)
            finally:
                self.tidy(alone=True)

    def _identity(self):
        """Return what tells the installation that stands from any other one, None where there is none."""
        try:
            status = os.stat(self.root)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _recover(self):
        if os.path.lexists(self.old):
            with suppress(OSError):  # where somebody made an empty one since
                os.rmdir(self.root)
            if not os.path.lexists(self.root):
                os.rename(self.old, self.root)
        self._complete()
        for path in (self.module, os.path.join(self.root, manifest.NAME), *self.links):
            files.sweep(path)
        self.clear()

    def _complete(self):
        """Put the module file of the installation in its place, where a session was killed right before it did."""
        try:
            wanted = (manifest.read(self.root)['modulefile'] or {}).get('sha256')
        except EasySIFError:
            return
        for beside in files.beside(self.module):
            if files.sha256(beside) == wanted != files.sha256(self.module):
                self._link()
                os.rename(beside, self.module)

    def make(self):
        """Make the empty directory for the new installation and return it (str).

        :raises EasySIFError: one is there that cannot be removed
        """
        for _ in range(PATIENCE):
            self.clear()
            with suppress(FileExistsError, FileNotFoundError):  # as of a directory above that another one removes
                os.makedirs(self.new)
                self.is_made = True
                return self.new
            time.sleep(1)  # a command of a killed session may write for a moment after it
        raise EasySIFError(self.root, 'what a killed session left cannot be removed', facts=[('directory', self.new)],
                           hint='rm -r -- %s' % shlex.quote(self.new))

    def publish(self, texts):
        """Put the new installation, where one was made, and files outside of it in place, at one moment.

        :param texts: the contents of files: the module file, and what else is written anew (dict of str)
        :raises EasySIFError: a file cannot be written, or the lock was lost; all is then as it was
        """
        self.held.check()
        before = {path: _state(path) for path in (*texts, *self.links)}
        with ExitStack() as stack:
            for directory in {os.path.dirname(path) for path in texts if path.startswith(self.root + os.sep)}:
                stack.enter_context(files.writable(directory))
            beside = {path: stack.enter_context(files.written_beside(path, text)) for path, text in texts.items()}
            stack.enter_context(files.undisturbed())
            try:
                for path in beside.values():  # so that they are found where the machine is lost in between
                    files.sync_directory(os.path.dirname(path))
                if self.is_made:
                    files.sync(self.new)
                    self._swap()
                    files.sync_directory(os.path.dirname(self.root))
                self._link()
                for path in sorted(beside, key=self.module.__eq__):  # at last, as it is what users see
                    os.rename(beside[path], path)
                self.is_published = True
            except BaseException as err:
                self._go_back(before)
                if isinstance(err, OSError):
                    raise EasySIFError(self.root, 'cannot be put in its place (%s)' % err.strerror,
                                       hint='ls -la %s' % os.path.dirname(self.root)) from err
                raise

    def _go_back(self, before):
        """Undo a publication that failed; if that fails as well nothing is removed any more."""
        try:
            if self.is_swapped:
                self._swap_back()
            for path, state in before.items():
                if _state(path) != state:
                    _restore(path, state)
        except OSError as err:
            self.is_stuck = True
            raise EasySIFError(self.root, 'what stood there cannot be put back (%s)' % err.strerror,
                               facts=[('old and new', ', '.join(filter(os.path.lexists, (self.new, self.old))))],
                               hint='ls -la %s; then the same command again' % os.path.dirname(self.root)) from err

    def is_ours(self):
        """Tell whether we still have the lock (bool)."""
        try:
            self.held.check()
        except EasySIFError:
            return False
        return True

    def tidy(self, alone=False):
        """Remove the directories that were made on the way and hold nothing, as after a failure.

        :param alone: also those of an install, which without the lock may be those of another one (bool)
        """
        for directory in self.missing:
            if alone or self.lock.startswith(directory + os.sep):
                with suppress(OSError):
                    os.rmdir(directory)

    def clear(self):
        """Remove what is no longer needed; what cannot be, as NFS keeps files that are in use, the next call does."""
        if self.is_stuck:
            return
        self.is_made = False
        paths = [self.new]
        if os.path.lexists(self.root):  # else it is the old one that has to be put back
            paths += [self.old, *glob.glob(glob.escape(self.old) + '-*')]
        for path in paths:
            with suppress(OSError):
                files.remove_tree(path)

    def _swap(self):
        if not os.path.lexists(self.root):
            os.rename(self.new, self.root)
        elif not files.exchange(self.new, self.root):
            if os.path.lexists(self.old):  # with files that are in use
                os.rename(self.old, '%s-%d' % (self.old, os.getpid()))
            os.rename(self.root, self.old)
            try:
                os.rename(self.new, self.root)
            except BaseException:
                os.rename(self.old, self.root)
                raise
        self.is_swapped = True

    def _swap_back(self):
        if os.path.isdir(self.old):
            os.rename(self.root, self.new)
            os.rename(self.old, self.root)
        elif os.path.isdir(self.new):
            if not files.exchange(self.new, self.root):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        else:
            os.rename(self.root, self.new)

    def _link(self):
        for link in self.links:
            _link(self.module, link)


def _missing_directories(paths):
    """Return those of some directories, and above them, that are not there (list of str), the deepest first."""
    missing = set()
    for directory in paths:
        while not os.path.isdir(directory):
            missing.add(directory)
            directory = os.path.dirname(directory)
    return sorted(missing, key=len, reverse=True)


def _link(target, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.islink(path) and os.readlink(path) == target:
        return
    files.link(target, path)


def _state(path):
    """Return what a path is, as far as it can be made again: where a link leads, or content, mode, times of a file."""
    if os.path.islink(path):
        return os.readlink(path), None, None
    try:
        with open(path, 'rb') as handle:
            info = os.fstat(handle.fileno())
            return handle.read(), stat.S_IMODE(info.st_mode), (info.st_atime_ns, info.st_mtime_ns)
    except OSError:
        return None


def _restore(path, state):
    if state is None:
        os.unlink(path)
        return
    content, mode, times = state
    if mode is None:
        _link(content, path)
        return
    beside = files.name_beside(path)
    with open(beside, 'wb') as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(content)
    os.utime(beside, ns=times)
    os.rename(beside, path)
