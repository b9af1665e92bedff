# SPDX-License-Identifier: GPL-2.0-only
"""What an ``easysif store add`` that was killed or failed leaves in the hidden directory of a store; who removes it.

All of it has the `key` of the image in its name, whose lock an add holds as long as it is at work; but for ``fetched``,
where images wait that several names may have.
"""

import os
import re
from contextlib import suppress

from easysif import files, inventory
from easysif.errors import EasySIFError
from easysif.images import bases
from easysif.images.kept import Kept
from easysif.images.workspace import remove
from easysif.store.contents import key

FETCHED = 'fetched'
NAMES = re.compile(r'(new|lock|work|log)-([0-9a-f]{16})(\.part-[0-9]+)?')


def fetched(store):
    """Return the directory in which fetched images wait (str)."""
    return os.path.join(store.hidden, FETCHED)


def of(store, kind, name):
    """Return where a file or directory of an image that is being added is (str).

    :param kind: ``new``, ``work`` or ``log`` (str)
    :param name: of the image (str)
    """
    return os.path.join(store.hidden, '%s-%s' % (kind, key(name)))


def left(store):
    """Return what nobody is at work with (list of str), without changing anything."""
    names = _listing(store.hidden)
    free = {one: store.lock_of(one, 'easysif store').is_free() for one in set(filter(None, map(_key_in, names)))}
    found = [name for name in names if free.get(_key_in(name)) and not name.startswith('lock-')]
    if all(free.values()) and FETCHED in names:
        found.append(FETCHED)
    return [os.path.join(store.hidden, name) for name in sorted(found)]


def size(paths):
    """Return how many bytes files and directories take on disk (int)."""
    return sum(inventory.size_on_disk(path) if os.path.isdir(path) else 512 * os.lstat(path).st_blocks
               for path in paths if os.path.lexists(path))


def sweep(store, ours=None):
    """Remove what killed ones left in a store; the log of one that failed stays, as a message has named it.

    :param ours: the name whose lock we have (str), None for none
    """
    for one in set(filter(None, map(_key_in, _listing(store.hidden)))):
        if ours is not None and one == key(ours):
            _clear(store, one)
        elif store.lock_of(one, 'easysif store').is_free():
            with suppress(EasySIFError), store.lock_of(one, 'easysif store', wait=0):
                _clear(store, one, ('log',))


def clear_out(store):
    """Remove all that nobody is at work with, and return what cannot be removed (list of str)."""
    paths = left(store)
    for one in set(filter(None, map(_key_in, map(os.path.basename, paths)))):
        with suppress(EasySIFError), store.lock_of(one, 'easysif store', wait=0):
            _clear(store, one)
    if fetched(store) in paths:
        Kept(fetched(store), 'easysif store', {}).clear()
        bases.clear(fetched(store), 'easysif store')
        with suppress(OSError):  # others are at work there by now
            os.rmdir(fetched(store))
    return [path for path in left(store) if path in paths]


def _key_in(name):
    """Return of which image a file in the hidden directory is what is left, by its `key` (str), None for others."""
    found, record = NAMES.fullmatch(name), files.LITTER.match(name)
    return found.group(2) if found else key(record.group(1)[:-len('.json')]) if record else None


def _clear(store, one, but=()):
    for name in _listing(store.hidden):
        path = os.path.join(store.hidden, name)
        if _key_in(name) != one or name.partition('-')[0] in ('lock', *but):
            continue
        if os.path.isdir(path):
            remove(path, os.path.join(store.hidden, 'log-%s' % one))
        with suppress(OSError):
            os.unlink(path)


def _listing(directory):
    try:
        return os.listdir(directory)
    except OSError:
        return []
