# SPDX-License-Identifier: GPL-2.0-only
"""Layers of settings made into one, with the origin of every value. It knows no setting but what the schema says.

Texts and numbers replace, lists add up without repeats, mappings merge key by key. The origins of a value have its
shape: a text for a text, a list for a list, a mapping for a mapping; of what is empty, a text.
"""

from easysif import schema


def stack(layers):
    """Return the values of all layers (dict), and where each came from (dict of the same shape).

    :param layers: pairs of label (str) and settings (dict), the lowest first
    """
    values, origins = {}, {}
    for label, settings in layers:
        for key, value in settings.items():
            replaces = schema.load('site')['properties'][key].get('replaces')
            values[key], origins[key] = _merged(None if replaces else values.get(key), origins.get(key), value, label)
    return values, origins


def flat(value, origins, name):
    """Yield name, value and origin of each single value: ``provides.mpi.binds``, a list one item at a time.

    Of a mapping the parts that are empty are left out.

    :param value: a setting
    :param origins: where it came from, in the same shape
    :param name: its name (str)
    """
    parts = [key for key in value if value[key] not in ([], (), {})] if isinstance(value, dict) else ()
    if parts:
        for key in parts:
            yield from flat(value[key], origins[key], '%s.%s' % (name, key))
    elif isinstance(value, dict):
        while isinstance(origins, dict):
            origins = next(iter(origins.values()))
        yield name, {}, origins
    elif isinstance(value, (list, tuple)) and value:
        for item, origin in zip(value, origins):
            yield name, item, origin
    else:
        yield name, value, origins


def _merged(low, origin, high, label):
    if high is None and isinstance(low, (list, dict)):
        return low, origin
    if isinstance(high, dict):
        values, origins = dict(low or {}), dict(origin) if low else {}
        for key, value in high.items():
            values[key], origins[key] = _merged(values.get(key), origins.get(key), value, label)
        return values, origins if values else origin if low == {} else label
    if isinstance(high, list):
        values = list(dict.fromkeys((low or []) + high))
        known = list(origin) if low else []
        return values, known + [label] * (len(values) - len(known)) if values else origin if low == [] else label
    return high, label
