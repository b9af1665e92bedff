# SPDX-License-Identifier: GPL-2.0-only
"""A small file system of an ordinary user's own: a tmpfs in a namespace, for a forked copy of this process."""

import ctypes
import json
import os
import traceback

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000  # of unshare(2)
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096  # of mount(2)


def _mount(kind, directory, flags, options):
    if LIBC.mount(kind, os.fsencode(directory), kind, flags, options):
        raise OSError(ctypes.get_errno(), 'mount %s' % directory)


def read_only(directory, yes):
    """Make it read-only, or writable again, for all who see it (bool)."""
    _mount(b'tmpfs', directory, MS_REMOUNT | MS_BIND | (MS_RDONLY if yes else 0), None)


def on_small_disk(directory, size, steps):
    """Call functions one after the other, in another process, and return which failed, with what (list of str or None).

    :param directory: where the file system is then (Path)
    :param size: of it, in bytes (int)
    :param steps: the functions; the first one makes what the others get as argument
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            failures = _call(directory, size, steps)
        except BaseException:
            failures = [traceback.format_exc()] * len(steps)
        with open(writing, 'w', encoding='utf-8') as stream:
            json.dump(failures, stream)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding='utf-8') as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return json.loads(told)


def _call(directory, size, steps):
    user, group = os.getuid(), os.getgid()
    if LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), 'unshare')
    for name, text in (('setgroups', 'deny'), ('uid_map', '%d %d 1' % (user, user)),
                       ('gid_map', '%d %d 1' % (group, group))):
        with open('/proc/self/' + name, 'w', encoding='utf-8') as handle:
            handle.write(text)
    _mount(b'tmpfs', directory, 0, b'size=%d,mode=755' % size)
    scene, failures = steps[0](), []
    for step in steps[1:]:
        try:
            step(scene)
            failures.append(None)
        except BaseException:
            failures.append(traceback.format_exc())
    return failures
