# SPDX-License-Identifier: GPL-2.0-only
"""Command lines: a parser that tells of wrong usage in the form of all our messages."""

import argparse
import difflib

from easysif.errors import USAGE, EasySIFError


class Parser(argparse.ArgumentParser):
    """A parser for which options are never cut short."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """Return the namespace.

        :raises EasySIFError: what is typed cannot be understood
        """
        found, left = self.parse_known_args(args, namespace)
        if left:
            self.refuse(left)
        return found

    def refuse(self, left, *hints):
        """Raise what is wrong with arguments that nothing is known of.

        :param left: the arguments (list of str)
        :param hints: more of what can be done (str)
        :raises EasySIFError: always
        """
        options = [word.partition('=')[0] for word in left if word.startswith('--')]
        near = difflib.get_close_matches(options[0], self._option_string_actions, n=1) if options else []
        hints = [*("did you mean '%s'?" % one for one in near), *hints] or ['%s --help' % self.prog]
        raise EasySIFError(self.prog, 'unrecognized arguments: %s' % ' '.join(left), hint='; '.join(hints),
                           exit_code=USAGE)

    def error(self, message):
        """Raise what is wrong with the command line.

        :raises EasySIFError: always
        """
        raise EasySIFError(self.prog, message, hint='%s --help' % self.prog, exit_code=USAGE)
