# SPDX-License-Identifier: GPL-2.0-only
"""Adds packages to an overlay, and records what was asked for and what that became."""

import os

from easysif import files
from easysif.errors import EasySIFError
from easysif.overlay import environment
from easysif.overlay.place import discard
from easysif.overlay.recorded import update_record
from easysif.overlay.state import made_for
from easysif.packages.asked import merged, requirements
from easysif.packages.copied import Copy
from easysif.packages.installers import EXACTLY, UV_CACHE, Pip, Uv, failed
from easysif.packages.target import known, to_record


def install(target, lines, options=(), installer='pip', upgrade=False):
    """Install requirements into an overlay, under its lock, all of them or nothing; return what was done (dict).

    ``installed`` is what the virtual environment has now and had not before, ``asked`` and ``resolved`` what is
    recorded: lists of dict, but for ``asked`` (list of str).

    :param target: the module (Target)
    :param lines: requirements as in a file (list of str)
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :param installer: ``pip`` or ``uv`` (str)
    :param upgrade: take newer versions of what is there (bool)
    :raises EasySIFError: it cannot be done
    """
    with target.alone() as held:
        before = _look_first(target)
        with target.beside() as beside:
            copy = Copy(target.host_venv, os.path.join(beside, target.venv_name), target.name)
            with target.using(copy.path, target.venv):
                reported = _let_install(target, before, lines, options, installer, upgrade)
                discard(os.path.join(copy.path, UV_CACHE))
                record, new = _found(target, requirements(lines), before['packages'], reported)
            held.check()
            if reported == []:
                update_record(target.overlay.root, packages=record)
            else:
                copy.settle()
                old = os.path.join(beside, 'old')
                environment.publish(target.overlay.root, copy.path, target.host_venv, old, packages=record)
                copy.see_off(old, files.free_name(environment.kept(target.overlay.root)))
        return {'module': target.name, **record, 'installed': new}


def would_install(target, lines, options=(), upgrade=False):
    """Return what `install` would do, as pip tells it, in the same form (dict); no package and no record changes.

    :param target: the module (Target)
    :param lines: requirements as in a file (list of str)
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :param upgrade: take newer versions of what is there (bool)
    :raises EasySIFError: it cannot be done, or this pip cannot tell
    """
    with target.alone():
        before = _look_first(target)
        pip = Pip(target, before['pip'], options)
        if not pip.reports:
            raise EasySIFError(target.name, 'this pip cannot tell what it would install',
                               facts=[('pip', before['pip'])], hint=target.typed('install', '--upgrade', 'pip'))
        result, reported = pip.install(lines, '--dry-run', *(['--upgrade'] if upgrade else []))
        if result.status:
            raise failed(target, result, 'pip', requirements(lines))
        former, resolved = target.recorded()
    then = {pin.key: pin for pin in [*before['packages'], *reported] if pin.key != 'pip'}
    record = to_record(merged(former, requirements(lines)), known(then.values(), resolved))
    return {'module': target.name, **record, 'installed': [pin.recorded() for pin in reported]}


def add(target, lines, asked):
    """Install requirements with pip into the environment itself, for who has the lock and a copy of it.

    :param target: the module (Target)
    :param lines: requirements as in a file (list of str)
    :param asked: what is recorded as asked for (list of str)
    :raises EasySIFError: it cannot be done
    """
    before = _look_first(target)
    reported = _let_install(target, before, lines, (), 'pip', False)
    update_record(target.overlay.root, packages=_found(target, asked, before['packages'], reported)[0])


def _look_first(target):
    refuse_other_python(target)
    return look(target)


def _let_install(target, before, lines, options, installer, upgrade):
    """Install requirements; return what the installer tells of it (list of Pin), None where it tells nothing."""
    more = ['--upgrade'] if upgrade else []
    if installer == 'uv':
        return _by_uv(target, before, lines, options, more)
    result, reported = Pip(target, before['pip'], options).install(lines, *more)
    if result.status:
        raise failed(target, result, 'pip', requirements(lines))
    return reported


def _by_uv(target, before, lines, options, more):
    """Let pip, which sees the packages of the image, choose, and uv install that; return as `_let_install`."""
    uv = Uv(target, options)
    if before['pip'] is None:
        result, reported = uv.install(lines, *more), None
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
        result = uv.install([pin.line for pin in wanted], '--no-deps', *more, **pip.index(), **EXACTLY)
    if result.status:
        raise failed(target, result, 'uv', requirements(lines))
    return reported


def _found(target, asked, before, reported):
    """Return what is recorded of packages now (dict), and those of them that are new (list of dict).

    :param asked: what was asked for now (list of str)
    :param before: what was there before (list of Pin)
    :param reported: what the installer tells (list of Pin or None)
    """
    former, resolved = target.recorded()
    now = known(look(target)['packages'], reported or [], resolved)
    had = {(pin.key, pin.version) for pin in before}
    new = [pin for pin in now if (pin.key, pin.version) not in had]
    new += [pin for pin in reported or () if pin.key == 'pip']  # of which nothing is recorded
    return to_record(merged(former, asked), now), [pin.recorded() for pin in new]


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
