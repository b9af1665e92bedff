# SPDX-License-Identifier: GPL-2.0-only
"""Where all of one user's overlay of one module is, its lock, and the free space for it."""

import contextlib
import os
import re
import shlex
import stat
import sys

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.lock import Lock
from easysif.overlay import environment, generations
from easysif.overlay.progress import Progress
from easysif.resources import mounts
from easysif.run import run
from easysif.text import human

#: begins the names of what is half made, and of what is on its way out; both go when the next command has the lock, so
#: nobody is to come upon such a name for something of their own
HALF, LEAVING = '.easysif-new-', '.leaving-'
OURS = re.compile(r'user-software(\.squashfs)?\.easysif-new-[0-9]+(\.probe|\.copy)?|\.user-software\.leaving-[0-9]+|'
                  r'\.(overlay\.json|environment\.json|made-for)\.new-[0-9]+')
FORMER = 10 ** 9  #: so much less is the number of a squashfs file that was kept when there were no numbers yet
DOUBTED = '.doubted-'  #: begins the name of a directory that is looked at for the last time; it comes back


class Overlay:
    """The directory of one user for one module.

    :param root: CONTAINERROOT, which holds ``user-software`` or ``user-software.squashfs`` (str)
    :param module: name of the module, for messages (str)
    :param where: the command, for messages (str)
    :param installation: the installation directory of the module (str)
    :param site: the site's setting ``squashfs``: compressor, level, block, keep (dict)
    :param commands: what is typed for pack, unpack and so on (dict of str); by default those of the module
    """

    def __init__(self, root, module, where, installation=None, site=None, commands=None):
        self.root, self.module, self.where, self.installation = root, module, where, installation
        self.site = dict({'compressor': 'zstd', 'level': 5, 'block': '128K', 'keep': 1}, **(site or {}))
        self.commands = commands or {'pack': 'make-squashfs', 'unpack': 'unmake-squashfs'}
        self.directory = os.path.join(root, 'user-software')
        self.squashfs = self.directory + '.squashfs'
        self.progress = Progress()

    def command(self, action, *options):
        """Return what to type: ``pack``, ``unpack`` and so on, with options (str)."""
        typed = self.commands.get(action)
        return ' '.join([typed, *options]) if typed else ''

    def beside(self, path):
        """Return where something is made before it is renamed to its place (str)."""
        return '%s%s%d' % (path, HALF, os.getpid())

    def leaving(self):
        """Return a name in the overlay for what is on its way out (str)."""
        return self._hidden(LEAVING)

    def _hidden(self, word):
        return os.path.join(self.root, '.user-software%s%d' % (word, os.getpid()))

    def make(self):
        """Make the directory where it is missing, as loading the module does, so that it is open to the same users.

        :raises OSError: it cannot be made
        """
        if not os.path.isdir(self.root):
            run([os.path.join(self.installation, 'easysif', 'wrapper'), 'print-environment'], check=False)
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            self.set_umask()

    def set_umask(self):
        """Have what is made from now on be as open as the directory, unless that is its owner's alone."""
        mode = stat.S_IMODE(os.stat(self.root).st_mode) if os.path.isdir(self.root) else 0
        if mode & stat.S_IWOTH:  # as directories for temporary files are, which are no group's
            mode &= ~(stat.S_IWGRP | stat.S_IWOTH)
        if mode & 0o077:
            os.umask(0o077 & ~mode)

    def kept(self):
        """Return the squashfs files that were kept, the newest last: number and path (list of (int, str)).

        Those of the unmake-squashfs that knew no numbers, ``.previous`` and ``.previous-2``…, have numbers below 0.
        """
        pattern = re.compile(re.escape(os.path.basename(self.squashfs)) + r'\.([1-9][0-9]*|previous(-([0-9]+))?)')
        found = [(pattern.fullmatch(name), name) for name in os.listdir(self.root)] if os.path.isdir(self.root) else []
        return sorted((int(match[3] or 1) - FORMER if match[1].startswith('p') else int(match[1]),
                       os.path.join(self.root, name)) for match, name in found if match)

    def has_directory(self):
        """Tell whether there is a directory with something in it, a virtual environment or anything else (bool)."""
        return os.path.isdir(self.directory) and bool(os.listdir(self.directory))

    def refuse_mount(self, directory):
        """See that something can take the place of a directory, or of what is in it, where that is there.

        :param directory: the directory, or one in it (str)
        :raises EasySIFError: it is a mount point, or in one, or a link to another file system
        """
        real = os.path.realpath(self.directory)
        if os.path.isdir(directory) and _mount(directory) != _mount(os.path.dirname(real)):
            found = os.path.realpath(directory)
            if not os.path.join(found, '').startswith(os.path.join(real, '')):
                raise EasySIFError(self.where, 'the directory is a link to another file system, and nothing can be '
                                   'renamed into it', facts=[('link', directory), ('leads to', found)],
                                   hint='rm -- %s && cp -a -- %s' % (shlex.quote(directory),
                                                                     shlex.join([found, directory])))
            while _mount(os.path.dirname(found)) == _mount(found):
                found = os.path.dirname(found)
            raise EasySIFError(self.where, 'the directory is a mount point, and nothing can take its place',
                               facts=[('directory', found)],
                               hint='umount %s, and mount above it: %s; pip install works as it is' % (
                                   shlex.quote(found), shlex.quote(self.root)))

    def refuse_mounted(self):
        """See that nothing is mounted in the directory, before it is removed with all that is in it.

        :raises EasySIFError: something is, whose own files would go as well
        """
        above = os.path.join(os.path.realpath(self.directory), '')
        mounted = [fields[4] for fields in mounts('/proc/self/mountinfo') if fields[4].startswith(above)]
        if mounted:
            raise EasySIFError(self.where, 'something is mounted in the directory, whose own files would go with it',
                               facts=[('mounted', one) for one in mounted],
                               hint='umount %s, or fusermount -u' % shlex.join(mounted))

    def refuse_link(self):
        """See that the directory is none that lies elsewhere, before it is replaced or removed.

        :raises EasySIFError: it is a link, or a mount point, or something is mounted in it
        """
        self.refuse_mount(self.directory)
        self.refuse_mounted()
        if os.path.islink(self.directory):
            raise EasySIFError(self.where, 'the directory is a link, which is not followed',
                               facts=[('link', self.directory), ('leads to', os.path.realpath(self.directory))],
                               hint='rm -- %s, which leaves what it leads to; EASYSIF_OVERLAYS names another place for '
                                    'overlays' % shlex.quote(self.directory))

    @contextlib.contextmanager
    def alone(self, wait=0):
        """Hold the lock of the overlay for the block, which is given the lock; what was left half done goes first.

        :param wait: seconds to wait for another process that has it (float)
        :raises EasySIFError: there is no overlay, it cannot be changed, or another process is at work on it
        """
        if not os.path.isdir(self.root):
            raise EasySIFError(self.where, 'there is no overlay yet', facts=[('directory', self.root)],
                               hint='module load %s, then pip install a package' % self.module)
        if os.statvfs(self.root).f_flag & os.ST_RDONLY:
            raise EasySIFError(self.where, 'the overlay cannot be changed (Read-only file system)', exit_code=TOOL,
                               facts=[('directory', self.root)], hint='df -h %s' % shlex.quote(self.root))
        if not os.access(self.root, os.W_OK):
            is_own = os.stat(self.root).st_uid == os.geteuid()
            what = 'the overlay may not be written' if is_own else 'the overlay belongs to somebody else'
            raise EasySIFError(self.where, what, facts=[('directory', self.root)],
                               hint='chmod u+w -- %s' % shlex.quote(self.root) if is_own else
                               'export EASYSIF_OVERLAYS=<a directory of yours> && module reload')
        with Lock(os.path.join(self.root, '.pack.lock'), self.where, wait, self._tell) as lock:
            self._sweep()
            yield lock

    def _tell(self, line):
        print('%s: %s' % (self.where, line), file=sys.stderr)

    def _sweep(self):
        """Remove what killed commands left: what is half made, what was leaving, the squashfs a second time.

        A new environment whose turn it was comes into its place first, and a directory of which it was not yet known
        whether it may go comes back. What users put here stays.
        """
        environment.finish(self.root)
        for name in sorted(os.listdir(self.root)):
            path = os.path.join(self.root, name)
            if re.fullmatch(r'\.user-software\.doubted-[0-9]+', name):
                try:
                    self._bring_back(path)
                except EasySIFError as err:
                    self._tell('%s: %s' % (err.what, path))
            elif OURS.fullmatch(name):
                discard(path)
        generations.finish(self)

    def take_away(self, content):
        """Give the directory a hidden name, under which the next command removes it, and return that (str).

        Before, it has another hidden name: nothing half is ever seen, nobody writes to it any more, and the next
        command brings it back, as this one does where it is not what it is to be, or is interrupted.

        :param content: what is to be in it (Content)
        :returns: None where it is something else, and the directory is where it was
        :raises EasySIFError: it cannot be read, or cannot come back, and where it is now is told
        """
        doubted, aside = self._hidden(DOUBTED), self.leaving()
        try:
            os.rename(self.directory, doubted)
            if content.is_still(doubted):
                os.rename(doubted, aside)
                return aside
        finally:
            if os.path.lexists(doubted):
                self._bring_back(doubted)
        return None

    def _bring_back(self, doubted):
        try:
            os.rename(doubted, self.directory)  # takes the place of an empty one, as loading the module makes it
        except OSError as err:
            raise EasySIFError(self.where, 'the directory is under another name now, as something else took its place',
                               facts=[('directory', doubted), ('in its place', self.directory)],
                               hint='mv -- %s, then the same command again' % shlex.join(
                                   [self.directory, self.directory + '.other'])) from err

    def check_space(self, what, needed):
        """See that there is room for something.

        :param what: for messages, as in ``the packed overlay needs at least`` (str)
        :param needed: how many bytes it takes for certain (int)
        :raises EasySIFError: there is not
        """
        free = files.free_space(self.root)
        if needed > free:
            raise EasySIFError(self.where, 'there is not enough space',
                               facts=[(what, human(needed)), ('free', human(free)), ('directory', self.root)],
                               hint='df -h %s; ls -l %s*' % ((shlex.quote(self.root), shlex.quote(self.squashfs))))


def _mount(directory):
    """Return what tells the mount that a directory is in from others (str): across two, nothing can be renamed."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with open('/proc/self/fdinfo/%d' % handle, encoding='ascii') as info:
            return ''.join(line for line in info if line.startswith('mnt_id:'))
    finally:
        os.close(handle)


def discard(path):
    """Remove what we made ourselves, a file or a directory, if it is there; what cannot go the next one removes."""
    with contextlib.suppress(OSError):
        files.remove_tree(path)
        if os.path.lexists(path):
            os.unlink(path)
