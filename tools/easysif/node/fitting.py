# SPDX-License-Identifier: GPL-2.0-only
"""Whether the host's libraries that the needs of a recipe bring work in its image: told at install, not by a job."""

import os

from easysif import host_libraries, needs
from easysif.errors import EasySIFError
from easysif.node import inside, mpi


def check(image, site, recipe, runtime):
    """Return what the user has to know of how they go with an image (str), None where they do.

    What only some programs need is a note; MPI is what all of them are for, unless the recipe can do without.

    :param image: the SIF file (str)
    :param site: the resolved site (Site)
    :param recipe: the recipe (Recipe)
    :param runtime: the container runtime (Runtime)
    :raises EasySIFError: the image cannot load the host's MPI, or its programs do not find it
    """
    resolved = host_libraries.resolved(site)
    libraries = inside.brought(resolved, needs.closure(recipe.needs, site.provides))[2]
    if not libraries or not recipe.needs:
        return None
    try:
        seen = inside.look(image, resolved, recipe.needs, runtime)
    except EasySIFError as err:
        return str(EasySIFError(recipe.where, 'libraries of the host could not be tried in the image: %s' % err.what,
                                hint=err.hint))
    wrong = [(library, what) for library, kind, what in seen.wrong() if kind != 'symbol']
    broken = [one for one in wrong if mpi.NAME.match(os.path.basename(one[0]))]
    if broken:
        raise EasySIFError(recipe.where, "the image cannot load the MPI of site '%s'" % site.name, facts=broken,
                           hint='%s, or take the need out of the recipe' % inside.remedy(broken[0][1]))
    own, brought = seen.own_mpi(), mpi.names(libraries)
    if not mpi.fits(own, brought):
        problem = EasySIFError(
            recipe.where, "the MPI of the image is not that of site '%s', so that each rank would be alone" % site.name,
            facts=[('image', mpi.described(own)), ('site', mpi.described(brought))],
            hint='%s; with a ? behind the need the image runs with its own' % mpi.remedy(own, brought))
        if not _can_do_without(recipe, resolved):
            raise problem
        return str(problem)
    if wrong:
        return str(EasySIFError(recipe.where, "libraries of site '%s' cannot be loaded in the image" % site.name,
                                facts=wrong[:5], hint=inside.remedy(wrong[0][1])))
    return None


def _can_do_without(recipe, site):
    """Return whether all needs that bring the MPI are optional (bool)."""
    bringing = [need for need in recipe.needs
                if mpi.names(inside.brought(site, needs.closure([need], site.provides))[2])]
    return all(need in recipe.optional_needs for need in bringing)
