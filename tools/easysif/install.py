# SPDX-License-Identifier: GPL-2.0-only
"""One installation, from recipe to files. The easyblock calls these methods in the order of EasyBuild's steps."""

import os
import shutil
import sys
from dataclasses import asdict, replace

from easysif import manifest, render, runtime, site_files, wrappers
from easysif.errors import TOOL, EasySIFError
from easysif.images.inspect import Conda, look_inside
from easysif.images.place import place
from easysif.images.reference import FILE, parse
from easysif.images.sif import read as read_sif
from easysif.module import Command, Installation, module_plan
from easysif.obtain import obtain
from easysif.run import failure, run
from easysif.site import check_needs

START_LIMIT = 60  # seconds in which a command has ended or counts as started


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

    def check(self):
        """Find out what would fail later, before anything is made.

        :raises EasySIFError: the prefix cannot be used, the site lacks a need, or a tool is missing
        """
        if any(char in self.prefix for char in ':,\n'):
            raise EasySIFError(self.recipe.where, 'the prefix holds a character that bind lists cannot carry',
                               facts=[('prefix', self.prefix), ('characters', 'colon, comma, newline')],
                               hint='eb --prefix <another directory> %s' % self.recipe.where)
        existing = self.prefix
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise EasySIFError(self.recipe.where, 'the prefix is read-only for you',
                               facts=[('prefix', self.prefix), ('not writable', existing)],
                               hint='eb --prefix <a directory of yours> %s' % self.recipe.where)
        check_needs(self.recipe, self.site)
        self.runtime = runtime.find(self.site, self.recipe.where)
        for tool in ('mksquashfs', 'unsquashfs'):
            if not shutil.which(tool):
                raise EasySIFError(self.recipe.where, '%s is not on PATH' % tool, exit_code=TOOL,
                                   hint='ask for the package squashfs-tools, for instance: apt install squashfs-tools')

    def fetch(self, places):
        """Get the image as a SIF file.

        :param places: where to look and to work (Places)
        :raises EasySIFError: it is not there, or is not what the recipe says
        """
        self.obtained = obtain(self.recipe, self.site, self.runtime, places)

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

    def put(self):
        """Fill the installation directory, which is there and empty.

        :raises EasySIFError: the image has another digest than it should, or a file cannot be written
        """
        reference = parse(self.recipe.image, self.recipe.where)
        name = (os.path.basename(reference.path) if reference.kind == FILE
                else '%s.sif' % self.module.replace('/', '-'))
        target = os.path.join(self.root, name)
        placed = place(self.obtained.path, target, move=self.obtained.own, link=self.obtained.linkable,
                       expected=self.obtained.expected, where=self.recipe.where)
        sif = read_sif(target, self.recipe.where)
        image = dict(self.obtained.origin, file=name, sha256=placed.sha256, size=sif.size,
                     architecture=sif.architecture)
        self.manifest = {
            'schema': manifest.SCHEMA, 'module': self.module, 'recipe': self.recipe.where, 'site': self.site.name,
            'runtime': {'name': self.runtime.name, 'version': '.'.join(str(part) for part in self.runtime.version)},
            'image': image, 'inside': self.facts, 'tests': [], 'files': [],
        }
        self.write_files()
        site_files.apply(self.prefix, self.site)

    def resume(self):
        """Take what was installed as it is: for a new module file without a new image.

        :raises EasySIFError: there is no installation, or its ``easysif.json`` cannot be read
        """
        self.manifest = manifest.read(self.root)
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
        self.manifest['files'] = sorted(set(manifest.listed_files(self.root)) | {manifest.NAME})
        manifest.write(self.root, self.manifest)

    def make_overlay(self):
        """Make the directory for the user's own packages in the prefix, with its virtual environment.

        What is there already is left as it is, but for the links to image and runscripts.
        """
        if not self.installation.environment:
            return
        place_of = os.path.join(self.prefix, 'overlays', self.module)
        os.makedirs(os.path.join(place_of, 'user-software') if self.recipe.python_env
                    and not os.path.lexists(os.path.join(place_of, 'user-software.squashfs')) else place_of,
                    exist_ok=True)
        links = {'runscripts': 'runscripts', self.installation.sif_name: self.installation.sif_name}
        for name, target in links.items():
            link = os.path.join(place_of, name)
            if os.path.islink(link):
                os.unlink(link)
            if not os.path.lexists(link):
                os.symlink(os.path.join(self.root, target), link)
        result = run([os.path.join(self.root, 'easysif', 'wrapper'), 'make-venv'], env=self.runtime.environment(),
                     check=False)
        if result.status:
            raise failure(result, what='the virtual environment of the overlay could not be made')

    def check_start(self):
        """Start every command of the recipe inside the image.

        :raises EasySIFError: one does not start
        """
        for name in self.recipe.commands:
            result = run([os.path.join(self.root, 'bin', name), '--version'], env=self.runtime.environment(),
                         timeout=START_LIMIT, check=False)
            if result.status in (126, 127) or result.status == 255 and 'FATAL' in result.stderr:
                raise failure(result, what="command '%s' does not start inside the image" % name,
                              hint='start-shell, then look at it: ls -l "$(command -v %s)"' % name)

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
