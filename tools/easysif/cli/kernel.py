# SPDX-License-Identifier: GPL-2.0-only
"""``easysif kernel``: kernels of Jupyter that run in modules."""

import json
import re
import shutil
import sys

from easysif import installed
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import EasySIFError, escaped
from easysif.running import jupyter, kernels
from easysif.running.kernels import Kernels
from easysif.terminal import Line
from easysif.text import table


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('kernel', help='notebooks of Jupyter that run in a module', description=(
        'Kernels of Jupyter: notebooks that run inside the image of a module, with what you added to it.'))
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')

    add = commands.add_parser('add', help='let Jupyter offer a module', description=(
        'Make a kernel of a module, or make it anew. ipykernel has to be in its image or in your overlay.'))
    _add_module(add)
    add.add_argument('--name', metavar='WORD', help='what Jupyter calls it (default: from the name of the module)')
    add.add_argument('--display-name', metavar='TEXT', help='what users see (default: the name of the module)')
    add.add_argument('--env', metavar='NAME=VALUE', action='append', default=[],
                     help='a variable for the kernel; any number of them')
    add_prefix(add)
    add.set_defaults(run=_add)

    show = commands.add_parser('list', help='list the kernels of modules', description=(
        'List the kernels of modules wherever Jupyter looks for kernels, and which of them do not start any more.'))
    show.add_argument('module', metavar='MODULE', nargs='?', help='only those of one module')
    show.set_defaults(run=_list)

    remove = commands.add_parser('remove', help='remove the kernels of a module', description=(
        'Remove the kernels of a module, which need not be installed any more, and nothing else.'))
    _add_module(remove)
    remove.add_argument('--name', metavar='WORD', help='only the one that Jupyter calls so')
    remove.set_defaults(run=_remove)
    for one in (add, show, remove):
        where = one.add_mutually_exclusive_group()
        where.add_argument('--jupyter-prefix', metavar='DIR', help=(
            'those of the Jupyter that is installed in DIR, for all its users: DIR/share/jupyter/kernels'))
        where.add_argument('--sys-prefix', action='store_true', help=(
            'the same for the Python environment that is active in this shell'))
        one.add_argument('--json', action='store_true', help='print the result as JSON')


def _add_module(parser):
    parser.add_argument('module', metavar='MODULE', help='name/version, or the name where one version is installed')


def _place(args):
    """Return where the user wants kernels (Kernels)."""
    if args.sys_prefix:
        return Kernels(jupyter.environment_directory(), shared=True)
    if args.jupyter_prefix:
        return Kernels(jupyter.below(args.jupyter_prefix), shared=True)
    return Kernels(jupyter.user_directory())


def _environment(pairs):
    """Return variables as they were typed (dict of str)."""
    found = {}
    for pair in pairs:
        name, is_pair, value = pair.partition('=')
        if not is_pair or not re.fullmatch('[A-Za-z_][A-Za-z0-9_]*', name):
            raise EasySIFError('easysif kernel', '--env wants NAME=VALUE', facts=[('found', pair)],
                               hint='--env OMP_NUM_THREADS=4')
        found[name] = value
    return found


def _add(args):
    place, environment = _place(args), _environment(args.env)
    module, root = installed.find(prefix_of(args), args.module)
    progress = Line(quiet=args.json)
    progress.show('looking into %s' % escaped(module))
    try:
        found = kernels.look(module, root)
    finally:
        progress.clear()
    name = jupyter.name_of(module) if args.name is None else args.name
    kernel, was_there = place.add(name, module, root, args.display_name, environment, found['debugger'])
    if args.json:
        print(json.dumps({'kernel': kernel.told(), 'replaced': was_there, 'found': found}, indent=2))
        return
    print(escaped('%s: %s of Jupyter, "%s"' % (
        module, 'is the same kernel' if was_there else 'is now a kernel', kernel.display_name)))
    print(escaped('  directory  %s' % kernel.directory))
    print(escaped('  runs       ipykernel %(ipykernel)s of the %(from)s, Python %(python)s' % found))


def _found(args):
    """Return the places that the user means (list of Kernels)."""
    if args.sys_prefix or args.jupyter_prefix:
        return [_place(args)]
    return [Kernels(path) for path in jupyter.directories()]


def _list(args):
    found = [one for place in _found(args) for one in place.all()
             if not args.module or installed.means(args.module, one.module)]
    if args.json:
        print(json.dumps({'kernels': [one.told() for one in found]}, indent=2))
        return
    if not found:
        print('no kernels; make one: easysif kernel add MODULE')
        return
    rows = [{'kernel': one.name, 'state': 'broken' if one.problem else 'fine', 'module': one.module,
             'shown as': one.display_name, 'directory': one.directory} for one in found]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print('\n'.join(table([{name: name for name in rows[0]}, *rows], 'directory', width)))
    for one in found:
        if one.problem:
            print(escaped('%s: %s; to remove it: easysif kernel remove %s --name %s%s' % (
                one.name, one.problem, one.module, one.name, jupyter.option(one.directory))))


def _remove(args):
    place = _place(args)
    done = kernels.meant(place.all(), args.module, args.name)
    kept = place.remove(done)
    if args.json:
        print(json.dumps({'removed': [one.told() for one in done], 'kept': kept}, indent=2))
        return
    for one in done:
        print(escaped('removed %s' % one.directory))
    for path in kept:
        print(escaped('kept  %s, which is not ours' % path))
