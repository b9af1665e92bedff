# SPDX-License-Identifier: GPL-2.0-only
"""Adds packages to an overlay, and records what was asked for and what that became."""

import os

from easysif.errors import EasySIFError
from easysif.overlay.state import made_for
from easysif.packages.asked import merged, requirements
from easysif.packages.installers import NO_CONSTRAINT, Pip, Uv, failed
from easysif.packages.target import known


def install(target, lines, options=(), installer='pip', upgrade=False):
    """Install requirements into an overlay, under its lock; return what was done (dict).

    ``installed`` is what the virtual environment has now and had not before, ``asked`` and ``resolved`` what is
    recorded: lists of dict, but for ``asked`` (list of str).

    :param target: the module (Target)
    :param lines: requirements as in a file (list of str)
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :param installer: ``pip`` or ``uv`` (str)
    :param upgrade: take newer versions of what is there (bool)
    :raises EasySIFError: it cannot be done
    """
    with target.alone():
        return add(target, lines, options, installer, upgrade)


def add(target, lines, options=(), installer='pip', upgrade=False, asked=None):
    """As `install`, for who has the lock.

    :param asked: what is recorded as asked for (list of str), by default these lines
    """
    refuse_other_python(target)
    before = look(target)
    more = ['--upgrade'] if upgrade else []
    if installer == 'uv':
        reported = _by_uv(target, before, lines, options, more)
    else:
        result, reported = Pip(target, before['pip'], options).install(lines, *more)
        if result.status:
            raise failed(target, result, 'pip', requirements(lines))
    return note(target, requirements(lines) if asked is None else asked, before['packages'], reported or [])


def _by_uv(target, before, lines, options, more):
    """Let pip, which sees the packages of the image, choose, and uv install that; return what pip reports (list)."""
    uv = Uv(target, options)
    if before['pip'] is None:
        result, reported = uv.install(lines, *more), []
    else:
        pip = Pip(target, before['pip'], options)
        if not pip.reports:
            raise EasySIFError(target.name, 'this pip cannot tell uv what to install', facts=[('pip', before['pip'])],
                               hint=target.typed('install', '--with', 'pip', '…'))
        result, reported = pip.install(lines, '--dry-run', *more)
        if result.status:
            raise failed(target, result, 'pip', requirements(lines))
        wanted = reported or []
        if not wanted:
            return []
        result = uv.install([pin.line for pin in wanted], '--no-deps', *more, **pip.index(), **NO_CONSTRAINT)
    if result.status:
        raise failed(target, result, 'uv', requirements(lines))
    return reported


def note(target, asked, before, reported):
    """Record what is in the virtual environment now; return what `install` does.

    :param asked: what was asked for now (list of str)
    :param before: what was there before (list of Pin)
    :param reported: what the installer tells (list of Pin)
    """
    former, resolved = target.recorded()
    now = known(look(target)['packages'], reported, resolved)
    asked = merged(former, asked)
    target.note(asked, now)
    had = {(pin.key, pin.version) for pin in before}
    return {'module': target.name, 'asked': asked, 'resolved': [pin.recorded() for pin in now],
            'installed': [pin.recorded() for pin in now if (pin.key, pin.version) not in had]}


def refuse_other_python(target):
    """See that the overlay is for the Python of the image.

    :raises EasySIFError: it is for another one
    """
    made, python = made_for(target.overlay.root).get('python'), target.record['inside']['python']['version']
    if made and not (python + '.').startswith(made + '.') and os.path.isdir(target.host_venv):
        raise EasySIFError(target.name, 'the overlay is for another Python, packages cannot be added',
                           facts=[('made for', 'Python ' + made), ('the image has', 'Python ' + python)],
                           hint=target.typed('rebuild'))


def look(target):
    """Return what is in the virtual environment, which is there (dict): see Target.look.

    :raises EasySIFError: it is not, although the wrapper would have made it
    """
    found = target.look()
    if not found['exists']:
        raise EasySIFError(target.name, 'the virtual environment of the overlay could not be made',
                           facts=[('directory', target.host_venv)],
                           hint='module load %s; python --version, which says why' % target.name)
    return found
