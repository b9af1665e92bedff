# SPDX-License-Identifier: GPL-2.0-only
"""Finds recipes and holds them against the rules: all problems of all recipes are reported.

It opens nothing but recipes and site files, so that it is quick enough for every commit.
"""

import io
import os
import re
import shlex
import tokenize
from contextlib import suppress
from dataclasses import dataclass

from easysif import recipe, schema, site
from easysif.data import DIRECTORY
from easysif.errors import EasySIFError
from easysif.rules import RULES, Draft, is_unpinned

#: what a recipe says without a digest, or without a test that does work; the comments are for people, too
_REASON = re.compile(r'#\s*not (pinned|tested):\s*(\S.*)')


@dataclass(frozen=True)
class Finding:
    """A problem, the recipe that has it (path) and the rule that it breaks (name)."""

    path: str
    rule: str
    error: EasySIFError


def check(paths):
    """Return all problems of recipes (list of Finding): of each, then of those that do not go together.

    :param paths: files (list of str)
    """
    provided = {need for path in site.shipped().values() for need in (site.read(path).get('provides') or {})}
    drafts, found = [], []
    for path in paths:
        try:
            draft, errors = _draft(path, provided)
        except EasySIFError as err:
            found.append(Finding(path, 'readable', err))
            continue
        drafts.append(draft)
        found += [Finding(path, 'data_only', err) for err in errors]
        found += [Finding(path, rule.__name__, err) for rule in RULES for err in rule(draft)]
    return found + list(_clashes(drafts))


def notes(paths):
    """Return what recipes of ours say of themselves that is no problem.

    :param paths: files (list of str)
    :returns: of those without a digest, whose image could be another one tomorrow, why; of those without a test that
        does work, why (tuple of dict: path -> str)
    """
    unpinned, untested = {}, {}
    for path in paths:
        with suppress(EasySIFError):
            draft, _ = _draft(path, ())
            if draft.ours and is_unpinned(draft.values):
                unpinned[path] = draft.not_pinned
            if draft.ours and draft.not_tested:
                untested[path] = draft.not_tested
    return unpinned, untested


def find(names=()):
    """Return the paths of the recipes meant, without repeats: files, directories, or names of ours (list of str).

    :param names: none for all of ours
    :raises EasySIFError: something named is not there
    """
    found = {}
    for name in names or [recipe_directory()]:
        paths = _all_in(name) if os.path.isdir(name) else [name] if os.path.isfile(name) else [_by_name(name)]
        if not paths:
            raise EasySIFError(name, 'there is no recipe (.eb) in this directory')
        found.update((os.path.realpath(path), path) for path in paths)
    return list(found.values())


def recipe_directory():
    """Return the directory of our recipes: that of the clone, else that of the wheel (str).

    :raises EasySIFError: there is neither
    """
    above = os.path.dirname(DIRECTORY)
    for place in (os.path.join(os.path.dirname(above), 'easyconfigs'), os.path.join(above, 'easybuild', 'easyconfigs')):
        if os.path.isdir(place):
            return os.path.relpath(place) if place.startswith(os.getcwd() + os.sep) else place
    raise EasySIFError('easyconfigs', 'there are no recipes beside %s' % DIRECTORY, hint='easysif check RECIPE.eb')


def _draft(path, provided):
    """Return a recipe as it was read (Draft), and what kept parts of it from being read (list of EasySIFError)."""
    values, lines, errors = recipe.parse(path)
    with open(path, encoding='utf-8') as handle:
        text = handle.read()
    count = sum(1 for line in text.split('\n') if line.strip())
    reasons = {'not_%s' % found[1]: found[2] for found in map(_REASON.match, _comments(text)) if found}
    return Draft(path, values, lines, set(lines).difference(values), count, provided, **reasons), errors


def _comments(text):
    """Return the comments of a recipe, which Python can read (list of str): not what texts in it have like them."""
    return [found.string for found in tokenize.generate_tokens(io.StringIO(text).readline)
            if found.type == tokenize.COMMENT]


def _clashes(drafts):
    """Yield the tool modules, any number of which may be loaded at once, that have a command of the same name."""
    owners = {}
    for draft in drafts:
        commands = draft.values.get('commands')
        if not draft.ours or draft.values.get('python_env') or not isinstance(commands, (list, tuple, dict)):
            continue
        for name in commands:
            other = owners.setdefault(name, draft) if isinstance(name, str) else draft
            if other.text('name') != draft.text('name'):
                yield Finding(draft.path, 'commands_are_unique', draft.error(
                    'commands', "commands has '%s', which is also that of %s" % (name, other.where),
                    hint="give one of them a name of its own: commands = {'%s-%s': '%s'}"
                    % (draft.text('name').lower(), name, name)))


def _all_in(directory):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(directory)
                  for name in names if name.endswith('.eb'))


def _by_name(name):
    known = {os.path.basename(path): path for path in _all_in(recipe_directory())}
    wanted = name if name.endswith('.eb') else '%s.eb' % name
    if wanted not in known:
        near = next((one for one in sorted(known) if one.startswith(name)), schema.closest(wanted, known))
        raise EasySIFError(name, 'there is no such recipe', hint="did you mean '%s'?" % near if near
                           else 'ls -R %s' % shlex.quote(recipe_directory()))
    return known[wanted]
