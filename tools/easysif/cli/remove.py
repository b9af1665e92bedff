# SPDX-License-Identifier: GPL-2.0-only
"""``easysif remove``: takes an installed module away."""

import dataclasses
import json
import os
import shlex
import sys

from easysif import installed
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import EasySIFError, escaped
from easysif.remove import Removal
from easysif.running import jupyter, kernels
from easysif.text import human


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('remove', help='remove an installed module', description=(
        'Remove an installed module: its module file, the image and every file that was installed, and nothing else. '
        'Files that others put there stay and are named. Your overlay, the packages that you added, stays and is '
        'named, unless --overlay is given.'))
    parser.add_argument('module', metavar='MODULE', help='name/version, or the name where one version is installed')
    add_prefix(parser)
    parser.add_argument('--overlay', action='store_true', help='remove your own overlay as well, after a question')
    parser.add_argument('--yes', action='store_true', help='remove the overlay without a question')
    parser.add_argument('--json', action='store_true', help='print what was removed as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    removal = Removal(args.module, prefix_of(args), args.overlay)
    if args.overlay and removal.overlay and not args.yes and not _agreed(removal):
        print('nothing was removed')
        return 1
    done = removal.run()
    done.notes += ['the kernel %s of Jupyter no longer starts; to remove it: easysif kernel remove %s%s' % (
        kernel.name, done.module, jupyter.option(kernel.directory)) for kernel in kernels.of_installation(done.root)]
    if args.json:
        print(json.dumps(dataclasses.asdict(done), indent=2))
    else:
        for line in _lines(done):
            print(escaped(line))
    return 0


def _agreed(removal):
    """Ask for the overlay and return the answer (bool)."""
    what = '%s, %s' % (removal.overlay, _size(removal.overlay_size))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise EasySIFError(removal.name, 'the overlay is removed after a question only, and there is no terminal',
                           facts=[('overlay', what)],
                           hint='easysif remove %s --overlay --yes%s' % (
                               removal.name, installed.option(removal.prefix)))
    print(escaped('remove %s and what you added to it, %s? [y/N] ' % (removal.name, what)), end='', file=sys.stderr,
          flush=True)
    return sys.stdin.readline().strip().lower() in ('y', 'yes')


def _lines(done):
    if done.gone is None:
        yield '%s: removed what an earlier removal had left' % done.module
    else:
        yield '%s: removed %s' % (done.module, _size(done.gone))
    for path in done.foreign:
        yield 'kept  %s, which is not ours' % os.path.join(done.root, path)
    if done.overlay:
        size = _size(done.overlay_size)
        yield ('your overlay is removed as well: %s, %s' % (done.overlay, size) if done.overlay_removed else
               'kept  your overlay %s, %s; to remove it: rm -r -- %s' % (done.overlay, size, shlex.quote(done.overlay)))
    yield from done.notes
    if done.module in os.environ.get('LOADEDMODULES', '').split(':'):
        yield 'it is loaded in this shell: module unload %s' % done.module


def _size(size):
    return '%d file%s, %s' % (size.files, '' if size.files == 1 else 's', human(size.size))
