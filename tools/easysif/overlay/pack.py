# SPDX-License-Identifier: GPL-2.0-only
"""Packs the directory of an overlay into its squashfs file."""

import os
import shlex
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from easysif import squashfs
from easysif.errors import TOOL, EasySIFError
from easysif.overlay import bytecode, generations, recorded, tools
from easysif.overlay.content import Content
from easysif.overlay.place import discard
from easysif.overlay.usage import refuse_if_used


@dataclass(frozen=True)
class Wishes:
    """What the user wants beyond packing.

    :param replace: pack the directory although a squashfs is there that is of other content, which is kept (bool)
    :param remove: remove the directory at the end (bool)
    :param force: do not look for processes that may write to it (bool)
    :param full: read back all that was packed and compare it (bool)
    :param dry_run: change nothing, only say what would be done (bool)
    """

    replace: bool = False
    remove: bool = False
    force: bool = False
    full: bool = False
    dry_run: bool = False


def pack(overlay, wishes=Wishes()):
    """Write the directory into the squashfs file and return what was done (dict).

    :param overlay: the overlay (Overlay)
    :param wishes: what else is wanted (Wishes)
    :raises EasySIFError: there is nothing to pack, it is packed already, it is in use, or packing failed
    """
    with overlay.alone() as lock:
        packed = os.path.lexists(overlay.squashfs)
        if packed:
            squashfs.check(overlay.squashfs, overlay.where)
        if not overlay.has_directory():
            raise _packed_already(overlay) if packed else EasySIFError(
                overlay.where, 'there is nothing to pack', facts=[('directory', overlay.directory)],
                hint='pip install a package first')
        if wishes.remove:
            overlay.refuse_link()
        if not wishes.force:
            refuse_if_used(overlay)
        content = Content(overlay.directory, overlay.where)
        done = {'directory': overlay.directory, 'squashfs': overlay.squashfs, 'files': content.files(),
                'bytes': content.data, 'size': None, 'packed': True, 'kept': None, 'pruned': [],
                'removed': wishes.remove}
        if packed and is_packed(overlay, content, wishes.remove or wishes.replace or wishes.full):
            if not wishes.remove:
                raise _packed_already(overlay)
            done.update(packed=False, size=os.path.getsize(overlay.squashfs))
        else:
            if packed and not wishes.replace:
                raise _differs(overlay)
            overlay.check_space('the squashfs needs at least', content.least_packed())
            if wishes.dry_run:
                done.update(_would_keep(overlay) if packed else {})
            else:
                if bytecode.compile_missing(overlay, content):
                    content = Content(overlay.directory, overlay.where)
                done.update(_pack(overlay, lock, content, wishes.full))
        if wishes.remove and not wishes.dry_run:
            lock.check()
            done['removed'] = _remove_directory(overlay, content, wishes.force)
        return done


def write(overlay, content, target, full=False):
    """Write a directory into a squashfs file that nobody uses yet, and see that all is in it.

    :param overlay: the overlay (Overlay)
    :param content: what is in the directory (Content)
    :param target: the file (str)
    :param full: read all back and compare it (bool)
    :returns: what is to be recorded of it (dict)
    :raises EasySIFError: something failed, or the directory changed meanwhile
    """
    tools.pack(overlay, content.top, target, content)
    wrong = squashfs.problem(target)
    if wrong:
        raise EasySIFError(overlay.where, 'mksquashfs left no whole file (%s); nothing was changed' % wrong,
                           facts=[('directory', content.top)], hint='df -h %s' % shlex.quote(overlay.root),
                           exit_code=TOOL)
    with ThreadPoolExecutor(1) as aside:  # all at once: each reads, and waits
        digest = aside.submit(squashfs.sha256, target, sync=True)
        if not content.is_still():
            raise _changed(overlay)
        different = {name for *_, name in squashfs.listing(target) ^ content.listed()}
        if different:
            raise _not_as_it_is(overlay, content.top, len(different), min(different))
        different = _difference(overlay, content, target) if full else None
        if different is not None:
            raise _not_as_it_is(overlay, content.top, 1, different)
    with open(target, 'rb') as handle:
        used = squashfs.used(handle.read(squashfs.SUPERBLOCK))
    return {'sha256': digest.result(), 'size': os.path.getsize(target), 'used': used,
            'content': content.fingerprint(), 'state': content.state, 'files': content.files(), 'bytes': content.data,
            'made_for': generations.now_made_for(overlay), 'fractions': content.fractions(),
            'times': content.odd_times()}


def is_same(overlay, content):
    """Tell whether the squashfs holds what is in the directory, as far as names, sizes and whole seconds tell (bool).

    :param overlay: the overlay (Overlay)
    :param content: what is in the directory (Content)
    """
    known = recorded.squashfs_record(overlay.root, overlay.squashfs)
    return bool(known) and known.get('content') == content.fingerprint()


def is_packed(overlay, content, every_byte=False):
    """Tell whether the squashfs holds what is in the directory (bool).

    What nobody touched since it was packed is not read, unless that is wanted; anything else is, to the last byte.

    :param overlay: the overlay (Overlay)
    :param content: what is in the directory (Content)
    :param every_byte: read it in any case (bool)
    :raises EasySIFError: there is no space to read the squashfs back
    """
    if not is_same(overlay, content):
        return False
    known = recorded.squashfs_record(overlay.root, overlay.squashfs)
    return known.get('state') == content.state and not every_byte or (
        _difference(overlay, content, overlay.squashfs) is None)


def _would_keep(overlay):
    kept = generations.next_name(overlay)
    counts = recorded.squashfs_record(overlay.root, overlay.squashfs)
    return {'kept': kept, 'pruned': generations.too_many(overlay, overlay.squashfs, [kept] if counts else [])}


def _pack(overlay, lock, content, full):
    beside = overlay.beside(overlay.squashfs)
    try:
        values = write(overlay, content, beside, full)
        lock.check()
        kept = generations.put(overlay, beside, values)
    finally:
        discard(beside)
    return {'size': values['size'], 'kept': kept, 'pruned': generations.prune(overlay, kept) if kept else []}


def _difference(overlay, content, packed):
    """Unpack a squashfs file beside and return what is other than in the directory (bytes), None where nothing is.

    :raises EasySIFError: it cannot be unpacked, as there is no space for it
    """
    overlay.check_space('reading it back needs', content.data)
    beside = overlay.beside(overlay.directory)
    try:
        tools.unpack(overlay, packed, beside, content.data)
        for name, mode, *_ in content.entries:
            paths = [os.path.join(os.fsencode(top), name) for top in (content.top, beside)]
            if not _is_equal(mode, *paths):
                return name
    finally:
        discard(beside)
    return None


def _is_equal(mode, path, other):
    if not stat.S_ISLNK(mode):
        names = [name for name in os.listxattr(path) if name.startswith('user.')]
        there = os.listxattr(other)
        if any(name not in there or os.getxattr(path, name) != os.getxattr(other, name) for name in names):
            return False
    if not stat.S_ISREG(mode):
        return True
    with open(path, 'rb') as one, open(other, 'rb') as two:
        while True:
            piece = one.read(1 << 20)
            if piece != two.read(1 << 20):
                return False
            if not piece:
                return True


def _remove_directory(overlay, content, force):
    """Remove the directory, which is in the squashfs, and return whether all of it is gone (bool).

    :raises EasySIFError: it is in use, or it changed since
    """
    if not force:
        refuse_if_used(overlay)
    aside = overlay.take_away(content)
    if not aside:
        raise EasySIFError(overlay.where, 'the directory changed after it was packed, so it is not removed',
                           facts=[('directory', overlay.directory), ('squashfs', overlay.squashfs)],
                           hint='%s, once nothing writes to it' % overlay.command('pack', '--replace', '--remove'))
    discard(aside)
    return not os.path.lexists(aside)


def _packed_already(overlay):
    return EasySIFError(overlay.where, 'the overlay of %s is packed already' % overlay.module,
                        facts=[('file', overlay.squashfs)],
                        hint='%s && module reload, then add packages, then %s'
                             % (overlay.command('unpack'), overlay.command('pack')))


def _differs(overlay):
    return EasySIFError(overlay.where, 'the overlay of %s is packed, and the directory beside it may differ'
                        % overlay.module, facts=[('directory', overlay.directory), ('squashfs', overlay.squashfs)],
                        hint='%s packs the directory, %s uses it as it is; the squashfs file is kept'
                             % (overlay.command('pack', '--replace'), overlay.command('unpack', '--use-directory')))


def _changed(overlay):
    return EasySIFError(overlay.where, 'the directory changed while it was packed',
                        facts=[('directory', overlay.directory)],
                        hint='wait for pip to end, then: %s' % overlay.command('pack'))


def _not_as_it_is(overlay, top, count, first):
    return EasySIFError(overlay.where, '%d files are not in the squashfs as they are' % count,
                        facts=[('first', os.fsdecode(first))],
                        hint='%s once more; if it stays, pack by hand: mksquashfs %s FILE'
                             % (overlay.command('pack'), shlex.quote(top)), exit_code=TOOL)
