# SPDX-License-Identifier: GPL-2.0-only
"""Gets the image of a recipe as a SIF file, verified, from wherever it comes; installs nothing."""

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Optional

from easysif import installed, manifest
from easysif.errors import TOOL, EasySIFError
from easysif.images import build, pull, registry, sif, signature, web
from easysif.images.kept import Kept, Obtained, file_digest
from easysif.images.place import sha256_of
from easysif.images.reference import ARCHIVE, DEFINITION, DOCKER, FILE, LIBRARY, ORAS, URL, Reference, parse

#: what the record of an installed image says of where it came from
ORIGIN = ('reference', 'digest', 'manifest_digest', 'source', 'validator')


@dataclass(frozen=True)
class Places:
    """Where an image is looked for and made.

    :param find_file: finds a file by name where EasyBuild looks for sources (callable: str -> str or None)
    :param verify: holds a file against the recipe's ``checksums``, and raises if it is another (callable)
    :param searched: where files are looked for, for messages (list of str)
    :param downloads: directory in which a fetched image is kept until it is installed (str)
    :param work: directory for temporary files, which others may use, too (str)
    :param log: file that takes the output of a build (str)
    :param previous: the installation that stands there now, as (root, manifest), or None
    :param prefix: EasyBuild's install path, whose other modules may have the same image (str), None for none
    :param lock: ``wait``, ``tell`` and ``hint`` of Lock, for when another process fetches the same image (dict)
    :param find_module: finds a module of the recipe's ``builddependencies`` (callable: str -> its directory or None)
    """

    find_file: object
    verify: object
    searched: list
    downloads: str
    work: str
    log: str
    previous: Optional[tuple] = None
    prefix: Optional[str] = None
    lock: dict = field(default_factory=dict)
    find_module: object = lambda name: None

    @property
    def tell(self):
        """Takes a line for the log (callable or None)."""
        return self.lock.get('tell')


def obtain(recipe, site, runtime, places):
    """Return the image of a recipe as a SIF file, which is complete and for this machine (Obtained).

    :param recipe: the recipe (Recipe)
    :param site: the resolved site (Site)
    :param runtime: the container runtime (Runtime)
    :param places: where to look and to work (Places)
    :raises EasySIFError: it is not there, cannot be reached or made, or is not what the recipe says
    """
    reference = parse(recipe.image, recipe.where)
    way = {DOCKER: _from_registry, ORAS: _from_registry, URL: _from_web, LIBRARY: _from_library, ARCHIVE: _from_archive,
           DEFINITION: _from_definition}.get(reference.kind, _from_file)
    obtained = way(reference, recipe, site, runtime, places)
    try:
        sif.check_architecture(sif.read(obtained.path, recipe.where), recipe.where)
    except EasySIFError:
        obtained.forget()  # what is kept is for another try, and this one is of no use
        raise
    return _verified(obtained, reference, recipe, site, runtime)


def _verified(obtained, reference, recipe, site, runtime):
    """Return the image with the keys that signed it, where recipe or site want it to be signed (Obtained)."""
    comes_signed = reference.kind in (FILE, ORAS, URL, LIBRARY)
    if recipe.verify or site.verify == 'all' or site.verify == 'sif' and comes_signed:
        if not comes_signed:
            raise EasySIFError(recipe.where, 'image is made here, so nobody has signed it',
                               facts=[('image', reference.text), ('verify', 'recipe' if recipe.verify else 'site')],
                               hint='name a signed SIF file: oras://, https:// or NAME.sif')
        signers = signature.verify(obtained.path, runtime, site.keyring, recipe.where)
        return replace(obtained, origin=dict(obtained.origin, signed_by=signers))
    return obtained


def _from_file(reference, recipe, site, runtime, places):
    origin = {'reference': reference.text, 'digest': recipe.digest}
    found = _find(reference, site, places)
    if found:
        places.verify(found)
        return Obtained(found, expected=recipe.digest, origin=origin)
    previous = _previous(places, lambda image: image['reference'] == reference.text
                         and recipe.digest in (None, 'sha256:' + image['sha256']))
    if previous:
        places.verify(previous.path)
        return previous
    raise _not_found('image file not found', reference, recipe, site, places,
                     'add its directory with --sourcepath, or download it first')


def _from_registry(reference, recipe, site, runtime, places):
    kept = _kept(recipe, places)
    try:
        resolved = registry.resolve(reference, site.registry_mirrors, recipe.where, digest=recipe.digest,
                                    ca_certificates=site.ca_certificates)
    except EasySIFError as err:
        return _known_all_the_same(err, reference, recipe, places, kept)
    origin = {'reference': reference.text, 'digest': resolved.digest, 'manifest_digest': resolved.manifest_digest,
              'source': resolved.source}

    def same(image):
        return image.get('manifest_digest') == resolved.manifest_digest and (
            reference.kind != ORAS or resolved.blobs[0].digest == file_digest(image))

    def make(part):
        if reference.kind == ORAS:
            pull.sif(resolved, part, site, recipe.where, places.tell)
        else:
            build.from_registry(resolved, part, runtime, site, places.work, places.log, recipe.where, places.tell)
        return origin

    return _known_or_made(resolved.manifest_digest, same, make, places, kept, origin)


def _from_web(reference, recipe, site, runtime, places):
    kept, key = _kept(recipe, places), recipe.digest or _digest(reference.text)
    if recipe.digest:  # then nobody needs to be asked whether what is here is the right one
        def same(image):
            return image.get('digest') == recipe.digest == file_digest(image)
        known = kept.find(key, same) or _installed(places, same)
        if known:
            return _named(known, {'reference': reference.text})
    try:
        seen = web.look(reference, site, recipe.where)
    except EasySIFError as err:
        return _known_all_the_same(err, reference, recipe, places, kept)
    if not recipe.digest:
        def same(image):
            return (image.get('reference') == reference.text and image.get('digest') == file_digest(image)
                    and image.get('validator') == seen.validator is not None)

    def make(part):
        found = web.fetch(reference, seen, part, site, recipe.where, recipe.digest, places.tell)
        _hold(found, recipe, seen.source.label)
        places.verify(part)
        return dict({'reference': reference.text, 'digest': found, 'source': seen.source.host},
                    **({'validator': seen.validator} if seen.validator else {}))

    return _known_or_made(key, same, make, places, kept, {'reference': reference.text})


def _from_library(reference, recipe, site, runtime, places):
    kept = _kept(recipe, places)

    def same(image):
        return recipe.digest and image.get('digest') == recipe.digest == file_digest(image)

    def make(part):
        build.from_library(reference, part, runtime, site, places.work, places.log, recipe.where)
        found = 'sha256:' + sha256_of(part)
        _hold(found, recipe, 'the library')
        return {'reference': reference.text, 'digest': found}

    return _known_or_made(recipe.digest or _digest(reference.text), same, make, places, kept,
                          {'reference': reference.text})


def _from_archive(reference, recipe, site, runtime, places):
    found = _find(reference, site, places)
    if not found:
        raise _not_found('archive not found', reference, recipe, site, places, 'add its directory with --sourcepath')
    places.verify(found)
    digest = 'sha256:' + sha256_of(found)
    _hold(digest, recipe, found)
    origin = {'reference': reference.text, 'digest': digest}

    def make(part):
        build.from_archive(found, reference.scheme, part, runtime, site, places.work, places.log, recipe.where)
        return origin

    return _known_or_made(digest, lambda image: image.get('digest') == digest, make, places, _kept(recipe, places),
                          origin)


def _from_definition(reference, recipe, site, runtime, places):
    definition = places.find_file(reference.path)
    if not definition:
        raise EasySIFError(recipe.where, 'definition file not found: %s' % reference.path,
                           facts=[('searched', ', '.join(places.searched))],
                           hint='put it beside the recipe, or add its directory with --sourcepath')
    places.verify(definition)
    values = {'name': recipe.name, 'version': recipe.version, 'versionsuffix': recipe.versionsuffix}
    written = sha256_of(definition)

    def find_base(name):
        root = places.find_module(name)
        if root:
            return os.path.join(root, manifest.read(root)['image']['file'])
        beside = os.path.join(os.path.dirname(os.path.abspath(definition)), name)
        return beside if os.path.isfile(beside) else _find(Reference(kind=FILE, text=name, path=name), site, places)

    def make(part):
        facts = build.from_definition(definition, part, values, runtime, site, places.work, places.log, recipe.where,
                                      recipe.build_args, find_base)
        return dict(facts, reference=reference.text, digest=None, definition_sha256=written)

    # not the installed one: to rebuild from a definition is to get what its packages are now
    return _kept(recipe, places).make(_digest(json.dumps([written, values, recipe.build_args])),
                                      lambda image: image.get('definition_sha256') == written, make)


def _kept(recipe, places):
    return Kept(places.downloads, recipe.where, places.lock, places.prefix)


def _find(reference, site, places):
    """Return where a file is that a recipe names (str), None where nowhere."""
    if os.path.isabs(reference.path):
        return reference.path if os.path.isfile(reference.path) else None
    stored = os.path.join(site.image_store, reference.path) if site.image_store else None
    return stored if stored and os.path.isfile(stored) else places.find_file(reference.path)


def _not_found(what, reference, recipe, site, places, hint):
    searched = [site.image_store] if site.image_store else []
    absolute = os.path.isabs(reference.path)
    return EasySIFError(recipe.where, '%s: %s' % (what, reference.path),
                        facts=() if absolute else [('searched', ', '.join(searched + places.searched))],
                        hint='correct the path in the recipe' if absolute else hint)


def _known_or_made(digest, same, make, places, kept, origin):
    """Return an image that is here already under whatever name, else one that is made now (Obtained)."""
    known = partial(_installed, places, same)
    return _named(kept.find(digest, same) or known() or kept.make(digest, same, make, known), origin)


def _known_all_the_same(err, reference, recipe, places, kept):
    """Return what is here already if it is what the recipe asks for: offline, or it is gone upstream (Obtained)."""
    def asked_for(image):
        return image.get('reference') == reference.text and recipe.digest in (None, image.get('digest')) and (
            reference.kind != URL or image.get('digest') == file_digest(image))

    known = (kept.newest(asked_for) or _installed(places, asked_for)) if err.exit_code == TOOL else None
    if not known:
        raise err
    return replace(known, note='%s\nthe image that is here already is taken: %s' % (err, known.origin['digest']))


def _named(known, origin):
    """Return an image as this recipe names it, without what is known of another reference (Obtained)."""
    others = () if known.origin.get('reference') == origin['reference'] else ('source', 'validator')
    kept = {key: value for key, value in known.origin.items() if key not in others}
    return replace(known, origin=dict(kept, **origin))


def _hold(found, recipe, source):
    """Raise an EasySIFError where the digest of a file is not the one that the recipe names."""
    if recipe.digest not in (None, found):
        raise EasySIFError(recipe.where, 'digest does not match the image',
                           facts=[('recipe', recipe.digest), ('found', '%s  (%s)' % (found, source))],
                           hint="find out why; if it is the right one, write digest = '%s'" % found)


def _digest(text):
    return 'sha256:%s' % hashlib.sha256(text.encode()).hexdigest()


def _installed(places, fits):
    """Return the image of an installed module of this prefix, the one that stands there first (Obtained or None)."""
    found = _previous(places, fits)
    for root in installed.modules(places.prefix).values() if places.prefix and not found else ():
        try:
            found = _image_of(root, manifest.read(root), fits)
        except EasySIFError:  # a damaged one, or of another version of EasySIF
            continue
        if found:
            break
    return found


def _previous(places, fits):
    """Return the image of the installation that stands there, if it is there, whole and fits (Obtained or None)."""
    return _image_of(*places.previous, fits) if places.previous else None


def _image_of(root, record, fits):
    image = record['image']
    path = os.path.join(root, image['file'])
    try:
        if not fits(image) or sha256_of(path) != image['sha256']:
            return None
    except OSError:
        return None
    return Obtained(path, own=True, expected=image['sha256'],
                    origin={key: image[key] for key in ORIGIN if key in image})
