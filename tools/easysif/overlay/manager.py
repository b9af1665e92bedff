# SPDX-License-Identifier: GPL-2.0-only
"""Packs the directory of an overlay into one squashfs file, and unpacks it again."""

import argparse
import contextlib
import glob
import hashlib
import itertools
import os
import shlex
import shutil
import signal
import stat
import sys

from easysif import files, squashfs
from easysif.errors import TOOL, EasySIFError
from easysif.lock import Lock
from easysif.overlay.recorded import record, update_record
from easysif.resources import mksquashfs_options, processors
from easysif.run import failure, run


class Overlay:
    """The directory of one user for one module.

    :param root: CONTAINERROOT, which holds ``user-software`` or ``user-software.squashfs`` (str)
    :param module: name of the module, for messages (str)
    """

    def __init__(self, root, module):
        self.root, self.module = root, module
        self.directory = os.path.join(root, 'user-software')
        self.squashfs = self.directory + '.squashfs'

    def pack(self, settings):
        """Write the directory into the squashfs file and return its size in bytes (int).

        :param settings: the site's setting ``squashfs``: compressor, level, block (dict)
        :raises EasySIFError: there is nothing to pack, it is packed already, or packing failed
        """
        with self._lock('make-squashfs') as lock:
            if os.path.lexists(self.squashfs):
                squashfs.check(self.squashfs, 'make-squashfs')
                raise EasySIFError('make-squashfs', 'the overlay of %s is packed already' % self.module,
                                   facts=[('file', self.squashfs)],
                                   hint='unmake-squashfs && module reload, then add packages, then make-squashfs')
            if not os.path.isdir(self.directory) or not os.listdir(self.directory):
                raise EasySIFError('make-squashfs', 'there is nothing to pack', facts=[('directory', self.directory)],
                                   hint='pip install a package first')
            before = self._content('make-squashfs')
            beside = '%s.new-%d' % (self.squashfs, os.getpid())
            try:
                self._run('make-squashfs', ['mksquashfs', self.directory, beside, '-noappend', '-no-recovery',
                                            '-no-xattrs', '-no-progress', *mksquashfs_options(settings)])
                self._verify(beside, before)
                size, digest = os.path.getsize(beside), _sync_and_hash(beside)
                lock.check()
                update_record(self.root, squashfs={'sha256': digest, 'size': size, 'content': _fingerprint(before)})
                os.rename(beside, self.squashfs)
            finally:
                _remove(beside)
            return size

    def unpack(self):
        """Make the directory from the squashfs file, unless it is there and the same, and put the file aside.

        :returns: where the squashfs file is now (str)
        :raises EasySIFError: it is not packed, it is damaged, or a directory is there that differs
        """
        with self._lock('unmake-squashfs') as lock:
            if not os.path.lexists(self.squashfs):
                raise EasySIFError('unmake-squashfs', 'the overlay of %s is not packed' % self.module,
                                   facts=[('looked for', self.squashfs)], hint='pip install works as it is')
            squashfs.check(self.squashfs, 'unmake-squashfs')
            if os.path.isdir(self.directory) and os.listdir(self.directory):
                self._refuse_if_different()
            else:
                self._extract(lock)
            lock.check()
            aside = self._free(self.squashfs + '.previous')
            os.rename(self.squashfs, aside)
            return aside

    @staticmethod
    def _free(path):
        """Return the path, or where something has it already, the first of ``path-2``, ``path-3``… that is free."""
        numbered = ('%s-%d' % (path, number) for number in itertools.count(2))
        return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))

    def _extract(self, lock):
        beside = '%s.new-%d' % (self.directory, os.getpid())
        try:
            self._run('unmake-squashfs', ['unsquashfs', '-no-progress', '-no-xattrs', '-processors', processors(),
                                          '-d', beside, self.squashfs])
            missing = squashfs.listing(self.squashfs) - _entries(self._content('unmake-squashfs', beside))
            if missing:
                raise EasySIFError('unmake-squashfs', '%d files were not unpacked as they are' % len(missing),
                                   facts=[('first', os.fsdecode(min(name for *_, name in missing)))],
                                   hint='df -h %s' % shlex.quote(self.root))
            run(['sync', '-f', beside])
            lock.check()
            if os.path.isdir(self.directory):
                os.rmdir(self.directory)
            os.rename(beside, self.directory)
        finally:
            _remove(beside)

    def _run(self, where, argv):
        if not shutil.which(argv[0]):
            raise EasySIFError(where, '%s is not on PATH' % argv[0], exit_code=TOOL,
                               hint='ask for the package squashfs-tools, or try on another node')
        result = run(argv, cwd=self.root, check=False)
        if result.status:
            raise EasySIFError(where, '%s failed; nothing was changed' % argv[0], facts=failure(result).facts,
                               hint='df -h %s; ulimit -f' % shlex.quote(self.root), exit_code=TOOL)

    def _refuse_if_different(self):
        if self._read_record().get('content') == _fingerprint(self._content('unmake-squashfs')):
            return
        words = [shlex.quote(path) for path in (self.directory, self.directory + '.mine',
                                                self.squashfs, self.squashfs + '.old')]
        raise EasySIFError('unmake-squashfs', 'a directory is there that may differ from the squashfs file',
                           facts=[('directory', self.directory), ('squashfs', self.squashfs)],
                           hint='mv -- %s %s to go on with the squashfs, or mv -- %s %s to go on with the directory'
                                % tuple(words))

    def _verify(self, path, content):
        wrong = squashfs.problem(path)
        if wrong:
            raise EasySIFError('make-squashfs', 'mksquashfs left no whole file (%s); nothing was changed' % wrong,
                               facts=[('directory', self.directory)], hint='df -h %s' % shlex.quote(self.root),
                               exit_code=TOOL)
        if content != self._content('make-squashfs'):
            raise EasySIFError('make-squashfs', 'the directory changed while it was packed',
                               facts=[('directory', self.directory)], hint='wait for pip to end, then: make-squashfs')
        different = {name for *_, name in squashfs.listing(path) ^ _entries(content)}
        if different:
            raise EasySIFError('make-squashfs', '%d files are not in the squashfs as they are' % len(different),
                               facts=[('first', os.fsdecode(min(different)))],
                               hint='make-squashfs once more; if it stays, pack by hand: mksquashfs %s FILE'
                                    % shlex.quote(self.directory), exit_code=TOOL)

    def _content(self, where, top=None):
        """Return what is in a directory: (path, mode, size, time, link) of everything, in the order of names (list).

        :param where: the command, for messages (str)
        :raises EasySIFError: something cannot be read
        """
        def unreadable(err):
            raise EasySIFError(where, 'a file of the overlay cannot be read (%s)' % err.strerror,
                               facts=[('file', os.fsdecode(err.filename))],
                               hint='chmod u+r -- %s' % shlex.quote(os.fsdecode(err.filename)))
        top, found = os.fsencode(top or self.directory), []
        for parent, directories, others in os.walk(top, onerror=unreadable):
            directories.sort()
            for name in sorted(directories + others):
                path = os.path.join(parent, name)
                info = os.lstat(path)
                if stat.S_ISREG(info.st_mode) and not os.access(path, os.R_OK):
                    unreadable(PermissionError(13, 'Permission denied', path))
                link = os.readlink(path) if stat.S_ISLNK(info.st_mode) else b''
                size = info.st_size if stat.S_ISREG(info.st_mode) else 0
                found.append((os.path.relpath(path, top), info.st_mode, size, info.st_mtime_ns, link))
        return found

    def _lock(self, where):
        if not os.path.isdir(self.root):
            raise EasySIFError(where, 'there is no overlay yet', facts=[('directory', self.root)],
                               hint='module load %s, then pip install a package' % self.module)
        if not os.access(self.root, os.W_OK):
            raise EasySIFError(where, 'the overlay belongs to somebody else', facts=[('directory', self.root)],
                               hint='export EASYSIF_OVERLAYS=<a directory of yours> && module reload')
        return _Alone(self, where)

    def _read_record(self):
        found = record(self.root).get('squashfs')
        return found if isinstance(found, dict) else {}


class _Alone(Lock):
    """The lock of an overlay; what a killed command left half done goes when the next one has it."""

    def __init__(self, overlay, where):
        super().__init__(os.path.join(overlay.root, '.pack.lock'), where,
                         tell=lambda line: print('%s: %s' % (where, line), file=sys.stderr))
        self.left = glob.escape(overlay.directory)

    def __enter__(self):
        super().__enter__()
        for path in glob.glob(self.left + '.new-*') + glob.glob(self.left + '.squashfs.new-*'):
            _remove(path)
        return self


def _remove(path):
    """Remove what we made ourselves, a file or a directory, if it is there."""
    with contextlib.suppress(OSError):  # what is left the next one removes
        files.remove_tree(path)
        if os.path.lexists(path):
            os.unlink(path)


def _entries(content):
    return {squashfs.entry(name, mode, size, link) for name, mode, size, _, link in content}


def _fingerprint(content):
    # a squashfs keeps whole seconds
    rounded = [(name, (mode, size, time // 10 ** 9, link)) for name, mode, size, time, link in content]
    return hashlib.sha256(repr(rounded).encode()).hexdigest()


def _sync_and_hash(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as handle:
        os.fsync(handle.fileno())
        for piece in iter(lambda: handle.read(1 << 20), b''):
            digest.update(piece)
    return digest.hexdigest()


def main(argv=None):
    """Run ``make-squashfs`` or ``unmake-squashfs`` for the wrapper, which knows the place; return the exit code (int).

    :param argv: ``make`` or ``unmake``, then the user's arguments and the wrapper's options (list of str)
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    action = argv.pop(0) if argv else 'make'
    parser = argparse.ArgumentParser(prog=action + '-squashfs', description={
        'make': 'Packs the overlay of the loaded module into one read-only file; the directory stays.',
        'unmake': 'Unpacks the overlay of the loaded module, so that packages can be added again.'}[action])
    for option in ('containerroot', 'module', 'compressor', 'level', 'block'):
        parser.add_argument('--' + option, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    overlay = Overlay(options.containerroot, options.module)
    mode = os.stat(overlay.root).st_mode if os.path.isdir(overlay.root) else 0
    if mode & stat.S_IWGRP:  # a group shares it
        os.umask(0o077 & ~mode | stat.S_IWOTH)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # and what is half done is removed
    try:
        if action == 'make':
            size = overlay.pack({key: getattr(options, key) for key in ('compressor', 'level', 'block')})
            print('packed into %s (%s KiB)' % (overlay.squashfs, -(-size // 1024)))
            print('now: module reload; the directory %s is no longer used and may be removed' % overlay.directory)
        else:
            print('unpacked; the squashfs file is kept as %s' % overlay.unpack())
            print('now: module reload; pip install works again')
    except EasySIFError as err:
        print('error: %s' % err, file=sys.stderr)
        return err.exit_code
    except OSError as err:
        print('error: %s-squashfs: %s\nhint: df -h %s' % (action, err, shlex.quote(overlay.root)), file=sys.stderr)
        return TOOL
    except KeyboardInterrupt:
        print('%s-squashfs: interrupted; nothing was changed' % action, file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == '__main__':
    sys.exit(main())
