# SPDX-License-Identifier: GPL-2.0-only
"""Recipes that are written for people: from an image, from an older version, from a recipe of SHPC."""
