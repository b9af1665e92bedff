# SPDX-License-Identifier: GPL-2.0-only
"""``easysif config``: every value of the settings that hold here, where it came from, and whether it is forced."""

import dataclasses
import json
import os

from easysif import layers
from easysif.errors import escaped
from easysif.site import resolve

WIDEST = 32  #: columns that names get; a longer one moves its line


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('config', help='show the settings that hold here', description=(
        'Print every value of the settings with where it came from, and whether the site forces it.'))
    parser.add_argument('--json', action='store_true', help='print them as JSON')
    parser.set_defaults(run=_run)


def show(settings, as_json, own=True):
    """Print settings.

    :param settings: the settings (Settings)
    :param as_json: for programs (bool)
    :param own: what the user has set counts as well (bool)
    """
    values, origins = dataclasses.asdict(settings.site), dict(settings.origins)
    if own and os.environ.get('EASYSIF_OVERLAYS'):
        # no setting of a site, but what modules and wrappers use instead of one
        values['overlays'], origins['overlays'] = os.environ['EASYSIF_OVERLAYS'], 'EASYSIF_OVERLAYS, read at load'
    rows = {key: list(layers.flat(value, origins[key], key)) for key, value in values.items()}
    if as_json:
        print(json.dumps({key: {'value': values[key], 'from': origins[key], 'forced': any(
            str(origin).endswith(', forced') for _, _, origin in rows[key])} for key in values}, indent=2))
        return
    width = min(WIDEST, max(len(name) for found in rows.values() for name, _, _ in found))
    for name, value, origin in (row for found in rows.values() for row in found):
        text = '-' if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print(escaped('%-*s  %s  (%s)' % (width, name, text, origin)))


def _run(args):
    show(resolve(), args.json)
