# SPDX-License-Identifier: GPL-2.0-only
"""Finds what is installed in a prefix."""

import os

from easysif import manifest, schema
from easysif.errors import EasySIFError


def default_prefix():
    """Return the prefix that EasyBuild would use, as far as its environment says (str).

    :raises EasySIFError: nothing is installed there
    """
    prefix = (os.environ.get('EASYBUILD_INSTALLPATH') or os.environ.get('EASYBUILD_PREFIX')
              or os.path.expanduser('~/.local/easybuild'))
    if not os.path.isdir(prefix):
        raise EasySIFError(prefix, 'there are no installed modules', hint='name the prefix with --prefix DIR')
    return prefix


def modules(prefix):
    """Return our installations in a prefix: module name -> installation directory (dict, sorted).

    :param prefix: EasyBuild's install path (str)
    """
    software = os.path.join(prefix, 'software')
    found = {}
    for name in _entries(software):
        for version in _entries(os.path.join(software, name)):
            root = os.path.join(software, name, version)
            if os.path.isfile(os.path.join(root, manifest.NAME)) and not version.endswith(('.old', '.removed')):
                found['%s/%s' % (name, version)] = root
    return found


def find(prefix, module):
    """Return the name and the installation directory of one module (tuple of str).

    :param prefix: EasyBuild's install path (str)
    :param module: name with version, or the name alone where only one version is installed (str)
    :raises EasySIFError: it is not installed, or several are
    """
    known = modules(prefix)
    fitting = [name for name in known if module in (name, name.split('/')[0])]
    if len(fitting) == 1:
        return fitting[0], known[fitting[0]]
    if fitting:
        raise EasySIFError(module, 'is installed in several versions', facts=[('versions', ', '.join(fitting))],
                           hint='name one: %s' % fitting[-1])
    near = schema.closest(module, list(known) + [name.split('/')[0] for name in known])
    raise EasySIFError(module, 'is not installed here',
                       facts=[('prefix', prefix), ('installed', ', '.join(known) or 'nothing')],
                       hint="did you mean '%s'?" % near if near else 'eb --search %s' % module)


def _entries(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
