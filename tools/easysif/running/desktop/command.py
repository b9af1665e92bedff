# SPDX-License-Identifier: GPL-2.0-only
"""The commands ``start-vnc``, ``stop-vnc`` and ``vnc-info``, which run on the host."""

import argparse
import json
import os
import re
import secrets
import shlex
import signal
import socket
import sys
import time

from easysif import files
from easysif.errors import TOOL, USAGE, EasySIFError, escaped, told
from easysif.options import Parser
from easysif.run import run
from easysif.running.desktop import EXAMPLES, place, reach
from easysif.running.desktop.server import Server, is_there, step_of
from easysif.text import examples

CONNECT, READY, STOPPED = 60, 180, 20  #: seconds: the desktop's process, its programs; one that is to end
ALPHABET = 'abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789'  #: of passwords: none that look alike
LENGTH = 8  #: of passwords; what comes after is ignored by the protocol
SMALLEST, LARGEST = 200, 16384  #: pixels of a side

HINTS = {'no display is free': 'see which are yours: vnc-info; and end them: stop-vnc --all',
         'the image lacks': 'add it to the definition file of the image, and install the module anew'}


def start(args):
    """Start a desktop and return what is known of it (dict).

    :raises EasySIFError: one runs already, or it does not start
    """
    with place.alone(lambda: print('%s: waiting for another one of yours' % args.prog, file=sys.stderr)) as is_alone:
        place.sweep(is_alone)
        return _start_anew(args)


def _start_anew(args):
    job = os.environ.get('SLURM_JOB_ID')
    running = [one for one in place.desktops() if one['job'] == job]
    if running and not args.another:
        raise EasySIFError(args.prog, 'a desktop of yours runs here already', hint='vnc-info; or start-vnc --another',
                           facts=[('display', ':%d' % running[0]['display']), ('module', running[0]['module'])])
    directory = place.make(args.prog)
    try:
        with files.ended_in_order(), socket.socket(socket.AF_UNIX) as listener:
            place.write_private(os.path.join(directory, 'password'),
                                ''.join(secrets.choice(ALPHABET) for _ in range(LENGTH)) + '\n')
            place.write_private(os.path.join(directory, 'log'), '')
            listener.bind(os.path.join(directory, 'start'))
            listener.listen()
            listener.settimeout(CONNECT)
            run(['setsid', '--fork', sys.executable, '-I', '-B', os.path.dirname(sys.modules['__main__'].__file__),
                 'serve-vnc', '--directory', directory, '--geometry', args.geometry, '--installation',
                 args.installation, '--module', args.module, *_step()], log=os.path.join(directory, 'log'))
            what = _await(listener, directory, args.prog)
    except BaseException:
        place.remove(directory)  # its process, if there is one by now, sees that we are gone, and ends
        raise
    if 'failed' in what:
        raise EasySIFError(args.prog, what['failed'], exit_code=TOOL, hint=next(
            (hint for words, hint in HINTS.items() if what['failed'].startswith(words)),
            'try it: start-shell -c "Xvnc -version"'))
    for one in place.desktops():
        if one['directory'] == directory:
            return one
    raise EasySIFError(args.prog, 'the desktop has ended at once', exit_code=TOOL,
                       hint='try it: start-shell -c "Xvnc -version"')


def _step():
    """Return the options that name the process by which Slurm runs this job step (list of str).

    That is found out here, as the process of a desktop is nobody's child.
    """
    step = step_of(os.getpid())
    return ['--step', '%d:%s' % step] if step else []


def _await(listener, directory, where):
    """Return what the process of a new desktop tells (dict).

    :raises EasySIFError: it tells nothing
    """
    try:
        connection, _ = listener.accept()
        with connection, connection.makefile() as answer:
            connection.settimeout(READY)
            line = answer.readline()
            if line:
                what = json.loads(line)
                if 'failed' in what:
                    answer.read()  # to the end of its process
                return what
    except socket.timeout:
        pass
    with open(os.path.join(directory, 'log'), encoding='utf-8', errors='replace') as handle:
        lines = handle.read().strip().splitlines()[-3:]
    raise EasySIFError(where, 'the desktop did not start', facts=[('last lines', '\n'.join(lines) or 'none')],
                       hint='try it: start-shell -c "Xvnc -version"', exit_code=TOOL)


def stop(args):
    """End desktops, and return their displays (list of int).

    :raises EasySIFError: there is none, it is not clear which one is meant, or it does not end
    """
    place.sweep()
    running = _chosen(args, place.desktops())
    if len(running) > 1 and not args.all:
        raise EasySIFError(args.prog, 'several desktops of yours run here', exit_code=USAGE,
                           facts=[('displays', ' '.join(':%d' % one['display'] for one in running))],
                           hint='stop-vnc :%d; or stop-vnc --all' % running[0]['display'])
    for one in running:
        _end(one, args.prog)
    return [one['display'] for one in running]


def _end(desktop, where):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(desktop['pid'], number)
        except ProcessLookupError:
            pass
        end = time.monotonic() + STOPPED
        while is_there(desktop['pid'], desktop['started']) and time.monotonic() < end:
            time.sleep(0.02)
        if not is_there(desktop['pid'], desktop['started']):
            return place.remove(desktop['directory'])
    raise EasySIFError(where, 'desktop :%(display)d does not end' % desktop, facts=[('process', desktop['pid'])],
                       hint='ps -f %d' % desktop['pid'], exit_code=TOOL)


def info(args):
    """Return the desktops that run on this node (list of dict).

    :raises EasySIFError: there is none, and one is needed
    """
    place.sweep()
    running = place.desktops()
    return _chosen(args, running) if args.display is not None or args.export else running


def _chosen(args, running):
    """Return the desktops that are meant (list of dict).

    :raises EasySIFError: there is none
    """
    if args.display is None and running:
        return running
    found = [one for one in running if one['display'] == args.display]
    if not found:
        what = 'desktop of yours' if args.display is None else 'desktop :%d of yours' % args.display
        raise EasySIFError(args.prog, 'no %s runs on %s' % (what, socket.gethostname()), facts=[
            ('there are', ' '.join(':%d' % one['display'] for one in running) or 'none')],
            hint='start-vnc' if not running else 'vnc-info')
    return found


def report(desktop, login_host):
    """Return all that is to be known of a desktop but its password (dict)."""
    directory = desktop['directory']
    return dict(desktop, password_file=os.path.join(directory, 'password'),
                xauthority=os.path.join(directory, 'Xauthority'),
                **reach.ways(desktop, reach.user_name(), login_host))


def lines(desktop, is_terminal):
    """Yield lines that tell people of a desktop (str).

    :param desktop: as ``report`` has it (dict)
    :param is_terminal: whether they go to a terminal; what goes elsewhere may be a log, and has no password (bool)
    """
    yield 'desktop :%(display)d on %(host)s, %(geometry)s, %(module)s; it ends with stop-vnc' % desktop + (
        ' or job %s' % desktop['job'] if desktop['job'] else '')
    yield '  on your own machine  %s' % desktop['tunnel']
    yield '  there in a browser   %s' % desktop['address']
    yield '  or in a VNC client   %s' % desktop['vnc_address']
    if is_terminal:
        with open(desktop['password_file'], encoding='ascii') as handle:
            yield '  password             %s' % handle.read().strip()
    else:
        yield '  password             %s' % desktop['read_password']
    yield '  programs of a shell  eval "$(vnc-info --export :%(display)d)"' % desktop


def exported(desktop):
    """Return what a shell evaluates so that its programs are seen on a desktop (str)."""
    return 'export DISPLAY=:%d XAUTHORITY=%s' % (desktop['display'], shlex.quote(desktop['xauthority']))


def main(argv):
    """Run one of the commands for the wrapper, which knows the place; return the exit code (int).

    :param argv: name of the command, then the user's arguments and the wrapper's options (list of str)
    """
    try:
        args = _parser(argv[0]).parse_args(argv[1:])
        args.prog = argv[0]
        if argv[0] == 'serve-vnc':
            return _serve(args)
        return {'start-vnc': _start, 'stop-vnc': _stop, 'vnc-info': _info}[argv[0]](args)
    except (EasySIFError, OSError) as err:
        print('error: %s' % told(err, argv[0]), file=sys.stderr)
        return told(err, argv[0]).exit_code
    except KeyboardInterrupt:
        print('%s: interrupted' % argv[0], file=sys.stderr)
        return 130


def _parser(name):
    parser = Parser(prog=name, description={
        'start-vnc': 'Starts a desktop on this node, which you see in a browser or a VNC client on your own machine.',
        'stop-vnc': 'Ends a desktop on this node.',
        'vnc-info': 'Tells of your desktops on this node, and how to reach them.'}.get(name),
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=examples(EXAMPLES.get(name, ())))
    if name in ('stop-vnc', 'vnc-info'):
        parser.add_argument('display', nargs='?', type=_display, help='one of several, such as :1')
    if name == 'stop-vnc':
        parser.add_argument('--all', action='store_true', help='all desktops of yours on this node')
    if name in ('start-vnc', 'serve-vnc'):
        parser.add_argument('--geometry', type=_geometry, default='1280x800', metavar='WIDTHxHEIGHT',
                            help='size of the screen in pixels (the default: 1280x800)')
    if name == 'start-vnc':
        parser.add_argument('--another', action='store_true', help='although one runs already')
    parser.set_defaults(export=False)
    if name == 'vnc-info':
        parser.add_argument('--export', action='store_true',
                            help='print what has programs of a shell seen there: eval "$(vnc-info --export)"')
    if name != 'serve-vnc':
        parser.add_argument('--json', action='store_true', help='print what was done or found as JSON')
    for option in ('directory', 'installation', 'module', 'login-host', 'step'):
        parser.add_argument('--' + option, default='', help=argparse.SUPPRESS)
    return parser


def _display(text):
    match = re.fullmatch(r':?([0-9]{1,5})(\.0)?', text)
    if not match:
        raise argparse.ArgumentTypeError("must be a display such as :1, not '%s'" % text)
    return int(match[1])


def _geometry(text):
    match = re.fullmatch(r'([0-9]{1,5})x([0-9]{1,5})', text)
    if not match or not all(SMALLEST <= int(side) <= LARGEST for side in match.groups()):
        raise argparse.ArgumentTypeError("must be a size such as 1600x900, from %dx%d to %dx%d, not '%s'" % (
            SMALLEST, SMALLEST, LARGEST, LARGEST, text))
    return text


def _serve(args):
    job = os.environ.get('SLURM_JOB_ID')
    known = {'host': os.environ.get('SLURMD_NODENAME') if job else None, 'job': job, 'module': args.module,
             'geometry': args.geometry, 'directory': args.directory,
             'submit_host': os.environ.get('SLURM_SUBMIT_HOST') if job else None}
    known['host'] = known['host'] or socket.gethostname()
    process, _, started = args.step.partition(':')
    return Server(args.directory, args.installation, known, (int(process), started) if process else None).serve()


def _start(args):
    _print([report(start(args), args.login_host)], args, one=True)
    return 0


def _stop(args):
    displays = stop(args)
    print(json.dumps({'stopped': displays}) if args.json else
          'ended: desktop %s' % ', '.join(':%d' % number for number in displays))
    return 0


def _info(args):
    found = [report(one, args.login_host) for one in info(args)]
    if args.export and len(found) > 1:
        raise EasySIFError(args.prog, 'several desktops of yours run here', exit_code=USAGE,
                           facts=[('displays', ' '.join(':%d' % one['display'] for one in found))],
                           hint='vnc-info --export :%d' % found[0]['display'])
    if args.export:
        print(exported(found[0]))
    elif found or args.json:
        _print(found, args)
    else:
        print('no desktop of yours runs on %s' % socket.gethostname())
    return 0


def _print(found, args, one=False):
    if args.json:
        print(json.dumps(found[0] if one else found, indent=2))
        return
    for desktop in found:
        for line in lines(desktop, sys.stdout.isatty()):
            print(escaped(line))
