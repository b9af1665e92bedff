# SPDX-License-Identifier: GPL-2.0-only
"""A lock that works where flock does not (Lustre, NFS): a directory, which can be made only once."""

import os
import shutil
import socket

from easysif.errors import EasySIFError


class Lock:
    """Holds a directory as lock while the ``with`` block runs. The lock of a dead process of this host is taken over.

    :param path: the directory (str)
    :param where: the command or module that wants it, for messages (str)
    :raises EasySIFError: another process holds it; it is named
    """

    def __init__(self, path, where):
        self.path, self.where = path, where

    def __enter__(self):
        try:
            self._take()
        except FileExistsError:
            self._refuse_if_alive()
            shutil.rmtree(self.path, ignore_errors=True)
            self._take()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def _take(self):
        os.mkdir(self.path)
        with open(os.path.join(self.path, 'holder'), 'w', encoding='utf-8') as handle:
            handle.write('%s %d\n' % (socket.gethostname(), os.getpid()))

    def _refuse_if_alive(self):
        try:
            with open(os.path.join(self.path, 'holder'), encoding='utf-8') as handle:
                host, pid = handle.read().split()
        except (OSError, ValueError):  # being made or taken away at this moment
            host, pid = 'an unknown host', '?'
        if host == socket.gethostname() and not os.path.exists('/proc/%s' % pid):
            return
        raise EasySIFError(self.where, 'another process is at work here',
                           facts=[('holder', 'process %s on %s' % (pid, host)), ('lock', self.path)],
                           hint='wait for it; if it is dead: rm -r -- "%s"' % self.path)
