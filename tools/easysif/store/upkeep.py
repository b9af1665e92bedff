# SPDX-License-Identifier: GPL-2.0-only
"""Looks after an image store: finds damage in it, and what no installed module needs any more."""

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, field

from easysif import files, installed
from easysif.errors import EasySIFError, SeveralErrors
from easysif.images import sif
from easysif.images.place import sha256_of
from easysif.store import leftovers
from easysif.store.contents import RECORDED, Entry, open_to_all


@dataclass
class Checked:
    """What was found out about a file.

    :param entry: the file (Entry), None for one that is gone and a module runs
    :param path: where it is or was (str)
    :param modules: the modules concerned (list of str)
    :param problem: what is wrong (EasySIFError), None for nothing
    :param is_known: whether there was a sha256 to hold it against (bool)
    """

    entry: Entry
    path: str
    modules: list
    problem: EasySIFError = None
    is_known: bool = True


def verify(store, found):
    """Yield what there is to say of each file of a store (Checked); all of it is read.

    :param store: the store (Store)
    :param found: what modules need of it (Usage)
    """
    for entry in store.entries():
        yield _check(store, entry, found)
    for path, uses in sorted(found.missing.items()):
        modules = [use.module for use in uses]
        yield Checked(None, path, modules, EasySIFError(
            path, 'is %s, and modules run it' % ('of another size' if os.path.exists(path) else 'gone'),
            facts=[('modules', ', '.join(modules))],
            hint='easysif image restore %s%s' % (modules[0], installed.option(uses[0].prefix))))


def problems_of(store):
    """Return what is wrong with the directories of a store themselves (list of EasySIFError)."""
    return list(filter(None, (open_to_all(path, path) for path in (store.directory, store.hidden))))


def _check(store, entry, found):
    modules = found.of(entry.name)
    checked = Checked(entry, entry.path, modules)

    def wrong(what, *facts, hint):
        named = [('modules', ', '.join(modules))] if modules else []
        checked.problem = EasySIFError(entry.path, what, facts=[*facts, *named], hint=hint)
        return checked

    wanted = {entry.record['sha256']} if entry.record else {use.sha256 for use in found.uses.get(entry.name, ())
                                                            if use.sha256}
    checked.is_known = bool(wanted)
    again = entry.record.get('recipe') or entry.record.get('reference') or 'FILE.sif'
    again = 'mv -- %s && easysif store add %s%s' % (shlex.join([entry.path, entry.path + '.damaged']),
                                                    shlex.quote(again), store.option)
    try:
        problem = open_to_all(entry.path, entry.path)
        if problem:
            return wrong(problem.what, *problem.facts, hint=problem.hint)
        sha256 = sha256_of(entry.path)
        if wanted and sha256 not in wanted:
            recorded = ', '.join('sha256:' + one for one in sorted(wanted))
            return wrong('is not what was put there', ('recorded', recorded), ('found', 'sha256:' + sha256), hint=again)
        if entry.name.endswith('.sif'):
            sif.read(entry.path, entry.path)
    except OSError as err:
        return wrong('cannot be read (%s)' % err.strerror, hint='ls -l %s' % shlex.quote(entry.path))
    except EasySIFError as err:
        return wrong(err.what, *err.facts, hint=again)
    return checked


@dataclass
class Clearance:
    """What can go from a store, and what stays.

    :param going: the files that nobody needs (list of Entry)
    :param staying: the other ones, each with the reason (list of (Entry, str))
    :param left: what adds that were killed left (list of str)
    :param freed: bytes on disk that come free (int)
    :param removed: the names that were removed (list of str)
    :param problems: why something was not removed that should have been (list of EasySIFError)
    """

    going: list = field(default_factory=list)
    staying: list = field(default_factory=list)
    left: list = field(default_factory=list)
    freed: int = 0
    removed: list = field(default_factory=list)
    problems: list = field(default_factory=list)


def look_for_waste(store, found, names=()):
    """Return what can go from a store (Clearance); nothing is changed.

    What no module runs goes, if ``easysif store add`` put it there, or if it is named.

    :param found: what modules need of it (Usage)
    :param names: the files that are meant (sequence of str), all that were added where empty
    :raises EasySIFError: what a module needs is not known, or the store has no such file
    """
    if found.unknown:
        raise SeveralErrors(found.unknown)
    entries = {entry.name: entry for entry in store.entries()}
    for name in names:
        if name not in entries:
            raise EasySIFError(name, 'is not in the image store', facts=[('store', store.directory)],
                               hint='easysif store list%s' % store.option)
    done = Clearance(left=leftovers.left(store))
    for name, entry in entries.items():
        runners = found.runners(name)
        if runners:
            done.staying.append((entry, _run_by(runners)))
        elif name not in names if names else entry.state != RECORDED:
            done.staying.append((entry, 'not named' if names else 'put there by hand'))
        else:
            done.going.append(entry)
    done.freed = _size(done.going) + leftovers.size(done.left)
    return done


def clear_out(store, done, look, where):
    """Remove what can go, unless it is another file or needed by now, and what killed ones left in the store.

    What cannot be removed is told in ``problems``, and the rest goes all the same.

    :param done: what `look_for_waste` found (Clearance); takes what was removed, what stays, and why
    :param look: tells what modules need of the store now (callable: -> Usage)
    :param where: the command, for messages (str)
    :raises EasySIFError: we may not write to the store
    """
    store.prepare(where)
    size, gone = leftovers.size(done.left), []
    done.problems += [EasySIFError(where, 'what was left in the image store cannot be removed', facts=[('path', path)],
                                   hint='ls -laR -- %s' % shlex.quote(path)) for path in leftovers.clear_out(store)]
    size -= leftovers.size(done.left)
    for entry in list(done.going):
        try:
            why = _remove(store, entry, look, where)
        except EasySIFError as err:
            done.problems.append(err)
            why = err.what
        if why:
            done.going.remove(entry)
            done.staying.append((entry, why))
        else:
            gone.append(entry)
    done.removed, done.freed = [entry.name for entry in gone], size + _size(gone)
    for name in store.records():  # of files that somebody removed by hand
        if not os.path.lexists(store.path(name)):
            with suppress(EasySIFError), store.lock(name, where, wait=0):
                if not os.path.lexists(store.path(name)):
                    store.forget(name)
    files.sync_directory(store.directory)


def _remove(store, entry, look, where):
    """Remove a file of a store, and return None, or why it stays (str).

    :raises EasySIFError: we may not, another process is at work on it, or what modules need is not known
    """
    with store.lock(entry.name, '%s %s' % (where, entry.name), wait=0) as lock:
        if files.identity(entry.path) != files.identity_of(entry.info):
            return 'another file by now'
        found = look()  # modules that were installed since we looked, also while we waited for the lock
        if found.unknown:
            raise found.unknown[0]
        if found.runners(entry.name):
            return _run_by(found.runners(entry.name))
        lock.check()
        try:
            os.unlink(entry.path)
        except OSError as err:
            raise EasySIFError(where, 'cannot be removed from the image store (%s)' % err.strerror,
                               facts=[('file', entry.path)],
                               hint='ls -ld -- %s' % shlex.quote(store.directory)) from err
        store.forget(entry.name)
    return None


def _run_by(runners):
    return 'run by %s' % ', '.join(runners)


def _size(entries):
    """Return how many bytes come free where files of a store go (int); one with more names stays on the disk."""
    names_of = {}
    for entry in entries:
        names_of.setdefault(entry.identity, []).append(entry)
    return sum(512 * same[0].info.st_blocks for same in names_of.values() if len(same) >= same[0].info.st_nlink)
