# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by join.py

The environment of a command inside a shared image. The runtime made it once, for the process that holds the mounts,
from the environment of the keeper; all others have what differs between the keeper and themselves.
"""

import re

#: of a runtime: what a variable is to be inside
GIVEN = re.compile('(?:APPTAINER|SINGULARITY)ENV_(.+)', re.S)
SETTING = re.compile('(APPTAINER|SINGULARITY)_')
NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_]*\Z')

#: what the runtime makes itself; those of the host are for the host, and the same for all that share
MADE = ('HOME', 'PATH', 'LD_LIBRARY_PATH', 'USER_PATH')

#: what the runtime puts together from what is given
COMPOSED = ('PATH', 'PREPEND_PATH', 'APPEND_PATH', 'LD_LIBRARY_PATH', 'HOME')

PROBE = 'EASYSIF_SHARED_IMAGE'  #: a variable of the keeper that is inside if those of the host are


def differing(found, own):
    """Return the names whose values differ between the keeper and us (set of str)."""
    base = found['outside']
    return {name for name in set(base) | set(own) if base.get(name) != own.get(name) and name != PROBE}


def needs_own_container(found, own):
    """Return the names because of which our environment cannot be told from that of the keeper (list of str).

    The runtime would compute with them: it evaluates what is given for the inside, and runs scripts of the image.

    :param found: what the keeper says (dict)
    :param own: our environment (dict)
    """
    names = set()
    for name in differing(found, own):
        given = GIVEN.match(name)
        values = own.get(name, '') + found['outside'].get(name, '')
        if name in found['mentioned'] or given and (given.group(1) in COMPOSED or re.search(r'[\\$`"]', values)):
            names.add(name)
    return sorted(names)


def inside(found, own):
    """Return our environment inside (dict).

    :param found: what the keeper says: ``outside``, its own environment; ``inside``, what the runtime made of it
    :param own: our environment (dict)
    """
    base, result = found['outside'], dict(found['inside'])
    is_passed = result.pop(PROBE, None) is not None
    names = differing(found, own)
    for name in names:
        if GIVEN.match(name) or SETTING.match(name) or name in MADE or not NAME.match(name) or not is_passed:
            continue
        if name in base and result.get(name) != base[name]:  # the image has a value of its own
            continue
        put(result, name, own.get(name))
    for name in filter(None, map(GIVEN.match, names)):
        inner = name.group(1)
        values = [own.get('%sENV_%s' % (runtime, inner)) for runtime in ('APPTAINER', 'SINGULARITY')]
        put(result, inner, next((value for value in values if value is not None), own.get(inner)))
    return result


def put(environment, name, value):
    """Set a variable; None takes it away."""
    environment.pop(name, None)
    if value is not None:
        environment[name] = value
