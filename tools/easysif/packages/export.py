# SPDX-License-Identifier: GPL-2.0-only
"""Writes down what is in an overlay so that it can be had elsewhere: a lock file that plain pip reads."""

import re

from easysif import index
from easysif.errors import TOOL, EasySIFError
from easysif.packages.installers import Pip, reason, unreachable
from easysif.packages.pins import lock_file
from easysif.packages.target import known

#: what pip says where no index has a version
NOTHING = re.compile('^ERROR: (No matching distribution found|Could not find a version that satisfies)', re.MULTILINE)


def export(target, options=()):
    """Return the lock file of an overlay, packed or not (str), what is in it (list of Pin), and what has no hash there.

    The last is a requirement -> the reason (dict of str).

    :param target: the module (Target)
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :raises EasySIFError: there is nothing in it, or an index cannot be reached
    """
    found = target.look()
    if not found['packages']:
        raise EasySIFError(target.name, 'there are no packages in the overlay',
                           facts=[('directory', target.overlay.root)],
                           hint=target.typed('install', 'PACKAGE'))
    pins, reasons = known(found['packages'], target.recorded()[1]), {}
    missing = [pin for pin in pins if not pin.sha256 and not pin.direct]
    if missing:
        there, reasons = look_up(target, found['pip'], options, missing)
        pins = known(pins, there)
    reasons.update({pin.requirement: 'it comes from no index' for pin in pins if pin.direct and not pin.sha256})
    image = target.record['image']
    facts = {'module': target.name, 'image': '%s %s' % (image['reference'], image.get('digest') or
                                                        'sha256:' + image['sha256']), 'python': found['python']}
    return lock_file(pins, facts), pins, reasons


def look_up(target, version, options, pins):
    """Return what the index has of some versions (list of Pin), and of the others why not: requirement -> reason.

    :param target: the module (Target)
    :param version: the version of its pip (str), None where there is none
    :param options: for the index (sequence of str)
    :param pins: the packages (list of Pin)
    :raises EasySIFError: an index cannot be reached
    """
    if version is None:
        return [], dict.fromkeys((pin.requirement for pin in pins), 'the image has no pip that could ask')
    pip = Pip(target, version, options, protect=False)
    if not pip.reports:
        return [], dict.fromkeys((pin.requirement for pin in pins), 'pip %s does not tell, which 22.2 and newer do '
                                 '(pip install --upgrade pip)' % version)
    result, found = _ask(pip, pins)
    reasons = {}
    if result.status:  # one that is not there fails them all
        found = []
        for pin in pins:
            result, one = _ask(pip, [pin])
            found += one or ()
            if result.status:
                reasons[pin.requirement] = _why(target, result)
    return found or [], reasons


def _ask(pip, pins):
    return pip.install([pin.requirement for pin in pins], '--dry-run', '--no-deps', '--ignore-installed')


def _why(target, result):
    beyond = unreachable(result)
    if beyond:
        raise EasySIFError(target.name, 'the package index cannot be reached to ask for hashes, nothing was written',
                           facts=beyond, hint=index.HINT, exit_code=TOOL)
    return 'no index has it' if NOTHING.search(result.stderr) else 'pip says: ' + reason(result)
