# SPDX-License-Identifier: GPL-2.0-only
"""``easysif overlay install``, ``export`` and ``rebuild``: the packages of an overlay."""

import os
import re
import shlex
import sys
from urllib.parse import unquote

from easysif import files, index
from easysif.cli.common import add_overlay_module, add_prefix, overlay_of
from easysif.errors import USAGE, EasySIFError, escaped
from easysif.overlay.command import add_common_options, execute, tell
from easysif.packages import asked, rebuild
from easysif.packages.export import export
from easysif.packages.install import install, would_install
from easysif.packages.target import Target
from easysif.secrecy import IN_ADDRESS
from easysif.terminal import Line
from easysif.text import counted

#: options for the package index, as pip has them
INDEX = ('--index-url', '--extra-index-url', '--find-links')


def register(commands):
    """Add the commands.

    :param commands: the sub-commands of ``easysif overlay``
    """
    parser = _parser(commands, 'install', _install, 'install packages, and record what was asked for and resolved')
    parser.is_mixed = True
    parser.add_argument('words', nargs='*', metavar='[MODULE] PACKAGE',
                        help='name/version of the module (default: the loaded one), then packages as for pip')
    parser.add_argument('-r', '--requirement', action='append', default=[], metavar='FILE', help='a requirements file')
    parser.add_argument('--upgrade', action='store_true', help='take newer versions of what is there')
    parser.add_argument('--with', choices=('pip', 'uv'), default='pip', dest='installer',
                        help='by which it is installed: pip (the default), or uv of the image or of this host')
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print what was done as JSON')
    parser.add_argument('--dry-run', action='store_true', help='change nothing, only say what would be done')
    parser = _parser(commands, 'export', _export, 'write down what is in an overlay, with versions and hashes')
    add_overlay_module(parser)
    parser.add_argument('--output', metavar='FILE', help='where to write it (default: print it)')
    parser.add_argument('--json', action='store_true', help='print what was found as JSON, instead of the file')
    parser = _parser(commands, 'rebuild', _rebuild, 'make the virtual environment anew, with the same packages')
    add_overlay_module(parser)
    parser.add_argument('--from', metavar='FILE', dest='lock', help='a lock file or an overlay.json that says what')
    parser.add_argument('--partial', action='store_true', help='also where not all of it can be had')
    add_common_options(parser)


def _parser(commands, name, run, text):
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
    parser.set_defaults(run=run)
    for option in INDEX:
        parser.add_argument(option, action='append', default=[], metavar='URL', help='as for pip')
    return parser


def _options(args, target):
    told = [(option, value) for option in INDEX for value in vars(args)[option[2:].replace('-', '_')]]
    for option, value in told:
        path = value[len('file://'):] if value.startswith('file://') else value
        if '://' not in path and not os.path.exists(unquote(path)):
            raise EasySIFError(target.where, '%s names nothing that is there' % option, facts=[('value', value)],
                               hint='ls -ld %s' % shlex.quote(path))
    told = [(option, os.path.abspath(value) if os.path.exists(value) else value) for option, value in told]
    target.show_places([(option[2:], value) for option, value in told])
    return ['%s=%s' % pair for pair in told if not _hand_over(*pair)]


def _hand_over(option, value):
    """Tell pip of an address with a login by its variable, as options are in the process list; tell whether it is one.

    Of further indexes the variable is what counts instead of pip's configuration, which is told as well.
    """
    if not IN_ADDRESS.search(value):
        return False
    variable, others = 'PIP_' + option[2:].upper().replace('-', '_'), []
    if option != '--index-url':
        known = index.settings({}, [*index.CONFIGURATION, *index.users_configuration()])
        others = [os.environ[variable]] if variable in os.environ else [
            one for name, one in known if name == option[2:]][-1:]
    os.environ[variable] = ' '.join([*others, value])
    return True


def _target(args):
    name, root, place = overlay_of(args)
    return Target(name, root, place, 'easysif overlay ' + args.run.__name__[1:])


def _at_work(target, text, quiet, action, *args):
    progress = Line(quiet)
    progress.show('%s: %s' % (target.name, text))
    try:
        return execute(target.overlay, lambda _: action(target, *args))
    finally:
        progress.clear()


def _install(args):
    words = list(args.words)
    named = words and (re.fullmatch(r'[^/.~:\s][^/:\s]*/[^/:\s]+', words[0]) and not os.path.exists(words[0])
                       or not os.environ.get('RUNSCRIPTS') and len(words) + len(args.requirement) > 1)
    args.module = words.pop(0) if named else None
    lines = words + [line for path in args.requirement for line in asked.read(path)]
    if not lines:
        raise EasySIFError('easysif overlay install', 'no package is named', exit_code=USAGE,
                           hint='easysif overlay install %s PACKAGE, or -r FILE' % (args.module or 'MODULE'))
    target = _target(args)
    lines = [target.show(line) for line in lines]
    if args.dry_run:
        done = _at_work(target, 'asking pip', args.json, would_install, lines, _options(args, target), args.upgrade)
    else:
        done = _at_work(target, 'installing packages', args.json, install, lines, _options(args, target),
                        args.installer, args.upgrade)
    tell(args, done, _installed)


def _installed(done, dry_run):
    for one in done['installed']:
        yield '%s  %s %s' % ('would install' if dry_run else 'installed', one['name'], one['version'])
    if not done['installed']:
        yield '%s has all of it already' % done['module']
    unknown = [one['name'] for one in done['installed'] if not one['sha256']]
    if unknown:
        yield 'not known  the hashes of %s' % ', '.join(unknown)


def _export(args):
    if args.output and os.path.lexists(args.output) and not os.path.isfile(args.output):  # as /dev/null, for root
        raise EasySIFError(args.output, 'is no file, and is not replaced', hint='leave --output out to print it')
    target = _target(args)
    text, pins, reasons = _at_work(target, 'asking for hashes', False, export, _options(args, target))
    if args.output:
        files.write(os.path.realpath(args.output), text)
    if args.json:
        tell(args, {'module': target.name, 'output': args.output, 'packages': [pin.recorded() for pin in pins],
                    'without_hash': reasons}, None)
        return
    if args.output:
        print(escaped('%s of %s: %s' % (counted(len(pins), 'package'), target.name, args.output)))
    else:
        sys.stdout.write(text)
    for why in dict.fromkeys(reasons.values()):
        bare = [requirement for requirement, reason in reasons.items() if reason == why]
        print(escaped('warning: without hash, as %s: %s' % (why, ', '.join(bare))), file=sys.stderr)


def _rebuild(args):
    target = _target(args)
    if args.dry_run:
        target.refuse_packed()
        pins, source = rebuild.wanted(target, args.lock)
        done = {'module': target.name, 'from': source, 'packages': [pin.recorded() for pin in pins]}
    else:
        done = _at_work(target, 'making the environment anew', args.json, rebuild.rebuild, args.lock,
                        _options(args, target), args.partial, args.force)
    tell(args, done, _rebuilt)
    if done.get('missing') and not args.json:
        for requirement, reason in done['missing'].items():
            print(escaped('error: %s: %s could not be had: %s' % (target.name, requirement, reason)), file=sys.stderr)
        print('hint: %s' % ('for another version: ' + target.typed('install', 'PACKAGE') if done['rebuilt'] else
                            'nothing was changed; for the others alone: ' + target.typed('rebuild', '--partial')),
              file=sys.stderr)
    return 1 if done.get('missing') else 0


def _rebuilt(done, dry_run):
    if dry_run:
        yield 'would make the virtual environment anew, with what %s has:' % done['from']
    elif done['rebuilt']:
        yield 'made anew, with what %s has:' % done['from']
    for one in done['packages'] if dry_run or done['rebuilt'] else ():
        yield '  %s %s' % (one['name'], one['version'])
    for requirement, name in () if dry_run else done['changed'].items():
        yield 'another file than it was: %s (%s)' % (requirement, name)
    if done.get('kept'):
        yield 'the old one is kept as %s; once you need it no more: rm -r -- %s' % (
            done['kept'], shlex.quote(done['kept']))
