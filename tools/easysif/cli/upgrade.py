# SPDX-License-Identifier: GPL-2.0-only
"""``easysif upgrade``: what is newer, and the user's packages and the default from one version to another."""

import dataclasses
import json
import shlex

from easysif import installed, upgrade
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import USAGE, EasySIFError, escaped
from easysif.terminal import Line
from easysif.text import table


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('upgrade', help='go from one version of a module to another', description=(
        'Without modules: list what is newer than what is installed. With two: show which packages you added to OLD, '
        'and what to type to have them in NEW. Both stay installed, and nothing of OLD is changed.'))
    parser.add_argument('modules', nargs='*', metavar='OLD NEW', help='two installed modules, name/version each')
    parser.add_argument('--yes', action='store_true', help="install the packages into NEW's overlay, by its own pip")
    parser.add_argument('--default', action='store_true', help='make NEW the default version')
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = prefix_of(args)
    acts = args.yes or args.default
    if len(args.modules) not in (0, 2) or len(set(args.modules)) == 1 or acts and not args.modules:
        raise EasySIFError('easysif upgrade', 'name two modules, the old one and the new one, or none',
                           hint='easysif upgrade', exit_code=USAGE)
    if not args.modules:
        return _list(prefix, args.json)
    old, new = (upgrade.find(prefix, module) for module in args.modules)
    progress, option = Line(quiet=args.json), installed.option(prefix)
    told = {'old': old.name, 'new': new.name, 'packages': None, 'command': None, 'installed': False, 'default': None}
    lines = []
    if upgrade.has_overlay(old) and upgrade.has_overlay(new):
        progress.show('asking both for their packages')
        found = upgrade.packages(old, new)
        progress.clear()
        wanted = [one for one in found if one.is_wanted]
        told['packages'] = [dict(dataclasses.asdict(one), wanted=one.is_wanted) for one in found]
        lines += _table(old, new, found) if found else []
        if not wanted:
            lines.append('%s has all that you added to %s' % (new.name, old.name) if found else
                         'you have added nothing to %s' % old.name)
        else:
            words = [*upgrade.pip(new), 'install', *(one.requirement for one in wanted)]
            told['command'] = 'module load %s && %s' % (new.name, shlex.join(words))
            if args.yes:
                progress.show('installing %d packages' % len(wanted))
                upgrade.carry(old, new, wanted)
                progress.clear()
                told['installed'] = True
                lines.append('installed into %s: %s' % (new.name, ' '.join(one.requirement for one in wanted)))
            else:
                lines += ['to have them there: %s' % told['command'],
                          'or: easysif upgrade %s %s --yes%s' % (old.name, new.name, option)]
    else:
        lines.append('%s has no overlay: there are no packages to carry over' % (
            new.name if upgrade.has_overlay(old) else old.name))
    if args.default:
        former = upgrade.set_default(new)
        told['default'] = {'now': new.name, 'before': former}
        lines += ['%s is the default now; before, %s' % (new.name, former or 'none was named: the newest was taken'),
                  'the way back: easysif upgrade %s %s --default%s' % (new.name, old.name, option)]
    print(json.dumps(told, indent=2) if args.json else '\n'.join(map(escaped, lines)))
    return 0


def _table(old, new, found):
    rows = [{'PACKAGE': one.name, old.name: one.version, new.name: '-' if one.there is None else '%s (%s)' % (
        one.there, one.origin), '': '' if one.is_wanted else 'stays'} for one in found]
    return table([{name: name for name in rows[0]}, *rows], 'PACKAGE')


def _list(prefix, as_json):
    found = upgrade.newer(prefix)
    if as_json:
        print(json.dumps({module: {'installed': there, 'recipe': recipe}
                          for module, (there, recipe) in found.items()}, indent=2))
    elif not found:
        print('nothing is newer than what is installed in %s' % escaped(prefix))
    else:
        option = installed.option(prefix)
        rows = [{'MODULE': module, 'NEWER': there or recipe, 'TYPE': 'easysif upgrade %s %s%s' % (module, there, option)
                 if there else 'eb %s' % shlex.quote(recipe)} for module, (there, recipe) in found.items()]
        print('\n'.join(table([{name: name for name in rows[0]}, *rows], 'TYPE')))
    return 0
