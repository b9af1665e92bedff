# SPDX-License-Identifier: GPL-2.0-only
"""Starts commands for run.py, and ends each with all that it started when the process that wanted it ends.

A process that is killed cannot clean up behind itself, so another one has to. run.py starts this file once, as a
process of its own, and asks it over a socket for every command. For each it forks a supervisor, which starts the
command and holds the other end of a connection to the caller: when that breaks, the caller is gone. All descendants of
a command stay descendants of its supervisor, whatever groups, sessions or parents they choose.

Nothing of ours is imported, and little else, as the first command waits for it.
"""

import ctypes
import errno
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

REPLY = struct.Struct('!ci')  #: what a supervisor tells: one of the next, with a process, an errno, an exit status
STARTED, REFUSED, ENDED = b'P', b'E', b'S'
STOP, DONE = b'T', b'.'  #: what the caller tells: end the command with all that it started; or nothing more is wanted

LAST_WORDS = 2  #: seconds that a command gets to end by itself when its caller is gone
DYING = 3  #: seconds that killed processes get to be gone: one that waits for a dead file server may never be
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


def send(connection, text):
    """Send a request over a connection: its length, then itself (bytes)."""
    connection.sendall(struct.pack('!Q', len(text)) + text)


def main(control):
    """Fork a supervisor for every request that comes, until the caller is gone.

    :param control: the socket (int); a message comes with the descriptors of the connection to the caller, of the
        command's standard streams and of the caller's working directory
    """
    os.set_inheritable(control, False)
    os.chdir('/')
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=control) as requests:
        while True:
            message, passed, _, _ = socket.recv_fds(requests, 1, 8)
            if not message:
                return
            for descriptor in passed:
                os.set_inheritable(descriptor, False)
            connection = socket.socket(fileno=passed[0])
            try:
                forked = os.fork()
            except OSError as err:
                _tell(connection, REFUSED, err.errno)
            else:
                if forked == 0:
                    try:
                        requests.close()
                        _Supervisor(connection).run(passed[1:])
                    finally:
                        os._exit(0)
            connection.close()
            for descriptor in passed[1:]:
                os.close(descriptor)


class _Supervisor:
    """Runs one command.

    :param connection: the connection to the caller (socket)
    """

    def __init__(self, connection):
        self.connection, self.command, self.alive = connection, None, False

    def run(self, descriptors):
        """Read the request, start the command, tell how it ends, and end what is left of it if the caller is gone."""
        request = self._request()
        if not request:
            return
        *how, patience = marshal.loads(request)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            self.command = _start(descriptors, *how)
        except OSError as err:
            return _tell(self.connection, REFUSED, err.errno)
        self.alive = True
        for descriptor in descriptors:
            os.close(descriptor)
        _tell(self.connection, STARTED, self.command)
        while True:
            self._reap()
            ready, _, _ = select.select([self.connection, wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
            if self.connection in ready:
                word = self._receive(1)
                if word == DONE:
                    return
                self._end(patience if word == STOP else LAST_WORDS)
                if word != STOP:
                    return

    def _request(self):
        head = self._receive(8)
        return head and self._receive(*struct.unpack('!Q', head))

    def _receive(self, size):
        """Return so many bytes from the caller, b'' where it is gone."""
        text = b''
        while len(text) < size:
            try:
                piece = self.connection.recv(size - len(text))
            except OSError:
                return b''
            if not piece:
                return b''
            text += piece
        return text

    def _reap(self):
        """Take note of what has ended; of other descendants, as they come to us when their parents end."""
        with suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if not process:
                    break
                if process == self.command and self.alive:
                    self.alive = False
                    _tell(self.connection, ENDED, os.waitstatus_to_exitcode(status))

    def _end(self, patience):
        """End the command with all that it started.

        By SIGTERM first, on which a container runtime ends the processes that serve its mounts; it gets so many seconds
        for that. Then whatever is still there is killed.
        """
        deadline = time.monotonic() + patience
        if self.alive:
            with suppress(OSError):
                os.killpg(self.command, signal.SIGTERM)
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)
            self._reap()
        deadline = time.monotonic() + DYING
        if self.alive:
            with suppress(OSError):
                os.killpg(self.command, signal.SIGKILL)
        while True:
            left = _descendants(os.getpid(), self.command)
            for process in left:
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            self._reap()
            if not left or time.monotonic() > deadline:
                return
            time.sleep(0.01)


def _start(descriptors, argv, env, directory, umask):
    """Start a command in a session of its own and return its process (int).

    :param descriptors: its standard streams, and the directory in which the caller is (list of int)
    :param argv: it may be in all directories of the environment's PATH, where it can be executed (list of bytes)
    :param directory: its working directory (bytes), the caller's where None
    :raises OSError: it cannot be executed
    """
    report, failed = os.pipe()
    supervisor, process = os.getpid(), os.fork()
    if process == 0:
        code = errno.ENOENT
        try:
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(0)
            os.fchdir(descriptors[3])
            if directory is not None:
                os.chdir(directory)
            os.umask(umask)
            for number in range(3):
                os.dup2(descriptors[number], number)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):  # the last two Python ignores
                signal.signal(number, signal.SIG_DFL)
            for path in _candidates(argv[0], env):
                try:
                    os.execve(path, argv, env)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except OSError as err:
                    code = err.errno
        except OSError as err:
            code = err.errno
        except ValueError:  # a null byte
            code = errno.EINVAL
        finally:
            os.write(failed, struct.pack('i', code))
            os._exit(1)
    os.close(failed)
    with open(report, 'rb') as handle:
        code = handle.read(4)
    if code:
        os.waitpid(process, 0)
        raise OSError(*struct.unpack('i', code), '')
    return process


def _candidates(name, env):
    """Return where a command may be, as for execvp with the PATH of that environment (list of bytes)."""
    directories = [b''] if os.path.dirname(name) else map(os.fsencode, os.get_exec_path(env))
    return [os.path.join(directory, name) for directory in directories]


def _descendants(top, session):
    """Return the processes that descend from one, or are in a session (list of int)."""
    parents, found = {}, []
    with suppress(OSError):
        if os.readlink('/proc/self') != str(top):  # it shows another namespace, where the numbers mean others
            return []
    for name in filter(str.isdigit, os.listdir('/proc')):
        with suppress(OSError), open('/proc/%s/stat' % name, 'rb') as handle:
            state, parent, _, its_session = handle.read().rpartition(b')')[2].split()[:4]
            if state not in (b'Z', b'X') and int(name) != top:
                parents[int(name)] = int(parent)
                if int(its_session) == session:
                    found.append(int(name))
    new = {top}
    while new:
        new = {process for process, parent in parents.items() if parent in new}
        found.extend(new)
    return found


def _tell(connection, word, number):
    with suppress(OSError):
        connection.sendall(REPLY.pack(word, number))


def _prctl(option, value):
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == '__main__':
    main(int(sys.argv[1]))
