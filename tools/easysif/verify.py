# SPDX-License-Identifier: GPL-2.0-only
"""Holds installed modules against what was recorded when they were installed. Changes nothing.

A problem is an EasySIFError whose first fact is the file; what was not recorded is said to be not known.
"""

import hashlib
import os
import shlex
import stat

from easysif import files, installed, inventory, manifest, site_files, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import recorded
from easysif.images import sif
from easysif.images.place import sha256_of
from easysif.report import GUARDED, Report
from easysif.store.contents import open_to_all


def verify(name, root, prefix, deep=True):
    """Return what is wrong with an installed module (Report).

    :param name: as in ``jax/24.10`` (str)
    :param root: the installation directory (str)
    :param prefix: EasyBuild's install path (str)
    :param deep: read the image and the overlay as well, which may take minutes (bool)
    """
    while True:
        before = files.inode(root)
        report = Report(name, root, 'easysif refresh %s%s' % (name, installed.option(prefix)),
                        inventory.rebuild(name, root))
        try:
            _verify(report, deep)
        except OSError as err:
            report.unreadable(err.filename or root, 'a file', err)
        if not report.problems or files.inode(root) == before:
            return report
        # a rebuild put another one in its place meanwhile


def verify_prefix(prefix):
    """Return what is wrong with the files that all modules of a prefix read (list of EasySIFError).

    :param prefix: EasyBuild's install path (str)
    """
    problems = []
    for name in site_files.NAMES:
        path = os.path.join(prefix, 'easysif', name)
        why = None
        try:
            with open(path, encoding='utf-8') as handle:
                if site_files.NOTICE not in handle.read():
                    why = 'is not what easysif wrote'
        except FileNotFoundError:
            own = [os.path.join(root, 'easysif', name) for root in installed.modules(prefix).values()]
            # what is missing from all of them no one of them reads: an older EasySIF installed them
            why = 'is missing' if not own or any(map(os.path.exists, own)) else None
        except (OSError, ValueError) as err:
            why = 'cannot be read (%s)' % (getattr(err, 'strerror', None) or err)
        if why:
            problems.append(EasySIFError(prefix, '%s %s; modules use the settings of their install' % (name, why),
                                         facts=[('file', path)],
                                         hint='easysif site apply --prefix %s' % shlex.quote(prefix)))
    return problems


def _verify(report, deep):
    try:
        record = inventory.read(report.module, report.root)
    except EasySIFError as err:
        report.problems.append(err)
        return
    report.rebuild = inventory.rebuild(report.module, report.root, record)
    if record['module'] != report.module:
        report.wrong(os.path.join(report.root, manifest.NAME), '%s is of another module' % manifest.NAME,
                     [('recorded', record['module'])])
    _files(report, record)
    if record['image']:
        _image(report, record, deep)
    _module_file(report, record['modulefile'])
    if deep:
        _overlay(report, record)


def _files(report, record):
    own = {manifest.NAME, manifest.UNTESTED, manifest.image_file(record)}
    left = dict(record['files'])
    unknown = 0
    _modes(report, '.', os.stat(report.root))

    def unreadable(err):
        path = os.path.relpath(err.filename, report.root)
        if path.split(os.sep)[0] != manifest.EASYBUILDS:  # its logs may be for the installer only
            report.unreadable(err.filename, path, err)
            _leave_out(left, path)

    for path, entry in manifest.walk(report.root, without=(), onerror=unreadable):
        _modes(report, path, entry.stat(follow_symlinks=False))
        if path in left:
            report.files += 1
            recorded = left.pop(path)
            unknown += recorded is None
            _compare(report, path, recorded)
        elif path in GUARDED and entry.is_symlink():
            report.wrong(entry.path, '%s is a link, not a directory' % path)
            _leave_out(left, path)
        elif not entry.is_dir(follow_symlinks=False) and path not in own:
            _extra(report, path, entry.path)
    for path in left:
        report.wrong(os.path.join(report.root, path), '%s is missing' % path)
    if unknown:
        report.unknown.append('content of %d file%s' % (unknown, '' if unknown == 1 else 's'))


def _leave_out(left, directory):
    """Forget the files of a directory, which is a problem itself."""
    for path in [path for path in left if path.startswith(directory + os.sep)]:
        del left[path]


def _extra(report, path, where):
    top = path.split(os.sep)[0]
    if top in GUARDED:
        report.wrong(where, '%s does not belong to the module' % path, hint='look at it: ls -l %s' % shlex.quote(where))
    elif top != manifest.EASYBUILDS:
        report.extra.append(path)


def _modes(report, path, info):
    full = os.path.normpath(os.path.join(report.root, path))
    if not stat.S_ISLNK(info.st_mode) and info.st_mode & stat.S_IWOTH:
        what = 'the installation' if path == '.' else path
        report.wrong(full, '%s can be written by everybody' % what, [('mode', stat.filemode(info.st_mode))],
                     'chmod o-w %s' % shlex.quote(full))
    if path == 'easysif/wrapper' and not info.st_mode & stat.S_IXUSR:
        report.wrong(full, '%s cannot be executed' % path, [('mode', stat.filemode(info.st_mode))],
                     'chmod +x %s' % shlex.quote(full))


def _compare(report, path, recorded):
    full = os.path.join(report.root, path)
    try:
        found = manifest.content(full)
    except OSError as err:
        report.unreadable(full, path, err)
        return
    if recorded in (None, found):
        return
    kinds = {'sha256': 'a file', 'link': 'a link', None: 'something else'}
    (kind, value), (was, wanted) = ((text or '').partition(':')[::2] for text in (found, recorded))
    if kind != was:
        report.wrong(full, '%s is %s, not %s' % (path, kinds[kind or None], kinds[was]))
    elif kind == 'link':
        report.wrong(full, '%s leads elsewhere' % path, [('recorded', wanted), ('found', value)])
    else:
        report.wrong(full, '%s was changed' % path, [('recorded', recorded), ('found', found)])


def _image(report, record, deep):
    try:
        path = inventory.find_image(report.module, report.root, record, report.may_be_asked)
    except EasySIFError as err:
        report.problems.append(err)
        return
    own = os.path.join(report.root, record['image']['file'])
    link = record['image'].get('link')
    if link and os.path.islink(own) and os.readlink(own) != link:
        report.wrong(own, 'the link to the image leads elsewhere', [('recorded', link), ('found', os.readlink(own))],
                     inventory.restore(report.module, report.root))
    elif link and path == own:
        report.notes.append('runs the file of the image store: %s' % link)
        report.problems += filter(None, (open_to_all(one, report.module) for one in (os.path.dirname(link), link)))
    if path != own:
        report.notes.append("its own image is gone, the site's store has it: %s" % path)
    try:
        mode = os.stat(path).st_mode
        # the file of a store is the site's, which may have a group of people who look after it
        if path == own and not os.path.islink(own) and mode & (stat.S_IWGRP | stat.S_IWOTH):
            report.wrong(path, 'the image can be written by others', [('mode', stat.filemode(mode))],
                         'chmod a-w %s' % shlex.quote(path))
        if not deep:
            return
        found = sha256_of(path)
        report.size = os.stat(path).st_size
    except OSError as err:
        report.unreadable(path, 'the image', err)
        return
    if found != record['image']['sha256']:
        report.wrong(path, 'the image was changed', [('recorded', 'sha256:' + record['image']['sha256']),
                                                     ('found', 'sha256:' + found)],
                     inventory.restore(report.module, report.root))
        return
    try:
        sif.read(path, report.module)
    except EasySIFError as err:
        report.problems.append(EasySIFError(report.module, err.what, [('file', path), *err.facts],
                                            report.rebuild))


def _module_file(report, recorded):
    if recorded is None:
        report.unknown.append('module file')
        return
    path = recorded['path']
    try:
        with open(path, 'rb') as handle:
            found = hashlib.sha256(handle.read()).hexdigest()
        _modes(report, path, os.stat(path))
    except OSError as err:
        report.unreadable(path, 'the module file', err)
        return
    if found != recorded['sha256']:
        report.wrong(path, 'the module file was changed', [('recorded', 'sha256:' + recorded['sha256']),
                                                           ('found', 'sha256:' + found)])
    for link in recorded['links']:
        if not os.path.islink(link):
            report.wrong(link, 'the link to the module file is missing' if not os.path.lexists(link)
                         else 'what should be a link to the module file is something else')
        elif os.path.realpath(link) != os.path.realpath(path):
            report.wrong(link, 'the link to the module file leads elsewhere', [('recorded', path),
                                                                               ('found', os.readlink(link))])


def _overlay(report, record):
    if record['parameters'] and not record['parameters']['python_env']:
        return
    try:
        place = installed.overlay(report.root) if report.may_be_asked else None
    except EasySIFError:
        place = None
    if place is None:
        report.unknown.append('overlay')  # why, is among the problems
        return
    packed = os.path.join(place, 'user-software.squashfs')
    if not place or not os.path.lexists(packed):
        return
    away = 'mv -- %s %s' % (shlex.quote(packed), shlex.quote(packed + '.damaged'))
    why = squashfs.problem(packed)
    if why:
        report.wrong(packed, 'the overlay is damaged: %s' % why, hint=away)
        return
    try:
        known = [one['sha256'] for one in recorded.squashfs_records(place)]
    except EasySIFError as err:
        report.wrong(err.where, err.what, hint=err.hint)
        return
    if not recorded.record(place).get('squashfs') or not known:
        report.unknown.append('checksum of the overlay')
        return
    try:
        found = sha256_of(packed)
    except OSError as err:
        report.unreadable(packed, 'the overlay', err)
        return
    if found not in known:
        report.wrong(packed, 'the overlay was changed since it was packed',
                     [('recorded', 'sha256:%s' % known[0]), ('found', 'sha256:' + found)], away)
