# SPDX-License-Identifier: GPL-2.0-only
"""The text of a recipe from its values, in the order and form of DESIGN section 4, and its place in a tree of recipes.

The one place that writes recipes; nothing is written that breaks a rule which its author is not told of.
"""

import os
import re
import tempfile
import textwrap
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from easysif import check, files, recipe, rules, schema
from easysif.errors import EasySIFError, SeveralErrors

WIDTH = 120  # columns

LITTER_AGE = 60  #: seconds after which nobody is writing a recipe any more

#: keys that stand together, each group a paragraph
GROUPS = (('easyblock',), ('name', 'version', 'versionsuffix'), ('homepage', 'description'), ('toolchain',),
          tuple(recipe.OURS), ('sanity_check_commands',), ('moduleclass',))

#: a rule that looks beside the recipe, where a proposal does not lie
_IN_PLACE = ('definition_is_there',)


@dataclass(frozen=True)
class Proposal:
    """A recipe that is to be written.

    :param path: the file (str)
    :param text: what is in it (str)
    :param digest: the digest that it names (str), None for none
    :param notes: what its author has to know or to do (list of str)
    """

    path: str
    text: str
    digest: str = None
    notes: list = field(default_factory=list)


def compose(values, comments=()):
    """Return the text of a recipe (str).

    :param values: its parameters (dict), of which empty ones are left out; the toolchain is always SYSTEM. A text that
                   is to arrive as it is has gone through `literal`
    :param comments: key -> words of a comment behind its line, or above it where that is too long (dict)
    """
    values = dict(values, toolchain='SYSTEM')
    for width in (WIDTH, None):
        paragraphs = []
        for group in GROUPS:
            lines = [_line(key, values[key], dict(comments).get(key), width) for key in group if values.get(key)]
            paragraphs += ['\n'.join(lines)] if lines else []
        text = '\n\n'.join(paragraphs) + '\n'
        if sum(1 for line in text.splitlines() if line) <= rules.MAX_LINES:
            break  # else lists stand on one line each, however long
    return text


def literal(text):
    """Return a text such that EasyBuild puts nothing in where it looks like one of its templates (str)."""
    return re.sub(r'%+(?=\(\w+\)s)', lambda signs: signs.group() * 2, text)


def naming(version):
    """Return the pattern of a text that names a version, and neither 1.22 nor 11.2 for 1.2 (re.Pattern)."""
    return re.compile(r'(?<![0-9.])%s(?![0-9]|\.[0-9])' % re.escape(version))


def image_of(version, image):
    """Return what an image is as a recipe of a version writes it (str): its tag or its file name follow the version."""
    head, slash, tail = image.rpartition('/')
    tail, at, digest = tail.partition('@sha256:')
    in_registry = image.startswith(('docker://', 'oras://', 'library://'))
    name, colon, tag = tail.partition(':') if in_registry else ('', '', tail)
    return ''.join((head, slash, name, colon, naming(version).sub('%(version)s', tag, count=1), at, digest))


def path_of(values, directory):
    """Return where a recipe belongs (str): by letter and name in a tree of recipes, else in the directory itself.

    :param values: its parameters (dict)
    :param directory: the tree ``easyconfigs``, a directory in one, or any other (str)
    """
    name = '%s-%s%s.eb' % (values['name'], values['version'], values.get('versionsuffix', ''))
    tree = rules.tree_of(os.path.join(directory, name))
    if tree:
        place = os.path.join(tree, rules.letter(values['name']), values['name'])
        directory = place if os.path.isabs(directory) else os.path.relpath(place)
    return os.path.normpath(os.path.join(directory, name))


def look_at(proposals, left=()):
    """Hold proposals against the rules for recipes.

    :param proposals: the recipes (list of Proposal)
    :param left: rules that it need not keep yet, as its author is told what is left to do (sequence of names)
    :raises EasySIFError: it breaks others; all problems at once
    """
    with tempfile.TemporaryDirectory() as directory:
        paths = [os.path.join(directory, os.path.basename(one.path)) for one in proposals]
        for path, one in zip(paths, proposals):
            with open(path, 'w', encoding='utf-8') as handle:
                handle.write(one.text)
        problems = [one.error for one in check.check(paths) if one.rule not in (*_IN_PLACE, *left)]
    if problems:
        raise SeveralErrors(problems)


def write(proposal, force=False):
    """Write a proposal to its place, whole or not at all; directories that are missing are made.

    :param proposal: the recipe (Proposal)
    :param force: whether a file that is there may be written over (bool)
    :raises EasySIFError: there is one, or it cannot be written
    """
    check_free(proposal.path, force)
    path = os.path.abspath(proposal.path)
    with place_for(path), files.written_beside(path, proposal.text) as beside:
        _put(beside, proposal.path, force)


@contextmanager
def place_for(path):
    """Have the directory of a file for the block; those that are missing are made, and go again where it fails.

    What sessions that were killed left of writing the same file goes.

    :param path: the file (str)
    """
    path = os.path.abspath(path)
    made = [os.path.dirname(path)]
    while not os.path.isdir(made[-1]):
        made.append(os.path.dirname(made[-1]))
    for other in files.beside(path):
        with suppress(OSError):  # one that is being written, if only on another host, is young
            if time.time() - os.stat(other).st_mtime > LITTER_AGE:
                os.unlink(other)
    try:
        yield
    except BaseException:
        for directory in made[:-1]:
            with suppress(OSError):
                os.rmdir(directory)
        raise


def check_suffix(suffix):
    """Make sure that a versionsuffix can be one, before it becomes part of a path.

    :raises EasySIFError: it cannot
    """
    rule = schema.load('recipe')['properties']['versionsuffix']
    if not re.search(rule['pattern'], suffix) or len(suffix) > rule['maxLength']:
        raise EasySIFError('--versionsuffix', 'must be %s, not %s' % (rule['description'], schema.quote(suffix)),
                           hint='write --versionsuffix=-singularity, or leave it out')


def check_free(path, force=False):
    """Make sure that nothing is written over without being asked for.

    :raises EasySIFError: there is a file
    """
    if os.path.lexists(path) and not force:
        raise EasySIFError(path, 'there is a file already', hint='look at it, or write over it with --force')


def _put(beside, path, force):
    """Give a file its name, which it does not take from another one unless that is wanted."""
    if not force:
        try:
            return os.link(beside, path)
        except FileExistsError:  # another process was faster
            raise
        except OSError:  # a file system without hard links
            check_free(path)
    os.rename(beside, path)


def _line(key, value, comment, width):
    text = '%s = %s' % (key, value if key == 'toolchain' else _text(value) if isinstance(value, str) else
                        repr(value) if isinstance(value, bool) else _list(key, value, width))
    if not comment:
        return text
    line = '%s  # %s' % (text, comment)
    return line if len(line.splitlines()[-1]) <= WIDTH else '# %s\n%s' % (comment, text)


def _text(value):
    """Return a text as Python reads it (str): in single quotes, in double ones where it has single ones or is prose."""
    text = repr(value)
    return '"%s"' % text[1:-1] if text[0] == "'" and ' ' in value and '"' not in value else text


def _list(key, value, width):
    if isinstance(value, dict):
        opening, closing, words = '{', '}', ['%r: %r' % pair for pair in value.items()]
    else:
        opening, closing, words = '[', ']', [repr(item) for item in value]
    line = '%s%s%s' % (opening, ', '.join(words), closing)
    if not width or len('%s = %s' % (key, line)) <= width or len(words) < 2:
        return line
    joined = textwrap.wrap(', '.join(word.replace(' ', '\0') for word in words), width - 6, break_long_words=False,
                           break_on_hyphens=False)
    return '\n'.join([opening, *('    ' + one.replace('\0', ' ') for one in joined), closing])
