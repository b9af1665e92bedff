# SPDX-License-Identifier: GPL-2.0-only
"""What recipes need and sites provide: whether a site's needs fit together, and what of a recipe's needs it has."""

import os

from easysif import schema
from easysif.errors import EasySIFError, SeveralErrors

#: needs that do more than what the site says of them
SWITCHES = frozenset(('nvidia-gpu', 'amd-gpu'))

#: the need that is the setting ``ca_certificates``
CERTIFICATES = 'ca-certificates'


def closure(needs, provides):
    """Return needs with all that these require, each behind the one that asks for it (list of str).

    :param needs: words (sequence of str); those that the site does not provide stay
    :param provides: what the site provides: need -> Need
    """
    found, left = [], list(needs)
    while left:
        need = left.pop(0)
        if need not in found:
            found.append(need)
            left = list(getattr(provides.get(need), 'requires', ())) + left
    return found


def check_site(provides, place_of):
    """Do nothing where the needs of a site fit together.

    :param provides: what it provides: need -> Need
    :param place_of: where keys are written (function of keys -> str)
    :raises EasySIFError: one requires what is not there, itself in a circle, or what conflicts with it; all at once
    """
    errors, circles = [], set()
    for need, what in provides.items():
        for word in [*what.requires, *what.conflicts]:
            if word not in provides:
                key = 'requires' if word in what.requires else 'conflicts'
                errors.append(EasySIFError(
                    place_of(('provides', need, key)), "provides.%s.%s names '%s', which this site does not provide"
                    % (need, key, word), facts=[('provided', ', '.join(sorted(provides)))], hint=_near(word, provides)))
        for word in SWITCHES & set(what.requires):  # which the module itself throws, for what its recipe names
            errors.append(EasySIFError(
                place_of(('provides', need, 'requires')), "provides.%s.requires names '%s', which switches the "
                "runtime's GPU support on" % (need, word),
                hint="let the recipe name it: needs = ['%s', '%s']" % (need, word)))
        circle = _circle(need, provides)
        if circle and frozenset(circle) not in circles:
            circles.add(frozenset(circle))
            errors.append(EasySIFError(
                place_of(('provides', need, 'requires')), 'provides.%s.requires goes in a circle: %s'
                % (need, ' -> '.join(circle)), hint='take one of them out'))
        elif not circle:
            for one, other in conflicts([need], provides):
                errors.append(EasySIFError(
                    place_of(('provides', need, 'conflicts')), 'provides.%s requires %s and %s, which conflict'
                    % (need, one, other), hint='take one of them out of requires or conflicts'))
    if errors:
        raise SeveralErrors(errors)


def conflicts(needs, provides):
    """Return the pairs of needs that do not go together, with all that they require (list of pairs of str)."""
    every = closure(needs, provides)
    return sorted({tuple(sorted((need, other))) for need in every if need in provides
                   for other in provides[need].conflicts if other in every})


def check_recipe(recipe, site):
    """Hold what a recipe needs against what a site provides, and return what it does without (str), None for nothing.

    :param recipe: the recipe (Recipe)
    :param site: the resolved site (Site)
    :raises EasySIFError: it lacks something that the recipe cannot do without, or two needs conflict; all at once
    """
    hint, errors = 'a new feature goes into %s' % short(site.path), []
    there = provided(site)
    missing = [need for need in recipe.needs if need not in there]
    for need in missing:
        if need not in recipe.optional_needs:
            near = _near(need, there)
            way = '%s %s' % (near, hint) if near else hint
            errors.append(EasySIFError(
                recipe.where, "needs '%s', which site '%s' does not provide" % (need, site.name),
                facts=[('provided', ', '.join(there) or 'nothing')],
                hint='ca_certificates in %s names the bundle' % short(site.path) if need == CERTIFICATES else way))
    for one, other in conflicts(recipe.needs, site.provides):
        errors.append(EasySIFError(
            recipe.where, "needs '%s' and '%s', which conflict at site '%s'" % (one, other, site.name),
            hint='take one of them out of the recipe, or conflicts out of %s' % short(site.path)))
    if errors:
        raise SeveralErrors(errors)
    if missing:
        return str(EasySIFError(recipe.where, "does without '%s', which site '%s' does not provide"
                                % ("', '".join(missing), site.name), hint=hint))
    return None


def provided(site):
    """Return what a site provides (list of str): certificates where it has them, and all else that it says."""
    return sorted(need for need in site.provides if need != CERTIFICATES or site.ca_certificates
                  or site.provides[need].binds)


def short(path):
    """Return a path as one would type it here (str)."""
    near = os.path.relpath(path)
    return path if near.startswith('..') else near


def _near(word, known):
    near = schema.closest(word, known)
    return "did you mean '%s'?" % near if near else None


def _circle(need, provides):
    """Return a way from a need back to itself (list of str), None where there is none."""
    ways = [[need]]
    seen = set()
    while ways:
        way = ways.pop(0)
        for word in provides[way[-1]].requires if way[-1] in provides else ():
            if word == need:
                return way + [word]
            if word not in seen:
                seen.add(word)
                ways.append(way + [word])
    return None
