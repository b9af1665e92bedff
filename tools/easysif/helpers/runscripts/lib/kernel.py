# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python kernel.py MODULE -f CONNECTION_FILE
       python kernel.py MODULE --check

Runs a kernel of Jupyter, in a group of processes of its own, and hands on the signals that come for it. When the kernel
ends, or the container runtime or Jupyter is gone, nothing that it started is left. Runs under every Python 3 that
ipykernel is for, so it uses old syntax only.
"""

import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from urllib.parse import unquote

from ends import end_with_parent, rehearse

ENVIRONMENT = 'EASYSIF_KERNEL_ENV'  #: in which easysif kernel add --env hands on variables, as NAME=VALUE,…
FORWARDED = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2]
SERVERS = (b'squashfuse', b'squashfuse_ll', b'fuse2fs', b'fuse-overlayfs', b'gocryptfs')  #: of an image's file systems
GRACE = 3.0    #: seconds between SIGTERM and SIGKILL for what a kernel left
PATIENCE = 10.0  #: seconds after which what cannot be killed is left alone
SET_PARENT_SIGNAL, SET_SUBREAPER = 1, 36  #: of prctl(2)


def tell(module, what, *lines):
    """Print an error."""
    sys.stderr.write('\n'.join(('error: %s: %s' % (module, what),) + lines) + '\n')
    sys.stderr.flush()


def found():
    """Return what a kernel needs, as far as it is there (dict)."""
    about = {'python': '%d.%d.%d' % sys.version_info[:3], 'ipykernel': None, 'place': None, 'error': None,
             'debugger': False}
    try:
        import ipykernel
        about.update(ipykernel=ipykernel.__version__, place=os.path.abspath(ipykernel.__file__))
        __import__('debugpy')
        about['debugger'] = True
    except ImportError as err:
        if about['ipykernel'] is None and getattr(err, 'name', 'ipykernel') != 'ipykernel':
            about['error'] = str(err)
    except Exception as err:
        about['error'] = '%s: %s' % (type(err).__name__, err)
    return about


def environment(env):
    """Return the environment of a kernel (dict).

    :param env: that of this process (dict)
    """
    env = dict(env)
    for pair in filter(None, env.pop(ENVIRONMENT, '').split(',')):
        name, _, value = pair.partition('=')
        env[name] = unquote(value)
    # a virtual environment that this Python is not of: IPython would take packages from it nevertheless
    if os.path.realpath(env.get('VIRTUAL_ENV', sys.prefix)) != os.path.realpath(sys.prefix):
        del env['VIRTUAL_ENV']
    env['JPY_PARENT_PID'] = str(os.getpid())  # ipykernel ends where its parent is no longer that one
    return env


def status_of(pid):
    """Return parent (int), name and beginning of a process (bytes), 0 for the parent where there is none."""
    try:
        with open('/proc/%d/stat' % pid, 'rb') as handle:
            before, _, after = handle.read().rpartition(b')')
    except EnvironmentError:
        return 0, b'', b''
    words = after.split()
    return (0, b'', b'') if words[0] == b'Z' else (int(words[1]), before.partition(b'(')[2], words[19])


def processes():
    """Return all processes (dict): number -> what `status_of` says."""
    return dict((int(name), status_of(int(name))) for name in os.listdir('/proc') if name.isdigit())


def descendants():
    """Return all processes below this one (list of int)."""
    parents = dict((one, status[0]) for one, status in processes().items())
    below, reached = [], set([os.getpid()])
    while reached:
        reached = set(one for one, parent in parents.items() if parent in reached)
        below.extend(reached)
    return below


def signal_all(pids, number):
    """Send a signal to processes, of which some may be gone."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except EnvironmentError:
            pass


class Kernel(object):
    """The kernel, and who has to be there for it."""

    def __init__(self, argv, env):
        self.runtime = os.getppid()
        self.is_seen = status_of(self.runtime)[0] != 0  # not from a PID namespace, or where others are hidden
        # when the runtime is killed, nobody ends these
        self.servers = dict((pid, status) for pid, status in processes().items()
                            if status[0] == self.runtime and status[1] in SERVERS)
        jupyter = env.get('JPY_PARENT_PID', '')
        self.jupyter = int(jupyter) if jupyter == str(status_of(self.runtime)[0]) else None
        self.env, self.argv, self.child = environment(env), argv, None
        self.gone = getattr(signal, 'SIGRTMIN', signal.SIGPWR) + 1
        self.awaited = [signal.SIGCHLD, self.gone] + FORWARDED

    def run(self):
        """Run it to its end and return its exit status (int)."""
        self.become_apart()
        rehearse()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.awaited)
        self.child = os.fork()
        if not self.child:
            try:
                end_with_parent()
                os.setpgid(0, 0)
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                os.execve(self.argv[0], self.argv, self.env)
            finally:
                os._exit(127)
        status = None
        while status is None and not self.is_left():
            came = signal.sigtimedwait(self.awaited, 1.0)
            if came and came.si_signo in FORWARDED:
                self.forward(came.si_signo)
            status = self.reap()
        self.end(1 if status is None else status)

    def become_apart(self):
        """Leave the group of processes that Jupyter started, take in orphans, and outlive the runtime a moment."""
        try:
            os.setsid()
        except EnvironmentError:  # it is the leader of a session already
            pass
        signal.pthread_sigmask(signal.SIG_BLOCK, [self.gone])
        try:
            import ctypes
            prctl = ctypes.CDLL(None).prctl
            prctl(SET_SUBREAPER, 1)
            prctl(SET_PARENT_SIGNAL, self.gone)
        except (ImportError, EnvironmentError, AttributeError):
            pass  # it is looked at every second

    def is_runtime_gone(self):
        """Return whether the runtime is gone (bool): its threads die one by one, and it is our parent to the last."""
        return os.getppid() != self.runtime or self.is_seen and not status_of(self.runtime)[0]

    def is_left(self):
        """Return whether the runtime or Jupyter is gone (bool)."""
        return self.is_runtime_gone() or bool(self.jupyter) and status_of(self.runtime)[0] != self.jupyter

    def forward(self, number):
        """Hand on a signal to the kernel and what it runs."""
        try:
            os.killpg(self.child, number)
        except EnvironmentError:  # it has not come so far yet, or is gone
            signal_all([self.child], number)

    def reap(self):
        """Take in what has ended; return the exit status of the kernel (int), None as long as it runs."""
        status = None
        while True:
            try:
                pid, how = os.waitpid(-1, os.WNOHANG)
            except EnvironmentError:
                return status
            if not pid:
                return status
            if pid == self.child:
                status = 128 + os.WTERMSIG(how) if os.WIFSIGNALED(how) else os.WEXITSTATUS(how)

    def end(self, status):
        """End all that is left, and this process."""
        began, left = time.time(), descendants()
        while left and time.time() < began + PATIENCE:
            is_late = self.is_runtime_gone() or time.time() > began + GRACE
            signal_all(left, signal.SIGKILL if is_late else signal.SIGTERM)
            time.sleep(0.05)
            self.reap()
            left = descendants()
        if self.is_runtime_gone():
            servers = [pid for pid, status in self.servers.items() if status_of(pid)[1:] == status[1:]]
            signal_all(servers, signal.SIGKILL)
        os._exit(status)  # not by way of what Python does at its end: there may be no image any more


def main(argv):
    """Run a kernel, or say what it would find; return the exit status (int)."""
    module, option = argv[:2]
    if option == '--check':
        print('easysif kernel %s' % json.dumps(found()))
        return 0
    if find_spec('ipykernel') is None:
        tell(module, 'has no ipykernel, neither in the image nor in the overlay',
             'hint: module load %s && pip install ipykernel' % module)
        return 1
    if not os.path.exists(argv[2]):
        tell(module, 'the connection file cannot be seen inside the image', '  file  %s' % argv[2],
             'hint: export JUPYTER_RUNTIME_DIR=<a directory in your home>, and start Jupyter again')
        return 1
    # without frozen modules, which debuggers cannot look into
    options = ['-Xfrozen_modules=off'] if sys.version_info >= (3, 11) else []
    return Kernel([sys.executable] + options + ['-m', 'ipykernel_launcher'] + argv[1:], os.environ).run()


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
