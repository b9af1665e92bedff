# SPDX-License-Identifier: GPL-2.0-only
"""``easysif overlay``: what a user's overlay is, packs it, unpacks it, goes back, checks and removes it."""

import shlex
import sys

from easysif import compressors, installed, layout, manifest, site
from easysif.belongings import Belongings
from easysif.cli import overlay_packages
from easysif.cli.common import add_overlay_module, overlay_of
from easysif.errors import EasySIFError
from easysif.overlay import generations, state
from easysif.overlay.command import (add_common_options, add_pack_options, add_unpack_options, execute, run_pack,
                                     run_unpack, tell)
from easysif.overlay.place import Overlay
from easysif.resources import mountable
from easysif.text import counted, human

#: what is typed to do something with an overlay
ACTIONS = ('status', 'pack', 'unpack', 'rollback', 'check', 'remove')

STATES = {'none': 'nothing in it', 'directory': 'a directory, packages can be added',
          'read-only': 'a directory that cannot be written at this moment',
          'packed': 'packed into one file, read-only', 'both': 'packed, and there is a directory that is not used',
          'damaged': 'the squashfs file is damaged and not used'}


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('overlay', help='your own packages for a module: pack, unpack, check',
                                   description='What you added to a module: see, pack, unpack, check and remove it.')
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    for name, run, options, text in (
            ('status', _status, None, 'show what is in an overlay, how it is packed, who uses it, what to type next'),
            ('pack', _pack, add_pack_options, 'pack the directory into one squashfs file, as make-squashfs does'),
            ('unpack', _unpack, add_unpack_options, 'make the directory from the squashfs, as unmake-squashfs does'),
            ('rollback', _rollback, None, 'use the squashfs file that was kept last; twice brings this one back'),
            ('check', _check, None, 'read the squashfs files and hold them against what was recorded'),
            ('remove', _remove, None, 'remove what you added to a module, and all that is kept of it')):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        add_overlay_module(command)
        if options:
            options(command)
        else:
            add_common_options(command, changes=name in ('rollback', 'remove'))
        command.set_defaults(run=run)
        if name == 'remove':
            command.add_argument('--yes', action='store_true', help='without a question')
    overlay_packages.register(commands)


def _overlay(args, action):
    """Return the overlay that the user means (Overlay) and the installation of its module (str)."""
    name, root, place = overlay_of(args)
    prefix = layout.prefix_above(root, name)
    typed = {one: 'easysif overlay %s %s%s' % (one, name, installed.option(prefix)) for one in ACTIONS}
    here = site.resolve().site
    squashfs = here.squashfs
    if action in ('pack', 'unpack'):  # which may keep what was there as a squashfs file
        squashfs = mountable(squashfs, compressors.refused(prefix, here))
    return Overlay(place, name, 'easysif overlay ' + action, root, squashfs, typed), root


def _pack(args):
    return run_pack(_overlay(args, 'pack')[0], args)


def _unpack(args):
    return run_unpack(_overlay(args, 'unpack')[0], args)


def _rollback(args):
    def roll_back(overlay):
        with overlay.alone() as lock:
            return generations.rollback(overlay, lock, args.dry_run)
    overlay, _ = _overlay(args, 'rollback')
    done = execute(overlay, roll_back)
    tell(args, done, lambda done, dry_run: _rolled_back(overlay, done, dry_run))


def _rolled_back(overlay, done, dry_run):
    would = 'would be' if dry_run else 'is'
    if done['was']:
        yield '%s %s as %s' % ('would use' if dry_run else 'using', done['was'], done['squashfs'])
    if done['kept']:
        yield 'the %ssquashfs file %s kept as %s' % ('former ' if done['was'] else '', would, done['kept'])
    if done['damaged']:
        yield 'the former squashfs file is damaged and %s %s' % ('would become' if dry_run else 'is now',
                                                                 done['damaged'])
    if done['was'] and done['directory']:
        yield 'the directory %s stays, and %s used; to use it: %s' % (
            done['directory'], 'would not be' if dry_run else 'is not', overlay.command('unpack', '--use-directory'))
    elif not done['was']:
        yield 'the directory %s %s used again' % (done['directory'], would) if done['directory'] else (
            'nothing %s packed, and there is no directory, as before' % would)
    if not dry_run:
        yield 'now: module reload'


def _status(args):
    overlay, root = _overlay(args, 'status')
    found = execute(overlay, state.status)
    found['made_for']['differs'] = _differences(found['made_for'], root)
    tell(args, found, _status_lines)


def _differences(made_for, root):
    """Return what an overlay was made with that the module has in another version, ``python`` or ``image`` (list)."""
    record = manifest.read(root)
    python = (record['inside']['python'] or {}).get('version', '')
    now = {'python': '.'.join(python.split('.')[:2]), 'image': 'sha256:' + record['image']['sha256']}
    return [name for name, value in now.items() if made_for.get(name, value) != value]


def _status_lines(found, _):
    is_closed = found['state'] == 'directory' and not found['writable']
    yield '%s: %s' % (found['module'], STATES['read-only' if is_closed else found['state']])
    for name in ('directory', 'squashfs'):
        one = found[name]
        if one:
            yield '  %-9s  %s, %s' % (name, one['path'], _size(one))
    for one in found['kept']:
        yield '  kept       %s, %s' % (one['path'], _size(one))
    for path in found['before_rebuild']:
        yield '  old        %s, of before a rebuild; no longer needed: rm -r -- %s' % (path, shlex.quote(path))
    made_for = found['made_for']
    if 'python' in made_for:
        yield '  made for   Python %s, image %s' % (made_for['python'], made_for.get('image', 'unknown'))
    for name in made_for['differs']:
        yield '             which is not the %s of the module' % ('Python' if name == 'python' else 'image')
    if found['packages']['asked'] or found['packages']['resolved']:
        yield '  packages   %(asked)d asked for, %(resolved)d recorded' % found['packages']
    for user in found['used_by']:
        yield '  used by    process %(pid)d: %(command)s (%(what)s)' % user
    for line in found['next']:
        yield '  next       ' + line


def _size(one):
    if 'files' in one:
        return '%s, %s' % (counted(one['files'], 'file'), human(one['bytes']))
    return '%s, %s' % (human(one['size'] or 0), one['problem'] or one['date'])


def _check(args):
    overlay, _ = _overlay(args, 'check')
    found = execute(overlay, state.check)
    tell(args, {'module': overlay.module, 'files': found}, _check_lines)
    return 1 if any(one['problem'] for one in found) else 0


def _check_lines(done, _):
    for one in done['files']:
        if one['problem']:
            yield 'DAMAGED  %s: %s' % (one['path'], one['problem'])
        else:
            listed = 'not listed: there is no unsquashfs' if one['entries'] is None else '%d entries' % one['entries']
            recorded = '' if one['recorded'] else '; nothing is recorded of it'
            yield 'ok       %s, %s%s' % (one['path'], listed, recorded)
    if not done['files']:
        yield '%s: nothing is packed' % done['module']


def _remove(args):
    overlay, root = _overlay(args, 'remove')
    parts = state.parts(overlay)
    if not parts:
        raise EasySIFError(overlay.where, 'there is nothing to remove', facts=[('directory', overlay.root)],
                           hint=overlay.command('status'))
    known = Belongings(overlay.module, layout.prefix_above(root, overlay.module))
    known.refuse_overlay_of_others(overlay.root, overlay.command('status'))
    if not args.dry_run:
        parts = execute(overlay, state.remove, args.force) if args.yes or _agreed(overlay, parts) else []
    would = 'would remove' if args.dry_run else 'removed'
    tell(args, {'module': overlay.module, 'removed': parts},
         lambda done, _: ['%s %s' % (would, path) for path in done['removed']] or ['nothing was removed'])
    return 0 if parts else 1


def _agreed(overlay, parts):
    """Ask and return the answer (bool)."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise EasySIFError(overlay.where, 'what you added is removed after a question only, and there is no terminal',
                           facts=[('directory', overlay.root)], hint=overlay.command('remove', '--yes'))
    print('remove %s? [y/N] ' % shlex.join(parts), end='', file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ('y', 'yes')
