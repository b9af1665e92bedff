# SPDX-License-Identifier: GPL-2.0-only
"""The files that EasySIF ships beside its code."""

import os

import easysif
from easysif.errors import EasySIFError

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
HELPERS = os.path.join(DIRECTORY, 'helpers')


def helper(name):
    """Return the path of a shipped helper file (str)."""
    return os.path.join(HELPERS, name)


def helper_text(name):
    """Return the text of a shipped helper file (str)."""
    with open(helper(name), encoding='utf-8') as handle:
        return handle.read()


def check_version(version, path):
    """Make sure that an easyblock is of this library's version.

    :param version: that of the easyblock (str)
    :param path: its file (str)
    :raises EasySIFError: it is of another one
    """
    if version != easysif.__version__:
        raise EasySIFError(os.path.basename(path), 'easyblock and library are of different versions',
                           facts=[('easyblock', '%s  (%s)' % (version, path)),
                                  ('library', '%s  (%s)' % (easysif.__version__, easysif.__file__))],
                           hint='unset PYTHONPATH, or source tools/env.sh of one clone')
