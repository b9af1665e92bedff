# SPDX-License-Identifier: GPL-2.0-only
"""What an overlay is at this moment, whether its squashfs files are whole, and how it is removed."""

import os
import re
import shlex
import shutil
import stat
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime

from easysif import files, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import environment, generations, pack, recorded
from easysif.overlay.content import Content
from easysif.overlay.place import discard
from easysif.overlay.usage import refuse_if_used, users

#: virtual environments that `easysif overlay rebuild` has replaced
BEFORE_REBUILD = re.compile(r'user-software\.before-rebuild(-[0-9]+)?')

#: what an overlay consists of, besides these, what is kept and what is damaged
PARTS = ('user-software', 'user-software.squashfs', recorded.NAME, environment.MADE_FOR)


def status(overlay):
    """Return what an overlay is (dict).

    ``state`` is ``none``, ``directory``, ``packed``, ``both`` or ``damaged``; ``writable`` tells whether the directory
    can be written at this moment (bool), ``same`` whether directory and
    squashfs hold the same by names, sizes and times (bool), ``before_rebuild`` the environments that rebuilds have
    replaced (list of str), ``next`` what to type (list of str). Sizes are in bytes.

    :param overlay: the overlay (Overlay)
    :raises EasySIFError: something in the directory cannot be read
    """
    content = Content(overlay.directory, overlay.where) if overlay.has_directory() else None
    packed = _file(overlay, overlay.squashfs) if os.path.lexists(overlay.squashfs) else None
    asked, resolved = [len(found) for found in recorded.packages_record(overlay.root)]
    found = {
        'module': overlay.module, 'root': overlay.root,
        'state': _state(content, packed), 'same': bool(content and packed and not packed['problem']
                                                       and pack.is_same(overlay, content)),
        'writable': os.access(overlay.directory, os.W_OK),
        'directory': content and {'path': overlay.directory, 'files': content.files(), 'bytes': content.data},
        'squashfs': packed, 'kept': [_file(overlay, path) for _, path in reversed(overlay.kept())],
        'before_rebuild': before_rebuild(overlay),
        'made_for': made_for(overlay.root), 'packages': {'asked': asked, 'resolved': resolved},
        'used_by': [asdict(user) for user in users(overlay.directory)]}
    return dict(found, next=_next(overlay, found))


def made_for(root):
    """Return what the virtual environment was made with (dict), ``python`` and ``image``; empty where nobody says.

    :param root: the user's directory for a module, CONTAINERROOT (str)
    """
    with suppress(OSError, ValueError), open(os.path.join(root, environment.MADE_FOR), encoding='utf-8') as handle:
        pairs = [line.split(None, 1) for line in handle]
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2 and pair[0] in ('python', 'image')}
    return {}


def check(overlay):
    """Read the squashfs files of an overlay and return what is known of each, the one in use first (list of dict).

    ``problem`` is what is wrong with it (str or None), ``recorded`` whether it is what was packed (bool), ``entries``
    how many files it lists (int), None where there is no unsquashfs.

    :param overlay: the overlay (Overlay)
    """
    paths = [overlay.squashfs] if os.path.lexists(overlay.squashfs) else []
    found = []
    for path in paths + [path for _, path in reversed(overlay.kept())]:
        one, entries = _file(overlay, path), None
        if not one['problem']:
            one['problem'] = generations.damage(overlay, path)
        if not one['problem'] and shutil.which('unsquashfs'):
            try:
                entries = len(squashfs.listing(path)) - 1  # without its root
            except EasySIFError as err:
                one['problem'] = 'unsquashfs cannot read it (%s)' % dict(err.facts).get('last line', err.what)
        known = not one['problem'] and recorded.squashfs_record(overlay.root, path)
        found.append(dict(one, entries=entries, recorded=bool(known)))
    return found


def remove(overlay, force=False):
    """Remove an overlay with all that is kept of it; what else lies in its directory stays.

    :param overlay: the overlay (Overlay)
    :param force: do not look for processes that may write to it (bool)
    :returns: what was removed (list of str)
    :raises EasySIFError: there is none, it is in use, or another process is at work on it
    :raises OSError: something cannot be moved, as it is somebody else's, and all is as before
    """
    with overlay.alone() as lock:
        if not force:
            refuse_if_used(overlay)
        overlay.refuse_mount(overlay.directory)
        overlay.refuse_mounted()
        aside, gone = overlay.leaving(), parts(overlay)
        lock.check()
        os.mkdir(aside)
        moved = []
        try:
            for path in gone:
                _move(path, os.path.join(aside, os.path.basename(path)))
                moved.append(path)
        except OSError:
            for path in moved:
                _move(os.path.join(aside, os.path.basename(path)), path)
            os.rmdir(aside)
            raise
        discard(aside)
        return gone


def _move(path, other):
    mode, now = os.lstat(path).st_mode, path
    is_closed = stat.S_ISDIR(mode) and not os.access(path, os.W_OK)
    if is_closed:  # it gets another one above it
        os.chmod(path, stat.S_IMODE(mode) | stat.S_IWUSR)
    try:
        os.rename(path, other)
        now = other
    finally:
        if is_closed:
            os.chmod(now, stat.S_IMODE(mode))


def parts(overlay):
    """Return what an overlay consists of, as far as it is there (list of str)."""
    damaged = re.compile(r'(user-software\.squashfs|overlay\.json)\.damaged(-\d+)?\Z')
    names = sorted(os.listdir(overlay.root)) if os.path.isdir(overlay.root) else []
    kept = {os.path.basename(path) for _, path in overlay.kept()}
    return [os.path.join(overlay.root, name) for name in names
            if name in PARTS or name in kept or damaged.match(name) or BEFORE_REBUILD.fullmatch(name)]


def before_rebuild(overlay):
    """Return the virtual environments that rebuilds have replaced (list of str), beside what a link leads to."""
    above, name = os.path.split(environment.kept(overlay.root))
    return [os.path.join(above, other) for other in sorted(os.listdir(above) if os.path.isdir(above) else [])
            if re.fullmatch(re.escape(name) + '(-[0-9]+)?', other)]


def _file(overlay, path):
    info = os.stat(path) if os.path.exists(path) else None
    date = info and datetime.fromtimestamp(info.st_mtime).astimezone().isoformat(' ', 'seconds')
    return {'path': path, 'size': info and info.st_size, 'date': date, 'problem': squashfs.problem(path)}


def _state(content, packed):
    if packed:
        return 'damaged' if packed['problem'] else 'both' if content else 'packed'
    return 'directory' if content else 'none'


def _next(overlay, found):
    """Return what to type in a state, with what it is for (list of str)."""
    state = found['state']
    if state == 'both' and found['same']:
        lines = [('pack', '--remove', 'removes the directory, which is in the squashfs as well')]
    elif state == 'both':
        lines = [('pack', '--replace', 'packs the directory anew'),
                 ('unpack', '--use-directory', 'uses the directory, and keeps the squashfs file')]
    elif state == 'damaged' and found['directory']:
        lines = [('unpack', '--use-directory', 'uses the directory')]
    else:
        lines = {'directory': [('pack', '', 'makes one file of it')],
                 'packed': [('unpack', '', 'makes it writable again')]}.get(state, [])
    if state in ('damaged', 'none') and found['kept']:
        lines.append(('rollback', '', 'uses the squashfs file that was kept last'))
    elif state == 'damaged' and not found['directory']:
        aside = shlex.join([overlay.squashfs, files.free_name(overlay.squashfs + '.damaged')])
        return ['mv -- %s  # puts the damaged file aside' % aside]
    typed = ['%s  # %s' % (overlay.command(action, *options.split()), what) for action, options, what in lines]
    return typed or ['module load %s; pip install PACKAGE' % overlay.module]
