# SPDX-License-Identifier: GPL-2.0-only
"""What the catalogue tells of each recipe: the recipe, which sites have what it needs, what is known of its image."""

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

from easysif import check, installed, manifest, needs, recipe
from easysif.errors import EasySIFError, SeveralErrors
from easysif.images import reference

LARGEST = 1 << 16  #: bytes of a definition file that is shown


@dataclass(frozen=True)
class Fit:
    """What a site has of the needs of a recipe.

    :param lacks: what the recipe cannot do without (tuple of str)
    :param without: what it can do without (tuple of str)
    :param conflicts: needs that do not go together there (tuple of pairs of str)
    """

    lacks: tuple
    without: tuple
    conflicts: tuple

    @property
    def verdict(self):
        """Whether the recipe can be installed there: ``yes``, ``partly`` or ``no`` (str)."""
        return 'no' if self.lacks or self.conflicts else 'partly' if self.without else 'yes'


@dataclass(frozen=True)
class Entry:
    """A recipe, and what is known beside it.

    :param recipe: the recipe (Recipe)
    :param text: the file (str)
    :param image: what ``image`` of it means (Reference), None where it has none
    :param definition: its definition file (str), None where it has none beside it
    :param not_pinned: why its image has no digest (str), '' where that is not said, None where it has one or needs none
    :param fits: site -> Fit (dict)
    :param record: ``image`` of the manifest of an installed module of this very recipe (dict), None without one
    """

    recipe: recipe.Recipe
    text: str
    image: Optional[reference.Reference]
    definition: Optional[str]
    not_pinned: Optional[str]
    fits: dict
    record: Optional[dict]

    @property
    def module(self):
        """The name of the module (str)."""
        return '%s/%s' % (self.recipe.name, self.recipe.full_version)

    @property
    def page(self):
        """The page of the catalogue, without its suffix (str)."""
        return 'software/%s/%s-%s' % (self.recipe.name, self.recipe.name, self.recipe.full_version)


def gather(paths, sites, prefix):
    """Return what is told of recipes (list of Entry).

    :param paths: the recipes (list of str)
    :param sites: name -> Site (dict)
    :param prefix: EasyBuild's install path, where sizes come from (str); it need not be there
    :raises EasySIFError: recipes cannot be read, or two are of the same module; all problems at once
    """
    records, reasons = _records(prefix), check.notes(paths)[0]
    found, errors = {}, []
    for path in paths:
        try:
            entry = _entry(path, reasons.get(path), sites, records)
        except EasySIFError as err:
            errors += getattr(err, 'errors', [err])
            continue
        first = found.setdefault(entry.module, entry)
        if first is not entry:
            errors.append(EasySIFError(
                entry.recipe.where, "is another recipe of the module '%s'" % entry.module,
                facts=[('first', first.recipe.path), ('second', path)],
                hint='name the recipes that belong into the catalogue: easysif catalogue RECIPE… --output DIR'))
    if errors:
        raise SeveralErrors(errors)
    return list(found.values())


def fit(wanted, site):
    """Return what a site has of the needs of a recipe (Fit).

    :param wanted: the recipe (Recipe)
    :param site: the site (Site)
    """
    missing = [need for need in wanted.needs if need not in site.provides]
    return Fit(lacks=tuple(need for need in missing if need not in wanted.optional_needs),
               without=tuple(need for need in missing if need in wanted.optional_needs),
               conflicts=tuple(needs.conflicts(wanted.needs, site.provides)))


def _entry(path, not_pinned, sites, records):
    loaded = recipe.load(path)
    image = reference.parse(loaded.image, loaded.where) if loaded.image else None
    definition = _text(os.path.join(os.path.dirname(path), image.path)) if (
        image and image.kind == reference.DEFINITION) else None
    return Entry(loaded, _text(path, recipe.LARGEST), image, definition, not_pinned,
                 {name: fit(loaded, site) for name, site in sites.items()}, records.get((loaded.where, loaded.image)))


def _text(path, largest=LARGEST):
    """Return the text of a file (str), None where it is not there, no text, or larger than so many bytes."""
    with suppress(OSError, ValueError):
        if os.path.isfile(path) and os.path.getsize(path) <= largest:
            with open(path, encoding='utf-8') as handle:
                return handle.read()
    return None


def _records(prefix):
    """Return the images of installed modules: file name of the recipe and reference -> image of the manifest (dict)."""
    found = {}
    for root in installed.modules(prefix).values():
        with suppress(EasySIFError):  # a damaged module only tells nothing
            record = manifest.read(root)
            if record['image']:
                found[record['recipe'], record['image']['reference']] = record['image']
    return found
