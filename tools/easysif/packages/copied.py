# SPDX-License-Identifier: GPL-2.0-only
"""A copy of a virtual environment, into which packages are installed while the environment itself stays as it is.

Its files are hard links where the file system has them: pip and uv replace files, and write into few that are there.
"""

import os
import shlex
import shutil
from contextlib import suppress

from easysif import files
from easysif.errors import TOOL, EasySIFError

#: files that installers write into in place: those, and all in the directory of commands
WRITTEN = ('.pth', '.egg-link', '.cfg')


class Copy:
    """A copy: ``path`` (str).

    :param source: the environment (str)
    :param path: where the copy is made (str), beside on the same file system
    :param where: the module, for messages (str)
    :raises EasySIFError: it cannot be made
    """

    def __init__(self, source, path, where):
        self.source, self.path, self.where, self.before = source, path, where, _files(source)
        try:
            shutil.copytree(source, path, symlinks=True, copy_function=_link)
        except (OSError, shutil.Error) as err:
            why = err.strerror or err.args[0][0][2]
            raise EasySIFError(where, 'the environment cannot be copied, to install into the copy (%s)' % why,
                               facts=[('directory', source)], exit_code=TOOL,
                               hint='df -h %s' % shlex.quote(source)) from err

    def settle(self):
        """Bring to the disk what was installed.

        :raises EasySIFError: the environment itself has been changed meanwhile, which would be lost
        """
        files.sync(self.path, {inode for inode, *_ in self.before.values()})
        if _files(self.source) != self.before:
            raise EasySIFError(self.where, 'somebody else installed packages meanwhile; nothing was changed',
                               facts=[('directory', self.source)],
                               hint='wait for pip to end, then the same command again')

    def see_off(self, aside, kept):
        """See that the environment, in whose place the copy is by now, was to its last moment what was copied.

        :param aside: where it is (str)
        :param kept: where it is kept if it was not (str)
        :raises EasySIFError: it was not
        """
        if _files(aside) != self.before:
            os.rename(aside, kept)
            raise EasySIFError(self.where, 'somebody else installed packages at the same moment, and some of them '
                               'are missing', facts=[('in use', self.source), ('kept', kept)],
                               hint='once their pip has ended, let them run it again')


def _link(source, target):
    with suppress(OSError):
        if not source.endswith(WRITTEN) and os.path.basename(os.path.dirname(source)) != 'bin':
            return os.link(source, target, follow_symlinks=False)
    return shutil.copy2(source, target, follow_symlinks=False)


def _files(directory):
    """Return all files of an environment, without what Python compiles as it runs: name -> inode, size, time (dict)."""
    found = {}
    for parent, _, names in os.walk(directory):
        for path in (os.path.join(parent, name) for name in names if not name.endswith('.pyc')):
            with suppress(FileNotFoundError):  # as what Python writes beside before it renames it
                info = os.lstat(path)
                found[os.path.relpath(path, directory)] = info.st_ino, info.st_size, info.st_mtime_ns
    return found
