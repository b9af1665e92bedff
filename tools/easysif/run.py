# SPDX-License-Identifier: GPL-2.0-only
"""The one module that starts processes: argument lists, never shell strings.

A failure reports the command, its exit code, its last line and, where there is one, the log file.
"""

import atexit
import errno
import marshal
import os
import select
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from easysif import supervisor
from easysif.errors import TOOL, EasySIFError
from easysif.text import exit_code

PATIENCE = 5  #: seconds that a command gets to end by itself when it is stopped


@dataclass(frozen=True)
class Result:
    """What a process left: its arguments, exit status (negative: the signal) and output (str, or bytes if so asked)."""

    argv: tuple
    status: int
    stdout: str
    stderr: str

    def last_line(self):
        """Return the last line it printed that is not blank, preferring the error output (str)."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in str(text).splitlines() if line.strip()]
            if lines:
                return lines[-1]
        return ''


def run(argv, env=None, cwd=None, log=None, timeout=None, check=True, stdin=None, binary=False, started=None):
    """Run a command to its end and return what it left.

    The command gets a session of its own. On a time-out, on an interrupt and when this process is killed it is ended
    with all that it started, so that no helper process of a container runtime survives its caller.

    :param argv: command and arguments (list of str)
    :param env: its environment (dict), the caller's where None
    :param cwd: its working directory (str)
    :param log: file that takes both outputs instead of the result (str)
    :param timeout: seconds after which it is killed (float); it then has status -9
    :param check: raise when it does not exit with 0 (bool)
    :param stdin: text for its standard input (str), nothing where None
    :param binary: leave its standard output as bytes (bool)
    :param started: called with the number of its process when it runs
    :raises EasySIFError: the command is not there, or failed while ``check`` is true; the log cannot be written
    """
    argv = [str(arg) for arg in argv]
    try:
        sink = open(log, 'ab') if log else None
    except OSError as err:
        raise EasySIFError(log, 'cannot be written (%s)' % err.strerror,
                           hint='ls -ld %s' % shlex.quote(os.path.dirname(os.path.abspath(log)))) from err
    try:
        command = _Command(argv, os.environ if env is None else env, cwd, sink, stdin is not None)
    except OSError as err:
        raise _not_started(argv[0], err) from err
    finally:
        if sink:
            sink.close()
    with command:
        if started:
            started(command.process)
        status, out, err = command.communicate(memoryview((stdin or '').encode()), timeout)
    result = Result(tuple(argv), status, out if binary else _text(out), _text(err))
    if check and result.status != 0:
        raise failure(result, log)
    return result


def become(argv):
    """Become another program, in this process and with its standard streams.

    :param argv: the file and its arguments (list of str)
    :raises EasySIFError: it cannot be executed
    """
    try:
        os.execv(argv[0], argv)
    except OSError as err:
        raise _not_started(argv[0], err) from err


def _not_started(command, err):
    return EasySIFError(command, 'could not be started (%s)' % err.strerror,
                        hint='command -v %s' % shlex.quote(command), exit_code=TOOL)


def failure(result, log=None, what=None, hint=None):
    """Return the error that tells of a failed command.

    :param result: what it left (Result)
    :param log: the file that took its output (str)
    :param what: what failed, in the user's words (str)
    :param hint: what to type (str)
    """
    last = tail(log) if log else result.last_line()
    facts = [('command', shlex.join(result.argv)), ('exit code', exit_code(result.status))]
    if last:
        facts.append(('last line', last))
    if log:
        facts.append(('log', log))
    return EasySIFError(os.path.basename(result.argv[0]), what or 'command failed', facts=facts, hint=hint,
                        exit_code=TOOL)


def tail(path):
    """Return the last line of a log file that is not blank, '' where there is none (str)."""
    try:
        with open(path, 'rb') as handle:
            handle.seek(max(os.path.getsize(path) - 4096, 0))
            lines = [line.strip() for line in _text(handle.read()).splitlines() if line.strip()]
    except OSError:
        return ''
    return lines[-1] if lines else ''


def _text(data):
    return data.decode('utf-8', 'replace') if data else ''


class _Command:
    """One command, which a supervisor runs for us. A ``with`` block that is left by an exception ends it.

    :param log: file that takes both outputs (binary file object), None where they are wanted here
    :param stdin: whether it gets something to read (bool)
    :raises OSError: it cannot be started
    """

    def __init__(self, argv, env, cwd, log, stdin):
        self._status, self._input, self._outputs = None, None, {}
        umask = os.umask(0o077)
        os.umask(umask)
        request = marshal.dumps(([os.fsencode(arg) for arg in argv],
                                 {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
                                 None if cwd is None else os.fsencode(cwd), umask, PATIENCE))
        with ExitStack() as ours, ExitStack() as theirs:
            self._link, link = socket.socketpair()
            ours.enter_context(self._link)
            given = [theirs.enter_context(link)]
            if stdin:
                end, self._input = _pipe(theirs, ours)
                given.append(end)
            else:
                given.append(theirs.enter_context(open(os.devnull, 'rb')))
            for _ in range(2):
                if log:
                    given.append(log)
                else:
                    output, end = _pipe(ours, theirs)
                    self._outputs[output] = bytearray()
                    given.append(end)
            here = os.open('.', os.O_PATH | os.O_DIRECTORY)
            theirs.callback(os.close, here)
            _starter.ask([*(end.fileno() for end in given), here])
            theirs.close()
            with suppress(BrokenPipeError):  # where none could be forked, which the reply tells
                supervisor.send(self._link, request)
            kind, self.process = self._reply()
            if kind != supervisor.STARTED:
                code = self.process if kind == supervisor.REFUSED else errno.EPIPE
                raise OSError(code, os.strerror(code))
            self._ours = ours.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self._ours, suppress(OSError):
            if kind is None:
                self._link.send(supervisor.DONE)
            else:
                self._link.send(supervisor.STOP)
                self._link.settimeout(PATIENCE + supervisor.DYING + 1)
                self._reply()

    def communicate(self, text, timeout):
        """Give the command what it reads (memoryview); return exit status and both outputs (int, bytes, bytes)."""
        deadline, stopped = None if timeout is None else time.monotonic() + timeout, False
        with selectors.DefaultSelector() as selector:
            for source in (self._link, *self._outputs):
                selector.register(source, selectors.EVENT_READ)
            if self._input:
                selector.register(self._input, selectors.EVENT_WRITE)
            while selector.get_map():
                for key, _ in selector.select(None if deadline is None else max(deadline - time.monotonic(), 0)):
                    if key.fileobj is self._input:
                        text = self._feed(text)
                        if not text:
                            selector.unregister(self._input)
                            self._input.close()
                    elif not self._take(key.fileobj):
                        selector.unregister(key.fileobj)
                if deadline is not None and time.monotonic() >= deadline:
                    if stopped:  # what waits for a dead file server cannot even be killed
                        break
                    with suppress(OSError):
                        self._link.send(supervisor.STOP)
                    deadline, stopped = time.monotonic() + PATIENCE + supervisor.DYING + 1, True
        status = -signal.SIGKILL if self._status is None else self._status
        return (status, *(bytes(output) for output in self._outputs.values()), b'', b'')[:3]

    def _feed(self, text):
        """Write some of a text, and return what is left of it; nothing where the command reads no more (memoryview)."""
        try:
            return text[os.write(self._input.fileno(), text[:select.PIPE_BUF]):] if text else text
        except BrokenPipeError:
            return text[:0]

    def _take(self, source):
        """Take what one of them has for us; return whether there may be more (bool)."""
        if source is self._link:
            self._status = self._reply()[1]
            return False
        piece = os.read(source.fileno(), 1 << 16)
        self._outputs[source] += piece
        return bool(piece)

    def _reply(self):
        """Return what the supervisor tells, a kind and a number. One that is killed takes its command with it."""
        text = self._link.recv(supervisor.REPLY.size, socket.MSG_WAITALL)
        if len(text) < supervisor.REPLY.size:
            return supervisor.ENDED, -signal.SIGKILL
        return supervisor.REPLY.unpack(text)


class _Starter:
    """The process that forks supervisors, started when there is the first command to run. It ends with this process."""

    def __init__(self):
        self._lock, self._link, self._process = threading.Lock(), None, None

    def ask(self, descriptors):
        """Have a supervisor forked.

        :param descriptors: the connection to us, its command's standard streams, our working directory (list of int)
        :raises OSError: it cannot be
        """
        with self._lock:
            for attempt in range(2):
                if not self._link:
                    self._start()
                try:
                    socket.send_fds(self._link, [b'+'], descriptors, socket.MSG_NOSIGNAL)
                    return
                except ConnectionError:  # it was killed
                    self.end()
                    if attempt:
                        raise

    def _start(self):
        self._link, link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with link:
            self._process = subprocess.Popen([sys.executable, '-I', '-S', supervisor.__file__, str(link.fileno())],
                                             pass_fds=[link.fileno()], stdin=subprocess.DEVNULL, cwd='/',
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                             start_new_session=True)

    def end(self):
        """Have it end, which takes no time."""
        if self._link:
            self._link.close()
            self._process.wait()
            self._link = self._process = None

    def forget(self):
        """Leave it to the process that this one was forked from."""
        if self._link:
            self._link.close()
            self._process.returncode = 0
        self.__init__()


_starter = _Starter()
atexit.register(_starter.end)
os.register_at_fork(after_in_child=_starter.forget)


def _pipe(reader, writer):
    """Return the ends of a new pipe, of which each belongs to an ExitStack (two files)."""
    reading, writing = os.pipe()
    return (reader.enter_context(open(reading, 'rb', buffering=0)),
            writer.enter_context(open(writing, 'wb', buffering=0)))
