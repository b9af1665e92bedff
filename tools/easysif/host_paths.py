# SPDX-License-Identifier: GPL-2.0-only
"""The paths of this host that a site's binds name: patterns become what is there, in the order of names.

That happens on the machine where a module is installed or ``easysif site apply`` runs, so that loading a module reads
no directory. What a node has not is left out there.
"""

import glob
import os
import re


def expanded(binds):
    """Return binds with each pattern replaced by what fits it here (tuple of str).

    A pattern that nothing fits stays as it is, and so does a path that is there by that very name.
    """
    return tuple(dict.fromkeys(entry for bind in binds for entry in matches(bind) or [bind]))


def matches(bind):
    """Return what of a bind this host has: binds without patterns, none where it has nothing (list of str)."""
    source, _, rest = bind.partition(':')
    if os.path.lexists(source):
        return [bind] if os.path.exists(source) else []
    target, _, options = rest.partition(':')
    found = []
    for path in _fitting(source) if glob.has_magic(source) else ():
        if os.path.exists(path):
            inside = os.path.join(target, os.path.basename(path)) if target else ''
            found.append(':'.join(filter(None, [path, inside or (options and path), options])))
    return found


def directories(patterns):
    """Return directories with each pattern replaced by what fits it here (tuple of str), which may be nothing.

    The inside of a container may have what is not here, so directories without a pattern stay, as does a path that is
    there by that very name.
    """
    return tuple(dict.fromkeys(
        path for pattern in patterns
        for path in (_fitting(pattern) if glob.has_magic(pattern) and not os.path.lexists(pattern) else [pattern])))


def _fitting(pattern):
    """Return what fits a pattern (list of str), without what no bind or list of directories can carry, nor UTF-8."""
    return [path for path in sorted(glob.glob(pattern)) if can_be_bound(path)]


def can_be_bound(path):
    """Return whether a bind or a list of directories can carry a path (bool)."""
    return not re.search('[,:^\n\ud800-\udfff]', path)


def target(bind):
    """Return where a bind is seen inside (str)."""
    source, _, rest = bind.partition(':')
    return rest.partition(':')[0] or source
