# SPDX-License-Identifier: GPL-2.0-only
"""Gets the image of a recipe as a SIF file, verified, from wherever it comes; installs nothing."""

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Optional

from easysif import known, manifest, trust
from easysif.errors import TOOL, EasySIFError
from easysif.images import bases, build, checksums, define, pull, registry, sif, sources, web
from easysif.images.kept import Kept, Obtained, file_digest
from easysif.images.place import sha256_of
from easysif.images.reference import ARCHIVE, DEFINITION, DOCKER, FILE, LIBRARY, ORAS, URL, Reference, parse
from easysif.store.contents import Store
from easysif.store.lookup import linked


@dataclass(frozen=True)
class Places:
    """Where an image is looked for and made.

    :param find_file: finds a file by name where EasyBuild looks for sources (callable: str -> str or None)
    :param searched: where files are looked for, for messages (list of str)
    :param downloads: directory in which a fetched image is kept until it is installed (str)
    :param work: directory for temporary files, which others may use, too (str)
    :param log: file that takes the output of a build (str)
    :param previous: the installation that stands there now, as (root, manifest), or None
    :param prefix: EasyBuild's install path, whose other modules may have the same image (str), None for none
    :param lock: ``wait``, ``tell`` and ``hint`` of Lock, for when another process fetches the same image (dict)
    :param find_module: finds a module of the recipe's ``builddependencies`` (callable: str -> its directory or None)
    :param checksums: those of the recipe, the first of which is that of the image's file (list)
    """

    find_file: object
    searched: list
    downloads: str
    work: str
    log: str
    previous: Optional[tuple] = None
    prefix: Optional[str] = None
    lock: dict = field(default_factory=dict)
    find_module: object = lambda name: None
    checksums: list = ()

    @property
    def checksum(self):
        """The sha256 that the file must have by the recipe's checksums (str), None where they give another kind."""
        return checksums.sha256_in(self.checksums)

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
    :raises EasySIFError: it is not there, not allowed, cannot be reached or made, or is not what the recipe says
    """
    reference = parse(recipe.image, recipe.where)
    sources.check_allowed(reference, site, recipe.where)
    if site.image_store:
        Store(site.image_store).check_closed(recipe.where)
    way = {DOCKER: _from_registry, ORAS: _from_registry, URL: _from_web, LIBRARY: _from_library, ARCHIVE: _from_archive,
           DEFINITION: _from_definition}.get(reference.kind, _from_file)
    if (recipe.image_mode or site.image_mode) == 'link':
        obtained = _linked(reference, recipe, site, places)
    else:
        obtained = way(reference, recipe, site, runtime, places)
    try:
        if reference.kind in (URL, ORAS, LIBRARY):
            trust.verify(obtained.path, obtained.expected, reference, recipe, places)
        sif.check_architecture(sif.read(obtained.path, recipe.where), recipe.where)
    except EasySIFError:
        obtained.forget()  # what is kept is for another try, and this one is of no use
        raise
    return trust.signed(obtained, reference, recipe, site, runtime)


def _linked(reference, recipe, site, places):
    """Return the file of the image store that the module is to run, held against the recipe as a copy would be."""
    made_of = None
    if reference.kind == DEFINITION:
        made_of = _definition(reference, recipe, places)[1]
    elif reference.kind == ARCHIVE:
        made_of = _digest_of_archive(reference, recipe, site, places)
    obtained = linked(reference, recipe, site, made_of)
    return trust.checked(obtained, reference, recipe, places) if reference.kind == FILE else obtained


def _digest_of_archive(reference, recipe, site, places):
    """Return the digest of an archive whose image the store has (str), None where neither file nor recipe tells it."""
    is_known = places.checksum or not places.checksums
    if is_known and not known.find_file(reference, site, places, recipe.where):
        # the store is enough: what it has recorded of the archive is asked for
        digest = recipe.digest or places.checksum and 'sha256:' + places.checksum
        trust.verify(reference.path, digest, reference, recipe, places)
        return digest
    return _archive(reference, recipe, site, places)[1]


def _from_file(reference, recipe, site, runtime, places):
    origin = {'reference': reference.text, 'digest': recipe.digest}
    wanted = recipe.digest or (places.checksum and 'sha256:' + places.checksum)
    there = wanted and known.find(places, site, lambda image: file_digest(image) == wanted)
    found = None if there else known.find_file(reference, site, places, recipe.where)
    if found:
        return trust.checked(Obtained(found, expected=recipe.digest, origin=origin), reference, recipe, places)
    there = there or known.of_previous(places, lambda image: image['reference'] == reference.text and not wanted)
    if there:
        trust.verify(there.path, there.expected, reference, recipe, places)
        return _named(there, origin)
    raise _not_found('image file not found', reference, recipe, site, places,
                     'add its directory with --sourcepath, or download it first')


def _from_registry(reference, recipe, site, runtime, places):
    kept = _kept(recipe, places)
    try:
        resolved = registry.resolve(reference, site.registry_mirrors, recipe.where, digest=recipe.digest,
                                    ca_certificates=site.ca_certificates)
    except EasySIFError as err:
        return _known_all_the_same(err, reference, recipe, places, site, kept)
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

    return _known_or_made(resolved.manifest_digest, same, make, places, site, kept, origin)


def _from_web(reference, recipe, site, runtime, places):
    kept, key = _kept(recipe, places), recipe.digest or _digest(reference.text)
    if recipe.digest:  # then nobody needs to be asked whether what is here is the right one
        def same(image):
            return image.get('digest') == recipe.digest == file_digest(image)
        found = kept.find(key, same) or kept.newest(same) or known.find(places, site, same)
        if found:
            return _named(found, {'reference': reference.text})
    try:
        seen = web.look(reference, site, recipe.where)
    except EasySIFError as err:
        return _known_all_the_same(err, reference, recipe, places, site, kept)
    if not recipe.digest:
        def same(image):
            return (image.get('reference') == reference.text and image.get('digest') == file_digest(image)
                    and image.get('validator') == seen.validator is not None)

    def make(part):
        found = web.fetch(reference, seen, part, site, recipe.where, recipe.digest, places.tell)
        trust.hold(found, recipe, seen.source.label)
        return dict({'reference': reference.text, 'digest': found, 'source': seen.source.host},
                    **({'validator': seen.validator} if seen.validator else {}))

    return _known_or_made(key, same, make, places, site, kept, {'reference': reference.text})


def _from_library(reference, recipe, site, runtime, places):
    kept = _kept(recipe, places)

    def same(image):
        return recipe.digest and image.get('digest') == recipe.digest == file_digest(image)

    def make(part):
        build.from_library(reference, part, runtime, site, places.work, places.log, recipe.where)
        found = 'sha256:' + sha256_of(part)
        trust.hold(found, recipe, 'the library')
        return {'reference': reference.text, 'digest': found}

    return _known_or_made(recipe.digest or _digest(reference.text), same, make, places, site, kept,
                          {'reference': reference.text})


def _from_archive(reference, recipe, site, runtime, places):
    found, digest = _archive(reference, recipe, site, places)
    origin = {'reference': reference.text, 'digest': digest}

    def make(part):
        build.from_archive(found, reference.scheme, part, runtime, site, places.work, places.log, recipe.where)
        return origin

    return _known_or_made(digest, lambda image: image.get('digest') == digest, make, places, site,
                          _kept(recipe, places), origin)


def _archive(reference, recipe, site, places):
    """Return an archive and its digest (pair of str), which are held against the recipe."""
    found = known.find_file(reference, site, places, recipe.where)
    if not found:
        raise _not_found('archive not found', reference, recipe, site, places, 'add its directory with --sourcepath')
    digest = 'sha256:' + sha256_of(found)
    trust.verify(found, digest, reference, recipe, places)
    trust.hold(digest, recipe, found)
    return found, digest


def _definition(reference, recipe, places):
    """Return a definition file and its sha256 (pair of str), which is held against the recipe."""
    found = places.find_file(reference.path)
    if not found:
        raise EasySIFError(recipe.where, 'definition file not found: %s' % reference.path,
                           facts=[('searched', ', '.join(places.searched))],
                           hint='put it beside the recipe, or add its directory with --sourcepath')
    written = sha256_of(found)
    trust.verify(found, written, reference, recipe, places)
    return found, written


def _from_definition(reference, recipe, site, runtime, places):
    definition, written = _definition(reference, recipe, places)
    values = {'name': recipe.name, 'version': recipe.version, 'versionsuffix': recipe.versionsuffix}

    def find_base(name):
        root = places.find_module(name)
        image = root and manifest.image_file(manifest.read(root))
        if image:
            return os.path.join(root, image)
        beside = os.path.join(os.path.dirname(os.path.abspath(definition)), name)
        base = Reference(kind=FILE, text=name, path=name)
        return beside if os.path.isfile(beside) else known.find_file(base, site, places, recipe.where)

    def make(part):
        facts = define.from_definition(definition, part, values, runtime, site, places.work, places.log, recipe.where,
                                       recipe.build_args, find_base, places.tell, bases.Bases(kept),
                                       partial(known.bases, places, site))
        return dict(facts, reference=reference.text, digest=None, definition_sha256=written,
                    build_args=recipe.build_args)

    kept = _kept(recipe, places)
    # not the installed one: to rebuild from a definition is to get what its packages are now
    return kept.make(_digest(json.dumps([written, values, recipe.build_args])),
                     lambda image: image.get('definition_sha256') == written, make)


def _kept(recipe, places):
    bases.sweep(places.downloads, recipe.where)
    return Kept(places.downloads, recipe.where, places.lock, places.prefix)


def _not_found(what, reference, recipe, site, places, hint):
    searched, absolute = [site.image_store] if site.image_store else [], os.path.isabs(reference.path)
    return EasySIFError(recipe.where, '%s: %s' % (what, reference.path),
                        facts=() if absolute else [('searched', ', '.join(searched + places.searched))],
                        hint='correct the path in the recipe' if absolute else hint)


def _known_or_made(digest, same, make, places, site, kept, origin):
    """Return an image that is here already under whatever name, else one that is made now (Obtained)."""
    there = partial(known.find, places, site, same)
    found = kept.find(digest, same) or kept.newest(same) or there()  # newest: kept before its digest was known
    return _named(found or kept.make(digest, same, make, there), origin)


def _known_all_the_same(err, reference, recipe, places, site, kept):
    """Return what is here already if it is what the recipe asks for: offline, or it is gone upstream (Obtained)."""
    def asked_for(image):
        return image.get('reference') == reference.text and recipe.digest in (None, image.get('digest')) and (
            reference.kind != URL or image.get('digest') == file_digest(image))

    found = (kept.newest(asked_for) or known.find(places, site, asked_for)) if err.exit_code == TOOL else None
    if not found:
        raise err
    return replace(found, note='%s\nthe image that is here already is taken: %s' % (err, found.origin['digest']))


def _named(found, origin):
    """Return an image as this recipe names it, without what is known of another reference (Obtained)."""
    others = () if found.origin.get('reference') == origin['reference'] else ('source', 'validator')
    kept = {key: value for key, value in found.origin.items() if key not in others}
    return replace(found, origin=dict(kept, **origin))


def _digest(text):
    return 'sha256:%s' % hashlib.sha256(text.encode()).hexdigest()
