# SPDX-License-Identifier: GPL-2.0-only
"""A module with the overlay that packages go into, and how commands are run inside of it."""

import hashlib
import json
import os
import re
import shlex
from contextlib import contextmanager

from easysif import files, index, installed, inventory, layout
from easysif.errors import TOOL, EasySIFError
from easysif.overlay import environment
from easysif.overlay.place import HALF, Overlay, discard
from easysif.overlay.recorded import packages_record
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
        self.binds, self.prefix = [], layout.prefix_above(root, name)
        told = index.settings(index.variables(), [*index.users_configuration(), os.environ.get('PIP_CONFIG_FILE', '')])
        self.show_places([pair for pair in told if pair[0] in index.PLACES])
        self.venv = '%s/venv/%s' % (PLACE, self.venv_name)
        self.host_venv = os.path.join(self.overlay.directory, 'venv', self.venv_name)
        self.instead = []

    def typed(self, command, *words):
        """Return what to type for a command on this overlay: ``easysif overlay COMMAND MODULE WORD…`` (str)."""
        return 'easysif overlay %s%s' % (' '.join([command, self.name, *words]), installed.option(self.prefix))

    @contextmanager
    def alone(self):
        """Hold the lock of the overlay, of which there is at least the directory, and which is not packed.

        :raises EasySIFError: it is packed, somebody else's, or another process is at work on it
        """
        self.refuse_packed()
        self.overlay.make()
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

    @contextmanager
    def beside(self):
        """Make a directory for the block, on the file system of the overlay, for what is to take a place in it.

        Under the lock. What killed commands left of such goes before. It stays where what is in it is still to be put
        into its place, which the next one does that has the lock. Where the directory is a link, another overlay may
        have one to the same, with a lock of its own, so what is made tells whose it is.
        """
        self.overlay.refuse_mount(files.existing_directory(os.path.dirname(self.host_venv)))
        real, root = [os.path.realpath(path) for path in (self.overlay.directory, self.overlay.root)]
        above, name = os.path.split(real)
        begin = name + HALF + ('' if above == root else hashlib.sha256(os.fsencode(root)).hexdigest()[:16] + '-')
        for other in os.listdir(above):
            if re.fullmatch(re.escape(begin) + '[0-9]+', other):
                discard(os.path.join(above, other))
        path = os.path.join(above, '%s%d' % (begin, os.getpid()))
        os.mkdir(path)
        try:
            yield path
        finally:
            if not os.path.lexists(os.path.join(self.overlay.root, environment.NAME)):
                discard(path)

    @contextmanager
    def using(self, path, inside):
        """Let commands in the block see another directory in the overlay, or for it.

        :param path: the directory (str)
        :param inside: where it is seen, ``/user-software`` or below (str)
        """
        self.instead = [bind(path, inside)]
        if inside != PLACE:  # the runtime binds in this order
            self.instead.insert(0, bind(self.overlay.directory, PLACE))
        try:
            yield
        finally:
            self.instead = []

    def show_places(self, pairs):
        """Let what an installer is told of this host be seen inside, to be read.

        :param pairs: options and their values (list of pairs of str)
        """
        seen = [os.path.expanduser('~'), os.environ.get('TMPDIR', '/tmp'), os.environ.get('PWD', '/')]
        self.binds += [bind(path, path, 'ro') for path in index.here(pairs, seen)]

    def show(self, line):
        """Let what a requirement names of this host be seen inside, and return the requirement as it is there (str).

        pip may write into a directory that it builds.

        :raises EasySIFError: no bind can carry its path
        """
        option, path, rest = re.fullmatch(r'((?:-e|--editable)[=\s]\s*|)([^\s\[;]*)(.*)', line, re.DOTALL).groups()
        if (os.sep in path or path == '.') and os.path.exists(path):
            path = os.path.abspath(path)
            self.binds.append(bind(path, path))
            return option + path + rest
        self.binds += [bind(one, one) for one in index.paths(line)]
        return line

    def run(self, argv, binds=(), stdin=None, **variables):
        """Run a command inside the image and return what it left (run.Result).

        :param argv: the command (list of str)
        :param binds: what else is visible inside, in the runtime's form (sequence of str)
        :param stdin: text for its standard input (str)
        :param variables: added to the environment (str)
        """
        env = dict(os.environ, **variables)
        more = [*self.instead, *self.binds, *binds]
        for name in ('APPTAINER_BINDPATH', 'SINGULARITY_BINDPATH') if more else ():
            env[name] = ','.join([*more, *filter(None, [env.get(name)])])
        return run([os.path.join(self.root, 'bin', 'start-shell'), '-c', 'exec "$0" "$@"', *argv], env=env, check=False,
                   stdin=stdin)

    def look(self):
        """Return what is in the virtual environment (dict): ``python``, ``pip``, ``exists``, ``packages``.

        :raises EasySIFError: it cannot be told
        """
        if not os.path.isfile(os.path.join(self.root, 'runscripts', 'lib', 'venv_packages.py')):
            raise EasySIFError(self.name, 'was installed by an EasySIF that did not know lists of packages yet',
                               facts=[('installation', self.root)],
                               hint='easysif refresh %s%s' % (self.name, installed.option(self.prefix)))
        result = self.run([self.image_python, '-E', '-s', '/runscripts/lib/venv_packages.py', self.venv])
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


def to_record(asked, resolved):
    """Return what is recorded of packages (dict): what was asked for (list of str), what that became (list of Pin).

    Others may read it, so an address loses its login.
    """
    found = [pin.recorded() for pin in sorted(resolved, key=lambda one: one.key)]
    return {'asked': [LOGIN.sub(r'\1', one) for one in asked],
            'resolved': [dict(one, url=one['url'] and LOGIN.sub(r'\1', one['url'])) for one in found]}


def known(pins, *sources):
    """Return packages with what other lists know of the same version: URL and hash (list of Pin).

    :param pins: the packages (list of Pin)
    :param sources: lists of Pin, the first that knows it wins
    """
    better = {}
    for source in reversed(sources):
        better.update({(pin.key, pin.version): pin for pin in source})
    return [pin if pin.sha256 or pin.direct else better.get((pin.key, pin.version), pin) for pin in pins]
