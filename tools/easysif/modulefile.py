# SPDX-License-Identifier: GPL-2.0-only
"""Module files in their two languages: Lua, for Lmod, and Tcl, for every module tool. A name tells which it is."""

import os
import re

from easysif import files

LUA = '.lua'  #: ending of the name of one in Lua; one in Tcl has none
COOKIE = b'#%Module'  #: how one in Tcl begins

#: what stands in every module file of ours
MARK = b'EasySIF module'

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
    named = re.fullmatch(r'#%Module\nset ModulesVersion (\S+)\n', _text(os.path.join(directory, DEFAULT_TEXT)))
    return named and named.group(1)


def drop_other(recorded):
    """Remove a module file of ours in the other language, of what stood there before, with links to it.

    :param recorded: the path of the module file and of links to it, as the manifest has them (dict)
    """
    for path in (*recorded['links'], recorded['path']):
        old = other(path)
        if is_ours(old):
            with files.writable(os.path.dirname(old)):
                if is_default(old):
                    os.unlink(default(old)[0])
                os.unlink(old)


def _text(path):
    try:
        with open(path, encoding='utf-8') as handle:
            return handle.read(4096)
    except (OSError, ValueError):
        return ''
