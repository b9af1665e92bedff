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

import hashlib
import mmap
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
        # the one that EasyBuild itself would make, where that is no longer than a name may be
        lock = root.replace(os.sep, '_') + '.lock'
        if len(os.fsencode(lock)) > LONGEST:
            lock = '%s.lock' % hashlib.sha256(os.fsencode(root)).hexdigest()
        self.lock = os.path.join(root[:-len(name) - 1], '.locks', lock)
        self.modes = _modes(root)
        self.missing = _missing_directories([parent, *scratch, *map(os.path.dirname, [self.lock, module, *links])])
        self.held = None

    @contextmanager
    def alone(self, where, **how):
        """Hold the lock for the block, which gets whether another process has installed since we asked for it (bool).

        What a session that was killed left is then in order.

        :param where: the recipe or command, for messages (str)
        :param how: ``wait``, ``tell`` and ``hint`` of Lock
        :raises EasySIFError: another process has it
        """
        stood = self._identity()
        with files.ended_in_order(), Lock(self.lock, where, **how) as self.held:
            stands = self._identity()
            self._recover()
            try:
                yield self.held.waited and stands not in (None, stood)
            finally:
                self.tidy(alone=True)

    def _identity(self):
        """Return what tells the installation that stands from any other one, None where there is none."""
        try:
            status = os.stat(os.path.join(self.root, manifest.NAME))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

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
            with suppress(FileExistsError):
                os.makedirs(self.new)
                return self.new
            time.sleep(1)  # a command of a killed session may write for a moment after it
        raise EasySIFError(self.root, 'what a killed session left cannot be removed', facts=[('directory', self.new)],
                           hint='rm -r -- %s' % shlex.quote(self.new))

    def settle(self):
        """Let the new installation name its final place wherever it names the one that it is made in, and sync it.

        :raises EasySIFError: a binary file names it
        """
        name, final = (os.fsencode(os.sep + os.path.basename(path)) for path in (self.new, self.root))
        made = os.fsencode(os.path.dirname(self.new)) + name
        for parent, directories, names in os.walk(os.fsencode(self.new)):
            for path in (os.path.join(parent, entry) for entry in directories + names):
                if os.path.islink(path):
                    target = os.readlink(path)
                    if target.startswith(made):
                        with files.writable(parent):
                            os.unlink(path)
                            os.symlink(target.replace(name, final, 1), path)
                elif os.path.isfile(path) and not path.endswith(b'.sif'):
                    self._rename_within(path, name, final)

    def relocated(self, text):
        """Return a text with the final place for the one that the installation is made in (str)."""
        return text.replace(os.sep + os.path.basename(self.new), os.sep + os.path.basename(self.root))

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
            swapped = False
            try:
                for path in beside.values():  # so that they are found where the machine is lost in between
                    files.sync_directory(os.path.dirname(path))
                if os.path.isdir(self.new):
                    files.sync(self.new)
                    self._swap()
                    swapped = True
                self._link()
                for path in sorted(beside, key=self.module.__eq__):  # at last, as it is what users see
                    os.rename(beside[path], path)
            except BaseException as err:
                for path, state in before.items():
                    if _state(path) != state:
                        _restore(path, state)
                if swapped:
                    self._swap_back()
                if isinstance(err, OSError):
                    raise EasySIFError(self.root, 'cannot be put in its place (%s)' % err.strerror,
                                       hint='ls -la %s' % os.path.dirname(self.root)) from err
                raise

    def withdraw(self):
        """The new installation failed: leave nothing of it, and what stands there with the modes that it had."""
        self.clear()
        for path, mode in self.modes.items():
            with suppress(OSError):
                if stat.S_IMODE(os.stat(path).st_mode) != mode:
                    os.chmod(path, mode)  # EasyBuild makes what is read-only writable before it asks us

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
        for path in (self.new, self.old):
            with suppress(OSError):
                files.remove_tree(path)

    def _swap(self):
        if not os.path.lexists(self.root):
            os.rename(self.new, self.root)
        elif not files.exchange(self.new, self.root):
            os.rename(self.root, self.old)
            try:
                os.rename(self.new, self.root)
            except BaseException:
                os.rename(self.old, self.root)
                raise
        files.sync_directory(os.path.dirname(self.root))

    def _swap_back(self):
        if os.path.isdir(self.old):
            os.rename(self.root, self.new)
            os.rename(self.old, self.root)
        elif os.path.isdir(self.new):
            files.exchange(self.new, self.root)
        else:
            os.rename(self.root, self.new)

    def _link(self):
        for link in self.links:
            _link(self.module, link)

    def _rename_within(self, path, name, final):
        with open(path, 'rb') as handle:
            if not os.fstat(handle.fileno()).st_size:
                return
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(name) < 0:
                    return
            content = handle.read()
        if b'\0' in content:
            raise EasySIFError(os.fsdecode(path), 'names the directory in which it was made, which is only for a time',
                               facts=[('directory', self.new)],
                               hint='let postinstallcmds write paths relative to the installation')
        files.rewrite(path, content.replace(name, final))


def _modes(root):
    """Return the permissions of a directory and of all that is in it (dict of int)."""
    modes = {}
    for parent, directories, names in os.walk(root):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            if not os.path.islink(path):
                modes[path] = stat.S_IMODE(os.stat(path).st_mode)
    return modes


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
    beside = os.path.join(os.path.dirname(path), '.%s.new-%d' % (os.path.basename(path), os.getpid()))
    os.symlink(target, beside)
    try:
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


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
    beside = os.path.join(os.path.dirname(path), '.%s.new-%d' % (os.path.basename(path), os.getpid()))
    with open(beside, 'wb') as handle:
        os.fchmod(handle.fileno(), mode)
        handle.write(content)
    os.utime(beside, ns=times)
    os.rename(beside, path)
