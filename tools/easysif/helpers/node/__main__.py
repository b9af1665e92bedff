# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S -B DIRECTORY join|keep ARG..., where DIRECTORY is that of this file

Images that the processes of a job step on a node share: see join.py and keeper.py.
"""

import sys

if __name__ == '__main__':
    if sys.argv[1] == 'keep':
        from keeper import main
    else:
        from join import main
    main(*sys.argv[2:])
