# SPDX-License-Identifier: GPL-2.0-only
"""make-squashfs and unmake-squashfs over an installation without a container, and overlays that hold everything."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys

import harness
from easysif import wrappers
from easysif.site import resolve
from fakes import PYTHON
from test_wrappers import environment, make


class Commands:
    """An installation without a container, with an overlay that holds a little of everything."""

    def __init__(self, tmp_path):
        self.fake = make(tmp_path, "pre fix's $(id) ünï", eb_python=sys.executable)
        site = dataclasses.replace(resolve().site, ca_certificates='')
        wrappers.write(self.fake.inst, PYTHON, site)
        self.root = self.fake.overlay
        self.directory, self.squashfs = self.root / 'user-software', self.root / 'user-software.squashfs'
        self.record, self.lock = self.root / 'overlay.json', self.root / '.pack.lock'
        self.env = environment(tmp_path)
        self.stand_ins = tmp_path / 'stand-ins'
        (self.directory / 'venv' / 'jax' / 'a file').write_text('content')

    def __call__(self, command, *args, check=True, **env):
        return harness.run([self.fake.root / 'bin' / command, *args], env=dict(self.env, **env), check=check)

    def fails(self, command, status, *words, arguments=(), **env):
        """Run a command that must fail, say all these words and leave nothing behind."""
        before = tree(self.root)
        result = self(command, *arguments, check=False, **env)
        assert result.status == status, result.output
        for word in words:
            assert word in result.stderr
        assert result.stderr.startswith('error: ') and 'Traceback' not in result.stderr and result.stdout == ''
        assert tree(self.root) == before
        return result

    def stand_in(self, name, script):
        """Put a program of that name before the real one on PATH; ``$REAL`` in the script is the real one."""
        self.stand_ins.mkdir(exist_ok=True)
        path = self.stand_ins / name
        path.write_text('#!/bin/sh\nREAL=/usr/bin/%s\n%s\n' % (name, script))
        path.chmod(0o755)
        self.env['PATH'] = '%s:%s' % (self.stand_ins, harness.SYSTEM_PATH)


def killed_before(number):
    """Return what makes a function one of those that are counted: this process kills itself before one of their calls.

    :param number: of the call, from 1 on (int)
    """
    calls = []

    def counted(real):
        def call(*args, **options):
            calls.append(real)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)
        return call
    return counted


def tree(top):
    """Return everything below a directory with what one can know of it (dict)."""
    found = {}
    for parent, directories, others in os.walk(os.fsencode(top)):
        for name in directories + others:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            kind = info.st_mode
            content = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                with open(path, 'rb') as handle:
                    content = handle.read()
            xattrs = {} if os.path.islink(path) else {name: os.getxattr(path, name) for name in os.listxattr(path)
                                                      if name.startswith('user.')}
            found[os.path.relpath(path, os.fsencode(top))] = (kind, info.st_mtime_ns, content, xattrs)
    return found


def everything(directory):
    """Fill a directory with whatever a file system may hold."""
    for name in (b'-rf', b'new\nline', b'\nline\n', 'ünï 容器'.encode(), b'\xff\xfe', b' ', b'a -> b', b'*', b'$(id)',
                 b'squashfs-root', b'root-x', b'quote\'"', b'drwxr-xr-x 0 1 2026-01-01 10:00 root-x'):
        path = os.path.join(os.fsencode(directory), name)
        os.mkdir(path)
        with open(os.path.join(path, name), 'wb') as handle:
            handle.write(name * 99)
    (directory / 'deep' / 'squashfs-root' / 'squashfs-root').mkdir(parents=True)
    (directory / 'deep' / 'empty').write_bytes(b'')
    (directory / 'deep' / 'random').write_bytes(os.urandom(300000))
    os.symlink('nowhere at all', directory / 'deep' / 'dangling')
    os.symlink('../deep', directory / 'deep' / 'to a directory')
    os.link(directory / 'deep' / 'random', directory / 'hard link')
    os.mkfifo(directory / 'fifo')
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(directory / 'socket'))
    for path, name in (('deep', 'user.of a directory'), ('deep/random', 'user.ünï')):
        os.setxattr(directory / path, name, b'\x00value')
    with open(directory / 'sparse', 'wb') as handle:
        handle.truncate(50 << 20)
        handle.write(b'x')
    (directory / 'run me').write_text('#!/bin/sh\n')
    (directory / 'run me').chmod(0o4751)
    for mode in (0o666, 0o602, 0o777, 0o3400, 0o5700):  # .lock of uv is 0666, whatever the umask
        (directory / ('mode %o' % mode)).write_text('x')
        (directory / ('mode %o' % mode)).chmod(mode)
    (directory / 'shared').mkdir()
    (directory / 'shared').chmod(0o2775)
    (directory / 'read only').mkdir()
    (directory / 'read only' / 'file').write_text('x')
    (directory / 'read only' / 'file').chmod(0o400)
    (directory / 'read only').chmod(0o555)
    os.utime(directory / 'deep' / 'empty', (10 ** 9, 10 ** 9))
    for name, time in (('of 1960', -315619200 * 10 ** 9 + 5), ('of 2200', 7258118400 * 10 ** 9 + 7), ('of 1970', 0)):
        (directory / name).touch()
        os.utime(directory / name, ns=(time, time))


class Sleeper:
    """A process that sleeps with a file open; it ends with the block.

    :param path: the file (path)
    :param mode: how it is opened, as for open()
    """

    def __init__(self, path, mode):
        code = 'import sys, time; kept = open(*sys.argv[1:3]); print("in", flush=True); time.sleep(600)'
        self.process = subprocess.Popen([sys.executable, '-c', code, str(path), mode], stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
