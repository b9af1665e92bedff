# SPDX-License-Identifier: GPL-2.0-only
"""The user's directory of a module, at install: made with its virtual environment, linked, and taken back."""

import os
from contextlib import suppress

from easysif import files, site_files
from easysif.errors import EasySIFError
from easysif.modes import Modes
from easysif.run import failure, run


class ContainerRoot:
    """``overlays/NAME/VERSION`` in a prefix, where the module uses it for whoever installs it.

    :param where: the recipe, for messages (str)
    :param prefix: EasyBuild's install path (str)
    :param module: name and full version (str)
    :param env: environment for calls of the module's wrappers (dict)
    """

    def __init__(self, where, prefix, module, env):
        self.where, self.prefix, self.env = where, prefix, env
        self.path = os.path.join(prefix, 'overlays', module)
        self.marker = self.made = self.content = None

    def make(self, root, python_env):
        """Make the directory for the user's own packages in the prefix, with its virtual environment.

        What is there already is left as it is. In a prefix of others there is nothing to make: for what they installed
        everybody has an overlay of their own.

        :param root: the installation directory (str)
        :param python_env: name of the virtual environment (str), None where the module has no overlay
        :raises EasySIFError: it cannot be made
        """
        self.marker = site_files.mark(self.prefix)
        is_new, modes = not os.path.isdir(self.path), Modes(self.prefix)
        if not self.is_used(root):
            return
        if is_new:
            self.made = self.path
            os.makedirs(self.path, exist_ok=True)
            modes.give(self.path)
        if not python_env:
            return
        if not os.path.lexists(os.path.join(self.path, 'user-software.squashfs')):
            os.makedirs(os.path.join(self.path, 'user-software'), exist_ok=True)
        result = run([os.path.join(root, 'easysif', 'wrapper'), 'make-venv'], env=self.env, check=False)
        if result.status:
            raise self._failure(result, 'the virtual environment of the overlay could not be made')
        if is_new:
            modes.give_overlay(self.path)
            self.content = _content(self.path)

    def undo(self):
        """Take back what was made. Nothing that goes wrong with it is an error: there is one already."""
        overlays = os.path.join(self.prefix, 'overlays')
        if self.made and self.content in (None, _content(self.made)):  # the user has put nothing into it meanwhile
            for remove, path in ((files.remove_tree, self.made), (os.rmdir, os.path.dirname(self.made)),
                                 (os.rmdir, overlays)):
                with suppress(OSError):  # gone already, or with something of others in it
                    remove(path)
        self.made = None
        if self.marker and not os.path.isdir(overlays):
            with suppress(OSError):
                directory = os.path.dirname(self.marker)
                if os.listdir(directory) == [os.path.basename(self.marker)]:  # nobody else has finished meanwhile
                    files.remove_tree(directory)
            self.marker = None

    def link(self, root, sif_name):
        """Link the image and the runscripts of an installation from it.

        :param root: the installation directory (str)
        :param sif_name: file name of the image in it (str)
        :raises OSError: it cannot be written
        """
        os.makedirs(self.path, exist_ok=True)
        targets = {name: os.path.join(root, name) for name in ('runscripts', sif_name)}
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if os.path.islink(path) and os.readlink(path).startswith(root + os.sep):
                if os.readlink(path) != targets.get(name):
                    os.unlink(path)  # the image may have had another name
        for name, target in targets.items():
            if not os.path.lexists(os.path.join(self.path, name)):
                os.symlink(target, os.path.join(self.path, name))

    def is_used(self, root):
        """Tell whether it is what the installed module uses for us, as only its own plan knows (bool).

        :param root: the installation directory (str)
        :raises EasySIFError: its plan fails
        """
        result = run([os.path.join(root, 'easysif', 'wrapper'), 'print-environment'], env=self.env, check=False,
                     binary=True)
        if result.status:
            raise self._failure(result, 'the wrappers of the module do not work')
        return os.fsencode('CONTAINERROOT=' + self.path) in result.stdout.split(b'\n')

    def _failure(self, result, what):
        told = failure(result)
        return EasySIFError(self.where, what, facts=told.facts, exit_code=told.exit_code)


def _content(top):
    """Return what tells the files in a directory from any that are put there later (set).

    Without what Python compiles as it runs the tests of the recipe.
    """
    found = set()
    for parent, _, names in os.walk(top):
        for path in (os.path.join(parent, name) for name in names if not name.endswith('.pyc')):
            with suppress(OSError):
                info = os.lstat(path)
                found.add((path, info.st_size, info.st_mtime_ns))
    return found
