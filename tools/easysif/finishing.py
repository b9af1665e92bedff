# SPDX-License-Identifier: GPL-2.0-only
"""What is done when an installation stands, outside of it: it works without, so what fails is a warning.

Each part is tried whatever became of the others.
"""

import os
import shlex

from easysif import compressors, modulefile, site_files
from easysif.errors import EasySIFError, told


def finish(install, root):
    """Tell the prefix what the site provides, and link the installation from the user's directory.

    :param install: what was installed (Install)
    :param root: where it stands (str)
    :returns: what could not be done (str), None if all was
    """
    notes = []
    for part in (_drop_other, _tell_site, _link):
        try:
            part(install, root)
        except (EasySIFError, OSError) as err:
            notes.append(str(told(err, install.recipe.where)))
    return '\n'.join(notes) or None


def _drop_other(install, root):
    recorded = install.manifest and install.manifest['modulefile']
    try:
        if recorded:
            modulefile.drop_other(recorded)
    except OSError as err:
        path = err.filename or modulefile.other(recorded['path'])
        raise EasySIFError(
            install.recipe.where, 'what was the module file in the other language is still there (%s)' % err.strerror,
            facts=[('file', path)], hint='ls -la %s' % shlex.quote(os.path.dirname(path))) from err


def _tell_site(install, root):
    site_files.apply(install.prefix, install.site, compressors.refused(install.prefix, install.site))


def _link(install, root):
    try:
        if install.installation.environment and install.containerroot.is_used(root):
            install.containerroot.link(root, install.installation.sif_name)
    except OSError as err:
        raise EasySIFError(install.recipe.where, 'no links to image and runscripts could be made (%s)' % err.strerror,
                           hint='ls -la %s' % shlex.quote(install.containerroot.path)) from err
