# SPDX-License-Identifier: GPL-2.0-only
"""One installation, from recipe to files. The easyblock calls these methods in the order of EasyBuild's steps."""

import os
import shlex
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace

from easysif import files, manifest, render, runtime, site_files, wrappers
from easysif.errors import TOOL, EasySIFError
from easysif.images.inspect import Conda, look_inside
from easysif.images.place import place
from easysif.images.reference import FILE, parse
from easysif.images.sif import read as read_sif
from easysif.module import Command, Installation, module_plan
from easysif.obtain import obtain
from easysif.run import failure, run
from easysif.site import check_needs
from easysif.standing import remove_tree

START_LIMIT = 60  # seconds in which a command has ended or counts as started

#: not found, not executable, illegal instruction, bus error, segmentation fault: as a shell tells them and as they are
NO_START = (126, 127, 128 + 4, 128 + 7, 128 + 11, -4, -7, -11)

#: characters that a prefix must not hold, who cannot carry them, and their names
UNUSABLE = ((':,\n', 'bind lists', 'colon, comma, newline'),
            ('"\\', "EasyBuild's modulefiles", 'double quote, backslash'))


class Install:
    """Turns a recipe into an installation directory, step by step.

    :param recipe: what to install (Recipe)
    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    :param module: name and full version, as it stands below ``software`` (str)
    """

    def __init__(self, recipe, site, prefix, root, module):
        self.recipe, self.site, self.prefix, self.root, self.module = recipe, site, prefix, root, module
        self.runtime = self.obtained = self.facts = self.installation = self.manifest = None
        self.target = self.marker = self.made_overlay = None

    def check(self, writes=True):
        """Find out what would fail later, before anything is made.

        :param writes: something is to be installed (bool)
        :raises EasySIFError: the prefix cannot be used, the site lacks a need, or a tool is missing
        """
        for characters, who, named in UNUSABLE:
            if any(char in self.prefix for char in characters):
                raise EasySIFError(self.recipe.where, 'the prefix holds a character that %s cannot carry' % who,
                                   facts=[('prefix', repr(self.prefix)), ('characters', named)],
                                   hint='eb --prefix <another directory> %s' % self.recipe.where)
        check_needs(self.recipe, self.site)
        self.runtime = runtime.find(self.site, self.recipe.where)
        if not writes:
            return
        existing = os.path.dirname(self.root)
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise EasySIFError(self.recipe.where, 'the prefix is read-only for you',
                               facts=[('prefix', self.prefix), ('not writable', existing)],
                               hint='eb --prefix <a directory of yours> %s' % self.recipe.where)
        for tool in ('mksquashfs', 'unsquashfs'):
            if not shutil.which(tool):
                raise EasySIFError(self.recipe.where, '%s is not on PATH' % tool, exit_code=TOOL,
                                   hint='ask for the package squashfs-tools, for instance: apt install squashfs-tools')

    def fetch(self, places):
        """Get the image as a SIF file, and return what the user has to know of that (str or None).

        :param places: where to look and to work (Places)
        :raises EasySIFError: it is not there, or is not what the recipe says
        """
        self.obtained = obtain(self.recipe, self.site, self.runtime, places)
        return self.obtained.note

    def inspect(self):
        """Look into the image for what the module must know, and hold the recipe against it.

        :raises EasySIFError: the image lacks what the recipe names
        """
        self.facts = asdict(look_inside(self.obtained.path, self.runtime, self.recipe, self.recipe.where))
        del self.facts['available']  # only for the hint about a command that is not there

    def put_aside(self, old):
        """Tell that the installation that stood in the way is now elsewhere.

        :param old: where it is (str)
        """
        if os.path.dirname(self.obtained.path) == self.root:
            self.obtained = replace(self.obtained, path=os.path.join(old, os.path.basename(self.obtained.path)))

    def put(self, tests):
        """Fill the installation directory, which is there and empty.

        :param tests: the commands that test the recipe, which are recorded as not run yet (list of str)
        :raises EasySIFError: the image has another digest than it should, or a file cannot be written
        """
        reference = parse(self.recipe.image, self.recipe.where)
        name = (os.path.basename(reference.path) if reference.kind == FILE
                else '%s.sif' % self.module.replace('/', '-'))
        self.target = target = os.path.join(self.root, name)
        placed = place(self.obtained.path, target, move=self.obtained.own, link=self.obtained.linkable,
                       expected=self.obtained.expected, where=self.recipe.where)
        sif = read_sif(target, self.recipe.where)
        origin = dict(self.obtained.origin)
        if reference.kind == FILE:
            origin['digest'] = 'sha256:' + placed.sha256
        image = dict(origin, file=name, sha256=placed.sha256, size=sif.size,
                     architecture=sif.architecture)
        self.manifest = {
            'schema': manifest.SCHEMA, 'module': self.module, 'recipe': self.recipe.where, 'site': self.site.name,
            'runtime': {'name': self.runtime.name, 'version': '.'.join(str(part) for part in self.runtime.version)},
            'image': image, 'inside': self.facts, 'files': {}, 'modulefile': None, 'parameters': None,
            'tests': [{'command': command, 'result': 'skipped'} for command in tests],
        }
        self.write_files()
        # while it is tested it reads its own site files: those of the prefix may say what the site was before
        files.write(self._untested(), '')

    def resume(self):
        """Take what was installed as it is: for a new module file without a new image.

        :raises EasySIFError: there is no installation, or its ``easysif.json`` cannot be read
        """
        self.manifest = manifest.read(self.root)
        self.target = os.path.join(self.root, self.manifest['image']['file'])
        self.installation = describe(self.recipe, self.manifest, self.prefix, self.root)

    def write_files(self):
        """Write the wrappers, the runscripts and what they read, and record them."""
        self.installation = describe(self.recipe, self.manifest, self.prefix, self.root)
        wrappers.write(self.installation, self.manifest['inside'], self.site)
        self.write_manifest()

    def write_manifest(self, tests=None):
        """Write ``easysif.json``, with the results of the recipe's tests where they are known (list of dict)."""
        if tests is not None:
            self.manifest['tests'] = tests
        self.manifest['files'] = manifest.contents(self.root, self.manifest['image']['file'])
        manifest.write(self.root, self.manifest)

    def make_overlay(self):
        """Make the directory for the user's own packages in the prefix, with its virtual environment.

        What is there already is left as it is. In a prefix of others there is nothing to make: for what they installed
        everybody has an overlay of their own.

        :raises EasySIFError: it cannot be made
        """
        if not self.installation.environment:
            return
        self.marker = site_files.mark(self.prefix)
        containerroot = self._containerroot()
        is_new = not os.path.isdir(containerroot)
        if not self._uses(containerroot):
            return
        if is_new:
            self.made_overlay = containerroot
            os.makedirs(containerroot, exist_ok=True)
        if not self.recipe.python_env:
            return
        if not os.path.lexists(os.path.join(containerroot, 'user-software.squashfs')):
            os.makedirs(os.path.join(containerroot, 'user-software'), exist_ok=True)
        result = run([os.path.join(self.root, 'easysif', 'wrapper'), 'make-venv'], env=self.runtime.environment(),
                     check=False)
        if result.status:
            raise self._failure(result, 'the virtual environment of the overlay could not be made')

    def undo(self):
        """Take back what was made outside of the installation directory; what was fetched is kept for the next try.

        Nothing that goes wrong with it is an error: there is one already, and more to bring back after this.
        """
        if self.obtained and self.obtained.own and self.target and os.path.isfile(self.target):
            fetched = self.obtained.path
            if os.path.isdir(os.path.dirname(fetched)) and not os.path.exists(fetched):
                try:
                    os.rename(self.target, fetched)
                except OSError:  # another file system: it is fetched again
                    self.obtained.forget()
        overlays = os.path.join(self.prefix, 'overlays')
        if self.made_overlay:
            for remove, path in ((remove_tree, self.made_overlay), (os.rmdir, os.path.dirname(self.made_overlay)),
                                 (os.rmdir, overlays)):
                with suppress(OSError):  # gone already, or with something of others in it
                    remove(path)
            self.made_overlay = None
        if self.marker and not os.path.isdir(overlays):
            with suppress(OSError):
                directory = os.path.dirname(self.marker)
                if os.listdir(directory) == [os.path.basename(self.marker)]:  # nobody else has finished meanwhile
                    remove_tree(directory)
            self.marker = None

    def end_tests(self):
        """The installation was tested; from now on it reads the site files of the prefix."""
        if os.path.exists(self._untested()):
            os.unlink(self._untested())

    def _untested(self):
        return os.path.join(self.root, 'easysif', 'untested')

    def finish(self):
        """The installation stands: tell the prefix what the site provides, and link it from the user's directory.

        Return what could not be done (str), None if all was: what is installed works without it.
        """
        if self.obtained:
            self.obtained.forget()
        try:
            site_files.apply(self.prefix, self.site)
            if self.installation.environment and self._uses(self._containerroot()):
                self._link()
        except OSError as err:
            return str(EasySIFError(self.recipe.where, 'no links to image and runscripts could be made (%s)'
                                    % err.strerror, hint='ls -la %s' % shlex.quote(self._containerroot())))
        except EasySIFError as err:
            return str(err)
        return None

    def _link(self):
        containerroot = self._containerroot()
        os.makedirs(containerroot, exist_ok=True)
        links = {name: os.path.join(self.root, name) for name in ('runscripts', self.installation.sif_name)}
        for name in os.listdir(containerroot):
            path = os.path.join(containerroot, name)
            if os.path.islink(path) and os.readlink(path).startswith(self.root + os.sep):
                os.unlink(path)  # the image may have had another name
        for name, target in links.items():
            if not os.path.lexists(os.path.join(containerroot, name)):
                os.symlink(target, os.path.join(containerroot, name))

    def _containerroot(self):
        return os.path.join(self.prefix, 'overlays', self.module)

    def _uses(self, containerroot):
        """Tell whether a directory is the one that the installed module uses for us, as only its own plan knows (bool).

        :raises EasySIFError: its plan fails
        """
        result = run([os.path.join(self.root, 'easysif', 'wrapper'), 'print-environment'],
                     env=self.runtime.environment(), check=False, binary=True)
        if result.status:
            raise self._failure(result, 'the wrappers of the module do not work')
        return os.fsencode('CONTAINERROOT=' + containerroot) in result.stdout.split(b'\n')

    def check_start(self):
        """Start every command of the recipe inside the image.

        :raises EasySIFError: one does not start
        """
        for name in self.recipe.commands:
            with tempfile.TemporaryDirectory() as directory:
                result = run([os.path.join(self.root, 'bin', name), '--version'], env=self.runtime.environment(),
                             cwd=directory, timeout=START_LIMIT, check=False)
            if result.status in NO_START or result.status == 255 and 'FATAL' in result.stderr:
                image = self.target if not self.obtained or self.obtained.linkable else self.obtained.path
                raise self._failure(result, "command '%s' does not start inside the image" % name, hint=shlex.join(
                    [self.runtime.name, 'exec', image, *self.recipe.commands[name], '--version']))

    def _failure(self, result, what, hint=None):
        told = failure(result)
        return EasySIFError(self.recipe.where, what, facts=told.facts, hint=hint, exit_code=told.exit_code)

    def module_text(self):
        """Return what the module does, in Lua (str)."""
        return render.lua(module_plan(self.installation), self.root, self.prefix)


def describe(recipe, record, prefix, root):
    """Return what the plan of the module depends on (Installation).

    :param recipe: the recipe (Recipe)
    :param record: the manifest (dict)
    """
    inside, image = record['inside'], record['image']
    commands = {}
    for name, words in recipe.commands.items():
        found = inside['commands'].get(words[0], {})
        commands[name] = Command(words, found['path'] if found.get('is_python_script') else None)
    return Installation(
        module=record['module'], prefix=prefix, root=root, variable=recipe.env_suffix, sif_name=image['file'],
        sif_size=image['size'], environment=recipe.is_environment, eb_python=sys.executable,
        python_env=recipe.python_env, conda=Conda(**inside['conda']) if inside['conda'] else None,
        shell=inside['shell'], image_env=inside['env'], needs=recipe.needs, binds=recipe.binds,
        container_env=recipe.container_env, commands=commands)
