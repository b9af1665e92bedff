# SPDX-License-Identifier: GPL-2.0-only
"""Module files in their two languages: Lua, for Lmod, and Tcl, for every module tool. A name tells which it is."""

import os
import re
import shlex
from contextlib import suppress

from easysif import files

LUA = '.lua'  #: ending of the name of one in Lua; one in Tcl has none
COOKIE = b'#%Module'  #: how one in Tcl begins

#: what stands in every module file of ours
MARK = b'EasySIF module'

#: where one says which installation it is of
ROOT = re.compile(r'^\s*(?:local root, prefix =|set root) ("(?:[^"\\]|\\.)*")', re.M)

#: what EasyBuild calls the file by which a version is the default one: a link to one in Lua, which also Tcl could have,
#: and for one in Tcl a text
DEFAULT_LINK, DEFAULT_TEXT = 'default', '.version'


def is_lua(path):
    """Tell whether a module file is in Lua (bool), else it is in Tcl."""
    return path.endswith(LUA)


def stem(path):
    """Return the path of a module file as far as it is the name of the module (str)."""
    return path[:-len(LUA)] if is_lua(path) else path


def other(path):
    """Return what the file of the same module in the other language would be (str)."""
    return stem(path) if is_lua(path) else path + LUA


def is_called(path, name):
    """Tell whether a module file is that of a module name in some directory of modules (bool)."""
    return stem(path).endswith(os.sep + name)


def paths(top, name):
    """Return what the module file of a name can be in a directory of modules (list of str)."""
    return [os.path.join(top, name) + ending for ending in (LUA, '')]


def is_ours(path):
    """Tell whether a file is a module file that we made, and not a copy or what names a default version (bool)."""
    if os.path.basename(path) == DEFAULT_LINK:
        return False
    try:
        with open(path, 'rb') as handle:
            content = handle.read(1 << 20)
    except OSError:
        return False
    return MARK in content and (is_lua(path) or content.startswith(COOKIE))


def root_in(path, pattern=ROOT):
    """Return which installation a file of ours says that it is of (str), None where it does not.

    :param pattern: finds the text in quotes (re.Pattern)
    """
    with suppress(OSError, ValueError), open(path, encoding='utf-8') as handle:
        found = pattern.search(handle.read())
        return shlex.split(found.group(1))[0] if found else None
    return None


def is_of(path, root, prefix):
    """Tell whether a module file can be that of an installation (bool): several prefixes may share what is outside.

    :param root: the installation directory (str)
    :param prefix: EasyBuild's install path (str)
    """
    told = None if path.startswith(os.path.join(prefix, '')) else root_in(path)
    return told is None or os.path.realpath(told) == os.path.realpath(root)


def default(path):
    """Return what makes a module the default of its name, beside its file: path, text (tuple of str).

    The text is where a link leads, or for a module in Tcl what a file holds.
    """
    directory, name = os.path.split(path)
    if is_lua(path):
        return os.path.join(directory, DEFAULT_LINK), name
    return os.path.join(directory, DEFAULT_TEXT), '#%%Module\nset ModulesVersion %s\n' % name


def is_default(path):
    """Tell whether a module is made the default of its name by what `default` says (bool)."""
    place, text = default(path)
    return (os.path.islink(place) and os.readlink(place) == text) if is_lua(path) else _text(place) == text


def default_version(directory):
    """Return the version that is the default in a directory of one name's module files (str), None where none is."""
    link = os.path.join(directory, DEFAULT_LINK)
    if os.path.islink(link):
        return stem(os.readlink(link))
    return _named(os.path.join(directory, DEFAULT_TEXT))


def make_default(path, first):
    """Make a module the default of its name where its file or a link to that is.

    :param path: the file or link (str)
    :param first: the module file itself (str), beside which has to be what a link in Tcl leads to
    :raises OSError: it cannot be written
    """
    place, text = default(path)
    with files.writable(os.path.dirname(path)):
        if is_lua(path):
            files.link(text, place)
        elif path == first:
            files.write(place, text)
        else:
            files.link(default(first)[0], place)
        link = os.path.join(os.path.dirname(path), DEFAULT_LINK)
        if not is_lua(path) and os.path.islink(link):  # one to a module in Lua, which Lmod would prefer
            os.unlink(link)


def drop_other(recorded):
    """Remove a module file of ours in the other language, of what stood there before, with links to it.

    If that was the default of its name, the one that stands there now is.

    :param recorded: the path of the module file and of links to it, as the manifest has them (dict)
    """
    paths = [recorded['path'], *recorded['links']]
    was_default = is_ours(other(paths[0])) and is_default(other(paths[0]))
    for old in filter(is_ours, map(other, paths[::-1])):
        with files.writable(os.path.dirname(old)):
            if is_default(old):
                os.unlink(default(old)[0])
            os.unlink(old)
    for path in paths if was_default else ():
        place = default(path)[0]
        if not os.path.lexists(place) or not is_lua(path) and _named(place):  # else it is somebody's own
            make_default(path, paths[0])


def _named(path):
    """Return the version that a file in Tcl names as the default (str), None where it holds anything else."""
    found = re.fullmatch(r'#%Module\nset ModulesVersion (\S+)\n', _text(path))
    return found and found.group(1)


def _text(path):
    try:
        with open(path, encoding='utf-8') as handle:
            return handle.read(4096)
    except (OSError, ValueError):
        return ''
