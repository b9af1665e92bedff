# SPDX-License-Identifier: GPL-2.0-only
"""``easysif bump``: the next version of a recipe."""

import json
import os
import sys

from easysif import check, site
from easysif.authoring.bump import bump
from easysif.errors import escaped
from easysif.terminal import Line


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('bump', help='make the recipe of another version', description=(
        'Make the recipe of another version beside one, with the digest that its image has now.'))
    parser.add_argument('recipe', metavar='RECIPE', help='a recipe file, or the name of one of ours')
    parser.add_argument('version', metavar='VERSION')
    parser.add_argument('--image', metavar='REFERENCE', help='the new image, where it does not follow from the version')
    parser.add_argument('--offline', action='store_true', help='ask nobody, and write no digest')
    parser.add_argument('--sourcepath', metavar='DIR:DIR', default='', help='where image files are looked for as well')
    parser.add_argument('--force', action='store_true', help='write over a recipe that is there')
    parser.add_argument('--dry-run', action='store_true', help='print the recipe, write nothing')
    parser.add_argument('--json', action='store_true', help='print what was done as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    progress = Line(quiet=args.json)
    progress.show('asking for the image of %s %s' % (escaped(args.recipe), escaped(args.version)))
    try:
        done = bump(check.find([args.recipe])[0], args.version, site.resolve().site, args.image, args.offline,
                    list(filter(None, args.sourcepath.split(':'))), args.force, args.dry_run)
    finally:
        progress.clear()
    if args.json:
        print(json.dumps({'recipe': done.path, 'digest': done.digest, 'old_version_in': done.old_version_in}, indent=2))
        return
    print(done.text if args.dry_run else escaped('%s: written%s' % (
        done.path, ', pinned to %s' % done.digest if done.digest else ', without a digest')))
    for number in done.old_version_in:
        print(escaped('note: %s:%d still names the version that it was made from' % (
            os.path.basename(done.path), number)), file=sys.stderr)
