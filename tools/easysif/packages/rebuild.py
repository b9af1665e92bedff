# SPDX-License-Identifier: GPL-2.0-only
"""Makes the virtual environment of an overlay anew, with the same packages: elsewhere, for another image, after loss.

It is made beside, in a directory that is the overlay meanwhile, and takes the place of the old one at one moment. The
old one is kept.
"""

import glob
import os
import shlex

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.overlay import environment
from easysif.overlay.usage import refuse_if_used
from easysif.packages.installers import Pip, failed, reason, unreachable
from easysif.packages.pins import read_lock_file
from easysif.packages.target import PLACE, known, to_record
from easysif.run import failure


def wanted(target, lock=None):
    """Return the packages that make up an overlay (list of Pin) and where that is known from (str).

    What is in the virtual environment counts, with the hashes that were recorded; where there is nothing in it, as
    after loss, what was recorded.

    :param target: the module (Target)
    :param lock: a lock file or an overlay.json that says it instead (str)
    :raises EasySIFError: nobody knows of any
    """
    if lock:
        return read_lock_file(lock), lock
    recorded = target.recorded()[1]
    there = target.look()['packages'] if os.path.isdir(target.host_venv) else []
    if there:
        return known(there, recorded), target.host_venv
    if recorded:
        return recorded, os.path.join(target.overlay.root, 'overlay.json')
    raise EasySIFError(target.name, 'nothing is known of packages that were in the overlay',
                       facts=[('directory', target.overlay.root)],
                       hint='%s, where FILE is a lock file or an overlay.json' % target.typed('rebuild', '--from FILE'))


def rebuild(target, lock=None, options=(), partial=False, force=False):
    """Make the virtual environment anew; return what was done (dict).

    ``packages`` is what it holds (list of dict), ``changed`` what is another file than it was: requirement -> its name,
    ``missing`` what could not be had: requirement -> reason, ``kept`` where the old one is (str or None). Where
    something is missing nothing was changed (``rebuilt`` is false), unless it is to be rebuilt in part.

    :param target: the module (Target)
    :param lock: a lock file or an overlay.json (str), by default what is known of the overlay
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :param partial: whether a part is better than nothing (bool)
    :param force: do not look for processes that may write to the overlay (bool)
    :raises EasySIFError: it cannot be done
    """
    with target.alone() as held:
        is_first = not os.path.lexists(target.host_venv)
        pins, source = wanted(target, lock)
        if not force:
            refuse_if_used(target.overlay)
        os.makedirs(target.overlay.directory, exist_ok=True)
        with target.beside() as beside, target.using(beside, PLACE):
            pip = _new_venv(target, options)
            chosen, missing = choose(pip, pins)
            done = {'module': target.name, 'from': source, 'missing': missing, 'kept': None,
                    'rebuilt': not missing or partial,
                    'packages': [pin.recorded() for pin in chosen], 'changed': _changes(pins, chosen)}
            if done['rebuilt']:
                _fill(target, pip, chosen)
                files.sync(beside)
                held.check()
                asked = target.recorded()[0] or [pin.requirement for pin in pins]
                done['kept'] = _publish(target, beside, is_first, to_record(asked, chosen))
        return done


def _new_venv(target, options):
    """Make an empty virtual environment in the directory that is the overlay meanwhile, and return its pip (Pip)."""
    result = target.run([target.image_python, '-E', '-s', '/runscripts/lib/make_venv.py', target.venv])
    found = None if result.status else target.look()
    if not found or not found['exists']:
        raise EasySIFError(target.name, 'a new virtual environment could not be made', facts=failure(result).facts,
                           hint='df -h %s' % shlex.quote(target.overlay.directory), exit_code=TOOL)
    return Pip(target, found['pip'], options, protect=False)


def choose(pip, pins):
    """Return the packages as they can be had now (list of Pin), and what cannot: requirement -> reason (dict).

    The very files that are known come first; then another file of the same version, as there is for another Python.
    A file of the same name with another content is not taken.

    :param pip: pip of the new virtual environment (Pip)
    :param pins: the packages (list of Pin)
    """
    if not pip.reports:  # it tells nothing beforehand
        return pins, {}
    chosen, missing = [], {}
    for group in ([pin for pin in pins if pin.sha256], [pin for pin in pins if not pin.sha256]):
        found = _ask(pip, [pin.line for pin in group])[0] if group else []
        chosen += _one_by_one(pip, group, missing) if found is None else found
    return sorted(chosen, key=lambda pin: pin.key), missing


def _one_by_one(pip, pins, missing):
    """Return those packages that can be had (list of Pin), and add the others to what is missing."""
    others = {pin.key: pin for pin in _ask(pip, [pin.requirement for pin in pins])[0] or ()}
    chosen = []
    for pin in pins:
        found, result = others.get(pin.key), None
        if not found or found.sha256 not in (pin.sha256, *pin.others):
            exact, result = _ask(pip, [pin.line])
            found = exact[0] if exact else found
        if not found and pin.sha256:
            other, result = _ask(pip, [pin.requirement])
            found = other[0] if other else None
        if not found:
            missing[pin.requirement] = reason(result)
        elif _is_forged(pin, found):
            missing[pin.requirement] = 'the file is another one than it was: %s' % os.path.basename(pin.url)
        else:
            chosen.append(found)
    return chosen


def _ask(pip, lines):
    """Return what pip would install (list of Pin, None where it fails) and what it left (run.Result).

    :raises EasySIFError: an index cannot be reached
    """
    result, found = pip.install(lines, '--dry-run', '--no-deps', '--ignore-installed')
    if result.status and unreachable(result):
        raise failed(pip.target, result, 'pip', lines, before='nothing was changed; ')
    return found, result


def _is_forged(pin, found):
    """Tell whether a file that is found has the name of the one that is known, and is another one (bool)."""
    same = pin.url and found.url and os.path.basename(pin.url) == os.path.basename(found.url)
    return bool(same and pin.sha256 and found.sha256 not in (pin.sha256, *pin.others))


def _changes(pins, chosen):
    """Return which packages are other files than were known (dict of str)."""
    before, found = {pin.key: pin for pin in pins}, {}
    for pin in chosen:
        old = before[pin.key]
        if old.sha256 and pin.sha256 not in (old.sha256, *old.others):
            found[pin.requirement] = os.path.basename(pin.url or '')
    return found


def _fill(target, pip, pins):
    """Install packages, as they were chosen, into the new virtual environment.

    Those without hash come by themselves: pip wants one for all or for none.
    """
    for group in ([pin for pin in pins if pin.sha256], [pin for pin in pins if not pin.sha256]):
        result = pip.install([pin.line for pin in group], '--no-deps')[0] if group else None
        if result and result.status:
            raise failed(target, result, 'pip', [pin.requirement for pin in group], before='nothing was changed; ')


def _publish(target, beside, is_first, packages):
    """Put the new virtual environment into the place of the old one, and return where that is kept (str or None).

    It is kept outside of what is packed.

    :param beside: the directory that the new one is in (str)
    :param is_first: there was none when we began; what a wrapper has made since is empty (bool)
    :param packages: what is recorded of packages (dict)
    """
    old, new = target.host_venv, os.path.join(beside, 'venv', target.venv_name)
    is_empty = is_first and not glob.glob(glob.escape(old) + '/lib/python*/site-packages/*.dist-info')
    kept = files.free_name(environment.kept(target.overlay.root))
    python = '.'.join(target.record['inside']['python']['version'].split('.')[:2])
    made_for = 'python %s\nat %s\nimage sha256:%s\n' % (python, target.image_python, target.record['image']['sha256'])
    environment.publish(target.overlay.root, new, old, os.path.join(beside, 'old') if is_empty else kept, made_for,
                        packages)
    return kept if os.path.lexists(kept) else None
