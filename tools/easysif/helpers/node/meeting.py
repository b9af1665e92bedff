# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by join.py

Where the processes that share an image meet its keeper: at a socket without a file, whose name follows from all on
which the mounts depend. Who comes first starts the keeper.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import sys
import time
from contextlib import suppress

TRIES = 6  #: keepers that end before they say anything, one after the other
PATIENCE = 60  #: seconds in which a process that has taken the address of a keeper starts it
LOOK = 1  #: seconds after which one who lets nobody in is looked at
HIGH = 100  #: descriptors from here on are in nobody's way
LAST = b'.'  #: what tells a keeper to let nobody else in, and to end when those who are in have left; it tells them
ANOTHER = 'another user holds its address'

#: what tells one job, or one login, from another; the first that is set
STEPS = (('SLURM_JOB_ID', 'SLURM_STEP_ID', 'SLURMD_NODENAME'), ('PBS_JOBID',), ('LSB_JOBID',))
JOB = ('SLURM_JOB_ID', 'SLURMD_NODENAME')  #: what tells it for all steps of a job

#: what counts for the mounts besides the settings of the runtime
COUNTING = ('HOME', 'PATH', 'LD_LIBRARY_PATH')
BINDS = ('APPTAINER_BIND', 'APPTAINER_BINDPATH', 'SINGULARITY_BIND', 'SINGULARITY_BINDPATH')
SETTINGS = re.compile('(APPTAINER|SINGULARITY)_')
OF_THE_INSIDE = {'CONTAINER', 'NAME', 'ENVIRONMENT', 'COMMAND', 'APPNAME'}  # which a container itself sets


class CannotShare(Exception):
    """Why the image cannot be shared, in words; of all processes of a node one tells it.

    :param number: which one of them this is (int)
    """

    def __init__(self, what, number=1):
        super().__init__(what)
        self.is_told = os.environ.get('SLURM_LOCALID') == '0' if 'SLURM_LOCALID' in os.environ else number == 1


def meet(options, runtime, image, own, also):
    """Return what connects us with the keeper of the image (list of int), and what it says (dict).

    What `easysif node-hold` keeps for the whole job is taken first, and else what this step keeps; where there is none
    of either, the keeper of this step is started.

    :raises CannotShare: there is no keeper to be had
    """
    where, name = addresses(runtime, image, own, also)
    if options.get('stay'):
        name = where
    ended, deadline = 0, time.monotonic() + PATIENCE
    while ended < TRIES and time.monotonic() < deadline:
        connection, tried, is_taken = socket.socket(socket.AF_UNIX), where, False
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', LOOK, 0))
        try:
            connection.connect(where)
            where = name
            _, user, _ = struct.unpack('3i', connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            is_taken = user != os.geteuid()
            found, descriptors = (None, []) if is_taken else receive(connection)
            if found:
                return [connection.detach(), *descriptors], found
            ended += 1
        except BlockingIOError:  # more have come than wait in line
            is_taken = is_anothers(where)
            where = name if is_taken else where
        except ConnectionRefusedError:
            if where == name and not start(name, options, runtime, image):
                is_taken = is_anothers(name)
                time.sleep(0 if is_taken else 0.01)  # another one does so at this moment
            where = name
        except ConnectionError:  # it has just ended
            ended, where = ended + 1, name
        connection.close()
        if is_taken and tried == name:
            raise CannotShare(ANOTHER)
    raise CannotShare('the process that mounts it does not start, or is ended')


def is_anothers(name):
    """Return whether another user has taken an address, who does not answer at it (bool).

    Addresses without a file have no permissions. What we have taken ourselves is among the files of our processes; it
    is looked for more than once, as one of them may just hand it on.
    """
    for pause in (0.1, 0.1, 0):
        try:
            with open('/proc/net/unix', 'rb') as handle:
                lines = [line for line in handle if line.endswith(b' @%s\n' % name[1:].encode())]
        except OSError:
            return False
        if not lines or our_files() & {'socket:[%d]' % int(line.split()[6]) for line in lines}:
            return False
        time.sleep(pause)
    return True


def our_files():
    """Return what all processes of ours have open, as the kernel calls it (set of str)."""
    found = set()
    for process in filter(str.isdigit, os.listdir('/proc')):
        with suppress(OSError):  # of another user, or it has ended
            for number in os.listdir('/proc/%s/fd' % process):
                with suppress(OSError):
                    found.add(os.readlink('/proc/%s/fd/%s' % (process, number)))
    return found


def receive(connection):
    """Return what the keeper says (dict), and the descriptors that come with it (list).

    None and nothing of either where it ended before, or lets nobody in any more.
    """
    text, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    while text and b'\n' not in text:
        piece = connection.recv(1 << 16)
        if not piece:
            text = b''
        text += piece
    said, _, last = text.partition(b'\n')
    if said and not last:
        return json.loads(said), descriptors
    for descriptor in descriptors:
        os.close(descriptor)
    return None, []


def start(name, options, runtime, image):
    """Start the keeper, and return whether no other process does so at this moment (bool). It is nobody's child.

    :raises CannotShare: the image has nothing to hold it with
    """
    if not options.get('shell'):
        raise CannotShare('it has no shell')
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(name)
            server.listen(4096)
        except OSError as err:
            if err.errno == errno.EADDRINUSE:
                return False
            raise
        child = os.fork()
        if child:
            try:
                os.waitpid(child, 0)
            except ChildProcessError:  # who started us ignores SIGCHLD
                pass
            return True
        try:
            os.setsid()
            if os.fork() == 0:
                inherited = fcntl.fcntl(server, fcntl.F_DUPFD, HIGH)  # not 0 to 2, of which one may have been closed
                os.execv(sys.executable, [sys.executable, '-I', '-S', '-B', os.path.dirname(os.path.abspath(__file__)),
                                          'keep', str(inherited), runtime, image, options['shell']])
        finally:
            os._exit(0)


def addresses(runtime, image, own, also):
    """Return the addresses of the keepers of an image for this job, and for this step of it (str, str).

    They are the same for all processes that may share it. Both are one where there are no steps.
    """
    info = os.stat(image)
    facts = [os.geteuid(), os.path.realpath(runtime), os.path.realpath(image), info.st_dev, info.st_ino, info.st_size,
             info.st_mtime_ns, sorted(also.items()), [os.readlink('/proc/self/ns/' + name) for name in ('mnt', 'pid')],
             sorted((key, value) for key, value in own.items() if key in COUNTING or is_setting(key)), bound(own)]
    found = []
    for kinds in ((JOB, *STEPS), STEPS):
        words = next(([own.get(key) for key in kind] for kind in kinds if own.get(kind[0])), ['session', os.getsid(0)])
        text = json.dumps([words, facts]).encode('utf-8', 'surrogateescape')
        found.append('\0easysif-%d-%s' % (os.geteuid(), hashlib.sha256(text).hexdigest()[:32]))
    return found


def bound(own):
    """Return what tells the files and directories that are bound from others that came into their place (list)."""
    found = []
    for entry in ','.join(own.get(name, '') for name in BINDS).split(','):
        try:
            info = os.stat(entry.partition(':')[0])
        except (OSError, ValueError):
            continue
        found.append((info.st_dev, info.st_ino))
    return found


def is_setting(name):
    """Return whether a variable is a setting of the runtime (bool)."""
    return bool(SETTINGS.match(name)) and name.split('_', 1)[1] not in OF_THE_INSIDE
