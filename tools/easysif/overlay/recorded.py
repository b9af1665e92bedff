# SPDX-License-Identifier: GPL-2.0-only
"""``overlay.json`` in the user's directory for a module: what was packed, and which packages were asked for."""

import json
import os
import shlex

from easysif import files
from easysif.errors import EasySIFError

NAME = 'overlay.json'
SCHEMA = 1


def record(root):
    """Return what is recorded of an overlay (dict), ``{'schema': 1}`` where nothing is or nobody can read it.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    """
    return _read(os.path.join(root, NAME)) or {'schema': SCHEMA}


def update_record(root, **values):
    """Record something of an overlay; to be called under its lock, ``.pack.lock``. What it does not name stays.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :param values: what JSON can hold, by its key; None takes the key away
    :raises EasySIFError: it cannot be written, or a newer EasySIF wrote what is there
    """
    path = os.path.join(root, NAME)
    found = _read(path)
    if found is None and os.path.lexists(path):  # nobody can read it, but it may be all there is of somebody's list
        os.replace(path, path + '.damaged')
    known = dict(found or {}, **values)
    if isinstance(known.get('schema'), int) and known['schema'] > SCHEMA:
        raise EasySIFError(path, 'was written by a newer EasySIF',
                           facts=[('schema', known['schema']), ('known', SCHEMA)],
                           hint='use that one, or: mv -- %s' % shlex.join([path, path + '.newer']))
    known = {key: value for key, value in dict(known, schema=SCHEMA).items() if value is not None}
    files.write(path, json.dumps(known, indent=2, sort_keys=True) + '\n')


def _read(path):
    try:
        with open(path, encoding='utf-8') as handle:
            found = json.load(handle)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
