# SPDX-License-Identifier: GPL-2.0-only
"""The commands ``make-squashfs`` and ``unmake-squashfs``, and what ``easysif overlay`` has in common with them."""

import argparse
import json
import os
import sys

from easysif import files
from easysif.errors import EasySIFError, escaped, told
from easysif.options import Parser
from easysif.overlay.pack import Wishes, pack
from easysif.overlay.place import Overlay
from easysif.overlay.unpack import unpack
from easysif.text import counted, examples, human

#: settings of the site that a wrapper hands on
SITE = ('compressor', 'level', 'block', 'keep')
PATIENCE = 60  #: seconds in which who puts a virtual environment into its place is done with it


def add_common_options(parser, changes=True):
    """Give a parser the options that every command has.

    :param changes: whether the command changes something (bool)
    """
    parser.add_argument('--json', action='store_true', help='print what was done or found as JSON')
    if changes:
        parser.add_argument('--dry-run', action='store_true', help='change nothing, only say what would be done')
        parser.add_argument('--force', action='store_true', help='although processes may write to the overlay')


def add_pack_options(parser):
    """Give a parser the options of packing."""
    parser.add_argument('--replace', action='store_true',
                        help='pack the directory although there is a squashfs of other content, which is kept')
    parser.add_argument('--remove', action='store_true', help='remove the directory at the end')
    parser.add_argument('--verify', choices=('list', 'full'), default='list',
                        help='verify that every file is listed as it is (the default), or every byte as well')
    add_common_options(parser)


def add_unpack_options(parser):
    """Give a parser the options of unpacking."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument('--use-directory', action='store_true', help='use the directory that is there as it is')
    either.add_argument('--replace', action='store_true',
                        help='replace the directory that is there; it is kept as a squashfs file')
    add_common_options(parser)


def run_pack(overlay, args):
    """Pack and tell what was done."""
    wishes = Wishes(args.replace, args.remove, args.force, args.verify == 'full', args.dry_run)
    return tell(args, execute(overlay, pack, wishes), _packed)


def run_unpack(overlay, args):
    """Unpack and tell what was done."""
    return tell(args, execute(overlay, unpack, args.use_directory, args.replace, args.force, args.dry_run), _unpacked)


def execute(overlay, action, *args):
    """Do something with an overlay, in order to the end. What is made is as open as CONTAINERROOT, as by the wrappers.

    :param overlay: the overlay (Overlay)
    :param action: a function that takes it and further arguments
    :raises EasySIFError: it failed
    """
    overlay.set_umask()
    try:
        with files.ended_in_order():
            return action(overlay, *args)
    except OSError as err:
        raise told(err, overlay.where) from err


def tell(args, done, lines):
    """Print what was done. As JSON it says as well whether it was really done, where the command can only say it.

    :param args: the parsed arguments, of which ``json`` and ``dry_run`` count
    :param done: what JSON can hold (dict)
    :param lines: a function that turns it into lines for people; it is given whether it was really done as well
    """
    if args.json:
        print(json.dumps({'dry_run': args.dry_run, **done} if hasattr(args, 'dry_run') else done, indent=2))
    else:
        for line in lines(done, getattr(args, 'dry_run', False)):
            print(escaped(line))


def _packed(done, dry_run):
    size = '%s, %s' % (counted(done['files'], 'file'), human(done['bytes']))
    if not done['packed']:
        yield '%s %s, %s; all of it is in %s' % ('would remove' if dry_run else 'removed', done['directory'], size,
                                                 done['squashfs'])
        return
    if dry_run:
        yield 'would pack %s, %s, into %s' % (done['directory'], size, done['squashfs'])
    else:
        yield 'packed into %s (%s)' % (done['squashfs'], human(done['size']))
    if done['kept']:
        yield 'the former squashfs file %s kept as %s' % ('would be' if dry_run else 'is', done['kept'])
    yield from _pruned(done['pruned'], dry_run)
    if dry_run:
        if done['removed']:
            yield 'would remove %s' % done['directory']
    else:
        rest = 'is removed' if done['removed'] else 'is no longer used and may be removed'
        if not done['removed'] and not os.path.lexists(done['directory']):
            rest = 'is out of the way; what of it is somebody else\'s goes with the next command of theirs'
        yield 'now: module reload; the directory %s %s' % (done['directory'], rest)


def _unpacked(done, dry_run):
    if done['extracted']:
        what = 'would unpack %(squashfs)s into %(directory)s' if dry_run else 'unpacked'
    else:
        what = 'would use %(directory)s as it is' if dry_run else 'the directory is used as it is'
    if done['kept'] in done['pruned']:
        kept = 'would no longer be kept' if dry_run else 'is no longer kept'
    else:
        kept = ('would be kept as %(kept)s' if dry_run else 'is kept as %(kept)s') % done
    yield '%s; the squashfs file %s' % (what % done, kept)
    if done['kept_directory']:
        yield 'what the directory %s kept as %s' % (
            'holds now would be' if dry_run else 'held is', done['kept_directory'])
    yield from _pruned([path for path in done['pruned'] if path != done['kept']], dry_run)
    if not dry_run:
        yield 'now: module reload; pip install works again'


def _pruned(paths, dry_run):
    for path in paths:
        yield '%s: %s' % ('would no longer be kept' if dry_run else 'no longer kept', path)


def _finish(overlay, _):
    def hold(overlay):
        with overlay.alone(wait=PATIENCE):
            pass
    execute(overlay, hold)


#: what the help of each ends with
EXAMPLES = {
    'make': [('what it would do', 'make-squashfs --dry-run'),
             ('and without the directory, in which packages are added', 'make-squashfs --remove')],
    'unmake': [('the directory again, to add packages', 'unmake-squashfs')]}


def main(argv=None):
    """Run ``make-squashfs`` or ``unmake-squashfs`` for the wrapper, which knows the place; return the exit code (int).

    :param argv: ``make`` or ``unmake``, then the user's arguments and the wrapper's options (list of str); or
        ``finish``, by which a wrapper that misses the virtual environment has the one put there that is to be there
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    action = argv.pop(0) if argv else 'make'
    parser = Parser(prog=action + '-squashfs', description={
        'make': 'Packs the overlay of the loaded module into one read-only file; the directory stays.',
        'unmake': 'Unpacks the overlay of the loaded module, so that packages can be added again.'}.get(action),
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=examples(EXAMPLES.get(action, ())))
    {'make': add_pack_options, 'unmake': add_unpack_options, 'finish': lambda _: None}[action](parser)
    for option in ('containerroot', 'module', 'installation', *SITE):
        parser.add_argument('--' + option, help=argparse.SUPPRESS)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors='backslashreplace')
    try:
        args = parser.parse_args(argv)
        site = {name: getattr(args, name) for name in SITE if getattr(args, name)}
        overlay = Overlay(args.containerroot, args.module, args.module if action == 'finish' else parser.prog,
                          args.installation, site)
        {'make': run_pack, 'unmake': run_unpack, 'finish': _finish}[action](overlay, args)
    except EasySIFError as err:
        print('error: %s' % err, file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print('%s: interrupted; what is there is whole' % parser.prog, file=sys.stderr)
        return 130
    return 0
