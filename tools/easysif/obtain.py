# SPDX-License-Identifier: GPL-2.0-only
"""Gets the image of a recipe as a SIF file, verified, from wherever it comes; installs nothing."""

import glob
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Optional

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.images import build, registry, sif
from easysif.images.place import sha256_of
from easysif.images.reference import DEFINITION, DOCKER, parse
from easysif.lock import Lock

LEFT = re.compile(r'(.+-[0-9a-f]{12}\.sif)\.(part-[0-9]+|lock)')  #: what a killed process may leave in the downloads


@dataclass(frozen=True)
class Obtained:
    """A SIF file, and what is known of where it came from.

    :param path: the file (str)
    :param own: EasySIF made it, so a hard link may be made (bool)
    :param fetched: it is kept only until it is installed (bool)
    :param expected: the sha256 that the file must have (str), None where that is not known
    :param origin: digests and names for ``easysif.json`` (dict)
    :param note: what the user has to know of it (str), None where it is what one would expect
    """

    path: str
    own: bool = False
    fetched: bool = False
    expected: Optional[str] = None
    origin: dict = field(default_factory=dict)
    note: Optional[str] = None

    def forget(self):
        """It is installed: remove what was kept until then, so that one copy is left."""
        if self.fetched:
            for path in (_record(self.path), self.path):  # an image without a record means nothing
                with suppress(OSError):
                    os.unlink(path)


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
    :param lock: ``wait``, ``tell`` and ``hint`` of Lock, for when another process fetches the same image (dict)
    """

    find_file: object
    verify: object
    searched: list
    downloads: str
    work: str
    log: str
    previous: Optional[tuple] = None
    lock: dict = field(default_factory=dict)


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
    found = stored if stored and os.path.isfile(stored) else places.find_file(reference.path)
    origin = {'reference': reference.text, 'digest': recipe.digest}
    if found:
        places.verify(found)
        return Obtained(found, expected=recipe.digest, origin=origin)
    previous = _previous(places, lambda image: image['reference'] == reference.text
                         and recipe.digest in (None, 'sha256:' + image['sha256']))
    if previous:
        places.verify(previous.path)
        return previous
    searched = [site.image_store] if site.image_store else []
    raise EasySIFError(recipe.where, 'image file not found: %s' % reference.path,
                       facts=[('searched', ', '.join(searched + places.searched))],
                       hint='add its directory with --sourcepath, or download it first')


def _from_registry(reference, recipe, site, runtime, places):
    try:
        resolved = registry.resolve(reference, site.registry_mirrors, recipe.where, digest=recipe.digest,
                                    ca_certificates=site.ca_certificates)
    except EasySIFError as err:
        # offline, or gone upstream: what is here already serves if it is what the recipe asks for
        def asked_for(image):
            return image.get('reference') == reference.text and recipe.digest in (None, image.get('digest'))

        known = _newest_fetched(recipe, places, asked_for) or _previous(places, asked_for)
        if err.exit_code != TOOL or not known:
            raise
        return replace(known, note='%s\nthe image that is here already is taken: %s' % (err, known.origin['digest']))

    def same(image):
        return image.get('manifest_digest') == resolved.manifest_digest

    target = _target(recipe, places, resolved.manifest_digest)
    known = _fetched(target, same) or _previous(places, same)
    if known:
        return known
    origin = {'reference': reference.text, 'digest': resolved.digest, 'manifest_digest': resolved.manifest_digest,
              'source': resolved.source}

    def make(part):
        build.from_registry(resolved, part, runtime, site, places.work, places.log, recipe.where)
        return origin

    return _make(target, same, make, recipe, places)


def _from_definition(reference, recipe, site, runtime, places):
    definition = places.find_file(reference.path)
    if not definition:
        raise EasySIFError(recipe.where, 'definition file not found: %s' % reference.path,
                           facts=[('searched', ', '.join(places.searched))],
                           hint='put it beside the recipe, or add its directory with --sourcepath')
    places.verify(definition)
    values = {'name': recipe.name, 'version': recipe.version, 'versionsuffix': recipe.versionsuffix}
    with open(definition, 'rb') as handle:
        written = hashlib.sha256(handle.read()).hexdigest()

    def make(part):
        facts = build.from_definition(definition, part, values, runtime, site, places.work, places.log, recipe.where)
        return dict(facts, reference=reference.text, digest=None, definition_sha256=written)

    # not the installed one: to rebuild from a definition is to get what its packages are now
    return _make(_target(recipe, places, written), lambda image: image.get('definition_sha256') == written, make,
                 recipe, places)


def _target(recipe, places, digest):
    """Return where a fetched image is kept (str): another file for each digest, as several may share the directory."""
    return os.path.join(places.downloads, '%s-%s-%s.sif' % (recipe.name, recipe.full_version,
                                                            digest.rpartition(':')[2][:12]))


def _record(target):
    return target + '.json'


def _make(target, fits, make, recipe, places):
    """Make an image, and the record of its origin beside it, which is there only if the image is complete.

    One of several processes that share the directory makes it; what another one has made since is taken.
    """
    with Lock(target + '.lock', recipe.where, **places.lock) as lock:
        _sweep(places.downloads, recipe.where, target)
        known = _fetched(target, fits)
        if known:
            return known
        part = '%s.part-%d' % (target, os.getpid())
        try:
            origin = make(part)
            sha256 = _sync(part)
            lock.check()
            if os.path.exists(_record(target)):
                os.unlink(_record(target))
            os.rename(part, target)
        finally:
            if os.path.lexists(part):
                os.unlink(part)
        files.write(_record(target), json.dumps(dict(origin, sha256=sha256), indent=2, sort_keys=True) + '\n')
    return Obtained(target, own=True, fetched=True, expected=sha256, origin=origin)


def _sweep(directory, where, ours):
    """Remove what killed processes left of images that they were making: of our own, and of what nobody makes now."""
    for target in {match.group(1) for match in map(LEFT.fullmatch, os.listdir(directory)) if match}:
        target = os.path.join(directory, target)
        lock = Lock(target + '.lock', where)
        if target == ours:
            _clear(target)
        elif lock.is_free():
            with suppress(EasySIFError), lock:  # another one may be faster
                _clear(target)


def _clear(target):
    files.sweep(_record(target))
    for part in glob.glob(glob.escape(target) + '.part-*'):
        with suppress(OSError):
            os.unlink(part)


def _sync(path):
    """Bring a file to the disk, and return its sha256 (str)."""
    with open(path, 'rb') as handle:
        os.fsync(handle.fileno())
    return sha256_of(path)


def _fetched(target, fits):
    """Return an image that was fetched and not installed yet, if it is there, whole and fits (Obtained or None)."""
    try:
        with open(_record(target), encoding='utf-8') as handle:
            origin = json.load(handle)
        sha256 = origin.pop('sha256', None)
        if not fits(origin) or sha256_of(target) != sha256:
            return None
    except (OSError, ValueError):
        return None
    return Obtained(target, own=True, fetched=True, expected=sha256, origin=origin)


def _newest_fetched(recipe, places, fits):
    """Return of all images that were fetched for a recipe the newest that fits (Obtained or None)."""
    beginning = glob.escape(_target(recipe, places, '')[:-len('.sif')])
    targets = sorted(glob.glob(beginning + '[0-9a-f]' * 12 + '.sif'), key=os.path.getmtime, reverse=True)
    return next(filter(None, (_fetched(target, fits) for target in targets)), None)


def _previous(places, fits):
    """Return the image of the installation that stands there, if it is there, whole and fits (Obtained or None)."""
    if not places.previous:
        return None
    root, manifest = places.previous
    image = manifest['image']
    path = os.path.join(root, image['file'])
    try:
        if not fits(image) or sha256_of(path) != image['sha256']:
            return None
    except OSError:
        return None
    origin = {key: image[key] for key in ('reference', 'digest', 'manifest_digest', 'source') if key in image}
    return Obtained(path, own=True, expected=image['sha256'], origin=origin)
