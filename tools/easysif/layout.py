# SPDX-License-Identifier: GPL-2.0-only
"""Where in a prefix EasyBuild puts installations and module files, as its options and naming schemes say.

Unless told otherwise that is ``software/NAME/VERSION`` and ``modules/all/NAME/VERSION.lua``, without ``.lua`` in Tcl.
Each other way in which something was installed has a file of its own in ``easysif/layout``, so that two commands at
once are in no one's way.
"""

import hashlib
import json
import os
from dataclasses import dataclass

from easysif import files, modulefile
from easysif.modes import Modes

SCHEMA = 1


@dataclass(frozen=True)
class Layout:
    """One way.

    :param software: the directory of all installations (str)
    :param modules: the directory below which a module file is called as the installation (str)
    :param levels: how many names the way from ``software`` to an installation has (int)
    """

    software: str
    modules: str
    levels: int = 2


def prefix_of(software):
    """Return the prefix of a directory of all installations (str)."""
    return os.path.dirname(software)


def prefix_above(root, name):
    """Return the prefix of an installation, whatever the directory of all installations is called (str).

    :param root: the installation directory (str)
    :param name: its name, as it stands below that directory (str)
    """
    return prefix_of(root[:-len(name) - 1])


def usual(prefix):
    """Return how EasyBuild does it unless told otherwise (Layout)."""
    return Layout(os.path.join(prefix, 'software'), os.path.join(prefix, 'modules', 'all'))


def layouts(prefix):
    """Return the ways in which something may be installed in a prefix (list of Layout), the usual one first.

    :param prefix: EasyBuild's install path (str)
    """
    directory, found = os.path.join(prefix, 'easysif', 'layout'), [usual(prefix)]
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        names = []
    for name in names:
        one = _read(os.path.join(directory, name), prefix) if name.endswith('.json') else None
        found += [one] if one and one not in found else []
    return found


def roots(prefix, name):
    """Return where the installation of a name can be (list of str): those that are there, else the usual place."""
    places = list(dict.fromkeys(os.path.join(one.software, name) for one in layouts(prefix)))
    return [path for path in places if os.path.lexists(path)] or places[:1]


def note(prefix, root, name, module):
    """Note how something is installed, unless that is the usual way or known.

    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    :param name: its name, as it stands below the directory of all installations (str)
    :param module: the module file (str)
    :raises EasySIFError: it cannot be written
    """
    top = os.path.dirname(os.path.dirname(module))
    if modulefile.is_called(module, name):
        top = modulefile.stem(module)[:-len(name) - 1]
    new = Layout(root[:-len(name) - 1], top, name.count('/') + 1)
    if new in layouts(prefix):
        return
    values = {'schema': SCHEMA, 'software': os.path.relpath(new.software, prefix),
              'modules': os.path.relpath(top, prefix) if top.startswith(prefix + os.sep) else top,
              'levels': new.levels}
    text = json.dumps(values, indent=2, sort_keys=True) + '\n'
    path = os.path.join(prefix, 'easysif', 'layout', hashlib.sha256(text.encode()).hexdigest()[:16] + '.json')
    with Modes(prefix).publishing(path):
        files.write(path, text)


def _read(path, prefix):
    """Return the way that a file names (Layout), None where it makes no sense."""
    try:
        with open(path, encoding='utf-8') as handle:
            values = json.load(handle)
        software, modules, levels = (values[key] for key in ('software', 'modules', 'levels'))
        if 2 <= levels <= 9:
            return Layout(os.path.join(prefix, software), os.path.normpath(os.path.join(prefix, modules)), levels)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None
