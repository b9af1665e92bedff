# SPDX-License-Identifier: GPL-2.0-only
"""``easysif site apply``: writes what the site provides, so that every installed module sees it."""

import os

from easysif import compressors, site_files
from easysif.errors import escaped
from easysif.installed import default_prefix
from easysif.site import resolve


def register(subparsers):
    """Add the commands."""
    parser = subparsers.add_parser('site', help='apply the settings of the site to installed modules')
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    apply = commands.add_parser('apply', help='write site.lua and site.sh',
                                description='Write what the site provides to site.lua and site.sh, which modules read.')
    apply.add_argument('--prefix', metavar='DIR', help="EasyBuild's install path (default: as EasyBuild's environment"
                                                       ' variables say, else ~/.local/easybuild)')
    apply.set_defaults(run=_apply)


def _apply(args):
    prefix, site = os.path.abspath(args.prefix or default_prefix()), resolve().site
    changed = site_files.apply(prefix, site, compressors.refused(prefix, site))
    for path in changed:
        print('written  %s' % escaped(path))
    if not changed:
        print('nothing to change')
