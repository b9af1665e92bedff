# SPDX-License-Identifier: GPL-2.0-only
"""``easysif config``: every setting with its value and where it came from."""

import dataclasses
import json
import os

from easysif.errors import escaped
from easysif.site import resolve


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('config', help='show the settings that hold here',
                                   description='Print every setting with its value and where it came from.')
    parser.add_argument('--json', action='store_true', help='print them as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    settings = resolve()
    values, origins = dataclasses.asdict(settings.site), dict(settings.origins)
    if os.environ.get('EASYSIF_OVERLAYS'):
        # no setting of a site, but what modules and wrappers use instead of one
        values['overlays'], origins['overlays'] = os.environ['EASYSIF_OVERLAYS'], 'EASYSIF_OVERLAYS, read at load'
    if args.json:
        print(json.dumps({key: {'value': values[key], 'from': origins[key]} for key in values}, indent=2))
        return
    width = max(map(len, values))
    for key, value in values.items():
        text = '-' if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        print(escaped('%-*s  %s  (%s)' % (width, key, text, origins[key])))
