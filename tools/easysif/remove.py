# SPDX-License-Identifier: GPL-2.0-only
"""Removes an installed module: what its manifest names and nothing else.

First the module file goes, so that nothing half can be loaded, and at the same moment the installation gets the name of
one that is not finished: if we are killed later, the next command that takes its lock removes what is left.
"""

import glob
import os
import shlex
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from easysif import belongings, files, installed, inventory, layout, manifest, modulefile
from easysif.belongings import Belongings, Size
from easysif.errors import EasySIFError
from easysif.lock import Lock


@dataclass
class Removed:
    """What was removed, and what was not.

    :param module: its name (str)
    :param root: the installation directory (str)
    :param gone: what it took (Size), None where only the rest of an earlier removal was left
    :param foreign: files in the installation that are not ours and stay (list of str)
    :param overlay: the user's directory (str), None where there is none
    :param overlay_size: what it holds (Size)
    :param overlay_removed: whether it went (bool)
    :param notes: what else is to be known (list of str)
    """

    module: str
    root: str
    gone: Size = None
    foreign: list = field(default_factory=list)
    overlay: str = None
    overlay_size: Size = None
    overlay_removed: bool = False
    notes: list = field(default_factory=list)


class Removal:
    """One module that is to be removed. Nothing is changed before :meth:`run`.

    :param module: name with version, or the name alone where one version is installed (str)
    :param prefix: EasyBuild's install path (str)
    :param with_overlay: the user's own overlay goes as well (bool)
    :raises EasySIFError: it is not installed, its manifest cannot be used, or it is not ours to remove
    """

    def __init__(self, module, prefix, with_overlay=False):
        self.prefix, self.with_overlay = prefix, with_overlay
        try:
            self.name = installed.find(prefix, module)[0]
        except EasySIFError:
            self.name = _left_over(prefix, module)
            if not self.name:
                raise
        try:
            self.known = self._look()
            self.overlay = self._overlay()
            self.overlay_size = Size.of(self.overlay) if self.overlay else None
        except FileNotFoundError as err:  # we do not have the lock yet
            raise EasySIFError(self.name, 'another process is at work here: a file vanished while it was looked at',
                               facts=[('file', err.filename)], hint='run the same command again') from err

    def _look(self):
        """Find out what there is, and that all of it can be removed."""
        try:
            known = Belongings(self.name, self.prefix)
        except EasySIFError as err:
            raise self._not_known(err) from err
        if known.record:
            known.containerroot = known.containerroot()
        self._check_permissions(known)
        return known

    def _look_again(self):
        """Look at what there is now, under the lock; the overlay must be the one that the user was asked about."""
        self.known, asked = self._look(), self.overlay
        if self.with_overlay and self.known.record:
            self.overlay = self._overlay()
            if self.overlay != asked:
                raise EasySIFError(self.name, 'the overlay is another one now',
                                   facts=[('before', asked or 'none'), ('now', self.overlay or 'none')],
                                   hint='run the same command again')

    def _not_known(self, err):
        """Return the error that what belongs to the module cannot be told (EasySIFError)."""
        if 'newer EasySIF' in err.what or 'cannot be read (Permission' in err.what:
            return err
        option = installed.option(self.prefix)
        root = layout.roots(self.prefix, self.name)[0]
        tops = {os.path.dirname(one.modules) for one in layout.layouts(self.prefix)}
        paths = [path for top in sorted(tops) if os.path.isdir(top)
                 for name in sorted(os.listdir(top)) for path in modulefile.paths(os.path.join(top, name), self.name)
                 if os.path.lexists(path)]
        byhand = 'rm -r -- %s' % shlex.join([root, *paths])
        return EasySIFError(self.name, 'cannot be removed: %s' % err.what, facts=err.facts,
                            hint='%s && easysif remove %s%s; or by hand, whatever else lies there: %s' % (
                                inventory.rebuild(self.name, root), self.name, option, byhand))

    def _check_permissions(self, known):
        directories = {os.path.dirname(path) for path in (known.module, *known.links) if os.path.lexists(path)}
        if known.record:
            below = [entry.path for _, entry in manifest.walk(known.root, without=())
                     if entry.is_dir(follow_symlinks=False)]
            directories.update([os.path.dirname(known.root), known.root, *below])
        for directory in sorted(directories):
            if not os.access(directory, os.W_OK | os.X_OK) and os.stat(directory).st_uid != os.geteuid():
                raise EasySIFError(self.name, 'is not yours to remove', facts=[('not writable', directory)],
                                   hint='ls -ld %s' % shlex.quote(directory))

    def _overlay(self):
        """Return the user's directory (str), None where there is none; what may be removed of it is checked."""
        path = self.known.containerroot if self.known.record else None
        if not path or Size.of(path).files <= len(belongings.links_into(path, self.known.root)):
            if self.with_overlay and self.known.record and not self.known.is_sound():
                raise EasySIFError(self.name, 'which overlay is yours is not known: the wrappers are damaged',
                                   facts=[('installation', self.known.root)],
                                   hint='easysif refresh %s%s' % (self.name, installed.option(self.prefix)))
            return None
        if self.with_overlay:
            self.known.refuse_overlay_of_others(path, 'easysif remove %s%s' % (
                self.name, installed.option(self.prefix)))
        return path

    def run(self):
        """Remove it and return what was removed (Removed).

        :raises EasySIFError: another process is at work on it, or something cannot be removed
        """
        with ExitStack() as stack:
            standing = self.known.standing()
            is_rest = self.known.record is None and not os.path.lexists(self.known.module)
            stack.callback(self._tidy, standing)
            stack.enter_context(standing.alone(self.name, hint='wait for it to end, then run the same command again'))
            if not is_rest:
                installed.find(self.prefix, self.name)  # another process may have removed it
            self._look_again()
            done = Removed(self.name, self.known.root)
            if self.known.record or os.path.lexists(self.known.module):
                self._remove(standing, done, stack)
            self._after(done)
        return done

    def _remove(self, standing, done, stack):
        if self.overlay and self.with_overlay:
            stack.enter_context(Lock(os.path.join(self.overlay, '.pack.lock'), self.name))
        root = self.known.root
        done.foreign = self.known.foreign()
        done.gone = Size.of(root)
        done.gone.files -= len(done.foreign)
        standing.held.check()
        self._take_away(standing, os.path.isdir(root) and not done.foreign)
        try:
            files.remove_tree(standing.new)
            if done.foreign:
                _remove_ours(root, done.foreign)
        except OSError as err:
            raise EasySIFError(self.name, 'was removed, but not all of its files (%s)' % err.strerror,
                               facts=[('file', err.filename)],
                               hint='easysif remove %s%s' % (self.name, installed.option(self.prefix))) from err
        done.gone.size -= inventory.size_on_disk(root)

    def _take_away(self, standing, whole):
        """Let module file, links and, if all of it is ours, the installation vanish, or none of them."""
        moved = []
        with files.undisturbed():
            try:
                for path in (*self.known.links, self.known.module):
                    if os.path.lexists(path):
                        moved.append((path, files.name_beside(path)))
                        _rename(*moved[-1])
                if whole:
                    _rename(self.known.root, standing.new)
            except OSError as err:
                for path, beside in reversed(moved):
                    if os.path.lexists(beside):
                        _rename(beside, path)
                raise EasySIFError(self.name, 'cannot be removed (%s); it is left as it was' % err.strerror,
                                   facts=[('file', err.filename)],
                                   hint='ls -la %s' % shlex.quote(os.path.dirname(err.filename))) from err
            for _, beside in moved:
                with files.writable(os.path.dirname(beside)):
                    os.unlink(beside)

    def _after(self, done):
        """Take the links out of the user's directory, and the directory itself where that is wanted."""
        for path in self.known.places:
            files.sweep(path)
        for path in self.known.defaults:
            with files.writable(os.path.dirname(path)):
                os.unlink(path)
        own = os.path.join(self.known.prefix, 'overlays', self.name)
        for directory in {own, self.known.record and self.known.containerroot or own}:
            for name in belongings.links_into(directory, self.known.root):
                with suppress(OSError):
                    os.unlink(os.path.join(directory, name))
            for path in (os.path.join(directory, 'user-software'), directory):
                _remove_empty(path)
        aside = os.path.join(os.path.dirname(self.overlay or own), '.%s.removed' % os.path.basename(self.name))
        try:
            files.remove_tree(aside)
            if self.overlay and self.with_overlay:
                done.notes += ['%s was a link; what it leads to stays: %s' % (path, os.path.realpath(path))
                               for path in belongings.links_out_of(self.overlay)]
                os.rename(self.overlay, aside)
                done.overlay_removed = True
                files.remove_tree(aside)
        except OSError as err:
            raise EasySIFError(self.name, 'was removed, but not all of the overlay (%s)' % err.strerror,
                               facts=[('file', err.filename)],
                               hint='rm -r -- %s' % shlex.quote(aside if os.path.lexists(aside) else self.overlay)
                               ) from err
        if self.overlay and (done.overlay_removed or os.path.lexists(self.overlay)):
            done.overlay = self.overlay
            done.overlay_size = self.overlay_size if done.overlay_removed else Size.of(self.overlay)
        _remove_empty(os.path.dirname(self.overlay or own))
        while os.path.dirname(own) != self.known.prefix:  # up to the directory of all overlays
            own = os.path.dirname(own)
            _remove_empty(own)
        done.notes += ['%s names the version as the default; edit it' % path for path in self.known.named_as_default()]
        if self.known.defaults:
            done.notes.append('it was the default of %s: the newest version is now' % os.path.dirname(self.name))

    def _tidy(self, standing):
        """Remove the directories that are empty now."""
        for path in (*self.known.places, self.known.root, standing.lock):
            _remove_empty(os.path.dirname(path))


def _left_over(prefix, module):
    """Return the module of which a removal that was killed left something (str), None where there is none."""
    layouts = layout.layouts(prefix)
    tops = [(one.software, one.levels, '.new') for one in layouts]
    overlays = os.path.join(prefix, 'overlays')
    tops += [(overlays, levels, '.removed') for levels in sorted({one.levels for one in layouts})]
    for top, levels, ending in tops:
        for path in sorted(glob.glob(os.path.join(glob.escape(top), *'*' * (levels - 1), '.*' + ending))):
            directory, name = os.path.split(os.path.relpath(path, top))
            found = os.path.join(directory, name[1:-len(ending)])
            if installed.means(module, found):
                return found
    return None


def _remove_ours(root, foreign):
    """Remove our files from an installation in which files of others stay, the manifest last of all."""
    with files.writable(root):
        files.remove_tree(os.path.join(root, manifest.EASYBUILDS))
    entries = [(path, entry.path, entry.is_dir(follow_symlinks=False)) for path, entry in manifest.walk(root)]
    for path, full, is_directory in reversed(entries):
        with files.writable(os.path.dirname(full)):
            if is_directory:
                with suppress(OSError):  # something of others is in it
                    os.rmdir(full)
            elif path not in foreign and path != manifest.NAME:
                os.unlink(full)
    with files.writable(root):
        os.unlink(os.path.join(root, manifest.NAME))


def _rename(path, other):
    with files.writable(os.path.dirname(path)):
        os.rename(path, other)


def _remove_empty(path):
    with suppress(OSError):  # it is not, or is gone
        os.rmdir(path)
