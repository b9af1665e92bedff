# SPDX-License-Identifier: GPL-2.0-only
"""``easysif completion``: what a shell needs to complete easysif, and the names that it offers."""

import argparse
import json
import os

from easysif import check, installed
from easysif.cli.common import prefix_of
from easysif.errors import EasySIFError
from easysif.running.commands import Commands

SHELLS = ('bash', 'zsh', 'fish')


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('completion', help='let the shell complete easysif', description=(
        'Print what makes a shell complete sub-commands, options, modules and recipes.'))
    parser.add_argument('shell', choices=SHELLS, help='the shell')
    parser.add_argument('--json', action='store_true', help='print the shell and the script as JSON')
    parser.set_defaults(run=_run)


def answer(parser):
    """Answer a shell that asks what may come next, and end; return where none asks.

    :param parser: the parser of easysif (Parser)
    """
    if '_ARGCOMPLETE' not in os.environ:
        return
    import argcomplete  # here, as everybody else can do without it
    _offer(parser, argcomplete.FilesCompleter())
    argcomplete.autocomplete(parser, always_complete_options='long')


def _run(args):
    import argcomplete
    script = argcomplete.shellcode(['easysif'], shell=args.shell)
    print(json.dumps({'shell': args.shell, 'script': script}, indent=2) if args.json else script)


def _offer(parser, files):
    """Have the arguments of a parser and of its sub-commands offer what they stand for."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                _offer(one, files)
        elif isinstance(action.metavar, str) and {'MODULE', 'RECIPE', 'OWN'} & set(action.metavar.split('|')):
            action.completer = _completer(action.metavar.split('|'), files)


def _completer(kinds, files):
    """Return what offers words for an argument that may be of several kinds, as RECIPE (callable)."""
    lists = {'MODULE': _modules, 'RECIPE': _recipes, 'OWN': _commands}

    def complete(prefix, **kwargs):
        words = [word for kind in kinds if kind in lists for word in lists[kind](**kwargs)]
        return words if set(kinds) <= {'MODULE', 'OWN'} else [*words, *files(prefix, **kwargs)]
    return complete


def _modules(parsed_args, **_):
    """Return the modules that are installed, by full name (list of str)."""
    try:
        return sorted(installed.modules(prefix_of(argparse.Namespace(prefix=getattr(parsed_args, 'prefix', None)))))
    except (EasySIFError, OSError):
        return []  # there is nothing to offer, and nobody to read why


def _commands(**_):
    """Return the commands that the user has made (list of str)."""
    try:
        return [one.name for one in Commands(None, None).all()]
    except EasySIFError:
        return []


def _recipes(**_):
    try:
        return [os.path.basename(path) for path in check.find()]
    except EasySIFError:
        return []
