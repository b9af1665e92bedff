# SPDX-License-Identifier: GPL-2.0-only
"""What the programs of a desktop tell the host, and ask of it: terminals with a shell of the host."""

import json
import os
import pwd
import socket
import sys
import termios
import threading
import time
from contextlib import suppress

from easysif.errors import EasySIFError
from easysif.run import run

LONGEST = 1 << 16  #: bytes of a request
MODULE = os.path.join('init', 'bash')  #: below MODULESHOME, of Lmod and of Environment Modules
HANGING_UP = 2  #: seconds that shells get when their terminals are gone


class Control:
    """Listens at the socket ``control`` of a desktop, in threads of its own.

    :param directory: of the desktop (str)
    :param shell_helper: the file by which a command gets a terminal (str)
    :param told: called with what the programs tell of themselves (dict)
    """

    def __init__(self, directory, shell_helper, told):
        self.directory, self.shell_helper, self.told = directory, shell_helper, told
        self.shells = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(directory, 'control'))
        self.listener.listen()

    def start(self):
        """Listen from now on."""
        threading.Thread(target=self._listen, daemon=True).start()

    def await_end(self):
        """Wait for the shells, whose terminals have ended."""
        end = time.monotonic() + HANGING_UP
        for thread in self.shells:
            thread.join(max(0, end - time.monotonic()))

    def _listen(self):
        while True:
            connection, _ = self.listener.accept()
            self.shells = [thread for thread in self.shells if thread.is_alive()]
            self.shells.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self.shells[-1].start()

    def _answer(self, connection):
        with connection, suppress(OSError, ValueError, EasySIFError):
            request = json.loads(_line(connection))
            if 'terminal' in request:
                self._open(connection, request['terminal'], request['display'])
            else:
                self.told(request)

    def _open(self, connection, command, display):
        """Give who asks a terminal, in which a command runs, or the user's shell."""
        ours, theirs = os.openpty()
        try:
            settings = termios.tcgetattr(theirs)
            settings[3] &= ~termios.ECHO  # of what xterm writes at first
            termios.tcsetattr(theirs, termios.TCSANOW, settings)
            name = os.ttyname(theirs)
            socket.send_fds(connection, [os.path.basename(name).encode()], [ours])
            os.close(ours)
            ours = -1
            run([sys.executable, '-I', '-S', self.shell_helper, name, *(command or shell())], check=False,
                env=environment(os.environ, self.directory, display), cwd=os.path.expanduser('~'))
        finally:
            os.close(theirs)
            if ours >= 0:
                os.close(ours)


def environment(outer, directory, display):
    """Return the environment of programs that are to be seen on a desktop (dict).

    :param outer: the environment of who started it (dict)
    :param directory: of the desktop (str)
    :param display: its display, as ``:1`` (str)
    """
    env = {name: value for name, value in outer.items() if name not in ('WAYLAND_DISPLAY', 'SESSION_MANAGER')}
    return dict(env, DISPLAY=display, XAUTHORITY=os.path.join(directory, 'Xauthority'), TERM='xterm-256color')


def shell():
    """Return what runs in a terminal unless told otherwise: the user's shell (list of str).

    bash gets the module system first: the shell that ran start-vnc may not have handed on its function.
    """
    try:
        path = os.environ.get('SHELL') or pwd.getpwuid(os.getuid()).pw_shell or '/bin/sh'
    except KeyError:
        path = '/bin/sh'
    if os.path.basename(path) == 'bash' and os.path.exists(os.path.join(os.environ.get('MODULESHOME', ''), MODULE)):
        return [path, '-c', '. "$MODULESHOME/%s"; exec "$0"' % MODULE, path]
    return [path]


def _line(connection):
    text = b''
    while not text.endswith(b'\n') and len(text) < LONGEST:
        piece = connection.recv(4096)
        if not piece:
            break
        text += piece
    return text
