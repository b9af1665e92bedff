# SPDX-License-Identifier: GPL-2.0-only
"""Finds what a user means by one word, a module or a recipe, and tells what a recipe would install."""

import os
import shlex

from easysif import installed, inventory, recipe, schema, search, site
from easysif.errors import EasySIFError, SeveralErrors

MOST = 5  #: names that a message lists


def module_or_recipe(name, prefix):
    """Return what is meant: module (str) and its installation directory (str), None, or None, None and a recipe (str).

    A file is a recipe; else an installed module comes first.

    :param prefix: EasyBuild's install path (str)
    :raises EasySIFError: it is neither, or a module of which several versions are installed
    """
    known = installed.modules(prefix)
    if name.endswith('.eb'):
        path = search.find(name)
    elif installed.meant(name, known):
        return (*installed.find(prefix, name), None)
    else:
        path = search.find(name)
    if path:
        return None, None, path
    raise _neither(name, known, prefix)


def _neither(name, known, prefix):
    recipes = search.names()
    stem = os.path.basename(name)[:-len('.eb')] if name.endswith('.eb') else name.replace('/', '-')
    near, word = _beginning_like(stem, recipes), stem + '.eb'
    first = next((one for one in near if one.lower().startswith(stem.lower())), None)
    meant = (schema.closest(name, [*known, *(os.path.dirname(module) for module in known)])
             or first or schema.closest(word, near) or next(iter(near), None) or schema.closest(word, recipes))
    return EasySIFError(
        name, 'is neither an installed module nor a recipe',
        facts=[('prefix', prefix), ('installed', _few(list(known)) or 'nothing'),
               ('recipes', _few(near) or 'none of that name')],
        hint='easysif show %s' % meant if meant else 'easysif list; eb --search %s' % shlex.quote(name))


def _beginning_like(word, recipes):
    """Return the recipes that begin with a word, or with as much of it as any does, up to a dash (list of str)."""
    begin = word.lower()
    while begin:
        found = [one for one in recipes if one.lower().startswith(begin)]
        if found:
            return found
        begin = begin.rstrip('-').rpartition('-')[0]
        begin = begin and begin + '-'
    return []


def _few(names):
    return ', '.join(names[:MOST] + (['and %d more' % (len(names) - MOST)] if len(names) > MOST else []))


def describe_recipe(path, prefix):
    """Return what a recipe would install (dict): its parameters, and what this site and this prefix have of it.

    :param path: the recipe (str)
    :param prefix: EasyBuild's install path (str)
    :raises EasySIFError: it is not for EasySIF, something in it is wrong, or the site's settings are
    """
    where = os.path.basename(path)
    values, _, errors = recipe.parse(path)
    easyblock = values.get('easyblock')
    if easyblock not in schema.easyblocks():
        raise EasySIFError(where, 'is no recipe for a container image',
                           facts=[('file', path), ('easyblock', easyblock or 'none')],
                           hint='eb --show-ec %s' % shlex.quote(path))
    if errors:
        raise SeveralErrors(errors)
    what, here = recipe.load(path), site.resolve().site
    module = '%s/%s' % (what.name, what.full_version)
    return {
        'recipe': os.path.abspath(path), 'module': module, 'description': what.description, 'homepage': what.homepage,
        'image': what.image, 'digest': what.digest, 'environment': what.is_environment, 'site': here.name,
        'needs': {need: need in here.provides for need in what.needs}, 'python_env': what.python_env,
        'python_packages': list(what.python_packages),
        'conda_env': what.conda_env, 'commands': {name: list(words) for name, words in what.commands.items()},
        'binds': list(what.binds), 'container_env': what.container_env, 'tests': list(what.sanity_check_commands),
        'installed': _installed(module, what, prefix),
        'install': 'eb %s' % shlex.quote(where if _same(search.find(where), path) else path)}


def _same(one, other):
    return one is not None and os.path.samefile(one, other)


def _installed(module, what, prefix):
    root = installed.modules(prefix).get(module)
    if not root:
        return None
    found = inventory.look_at(module, root)
    image = (found.record or {}).get('image') or {}
    # a recipe without digest takes what it finds, so that nothing can be said of it
    known = what.digest and image
    return {'installation': root, 'problem': found.problem and found.problem.what, 'digest': image.get('digest'),
            'same_image': image.get('digest') == what.digest if known else None}
