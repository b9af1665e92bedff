# SPDX-License-Identifier: GPL-2.0-only
"""The files that EasySIF ships beside its code."""

import os

DIRECTORY = os.path.dirname(os.path.abspath(__file__))
HELPERS = os.path.join(DIRECTORY, 'helpers')


def helper(name):
    """Return the path of a shipped helper file (str)."""
    return os.path.join(HELPERS, name)


def helper_text(name):
    """Return the text of a shipped helper file (str)."""
    with open(helper(name), encoding='utf-8') as handle:
        return handle.read()
