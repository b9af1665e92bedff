# SPDX-License-Identifier: GPL-2.0-only
"""The packages that a user adds to a module: installed into its overlay, recorded, written down, made anew elsewhere.

pip (or uv) does the work, inside the image, in the virtual environment of the overlay. What the recipe says that the
image brings is protected from being hidden by another build of it.
"""
