# SPDX-License-Identifier: GPL-2.0-only
"""The command line of ``easysif``: one module for each group of sub-commands.

A group has ``register(subparsers)``, which adds its parsers and gives each ``set_defaults(run=function)``; the
function takes the parsed arguments and returns an exit code (None for 0).
"""

import argparse
import os
import sys
import traceback

from easysif import __version__, options
from easysif.cli import (authoring, catalogue, check, command, completion, config, doctor, examples, image, job, kernel,
                         list, node, overlay, pin, refresh, remove, show, site, store, test, upgrade, verify)
from easysif.errors import TOOL, EasySIFError

GROUPS = (list, show, verify, refresh, upgrade, overlay, image, command, job, node, kernel, remove, authoring, check,
          catalogue, pin, store, config, site, doctor, test, completion)


class Parser(options.Parser):
    """A parser that knows --debug at every level.

    Where it ``is_mixed``, options may stand between the words of a list. Where it ``has_command``, its list ``command``
    ends with what follows the first ``--``, as that is: argparse would take another ``--`` out of it.
    """

    is_mixed = has_command = is_asked = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_argument('--debug', action='store_true', default=argparse.SUPPRESS,
                          help='show where in the program an error comes from')

    def parse_known_args(self, args=None, namespace=None):
        """Return the namespace, and an empty list: nothing may be left.

        :raises EasySIFError: something is
        """
        if self.is_asked:  # by argparse itself, for a list with options between its words
            return super().parse_known_args(args, namespace)
        self.is_asked = True
        try:
            found, left = self._parse(args, namespace)
        finally:
            self.is_asked = False
        if left:
            wants_mark = self.has_command and '--' not in args
            self.refuse(left, *['put -- before the command, as in: %s --help' % self.prog] * wants_mark)
        return found, left

    def _parse(self, args, namespace):
        if self.has_command and '--' in args[:-1]:
            end = args.index('--') + 1
            found, left = super().parse_known_args([*args[:end], 'COMMAND'], namespace)
            found.command[-1:] = args[end:]
            return found, left
        if self.is_mixed:
            return self.parse_known_intermixed_args(args, namespace)
        return super().parse_known_args(args, namespace)


def run(argv=None):
    """Run the command line and return its exit code (int): 0, 1 input, 2 usage, 3 a tool or network that failed.

    :param argv: arguments without the command (list of str), those of the process where None
    """
    argv = sys.argv[1:] if argv is None else argv
    debug = '--debug' in argv
    for name in ('stdout', 'stderr'):
        stream = getattr(sys, name) or open(os.devnull, 'w')  # None where who started us has closed it
        setattr(sys, name, stream)
        stream.reconfigure(errors='backslashreplace')  # a name may hold anything, and the locale of a job be plain
    try:
        parser = _parser()
        completion.answer(parser)
        args = parser.parse_args(argv)
        code = args.run(args) or 0
        sys.stdout.flush()  # here, where a closed pipe can still be told from a success
        return code
    except SystemExit as err:  # argparse, after --help and --version
        return err.code or 0
    except EasySIFError as err:
        if debug:
            traceback.print_exc()
        print('error: %s' % err, file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as err:
        if debug:
            traceback.print_exc()
        print('error: %s' % EasySIFError('easysif', 'an error that is not yours (%s: %s)' % (type(err).__name__, err),
                                         hint='run it again with --debug, and report what it prints'), file=sys.stderr)
        return TOOL


def _parser():
    parser = Parser(prog='easysif', description='Container images as software modules.')
    parser.add_argument('--version', action='version', version='easysif %s' % __version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    for group in GROUPS:
        group.register(commands)
    examples.add_to(parser)
    return parser
