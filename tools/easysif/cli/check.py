# SPDX-License-Identifier: GPL-2.0-only
"""``easysif check``: what is wrong with recipes, all of it."""

import json
from shlex import quote

from easysif.check import check, find, notes
from easysif.errors import INPUT, SeveralErrors, escaped


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('check', help='check recipes', description='Check recipes and report all problems.')
    parser.add_argument('recipes', nargs='*', metavar='RECIPE',
                        help='a recipe file, a directory of them or the name of one of ours (all of ours)')
    parser.add_argument('--json', action='store_true', help='print the problems as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    paths = find(args.recipes)
    findings, (unpinned, untested) = check(paths), notes(paths)
    if args.json:
        print(json.dumps({'recipes': len(paths), 'problems': [
            {'recipe': finding.path, 'rule': finding.rule, 'where': finding.error.where, 'what': finding.error.what,
             'facts': dict(finding.error.facts), 'hint': finding.error.hint} for finding in findings],
            'unpinned': unpinned, 'untested': untested}, indent=2))
        return INPUT if findings else 0
    for path, why in unpinned.items():
        print(escaped('note: %s %s' % (path, 'is not pinned: %s' % why if why else
                                       'names no digest, so its image may change: easysif pin %s' % quote(path))))
    for path, why in untested.items():
        print(escaped('note: %s is not tested: %s' % (path, why)))
    if findings:
        raise SeveralErrors([finding.error for finding in findings])
    print('%d recipe%s checked, all well' % (len(paths), '' if len(paths) == 1 else 's'))
