# SPDX-License-Identifier: GPL-2.0-only
"""Brings the image of an installed module back, as ``easysif.json`` recorded it: from wherever it can be had, verified.

It is made in the directory in which a rebuild would be made, so that what a killed one leaves is removed by whatever
takes the lock next. What a registry or an archive has is made into a SIF file anew, which differs in its bytes: the
record then follows, and module file and wrappers with it.
"""

import os
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass, replace

from easysif import files, installed, inventory, manifest, recipe, runtime, search
from easysif.belongings import Belongings
from easysif.errors import EasySIFError
from easysif.images import sif
from easysif.images.kept import Kept, directories
from easysif.images.place import place, refer, sha256_of
from easysif.images.reference import ARCHIVE, DEFINITION, DOCKER, FILE, parse
from easysif.images.space import AGAIN
from easysif.modes import owner
from easysif.obtain import Places, obtain
from easysif.refresh import refresh_held
from easysif.store.contents import Store

WHOLE = 'whole'


@dataclass
class Restored:
    """An image that is back.

    :param module: the module (str)
    :param file: the image (str)
    :param how: ``whole``, where nothing was to be done; ``link``, ``reflink``, ``copy``, ``reference`` (str)
    :param source: where it came from (str), None where nothing was to be done
    :param sha256: of its bytes (str)
    :param size: in bytes (int)
    :param is_new: its bytes are not those that were recorded, though it is the same image of a registry (bool)
    :param note: what the user has to know (str), None for nothing
    """

    module: str
    file: str
    how: str
    source: str = None
    sha256: str = ''
    size: int = 0
    is_new: bool = False
    note: str = None


def restore(module, prefix, site, tell=None):
    """Bring the image of a module back (Restored).

    :param module: name with version, or the name alone where one version is installed (str)
    :param prefix: EasyBuild's install path (str)
    :param site: the resolved site (Site)
    :param tell: takes a line for the log (callable: str)
    :raises EasySIFError: it cannot be had, which names what was tried; or the installation is not ours to change
    """
    known = _known(installed.find(prefix, module)[0], prefix)
    standing = known.standing()
    try:
        with standing.alone(known.name, hint='wait for it to end, then run the same command again'):
            return _Restoring(_known(known.name, prefix), standing, site, tell).run()
    finally:
        standing.tidy()
        with suppress(OSError):  # another one has its lock there
            os.rmdir(os.path.dirname(standing.lock))


def _known(name, prefix):
    known = Belongings(name, prefix)
    if known.record is None:
        inventory.read(name, known.root)  # says that there is none
    if not known.record['image']:
        raise EasySIFError(name, 'has no image: it is for images of its users', facts=[('installation', known.root)],
                           hint='module load %s && singularity exec <image of yours> <command>' % name)
    info = os.stat(known.root)
    if info.st_uid != os.geteuid() and not os.access(known.root, os.W_OK | os.X_OK):
        raise EasySIFError(name, 'is not yours to restore',
                           facts=[('not writable', known.root), ('owner', owner(info))],
                           hint='ask %s: %s' % (owner(info), inventory.restore(name, known.root)))
    return known


class _Restoring:
    def __init__(self, known, standing, site, tell):
        self.known, self.standing, self.tell = known, standing, tell
        self.site = replace(site, image_mode='copy')
        self.image = known.record['image']
        self.own = os.path.join(known.root, self.image['file'])
        self.reference = parse(self.image['reference'], known.name)
        self.tried, self.origin, self.obtained = [], {}, None

    def run(self):
        """Return what was done (Restored)."""
        with suppress(OSError):
            leads = os.readlink(self.own) if os.path.islink(self.own) else None
            if leads == self.image.get('link') and sha256_of(self.own) == self.image['sha256']:
                return Restored(self.known.name, self.own, WHOLE, None, self.image['sha256'], self.image['size'])
        new = self.standing.make()
        try:
            target = os.path.join(new, self.image['file'])
            placed, source = self._bring(target)
            found = sif.read(target, self.known.name)
            self._permit(target, placed.how)
            image = self._record(placed, found, source)
            self.standing.held.check()
            with files.undisturbed(), files.writable(self.known.root):
                os.rename(target, self.own)
                files.sync_directory(self.known.root)
        except OSError as err:
            raise EasySIFError(self.known.name, 'the image cannot be put into its place (%s)' % err.strerror,
                               facts=[('file', self.own)], hint='ls -ld -- %s' % shlex.quote(self.known.root)) from err
        finally:
            self.standing.clear()
        if image != self.image:
            # the record is the last word: where we are killed before it says what the image is now, the image is not
            # the recorded one, and all of this is done again
            self.known.record['image'] = image
            problems = refresh_held(self.known, self.standing, self.site).problems
            if problems:
                raise problems[0]
        if self.obtained:
            self.obtained.forget()
            with suppress(OSError):
                os.unlink(self._log())
        return Restored(self.known.name, self.own, placed.how, source, placed.sha256, found.size,
                        placed.sha256 != self.image['sha256'], self.obtained and self.obtained.note)

    def _bring(self, target):
        """Make the image at a path; return how that was done (Placed) and where it came from (str)."""
        for path, way in self._candidates():
            try:
                size = os.path.getsize(path)
                if size != self.image['size']:
                    self.tried.append((path, '%d bytes, not %d' % (size, self.image['size'])))
                    continue
                return way(path, target), path
            except OSError as err:
                self.tried.append((path, err.strerror))
            except EasySIFError as err:
                self.tried.append((path, err.what))
        try:
            return self._fetch(target), self.image['reference']
        except EasySIFError as err:
            self.tried.append((self.image['reference'], '\n'.join([err.what, *(
                '%s  %s' % fact for fact in err.facts)])))
        raise EasySIFError(self.known.name, 'the image cannot be brought back',
                           facts=[('wanted', 'sha256:' + self.image['sha256']),
                                  ('tried', '\n'.join('%s: %s' % one for one in self.tried))],
                           hint=inventory.rebuild(self.known.name, self.known.root, self.known.record))

    def _candidates(self):
        """Yield paths that may be the image, each with the function that makes it the module's."""
        def copied(path, target):
            return place(path, target, expected=self.image['sha256'], where=self.known.name, more_room=AGAIN)

        def linked(path, target):
            Store(os.path.dirname(path)).check_closed(self.known.name, path)
            return refer(path, target, expected=self.image['sha256'], where=self.known.name)

        def shared(path, target):
            return place(path, target, link=True, expected=self.image['sha256'], where=self.known.name)

        of_store = linked if 'link' in self.image else copied
        paths = dict.fromkeys(filter(None, [self.image.get('link')]), of_store)
        if self.site.image_store:
            store = Store(self.site.image_store)
            entry = store.find(lambda record: record['sha256'] == self.image['sha256'])
            for path in filter(None, [store.path(self.image['file']), entry and entry.path]):
                paths.setdefault(path, of_store)
        for root in installed.modules(self.known.prefix).values():
            with suppress(EasySIFError):
                image = manifest.read(root)['image']
                path = image and os.path.join(root, image['file'])
                if path and root != self.known.root and image['sha256'] == self.image['sha256'] \
                        and not os.path.islink(path):
                    paths.setdefault(path, shared)
        if self.reference.kind == FILE:
            for directory in ('',) if os.path.isabs(self.reference.path) else self._searched():
                paths.setdefault(os.path.join(directory, self.reference.path), copied)
        return paths.items()

    def _searched(self):
        found = search.find(self.known.record['recipe'])
        beside = [os.path.dirname(os.path.abspath(found))] if found else []
        return installed.source_paths(self.known.prefix) + beside

    def _fetch(self, target):
        """Get it from where the recipe has it, by its digest (Placed)."""
        where, digest = self.known.name, self.image.get('digest')
        if self.reference.kind in (FILE, DEFINITION) or not digest:
            kept = self._kept_image()
            if not kept:
                raise EasySIFError(where, {FILE: 'is in none of these places', DEFINITION: 'makes another image each '
                                           'time'}.get(self.reference.kind, 'has no digest on record'))
            self.obtained = kept
        else:
            asked = recipe.validate({
                'easyblock': 'ContainerImage', 'name': 'image', 'version': '1', 'image': self.image['reference'],
                'digest': digest, 'toolchain': recipe.CONSTANTS['SYSTEM'], 'homepage': 'https://localhost',
                'description': 'an image'}, where)
            self.obtained = obtain(asked, self.site, runtime.find(self.site, where), self._places())
            of_manifest = self.obtained.origin.get('manifest_digest')
            if self.image.get('manifest_digest') not in (None, of_manifest):
                raise EasySIFError(where, 'is another image for this machine', facts=[('found', of_manifest)])
        is_made = self.reference.kind in (DOCKER, ARCHIVE)
        return place(self.obtained.path, target, link=self.obtained.own, where=where,
                     expected=self.obtained.expected if is_made else self.image['sha256'])

    def _places(self):
        downloads, work = self._directories()
        os.makedirs(downloads, exist_ok=True)
        # without a prefix: its other modules were asked, and the image of this one is the one that is damaged
        return Places(find_file=self._find, searched=self._searched(), downloads=downloads, work=work,
                      log=self._log(), lock={'wait': None, 'tell': self.tell})

    def _log(self):
        """Return the file for what is printed while an image is made, which a message may name (str)."""
        return os.path.join(self._directories()[0], 'restore-%s.log' % self.known.name.replace('/', '-'))

    def _kept_image(self):
        return Kept(self._directories()[0], self.known.name, {}, self.known.prefix).newest(
            lambda record: record.get('sha256') == self.image['sha256'])

    def _directories(self):
        sources = installed.source_paths(self.known.prefix)
        return directories(self.site, sources[0], self.standing.new)

    def _find(self, name):
        paths = [os.path.join(directory, name) for directory in self._searched()]
        return next(filter(os.path.isfile, paths), None)

    def _permit(self, path, how):
        """Let the image be read by whom the installation may be read."""
        if how not in ('link', 'reference'):
            info = os.stat(self.known.root)
            with suppress(OSError):  # a group that is not ours
                os.chown(path, -1, info.st_gid)
            os.chmod(path, stat.S_IMODE(info.st_mode) & 0o444 | 0o400)

    def _record(self, placed, found, source):
        """Return what there is to record of the image now (dict)."""
        image = {key: value for key, value in self.image.items() if key != 'link'}
        if placed.how == 'reference':
            image['link'] = source
        if self.obtained and 'source' in self.obtained.origin:
            image['source'] = self.obtained.origin['source']
        return dict(image, sha256=placed.sha256, size=found.size)
