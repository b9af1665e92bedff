# SPDX-License-Identifier: GPL-2.0-only
"""mksquashfs and unsquashfs, as overlays need them; every option is known to squashfs-tools 4.3."""

import contextlib
import os
import shlex
import shutil
import stat

from easysif import squashfs
from easysif.errors import TOOL, EasySIFError
from easysif.overlay.content import Content
from easysif.resources import MEMORY, PACKAGES, mksquashfs_options, processors
from easysif.run import failure, run


def pack(overlay, directory, target, content):
    """Write a directory into a squashfs file.

    :param overlay: the overlay (Overlay)
    :param directory: what is packed (str)
    :param target: the file (str)
    :param content: what is in the directory (Content)
    :raises EasySIFError: mksquashfs is not there, or fails
    """
    top = os.path.realpath(directory)
    without = [] if content.cache is None else ['-e', os.path.join(top, os.fsdecode(content.cache))]
    _run(overlay, ['mksquashfs', top, target, '-noappend', '-no-recovery', '-no-progress',
                   *mksquashfs_options(overlay.site), *PACKAGES, *without],
         'packing', content.data, 'rchar')


def unpack(overlay, source, target, size):
    """Make a directory from a squashfs file, and see that all is in it.

    :param overlay: the overlay (Overlay)
    :param source: the file (str)
    :param target: the directory, which must not be there (str)
    :param size: how many bytes its files take (int)
    :returns: what is in it (Content)
    :raises EasySIFError: unsquashfs is not there, fails or leaves something out
    """
    queue = str(MEMORY)
    xattrs = '-user-xattrs' if takes_xattrs(target + '.probe') else '-no-xattrs'
    _run(overlay, ['unsquashfs', '-no-progress', xattrs, '-processors', processors(), '-da', queue, '-fr', queue,
                   '-d', target, source], 'unpacking', size, 'wchar')
    listed = squashfs.listing(source)
    content = Content(target, overlay.where)
    if _give_modes(target, listed - content.listed()):
        content = Content(target, overlay.where)
    missing = listed - content.listed()
    if missing:
        raise EasySIFError(overlay.where, '%d files were not unpacked as they are' % len(missing),
                           facts=[('first', os.fsdecode(min(name for *_, name in missing)))],
                           hint='df -h %s' % shlex.quote(overlay.root))
    return content


def takes_xattrs(path):
    """Tell whether files can have extended attributes of users where a file is made for that, and removed (bool)."""
    try:
        with open(path, 'xb'):
            os.setxattr(path, 'user.easysif', b'1')
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _give_modes(top, entries):
    """Give files their permissions: unsquashfs takes off what umask says, and gives setuid and setgid to root's only.

    :param entries: of ``squashfs.listing``, those that are not as they are to be (set)
    :returns: whether there were any (bool)
    """
    for mode, _, name in entries:
        path = os.path.join(os.fsencode(top), name)
        with contextlib.suppress(OSError):  # that it is not as it was is seen later
            if mode[0] != 'l' and stat.filemode(os.lstat(path).st_mode)[0] == mode[0]:
                os.chmod(path, squashfs.permissions(mode))
    return bool(entries)


def _run(overlay, argv, what, size, counter):
    if not shutil.which(argv[0]):
        raise EasySIFError(overlay.where, '%s is not on PATH' % argv[0], exit_code=TOOL,
                           hint='ask for the package squashfs-tools, or try on another node')
    with overlay.progress.of(what, size, counter) as follow:
        result = run(argv, cwd=overlay.root, check=False, started=follow)
    if result.status:
        raise EasySIFError(overlay.where, '%s failed; nothing was changed' % argv[0], facts=failure(result).facts,
                           hint='df -h %s; ulimit -f' % shlex.quote(overlay.root), exit_code=TOOL)
