# SPDX-License-Identifier: GPL-2.0-only
"""The next version of a recipe: the same text with another version, and the digest that the image has now."""

import ast
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace

from easysif import pin, recipe
from easysif.authoring.compose import path_of, write
from easysif.errors import EasySIFError
from easysif.images import registry
from easysif.images.reference import DEFINITION, DOCKER, ORAS, parse

_NOT_PINNED = re.compile(rb'[ \t]*# not pinned:[^\r\n]*')


@dataclass(frozen=True)
class Bumped:
    """What was made: the recipe (path), its text, the digest that was written into it (str or None), and the lines that
    still name the old version (list of int)."""

    path: str
    text: str
    digest: str
    old_version_in: list


def bump(path, version, site, image=None, offline=False, searched=(), force=False, dry_run=False):
    """Write the recipe of another version beside one (Bumped); with a digest, unless its image has none that lasts.

    :param path: the recipe (str)
    :param version: the new version (str)
    :param site: the resolved site (Site)
    :param image: what `image` is to be (str), None where it follows from the version
    :param offline: write no digest and ask nobody (bool)
    :param searched: directories where image files may be, besides the image store and that of the recipe (list of str)
    :param force: whether another recipe may be written over (bool)
    :param dry_run: write nothing (bool)
    :raises EasySIFError: the recipe is not valid, the version is no other, or its image is not to be had
    """
    old = recipe.load(path)
    with open(path, 'rb') as handle:
        data = handle.read()
    if version == old.version:
        raise EasySIFError(path, 'has this version already', facts=[('version', version)],
                           hint='easysif pin %s, if the image was pushed again' % path)
    text = _changed(data, version, image)
    with tempfile.TemporaryDirectory() as directory:
        values, draft = _draft(text, directory, path)
        target = path_of(values, os.path.dirname(path) or '.')
        new = recipe.load(draft)
        if new.image == old.image and not new.image.endswith('.def'):
            raise EasySIFError(path, 'image does not follow the version', facts=[('image', old.image)],
                               hint='name the new one: easysif bump %s %s --image REFERENCE' % (path, version))
        digest = None if offline else _digest(draft, new, site, [os.path.dirname(os.path.abspath(path)), *searched])
        if digest:
            text = pin.pinned(_NOT_PINNED.sub(b'', text), digest)
    beside = _definition(old, new, path)
    write(target, text.decode(), force, without=('pinned',), dry_run=dry_run)
    if beside and not dry_run:
        shutil.copyfile(*beside)
    lines = text.decode().splitlines()
    left = [number for number, line in enumerate(lines, 1) if re.search(
        r'(?<![\w.])%s(?![\w.])' % re.escape(old.version), line)]
    return Bumped(target, text.decode(), digest, left)


def _changed(data, version, image):
    """Return a recipe (bytes) with another version, another image where one is given, and without digests."""
    nodes = {node.targets[0].id: node for node in ast.parse(data).body if isinstance(node, ast.Assign)}
    lines = data.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def span(node):
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    changes = [(*span(nodes['version'].value), repr(version).encode())]
    begin, end = span(nodes['image'].value)
    text = image or re.sub('@sha256:[0-9a-f]{64}', '', ast.literal_eval(nodes['image'].value))
    changes.append((begin, end, repr(text).encode()))
    for key in {'digest', 'checksums'}.intersection(nodes):
        changes.append((starts[nodes[key].lineno - 1], starts[nodes[key].end_lineno], b''))
    for begin, end, text in sorted(changes, reverse=True):
        data = data[:begin] + text + data[end:]
    return data


def _draft(text, directory, path):
    """Write a draft and return its values (dict) and its path (str), which is named as the recipe will be."""
    draft = os.path.join(directory, os.path.basename(path))
    with open(draft, 'wb') as handle:
        handle.write(text)
    values, _ = recipe.read(draft)
    named = path_of(values, directory)
    os.rename(draft, named)
    return values, named


def _digest(draft, new, site, searched):
    try:
        return pin.look(draft, site, searched).now
    except EasySIFError as err:
        reference = parse(new.image, new.where)
        if reference.kind not in (DOCKER, ORAS):
            raise
        raise _with_tags(err, reference, new, site) from err


def _with_tags(err, reference, new, site):
    """Return an error with the tags of the new version that the registry has, where it has some and tells them."""
    try:
        known = registry.tags(reference, site.registry_mirrors, new.where, site.ca_certificates)
    except EasySIFError:
        return err
    near = [tag for tag in known if tag.startswith(new.version)]
    if not near:
        return EasySIFError(err.where, err.what, facts=[*err.facts, ('tags', ', '.join(known[-20:]) or 'none')],
                            hint=err.hint, exit_code=err.exit_code)
    image = '%s://%s' % (reference.kind, replace(reference, tag=near[-1]).name())
    return EasySIFError(err.where, err.what, facts=[*err.facts, ('tags', ', '.join(near[-20:]))],
                        hint='take one of these: --image %s' % image, exit_code=err.exit_code)


def _definition(old, new, path):
    """Return the definition file to copy, from and to (pair of str), None where the old one serves both versions."""
    if parse(new.image, new.where).kind != DEFINITION or new.image == old.image or '/' in new.image:
        return None
    source, target = (os.path.join(os.path.dirname(path), one.image) for one in (old, new))
    return (source, target) if os.path.isfile(source) and not os.path.lexists(target) else None
