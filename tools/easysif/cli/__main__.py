# SPDX-License-Identifier: GPL-2.0-only
"""``python -m easysif.cli``: the command without its console script, as in a clone."""

import sys

from easysif.cli import main

if __name__ == '__main__':
    sys.exit(main())
