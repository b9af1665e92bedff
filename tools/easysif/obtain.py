# SPDX-License-Identifier: GPL-2.0-only
"""Gets the image of a recipe as a SIF file, verified, from wherever it comes; installs nothing."""

import os
from dataclasses import dataclass, field
from typing import Optional

from easysif.errors import EasySIFError
from easysif.images import build, registry, sif
from easysif.images.reference import DEFINITION, DOCKER, parse


@dataclass(frozen=True)
class Obtained:
    """A SIF file, and what is known of where it came from.

    :param path: the file (str)
    :param own: EasySIF made it and nothing else needs it, so it may be moved (bool)
    :param linkable: EasySIF made it and something else needs it, so a hard link may be made (bool)
    :param expected: the sha256 that the file must have (str), None where that is not known
    :param origin: digests and names for ``easysif.json`` (dict)
    """

    path: str
    own: bool = False
    linkable: bool = False
    expected: Optional[str] = None
    origin: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Places:
    """Where an image is looked for and made.

    :param find_file: finds a file by name where EasyBuild looks for sources (callable: str -> str or None)
    :param searched: where that is, for messages (list of str)
    :param downloads: directory in which a fetched image is kept until it is installed (str)
    :param work: directory for temporary files and logs (str)
    :param previous: the installation that stands there now, as (root, manifest), or None
    """

    find_file: object
    searched: list
    downloads: str
    work: str
    previous: Optional[tuple] = None


def obtain(recipe, site, runtime, places):
    """Return the image of a recipe as a SIF file, which is complete and for this machine (Obtained).

    :param recipe: the recipe (Recipe)
    :param site: the resolved site (Site)
    :param runtime: the container runtime (Runtime)
    :param places: where to look and to work (Places)
    :raises EasySIFError: it is not there, cannot be reached or made, or is not what the recipe says
    """
    reference = parse(recipe.image, recipe.where)
    way = {DOCKER: _from_registry, DEFINITION: _from_definition}.get(reference.kind, _from_file)
    obtained = way(reference, recipe, site, runtime, places)
    sif.check_architecture(sif.read(obtained.path, recipe.where), recipe.where)
    return obtained


def _from_file(reference, recipe, site, runtime, places):
    stored = os.path.join(site.image_store, reference.path) if site.image_store else None
    candidates = [reference.path] if os.path.isabs(reference.path) else [stored]
    found = next((path for path in candidates if path and os.path.isfile(path)), None)
    found = found or places.find_file(reference.path)
    origin = {'reference': reference.text, 'digest': recipe.digest}
    if found:
        return Obtained(found, expected=recipe.digest, origin=origin)
    previous = _previous(places, lambda image: image['reference'] == reference.text
                         and recipe.digest in (None, 'sha256:' + image['sha256']))
    if previous:
        return previous
    searched = [site.image_store] if site.image_store else []
    raise EasySIFError(recipe.where, 'image file not found: %s' % reference.path,
                       facts=[('searched', ', '.join(searched + places.searched))],
                       hint='add its directory with --sourcepath, or download it first')


def _from_registry(reference, recipe, site, runtime, places):
    try:
        resolved = registry.resolve(reference, site.registry_mirrors, recipe.where, digest=recipe.digest,
                                    ca_certificates=site.ca_certificates)
    except EasySIFError:
        # offline, or gone upstream: what stands there already serves if it is what the recipe asks for
        previous = _previous(places, lambda image: image['reference'] == reference.text
                             and recipe.digest in (None, image['digest']))
        if previous:
            return previous
        raise
    previous = _previous(places, lambda image: image.get('manifest_digest') == resolved.manifest_digest)
    if previous:
        return previous
    origin = {'reference': reference.text, 'digest': resolved.digest, 'manifest_digest': resolved.manifest_digest,
              'source': resolved.source}
    name = '%s-%s-%s.sif' % (recipe.name, recipe.full_version, resolved.manifest_digest[len('sha256:'):][:12])
    target = os.path.join(places.downloads, name)
    if not os.path.isfile(target):
        _build(target, lambda part: build.from_registry(resolved, part, runtime, site, places.work,
                                                        os.path.join(places.work, 'build.log'), recipe.where))
    return Obtained(target, own=True, origin=origin)


def _from_definition(reference, recipe, site, runtime, places):
    beside = os.path.join(os.path.dirname(recipe.path), reference.path) if recipe.path else ''
    definition = beside if os.path.isfile(beside) else places.find_file(reference.path)
    if not definition:
        raise EasySIFError(recipe.where, 'definition file not found: %s' % reference.path,
                           facts=[('searched', ', '.join(places.searched))],
                           hint='put it beside the recipe, or add its directory with --sourcepath')
    target = os.path.join(places.downloads, '%s-%s.sif' % (recipe.name, recipe.full_version))
    values = {'name': recipe.name, 'version': recipe.version, 'versionsuffix': recipe.versionsuffix}
    facts = {}

    def make(part):
        facts.update(build.from_definition(definition, part, values, runtime, site, places.work,
                                           os.path.join(places.work, 'build.log'), recipe.where))

    _build(target, make)
    return Obtained(target, own=True, origin=dict(facts, reference=reference.text, digest=None))


def _build(target, make):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = '%s.part-%d' % (target, os.getpid())
    try:
        make(part)
        os.rename(part, target)
    finally:
        if os.path.lexists(part):
            os.unlink(part)


def _previous(places, fits):
    """Return the image of the installation that stands there, if it is there and fits (Obtained or None)."""
    if not places.previous:
        return None
    root, manifest = places.previous
    image = manifest['image']
    path = os.path.join(root, image['file'])
    if not fits(image) or not os.path.isfile(path):
        return None
    origin = {key: image.get(key) for key in ('reference', 'digest', 'manifest_digest', 'source') if key in image}
    return Obtained(path, linkable=True, expected=image['sha256'], origin=origin)
