# SPDX-License-Identifier: GPL-2.0-only
"""What a user means where an image or a module may be named."""

import os
import re

from easysif import installed

REFERENCE = re.compile('[a-z][a-z-]+:')


def is_image(word, prefix):
    """Tell whether a word means an image and no installed module (bool).

    A reference, FILE.sif and what begins as a path are images. Any other file of this directory is one only where no
    module is so called: what happens to lie there must not hide it.

    :param prefix: EasyBuild's install path (callable that returns a str)
    """
    if REFERENCE.match(word) or word.endswith('.sif') or word.startswith(('/', './', '../')):
        return True
    return os.path.isfile(word) and not installed.meant(word, installed.modules(prefix()))
