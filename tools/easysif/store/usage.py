# SPDX-License-Identifier: GPL-2.0-only
"""Which installed modules need which files of an image store."""

import os
import shlex
from dataclasses import dataclass

from easysif import files, installed, manifest
from easysif.errors import EasySIFError
from easysif.layout import layouts

RUNS, COPIED = 'runs', 'copied'


@dataclass(frozen=True)
class Use:
    """A module that has to do with a file of a store.

    :param module: its name (str)
    :param prefix: where it is installed (str)
    :param how: ``runs``, as it is linked or its own image is gone; ``copied``, as it has an image of its own (str)
    :param sha256: what it recorded of the image (str)
    """

    module: str
    prefix: str
    how: str
    sha256: str


@dataclass
class Usage:
    """What modules need of a store.

    :param uses: name of a file in the store -> who has to do with it (dict of list of Use)
    :param missing: path of a file of the store that is gone, or has another size -> who would run it (dict of list of
        Use)
    :param unknown: why it is not known what a module needs (list of EasySIFError)
    """

    uses: dict
    missing: dict
    unknown: list

    def runners(self, name):
        """Return the modules that run a file (list of str)."""
        return [use.module for use in self.uses.get(name, ()) if use.how == RUNS]

    def of(self, name):
        """Return all modules that have to do with a file (list of str)."""
        return [use.module for use in self.uses.get(name, ())]


def usage(store, prefixes):
    """Return what the modules of some prefixes need of a store (Usage).

    :param store: the store (Store)
    :param prefixes: EasyBuild's install paths (list of str)
    :raises EasySIFError: the store cannot be read
    """
    entries, found = store.entries(), Usage({}, {}, [])
    for prefix in prefixes:
        _closed(prefix, found)
        _unfinished(entries, prefix, found)  # before the others: what is done meanwhile is among those
        for module, root in installed.modules(prefix).items():
            _module(store, entries, module, prefix, root, found)
    return found


def _closed(prefix, found):
    """Note what of a prefix may not be looked at, unless module files tell what is in it: any module may be there."""
    known = layouts(prefix)
    closed = [path for path in dict.fromkeys([prefix, *(path for one in known for path in (
        one.software, os.path.dirname(one.modules), one.modules))]) if _is_closed(path)]
    for software in dict.fromkeys(one.software for one in known):
        in_modules = [one.modules for one in known if one.software == software]
        for path in filter(_is_closed, _directories(software)):
            told = [os.path.join(modules, os.path.basename(path)) for modules in in_modules]
            if all(_is_closed(one) or not os.path.isdir(one) for one in told):
                closed.append(path)
    found.unknown += [_unknown(path, prefix) for path in closed]


def _is_closed(path):
    return os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)


def _unknown(path, prefix):
    return EasySIFError(prefix, 'what its modules need of the image store is not known: a directory may not be read',
                        facts=[('directory', path)], hint='ls -ld -- %s' % shlex.quote(path))


def _module(store, entries, module, prefix, root, found):
    try:
        image = manifest.read(root)['image']
    except EasySIFError as err:
        found.unknown.append(EasySIFError(module, 'what it needs of the image store is not known: %s' % err.what,
                                          facts=[('file', err.where), *err.facts],
                                          hint='easysif verify %s%s' % (module, installed.option(prefix))))
        return
    if not image:
        return
    own = os.path.join(root, image['file'])
    linked, info = os.path.islink(own), _stat(own)
    if linked and info and info.st_size != image['size']:  # another file has its place, which is not run
        info = None
    named = [entry for entry in entries if (entry.name, entry.info.st_size) == (image['file'], image['size'])]
    same = [entry for entry in entries if entry.sha256 == image['sha256']]
    # without its own image a module loads the one of that name and size; any of these bytes can bring it back
    runs = named or same
    if info:
        runs = [entry for entry in entries if linked and entry.identity == (info.st_dev, info.st_ino)]
    for entry in entries:
        if entry in runs or entry in same or entry in named and entry.sha256 is None:
            found.uses.setdefault(entry.name, []).append(
                Use(module, prefix, RUNS if entry in runs else COPIED, image['sha256']))
    if linked and not info and os.path.dirname(os.readlink(own)) == store.directory:
        found.missing.setdefault(os.readlink(own), []).append(Use(module, prefix, RUNS, image['sha256']))


def _stat(path):
    try:
        return os.stat(path)
    except OSError:
        return None


def _unfinished(entries, prefix, found):
    """Note what installations that are being made link to: they are not among the modules yet."""
    for software, levels in dict.fromkeys((one.software, one.levels) for one in layouts(prefix)):
        parents = [software]
        for _ in range(levels - 1):
            parents = [path for parent in parents for path in _directories(parent)]
        for root in (path for parent in parents for path in _directories(parent)):
            if not os.path.basename(root).startswith('.'):
                continue
            if _is_closed(root):
                found.unknown.append(_unknown(root, prefix))
            for path in _links(root):
                for entry in entries:
                    if files.inode(path) == entry.identity:
                        name = os.path.relpath(os.path.dirname(root), software)
                        version = os.path.basename(root)[1:].rpartition('.')[0]
                        found.uses.setdefault(entry.name, []).append(Use('%s/%s' % (name, version), prefix, RUNS, ''))


def _directories(path):
    try:
        return sorted(entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _links(directory):
    try:
        return [entry.path for entry in os.scandir(directory) if entry.is_symlink()]
    except OSError:  # it has its final name by now, or is noted
        return []
