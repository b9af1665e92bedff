# SPDX-License-Identifier: GPL-2.0-only
"""Where all that belongs to an installed module is: installation, module file, links, the user's directory."""

import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass

from easysif import files, installed, inventory, layout, manifest, modulefile
from easysif.errors import EasySIFError
from easysif.standing import Standing

#: what is run when an installation is asked for its overlay, below it
ASKED = ('easysif/wrapper', 'easysif/module.sh', 'easysif/site.sh')

#: where wrappers and module file say which installation they are of
ROOTS = ((os.path.join('easysif', 'module.sh'), re.compile(r'^es_root=(.+)$', re.M)),
         (manifest.MODULE, modulefile.ROOT))

#: files of a directory of modules that may name the default version
DEFAULTS = ('.modulerc.lua', '.modulerc', '.version')


@dataclass
class Size:
    """Files and bytes on disk of something."""

    files: int = 0
    size: int = 0

    @classmethod
    def of(cls, directory):
        """Return those of a directory (Size); nothing of it is followed."""
        entries = [entry for _, entry in manifest.walk(directory, without=())]
        return cls(sum(not entry.is_dir(follow_symlinks=False) for entry in entries),
                   inventory.size_on_disk(directory))


class Belongings:
    """An installed module and where all of it is.

    ``prefix`` and ``root`` are spelled as EasyBuild spelled them, where that is known: locks and module files have
    them so, however the user came there. ``record`` is the manifest (dict), None where the installation is gone and
    only the module file is left; ``places`` is where module file and links can be (list of str), ``defaults`` are the
    links that make the module the default of its name.

    :param name: as in ``jax/24.10`` (str)
    :param prefix: EasyBuild's install path (str)
    :raises EasySIFError: the manifest cannot be used, or is of another module or of an installation elsewhere
    """

    def __init__(self, name, prefix):
        self.name, self.prefix, self.root = name, prefix, layout.roots(prefix, name)[0]
        self.record = inventory.read(name, self.root) if os.path.lexists(self.root) else None
        recorded = self.record and self.record['modulefile']
        paths = [recorded['path'], *recorded['links']] if recorded else []
        if self.record and self.record['module'] != name or not all(modulefile.is_called(path, name) for path in paths):
            raise EasySIFError(name, '%s is of another module' % manifest.NAME,
                               facts=[('file', os.path.join(self.root, manifest.NAME)),
                                      ('recorded', ', '.join([self.record['module'], *paths]))],
                               hint=inventory.rebuild(name, self.root))
        if self.record:
            self._check_place(paths)
        self.module = paths[0] if paths else next((
            path for one in layout.layouts(prefix) for path in modulefile.paths(one.modules, name)
            if os.path.lexists(path) and modulefile.is_of(path, self.root, prefix)),
            modulefile.paths(layout.usual(prefix).modules, name)[0])
        self._spell()
        top = os.path.dirname(modulefile.stem(self.module)[:-len(name) - 1])
        ending = self.module[len(modulefile.stem(self.module)) - len(name) - 1:]
        self.places = sorted({*paths, self.module, *_places(top, ending)})
        self.links = [path for path in self.places if path in paths[1:] or _leads(path, self.module)]
        self.defaults = [modulefile.default(path)[0] for path in self.places if modulefile.is_default(path)]

    def _check_place(self, paths):
        """See that what is recorded is of this installation: in a copied prefix it is of the original."""
        told = [modulefile.root_in(os.path.join(self.root, name), pattern) for name, pattern in ROOTS]
        tops = [self.prefix, *(one.modules for one in layout.layouts(self.prefix))]
        told += [modulefile.root_in(path) or 'not known' for path in paths if os.path.exists(path)
                 and not any(_is_below(path, top) for top in tops) and not _leads(path, paths[0])]
        for root in filter(None, told):
            if not _is_same(root, self.root):
                raise EasySIFError(self.name, 'was installed elsewhere, and what belongs to that is not touched',
                                   facts=[('installed in', root), ('this one', self.root), *(
                                       ('module file', path) for path in paths[:1])],
                                   hint=inventory.rebuild(self.name, self.root))

    def _spell(self):
        told = [modulefile.root_in(os.path.join(self.root, name), pattern) for name, pattern in ROOTS]
        for root in filter(None, [modulefile.root_in(self.module), *told]):
            if os.path.realpath(root) == os.path.realpath(self.root) and root.endswith(os.sep + self.name):
                self.prefix, self.root = layout.prefix_above(root, self.name), root
                return

    def standing(self):
        """Return the place of the installation, with the lock that ``eb`` takes as well (Standing)."""
        return Standing(self.root, self.name, self.module, self.links)

    def is_sound(self):
        """Tell whether what runs when the installation is asked is still what was installed (bool)."""
        if not self.record['image']:
            return True  # nothing runs
        try:
            return all(self.record['files'].get(path) in (None, manifest.content(os.path.join(self.root, path)))
                       for path in ASKED)
        except OSError:
            return False

    def containerroot(self):
        """Return the user's directory for the module, where it has links and an overlay (str), None if not known."""
        if self.record and not self.record['image']:
            return None
        own = os.path.join(self.prefix, 'overlays', self.name)
        if self.record and self.is_sound():
            with suppress(EasySIFError):
                return installed.overlay(self.root) or own
        return own if os.path.lexists(own) else None

    def is_ours(self, overlay):
        """Tell whether a user's directory can be of this module: not where it is in another prefix (bool)."""
        overlays = overlay[:-len(self.name) - 1]
        prefix = os.path.dirname(os.path.realpath(overlays))
        return overlay == os.path.join(overlays, self.name) and (
            not os.path.lexists(os.path.join(prefix, 'easysif', 'prefix.json')) or _is_same(prefix, self.prefix))

    def refuse_overlay_of_others(self, path, instead):
        """See that a user's directory may be removed: that it is of this module and this user, and no link.

        :param path: the directory (str)
        :param instead: what can be typed instead (str)
        :raises EasySIFError: it may not
        """
        if not self.is_ours(path):
            raise EasySIFError(self.name, 'the overlay is of another prefix',
                               facts=[('overlay', path), ('prefix', self.prefix)], hint=instead)
        if os.path.islink(path):
            raise EasySIFError(self.name, 'the overlay is a link, which is not followed',
                               facts=[('link', path), ('leads to', os.path.realpath(path))],
                               hint='%s; then: rm -r -- %s' % (instead, shlex.join([path, os.path.realpath(path)])))
        above = os.path.dirname(path)
        closed = of_others(path) or (None if os.access(above, os.W_OK) else above)
        if closed:
            raise EasySIFError(self.name, 'the overlay is not yours to remove', facts=[('of others', closed)],
                               hint=instead)

    def foreign(self):
        """Return the files in the installation that others put there, relative to it (list of str)."""
        if not self.record:
            return []
        ours = {*self.record['files'], manifest.NAME, manifest.UNTESTED, manifest.image_file(self.record)}
        return [path for path, entry in manifest.walk(self.root) if not entry.is_dir(follow_symlinks=False)
                and path not in ours and _whole_name(path) not in ours]

    def named_as_default(self):
        """Return the files that name the version as the default one and are not ours to edit (list of str)."""
        version, found = os.path.basename(self.name), []
        for path in (os.path.join(os.path.dirname(self.module), name) for name in DEFAULTS):
            with suppress(OSError, ValueError), open(path, encoding='utf-8') as handle:
                if version in re.split('[\\s"\'/,()]+', handle.read()):
                    found.append(path)
        return found


def _whole_name(path):
    directory, name = os.path.split(path)
    litter = files.LITTER.match(name)
    return os.path.join(directory, litter.group(1)) if litter else path


def _places(top, ending):
    """Return where the module file of a name can be among the directories of module classes (list of str)."""
    try:
        return [os.path.join(top, name) + ending for name in os.listdir(top)]
    except OSError:
        return []


def _leads(path, target):
    return os.path.islink(path) and os.readlink(path) == target


def _is_same(path, other):
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


def _is_below(path, directory):
    return os.path.realpath(os.path.dirname(path)).startswith(os.path.realpath(directory) + os.sep)


def links_into(directory, root):
    """Return the names of the links in a directory that lead into an installation (set of str)."""
    try:
        names = os.listdir(directory)
    except OSError:
        return set()
    return {name for name in names if os.path.islink(os.path.join(directory, name))
            and os.readlink(os.path.join(directory, name)).startswith(root + os.sep)}


def of_others(directory):
    """Return what another user made in a directory, the first of it (str), None where there is none."""
    everything = [(directory, os.stat(directory)), *(
        (entry.path, entry.stat(follow_symlinks=False)) for _, entry in manifest.walk(directory, without=()))]
    return next((path for path, info in everything if info.st_uid != os.geteuid()), None)


def links_out_of(directory):
    """Return the links of a directory that lead to something (list of str), wherever that is."""
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    return [path for path in paths if os.path.islink(path) and os.path.exists(path)]
