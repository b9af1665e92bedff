# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I DIRECTORY make|unmake|start-vnc|stop-vnc|vnc-info [ARG...]

Runs make-squashfs and other commands of ours from the copy of the library in an installation. A Python that is given
the directory runs this file, and looks for modules neither in the working directory nor where the user's variables say.
"""

import sys

if '-vnc' in sys.argv[1] or 'vnc-' in sys.argv[1]:
    from easysif.running.desktop.command import main
    sys.exit(main(sys.argv[1:]))
from easysif.overlay.command import main

sys.exit(main())
