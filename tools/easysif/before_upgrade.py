# SPDX-License-Identifier: GPL-2.0-only
"""Keeps what an overlay was before an upgrade, and deletes nothing but its own copy of it."""

import os
import shlex
import shutil

from easysif import files, manifest
from easysif.errors import EasySIFError


class BeforeUpgrade:
    """A copy of a directory as it was before pip changed it. The directory itself is never deleted.

    Others may install into it meanwhile, also after we were killed: which of the two is right only the user knows.

    :param directory: what is copied (str); where it is not there, it cannot be made, and pip has nowhere to install to
    :param where: the module, for messages (str)
    :raises EasySIFError: it cannot be copied, or there is the copy of a call that was killed
    """

    def __init__(self, directory, where):
        self.directory, self.where = directory, where
        self.aside = os.path.join(os.path.dirname(directory), '.user-software.before-upgrade')
        self.part = self.aside + '.part'  # a copy that is not whole: it goes
        self.check()
        files.remove_tree(self.part)
        self.before = _times(directory)
        if os.path.isdir(directory):
            try:
                shutil.copytree(directory, self.part, symlinks=True)
            except (OSError, shutil.Error) as err:
                files.remove_tree(self.part)
                raise EasySIFError(directory, 'cannot be copied for safety (%s)' % (
                    err.strerror or err.args[0][0][2]), hint='df -h %s' % shlex.quote(directory)) from err
            os.rename(self.part, self.aside)

    def check(self):
        """See that there is no copy.

        :raises EasySIFError: there is one, and the user has to say which of the two is right
        """
        if os.path.lexists(self.aside):
            back = shlex.join(['mv', '--', self.aside, self.directory])
            if os.path.lexists(self.directory):
                back = '%s && %s' % (shlex.join(['mv', '--', self.directory, self._free_name()]), back)
            raise EasySIFError(self.where, 'an upgrade was cut short, which of two directories you want is not known',
                               facts=[('now', self.directory), ('before the upgrade', self.aside)],
                               hint='to keep what is now: rm -r -- %s; to go back: %s' % (
                                   shlex.quote(self.aside), back))

    def _free_name(self):
        return files.free_name(self.directory + '.after-upgrade')

    def put_back(self):
        """Let the directory be as it was; what it is now stays beside it. Return how things are then (str)."""
        self.drop_if_unchanged()
        if not os.path.isdir(self.aside):
            return 'the overlay is as before'
        after = self._free_name()
        with files.undisturbed():
            os.rename(self.directory, after)
            os.rename(self.aside, self.directory)
        return 'the overlay is as before, what it was when pip failed is %s' % shlex.quote(after)

    def drop_if_unchanged(self):
        """Remove the copy where the directory is what it was."""
        if _times(self.directory) == self.before:
            self.drop()

    def drop(self):
        """Remove the copy."""
        if os.path.isdir(self.aside):
            os.rename(self.aside, self.part)
            files.remove_tree(self.part)


def _times(directory):
    """Return what tells whether a directory or anything in it was changed (dict), None where it is not there."""
    if not os.path.isdir(directory):
        return None
    infos = {path: entry.stat(follow_symlinks=False) for path, entry in manifest.walk(directory, without=())}
    infos[''] = os.stat(directory)
    return {path: (info.st_ino, info.st_ctime_ns) for path, info in infos.items()}
