# SPDX-License-Identifier: GPL-2.0-only
"""The pages of the catalogue, as Markdown.

Whatever a template puts into a page is text to be read: each character that Markdown or HTML could take for something
else is written as its number. Only the filters below make anything else of it.
"""

import json
import os
import re
import shlex
from functools import lru_cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as html_escape

from easysif.text import counted, human
from easysif.upgrade import order

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'templates')


def pages(entries, sites):
    """Return all pages but the manual: path -> text (dict).

    :param entries: what is told (list of Entry)
    :param sites: name -> Site (dict)
    """
    software = _software(entries)
    common = {'entries': [entry for versions in software.values() for entry in versions], 'software': software,
              'sites': sites}
    found = {'%s.md' % name: _render('%s.md' % name, **common) for name in ('index', 'find', 'sites', 'life')}
    for name, versions in software.items():
        found['software/%s/index.md' % name] = _render('software.md', name=name, versions=versions, sites=sites)
    for entry in entries:
        found[entry.page + '.md'] = _render('module.md', entry=entry, recipe=entry.recipe, sites=sites,
                                            command=_first_command(entry.recipe))
    return found


def users_of(entries, what):
    """Return who has each command or package: name -> sorted names of software (dict, in the order of names).

    :param entries: what is told (list of Entry)
    :param what: gives the names of an entry (function of Entry)
    """
    found = {}
    for entry in entries:
        for name in what(entry):
            found.setdefault(name, set()).add(entry.recipe.name)
    return {name: sorted(found[name], key=_alphabetical) for name in sorted(found, key=_alphabetical)}


def packages(entry):
    """Return the packages of an entry: name -> version as far as the recipe says (dict of str)."""
    of_the_recipe = {re.match(r'[\w.-]+', asked)[0]: asked for asked in entry.recipe.python_packages}
    return {**{name: '%s %s' % (name, version) if version else name for name, version in
               entry.recipe.provides.items()}, **of_the_recipe}


def found_by(entry):
    """Return the names of commands and packages of an entry, as the search shows them (list of str, as HTML)."""
    return [str(html_escape(name)) for name in dict.fromkeys([*entry.recipe.commands, *packages(entry)])]


def escape(value):
    """Return a text as it stands on one line of Markdown and means nothing but itself (Markup)."""
    if isinstance(value, Markup):
        return value
    return Markup(''.join(char if char.isalnum() or char == ' ' else '&#%d;' % ord(char)
                          for char in re.sub(r'\s+', ' ', str(value))))


def _software(entries):
    """Return the entries of each software, newest first (dict, in the order of names)."""
    found = {}
    for entry in sorted(entries, key=lambda entry: order(entry.recipe.full_version), reverse=True):
        found.setdefault(entry.recipe.name, []).append(entry)
    return {name: found[name] for name in sorted(found, key=_alphabetical)}


def _alphabetical(name):
    return name.lower(), name


def _first_command(recipe):
    """Return what a user would type (str), None where the recipe has no command."""
    known = recipe.commands
    return next((name for name in ('python', 'python3', *known) if name in known), None)


def _render(template, **values):
    return _environment().get_template(template).render(values).rstrip() + '\n'


@lru_cache(maxsize=None)
def _environment():
    """Return the templates, with what they may use (Environment)."""
    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, finalize=escape, trim_blocks=True,
                       lstrip_blocks=True, undefined=StrictUndefined)
    made.filters.update(attribute=_attribute, code=_code, fenced=_fenced, human=human, raw=Markup,
                        json=lambda value: Markup(json.dumps(value)), quote=lambda text: Markup(shlex.quote(text)))
    made.globals.update(counted=counted, users_of=users_of, packages=packages, found_by=found_by,
                        commands_of=lambda entry: entry.recipe.commands)
    return made


def _code(value):
    return Markup('<code>%s</code>') % escape(value)


def _attribute(value):
    """Return a text as an attribute of HTML has it (Markup)."""
    return Markup('"%s"') % escape(value)


def _fenced(text, language):
    """Return a text of several lines as a block of code, whatever it holds (Markup)."""
    fence = '`' * max([3, *(len(run) + 1 for run in re.findall('`+', text))])
    return Markup('%s %s\n%s\n%s' % (fence, language, text.rstrip('\n'), fence))
