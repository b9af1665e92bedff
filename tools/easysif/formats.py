# SPDX-License-Identifier: GPL-2.0-only
"""What a single text of a recipe or a site file must look like: the ``format`` words of our JSON Schemas.

Each check takes a text, returns nothing when it fits and raises ValueError with the rest of the sentence
``<key> …`` when it does not. Nothing here knows recipes or sites.
"""

import glob
import os
import re
import shlex

#: commands that every module has, which a recipe therefore cannot name
OWN_COMMANDS = ('start-shell', 'list-packages', 'make-squashfs', 'unmake-squashfs')

LONGEST_LINE = 4096   #: bytes; as long as a path may be
LONGEST_TEXT = 16384  #: bytes of a text of several lines
LONGEST_NAME = 255    #: bytes of a file name

#: bytes of all variables of a mapping together; a module hands each on twice and records both in one variable, and
#: Linux starts no process that has one of more than 128 KiB
LARGEST_ENVIRONMENT = 10000

_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_CONTROL_IN_TEXT = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_TEMPLATE = re.compile(r'\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})', re.ASCII)
_OPTION = re.compile(r'ro|rw|image-src=/.*|id=[0-9]+')

#: what paths of binds must not hold, and why
_NOT_IN_BINDS = {',': 'separates the parts of a bind', ':': 'separates the parts of a bind',
                 '^': 'the container runtimes take for a separator'}


def line(text):
    """One line that can be written into any file.

    :raises ValueError: it is long, has a newline, another control character or half of a surrogate pair
    """
    _short(text, LONGEST_LINE)
    if _CONTROL.search(text):
        raise ValueError('must be one line without control characters, not %s' % ascii(text))


def help_text(text):
    """A text of any number of lines that EasyBuild writes into modules, between ``[==[`` and ``]==]``.

    :raises ValueError: it is long, has control characters but newlines and tabs, or what looks like such a bracket
    """
    _short(text, LONGEST_TEXT)
    if _CONTROL_IN_TEXT.search(text):
        raise ValueError('must be without control characters, not %s' % ascii(text))
    _without(text, ']==', '[==[')


def quoted_text(text):
    """A text that EasyBuild puts in quotes in modules, without escapes.

    :raises ValueError: it is not one line, or the quotes would not hold it
    """
    line(text)
    _without(text, '\\')
    if '"' in text and "'" in text:
        raise ValueError("must not have quotes of both kinds, which EasyBuild's modules cannot carry: %s" % text)


def module_value(text):
    """The value of a variable that EasyBuild sets in modules; it may have ``$NAME`` in it.

    :raises ValueError: it would not arrive as it is
    """
    quoted_text(text)
    _without(text, ' .. ', 'os.getenv("')
    if text != text.strip(' .'):
        raise ValueError("must not begin or end in a blank or a full stop, which EasyBuild takes away: '%s'" % text)


def environment(variables):
    """A mapping of variables that fits into the environment of a process, several times.

    :raises ValueError: it is too large
    """
    texts = [text for pair in variables.items() for text in pair if isinstance(text, str)]
    size = sum(len(text.encode('utf-8', 'replace')) + 3 * sum(map(text.count, '%;\\$`')) for text in texts)
    if size > LARGEST_ENVIRONMENT:
        raise ValueError('must not hold more than %d bytes, as every process of the user gets them, not %d'
                         % (LARGEST_ENVIRONMENT, size))


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
    for char, why in _NOT_IN_BINDS.items():
        if char in text:
            raise ValueError("must not hold '%s', which %s: '%s'" % (char, why, text))
    if text != text.rstrip() or text.endswith('\\'):
        raise ValueError("must not end in a blank or a backslash, which the container runtimes take away: '%s'" % text)


def bind(text):
    """A bind: ``source[:destination[:options]]``; the options may hold commas (``image-src=/,ro``).

    :raises ValueError: it has more parts, one of the two paths cannot be bound, or there is no such option
    """
    line(text)
    parts = text.split(':')
    if len(parts) > 3 or not all(parts):
        raise ValueError("must be source[:destination[:options]], not '%s'" % text)
    for part in parts[:2]:
        bind_path(part)
    for option in parts[2].split(',') if len(parts) == 3 else ():
        if not _OPTION.fullmatch(option):
            raise ValueError("must have options out of ro, rw, image-src=/path and id=number, not '%s'" % option)


def site_bind(text):
    """A bind whose source may be a pattern as a shell has them; the destination then is the directory for all matches.

    :raises ValueError: it is no bind, or the pattern begins at the root directory
    """
    bind(text)
    source = os.path.normpath(text.split(':')[0])
    if glob.has_magic(source.split('/')[1]):
        raise ValueError("must name a directory of the root, not all of them ('%s')" % text)


def library(text):
    """A file of the host, ``path[:name]``, which may be a pattern where it has no name of its own inside.

    :raises ValueError: it has more parts, the path cannot be bound, or the name is none or that of several files
    """
    source, colon, name = text.partition(':')
    site_bind(source)
    if colon and (not re.fullmatch(r'[A-Za-z0-9_.+-]+', name) or not name.strip('.')):
        raise ValueError("must be file[:name], with the name of a file inside, not '%s'" % text)
    if colon and glob.has_magic(source):
        raise ValueError("must not have a name for all that fits a pattern: '%s'" % text)


def search_path(text):
    """A directory inside the image, for a list with ``:`` between its parts.

    :raises ValueError: it is no absolute path, or holds a colon
    """
    path(text)
    if ':' in text:
        raise ValueError("must not hold ':', which separates directories: '%s'" % text)


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

    :raises ValueError: it is no file name, looks like an option, cannot stand in the help text of the module, or is
        one of our own commands
    """
    _short(text, LONGEST_NAME)
    line(text)
    _without(text, ']==', '[==[', '%(')
    if '/' in text or text in ('', '.', '..') or text.startswith('-'):
        raise ValueError("must be the name of a command without a path, not '%s'" % text)
    if text in OWN_COMMANDS:
        raise ValueError("must not be '%s', which every module has of its own" % text)


def command_line(text):
    """A command inside the image, in words that are split as a shell would, and never given to one.

    :raises ValueError: it is empty, a quote in it is not closed, or what it begins with is no command: an option, a
        path that is not from the root directory on
    """
    line(text)
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise ValueError("must be a command inside the image, not \"%s\" (%s)" % (text, str(err).lower())) from err
    if not words or not words[0]:
        raise ValueError("must be a command inside the image, not '%s'" % text)
    if words[0].startswith('-') or '/' in words[0] and not words[0].startswith('/') or words[0].endswith('/'):
        raise ValueError("must begin with the name of a command or its path inside the image, not with '%s'" % words[0])


def _short(text, longest):
    size = len(text.encode('utf-8', 'replace'))
    if size > longest:
        raise ValueError('must have %d bytes at the most, not %d' % (longest, size))


def _without(text, *others):
    for other in others:
        if other in text:
            raise ValueError("must not hold '%s', which EasyBuild's modules cannot carry: '%s'" % (other, text))


#: the names that the schemas use; all but environment are for texts
FORMATS = {'line': line, 'help-text': help_text, 'quoted-text': quoted_text, 'module-value': module_value,
           'environment': environment, 'path': path, 'bind-path': bind_path, 'bind': bind, 'site-bind': site_bind,
           'library': library, 'search-path': search_path, 'bind-template': bind_template, 'command-name': command_name,
           'command-line': command_line}
