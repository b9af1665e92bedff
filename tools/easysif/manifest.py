# SPDX-License-Identifier: GPL-2.0-only
"""``easysif.json`` in an installation: what was installed, and every file that we wrote. No dates, no user names."""

import json
import os

from easysif import files, schema
from easysif.errors import EasySIFError

NAME = 'easysif.json'
SCHEMA = 1  #: version of the form of the file; older ones are read


def write(root, manifest):
    """Write the manifest of an installation.

    :param root: installation directory (str)
    :param manifest: what schemas/manifest.schema.json describes (dict)
    :raises EasySIFError: it cannot be written
    """
    files.write(os.path.join(root, NAME), json.dumps(manifest, indent=2, sort_keys=True) + '\n')


def read(root):
    """Return the manifest of an installation (dict).

    :param root: installation directory (str)
    :raises EasySIFError: it is not there, or is not what the schema describes
    """
    path = os.path.join(root, NAME)
    try:
        with open(path, encoding='utf-8') as handle:
            manifest = json.load(handle)
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror, hint='eb --rebuild RECIPE.eb') from err
    except ValueError as err:
        raise EasySIFError(path, 'is damaged (%s)' % err, hint='eb --rebuild RECIPE.eb') from err
    problems = schema.problems('manifest', manifest)
    if problems:
        raise EasySIFError(path, problems[0].what, hint='eb --rebuild RECIPE.eb')
    return manifest


def listed_files(root):
    """Return the paths of all files and links in an installation, but for EasyBuild's own (sorted list of str)."""
    found = []
    for parent, directories, names in os.walk(root):
        if parent == root and 'easybuild' in directories:
            directories.remove('easybuild')
        found += [os.path.relpath(os.path.join(parent, name), root) for name in names]
    return sorted(found)
