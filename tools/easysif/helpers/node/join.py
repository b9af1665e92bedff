# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S -B DIRECTORY join [--module NAME] [--only] [--json] --shell SHELL RUNTIME IMAGE COMMAND [ARG...]
python -I -S -B DIRECTORY join --stay --shell SHELL RUNTIME IMAGE

Becomes a command inside an image that all processes of this job step on this node share: it is mounted once. The first
one starts keeper.py, which mounts it and lets the others in; each enters the namespaces in which it is mounted and
becomes the command, so what the scheduler gave it (processors, GPUs, limits, the process itself) stays its own.

With --stay nothing runs: one process keeps the image for all steps of the job on this node, until it is ended itself.
They meet as meeting.py says. Where the image cannot be shared the command runs in a container of its own, or not at all
with --only. Imports little: it is on every rank's way.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import sys
from contextlib import suppress

from environment import inside, needs_own_container
from meeting import HIGH, LAST, TRIES, CannotShare, meet

PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>
NAMESPACES = ('user', 'ipc', 'net', 'uts', 'cgroup', 'mnt')  #: all that can be entered without a new process
LONGEST = 300  #: characters of a reason; Slurm keeps no longer lines apart
TOOL, MISSING, REFUSED = 3, 127, 126  #: exit codes: no shared image, no such command in it, one that cannot run


def main(*argv):
    """Become the command.

    :param argv: as in the usage (str)
    """
    argv, options = list(argv), {}
    for number, ours in ((signal.SIGINT, signal.default_int_handler), (signal.SIGPIPE, signal.SIG_IGN),
                         (signal.SIGXFSZ, signal.SIG_IGN)):  # what Python has made of them the command would keep
        if signal.getsignal(number) == ours:
            signal.signal(number, signal.SIG_DFL)
    while argv and argv[0].startswith('--'):
        name = argv.pop(0)[2:]
        options[name] = argv.pop(0) if name in ('module', 'shell') else True
    runtime, image, *command = argv
    where = options.get('module') or image
    if options.get('stay'):
        sys.exit(stay(options, runtime, image))
    try:
        join(options, runtime, image, command)
    except (CannotShare, OSError) as err:
        if isinstance(err, OSError):
            err = CannotShare(err.strerror or str(err))
        if options.get('only'):
            tell('error: %s: the image cannot be shared on this node' % where, '  reason  %s' % err,
                 'hint: leave out node-exec; each process then mounts the image for itself')
            sys.exit(TOOL)
        if err.is_told:
            tell('warning: %s: the image cannot be shared on this node, each process mounts it for itself' % where,
                 '  reason  %s' % err, 'hint: export EASYSIF_SHARE=none')
    if options.get('json'):
        report(where, image, False)
    os.execvp(runtime, [runtime, '--silent', 'exec', image, *command])


def join(options, runtime, image, command):
    """Become the command inside the shared image.

    :raises CannotShare: it cannot be shared
    """
    own, cwd = dict(os.environ), os.getcwd()
    also = {}
    for _ in range(3):
        link, found = meet(options, runtime, image, own, also)
        if 'failed' in found:
            hold(link)
            raise CannotShare(found['failed'], found['number'])
        names = needs_own_container(found, own)
        more = {name: own.get(name) for name in names}
        if not is_seen(found['holder'], cwd):
            more['cwd'] = cwd
        if set(more) <= set(also):
            break
        also.update(more)
        for descriptor in link:
            os.close(descriptor)
    hold(link)
    spaces = open_namespaces(found['holder'])
    environment = inside(found, own)
    if options.get('json'):
        report(options.get('module') or image, image, True, found)
    libc = ctypes.CDLL(None, use_errno=True)
    for number, space in enumerate(spaces):
        if libc.setns(space, 0):
            what = 'its namespaces cannot be entered (%s)' % os.strerror(ctypes.get_errno())
            if number:  # we are no longer where a container of our own could be started
                tell('error: %s: %s' % (image, what), 'hint: export EASYSIF_SHARE=none')
                sys.exit(TOOL)
            raise CannotShare(what)
        os.close(space)
    # what a container of one's own sets as well: no program in it gets more rights than its caller
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    enter(found['directory'], cwd, environment)
    become(command, environment, options.get('module') or image, '%s exec "%s"' % (os.path.basename(runtime), image))


def stay(options, runtime, image):
    """Keep an image for all steps of the job on this node, also if its keeper is killed (TRIES times), and return TOOL.

    Prints one line of JSON for launch.py, when it is mounted or where that cannot be; nobody reads more.
    With this step Slurm kills what serves the mount. So a signal that is meant for the ranks does nothing here, and one
    that ends the step has them leave first, for which Slurm gives them time.
    """
    from keeper import IGNORED  # ranks do without what that imports
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    said = {'easysif': 'node-hold', 'node': os.environ.get('SLURMD_NODENAME'),
            'step': '%s.%s' % tuple(map(os.environ.get, ('SLURM_JOB_ID', 'SLURM_STEP_ID')))}
    link, is_ending = [], False

    def end(*_):
        nonlocal is_ending
        is_ending = True
        while len(link) > 1:
            os.close(link.pop())
        os.write(link[0], LAST)
    for turn in range(TRIES):
        try:
            link, found = meet(options, runtime, image, dict(os.environ), {})
            if 'failed' in found:
                raise CannotShare(found['failed'])
            for space in open_namespaces(found['holder']):
                os.close(space)
        except (CannotShare, OSError) as err:
            if not turn:
                print(json.dumps(dict(said, failed=str(err)[:LONGEST])), flush=True)
            break
        if found['outside'].get('SLURM_STEP_ID') == os.environ.get('SLURM_STEP_ID'):  # else it does not end with us
            signal.signal(signal.SIGTERM, end)
        if not turn:
            print(json.dumps(dict(said, keeper=found['keeper'], holder=found['holder'])), flush=True)
        with suppress(ConnectionError):  # of a keeper that is killed
            os.read(link[0], 1)  # as long as it lets others in
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in link:
            os.close(descriptor)
        if is_ending:
            break
    return TOOL


def become(command, environment, where, call):
    """Become a command; with an exit code of a shell where there is none of that name.

    :param where: the image or the module, and ``call``, how another command of it is called, for messages (str)
    """
    os.environ.clear()
    os.environ.update(environment)
    code = errno.ENOENT
    try:
        os.execvpe(command[0], command, environment)
    except OSError as err:
        code = err.errno
    except ValueError:  # the empty word
        pass
    is_missing = code == errno.ENOENT
    tell("error: %s: command '%s' %s" % (where, command[0], 'is not in the image' if is_missing else (
        'cannot be run (%s)' % os.strerror(code))),
         'hint: see what there is: %s ls %s' % (call, '/usr/bin' if is_missing else '-l "%s"' % command[0]))
    sys.exit(MISSING if is_missing else REFUSED)


def enter(directory, cwd, environment):
    """Go to where the command is to start: the caller's directory, unless the runtime was told another one."""
    for path in (directory or cwd, environment.get('HOME', '/'), '/'):
        try:
            return os.chdir(path)
        except OSError:
            continue


def is_seen(holder, path):
    """Return whether a directory is the same inside (bool)."""
    try:
        ours, theirs = os.stat(path), os.stat('/proc/%d/root%s' % (holder, path))
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)


def open_namespaces(holder):
    """Return the namespaces of a process that are not our own, in the order in which they are entered (list of int).

    :raises CannotShare: one of them cannot be entered
    """
    found = []
    try:
        if os.readlink('/proc/self/ns/pid') != os.readlink('/proc/%d/ns/pid' % holder):
            raise CannotShare('its processes have numbers of their own (isolation: pid)')
        for name in NAMESPACES:
            path = '/proc/%d/ns/%s' % (holder, name)
            if os.path.exists(path) and os.readlink(path) != os.readlink('/proc/self/ns/' + name):
                found.append(os.open(path, os.O_RDONLY))
    except OSError as err:
        raise CannotShare('its namespaces cannot be opened (%s)' % err.strerror)
    if not found:
        raise CannotShare('it has no namespaces of its own')
    return found


def hold(link):
    """Have our command keep what connects us with the keeper: the mounts stay as long as it is open."""
    for descriptor in link:
        fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH)
        os.close(descriptor)


def report(where, image, shared, found=None):
    """Print what is done, as one line of JSON."""
    tell(json.dumps({'module': where if where != image else None, 'image': image, 'shared': shared,
                     'holder': found['holder'] if found else None, 'keeper': found['keeper'] if found else None,
                     'number': found['number'] if found else None}))


def tell(*lines):
    """Print lines as errors, all at once: those of several processes do not mix. Nobody has to read them."""
    with suppress(AttributeError, OSError):  # it is closed, or full
        sys.stderr.write(''.join(plain(line) + '\n' for line in lines))
        sys.stderr.flush()


def plain(line):
    """Return a text without what a terminal obeys (str)."""
    return line.translate({number: ascii(chr(number))[1:-1] for number in (*range(32), *range(127, 160))})
