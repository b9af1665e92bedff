# SPDX-License-Identifier: GPL-2.0-only
"""``easysif list``: the installed modules."""

import json
import shutil
import sys

from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped
from easysif.inventory import look_at_all
from easysif.text import human, table

#: columns that a narrow terminal does without, in this order
DISPENSABLE = ('RECIPE', 'DIGEST', 'INSTALLED', 'OVERLAY', 'SIZE')


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('list', help='list the installed modules', description=(
        'List the installed modules of a prefix, with the state of your overlay for each. A narrow terminal gets '
        'fewer columns; a pipe, and --json, get all.'))
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print them as JSON, with sizes in bytes')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = prefix_of(args)
    modules = look_at_all(prefix)
    if args.json:
        print(json.dumps([_values(module) for module in modules], indent=2))
    elif modules:
        limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print('\n'.join(table([_HEADS, *map(_row, modules)], 'IMAGE', limit, DISPENSABLE)))
    else:
        print('no modules of EasySIF are installed in %s' % escaped(prefix))


_HEADS = {name: name for name in ('MODULE', 'IMAGE', 'DIGEST', 'SIZE', 'OVERLAY', 'RECIPE', 'INSTALLED')}


def _row(module):
    image = (module.record or {}).get('image') or {}
    what = 'damaged: %s' % module.problem.what if module.problem else image.get('reference', '-')
    return {'MODULE': module.name, 'IMAGE': what,
            'DIGEST': (image.get('digest') or '-').rpartition(':')[2][:12], 'SIZE': human(module.size),
            'OVERLAY': module.overlay.state if module.overlay else '-',
            'RECIPE': module.record['recipe'] if module.record else '-',
            'INSTALLED': module.installed.strftime('%Y-%m-%d') if module.installed else '-'}


def _values(module):
    image = (module.record or {}).get('image') or {}
    return {'module': module.name, 'installation': module.root, 'image': image.get('reference'),
            'digest': image.get('digest'), 'sha256': image.get('sha256'), 'file': module.image, 'size': module.size,
            'overlay': module.overlay and module.overlay.state,
            'overlay_path': module.overlay and module.overlay.path,
            'recipe': module.record and module.record['recipe'],
            'installed': module.installed and module.installed.isoformat(),
            'problem': module.problem and module.problem.what}
