# SPDX-License-Identifier: GPL-2.0-only
"""Digests for recipes: what an image is now, and the recipe with that written in, otherwise as it was."""

import ast
import atexit
import os
import re
import shlex
import stat
import tempfile
from dataclasses import dataclass, replace
from typing import Optional

from easysif import files, installed, recipe, runtime
from easysif.errors import EasySIFError
from easysif.images import build, registry, web
from easysif.images.place import sha256_of
from easysif.images.reference import DEFINITION, DOCKER, LIBRARY, ORAS, URL, parse
from easysif.images.sources import check_allowed


#: a comment that says why a recipe has no digest: a line of its own, or the end of one
_WHY_NOT = re.compile(rb'^[ \t]*# not pinned:[^\r\n]*(\r\n|\r|\n)|[ \t]*# not pinned:[^\r\n]*', re.MULTILINE)


@dataclass(frozen=True)
class Pin:
    """A recipe (path), the digest that it has and the one that its image has now; None where it has none, or where an
    image has none that lasts, and why (str)."""

    path: str
    before: Optional[str]
    now: Optional[str]
    why: str = ''


def look(path, site, searched=(), known=None):
    """Return what the digest of a recipe is and should be (Pin).

    :param path: the recipe (str)
    :param site: the resolved site (Site)
    :param searched: directories where image files may be, besides the image store and that of the recipe (list of str)
    :param known: the recipe that is going to lie there (Recipe), None for the one that does
    :raises EasySIFError: the recipe is not valid, or its image is not to be had
    """
    known = known or recipe.load(path)
    if not known.image:
        return Pin(path, None, None, 'has no image')
    reference = parse(known.image, known.where)
    check_allowed(reference, site, known.where)
    before = known.digest or reference.digest or None
    if reference.kind in (DOCKER, ORAS):
        if reference.digest and not reference.tag:
            return Pin(path, before, before)
        asked = replace(reference, digest='')
        return Pin(path, before, registry.resolve(asked, site.registry_mirrors, known.where,
                                                  ca_certificates=site.ca_certificates).digest)
    if reference.kind == DEFINITION:
        return Pin(path, before, None, 'a definition file has no digest; its sha256 belongs into checksums')
    if reference.kind not in (URL, LIBRARY):
        return Pin(path, before, 'sha256:' + sha256_of(_find(reference, known, path, site, searched)))
    places = [site.tmp_dir or '', site.cache_dir or '', *installed.source_paths(installed.easybuild_prefix())]
    with tempfile.TemporaryDirectory(dir=next(filter(os.path.isdir, places), None)) as directory:
        target = os.path.join(directory, 'image.sif')
        if reference.kind == URL:
            now = web.fetch(reference, web.look(reference, site, known.where), target, site, known.where)
        else:
            build.from_library(reference, target, runtime.find(site, known.where), site, directory,
                               os.path.join(directory, 'log'), known.where)
            now = 'sha256:' + sha256_of(target)
    return Pin(path, before, now)


def write(pin):
    """Write the digest of an image into its recipe, which otherwise stays as it is, letter by letter.

    :param pin: what `look` returned (Pin)
    :raises EasySIFError: the recipe cannot be written
    """
    path = os.path.realpath(pin.path)
    with open(path, 'rb') as handle:
        old = handle.read()
    new = pinned(old, pin.now)
    if new != old:
        files.write(path, new.decode('utf-8'), stat.S_IMODE(os.stat(path).st_mode))


def inject(path, site, searched, tell):
    """Write the digest of an image into its recipe when this process ends, for ``eb --inject-checksums``.

    EasyBuild has read the recipe by now, and writes it back at the end.

    :param path: the recipe (str)
    :param site: the resolved site (Site)
    :param searched: directories where image files may be (list of str)
    :param tell: takes a line for people (callable: str)
    :raises EasySIFError: as `look` does; it has no digest, or has checksums, which EasyBuild would take out of it
    """
    found, (values, _) = look(path, site, searched), recipe.read(path)
    if found.now is None or recipe.checksums_of_image(values):
        raise EasySIFError(os.path.basename(path),
                           'eb --inject-checksums writes no checksums of definition files and images',
                           hint="sha256sum NAME.def, and write checksums = ['…']" if found.now is None
                           else 'easysif pin %s' % shlex.quote(path))
    tell('%s: digest = %s' % (os.path.basename(path), found.now))
    atexit.register(write, found)


def pinned(data, digest):
    """Return a recipe with another digest (bytes): in the place of the one it has, else below ``image``.

    A comment that says why it has none goes.

    :param data: the recipe (bytes), which is valid
    :param digest: ``sha256:…`` (str)
    """
    data = _WHY_NOT.sub(b'', data)
    values = {node.targets[0].id: node for node in ast.parse(data).body if isinstance(node, ast.Assign)}
    lines = re.findall(b'[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+', data)
    is_there = False
    for node in (values[key] for key in ('image', 'digest') if key in values):
        for number in range(node.lineno - 1, node.end_lineno):
            lines[number], found = re.subn(b'sha256:[0-9a-f]{64}', digest.encode(), lines[number])
            is_there = is_there or bool(found)
    if not is_there:
        end = values['image'].end_lineno
        ending = re.search(b'[\r\n]*$', lines[end - 1])[0] or b'\n'
        lines[end - 1] = lines[end - 1].rstrip(b'\r\n') + ending
        if 'digest' in values:  # an empty one
            end = values['digest'].end_lineno
            lines[values['digest'].lineno - 1:end] = []
            end = values['digest'].lineno - 1
        lines.insert(end, b"digest = '%s'" % digest.encode() + ending)
    return b''.join(lines)


def _find(reference, known, path, site, searched):
    places = [*filter(None, [site.image_store]), os.path.dirname(os.path.abspath(path)), *searched]
    found = next((os.path.join(place, reference.path) for place in places
                  if os.path.isfile(os.path.join(place, reference.path))), None)
    if not found:
        raise EasySIFError(known.where, 'image file not found: %s' % reference.path,
                           facts=[('searched', ', '.join(places))], hint='name its directory with --sourcepath DIR')
    return found
