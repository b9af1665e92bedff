# SPDX-License-Identifier: GPL-2.0-only
"""What has to hold before anything of an installation is made: the prefix, what is loaded, the tools."""

import os
import shutil

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.modes import check_replaceable
from easysif.modulefile import is_lua

#: characters that a prefix must not hold, who cannot carry them, and their names
UNUSABLE = ((':,\n', 'bind lists', 'colon, comma, newline'),
            ('"\\', "EasyBuild's modulefiles", 'double quote, backslash'))
IN_TCL = ((' \t$[]{};', "EasyBuild's modulefiles in Tcl", 'blank, tab, dollar, brackets, braces, semicolon'),)


def check_prefix(where, prefix, module=None):
    """See that the name of a prefix can be carried by all that has to.

    :param where: the recipe, for messages (str)
    :param prefix: EasyBuild's install path (str)
    :param module: the module file (str), None where none is to be written
    :raises EasySIFError: it cannot
    """
    for characters, who, named in UNUSABLE + (IN_TCL if module and not is_lua(module) else ()):
        if any(char in prefix for char in characters):
            raise EasySIFError(where, 'the prefix holds a character that %s cannot carry' % who,
                               facts=[('prefix', repr(prefix)), ('characters', named)],
                               hint='eb --prefix <another directory> %s' % where)


def check_place(recipe, prefix, root, module):
    """See that a recipe can be installed at a place.

    :param recipe: the recipe (Recipe)
    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    :param module: the module file (str)
    :raises EasySIFError: the module is loaded, or the place is not ours to write
    """
    variable = 'EBROOT' + recipe.env_suffix
    if variable in os.environ:  # EasyBuild refuses it, too, but only when the image has been fetched
        raise EasySIFError(recipe.where, 'a module of %s is loaded' % recipe.name,
                           facts=[(variable, os.environ[variable])],
                           hint='module unload %s, then the same again' % recipe.name)
    existing = files.existing_directory(os.path.dirname(root))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise EasySIFError(recipe.where, 'the prefix is read-only for you',
                           facts=[('prefix', prefix), ('not writable', existing)],
                           hint='eb --prefix <a directory of yours> %s' % recipe.where)
    check_replaceable(recipe.where, root, module)


def check_squashfs_tools(where):
    """See that the tools are there that pack and unpack.

    :param where: the recipe, for messages (str)
    :raises EasySIFError: one is not
    """
    for tool in ('mksquashfs', 'unsquashfs'):
        if not shutil.which(tool):
            raise EasySIFError(where, '%s is not on PATH' % tool, exit_code=TOOL,
                               hint='ask for the package squashfs-tools, for instance: apt install squashfs-tools')
