# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I DIRECTORY make|unmake [ARG...]

Runs make-squashfs and unmake-squashfs from the copy of the library in an installation. A Python that is given the
directory runs this file, and looks for modules neither in the working directory nor where the user's variables say.
"""

import sys

from easysif.overlay.command import main

sys.exit(main())
