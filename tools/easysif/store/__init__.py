# SPDX-License-Identifier: GPL-2.0-only
"""A site's image store: a plain directory of SIF files, named as recipes name them, each known by its digest.

``contents`` is what is in it, ``lookup`` finds an image in it for an installation, ``add`` puts images in, ``usage``
tells which modules need them, ``upkeep`` verifies and clears out.
"""
