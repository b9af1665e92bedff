# SPDX-License-Identifier: GPL-2.0-only
"""``easysif node-exec`` and ``node-hold``: an image that the processes of a job on a node share."""

import os

from easysif import run, site
from easysif.cli.common import add_prefix, prefix_of
from easysif.running import node


def register(subparsers):
    """Add the commands."""
    parser = subparsers.add_parser(
        'node-exec', help='run a command in an image that is mounted once a node', description=(
            'Become a command inside an image that all processes of this job step on this node share: the first one '
            'mounts it, the last one takes that back. With a module, the command is one of its own or any of the '
            'image; binds, GPUs and packages are those of the module.'))
    hold = subparsers.add_parser(
        'node-hold', help='have all steps of a job share an image', description=(
            'Mount an image on all nodes of this job of Slurm until it ends, so that all of its steps share it, and '
            'not only the processes of each. Those that share are started as for one step: by node-exec, or by '
            'wrappers with EASYSIF_SHARE=node.'))
    for one in (parser, hold):
        one.add_argument('what', metavar='IMAGE|MODULE', help='an installed module, or a SIF file')
        add_prefix(one)
    parser.add_argument('command', metavar='COMMAND', nargs='+', help='what runs, with its arguments, after --')
    parser.add_argument('--json', action='store_true', help=(
        'before it runs, say in one line of JSON on standard error what is shared'))
    parser.set_defaults(run=_run)
    parser.has_command = True
    hold.add_argument('--json', action='store_true', help='print the result as JSON')
    hold.set_defaults(run=_hold)


def _run(args):
    run.become(node.argv(args.what, args.command, site.resolve().site, lambda: prefix_of(args), args.json))


def _hold(args):
    run.become(node.hold(args.what, site.resolve().site, lambda: prefix_of(args), os.environ, args.json))
