# SPDX-License-Identifier: GPL-2.0-only
"""``easysif verify``: whether installed modules are what was installed."""

import json
import sys

from easysif import installed
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped
from easysif.terminal import Line
from easysif.text import human
from easysif.verify import verify, verify_prefix

MOST = 5  #: files that are named though they are no problem


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('verify', help='find damage in installed modules', description=(
        'Hold installed modules against what was recorded when they were installed: every file, the whole image, the '
        'module file, your packed overlay. Nothing is changed. The exit code is 1 if anything is wrong.'))
    parser.add_argument('modules', nargs='*', metavar='MODULE',
                        help='name/version, or the name where one version is installed (default: all)')
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print the results as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = prefix_of(args)
    wanted = dict(installed.find(prefix, module) for module in args.modules) or installed.modules(prefix)
    progress, reports = Line(quiet=args.json), []
    for number, (name, root) in enumerate(wanted.items(), 1):
        progress.show('verifying %d of %d: %s' % (number, len(wanted), escaped(name)))
        reports.append(verify(name, root, prefix))
        progress.clear()
        if not args.json:
            _tell(reports[-1])
    common = verify_prefix(prefix) if wanted else []
    if args.json:
        print(json.dumps({'prefix': prefix, 'problems': [_values(error) for error in common], 'modules': [
            {'module': report.module, 'installation': report.root, 'files': report.files, 'image_size': report.size,
             'problems': [_values(error) for error in report.problems], 'unknown': report.unknown,
             'notes': report.notes, 'extra': report.extra} for report in reports]}, indent=2))
    else:
        _print_errors(common)
        bad = [report.module for report in reports if report.problems]
        if bad and len(reports) > 1:
            print('%d of %d modules have problems: %s' % (len(bad), len(reports), escaped(', '.join(bad))))
        if not wanted:
            print('no modules of EasySIF are installed in %s' % escaped(prefix))
    return 1 if common or any(report.problems for report in reports) else 0


def _tell(report):
    words = ['%d problem%s' % (len(report.problems), '' if len(report.problems) == 1 else 's')
             if report.problems else 'all well']
    words.append('%d files' % report.files)
    if report.size is not None:
        words.append('image of %s' % human(report.size))
    if report.unknown:
        words.append('not known: %s' % ', '.join(report.unknown))
    notes = [', '.join(words), *report.notes]
    if report.extra:
        more = len(report.extra) - MOST
        notes.append('not ours: %s' % ', '.join(report.extra[:MOST] + (['and %d more' % more] if more > 0 else [])))
    print('%s: %s' % (escaped(report.module), escaped('; '.join(notes))), flush=True)
    _print_errors(report.problems)


def _print_errors(errors):
    for error in errors:
        print('error: %s' % error, file=sys.stderr, flush=True)


def _values(error):
    facts = dict(error.facts)
    return {'file': facts.pop('file', None), 'what': error.what, 'facts': facts, 'hint': error.hint}
