# SPDX-License-Identifier: GPL-2.0-only
"""Images that are here already, under whatever name: of installed modules, and of the site's image store."""

import os

from easysif import files, installed, manifest
from easysif.errors import EasySIFError
from easysif.images.kept import Obtained
from easysif.images.place import STORE, sha256_of
from easysif.store.contents import Store, open_to_all

#: what the record of an image says of where it came from
ORIGIN = ('reference', 'digest', 'manifest_digest', 'source', 'validator')


def find(places, site, fits):
    """Return an image that is here already, the one that is to be replaced first (Obtained), None where none fits.

    :param places: its ``previous`` and ``prefix`` are looked at (Places)
    :param site: its ``image_store`` is looked at (Site)
    :param fits: tells by its record whether it is the right one (callable: dict -> bool)
    """
    return next(_all(places, site, fits), None)


def bases(places, site, fits):
    """Yield the images that are here already and fit, as `find` does, of which nobody can change the bytes any more but
    who may change the installations or the store (Obtained). Their bytes are not read yet.

    A runtime reads a base long after it was verified.
    """
    for one in _all(places, site, fits):
        problem = open_to_all(one.path, one.path)
        if not problem:
            yield one
        elif places.tell:
            places.tell('%s: can be written by everybody, so it is no base' % one.path)


def _all(places, site, fits):
    previous = of_previous(places, fits)
    yield from [previous] if previous else []
    yield from _of_prefix(places, fits)
    yield from _of_store(site, fits)


def find_file(reference, site, places, where):
    """Return where a file is that a recipe names (str), None where nowhere.

    :param reference: what the recipe names (Reference)
    :param site: its ``image_store`` is looked at first (Site)
    :param places: its ``find_file`` is asked then (Places)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: it is in the store, and everybody may write to it
    """
    stored = os.path.join(site.image_store, reference.path) if site.image_store else None  # or an absolute path itself
    if os.path.isabs(reference.path):
        if not os.path.isfile(reference.path):
            return None
        if not stored or os.path.dirname(os.path.realpath(stored)) != os.path.realpath(site.image_store):
            return reference.path
    elif not stored or not os.path.isfile(stored):
        return places.find_file(reference.path)
    Store(site.image_store).check_closed(where, stored)
    return stored


def of_previous(places, fits):
    """Return the image of the installation that stands there, if it is there, whole and fits (Obtained or None)."""
    return _image_of(*places.previous, fits) if places.previous else None


def _of_store(site, fits):
    for entry in Store(site.image_store).having(fits) if site.image_store else ():
        yield Obtained(entry.path, expected=entry.sha256, told_by=STORE, origin=_origin(entry.record))


def _of_prefix(places, fits):
    for root in installed.modules(places.prefix).values() if places.prefix else ():
        try:
            found = _image_of(root, manifest.read(root), fits)
        except EasySIFError:  # a damaged one, or of another version of EasySIF
            continue
        if found:
            yield found


def _image_of(root, record, fits):
    image = record['image']
    if not image:
        return None
    path = os.path.join(root, image['file'])
    verified = files.identity(path)
    try:
        if not fits(image) or not _is_untouched(path, root, record) and sha256_of(path) != image['sha256']:
            return None
    except OSError:
        return None
    # what a link leads to is the site's, of which no hard link is made
    return Obtained(path, own=not os.path.islink(path), expected=image['sha256'], origin=_origin(image),
                    verified=verified)


def _is_untouched(path, root, record):
    """Tell whether nobody has written to an image since the wrappers were made, so that it need not be read.

    They are made after it was verified; what is copied to an installation keeps its date.
    """
    image = os.stat(path)
    return image.st_size == record['image']['size'] and image.st_mtime_ns < min(
        (os.lstat(os.path.join(root, name)).st_mtime_ns for name in record['files'] if name.startswith('bin/')),
        default=0)


def _origin(record):
    return {key: record[key] for key in ORIGIN if record.get(key) is not None}
