# SPDX-License-Identifier: GPL-2.0-only
"""The squashfs files that are kept: ``user-software.squashfs.N``, of which the newest has the largest number."""

import errno
import os
import shlex
import shutil
from contextlib import suppress

from easysif import files, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import recorded
from easysif.overlay.environment import MADE_FOR


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


def put(overlay, path, values, first=False, made_for=None, aside=False):
    """Put a squashfs file into its place; the one that is there is kept. At every moment one of the two is there.

    :param overlay: the overlay (Overlay)
    :param path: the new file (str)
    :param values: what is recorded of it (dict), None where nothing is known
    :param first: whether the next rollback is to find that nothing was packed before (bool)
    :param made_for: what the overlay is made for then (str), None where that is as before
    :param aside: whether the one that is there may be newer, and is not to go before this one (bool)
    :returns: where the former one is now (str), None where there was none
    :raises OSError: it cannot be done, and all is as before
    """
    kept = next_name(overlay) if os.path.lexists(overlay.squashfs) else None
    digest = values['sha256'] if values else recorded.sha256(path)
    _record(overlay, kept, digest if aside else None, squashfs=values, made_for=_said_later(digest, made_for),
            rollback={'sha256': digest, 'made_for': now_made_for(overlay)} if first else None)
    if kept:
        _duplicate(overlay, kept)
    os.rename(path, overlay.squashfs)
    _settle(overlay, made_for)
    return kept


def retire(overlay, made_for=None):
    """Keep the squashfs file, and use it no longer; return where it is now (str).

    :param overlay: the overlay (Overlay)
    :param made_for: what the overlay is made for then (str), None where that is as before
    """
    kept = next_name(overlay)
    _record(overlay, kept, None, squashfs=None, made_for=_said_later(None, made_for))
    os.rename(overlay.squashfs, kept)
    _settle(overlay, made_for, rollback=None)
    return kept


def finish(overlay):
    """Do what is left to be done after a command that was killed; to be called under the lock.

    What the overlay is made for is said, and the squashfs file that was to be kept is no longer there twice.
    """
    later = recorded.record(overlay.root).get('made_for')
    if isinstance(later, dict):
        now = recorded.sha256(overlay.squashfs) if os.path.isfile(overlay.squashfs) else None
        _settle(overlay, later.get('text') if later.get('sha256') == now else None)
    known = recorded.kept_records(overlay.root)
    for number, path in overlay.kept():
        with suppress(OSError):
            if str(number) in known and os.lstat(path).st_size == os.lstat(overlay.squashfs).st_size and all(
                    recorded.is_recorded(one, known[str(number)]) for one in (path, overlay.squashfs)):
                os.unlink(path)


def keep(overlay, path, values):
    """Keep a squashfs file that was never in use; return where it is now (str).

    :param values: what is recorded of it (dict)
    """
    kept = next_name(overlay)
    _set_kept(overlay, {_number(kept): values})
    os.rename(path, kept)
    return kept


def renew(overlay, path):
    """Let a squashfs file that is kept be the newest one; return where it is now (str)."""
    values, kept = recorded.squashfs_record(overlay.root, path), next_name(overlay)
    _set_kept(overlay, {_number(kept): values})
    os.rename(path, kept)
    return kept


def prune(overlay, former):
    """Remove the oldest squashfs files that are kept, so that as many are left as the site wants (list of str).

    :param former: the one that was in use until now (str)
    """
    gone = too_many(overlay, former)
    for path in gone:
        os.unlink(path)
    _set_kept(overlay, {})
    return gone


def too_many(overlay, former, more=()):
    """Return the oldest squashfs files that are kept and more than the site wants (list of str).

    Those that are not what is recorded under their number are somebody's own, as those to which somebody made a link,
    and are not counted. Neither is what a rollback put aside for the one that was in use until now: it may be newer.

    :param former: the one that was in use until now (str)
    :param more: files that would be kept besides, the newest last (sequence of str)
    """
    known, kept = recorded.kept_records(overlay.root), overlay.kept()
    links = [path for path in (overlay.squashfs, *(path for _, path in kept)) if os.path.islink(path)]
    led_to = [os.path.realpath(path) for path in links]
    used = recorded.sha256(former) if os.path.isfile(former) else None
    paths = [path for number, path in kept
             if recorded.is_recorded(path, known.get(str(number))) and os.path.realpath(path) not in led_to
             and known[str(number)].get('instead', '') != used]
    return [*paths, *more][:-int(overlay.site['keep'])]


def rollback(overlay, lock, dry_run=False):
    """Use what was used before: the squashfs file that was kept last, or what there is where none is packed.

    The present one is kept instead, so that twice is as before. A directory is never touched.

    :param overlay: the overlay (Overlay)
    :param lock: its lock (Lock)
    :param dry_run: change nothing, only say what would be done (bool)
    :returns: what was done (dict); ``was`` is where the squashfs file that is used now was kept (str), None where
        none is used any more
    :raises EasySIFError: none is kept, or it is damaged
    """
    is_packed = os.path.lexists(overlay.squashfs)
    before = before_rollback(overlay) if is_packed else None
    path = find_newest(overlay) if before is None else None
    is_damaged = is_packed and bool(damage(overlay, overlay.squashfs))
    done = {'squashfs': overlay.squashfs, 'was': path, 'kept': None, 'damaged': None,
            'directory': overlay.directory if overlay.has_directory() else None}
    if is_damaged:
        done['damaged'] = files.free_name(overlay.squashfs + '.damaged')
    elif is_packed:
        done['kept'] = next_name(overlay)
    if not dry_run:
        lock.check()
        if not path:
            retire(overlay, before['made_for'])
        else:
            if is_damaged:
                os.rename(overlay.squashfs, done['damaged'])
            values = recorded.squashfs_record(overlay.root, path)
            is_back = bool((values or {}).pop('instead', None))
            put(overlay, path, values, not done['kept'], (values or {}).get('made_for'), aside=not is_back)
    return done


def find_newest(overlay):
    """Return the squashfs file that was kept last (str).

    :raises EasySIFError: none is, or it is damaged
    """
    kept = overlay.kept()
    if not kept:
        both = os.path.lexists(overlay.squashfs) and overlay.has_directory()
        raise EasySIFError(overlay.where, 'no squashfs file of %s is kept' % overlay.module,
                           facts=[('directory', overlay.directory if both else overlay.root)],
                           hint='to use the directory: %s' % overlay.command('unpack', '--use-directory') if both
                           else 'ls -la %s' % shlex.quote(overlay.root))
    path = kept[-1][1]
    wrong = damage(overlay, path)
    if wrong:
        raise EasySIFError(overlay.where, 'the squashfs file that was kept is damaged: %s' % wrong,
                           facts=[('file', path)],
                           hint='mv -- %s, then the same command takes the one before' % shlex.join(
                               [path, files.free_name(overlay.squashfs + '.damaged')]))
    return path


def next_name(overlay, ahead=0):
    """Return where the next squashfs file is kept, or one after it (str).

    :param ahead: how many come before (int)
    """
    kept = overlay.kept()
    return '%s.%d' % (overlay.squashfs, (max(kept[-1][0], 0) if kept else 0) + 1 + ahead)


def before_rollback(overlay):
    """Return what is recorded of how it was before a rollback put the squashfs into its place while there was none.

    :returns: a dict, with ``made_for`` as :func:`now_made_for` told it of the directory; None where it is not so
    """
    known = recorded.record(overlay.root).get('rollback')
    is_sound = isinstance(known, dict) and isinstance(known.get('made_for'), str)
    return known if is_sound and known.get('sha256') == recorded.sha256(overlay.squashfs) else None


def now_made_for(overlay):
    """Return what an overlay was made for, as the file of that name has it (str), empty where it does not say."""
    try:
        with open(os.path.join(overlay.root, MADE_FOR), encoding='utf-8') as handle:
            return handle.read()
    except (OSError, ValueError):
        return ''


def _number(path):
    return path.rpartition('.')[2]


def _record(overlay, kept, instead, **values):
    """Record that the squashfs is kept under another name (str, None where it is not), and whatever else.

    A kill in between does no harm: what is known of a file is found by its checksum.

    :param instead: what a rollback puts into its place (str, sha256), None where there is none
    """
    former = recorded.squashfs_record(overlay.root, overlay.squashfs) if kept else None
    if former and instead:
        former = dict(former, instead=instead)
    _set_kept(overlay, {_number(kept): former} if former else {}, **values)


def _duplicate(overlay, kept):
    """Give the squashfs a second name; where the file system has no hard links, a copy of it has that name."""
    copy = overlay.beside(overlay.squashfs) + '.copy'
    try:
        os.link(overlay.squashfs, kept, follow_symlinks=False)
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        shutil.copy2(overlay.squashfs, copy, follow_symlinks=False)
        squashfs.sha256(copy, sync=True)
        os.rename(copy, kept)
    finally:
        with suppress(OSError):
            os.unlink(copy)


def _said_later(digest, text):
    """Return what is recorded so that, after a kill, the next command says what the overlay is made for (dict or None).

    :param digest: of the squashfs that is in use then (str), None where none is
    :param text: as :func:`now_made_for` returned it (str); None where nothing is to be said
    """
    return {'sha256': digest, 'text': text} if isinstance(text, str) else None


def _settle(overlay, made_for, **values):
    """Bring the names to the disk, and say what the overlay is made for that is used from now on.

    Directory and each squashfs file may differ in it.

    :param made_for: as :func:`now_made_for` returned it (str); of None nothing is said, and what is said stays
    """
    files.sync_directory(overlay.root)
    path = os.path.join(overlay.root, MADE_FOR)
    if isinstance(made_for, str) and made_for:
        files.write(path, made_for)
    elif made_for == '' and os.path.lexists(path):
        os.unlink(path)
    _set_kept(overlay, {}, made_for=None, **values)


def _set_kept(overlay, new, **values):
    """Record what is known of the files that are kept, and forget what is known of those that are gone."""
    known = recorded.record(overlay.root).get('kept')
    there = {str(number) for number, _ in overlay.kept()}
    known = {number: one for number, one in (known if isinstance(known, dict) else {}).items() if number in there}
    recorded.update_record(overlay.root, kept=dict(known, **new) or None, **values)
