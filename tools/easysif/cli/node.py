# SPDX-License-Identifier: GPL-2.0-only
"""``easysif node-exec``: a command in an image that all processes of a job on a node share."""

from easysif import run, site
from easysif.cli.common import add_prefix, prefix_of
from easysif.running import node


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser(
        'node-exec', help='run a command in an image that is mounted once a node', description=(
            'Become a command inside an image that all processes of this job step on this node share: the first one '
            'mounts it, the last one takes that back. With a module, the command is one of its own or any of the '
            'image; binds, GPUs and packages are those of the module.'))
    parser.add_argument('what', metavar='IMAGE|MODULE', help='an installed module, or a SIF file')
    parser.add_argument('command', metavar='COMMAND', nargs='+', help='what runs, with its arguments, after --')
    parser.add_argument('--json', action='store_true', help=(
        'before it runs, say in one line of JSON on standard error what is shared'))
    add_prefix(parser)
    parser.set_defaults(run=_run)
    parser.has_command = True


def _run(args):
    run.become(node.argv(args.what, args.command, site.resolve().site, lambda: prefix_of(args), args.json))
