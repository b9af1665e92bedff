# SPDX-License-Identifier: GPL-2.0-only
"""``easysif image``: the image of an installed module, brought back where it is gone or damaged."""

import dataclasses
import json
import sys

from easysif import site
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped
from easysif.restore import WHOLE, restore
from easysif.terminal import Line
from easysif.text import human


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('image', help='bring back the image of a module', description=(
        'The image of an installed module.'))
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    back = commands.add_parser('restore', help='bring it back where it is gone or damaged', description=(
        'Bring the image of a module back, as easysif.json recorded it: from the image store, from another module, '
        'from where the recipe has it. Nothing is changed where it is whole.'))
    back.add_argument('module', metavar='MODULE', help='name/version, or the name where one version is installed')
    add_prefix(back)
    back.add_argument('--json', action='store_true', help='print what was done as JSON')
    back.set_defaults(run=_run)


def _run(args):
    progress = Line(quiet=args.json)
    progress.show('looking for the image of %s' % escaped(args.module))
    try:
        done = restore(args.module, prefix_of(args), site.resolve().site,
                       tell=lambda line: print(escaped(line), file=sys.stderr, flush=True))
    finally:
        progress.clear()
    if args.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
    elif done.how == WHOLE:
        print('%s: the image is whole, nothing to do' % done.module)
    else:
        print(escaped('%s: the image is back, %s, from %s' % (done.module, human(done.size), done.source)))
        if done.is_new:
            print('it was made anew of the same image, and is recorded as sha256:%s' % done.sha256)
    if done.note and not args.json:
        print(done.note, file=sys.stderr)
