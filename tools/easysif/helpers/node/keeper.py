# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S -B DIRECTORY keep SOCKET RUNTIME IMAGE SHELL

Keeps an image mounted for all processes of a job step on a node, which come by a socket (see join.py), and ends with
the last of them. It starts one container, in which a shell waits for the end of its standard input. Every process that
comes gets the other end of that pipe: should the keeper be killed, the mounts stay until the last one of them is gone.
See hold for what is done where the runtime is killed as well.
"""

import collections
import contextlib
import ctypes
import json
import os
import re
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time

from environment import PROBE
from meeting import LAST

PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # <linux/prctl.h>
PATIENCE = 5  #: seconds in which a container ends by itself
HOLD = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'hold')  #: what the shell inside runs
SCRIPTS = '.singularity.d/env'  #: what the runtime runs inside to make the environment
DIRECTORIES = tuple(runtime + name for runtime in ('APPTAINER', 'SINGULARITY') for name in ('_PWD', '_CWD'))
#: what is meant for others of the job step: a keeper ends with the last of those that it serves
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)


class Keeper:
    """Keeps one image.

    :param server: where those that share it come to (socket)
    """

    def __init__(self, server, runtime, image, shell):
        self.server, self.runtime, self.image, self.shell = server, runtime, image, shell
        self.selector, self.guests, self.number = selectors.DefaultSelector(), set(), 0
        self.container, self.pipe, self.answer, self.spaces = None, None, {}, set()

    def run(self):
        """Mount the image, let all in that come, and end when nobody is left."""
        self.answer = self.try_mount()
        self.selector.register(self.server, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(0 if not self.guests else None):
                if key.fileobj is not self.server:
                    self.listen(key.fileobj)
                elif self.server.fileno() >= 0:
                    self.welcome()
            if not self.guests and not self.waiting():
                if not self.others():
                    break
                time.sleep(0.5)  # a process that has closed all files is still in there
        self.server.close()
        self.unmount()

    def try_mount(self):
        """Mount the image; the same as mount."""
        try:
            return self.mount()
        except OSError as err:  # the runtime cannot be started, or the container was killed at once
            self.unmount()
            return {'failed': '%s: %s' % (self.runtime, err.strerror)}

    def mount(self):
        """Start the container and return what those that come are told (dict)."""
        reading, self.pipe = os.pipe()
        outside = {name: value for name, value in os.environ.items() if name != PROBE}
        with open(reading, 'rb') as source, open(HOLD) as script:
            text = ''.join(line for line in script if not line.lstrip().startswith('#'))
            self.container = subprocess.Popen(
                [self.runtime, '--silent', 'exec', '--userns', self.image, self.shell, '-c', text],
                env=dict(outside, **{PROBE: '1'}), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True)
        last = collections.deque(maxlen=1)  # who says much must not wait for a reader
        reader = threading.Thread(target=last.extend, args=(filter(bytes.strip, self.container.stderr),), daemon=True)
        reader.start()
        holder = int(next(filter(bytes.isdigit, map(bytes.strip, self.container.stdout)), 0))
        left = descendants(os.getpid())
        if holder not in left:
            self.unmount()
            reader.join(PATIENCE)
            said = [line.decode('utf-8', 'replace').strip() for line in last]
            return {'failed': 'its processes have numbers of their own (isolation: pid)' if holder else (
                said[0] if said else '%s ended with exit code %s' % (self.runtime, self.container.returncode))}
        os.write(self.pipe, b''.join(b'%d %d\n' % (one, began) for one, began in left.items() if one != holder))
        self.spaces.add(os.readlink('/proc/%d/ns/mnt' % holder))
        with open('/proc/%d/environ' % holder, 'rb') as handle:
            pairs = [os.fsdecode(one).split('=', 1) for one in handle.read().split(b'\0') if b'=' in one]
        return {'holder': holder, 'keeper': os.getpid(), 'outside': outside, 'inside': dict(pairs),
                'mentioned': mentioned('/proc/%d/root/%s' % (holder, SCRIPTS)),
                'directory': os.readlink('/proc/%d/cwd' % holder) if any(map(outside.get, DIRECTORIES)) else None}

    def welcome(self):
        """Let one in, if it is of our user."""
        guest, _ = self.server.accept()
        _, user, _ = struct.unpack('3i', guest.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.geteuid():
            guest.close()
            return
        if 'failed' not in self.answer and self.container.poll() is not None:  # somebody has killed it
            os.close(self.pipe)
            self.answer = self.try_mount()
        self.number += 1
        text = json.dumps(dict(self.answer, number=self.number)).encode() + b'\n'
        guest.settimeout(PATIENCE)  # one that is stopped must not stop the others
        try:
            sent = socket.send_fds(guest, [text], [self.pipe]) if self.pipe is not None else 0
            guest.sendall(text[sent:])
        except OSError:  # it is gone already
            guest.close()
        else:
            self.guests.add(guest)
            self.selector.register(guest, selectors.EVENT_READ)

    def listen(self, guest):
        """Take notice that one of them has gone, or says that the job step to which we belong is to end."""
        said = b''
        with contextlib.suppress(OSError):
            said = guest.recv(64)
        self.guests.discard(guest)
        if not said:
            self.selector.unregister(guest)
            guest.close()
        elif self.server.fileno() >= 0:  # it waits for our end, and who comes now has another keeper
            self.selector.unregister(self.server)
            self.server.close()
            for other in self.guests:  # one of them may hold the image for the job, too, and now has to do so anew
                with contextlib.suppress(OSError):
                    other.send(LAST, socket.MSG_DONTWAIT)

    def waiting(self):
        """Return whether somebody waits to be let in (bool)."""
        return any(key.fileobj is self.server for key, _ in self.selector.select(0))

    def others(self):
        """Return whether somebody else than the container's own processes sees the mounts (bool)."""
        own = descendants(os.getpid())
        for name in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                if int(name) not in own and os.readlink('/proc/%s/ns/mnt' % name) in self.spaces:
                    return True
        return False

    def unmount(self):
        """End the container, and what it leaves: a runtime that is killed cannot end what serves its mounts."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None
        if self.container:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.container.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            left = descendants(os.getpid())
            for process in left:
                with contextlib.suppress(OSError):
                    os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if not left:
                break
            time.sleep(0.01)


def mentioned(directory):
    """Return the words in the scripts of a directory, which may be names of variables (list of str)."""
    words = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            with contextlib.suppress(OSError), open(os.path.join(directory, name), errors='replace') as handle:
                words.update(re.findall(r'[A-Za-z_][A-Za-z0-9_]*', handle.read()))
    return sorted(words)


def descendants(top):
    """Return all processes that descend from one, and when they began, in ticks of the clock (dict of int)."""
    known = {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError), open('/proc/%s/stat' % name, 'rb') as handle:
            words = handle.read().rpartition(b')')[2].split()
            if words[0] not in (b'Z', b'X'):
                known[int(name)] = int(words[1]), int(words[19])
    found, new = {}, {top}
    while new:
        new = {process for process, (parent, _) in known.items() if parent in new and process not in found}
        found.update((process, known[process][1]) for process in new)
    return found


def main(descriptor, runtime, image, shell):
    """Keep an image, as a process of its own that holds nothing of who started it."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    descriptor = int(descriptor)
    server = socket.socket(fileno=descriptor)
    server.set_inheritable(False)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    for name in os.listdir('/proc/self/fd'):
        if int(name) > 2 and int(name) != descriptor:
            with contextlib.suppress(OSError):
                os.close(int(name))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, b'easysif-keeper', 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):  # it serves all ranks; what the job may not use, the kernel leaves out
        os.sched_setaffinity(0, range(os.cpu_count()))
    Keeper(server, runtime, image, shell).run()
