# SPDX-License-Identifier: GPL-2.0-only
"""The squashfs files that are kept: ``user-software.squashfs.N``, of which the newest has the largest number."""

import errno
import os
import shlex
import shutil

from easysif import files, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import recorded


def damage(overlay, path):
    """Return what is wrong with a squashfs file of an overlay (str), None where nothing is known to be.

    It is read once. A file of another length than any that was packed is somebody's own, of which nothing is recorded,
    or its length is damaged.

    :param overlay: the overlay (Overlay)
    :param path: the file (str)
    """
    wrong = squashfs.problem(path)
    if wrong:
        return wrong
    with open(path, 'rb') as handle:
        length = squashfs.used(handle.read(squashfs.SUPERBLOCK))
    is_ours = any(one.get('used') == length for one in recorded.squashfs_records(overlay.root))
    if is_ours and not recorded.squashfs_record(overlay.root, path):
        return 'its content is not what was packed'
    if not is_ours and shutil.which('unsquashfs'):
        try:
            squashfs.listing(path)
        except EasySIFError as err:
            return 'unsquashfs cannot read it (%s)' % dict(err.facts).get('last line', 'it does not say why')
    return None


def put(overlay, path, values):
    """Put a squashfs file into its place; the one that is there is kept.

    At every moment one of the two is in the place, where the file system has hard links.

    :param overlay: the overlay (Overlay)
    :param path: the new file (str)
    :param values: what is recorded of it (dict), None where nothing is known
    :returns: where the former one is now (str), None where there was none
    :raises OSError: it cannot be done, and all is as before
    """
    kept = _next(overlay) if os.path.lexists(overlay.squashfs) else None
    _record(overlay, kept, values)
    if kept:
        try:
            os.link(overlay.squashfs, kept)
        except OSError as err:
            if err.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            os.rename(overlay.squashfs, kept)
    os.rename(path, overlay.squashfs)
    files.sync_directory(overlay.root)
    return kept


def retire(overlay):
    """Keep the squashfs file, and use it no longer; return where it is now (str)."""
    kept = _next(overlay)
    _record(overlay, kept, None)
    os.rename(overlay.squashfs, kept)
    files.sync_directory(overlay.root)
    return kept


def keep(overlay, path, values):
    """Keep a squashfs file that was never in use; return where it is now (str).

    :param values: what is recorded of it (dict)
    """
    kept = _next(overlay)
    _set_kept(overlay, {_number(kept): values})
    os.rename(path, kept)
    return kept


def renew(overlay, path):
    """Let a squashfs file that is kept be the newest one; return where it is now (str)."""
    values, kept = recorded.squashfs_record(overlay.root, path), _next(overlay)
    _set_kept(overlay, {_number(kept): values})
    os.rename(path, kept)
    return kept


def prune(overlay):
    """Remove the oldest squashfs files that are kept, so that as many are left as the site wants (list of str).

    Those of which nothing is recorded under their number are somebody's own, and are not counted.
    """
    known = recorded.kept_records(overlay.root)
    gone = [path for number, path in overlay.kept() if str(number) in known][:-int(overlay.site['keep'])]
    for path in gone:
        os.unlink(path)
    _set_kept(overlay, {})
    return gone


def rollback(overlay, lock):
    """Use the squashfs file that was kept last; the present one is kept instead, so that twice is as before.

    :param overlay: the overlay (Overlay)
    :param lock: its lock (Lock)
    :returns: what was done, as in pack (dict)
    :raises EasySIFError: none is kept, or it is damaged
    """
    path = find_newest(overlay)
    damaged = os.path.lexists(overlay.squashfs) and damage(overlay, overlay.squashfs)
    aside = files.free_name(overlay.squashfs + '.damaged') if damaged else None
    lock.check()
    if aside:
        os.rename(overlay.squashfs, aside)
    former = put(overlay, path, recorded.squashfs_record(overlay.root, path))
    _set_kept(overlay, {})
    return {'squashfs': overlay.squashfs, 'was': path, 'kept': former, 'damaged': aside,
            'directory': overlay.directory if overlay.has_directory() else None}


def find_newest(overlay):
    """Return the squashfs file that was kept last (str).

    :raises EasySIFError: none is, or it is damaged
    """
    kept = overlay.kept()
    if not kept:
        raise EasySIFError(overlay.where, 'no squashfs file of %s is kept' % overlay.module,
                           facts=[('directory', overlay.root)], hint='ls -la %s' % shlex.quote(overlay.root))
    path = kept[-1][1]
    wrong = damage(overlay, path)
    if wrong:
        raise EasySIFError(overlay.where, 'the squashfs file that was kept is damaged: %s' % wrong,
                           facts=[('file', path)],
                           hint='mv -- %s, then the same command takes the one before' % shlex.join(
                               [path, files.free_name(overlay.squashfs + '.damaged')]))
    return path


def _next(overlay):
    kept = overlay.kept()
    return '%s.%d' % (overlay.squashfs, max(kept[-1][0], 0) + 1 if kept else 1)


def _number(path):
    return path.rpartition('.')[2]


def _record(overlay, kept, values):
    """Record that the squashfs is kept under another name, and what takes its place. A kill in between does no harm:
    what is known of a file is found by its checksum."""
    former = recorded.squashfs_record(overlay.root, overlay.squashfs) if kept else None
    known = {_number(kept): former} if former else {}
    _set_kept(overlay, known, squashfs=values)


def _set_kept(overlay, new, **values):
    """Record what is known of the files that are kept, and forget what is known of those that are gone."""
    known = recorded.record(overlay.root).get('kept')
    there = {str(number) for number, _ in overlay.kept()}
    known = {number: one for number, one in (known if isinstance(known, dict) else {}).items() if number in there}
    recorded.update_record(overlay.root, kept=dict(known, **new) or None, **values)
