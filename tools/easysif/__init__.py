# SPDX-License-Identifier: GPL-2.0-only
"""EasySIF: installs container images as software modules. The library; it never imports easybuild."""

__version__ = '0.1.0'
