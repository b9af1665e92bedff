# SPDX-License-Identifier: GPL-2.0-only
"""``easysif command``: single executables of an image in a directory on PATH, listed, and removed without a trace."""

import dataclasses
import json
import os
import shlex
import shutil
import sys

from easysif import site
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped
from easysif.running.commands import Commands, usual_directory
from easysif.terminal import Line
from easysif.text import table


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('command', help='single commands of an image on PATH', description=(
        'Single commands of images, in a directory on PATH. They run inside the image, without any module.'))
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')

    add = commands.add_parser('add', help='make commands of an image', description=(
        'Make commands of an image: a SIF file or a reference, which is fetched, verified and kept in '
        '~/.local/share/easysif/commands; or of an installed module, whose wrappers they are.'))
    add.add_argument('image', metavar='IMAGE|MODULE', help='FILE.sif, docker://HOST/NAME:TAG, … or an installed module')
    add.add_argument('names', metavar='NAME', nargs='+', help='a command inside; NEW=NAME calls it NEW')
    add.add_argument('--to', metavar='DIR', help='where to put them (~/.local/bin)')
    add.add_argument('--needs', metavar='WORD,WORD', default='',
                     help='what the site must provide to the image, such as nvidia-gpu')
    add_prefix(add)
    add.set_defaults(run=_add)

    show = commands.add_parser('list', help='list your commands', description='List your commands.')
    show.set_defaults(run=_list)

    remove = commands.add_parser('remove', help='remove commands, and images without any', description=(
        'Remove commands. An image that was fetched or copied for them goes with the last one.'))
    remove.add_argument('names', metavar='OWN', nargs='+', help='its name, or its path')
    remove.set_defaults(run=_remove)
    for one in (add, show, remove):
        one.add_argument('--json', action='store_true', help='print the result as JSON')


def _commands(prefix=None):
    return Commands(site.resolve().site, prefix, lambda line: print(escaped(line), file=sys.stderr, flush=True))


def _add(args):
    directory = os.path.abspath(args.to or usual_directory())
    progress = Line(quiet=args.json)
    progress.show('looking at %s' % escaped(args.image))
    try:
        done, notes = _commands(prefix_of(args)).add(
            args.image, args.names, directory, list(filter(None, args.needs.split(','))))
    finally:
        progress.clear()
    notes += _about_path(directory, done)
    if args.json:
        print(json.dumps({'commands': list(map(dataclasses.asdict, done)), 'notes': notes}, indent=2))
        return
    for one in done:
        print(escaped('%s: runs %s in %s' % (one.path, os.path.basename(os.readlink(one.path)), one.file)))
    for note in notes:
        print(note, file=sys.stderr)


def _about_path(directory, done):
    """Return what the user has to know of PATH (list of str)."""
    if directory not in [os.path.abspath(one) for one in os.environ.get('PATH', '').split(os.pathsep) if one]:
        return ['warning: %s is not on PATH\nhint: export PATH=%s:"$PATH"' % (
            escaped(directory), shlex.quote(directory))]
    found = {one.path: shutil.which(one.name) for one in done}
    return ['warning: another one comes first on PATH: %s\nhint: export PATH=%s:"$PATH"' % (
        escaped(other), shlex.quote(directory)) for path, other in found.items()
            if other and os.path.abspath(other) != path]


def _list(args):
    found = _commands().all()
    if args.json:
        print(json.dumps({'commands': list(map(dataclasses.asdict, found))}, indent=2))
    elif found:
        rows = [{'command': one.path, 'state': one.state, 'image': one.image} for one in found]
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print('\n'.join(table([{name: name for name in rows[0]}, *rows], 'image', width)))
    else:
        print('no commands; make one: easysif command add IMAGE NAME')


def _remove(args):
    done, images = _commands().remove(args.names)
    if args.json:
        print(json.dumps({'commands': list(map(dataclasses.asdict, done)), 'images': images}, indent=2))
        return
    for one in done:
        print(escaped('removed %s' % one.path))
    for image in images:
        print(escaped('removed the image, as no command of it is left: %s' % image))
