# SPDX-License-Identifier: GPL-2.0-only
"""What recipe and site ask of an image before it is believed: its digest, its checksums, who signed it."""

from dataclasses import replace

from easysif.errors import EasySIFError
from easysif.images import checksums, signature
from easysif.images.place import CHECKSUMS
from easysif.images.reference import FILE, LIBRARY, ORAS, URL


def hold(found, recipe, source):
    """Do nothing where the digest of a file is the one that the recipe names, or it names none.

    :param found: the digest (str)
    :param recipe: the recipe (Recipe)
    :param source: the file or who served it, for messages (str)
    :raises EasySIFError: it is another one
    """
    if recipe.digest not in (None, found):
        raise EasySIFError(recipe.where, 'digest does not match the image',
                           facts=[('recipe', recipe.digest), ('found', '%s  (%s)' % (found, source))],
                           hint="find out why; if it is the right one, write digest = '%s'" % found)


def verify(path, sha256, reference, recipe, places):
    """Hold a file against the recipe's checksums, without reading it again where its sha256 is known and serves.

    :param path: the file (str)
    :param sha256: what it has (str), None where it is not known
    :param reference: what the recipe names (Reference)
    :param recipe: the recipe (Recipe)
    :param places: its ``checksums`` are those of the recipe (Places)
    :raises EasySIFError: it has others, or they are none
    """
    checksums.verify(path, reference.file, places.checksums, recipe.where, sha256)


def checked(obtained, reference, recipe, places):
    """Return a file that is held against the recipe's checksums: when it is put in its place, where that is as good.

    :param obtained: the file (Obtained)

    The other parameters, and what is raised, are those of `verify`.
    """
    if places.checksum and recipe.digest in (None, 'sha256:' + places.checksum):
        return replace(obtained, expected=places.checksum, told_by=CHECKSUMS)
    verify(obtained.path, None, reference, recipe, places)
    return obtained


def signed(obtained, reference, recipe, site, runtime):
    """Return the image with the keys that signed it, where recipe or site want it to be signed (Obtained).

    :param obtained: the image (Obtained)
    :param reference: what the recipe names (Reference)
    :param recipe: the recipe (Recipe)
    :param site: its ``verify`` and ``keyring`` are used (Site)
    :param runtime: the container runtime (Runtime)
    :raises EasySIFError: it is not signed, or by nobody that the site knows
    """
    comes_signed = reference.kind in (FILE, ORAS, URL, LIBRARY)
    if recipe.verify or site.verify == 'all' or site.verify == 'sif' and comes_signed:
        if not comes_signed:
            raise EasySIFError(recipe.where, 'image is made here, so nobody has signed it',
                               facts=[('image', reference.text), ('verify', 'recipe' if recipe.verify else 'site')],
                               hint='name a signed SIF file: oras://, https:// or NAME.sif')
        signers = signature.verify(obtained.path, runtime, site.keyring, recipe.where)
        return replace(obtained, origin=dict(obtained.origin, signed_by=signers))
    return obtained
