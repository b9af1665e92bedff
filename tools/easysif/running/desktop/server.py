# SPDX-License-Identifier: GPL-2.0-only
"""The process of a desktop: it has the module's image run the programs of it, and ends with them, or with the job.

``start-vnc`` starts it and waits for what it tells at the socket ``start`` of the desktop's directory, one line of
JSON. If ``start-vnc`` is gone before that, there is nobody who knows of the desktop, so it ends.
"""

import json
import os
import re
import select
import signal
import socket
import threading
from contextlib import suppress

from easysif import files
from easysif.running.desktop import place
from easysif.running.desktop.terminals import Control
from easysif.run import run

EVERY = 1  #: seconds after which it is looked whether the job is still there


class Server:
    """One desktop, from this process's point of view.

    :param directory: of the desktop (str)
    :param installation: of the module (str)
    :param known: what ``desktop.json`` is to have, beside the display (dict)
    :param step: with whose process it ends (tuple of number and start), None for none
    """

    def __init__(self, directory, installation, known, step):
        self.directory, self.installation, self.known, self.step = directory, installation, known, step
        self.starter = socket.socket(socket.AF_UNIX)
        self.is_told = False

    def serve(self):
        """Run the desktop to its end, and remove all of it; return the exit code of this process (int)."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of the terminal in which it was started
        self.starter.connect(os.path.join(self.directory, 'start'))
        place.hold(self.directory, 'start-vnc')
        helpers = os.path.join(self.installation, 'runscripts', 'lib', 'desktop')
        try:
            with files.ended_in_order():
                control = Control(self.directory, os.path.join(helpers, 'shell.py'), self._told)
                control.start()
                threading.Thread(target=self._watch, daemon=True).start()
                result = run([os.path.join(self.installation, 'bin', 'start-shell'), '-c',
                              'exec python3 "$0" "$@"', '/runscripts/lib/desktop/session.py', self.directory,
                              self.known['geometry']], env=self._environment(), check=False)
                if not self.is_told:
                    self._answer({'failed': result.last_line() or 'it ended with exit code %d' % result.status})
                control.await_end()
        finally:
            place.remove(self.directory)
        return result.status

    def _environment(self):
        """Return the environment of the programs: what they need of /tmp is there also in images that see no /tmp."""
        env = dict(os.environ, EASYSIF_SHARE='none')  # no other process has its binds; what would keep it ends later
        for name in ('SINGULARITY_BINDPATH', 'APPTAINER_BINDPATH'):
            binds = [env.get(name, ''), self.directory, '/tmp/.X11-unix']
            env[name] = ','.join(bind for bind in binds if bind and (bind != '/tmp/.X11-unix' or os.path.isdir(bind)))
        return env

    def _told(self, what):
        """Hand on what the programs tell."""
        if 'ready' in what:
            record = dict(self.known, display=what['ready'])
            files.write(os.path.join(self.directory, place.RECORD), json.dumps(record, indent=2) + '\n', 0o600)
        self._answer(what)

    def _answer(self, what):
        self.is_told = True
        with suppress(OSError):
            self.starter.sendall(json.dumps(what).encode() + b'\n')

    def _watch(self):
        """End this process when who started it is gone too early, or when the job is over."""
        while True:
            ready, _, _ = select.select([] if self.is_told else [self.starter], [], [], EVERY)
            if ready and not self.is_told or self.step and not is_there(*self.step):
                os.kill(os.getpid(), signal.SIGTERM)
                return


def step_of(process):
    """Return number and start of the process by which Slurm runs the job step of another (tuple), None outside jobs."""
    while process > 1:
        name, parent, started = _look(process)
        if name == 'slurmstepd':
            return process, started
        process = parent
    return None


def is_there(process, started):
    """Return whether a process is still there, and not another one of the same number (bool)."""
    return _look(process)[2] == started


def _look(process):
    """Return name, parent and start of a process, ('', 0, '') where there is none (tuple of str, int and str).

    One that has ended and waits for its parent to notice is none: in a container there may be nobody who does.
    """
    try:
        with open('/proc/%d/stat' % process, encoding='utf-8', errors='replace') as handle:
            text = handle.read()
    except OSError:
        return '', 0, ''
    name, rest = re.fullmatch(r'\d+ \((.*)\) (.*)', text.strip(), re.S).groups()
    words = rest.split()
    return ('', 0, '') if words[0] in 'ZX' else (name, int(words[1]), words[19])
