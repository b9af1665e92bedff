# SPDX-License-Identifier: GPL-2.0-only
"""``easysif doctor``: what may be wrong here, in a report that can be sent to support; it holds no secret."""

import os
import platform

from easysif import __version__, installed, inventory, node
from easysif.cli.common import add_prefix, prefix_of
from easysif.cli.site import tell
from easysif.errors import EasySIFError
from easysif.node.finding import NOTE, OK, PROBLEM, Finding
from easysif.site import resolve


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('doctor', help='look for what breaks containers here', description=(
        'Look at this node, your shell and the installed modules for what is known to break containers. The report '
        'can be sent to support: it names variables, and tells no value of them.'))
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix, head = prefix_of(args), {'easysif': __version__, 'python': platform.python_version(),
                                     'system': '%s, Linux %s %s' % (_system(), platform.release(), platform.machine())}
    try:
        settings = resolve()
    except EasySIFError as err:
        return tell([Finding(PROBLEM, 'site', str(err).split('\n')[0], 'easysif config')], head, args.json)
    head['site'] = '%s  (%s)' % (settings.site.name, settings.origins['name'])
    head['prefix'] = prefix
    loaded = os.environ.get('SIF')
    found = [*node.of_user(settings.site, loaded if loaded and os.path.isfile(loaded) else None), *_modules(prefix)]
    return tell(found, head, args.json)


def _modules(prefix):
    """Yield what is known at a glance of the modules of a prefix."""
    found = [inventory.look_at(name, root) for name, root in sorted(installed.modules(prefix).items())]
    for one in found:
        if one.problem:
            yield Finding(PROBLEM, 'installed', '%s: %s' % (one.name, one.problem.what), one.problem.hint)
    if found:
        yield Finding(OK, 'installed', '%d modules, of which %d cannot work' % (
            len(found), sum(1 for one in found if one.problem)))
    else:
        yield Finding(NOTE, 'installed', 'no modules in this prefix', 'easysif doctor --prefix DIR')


def _system():
    try:
        with open('/etc/os-release', encoding='utf-8', errors='replace') as handle:
            return next((line.partition('=')[2].strip().strip('"') for line in handle
                         if line.startswith('PRETTY_NAME=')), 'unknown')
    except OSError:
        return 'unknown'
