# SPDX-License-Identifier: GPL-2.0-only
"""``easysif new``: a recipe for an image, from what is in it."""

import json
import os
import sys

from easysif import site
from easysif.authoring.new import new
from easysif.errors import escaped
from easysif.terminal import Line


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('new', help='write a recipe for an image', description=(
        'Fetch an image, look into it, and write a recipe for it: its commands, Python and conda, packages, digest.'))
    parser.add_argument('name', metavar='NAME', help='name of the software')
    parser.add_argument('version', metavar='VERSION')
    parser.add_argument('--image', required=True, metavar='REFERENCE', help='docker://…, NAME.sif, NAME.def, …')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--environment', dest='kind', action='store_const', const='environment',
                      help='a module to work in, with an overlay for packages')
    kind.add_argument('--tool', dest='kind', action='store_const', const='tool',
                      help='a module that only puts commands on PATH')
    parser.add_argument('--commands', metavar='NAME,NAME', help='wrap these')
    parser.add_argument('--test', action='append', metavar='COMMAND', help='a test of what it is for; may be repeated')
    for word in ('homepage', 'description', 'moduleclass', 'versionsuffix'):
        parser.add_argument('--%s' % word, metavar='TEXT')
    parser.add_argument('--sourcepath', metavar='DIR:DIR', default='', help='where image files are looked for as well')
    parser.add_argument('--output', default='.', metavar='DIR',
                        help='where to write it; in a tree easyconfigs by letter and name (.)')
    parser.add_argument('--force', action='store_true', help='write over a recipe that is there')
    parser.add_argument('--dry-run', action='store_true', help='print the recipe, write nothing')
    parser.add_argument('--json', action='store_true', help='print what was done as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    given = {'commands': args.commands and args.commands.split(','), 'sanity_check_commands': args.test,
             'homepage': args.homepage, 'description': args.description, 'moduleclass': args.moduleclass,
             'versionsuffix': args.versionsuffix}
    progress = Line(quiet=args.json)
    progress.show('looking at %s' % escaped(args.image))
    try:
        done = new(args.name, args.version, args.image, site.resolve().site, args.output, given, args.kind,
                   list(filter(None, args.sourcepath.split(':'))), args.force, args.dry_run,
                   tell=lambda line: print(escaped(line), file=sys.stderr, flush=True))
    finally:
        progress.clear()
    if args.json:
        print(json.dumps({'recipe': done.path, 'notes': done.notes}, indent=2))
        return
    print(done.text if args.dry_run else escaped('%s: written' % done.path))
    for line in done.notes:
        print(escaped('note: %s: %s' % (os.path.basename(done.path), line)), file=sys.stderr)
