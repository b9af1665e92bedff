# SPDX-License-Identifier: GPL-2.0-only
"""``easysif pin``: write into recipes which bytes their images are."""

import json
import os

from easysif import check, pin, site
from easysif.errors import INPUT, EasySIFError, SeveralErrors, escaped
from easysif.terminal import Line


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('pin', help='write digests into recipes',
                                   description='Ask what the images of recipes are now, and write their digests in.')
    parser.add_argument('recipes', nargs='*', metavar='RECIPE',
                        help='a recipe file, a directory of them or the name of one of ours (all of ours)')
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 where something would change')
    parser.add_argument('--sourcepath', metavar='DIR:DIR', default='', help='where image files are looked for as well')
    parser.add_argument('--json', action='store_true', help='print what was found as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    settings, found, errors = site.resolve().site, [], []
    progress = Line()
    for path in check.find(args.recipes):
        progress.show('asking for the image of %s' % path)
        try:
            one = pin.look(path, settings, list(filter(None, args.sourcepath.split(':'))))
            if not args.check and one.now not in (None, one.before):
                pin.write(one)
            found.append(one)
        except EasySIFError as err:
            errors.append(err)
    progress.clear()
    changed = [one for one in found if one.now not in (None, one.before)]
    if args.json:
        print(json.dumps([{'recipe': one.path, 'before': one.before, 'now': one.now} for one in found], indent=2))
    else:
        print('\n'.join(escaped(_line(one, args.check)) for one in found))
    if errors:
        raise SeveralErrors(errors)
    return INPUT if args.check and changed else 0


def _line(one, is_check):
    name = os.path.relpath(one.path) if os.path.isabs(one.path) else one.path
    if one.now is None:
        return '%s: %s' % (name, one.why)
    if one.now == one.before:
        return '%s: has the digest of its image' % name
    if one.before is None:
        return '%s: %s %s' % (name, 'would get' if is_check else 'got', one.now)
    return '%s: the image was changed upstream, %s %s, which had %s' % (
        name, 'would get' if is_check else 'got', one.now, one.before)
