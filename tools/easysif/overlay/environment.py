# SPDX-License-Identifier: GPL-2.0-only
"""Puts a virtual environment that was made beside into the place of the old one: all of it, wherever it is killed.

What is to be done is written down once the new one is whole. From then on it will be done: by who wrote it, or by
whoever has the lock next. Until then nothing has happened, and what was made beside goes.
"""

import json
import os
import shlex

from easysif import files
from easysif.errors import EasySIFError
from easysif.overlay import recorded

NAME = 'environment.json'  #: file of CONTAINERROOT that says what is to be done
MARK = '.easysif-new'      #: file in the new environment, until all is done: tells it from the old one
MADE_FOR = 'made-for'      #: file of CONTAINERROOT that tells which Python and which image a venv was made with


def publish(root, new, old, aside, made_for=None, packages=None):
    """Let a new environment be the one that is used.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :param new: the new environment, complete (str)
    :param old: where it is to be (str); it need not be there
    :param aside: where the old one goes (str), which is not there yet
    :param made_for: what it was made for, as the file of that name has it (str), None where that is as before
    :param packages: what is recorded of packages (dict)
    :raises OSError: it cannot be done; it will be by the next one, or the old one could not be moved and stays
    """
    os.makedirs(os.path.dirname(old), exist_ok=True)
    with open(os.path.join(new, MARK), 'w', encoding='ascii') as handle:
        os.fsync(handle.fileno())
    files.sync_directory(new)
    paths = {name: _below(root, path) for name, path in (('new', new), ('old', old), ('aside', aside))}
    with files.undisturbed():
        files.write(os.path.join(root, NAME), json.dumps(dict(paths, made_for=made_for, packages=packages)) + '\n')
        finish(root)


def finish(root):
    """Do what is written down, as far as it is not done yet; to be called under the lock of the overlay.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    :raises OSError: it cannot be done
    :raises EasySIFError: what is written down makes no sense
    """
    path = os.path.join(root, NAME)
    if not os.path.lexists(path):
        return
    files.sync_directory(root)
    known = _read(path)
    new, old, aside = [os.path.join(root, known[name]) for name in ('new', 'old', 'aside')]
    if os.path.lexists(os.path.join(new, MARK)) and not (os.path.lexists(old) and files.exchange(new, old)):
        if os.path.lexists(old):
            try:
                os.rename(old, _free(root, aside))
            except OSError:  # as where it is somebody else's: nothing has happened, and the next one is not held up
                os.unlink(path)
                raise
        os.rename(new, old)
    if os.path.lexists(new):  # it has been exchanged
        os.rename(new, _free(root, aside))
    files.sync_directory(os.path.dirname(old))
    if known['made_for'] is not None:
        files.write(os.path.join(root, MADE_FOR), known['made_for'])
    if known['packages'] is not None:
        recorded.update_record(root, packages=known['packages'])
    if os.path.lexists(os.path.join(old, MARK)):
        os.unlink(os.path.join(old, MARK))
    os.unlink(path)


def _free(root, aside):
    """Return where an environment goes (str): aside, or if the old one is there already, as one that somebody made who
    found none, to where it is kept."""
    return files.free_name(kept(root)) if os.path.lexists(aside) else aside


def kept(root):
    """Return where an old environment is kept, outside of what is packed (str); there may be more, as ``…-2``.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    """
    return os.path.realpath(os.path.join(root, 'user-software')) + '.before-rebuild'


def _below(root, path):
    """Return a path as it is below a directory, or the whole of it where it is not (str)."""
    for top in (root, os.path.realpath(root)):
        if path.startswith(os.path.join(top, '')):
            return os.path.relpath(path, top)
    return path


def _read(path):
    try:
        with open(path, encoding='ascii') as handle:
            known = json.load(handle)
        paths = [known[name] for name in ('new', 'old', 'aside')]
        if {'made_for', 'packages'} <= {*known} and all(isinstance(one, str) for one in paths):
            return known
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise EasySIFError(path, 'does not say which environment is to be put where',
                       hint='look at what is beside it, then: mv -- %s' % shlex.join([path, path + '.damaged']))
