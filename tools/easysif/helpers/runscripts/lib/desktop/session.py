# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python3 session.py DIRECTORY WIDTHxHEIGHT

Inside the image: a VNC server on the first free display, a window manager with a terminal, and the browser's client.
Everything is at sockets in the directory, which is its owner's alone, and nowhere else. It ends with any of them, or
with who started it. What it tells, it tells at the directory's socket ``control``, one line of JSON each.

Any Python from 3.6 on runs this; the image's has to have websockify.
"""

import json
import os
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time

try:
    from websockify.websocketproxy import ProxyRequestHandler
except ImportError:
    ProxyRequestHandler = None

FIRST, LAST = 1, 999  #: displays that are tried; 0 is the machine's own
READY = 60            #: seconds in which a server has to serve
PAGES = '/usr/share/novnc'
X = '/tmp/.X11-unix/X%d'
LOCK = '/tmp/.X%d-lock'
LONGEST = 64  #: characters of a lock that are read: it has 11
NEEDED = ('Xvnc', 'vncpasswd', 'x-window-manager', 'xterm')
HERE = os.path.dirname(os.path.abspath(__file__))


class Failure(Exception):
    """Why there is no desktop, in words."""


class Session:
    """The programs of one desktop.

    :param directory: where its sockets and files are (str)
    :param geometry: the size of the screen (str)
    """

    def __init__(self, directory, geometry):
        self.directory, self.geometry, self.programs, self.number = directory, geometry, [], None
        self.authority = self.path('Xauthority')

    def path(self, name):
        """Return the path of a file of the session (str)."""
        return os.path.join(self.directory, name)

    def run(self):
        """Start everything, tell of it, and return when one of the programs or who started us has ended."""
        parent = os.getppid()
        missing = [name for name in NEEDED if not shutil.which(name)]
        missing += [] if ProxyRequestHandler else ['the Python package websockify']
        missing += [] if os.path.isfile(os.path.join(PAGES, 'vnc.html')) else [os.path.join(PAGES, 'vnc.html')]
        if missing:
            raise Failure('the image lacks %s' % ', '.join(missing))
        try:
            self.protect()
            self.serve()
            web = Web(self.path('web'), self.path('vnc'))
            threading.Thread(target=web.serve_forever, daemon=True).start()
            self.start('x-window-manager')
            self.start('x-terminal-emulator')
            tell(self.directory, ready=self.number)
            # the terminal may be closed
            while os.getppid() == parent and all(one.poll() is None for one in self.programs[:2]):
                time.sleep(0.2)
        finally:
            self.end()

    def protect(self):
        """Have the server know the password by what vncpasswd makes of it."""
        with open(self.path('password')) as word, open(self.path('passwd'), 'xb') as target:
            subprocess.run(['vncpasswd', '-f'], stdin=word, stdout=target, check=True)

    def serve(self):
        """Start the server on the first display that is free."""
        for number in range(FIRST, LAST + 1):
            if not is_taken(number) and self.try_display(number):
                self.number = number
                os.environ['DISPLAY'] = ':%d' % number
                os.environ['XAUTHORITY'] = self.authority
                os.environ['EASYSIF_DESKTOP'] = self.directory
                os.environ['PATH'] = '%s:%s' % (os.path.join(HERE, 'bin'), os.environ['PATH'])
                for name in ('WAYLAND_DISPLAY', 'DBUS_SESSION_BUS_ADDRESS', 'SESSION_MANAGER'):
                    os.environ.pop(name, None)
                return
        raise Failure('no display is free: :%d to :%d are taken' % (FIRST, LAST))

    def try_display(self, number):
        """Start a server on a display and return whether it serves; it does not where another one came first (bool)."""
        write_authority(self.authority, number)
        reading, writing = os.pipe()
        server = subprocess.Popen(
            ['Xvnc', ':%d' % number, '-geometry', self.geometry, '-depth', '24', '-auth', self.authority,
             '-rfbport', '-1', '-rfbunixpath', self.path('vnc'), '-rfbunixmode', '0600', '-SecurityTypes', 'VncAuth',
             '-PasswordFile', self.path('passwd'), '-nolisten', 'tcp', '-nolisten', 'local', '-desktop', 'EasySIF',
             '-displayfd', str(writing)], pass_fds=[writing], stdin=subprocess.DEVNULL)
        os.close(writing)
        with open(reading) as ready:
            told = ready.readline()  # the number, or nothing where it has ended
        if told.strip():
            self.programs.append(server)
            end = time.monotonic() + READY
            while not os.path.exists(self.path('vnc')):
                if time.monotonic() > end or server.poll() is not None:
                    raise Failure('the VNC server does not serve')
                time.sleep(0.02)
            return True
        server.wait()
        if is_taken(number):
            return False
        raise Failure('the VNC server has ended with exit code %d' % server.returncode)

    def start(self, *argv):
        """Start a program of the desktop, in the home where that is to be seen inside."""
        home = os.path.expanduser('~')
        self.programs.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, cwd=home if os.path.isdir(home) else '/'))

    def end(self):
        """End all programs, the server last, and wait for them."""
        for one in reversed(self.programs):
            if one.poll() is None:
                one.terminate()
            try:
                one.wait(3)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()


class Web(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Gives a browser the pages of noVNC, and takes what these say to the VNC server."""

    daemon_threads = True
    token_plugin = auth_plugin = heartbeat = None

    def __init__(self, path, target):
        self.target = target
        os.chdir(PAGES)
        super().__init__(path, Handler)


class Handler(ProxyRequestHandler or object):
    """One connection of a browser. websockify's own would set options that only a TCP connection has."""

    def new_websocket_client(self):
        with socket.socket(socket.AF_UNIX) as target:
            target.connect(self.server.target)
            self.do_proxy(target)

    def list_directory(self, path):
        self.send_error(404)

    def address_string(self):
        return 'browser'

    def log_message(self, *_):
        pass


def is_taken(number):
    """Return whether a display is somebody's (bool): its lock names a living process, or its socket answers."""
    try:
        with open(LOCK % number, opener=open_lock) as handle:
            os.kill(int(handle.read(LONGEST)), 0)
        return True
    except (FileNotFoundError, ProcessLookupError):
        pass
    except (OSError, ValueError, OverflowError):  # another user's process, or lock
        return True
    if not os.path.exists(X % number):
        return False
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)  # not to wait for one who lets nobody in
        try:
            trial.connect(X % number)
            return True
        except ConnectionRefusedError:
            return os.stat(X % number).st_uid != os.getuid()
        except OSError:
            return True


def open_lock(path, flags):
    """Open a file in /tmp, where other users may have put a pipe or a link of that name (int)."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def write_authority(path, number):
    """Write the file by which X clients of a display show that they may use it, with a new key."""
    def part(data):
        return struct.pack('!H', len(data)) + data
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, 'wb') as handle:
        # 0xffff: whatever the name of the host
        handle.write(b'\xff\xff' + part(b'') + part(b'%d' % number) +
                     part(b'MIT-MAGIC-COOKIE-1') + part(os.urandom(16)))


def tell(directory, **what):
    """Tell the host something, and return when it has heard it: before it sees us end."""
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(os.path.join(directory, 'control'))
        control.sendall(json.dumps(what).encode() + b'\n')
        control.recv(1)  # it closes


def main():
    os.umask(0o077)  # sockets get their modes by it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory, geometry = sys.argv[1:]
    try:
        Session(directory, geometry).run()
    except (Failure, OSError, subprocess.CalledProcessError) as err:
        tell(directory, failed=str(err))
        sys.exit(1)


if __name__ == '__main__':
    main()
