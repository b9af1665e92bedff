# SPDX-License-Identifier: GPL-2.0-only
"""``easysif import``: recipes of other projects as recipes of ours."""

import json
import os
import sys

from easysif.authoring import shpc
from easysif.authoring.compose import compose, path_of, write
from easysif.errors import EasySIFError, SeveralErrors, escaped


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('import', help='make recipes from those of other projects', description=(
        'Make recipes from those of other projects.'))
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    one = commands.add_parser('shpc', help="from SHPC's container.yaml", description=(
        "Make recipes from container.yaml files of Singularity HPC (SHPC), and say what could not be carried over."))
    one.add_argument('files', nargs='+', metavar='FILE', help='a container.yaml')
    which = one.add_mutually_exclusive_group()
    which.add_argument('--tag', help='this tag of the image (the latest)')
    which.add_argument('--all-tags', action='store_true', help='a recipe for each version, of its last build')
    one.add_argument('--versionsuffix', default=shpc.SUFFIX, metavar='TEXT', help='(%s)' % shpc.SUFFIX)
    one.add_argument('--output', default='.', metavar='DIR',
                     help='where to write them; in a tree easyconfigs by letter and name (.)')
    one.add_argument('--force', action='store_true', help='write over recipes that are there')
    one.add_argument('--dry-run', action='store_true', help='print the recipes, write nothing')
    one.add_argument('--json', action='store_true', help='print what was done as JSON')
    one.set_defaults(run=_shpc)


def _shpc(args):
    done, errors = [], []
    for path in args.files:
        try:
            for tag in shpc.tags(path) if args.all_tags else [args.tag]:
                done.append(_one(path, tag, args))
        except EasySIFError as err:
            errors.append(err)
    if args.json:
        print(json.dumps(done, indent=2))
    if errors:
        raise SeveralErrors(errors)


def _one(path, tag, args):
    found = shpc.convert(path, tag, args.versionsuffix)
    target, text = path_of(found.values, args.output), compose(found.values, found.notes)
    write(target, text, args.force, dry_run=args.dry_run)
    if not args.json:
        print(text if args.dry_run else escaped('%s: written from %s' % (target, path)))
        for line in found.lost:
            print(escaped('note: %s: %s' % (os.path.basename(target), line)), file=sys.stderr)
    return {'recipe': target, 'source': path, 'lost': found.lost}
