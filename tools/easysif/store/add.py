# SPDX-License-Identifier: GPL-2.0-only
"""Puts images into an image store: verified, at one moment or not at all, each once.

A file is written beside its place, in the hidden directory of the store, so that nothing half has a name there.
"""

import os
import re
import shlex
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from easysif import files, recipe, runtime, search
from easysif.errors import EasySIFError, told
from easysif.images import bases, sif
from easysif.images.place import DIGEST, STORE, check, place, sha256_of
from easysif.images.reference import DOCKER, FILE, LIBRARY, ORAS, file_name, parse
from easysif.obtain import Places, obtain
from easysif.store import leftovers
from easysif.store.contents import RECORDED, check_name
from easysif.templates import resolved

ALREADY, RECORD = 'already', 'recorded'

MORE_ROOM = 'free some space there (or quota); what could go: easysif store gc%s; or use another one: --store DIR'

#: what the record of an image says of where it came from, as in easysif.json
ORIGIN = ('reference', 'digest', 'manifest_digest', 'source', 'validator', 'definition_sha256', 'build_args')


@dataclass(frozen=True)
class Added:
    """An image in the store.

    :param name: of the file (str)
    :param path: the file (str)
    :param sha256: of its bytes (str)
    :param size: in bytes (int)
    :param how: ``copy``, ``reflink``, ``link``; ``recorded``, where the file was there by hand; ``already`` (str)
    :param note: what the user has to know (str), None for nothing
    """

    name: str
    path: str
    sha256: str
    size: int
    how: str
    note: str = None


class Adding:
    """Adds images to a store.

    :param store: the store (Store)
    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path, whose modules may have the image (str)
    :param sourcepath: directories in which files of recipes are looked for as well (list of str)
    :param tell: takes a line for the log (callable: str)
    """

    def __init__(self, store, site, prefix, sourcepath=(), tell=None):
        self.store, self.site, self.prefix, self.tell = store, replace(site, image_mode='copy'), prefix, tell
        self.sourcepath = list(sourcepath)

    def add(self, what, name=None):
        """Put one image into the store (Added).

        :param what: a SIF file, a reference, or a recipe (str)
        :param name: how it is called there (str); as recipes name it where None
        :raises EasySIFError: it is not to be had, is not what it should be, or cannot be written
        """
        if what.endswith('.eb'):
            return self._add_recipe(what, name)
        if re.match('[a-z][a-z-]+:', what) and not os.path.exists(what):
            return self._add_reference(what, name)
        if not os.path.isfile(what):
            raise EasySIFError(what, 'is no file, no reference and no recipe',
                               hint='easysif store add FILE.sif, docker://HOST/NAME:TAG or RECIPE.eb')
        name = name or os.path.basename(what)
        check_name(name, what)
        with self._alone(name, what) as lock:
            return self._publish(os.path.abspath(what), name, what, {'reference': os.path.basename(what)}, lock)

    def close(self):
        """Remove what was fetched for several images; to be called when the last one was added."""
        bases.forget(leftovers.fetched(self.store))
        with suppress(OSError):  # others are at work there
            os.rmdir(leftovers.fetched(self.store))

    def _add_recipe(self, what, name):
        path = search.find(what)
        if not path:
            raise EasySIFError(what, 'there is no such recipe', hint='eb --search %s' % shlex.quote(what[:-len('.eb')]))
        known = recipe.load(path)
        if not known.image:
            raise EasySIFError(what, 'has no image: its users bring their own',
                               hint='easysif store add FILE.sif, docker://HOST/NAME:TAG or RECIPE.eb')
        module = '%s/%s' % (known.name, known.full_version)
        values = recipe.read(path)[0]
        checksums = resolved(recipe.checksums_of_image(values), values, later=True)
        return self._obtain(known, name or file_name(parse(known.image, known.where), module), what, checksums,
                            {'recipe': known.where})

    def _add_reference(self, what, name):
        reference = parse(what, what)
        known = recipe.validate({'easyblock': 'ContainerImage', 'name': 'image', 'version': '1', 'image': what,
                                 'toolchain': recipe.CONSTANTS['SYSTEM'], 'homepage': 'https://localhost',
                                 'description': 'an image'}, what)
        return self._obtain(known, name or _name_of(reference), what, (), {})

    def _obtain(self, known, name, what, checksums, origin):
        check_name(name, what)
        with self._alone(name, what) as lock:
            work, log = (leftovers.of(self.store, kind, name) for kind in ('work', 'log'))
            beside = [os.path.dirname(known.path)] if known.path else ['.']
            places = Places(
                find_file=lambda file: _find(file, [*self.sourcepath, *beside]),
                searched=[*self.sourcepath, *beside], log=log,
                work=self.site.tmp_dir or work, downloads=self.site.cache_dir or leftovers.fetched(self.store),
                prefix=self.prefix, lock={'wait': None, 'tell': self.tell}, checksums=checksums)
            try:
                with self.store.modes().publishing(work):
                    os.makedirs(work, exist_ok=True)
                # a recipe whose module is to run from the store: its image is what the store does not have yet
                obtained = obtain(replace(known, image_mode='copy'),
                                  replace(self.site, image_store=self.store.directory),
                                  runtime.find(self.site, known.where), places)
                added = self._publish(obtained.path, name, known.where, dict(obtained.origin, **origin), lock, obtained)
                obtained.forget()
                with suppress(OSError):  # one that failed is named in a message
                    os.unlink(log)
            finally:
                for directory in (work, leftovers.fetched(self.store)):
                    with suppress(OSError):  # others are at work there, or what was fetched waits for another try
                        os.rmdir(directory)
        return replace(added, note=obtained.note)

    @contextmanager
    def _alone(self, name, where):
        """Hold the lock of a name for the block, which gets it; what killed ones left is gone then."""
        self.store.prepare(where)
        with self.store.lock(name, where, tell=self.tell) as lock:
            leftovers.sweep(self.store, name)
            yield lock

    def _publish(self, source, name, where, origin, lock, obtained=None):
        """Give a file its name in the store, of which we have the lock (Added)."""
        expected, told_by = (obtained.expected, obtained.told_by) if obtained else (None, DIGEST)
        there = self.store.entry(name)
        if there:
            try:
                return self._there(there, source, where, origin, expected, told_by)
            except OSError as err:
                raise told(err, where) from err
        if os.path.lexists(self.store.path(name)):
            raise EasySIFError(where, 'something else has that name in the image store',
                               facts=[('file', self.store.path(name))],
                               hint='ls -l -- %s' % shlex.quote(self.store.path(name)))
        found = sif.read(source, where)
        new = leftovers.of(self.store, 'new', name)
        try:
            stored = self._stored(source)
            if stored:
                expected, told_by = stored.sha256, STORE
            own = obtained is not None and obtained.kept is not None or stored is not None
            placed = place(source, new, link=own, expected=expected, where=where, told_by=told_by,
                           verified=obtained.verified if obtained else None, more_room=MORE_ROOM % self.store.option)
            if placed.how != 'link':
                self.store.modes().give(new, above=False)
            info = os.stat(new)
            lock.check()
            self.store.write_record(name, _record(placed.sha256, info, found, origin))
            os.rename(new, self.store.path(name))
            files.sync_directory(self.store.directory)
        except OSError as err:
            raise EasySIFError(where, 'the image cannot be put into the image store (%s)' % err.strerror,
                               facts=[('store', self.store.directory)],
                               hint='ls -ld -- %s' % shlex.quote(self.store.directory)) from err
        finally:
            with suppress(FileNotFoundError):
                os.unlink(new)
        return Added(name, self.store.path(name), placed.sha256, info.st_size, placed.how)

    def _there(self, there, source, where, origin, expected, told_by):
        """The store has a file of that name: it must be the same; one that was put there by hand gets a record."""
        is_itself = os.path.samefile(source, there.path)
        if not is_itself and os.path.getsize(source) != there.info.st_size:
            raise self._another(there, where)
        before, found = files.identity(there.path), sha256_of(there.path)
        if there.state == RECORDED and found != there.sha256:
            raise EasySIFError(where, 'the image store has a damaged file of that name', facts=[('file', there.path)],
                               hint='mv -- %s, then the same again' % shlex.join([there.path, there.path + '.damaged']))
        if not is_itself and sha256_of(source) != found:
            raise self._another(there, where)
        check(found, expected, there.path, where, told_by)
        described = sif.read(there.path, where)
        if there.state == RECORDED:
            return Added(there.name, there.path, found, there.info.st_size, ALREADY)
        if there.info.st_uid == os.geteuid() and not os.path.islink(there.path):
            os.chmod(there.path, 0o444)
            self.store.modes().give(there.path, above=False)
        if files.identity(there.path) != before:
            raise EasySIFError(where, 'the file was changed while it was read', facts=[('file', there.path)],
                               hint='wait until whoever writes it is done, then the same again')
        self.store.write_record(there.name, _record(found, os.stat(there.path), described, origin))
        return Added(there.name, there.path, found, there.info.st_size, RECORD)

    def _another(self, there, where):
        return EasySIFError(where, 'the image store has another image of that name',
                            facts=[('file', there.path)],
                            hint='easysif store add --name OTHER.sif {1}{0}; or: easysif store gc {2}{0}'.format(
                                self.store.option, shlex.quote(where), shlex.quote(there.name)))

    def _stored(self, source):
        """Return a file of the store that easysif put there, of which a hard link may be made (Entry or None)."""
        if os.path.dirname(source) != self.store.directory or os.path.islink(source):
            return None
        there = self.store.entry(os.path.basename(source))
        return there if there and there.state == RECORDED else None


def _record(sha256, info, found, origin):
    known = {name: origin[name] for name in (*ORIGIN, 'recipe') if origin.get(name) is not None}
    return dict(known, schema=1, sha256=sha256, size=info.st_size, mtime_ns=info.st_mtime_ns,
                architecture=found.architecture)


def _name_of(reference):
    """Return what a file of the store is called where only its reference is known (str)."""
    path = reference.repository or reference.path or reference.text
    last = path.partition('?')[0].rstrip('/').rpartition('/')[2]
    if reference.kind in (DOCKER, ORAS):
        last += '-%s' % (reference.tag or reference.digest[7:19])
    elif reference.kind == LIBRARY:
        last = last.replace(':', '-')
    return last if last.endswith('.sif') or reference.kind == FILE else last + '.sif'


def _find(name, directories):
    if os.path.isabs(name):
        return name if os.path.isfile(name) else None
    paths = [os.path.join(directory, name) for directory in directories]
    return next(filter(os.path.isfile, paths), None)
