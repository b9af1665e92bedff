# SPDX-License-Identifier: GPL-2.0-only
"""Writes down what is in an overlay so that it can be had elsewhere: a lock file that plain pip reads."""

from easysif.errors import EasySIFError
from easysif.packages.installers import Pip
from easysif.packages.pins import lock_file
from easysif.packages.target import known


def export(target, options=()):
    """Return the lock file of an overlay, packed or not (str), and what is in it (list of Pin).

    :param target: the module (Target)
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :raises EasySIFError: there is nothing in it
    """
    found = target.look()
    if not found['packages']:
        raise EasySIFError(target.name, 'there are no packages in the overlay',
                           facts=[('directory', target.overlay.root)],
                           hint=target.typed('install', 'PACKAGE'))
    pins = known(found['packages'], target.recorded()[1])
    missing = [pin for pin in pins if not pin.sha256 and not pin.direct]
    if missing and found['pip']:
        pins = known(pins, look_up(Pip(target, found['pip'], options, protect=False), missing))
    image = target.record['image']
    facts = {'module': target.name, 'image': '%s %s' % (image['reference'], image.get('digest') or
                                                        'sha256:' + image['sha256']), 'python': found['python']}
    return lock_file(pins, facts), pins


def look_up(pip, pins):
    """Return what the index has of some versions (list of Pin), without what it has not.

    :param pip: pip of a module (Pip)
    :param pins: the packages (list of Pin)
    """
    if not pip.reports:
        return []
    result, found = _ask(pip, pins)
    if result.status and len(pins) > 1:  # one that is not there fails them all
        found = [one for pin in pins for one in _ask(pip, [pin])[1] or ()]
    return found or []


def _ask(pip, pins):
    return pip.install([pin.requirement for pin in pins], '--dry-run', '--no-deps', '--ignore-installed')
