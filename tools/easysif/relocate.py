# SPDX-License-Identifier: GPL-2.0-only
"""A new installation is fitted to the place of the old one: names it, and has what users put into the old one.

The directory in which it is made and its final place are neighbours, so only the last part of a path differs, whatever
a language does to the rest of it.
"""

import mmap
import os
import shutil
from contextlib import suppress

from easysif import files, manifest
from easysif.errors import EasySIFError


def text_of(text, made, final):
    """Return a text with the final place for the one that the installation is made in (str).

    :param made: the directory in which it is made (str)
    :param final: the installation directory (str)
    """
    return text.replace(os.sep + os.path.basename(made), os.sep + os.path.basename(final))


def tree(made, final):
    """Let all texts and links in a new installation name its final place; the parameters are those of text_of.

    :raises EasySIFError: a binary file names the place where it was made
    """
    name, last = (os.fsencode(os.sep + os.path.basename(path)) for path in (made, final))
    beginning = os.fsencode(made)
    for parent, directories, names in os.walk(beginning):
        for path in (os.path.join(parent, entry) for entry in directories + names):
            if os.path.islink(path):
                target = os.readlink(path)
                if target.startswith(beginning):
                    with files.writable(parent):
                        os.unlink(path)
                        os.symlink(target.replace(name, last, 1), path)
            elif os.path.isfile(path) and not path.endswith(b'.sif'):
                _file(path, name, last, made)


def carry_over(old, new):
    """Bring what users put into the old installation into the new one, unless that has a file of the same name.

    :param old: the old installation directory (str), which need not be there
    :param new: the directory in which the new one is made (str)
    :raises OSError: a file cannot be read or written
    """
    try:
        record = manifest.read(old)
        ours = {*record['files'], manifest.image_file(record)}
    except EasySIFError:
        ours = set()
    for path, entry in manifest.walk(old):
        target = os.path.join(new, path)
        if entry.is_dir(follow_symlinks=False) or path in ours or path in (manifest.NAME, manifest.UNTESTED) or \
                files.LITTER.match(entry.name) or not ours and path.endswith('.sif') or os.path.lexists(target):
            continue
        with files.writable(os.path.dirname(target) if os.path.isdir(os.path.dirname(target)) else new):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with suppress(OSError):
                os.link(entry.path, target, follow_symlinks=False)
                continue
            shutil.copy2(entry.path, target, follow_symlinks=False)


def _file(path, name, last, made):
    with open(path, 'rb') as handle:
        if not os.fstat(handle.fileno()).st_size:
            return
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(name) < 0:
                return
        content = handle.read()
    if b'\0' in content:
        raise EasySIFError(os.fsdecode(path), 'names the directory in which it was made, which is only for a time',
                           facts=[('directory', made)],
                           hint='let postinstallcmds write paths relative to the installation')
    files.rewrite(path, content.replace(name, last))
