# SPDX-License-Identifier: GPL-2.0-only
"""The one module that starts processes: argument lists, never shell strings.

A failure reports the command, its exit code, its last line and, where there is one, the log file.
"""

import os
import shlex
import signal
import subprocess
from dataclasses import dataclass

from easysif.errors import TOOL, EasySIFError

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


def run(argv, env=None, cwd=None, log=None, timeout=None, check=True, stdin=None, binary=False):
    """Run a command to its end and return what it left.

    The command gets a session of its own, which is ended as a whole on a time-out and on an interrupt,
    so that no helper process of a container runtime survives its caller.

    :param argv: command and arguments (list of str)
    :param env: its environment (dict), the caller's where None
    :param cwd: its working directory (str)
    :param log: file that takes both outputs instead of the result (str)
    :param timeout: seconds after which it is killed (float); it then has status -9
    :param check: raise when it does not exit with 0 (bool)
    :param stdin: text for its standard input (str), nothing where None
    :param binary: leave its standard output as bytes (bool)
    :raises EasySIFError: the command is not there, or failed while ``check`` is true; the log cannot be written
    """
    argv = [str(arg) for arg in argv]
    try:
        sink = open(log, 'ab') if log else subprocess.PIPE
    except OSError as err:
        raise EasySIFError(log, 'cannot be written (%s)' % err.strerror,
                           hint='ls -ld %s' % shlex.quote(os.path.dirname(os.path.abspath(log)))) from err
    try:
        process = subprocess.Popen(argv, env=env, cwd=cwd, stdout=sink, stderr=subprocess.STDOUT if log else sink,
                                   stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                                   start_new_session=True)
    except OSError as err:
        raise EasySIFError(argv[0], 'could not be started (%s)' % err.strerror,
                           hint='command -v %s' % shlex.quote(argv[0]), exit_code=TOOL) from err
    finally:
        if log:
            sink.close()
    try:
        out, err = process.communicate(None if stdin is None else stdin.encode(), timeout=timeout)
    except subprocess.TimeoutExpired:
        _end_group(process)
        out, err = process.communicate()
    except BaseException:
        _end_group(process)
        process.wait()
        raise
    result = Result(tuple(argv), process.returncode, out if binary else _text(out), _text(err))
    if check and result.status != 0:
        raise failure(result, log)
    return result


def failure(result, log=None, what=None, hint=None):
    """Return the error that tells of a failed command.

    :param result: what it left (Result)
    :param log: the file that took its output (str)
    :param what: what failed, in the user's words (str)
    :param hint: what to type (str)
    """
    last = tail(log) if log else result.last_line()
    facts = [('command', shlex.join(result.argv)), ('exit code', describe(result.status))]
    if last:
        facts.append(('last line', last))
    if log:
        facts.append(('log', log))
    return EasySIFError(os.path.basename(result.argv[0]), what or 'command failed', facts=facts, hint=hint,
                        exit_code=TOOL)


def describe(status):
    """Return an exit status in words: ``3``, or ``killed by SIGTERM`` (str)."""
    if status >= 0:
        return str(status)
    try:
        return 'killed by %s' % signal.Signals(-status).name
    except ValueError:
        return 'killed by signal %d' % -status


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


def _end_group(process):
    """End a command with all that it started.

    By SIGTERM first, on which a container runtime ends the processes that serve its mounts; these are in groups of
    their own, but all are in the session that the command leads.
    """
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    finally:
        for name in filter(str.isdigit, os.listdir('/proc')):
            try:
                if os.getsid(int(name)) == process.pid:
                    os.kill(int(name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
