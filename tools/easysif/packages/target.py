# SPDX-License-Identifier: GPL-2.0-only
"""A module with the overlay that packages go into, and how commands are run inside of it."""

import json
import os
import re
import shlex
from contextlib import contextmanager

from easysif import installed, inventory
from easysif.errors import TOOL, EasySIFError
from easysif.overlay.place import Overlay
from easysif.overlay.recorded import packages_record, update_record
from easysif.packages.pins import of_record
from easysif.run import failure, run
from easysif.runtime import bind

PLACE = '/user-software'  #: where the overlay is in the image
LOGIN = re.compile(r'(https?://)[^/\s@]+@')  #: of an address of the web


class Target:
    """A module and the user's overlay of it.

    :param name: name and full version of the module (str)
    :param root: the installation directory (str)
    :param containerroot: the user's directory for the module (str)
    :param where: the command, for messages (str)
    """

    def __init__(self, name, root, containerroot, where):
        self.name, self.root, self.where = name, root, where
        self.record = inventory.read(name, root)
        self.venv_name = (self.record['parameters'] or {}).get('python_env')
        self.image_python = (self.record['inside']['python'] or {}).get('path')
        if not self.venv_name or not self.image_python:
            raise EasySIFError(name, 'has no overlay', hint='its recipe gives no python_env: easysif show %s' % name)
        self.overlay = Overlay(containerroot, name, where, root)
        self.binds, self.prefix = [], root[:-len('/software/' + name)]
        self.venv = '%s/venv/%s' % (PLACE, self.venv_name)
        self.host_venv = os.path.join(self.overlay.directory, 'venv', self.venv_name)

    def typed(self, command, *words):
        """Return what to type for a command on this overlay: ``easysif overlay COMMAND MODULE WORD…`` (str)."""
        return 'easysif overlay %s%s' % (' '.join([command, self.name, *words]), installed.option(self.prefix))

    @contextmanager
    def alone(self):
        """Hold the lock of the overlay, of which there is at least the directory, and which is not packed.

        :raises EasySIFError: it is packed, somebody else's, or another process is at work on it
        """
        self.refuse_packed()
        os.makedirs(self.overlay.root, exist_ok=True)
        with self.overlay.alone() as lock:
            self.refuse_packed()
            yield lock

    def refuse_packed(self):
        """See that packages can be added.

        :raises EasySIFError: the overlay is packed
        """
        state = inventory.overlay_at(self.overlay.root).state
        if state not in ('none', 'directory'):
            damaged = state == 'damaged'
            raise EasySIFError(self.name, 'the overlay is %s, packages cannot be added' % (
                'damaged' if damaged else 'packed'), facts=[('directory', self.overlay.root)],
                hint=shlex.join(['mv', '--', self.overlay.squashfs, self.overlay.squashfs + '.damaged']) if damaged
                else self.typed('unpack'))

    def show(self, path):
        """Let a file or directory of the host be seen inside, and return its path there (str).

        :raises EasySIFError: no bind can carry its path
        """
        path = os.path.abspath(path)
        self.binds.append(bind(path, path, 'ro'))
        return path

    def run(self, argv, instead=None, binds=(), stdin=None, **variables):
        """Run a command inside the image and return what it left (run.Result).

        :param argv: the command (list of str)
        :param instead: a directory that is to be the overlay (str), by default the overlay itself
        :param binds: what else is visible inside, in the runtime's form (sequence of str)
        :param stdin: text for its standard input (str)
        :param variables: added to the environment (str)
        """
        env = dict(os.environ, **variables)
        more = [*(['%s:%s' % (instead, PLACE)] if instead else []), *self.binds, *binds]
        for name in ('APPTAINER_BINDPATH', 'SINGULARITY_BINDPATH') if more else ():
            env[name] = ','.join([*more, *filter(None, [env.get(name)])])
        return run([os.path.join(self.root, 'bin', 'start-shell'), '-c', 'exec "$0" "$@"', *argv], env=env, check=False,
                   stdin=stdin)

    def look(self, instead=None):
        """Return what is in the virtual environment (dict): ``python``, ``pip``, ``exists``, ``packages``.

        :param instead: a directory that is to be the overlay (str)
        :raises EasySIFError: it cannot be told
        """
        if not os.path.isfile(os.path.join(self.root, 'runscripts', 'lib', 'venv_packages.py')):
            raise EasySIFError(self.name, 'was installed by an EasySIF that did not know lists of packages yet',
                               facts=[('installation', self.root)],
                               hint='easysif refresh %s%s' % (self.name, installed.option(self.prefix)))
        result = self.run([self.image_python, '-E', '-s', '/runscripts/lib/venv_packages.py', self.venv], instead)
        line = re.search('^easysif venv-packages (.*)$', result.stdout, re.MULTILINE)
        if result.status or not line:
            raise EasySIFError(self.name, 'does not tell which packages its overlay has', facts=failure(result).facts,
                               hint='easysif verify %s%s' % (self.name, installed.option(self.prefix)), exit_code=TOOL)
        found = json.loads(line.group(1))
        return dict(found, packages=[pin for pin in of_record(found['packages']) if pin.key != 'pip'])

    def recorded(self):
        """Return what was asked for (list of str) and what that became (list of Pin), as overlay.json has it."""
        asked, resolved = packages_record(self.overlay.root)
        return asked, of_record(resolved)

    def note(self, asked, resolved):
        """Write down what was asked for (list of str) and what that became (list of Pin); under the lock.

        Others may read it, so an address loses its login.
        """
        found = [pin.recorded() for pin in sorted(resolved, key=lambda one: one.key)]
        update_record(self.overlay.root, packages={
            'asked': [LOGIN.sub(r'\1', one) for one in asked],
            'resolved': [dict(one, url=one['url'] and LOGIN.sub(r'\1', one['url'])) for one in found]})


def known(pins, *sources):
    """Return packages with what other lists know of the same version: URL and hash (list of Pin).

    :param pins: the packages (list of Pin)
    :param sources: lists of Pin, the first that knows it wins
    """
    better = {}
    for source in reversed(sources):
        better.update({(pin.key, pin.version): pin for pin in source})
    return [pin if pin.sha256 or pin.direct else better.get((pin.key, pin.version), pin) for pin in pins]
