# SPDX-License-Identifier: GPL-2.0-only
"""Finds recipes where EasyBuild would look for them. Imports neither EasyBuild nor the recipes."""

import os
import shutil
import sys

IGNORED = ('.git', '.svn', '__archive__')  #: directories in which EasyBuild does not look


def directories():
    """Return the directories of recipes, in the order in which EasyBuild looks into them (list of str).

    Those of ``EASYBUILD_ROBOT`` and ``EASYBUILD_ROBOT_PATHS``, where an empty entry stands for its own ones: those
    of the Python packages, and of the place where ``eb`` is installed.
    """
    found = []
    for variable, otherwise in (('EASYBUILD_ROBOT', None), ('EASYBUILD_ROBOT_PATHS', '')):
        value = os.environ.get(variable, otherwise)
        for entry in value.split(os.pathsep) if value is not None else ():
            found += [os.path.abspath(entry)] if entry else _of_packages()
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


def find(name):
    """Return the path of a recipe (str), None where there is none.

    :param name: a path, or the name of a file on the search path, with or without ``.eb`` (str)
    """
    for path in (name, name + '.eb'):
        if os.path.isfile(path) and path.endswith('.eb'):
            return path
    if os.sep in name:
        return None
    wanted = name if name.endswith('.eb') else name + '.eb'
    for directory in directories():
        quick = next(filter(os.path.isfile, _usual_places(directory, wanted)), None)
        path = quick or next((path for path in _walk(directory) if os.path.basename(path) == wanted), None)
        if path:
            return path
    return None


def names():
    """Return the file names of all recipes on the search path (sorted list of str)."""
    return sorted({os.path.basename(path) for directory in directories() for path in _walk(directory)})


def _of_packages():
    eb = os.environ.get('EB_SCRIPT_PATH') or shutil.which('eb')
    tops = list(sys.path)
    for path in [eb, os.path.realpath(eb)] if eb else []:
        tops.append(os.path.dirname(os.path.dirname(path)))
    return [os.path.abspath(os.path.join(top, 'easybuild', 'easyconfigs')) for top in tops]


def _usual_places(directory, wanted):
    parts = wanted.split('-')
    for count in range(1, len(parts)):
        name = '-'.join(parts[:count])
        yield os.path.join(directory, name[:1].lower(), name, wanted)


def _walk(directory):
    for parent, below, files in os.walk(directory, followlinks=True):
        below[:] = sorted(name for name in below if name not in IGNORED)
        for name in sorted(files):
            if name.endswith('.eb'):
                yield os.path.join(parent, name)
