# SPDX-License-Identifier: GPL-2.0-only
"""Makes the directory of an overlay from its squashfs file, which is kept."""

import os
import shlex
import zlib
from contextlib import suppress

from easysif import files, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import generations, pack, recorded, tools
from easysif.overlay.content import Content
from easysif.overlay.place import discard
from easysif.overlay.usage import refuse_if_used
from easysif.run import run


def unpack(overlay, use_directory=False, replace=False, force=False, dry_run=False):
    """Make the directory from the squashfs, unless it is there and the same, and keep the file aside.

    :param overlay: the overlay (Overlay)
    :param use_directory: use the directory that is there, whatever is in it (bool)
    :param replace: make the directory anew; what it was is packed and kept (bool)
    :param force: do not look for processes that may write to the directory that is replaced (bool)
    :param dry_run: change nothing, only say what would be done (bool)
    :returns: what was done (dict)
    :raises EasySIFError: it is not packed, it is damaged, or a directory is there that differs
    """
    with overlay.alone() as lock:
        if not os.path.lexists(overlay.squashfs):
            raise EasySIFError(overlay.where, 'the overlay of %s is not packed' % overlay.module,
                               facts=[('looked for', overlay.squashfs)], hint='pip install works as it is')
        done = {'directory': overlay.directory, 'squashfs': overlay.squashfs, 'extracted': False, 'kept': None,
                'kept_directory': None, 'pruned': []}
        content = None
        if not (use_directory and overlay.has_directory()):
            _check(overlay)
            content = Content(overlay.directory, overlay.where) if overlay.has_directory() else None
            done['extracted'] = not content or not pack.is_packed(overlay, content)
            if content and done['extracted'] and not replace:
                raise _differs(overlay)
            if done['extracted']:
                overlay.refuse_link()
                if content and not force:
                    refuse_if_used(overlay)
                size = _size(overlay)
                overlay.check_space('the directory needs', size)
                if not dry_run:
                    done['kept_directory'] = _extract(overlay, lock, content, size)
        if dry_run:
            return dict(done, **_would_keep(overlay, bool(content and done['extracted'])))
        lock.check()
        before = generations.before_rollback(overlay)
        done['kept'] = generations.retire(overlay, before['made_for'] if before and not done['extracted'] else None)
        if done['kept_directory']:  # what is in use now is what is not needed to go back
            done['kept_directory'] = generations.renew(overlay, done['kept_directory'])
        done['pruned'] = generations.prune(overlay, done['kept'])
        return done


def _would_keep(overlay, replaced):
    """Return what would be kept where (dict).

    :param replaced: whether the directory is packed first, and renewed at the end (bool)
    """
    kept = generations.next_name(overlay, ahead=int(replaced))
    directory = generations.next_name(overlay, ahead=2) if replaced else None
    more = [kept] if recorded.squashfs_record(overlay.root, overlay.squashfs) else []
    return {'kept': kept, 'kept_directory': directory,
            'pruned': generations.too_many(overlay, overlay.squashfs, [*more, *([directory] if replaced else [])])}


def _check(overlay):
    wrong = generations.damage(overlay, overlay.squashfs)
    if wrong:
        aside = 'mv -- %s' % shlex.join([overlay.squashfs, files.free_name(overlay.squashfs + '.damaged')])
        kept = [path for _, path in overlay.kept()[-1:]]
        use = ['mv -- %s to use what was kept last' % shlex.join([path, overlay.squashfs]) for path in kept]
        raise EasySIFError(overlay.where, 'the squashfs file is damaged: %s' % wrong,
                           facts=[('file', overlay.squashfs)], hint=' && '.join([aside, *use]))


def _size(overlay):
    """Return how many bytes the files in the squashfs take once they are unpacked (int)."""
    known = recorded.squashfs_record(overlay.root, overlay.squashfs) or {}
    size = known.get('bytes')
    return size if isinstance(size, int) and size > 0 else sum(one for _, one, _ in squashfs.listing(overlay.squashfs))


def _extract(overlay, lock, content, size):
    """Unpack the squashfs and put the directory into its place.

    :param content: what is in the directory that is there (Content), None where there is none
    :param size: how many bytes it will take (int)
    :returns: where the directory is kept that was there (str), None where there was none
    """
    beside, packed, kept = overlay.beside(overlay.directory), overlay.beside(overlay.squashfs), None
    try:
        _restore_times(overlay, tools.unpack(overlay, overlay.squashfs, beside, size))
        run(['sync', '-f', beside])
        if content:
            overlay.check_space('keeping the directory needs at least', content.least_packed())
            values = pack.write(overlay, content, packed)
            before = generations.before_rollback(overlay)  # what is said is of the squashfs, not of the directory
            values.update({'made_for': before['made_for']} if before else {})
            lock.check()
            kept = generations.keep(overlay, packed, values)
        lock.check()
        _put(overlay, beside, content)
    finally:
        discard(beside)
        discard(packed)
    return kept


def _restore_times(overlay, unpacked):
    """Give what was unpacked what no squashfs keeps of times, if it is recorded (Content)."""
    known = recorded.squashfs_record(overlay.root, overlay.squashfs) or {}
    with suppress(TypeError, ValueError, LookupError, OverflowError, zlib.error):  # written by nobody of ours
        unpacked.restore_odd_times(known.get('times', []))
        if known.get('content') == unpacked.fingerprint():
            unpacked.restore_times(known['fractions'])


def _put(overlay, beside, content):
    """Put a directory into its place.

    :param content: what is in the one that is there, which is kept and goes (Content), None where there is none
    :raises EasySIFError: it changed since it was packed, or something is there now
    """
    aside = overlay.take_away(content) if content else None
    if content and not aside:
        raise _changed(overlay)
    try:
        os.rename(beside, overlay.directory)  # takes the place of an empty one at one moment
    except OSError as err:
        raise (_changed(overlay) if os.path.lexists(overlay.directory) else err) from err
    if aside:
        discard(aside)


def _changed(overlay):
    return EasySIFError(overlay.where, 'the directory changed meanwhile, so it is not replaced',
                        facts=[('directory', overlay.directory), ('squashfs', overlay.squashfs)],
                        hint='wait for pip to end, then: %s' % overlay.command('unpack', '--replace'))


def _differs(overlay):
    return EasySIFError(
        overlay.where, 'a directory is there that may differ from the squashfs file',
        facts=[('directory', overlay.directory), ('squashfs', overlay.squashfs)],
        hint='%s keeps the directory, %s unpacks the squashfs; what is not used is kept as a squashfs file'
             % (overlay.command('unpack', '--use-directory'), overlay.command('unpack', '--replace')))
