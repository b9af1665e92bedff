# SPDX-License-Identifier: GPL-2.0-only
"""``easysif catalogue``: a static site of recipes."""

import json
import os

from easysif import site
from easysif.catalogue import entries, website
from easysif.check import find
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped
from easysif.terminal import Line
from easysif.text import counted


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('catalogue', help='make a site of the recipes', description=(
        'Make a static site with a page for each recipe. It is put in its place whole; an earlier one is replaced.'))
    parser.add_argument('recipes', nargs='*', metavar='RECIPE',
                        help='a recipe file, a directory of them or the name of one of ours (all of ours)')
    parser.add_argument('--output', required=True, metavar='DIR', help='the directory of the site')
    parser.add_argument('--site', action='append', metavar='SITE', dest='sites',
                        help='the name or the file of a site that is shown; may be repeated (all that are shipped)')
    parser.add_argument('--json', action='store_true', help='print what was made as JSON')
    add_prefix(parser)
    parser.set_defaults(run=_run)
    parser.is_mixed = True


def _run(args):
    website.check_tool()
    from easysif.catalogue.pages import pages  # needs that tool
    website.check_place(os.path.realpath(args.output))
    named = dict(site.named(wanted, '--site') for wanted in args.sites or site.shipped())
    sites = {name: site.profile(path, name).site for name, path in named.items()}
    told = entries.gather(find(args.recipes), sites, prefix_of(args))
    progress = Line(quiet=args.json)
    progress.show('making %s' % counted(len(told), 'page'))
    try:
        website.make(pages(told, sites), args.output)
    finally:
        progress.clear()
    index = os.path.join(args.output, 'index.html')
    if args.json:
        print(json.dumps({'output': os.path.abspath(args.output), 'index': os.path.abspath(index), 'sites': list(sites),
                          'modules': [one.module for one in told]}, indent=2))
    else:
        print(escaped('catalogue of %s: %s' % (counted(len(told), 'module'), index)))
