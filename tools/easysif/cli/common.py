# SPDX-License-Identifier: GPL-2.0-only
"""What several sub-commands have in common: the option --prefix, the module whose overlay is meant."""

import os
import stat

from easysif import installed, layout, manifest, modes
from easysif.errors import EasySIFError


def add_prefix(parser):
    """Give a parser the option --prefix."""
    parser.add_argument('--prefix', metavar='DIR', help="EasyBuild's install path (default: as EasyBuild's environment"
                                                        ' variables say, else ~/.local/easybuild)')


def prefix_of(args):
    """Return the prefix that the user means (str), which need not be there unless it was named.

    :raises EasySIFError: what was named is no directory, or the user may not look into it
    """
    if args.prefix and not os.path.isdir(args.prefix):
        raise EasySIFError(args.prefix, 'there is no such directory', hint='easysif list --prefix DIR')
    prefix = os.path.abspath(args.prefix) if args.prefix else installed.easybuild_prefix()
    if os.path.isdir(prefix) and not os.access(prefix, os.R_OK | os.X_OK):
        info = os.stat(prefix)
        owner = modes.owner(info)
        raise EasySIFError(prefix, 'you may not look into this prefix',
                           facts=[('owner', owner), ('mode', stat.filemode(info.st_mode))],
                           hint='ask %s for a prefix that you may read, or name your own with --prefix DIR' % owner)
    return prefix


def add_overlay_module(parser):
    """Give a parser the module whose overlay is meant, and the option --prefix."""
    parser.add_argument('module', metavar='MODULE', nargs='?',
                        help='name/version, or the name where one version is installed (default: the loaded one)')
    add_prefix(parser)


def overlay_of(args):
    """Return the module whose overlay the user means, and where that is: name, installation, CONTAINERROOT (str).

    :param args: the parsed arguments, of which ``module`` and ``prefix`` count
    :raises EasySIFError: none is named or loaded, it is not installed, or it has no overlay
    """
    name, prefix = args.module, prefix_of(args)
    if not name:
        loaded = os.path.dirname(os.environ.get('RUNSCRIPTS', ''))  # only a module of ours that one works in sets it
        if not os.path.exists(os.path.join(loaded, 'easysif', 'module.sh')):
            raise EasySIFError('easysif overlay', 'no module is loaded that has an overlay',
                               hint='module load MODULE, or name it: easysif overlay status MODULE')
        name = manifest.read(loaded)['module']
        prefix = layout.prefix_above(loaded, name)
    name, root = installed.find(prefix, name)
    place = installed.overlay(root)
    if not place:
        raise EasySIFError(name, 'has no overlay', hint='its recipe gives no python_env: easysif show %s' % name)
    return name, root, place
