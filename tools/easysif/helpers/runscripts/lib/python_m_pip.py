# SPDX-License-Identifier: GPL-2.0-only
"""Usage: read by Python at its start, from easysif.pth in a virtual environment

Has ``python -m pip`` in the environment run pip_main.py, as its script ``pip`` does. Runs under every Python that has
venv, so it uses old syntax only.
"""

import sys


def is_for_pip(words):
    """Tell whether a command line of Python is ``python [OPTION...] -m pip ...`` (bool).

    :param words: the command line (list of str)
    """
    words = iter(words[1:])
    for word in words:
        if word[:1] != '-' or word == '-':  # a script
            return False
        if word == '--check-hash-based-pycs':
            next(words, None)
        for number, letter in enumerate(word[1:], 2) if word[:2] != '--' else ():
            if letter == 'c':
                return False
            if letter in 'mWX':  # with a value, in the same word or the next
                value = word[number:] or next(words, '')
                if letter == 'm':
                    return value == 'pip'
                break
    return False


def command_line():
    """Return the command line of this Python, which sys.argv does not have while it starts (list of str)."""
    if hasattr(sys, 'orig_argv'):
        return sys.orig_argv
    with open('/proc/self/cmdline', 'rb') as handle:
        return handle.read().decode('utf-8', 'replace').split('\0')[:-1]


def main():
    """See that the module that is run for pip is ours."""
    from importlib.machinery import ModuleSpec, SourceFileLoader

    class Loader(SourceFileLoader):
        """Leaves nothing compiled in the installation."""

        def set_data(self, *_, **__):
            """Keep nothing."""

    class Finder(object):
        """Finds one module, once: pip_main.py then runs that of pip itself."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            """Return where the module is that Python runs for ``-m pip``."""
            if name != 'pip.__main__':
                return None
            sys.meta_path.remove(Finder)
            place = '/runscripts/lib/pip_main.py'
            spec = ModuleSpec(name, Loader(name, place), origin=place)
            spec.has_location = True
            return spec
    sys.meta_path.insert(0, Finder)


if is_for_pip(command_line()):
    main()
