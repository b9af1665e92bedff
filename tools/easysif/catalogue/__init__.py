# SPDX-License-Identifier: GPL-2.0-only
"""The catalogue: a static site with a page for each recipe, made by mkdocs with the theme Material.

``entries`` gathers what is told, ``pages`` writes it as Markdown from the files in ``templates``, ``website`` has
mkdocs make the site and puts it in its place. Only ``pages`` imports what the library itself can do without.
"""
