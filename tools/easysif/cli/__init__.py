# SPDX-License-Identifier: GPL-2.0-only
"""The command ``easysif``: `main` reads the command line with command_line.py, everything else is in the library."""

import signal


def main(argv=None):
    """Run the command line and return its exit code (int): 0, 1 input, 2 usage, 3 a tool or network that failed.

    :param argv: arguments without the command (list of str), those of the process where None
    """
    is_pythons = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_pythons:  # the rest takes a moment to be read, in which nothing is begun: Ctrl-C just ends us
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from easysif.cli import command_line
    if is_pythons:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return command_line.run(argv)
