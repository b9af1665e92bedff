# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S -B DIRECTORY join|keep|launch ARG..., where DIRECTORY is that of this file

Images that the processes of a job step, or of a job, on a node share: see join.py, keeper.py and launch.py.
"""

import sys

if __name__ == '__main__':
    if sys.argv[1] == 'keep':
        from keeper import main
    elif sys.argv[1] == 'launch':
        from launch import main
    else:
        from join import main
    main(*sys.argv[2:])
