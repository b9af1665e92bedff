# SPDX-License-Identifier: GPL-2.0-only
"""What a single text of a recipe or a site file must look like: the ``format`` words of our JSON Schemas.

Each check takes a text, returns nothing when it fits and raises ValueError with the rest of the sentence
``<key> …`` when it does not. Nothing here knows recipes or sites.
"""

import os
import re
import shlex

#: commands that every module has, which a recipe therefore cannot name
OWN_COMMANDS = ('start-shell', 'list-packages', 'make-squashfs', 'unmake-squashfs')

_CONTROL = re.compile('[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]')
_TEMPLATE = re.compile(r'\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})', re.ASCII)


def line(text):
    """One line that can be written into any file.

    :raises ValueError: it has a newline, another control character or half of a surrogate pair
    """
    if _CONTROL.search(text):
        raise ValueError('must be one line without control characters, not %s' % ascii(text))


def path(text):
    """An absolute path, as everything that is read on another node and in another directory has to be.

    :raises ValueError: it is relative, or not one line
    """
    line(text)
    if not text.startswith('/'):
        raise ValueError("must be an absolute path, not '%s'" % text)


def bind_path(text):
    """An absolute path that a bind list of the container runtime can carry.

    :raises ValueError: it is no absolute path, it is the root directory, or it holds a character that separates binds
    """
    path(text)
    if not os.path.normpath(text).strip('/'):
        raise ValueError("must be below '/', not the root directory itself ('%s')" % text)
    for char in ',:':
        if char in text:
            raise ValueError("must not hold '%s', which separates the parts of a bind: '%s'" % (char, text))


def bind(text):
    """A bind: ``source[:destination[:options]]``; the options may hold commas (``image-src=/,ro``).

    :raises ValueError: it has more parts, or one of the two paths cannot be bound
    """
    line(text)
    parts = text.split(':')
    if len(parts) > 3 or not all(parts):
        raise ValueError("must be source[:destination[:options]], not '%s'" % text)
    for part in parts[:2]:
        bind_path(part)


def bind_template(text):
    """A path with names of variables in it, ``/project/$USER`` or ``${HOME}/x``; never evaluated by a shell.

    :raises ValueError: it is neither absolute nor starts with a variable, or a ``$`` stands for nothing
    """
    line(text)
    plain = _TEMPLATE.sub('x', text)
    if '$' in plain:
        raise ValueError("must use '$' only before the name of a variable: '%s'" % text)
    if not text.startswith(('/', '$')):
        raise ValueError("must be an absolute path, or start with a variable as $HOME/overlays does, not '%s'" % text)
    bind_path(plain if plain.startswith('/') else '/' + plain)


def command_name(text):
    """The name of a wrapper: a file name in the module's ``bin/``.

    :raises ValueError: it is no file name, looks like an option, or is one of our own commands
    """
    line(text)
    if '/' in text or text in ('', '.', '..') or text.startswith('-'):
        raise ValueError("must be the name of a command without a path, not '%s'" % text)
    if text in OWN_COMMANDS:
        raise ValueError("must not be '%s', which every module has of its own" % text)


def command_line(text):
    """A command inside the image, in words that are split as a shell would, and never given to one.

    :raises ValueError: it is empty, or a quote in it is not closed
    """
    line(text)
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise ValueError("must be a command inside the image, not \"%s\" (%s)" % (text, str(err).lower())) from err
    if not words or not words[0]:
        raise ValueError("must be a command inside the image, not '%s'" % text)


#: the names that the schemas use
FORMATS = {'line': line, 'path': path, 'bind-path': bind_path, 'bind': bind, 'bind-template': bind_template,
           'command-name': command_name, 'command-line': command_line}
