# SPDX-License-Identifier: GPL-2.0-only
"""An image that a module runs from the image store, without a copy of its own: ``image_mode = 'link'``."""

import os
import shlex

from easysif.errors import EasySIFError
from easysif.images.kept import Obtained
from easysif.images.place import DIGEST, STORE
from easysif.images.reference import DEFINITION, FILE
from easysif.store.contents import BY_HAND, Store


def linked(reference, recipe, site, made_of=None):
    """Return the file of the image store that a module is to run (Obtained); its bytes are read when it is installed.

    A recipe that names a file gets the one of that name; any other one what was added to the store under the same
    reference, with the recipe's digest where it has one. No registry is asked.

    :param reference: what the recipe names (Reference)
    :param recipe: the recipe (Recipe)
    :param site: the resolved site (Site)
    :param made_of: sha256 of the definition file, or digest of the archive, that it must have been made of (str), None
                    where that is all the same
    :raises EasySIFError: the store does not have it, or there is no store
    """
    if not site.image_store:
        raise EasySIFError(recipe.where, "image_mode is 'link', and site '%s' has no image store" % site.name,
                           hint='set image_store in the site file, or image_mode to copy')
    store = Store(site.image_store)
    entry = _named(reference, store) if reference.kind == FILE else _added(reference, recipe, store, made_of)
    if not entry:
        raise EasySIFError(recipe.where, "the image store does not have the image, and image_mode is 'link'",
                           facts=[('image', reference.text), ('store', store.directory)],
                           hint='easysif store add %s' % shlex.quote(recipe.path or recipe.where))
    store.check_closed(recipe.where, entry.path)
    origin = {key: value for key, value in entry.record.items() if key in ('digest', 'manifest_digest', 'source')
              and entry.state != BY_HAND}
    expected, told_by = (entry.sha256, STORE)
    if reference.kind == FILE and recipe.digest:
        expected, told_by = recipe.digest, DIGEST
    return Obtained(entry.path, expected=expected, told_by=told_by, link=True,
                    origin=dict(origin if reference.kind != FILE else {}, reference=reference.text))


def _named(reference, store):
    path = reference.path if os.path.isabs(reference.path) else store.path(reference.path)
    return store.entry(os.path.basename(path)) if os.path.dirname(path) == store.directory else None


def _added(reference, recipe, store, made_of):
    if reference.kind == DEFINITION:
        wanted = {'recipe': recipe.where, 'definition_sha256': made_of, 'build_args': recipe.build_args}
    else:
        digest = recipe.digest or made_of
        wanted = {'digest': digest} if digest else {'reference': reference.text}
    return store.find(lambda record: wanted.items() <= {'build_args': {}, **record}.items())
