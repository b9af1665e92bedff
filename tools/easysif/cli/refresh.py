# SPDX-License-Identifier: GPL-2.0-only
"""``easysif refresh``: makes module files and wrappers anew."""

import json
import sys

from easysif import compressors, installed, site_files
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import USAGE, EasySIFError, escaped
from easysif.refresh import refresh
from easysif.site import resolve

MOST = 5  #: files that are named


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('refresh', help='make module files and wrappers anew', description=(
        'Make module files and wrappers anew, after a change of EasySIF or of the site, or after damage, and write '
        'what the site provides. Images and overlays are not touched, and EasyBuild is not needed. The exit code is 1 '
        'if something could not be mended.'))
    parser.add_argument('modules', nargs='*', metavar='MODULE',
                        help='name/version, or the name where one version is installed')
    parser.add_argument('--all', action='store_true', help='all installed modules')
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print what changed as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = prefix_of(args)
    if bool(args.modules) == args.all:
        raise EasySIFError('easysif refresh', 'name modules, or say --all', hint='easysif refresh --all',
                           exit_code=USAGE)
    wanted = installed.modules(prefix) if args.all else dict(installed.find(prefix, name) for name in args.modules)
    site, written, problems, reports = resolve().site, [], [], []
    if wanted:
        try:
            written = site_files.apply(prefix, site, compressors.refused(prefix, site))
        except EasySIFError as err:
            problems.append(err)
    if not args.json:
        _tell([escaped('written  %s' % path) for path in written], problems)
    for name in wanted:
        reports.append(refresh(name, prefix, site))
        if not args.json:
            _tell([_line(reports[-1])], reports[-1].problems)
    if args.json:
        print(json.dumps({'prefix': prefix, 'written': written, 'problems': list(map(_values, problems)), 'modules': [
            {'module': one.module, 'changed': one.changed, 'problems': list(map(_values, one.problems))}
            for one in reports]}, indent=2))
    elif not wanted:
        print('no modules of EasySIF are installed in %s' % escaped(prefix))
    return 1 if problems or any(one.problems for one in reports) else 0


def _line(done):
    if not done.changed:
        return '%s: %s' % (escaped(done.module), 'NOT refreshed' if done.problems else 'unchanged')
    more = len(done.changed) - MOST
    return escaped('%s: refreshed %s' % (
        done.module, ', '.join(done.changed[:MOST] + (['and %d more' % more] if more > 0 else []))))


def _tell(lines, problems):
    for line in lines:
        print(line, flush=True)
    for error in problems:
        print('error: %s' % error, file=sys.stderr, flush=True)


def _values(error):
    return {'what': error.what, 'facts': {label: str(value) for label, value in error.facts}, 'hint': error.hint}
