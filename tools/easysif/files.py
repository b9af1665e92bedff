# SPDX-License-Identifier: GPL-2.0-only
"""Writes files so that each is there whole or not at all."""

import os

from easysif.errors import EasySIFError


def write(path, content, mode=0o664):
    """Write a text file beside its place, sync it and rename it there; leave it alone where it is the same already.

    :param path: the file (str); its directory is made
    :param content: the text (str)
    :param mode: permissions (int), of which the umask takes what it takes
    :returns: whether anything changed (bool)
    :raises EasySIFError: the file cannot be written
    """
    try:
        with open(path, encoding='utf-8') as handle:
            if handle.read() == content:
                return False
    except (OSError, ValueError):
        pass
    beside = '%s.new-%d' % (path, os.getpid())
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with open(handle, 'w', encoding='utf-8') as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(beside, path)
        except BaseException:
            if os.path.lexists(beside):
                os.unlink(beside)
            raise
    except OSError as err:
        raise EasySIFError(path, 'cannot be written (%s)' % err.strerror,
                           hint='check: ls -ld %s; df %s' % ((os.path.dirname(path),) * 2)) from err
    return True
