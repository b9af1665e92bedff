# SPDX-License-Identifier: GPL-2.0-only
"""What is known of installed modules without reading their images: record, size on disk, date, state of the overlay."""

import os
import shlex
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Optional

from easysif import installed, layout, manifest, squashfs
from easysif.errors import EasySIFError
from easysif.resources import processors


@dataclass(frozen=True)
class Overlay:
    """What a user has added to a module: the directory (str), and its state.

    ``state`` is ``none`` (nothing yet), ``directory``, ``packed``, ``both``, ``damaged``, or ``unknown`` where the
    installation does not tell.
    """

    state: str
    path: Optional[str]


@dataclass(frozen=True)
class Module:
    """An installed module.

    :param name: as in ``jax/24.10`` (str)
    :param root: the installation directory (str)
    :param record: its manifest (dict), None where that cannot be read
    :param image: the image that it uses, its own or that of the site's store (str), None where there is none
    :param size: bytes on disk, without the overlay (int)
    :param installed: when it was installed (datetime with time zone), None where that cannot be told
    :param overlay: the user's own software for it (Overlay), None where it has no overlay
    :param problem: why it is damaged (EasySIFError), None where nothing is seen without reading the image
    """

    name: str
    root: str
    record: Optional[dict]
    image: Optional[str]
    size: int
    installed: Optional[datetime]
    overlay: Optional[Overlay]
    problem: Optional[EasySIFError]


def look_at_all(prefix):
    """Return all installed modules of a prefix (list of Module, in the order of names).

    :param prefix: EasyBuild's install path (str)
    """
    found = installed.modules(prefix)
    with ThreadPoolExecutor(processors()) as pool:  # most of the time goes into asking each for its overlay
        return list(pool.map(look_at, found, found.values()))


def look_at(name, root):
    """Return what is known of one module (Module); what is wrong with it is said, not raised.

    :param name: as in ``jax/24.10`` (str)
    :param root: the installation directory (str)
    """
    record = problem = image = None
    try:
        record = read(name, root)
        image = find_image(name, root, record) if record['image'] else None
    except EasySIFError as err:
        problem = err
    except OSError as err:  # it is being rebuilt or removed at this moment
        problem = EasySIFError(name, 'cannot be looked at (%s)' % err.strerror, facts=[('file', err.filename)],
                               hint='easysif verify %s%s' % (name, installed.option(_prefix(name, root))))
    return Module(name, root, record, image, size_on_disk(root), _installed(root), _overlay(root, record), problem)


def read(name, root):
    """Return the manifest of a module (dict).

    :raises EasySIFError: the installation is gone or not for us, or the manifest cannot be used
    """
    try:
        os.listdir(root)
        return manifest.read(root)
    except (FileNotFoundError, NotADirectoryError):
        raise EasySIFError(name, 'the installation is gone, only its module file is left', facts=[('file', root)],
                           hint=rebuild(name, root)) from None
    except OSError as err:
        raise EasySIFError(name, 'the installation cannot be read (%s)' % err.strerror, facts=[('file', root)],
                           hint='ls -ld %s' % shlex.quote(root)) from err
    except EasySIFError as err:
        raise EasySIFError(name, '%s: %s' % (manifest.NAME, err.what), facts=[('file', err.where), *err.facts],
                           hint=err.hint.replace('eb --rebuild RECIPE.eb', rebuild(name, root))) from err


def rebuild(name, root, record=None):
    """Return what to type to install a module anew in its prefix, as far as it is known (str)."""
    prefix = _prefix(name, root)
    option = ' ' + shlex.quote('--installpath=' + prefix) if installed.option(prefix) else ''
    recipe = record['recipe'] if record else '%s.eb' % name.replace('/', '-', 1)
    return 'eb --rebuild%s %s' % (option, shlex.quote(recipe))


def restore(name, root):
    """Return what to type to bring the image of a module back (str)."""
    return 'easysif image restore %s%s' % (name, installed.option(_prefix(name, root)))


def _prefix(name, root):
    return layout.prefix_above(root, name)


def find_image(name, root, record, may_ask=True):
    """Return the image that a module uses: its own, else that of the site's image store (str).

    :param record: the manifest (dict)
    :param may_ask: run the module's own wrapper, which knows the store (bool)
    :raises EasySIFError: there is neither, or it has another size than it should
    """
    own = os.path.join(root, record['image']['file'])
    path = own if os.path.exists(own) else _stored(root, record) if may_ask else None
    if path is None:
        facts = [('file', own)] + ([('leads to', os.readlink(own))] if os.path.islink(own) else [])
        raise EasySIFError(name, 'the image is gone', facts=facts, hint=restore(name, root))
    size = os.stat(path).st_size
    if size != record['image']['size']:
        raise EasySIFError(name, 'the image has %d bytes, not %d' % (size, record['image']['size']),
                           facts=[('file', path)], hint=restore(name, root))
    return path


def overlay_at(path):
    """Return what is in a user's directory for a module (Overlay)."""
    directory = os.path.join(path, 'user-software')
    packed = directory + '.squashfs'
    try:
        has_directory = bool(os.listdir(directory))
    except PermissionError:
        has_directory = True
    except OSError:
        has_directory = False
    if not os.path.lexists(packed):
        return Overlay('directory' if has_directory else 'none', path)
    if squashfs.problem(packed):
        return Overlay('damaged', path)
    return Overlay('both' if has_directory else 'packed', path)


def size_on_disk(root):
    """Return how many bytes an installation takes on disk (int), each file counted once."""
    blocks = {}
    for _, entry in manifest.walk(root, without=()):
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:  # gone meanwhile
            continue
        if not stat.S_ISDIR(info.st_mode):
            blocks[info.st_dev, info.st_ino] = info.st_blocks
    return 512 * sum(blocks.values())


def _overlay(root, record):
    if record and record['parameters'] and not record['parameters']['python_env']:
        return None
    try:
        path = installed.overlay(root)
    except EasySIFError:
        return Overlay('unknown', None)
    return overlay_at(path) if path else None


def _stored(root, record):
    try:
        values = installed.environment(root)
    except EasySIFError:  # it says that there is none
        return None
    ending = '/' + record['image']['file']
    return next((path for name, path in values.items() if name.startswith('SIF') and path.endswith(ending)
                 and os.path.exists(path)), None)


def _installed(root):
    """Return when the manifest was written, or the installation changed where it has none (datetime or None).

    Not that of the image: one from a store, or used again by a rebuild, is older than its installation.
    """
    for path in (os.path.join(root, manifest.NAME), root):
        try:
            return datetime.fromtimestamp(os.lstat(path).st_mtime).astimezone().replace(microsecond=0)
        except (OSError, ValueError, OverflowError):
            continue
    return None
