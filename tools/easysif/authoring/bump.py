# SPDX-License-Identifier: GPL-2.0-only
"""The next version of a recipe: the same text with another version, and the digest that its image has now."""

import ast
import os
import re
import shlex
import tempfile
from contextlib import suppress
from dataclasses import replace

from easysif import files, pin, recipe, templates
from easysif.authoring.compose import Proposal, check_free, image_of, naming, path_of, place_for, write
from easysif.errors import EasySIFError
from easysif.images import registry
from easysif.images.reference import DEFINITION, DOCKER, ORAS, parse


def bump(path, version, site, image=None, offline=False, searched=(), force=False, dry_run=False):
    """Write the recipe of another version beside one (Proposal); with a digest, unless its image has none that lasts.

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
    if version == old.version:
        raise EasySIFError(path, 'has this version already', facts=[('version', version)],
                           hint='easysif pin %s, if its image was pushed again' % shlex.quote(path))
    if image and not old.image:
        raise EasySIFError(path, 'has no image, so it cannot get another one', hint='leave out --image')
    with open(path, 'rb') as handle:
        data = _with(handle.read(), version, image)
    new, target, values = _read(data, path)
    check_free(target, force or dry_run)
    kind = parse(new.image, new.where).kind if new.image else None
    if new.image == old.image and kind not in (DEFINITION, None):
        raise EasySIFError(path, 'image does not follow the version', facts=[('image', old.image)],
                           hint='name the new one: easysif bump %s %s --image REFERENCE' % (shlex.quote(path), version))
    named = parse(new.image, new.where).digest if image else None
    digest = named or (None if offline or kind in (DEFINITION, None) else _digest(path, new, site, searched))
    text = (pin.pinned(data, digest) if digest else _unpinned(data)).decode()
    source, copy, notes = _definition(old, new, path, target) if kind == DEFINITION else (None, None, [])
    proposal = Proposal(target, text, digest, [
        *_still_old(text, old), *notes, *_sums(recipe.read(path)[0], values, digest)])
    if not dry_run:
        _write(proposal, force, source, copy)
    return proposal


def _with(data, version, image):
    """Return a recipe (bytes) with another version, another image where one is given, and all else letter by letter.

    ``checksums`` of the image's file go, which are those of another one, but those of a definition file that stays, and
    a mapping from names of files.
    """
    nodes, span = _parsed(data)
    begin, end = span(nodes['version'].value)
    quote = data[begin:begin + 1].decode() if data[begin:begin + 1] in (b'"', b"'") else "'"
    is_plain = re.fullmatch('[A-Za-z0-9._+-]+', version)
    changes = [(begin, end, (quote + version + quote if is_plain else repr(version)).encode())]
    if image:
        changes.append((*span(nodes['image'].value), repr(image_of(version, image)).encode()))
    if 'image' in nodes and (image or not ast.literal_eval(nodes['image'].value).endswith('.def')) \
            and _are_of_old_image(nodes):
        changes += _lines(nodes, span, data, 'checksums')
    return _changed(data, changes)


def _are_of_old_image(nodes):
    """Tell whether checksums are those of the image of the old version alone (bool): not of sources, not by name."""
    entries = {key: getattr(node.value, 'elts', [node]) for key, node in nodes.items()}
    is_mapping = any(isinstance(one, ast.Dict) for one in entries.get('checksums', ())[:1])
    return not (entries.get('sources') or entries.get('patches') or is_mapping)


def _sums(old, new, digest):
    """Return what there is to say of the checksums of a recipe and of its next version (list of str).

    :param old: what the recipe says (dict)
    :param new: what the next version says (dict)
    :param digest: that of the new image (str), None where it is not known
    """
    before, after = (recipe.checksums_of_image(values) for values in (old, new))
    if before and not after and not digest:
        return ['checksums were those of the image of %s, and are left out' % old['version']]
    first = templates.resolved(after[0], new, later=True) if after and isinstance(after, (list, tuple)) else None
    name = parse(templates.resolve(new['image'], new), 'image').file if first else ''
    return ['checksums has none of %s: write it' % name] if isinstance(first, dict) and name not in first else []


def _unpinned(data):
    """Return a recipe (bytes) without digests."""
    nodes, span = _parsed(data)
    changes = _lines(nodes, span, data, 'digest')
    if 'image' in nodes:
        begin, end = span(nodes['image'].value)
        changes.append((begin, end, re.sub(rb'@sha256:[0-9a-f]{64}', b'', data[begin:end])))
    return _changed(data, changes)


def _parsed(data):
    """Return the assignments of a recipe by name (dict of ast.Assign), and what places a node in it (function)."""
    starts = [0]
    for line in re.findall(b'[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+', data):
        starts.append(starts[-1] + len(line))

    def span(node):
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    return {node.targets[0].id: node for node in ast.parse(data).body if isinstance(node, ast.Assign)}, span


def _lines(nodes, span, data, key):
    """Return what takes the lines of a key away (list of one change), nothing where it is not there (empty list)."""
    if key not in nodes:
        return []
    begin, end = span(nodes[key])
    return [(begin, re.compile(b'[^\r\n]*(\r\n|\r|\n|$)').match(data, end).end(), b'')]


def _changed(data, changes):
    for begin, end, text in sorted(changes, reverse=True):
        data = data[:begin] + text + data[end:]
    return data


def _read(data, path):
    """Return the new recipe (Recipe), where it belongs (str), and what it says (dict)."""
    with tempfile.TemporaryDirectory() as directory:
        draft = os.path.join(directory, os.path.basename(path))
        with open(draft, 'wb') as handle:
            handle.write(data)
        values, lines = recipe.read(draft)
    new = recipe.validate(values, os.path.basename(path), lines, path)
    return new, path_of(values, os.path.dirname(path) or '.'), values


def _digest(path, new, site, searched):
    try:
        return pin.look(path, site, searched, replace(new, digest=None)).now
    except EasySIFError as err:
        reference = parse(new.image, new.where)
        if reference.kind not in (DOCKER, ORAS):
            raise
        raise _with_tags(err, reference, new, path, site) from err


def _with_tags(err, reference, new, path, site):
    """Return an error with the tags of the new version that the registry has, where it has some and tells them."""
    try:
        known = registry.tags(reference, site.registry_mirrors, new.where, site.ca_certificates)
    except EasySIFError:
        return err
    is_of = re.compile(r'(^|[-_])v?%s(?![0-9]|\.[0-9])' % re.escape(new.version))
    near = sorted(filter(is_of.search, known), key=_build)
    hint = 'take the last: easysif bump %s %s --image %s://%s' % (
        shlex.quote(path), new.version, reference.kind, replace(reference, tag=near[-1], digest='').name()) if near \
        else 'choose another version, or name the image with --image'
    return EasySIFError(err.where, err.what, hint=hint, exit_code=err.exit_code, facts=[
        *err.facts, ('tags', ', '.join(near[-20:] or known[-20:]) or 'none')])


def _build(tag):
    """Return by what tags of one version are sorted: the number of the build, as in ``1.22--h96c455f_1``."""
    number = re.search('([0-9]+)$', tag)
    return int(number.group(1)) if number else -1, tag


def _definition(old, new, path, new_path):
    """Return the definition file to copy and where to (str, None for none), and what there is to say (list of str)."""
    if new.image == old.image:
        return None, None, []
    source, target = (os.path.join(os.path.dirname(one), image) for one, image in (
        (path, old.image), (new_path, new.image)))
    if os.path.lexists(target):
        return None, None, []
    if not os.path.isfile(source) or os.path.isabs(new.image):
        return None, None, ['%s is not there yet: write it' % target]
    return source, target, ['%s is a copy of %s: see what has to change in it' % (target, old.image)]


def _still_old(text, old):
    pattern = naming(old.version)
    return ['line %d still names %s: %s' % (number, old.version, line.strip())
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line) and not re.match(r'(version|digest)\s*=', line)]


def _write(proposal, force, source, copy):
    """Write a recipe after the definition file that it names, and neither where one of them cannot be written."""
    if not copy:
        write(proposal, force)
        return
    try:
        with open(source, encoding='utf-8', newline='') as handle:
            text = handle.read()
    except ValueError as err:
        raise EasySIFError(source, 'is no text in UTF-8',
                           hint='see what it is: file %s' % shlex.quote(source)) from err
    with place_for(copy):
        files.write(os.path.abspath(copy), text)
        try:
            write(proposal, force)
        except BaseException:
            with suppress(OSError):
                os.unlink(copy)
            raise
