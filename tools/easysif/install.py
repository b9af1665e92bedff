# SPDX-License-Identifier: GPL-2.0-only
"""One installation, from recipe to files. The easyblock calls these methods in the order of EasyBuild's steps."""

import os
import shutil
import sys

from easysif import files, manifest, overlay, render, runtime, site_files
from easysif.data import HELPERS, helper
from easysif.errors import TOOL, EasySIFError
from easysif.images.inspect import look_inside
from easysif.images.place import place
from easysif.images.reference import FILE, parse
from easysif.images.sif import read as read_sif
from easysif.module import Command, Conda, Installation, module_plan, wrapper_plan
from easysif.obtain import obtain
from easysif.run import failure, run
from easysif.site import check_needs

#: what stands in bin/ of every module, and of those with an overlay
COMMANDS = ('start-shell', 'list-packages')
OVERLAY_COMMANDS = ('make-squashfs', 'unmake-squashfs')

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
        self.facts = look_inside(self.obtained.path, self.runtime, self.recipe, self.recipe.where)

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
        """Write the wrappers, the runscripts and what they read into the installation directory."""
        self.installation = describe(self.recipe, self.manifest, self.prefix, self.root)
        _copy_runscripts(self.root, self.installation)
        own = os.path.join(self.root, 'easysif')
        library = os.path.join(own, 'lib', 'easysif')
        os.makedirs(library, exist_ok=True)
        for name in overlay.MODULES:
            shutil.copyfile(os.path.join(os.path.dirname(HELPERS), name + '.py'), os.path.join(library, name + '.py'))
        shutil.copyfile(helper('wrapper'), os.path.join(own, 'wrapper'))
        os.chmod(os.path.join(own, 'wrapper'), 0o755)
        files.write(os.path.join(own, 'module.sh'), module_shell(self.installation, self.manifest['inside']))
        site_files.write(own, self.site)
        os.makedirs(os.path.join(self.root, 'bin'), exist_ok=True)
        for name in [*self.installation.commands, *COMMANDS, *(OVERLAY_COMMANDS if self.recipe.python_env else ())]:
            link = os.path.join(self.root, 'bin', name)
            if not os.path.islink(link):
                os.symlink('../easysif/wrapper', link)
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
        result = run([os.path.join(self.root, 'easysif', 'wrapper')], env=self.runtime.environment(), check=False)
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
    scripts = {name for name, path in inside['commands'].items() if path and name in inside['python_scripts']}
    commands = {name: Command(words, inside['commands'][words[0]] if words[0] in scripts else None)
                for name, words in recipe.commands.items()}
    return Installation(
        module=record['module'], prefix=prefix, root=root, variable=recipe.env_suffix, sif_name=image['file'],
        sif_size=image['size'], environment=recipe.is_environment, eb_python=sys.executable,
        python_env=recipe.python_env, conda=Conda(**inside['conda']) if inside['conda'] else None,
        shell=inside['shell'], image_env=inside['env'], needs=recipe.needs, binds=recipe.binds,
        container_env=recipe.container_env, commands=commands)


def module_shell(inst, inside):
    """Return ``module.sh``, which the wrappers of an installation read (str).

    :param inst: what is installed (Installation)
    :param inside: what the image holds, as in the manifest (dict)
    """
    python = (inside['python'] or {}).get('path', '')
    values = {'root': inst.root, 'prefix': inst.prefix, 'module': inst.module, 'shell': inst.shell or '',
              'python_env': inst.python_env or '', 'python': python, 'python_command': os.path.basename(python),
              'eb_python': inst.eb_python}
    lines = ['# shellcheck shell=sh disable=SC2034,SC2154', '# What the wrappers of this module do. Written by eb.', '']
    lines += ['es_%s=%s' % (name, render.shell_quote(value)) for name, value in sorted(values.items())]
    lines += ['', render.shell(wrapper_plan(inst)), 'es_command() {', '    es_name=$1', '    shift',
              '    case $es_name in']
    for name, command in sorted(inst.commands.items()):
        words = list(command.words)
        if command.python_script and inst.python_env:
            words[:1] = ['/runscripts/lib/run-python-script', os.path.basename(python), command.python_script]
        lines.append('        %s) es_run %s "$@" ;;' % (render.shell_quote(name),
                                                        ' '.join(render.shell_quote(word) for word in words)))
    return '\n'.join(lines + ['    esac', '}', ''])


def _copy_runscripts(root, inst):
    target = os.path.join(root, 'runscripts')
    shutil.copytree(os.path.join(HELPERS, 'runscripts'), target, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__'))
    conda = inst.conda or Conda('', '', '')
    values = {'conda_prefix': conda.prefix, 'conda_root': conda.root,
              'venv': '/user-software/venv/%s' % inst.python_env if inst.python_env else ''}
    files.write(os.path.join(target, 'lib', 'settings'), '# shellcheck shell=sh disable=SC2034\n' + ''.join(
        'easysif_%s=%s\n' % (name, render.shell_quote(value)) for name, value in sorted(values.items())))
