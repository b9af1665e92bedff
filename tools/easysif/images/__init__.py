# SPDX-License-Identifier: GPL-2.0-only
"""Images: what a recipe names, where it comes from, and how it becomes one SIF file."""
