# SPDX-License-Identifier: GPL-2.0-only
"""The text of a recipe from its values, in the order and form of DESIGN section 4, and its place in a tree of recipes.

The one place that writes recipes; whatever it writes is read back and held against what was meant.
"""

import os
import re
import shlex
import tempfile
import textwrap

from easysif import check, files, recipe, rules
from easysif.errors import EasySIFError, SeveralErrors

WIDTH = 120  # columns

#: keys that stand together, each group a paragraph
GROUPS = (('easyblock',), ('name', 'version', 'versionsuffix'), ('homepage', 'description'), ('toolchain',),
          tuple(recipe.OURS), ('sanity_check_commands',), ('moduleclass',))


#: a rule that looks beside the recipe, where a draft does not lie
_IN_PLACE = ('definition_is_there',)


def compose(values, notes=()):
    """Return a recipe (str).

    :param values: parameters (dict); `literal` is for texts that are to arrive as they are
    :param notes: key -> words of a comment behind its line (dict)
    """
    for width in (WIDTH, None):
        paragraphs = []
        for group in GROUPS:
            lines = [_line(key, values[key], dict(notes).get(key), width) for key in group if values.get(key)]
            paragraphs += ['\n'.join(lines)] if lines else []
        text = '\n\n'.join(paragraphs) + '\n'
        if sum(1 for line in text.splitlines() if line) <= rules.MAX_LINES:
            break  # else lists stand on one line each, however long
    return text


def literal(text):
    """Return a text such that EasyBuild puts nothing in where it looks like one of its templates (str)."""
    return re.sub(r'%+(?=\(\w+\)s)', lambda signs: signs.group() * 2, text)


def path_of(values, directory):
    """Return where a recipe belongs (str): by letter and name in a tree of recipes, else in the directory itself.

    :param values: its parameters (dict)
    :param directory: the tree ``easyconfigs``, a directory in one, or any other (str)
    """
    name = '%s-%s%s.eb' % (values['name'], values['version'], values.get('versionsuffix', ''))
    tree = rules.tree_of(os.path.join(directory, name))
    if not tree:
        return os.path.join(directory, name)
    place = os.path.join(tree, rules.letter(values['name']), values['name'])
    return os.path.join(place if os.path.isabs(directory) else os.path.relpath(place), name)


def write(path, text, force=False, without=(), dry_run=False):
    """Write a recipe that was composed, if it keeps the rules.

    :param path: the file (str), whose directory is made
    :param text: the recipe (str)
    :param force: whether another may be written over (bool)
    :param without: rules that it need not keep yet (names)
    :param dry_run: only find out whether it would be (bool)
    :raises EasySIFError: another is there, it breaks a rule, or the file cannot be written
    """
    if os.path.lexists(path) and not force:
        raise EasySIFError(path, 'there is a file already', hint='look at it, or write over it with --force')
    with tempfile.TemporaryDirectory() as directory:
        draft = os.path.join(directory, os.path.basename(path))
        with open(draft, 'w', encoding='utf-8') as handle:
            handle.write(text)
        problems = [one.error for one in check.check([draft]) if one.rule not in (*_IN_PLACE, *without)]
    if problems:
        raise SeveralErrors(problems)
    if dry_run:
        return
    directory = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(directory, exist_ok=True)
        files.write(path, text)
    except OSError as err:
        raise EasySIFError(path, 'cannot be written (%s)' % err.strerror,
                           hint='ls -ld -- %s' % shlex.quote(files.existing_directory(directory))) from err


def _line(key, value, note, width):
    text = '%s = %s' % (key, 'SYSTEM' if key == 'toolchain' else _text(value) if isinstance(value, str) else
                        _list(key, value, width))
    return '%s  # %s' % (text, note) if note else text


def _text(value):
    """Return a text as Python reads it (str): in single quotes, in double ones where it has single ones or is prose."""
    text = repr(value)
    return '"%s"' % text[1:-1] if text[0] == "'" and ' ' in value and '"' not in value else text


def _list(key, value, width):
    if isinstance(value, dict):
        opening, closing, words = '{', '}', ['%s: %s' % (repr(name), repr(item)) for name, item in value.items()]
    else:
        opening, closing, words = '[', ']', [repr(item) for item in value]
    line = '%s%s%s' % (opening, ', '.join(words), closing)
    if not width or len('%s = %s' % (key, line)) <= width or len(words) < 2:
        return line
    joined = textwrap.wrap(', '.join(word.replace(' ', '\0') for word in words), width - 6, break_long_words=False,
                           break_on_hyphens=False)
    return '\n'.join([opening, *('    ' + one.replace('\0', ' ') for one in joined), closing])
