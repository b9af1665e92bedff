# SPDX-License-Identifier: GPL-2.0-only
"""What stands where an installation goes: put aside, and brought back as it was if the new one fails."""

import os
import shutil
import stat


class Standing:
    """The old installation and the files outside of it that a new one replaces.

    ``<root>.old`` is the old installation while the new one is not complete, so that it is found again even after
    ``kill -9``; ``<root>.removed`` is what is on its way out.

    :param root: the installation directory (str), whether it is there or not
    :param others: the module file and the links to it (list of str)
    :param scratch: a directory that is not to stay behind empty (str)
    """

    def __init__(self, root, others, scratch):
        self.root, self.old, self.removed = root, root + '.old', root + '.removed'
        self.aside = False
        self.others = {path: _state(path) for path in others}
        self.missing = _missing_parents([os.path.join(root, '.'), os.path.join(scratch, '.'), *others])

    def put_aside(self):
        """Make room, an empty installation directory, and return where the old one is (str), None if there is none."""
        if os.path.isdir(self.old):
            self._discard(self.root)  # what a killed session left half done
        elif os.path.isdir(self.root) and os.listdir(self.root):
            os.rename(self.root, self.old)
        self.aside = True
        os.makedirs(self.root, exist_ok=True)
        return self.old if os.path.isdir(self.old) else None

    def remove(self):
        """The new installation stands: the old one is no longer needed."""
        if self.aside:
            self.aside = False
            self._discard(self.old)

    def bring_back(self):
        """The new installation failed: make all as it was."""
        if self.aside:
            self.aside = False
            self._discard(self.root)
            if os.path.isdir(self.old):
                os.rename(self.old, self.root)
        for path, state in self.others.items():
            if _state(path) != state:
                _restore(path, state)
        for directory in self.missing:
            if os.path.isdir(directory) and not os.listdir(directory):
                os.rmdir(directory)

    def _discard(self, path):
        """Take a directory away, all at once as far as its name goes."""
        remove_tree(self.removed)  # of a killed session
        if os.path.isdir(path):
            os.rename(path, self.removed)
            remove_tree(self.removed)


def remove_tree(path):
    """Remove a directory if it is there, also where EasyBuild made directories in it read-only."""
    if not os.path.isdir(path):
        return
    os.chmod(path, stat.S_IRWXU)
    for parent, directories, _ in os.walk(path):
        for name in directories:
            if not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), stat.S_IRWXU)
    shutil.rmtree(path)


def _missing_parents(paths):
    """Return the directories above some paths that are not there (list of str), the deepest first."""
    missing = set()
    for path in paths:
        directory = os.path.dirname(path)
        while not os.path.isdir(directory):
            missing.add(directory)
            directory = os.path.dirname(directory)
    return sorted(missing, key=len, reverse=True)


def _state(path):
    """Return what a path is, as far as it can be made again: text and mode of a file, or where a link leads."""
    if os.path.islink(path):
        return os.readlink(path), None
    try:
        with open(path, 'rb') as handle:
            return handle.read(), stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
    except OSError:
        return None


def _restore(path, state):
    if state is None:
        os.unlink(path)
        return
    content, mode = state
    beside = '%s.new-%d' % (path, os.getpid())
    if mode is None:
        os.symlink(content, beside)
    else:
        with open(beside, 'wb') as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(content)
    os.replace(beside, path)
