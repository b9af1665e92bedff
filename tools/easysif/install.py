# SPDX-License-Identifier: GPL-2.0-only
"""One installation, from recipe to files. The easyblock calls these methods in the order of EasyBuild's steps."""

import hashlib
import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import asdict, replace

from easysif import deferred, files, finishing, layer, layout, manifest, relocate, render, runtime, wrappers
from easysif.containerroot import ContainerRoot
from easysif.describe import describe, parameters
from easysif.errors import EasySIFError
from easysif.images import labels
from easysif.images.inspect import look_inside
from easysif.images.place import place, refer
from easysif.images.reference import FILE, file_name, parse
from easysif.images.sif import read as read_sif
from easysif.images.sources import check_allowed
from easysif.images.workspace import clear
from easysif.module import module_plan
from easysif.needs import check_recipe
from easysif.node import fitting, host
from easysif.obtain import obtain
from easysif.preconditions import check_place, check_prefix, check_squashfs_tools
from easysif.run import failure, run

START_LIMIT = 60  # seconds in which a command has ended or counts as started

#: not found, not executable, illegal instruction, bus error, segmentation fault: as a shell tells them and as they are
NO_START = (126, 127, 128 + 4, 128 + 7, 128 + 11, -4, -7, -11)


class Install:
    """Turns a recipe into an installation directory, step by step.

    :param recipe: what to install (Recipe)
    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    :param module: name and full version, as it stands below ``software`` (str)
    :param more_room: what to do where space is lacking, for messages (str), another prefix where None
    """

    def __init__(self, recipe, site, prefix, root, module, more_room=None):
        self.recipe, self.site, self.prefix, self.root, self.module = recipe, site, prefix, root, module
        self.runtime = self.obtained = self.facts = self.installation = self.manifest = self.containerroot = None
        self.work = self.linked = None
        self.more_room = more_room
        self.output = ''  # what the making of the image printed

    def check(self, module=None):
        """Find out what would fail later, before anything is made, and return what the user has to know (str or None).

        :param module: the module file (str), None where nothing is to be installed
        :raises EasySIFError: the prefix cannot be used, the site lacks a need, a tool is missing, the module is loaded
        """
        check_prefix(self.recipe.where, self.prefix, module)
        note = check_recipe(self.recipe, self.site)
        self.check_image()
        self.runtime = runtime.find(self.site, self.recipe.where)
        self.containerroot = ContainerRoot(self.recipe.where, self.prefix, self.module, self.runtime.environment())
        if module:
            check_place(self.recipe, self.prefix, self.root, module)
        return note

    def check_image(self):
        """See that the image may be installed, as far as its reference tells, and what an image needs is there.

        :raises EasySIFError: the site does not allow it, or a tool is missing
        """
        check_allowed(parse(self.recipe.image, self.recipe.where), self.site, self.recipe.where)
        check_squashfs_tools(self.recipe.where)

    sweep = staticmethod(clear)

    def fetch(self, places):
        """Get the image as a SIF file, and return what the user has to know of that (str or None).

        :param places: where to look and to work (Places)
        :raises EasySIFError: it is not there, or is not what the recipe says
        """
        try:
            places = replace(places, previous=(self.root, manifest.read(self.root)))
        except EasySIFError:  # nothing stands there, or nothing that is known well enough to be used again
            pass
        self.work = places.work
        self.obtained = obtain(self.recipe, self.site, self.runtime, places)
        with suppress(FileNotFoundError), open(places.log, encoding='utf-8', errors='replace') as handle:
            self.output = handle.read()
        return self.obtained.note

    def inspect(self):
        """Look into the image for what the module must know, and return what the user has to know of it (str or None).

        :raises EasySIFError: the image lacks what the recipe names, or does not go with the MPI of the host
        """
        self.facts = asdict(look_inside(self.obtained.path, self.runtime, self.recipe, self.recipe.where))
        del self.facts['available']  # only for the hint about a command that is not there
        return fitting.check(self.obtained.path, self.site, self.recipe, self.runtime)

    def put(self, directory, tests):
        """Fill the directory in which the installation is made, which is there and empty.

        :param directory: the directory (str), which `complete` counts on to be put in the place of the installation
        :param tests: the commands that test the recipe, which are recorded as not run yet (list of str)
        :raises EasySIFError: the image has another digest than it should, or a file cannot be written
        """
        self.root = directory
        image = self.put_image()
        sif = image and os.path.join(directory, image['file'])
        self.manifest = {
            'schema': manifest.SCHEMA, 'module': self.module, 'recipe': self.recipe.where, 'site': self.site.name,
            'runtime': {'name': self.runtime.name, 'version': '.'.join(str(part) for part in self.runtime.version)},
            'image': image, 'files': {}, 'modulefile': None,
            'layer': layer.add(self.recipe, self.facts, sif, self.runtime, self.site, self.root, self.work),
            'inside': self.facts,  # with the commands of the layer
            'parameters': parameters(self.recipe, self.facts),
            'tests': [{'command': command, 'result': 'skipped'} for command in tests],
        }
        self.installation = describe(self.manifest, self.prefix, self.root)
        wrappers.write(self.installation, self.facts, self.site)
        # while it is tested it reads its own site files: those of the prefix may say what the site was before
        files.write(os.path.join(self.root, manifest.UNTESTED), '')
        files.write(os.path.join(self.root, manifest.MODULE), '')
        manifest.write(self.root, self.manifest)  # not the last word, but with the permissions that EasyBuild gives

    def put_image(self):
        """Put the image into the installation directory, and return what is to be recorded of it (dict).

        :raises EasySIFError: it has another digest than it should, or cannot be written
        """
        reference = parse(self.recipe.image, self.recipe.where)
        name = file_name(reference, self.module)
        target = os.path.join(self.root, name)
        origin, known = dict(self.obtained.origin), {'expected': self.obtained.expected, 'where': self.recipe.where,
                                                     'told_by': self.obtained.told_by}
        if self.obtained.link:
            self.linked = files.identity(self.obtained.path)
            placed = refer(self.obtained.path, target, **known)
            origin['link'] = self.obtained.path
        else:
            placed = place(self.obtained.path, target, link=self.obtained.own, verified=self.obtained.verified,
                           more_room=self.more_room, **known)
        sif = read_sif(target, self.recipe.where)
        if reference.kind == FILE:
            origin['digest'] = 'sha256:' + placed.sha256
        return dict(origin, file=name, sha256=placed.sha256, size=sif.size, architecture=sif.architecture,
                    labels=labels.read(target, self.runtime))

    def permit(self, modes, restricted, group_writes):
        """Let others do with the new installation what the prefix grants; its image is for reading only.

        :param modes: what it grants (Modes)
        :param restricted: EasyBuild has made it a group's alone, which stays (true or false)
        :param group_writes: EasyBuild was told that the group may write (bool)
        """
        if not restricted:
            modes.give_all(self.root, 0o020 if group_writes else 0)
        image = os.path.join(self.root, self.installation.sif_name)
        if os.path.isfile(image) and not os.path.islink(image) and os.stat(image).st_mode & 0o222:
            os.chmod(image, os.stat(image).st_mode & 0o555)

    def resume(self):
        """Take what was installed as it is, unless this has installed it: for a new module file without a new image.

        :raises EasySIFError: there is no installation, or its ``easysif.json`` cannot be read
        """
        if self.installation is not None:
            return
        self.manifest = manifest.read(self.root)
        self.manifest['parameters'] = parameters(self.recipe, self.manifest['inside'])
        self.installation = describe(self.manifest, self.prefix, self.root)

    def make_overlay(self):
        """Make the directory for the user's own packages in the prefix, with its virtual environment.

        :raises EasySIFError: it cannot be made
        """
        if self.installation.environment:
            self.containerroot.make(self.root, self.recipe.python_env)

    def sanity_paths(self):
        """Return what an installation has at the least, in EasyBuild's words (dict of list of str)."""
        return {'files': [self.installation.sif_name, 'easysif/wrapper'], 'dirs': ['bin', 'runscripts']}

    def undo(self):
        """Take back what was made outside of the installation directory; what was fetched is kept for the next try."""
        if self.containerroot:
            self.containerroot.undo()

    def complete(self, standing, text, tests):
        """The installation was tested: let it be as it will stand, and return the texts of files to publish (dict).

        :param standing: its place (Standing)
        :param text: the module file as EasyBuild made it (str)
        :param tests: the results of the recipe's tests (list of dict), None where they did not run
        :raises EasySIFError: something in it names the directory in which it was made, and must not; or the file of
            the image store that it runs is another one by now
        """
        if self.linked and self.linked != files.identity(self.obtained.path):
            raise EasySIFError(self.recipe.where, 'the file of the image store was changed while it was installed',
                               facts=[('file', self.obtained.path)], hint='eb %s' % self.recipe.where)
        if tests is not None:
            self.manifest['tests'] = tests
        layout.note(self.prefix, standing.root, self.module, standing.module)
        text = relocate.text_of(text, standing.new, standing.root)
        tested = relocate.text_of(self.module_text(standing.module), standing.new, standing.root)
        block = deferred.block(replace(self.installation, root=standing.root), standing.module)
        begin = text.rfind(tested)
        if begin >= 0:
            text = text[:begin] + block + text[begin + len(tested):]
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.manifest['modulefile'] = {'path': standing.module, 'links': sorted(standing.links), 'sha256': digest,
                                       'block': None if begin < 0 else [begin, begin + len(block)]}
        path, copy = (os.path.join(self.root, name) for name in (manifest.NAME, manifest.MODULE))
        if self.root == standing.root:  # nothing but the module is made anew
            called = deferred.texts(self.installation)
            self.manifest['files'].update({name: manifest.sha256(does) for name, does in called.items()},
                                          **{manifest.MODULE: 'sha256:' + digest})
            return dict({os.path.join(self.root, name): does for name, does in called.items()},
                        **{standing.module: text, copy: text, path: manifest.dumps(self.manifest)})
        files.rewrite(copy, text.encode())
        with files.writable(os.path.join(self.root, 'easysif')):
            os.unlink(os.path.join(self.root, manifest.UNTESTED))
        relocate.tree(standing.new, standing.root)
        self.manifest['files'] = manifest.contents(self.root, manifest.image_file(self.manifest))
        files.rewrite(path, manifest.dumps(self.manifest).encode())
        relocate.carry_over(standing.root, standing.new)
        return {standing.module: text}

    def finish(self, root):
        """The installation stands: tell the prefix what the site provides, and link it from the user's directory.

        Return what could not be done (str), None if all was: what is installed works without it.

        :param root: where it stands (str)
        """
        if self.obtained:
            self.obtained.forget()
        return finishing.finish(self, root)

    def check_start(self):
        """Start every command of the recipe inside the image.

        :raises EasySIFError: one does not start
        """
        self.resume()
        for name in self.recipe.commands:
            with tempfile.TemporaryDirectory() as directory:
                result = run([os.path.join(self.root, 'bin', name), '--version'], env=self.runtime.environment(),
                             cwd=directory, timeout=START_LIMIT, check=False)
            if result.status in NO_START or result.status == 255 and 'FATAL' in result.stderr:
                image = self.obtained.path if self.obtained else os.path.join(self.root, self.installation.sif_name)
                raise self._failure(result, "command '%s' does not start inside the image" % name, hint=shlex.join(
                    [self.runtime.name, 'exec', image, *self.recipe.commands[name], '--version']))

    def missing_devices(self):
        """Return those needs of the recipe whose devices are not there for us (list of str)."""
        return [need for need in self.recipe.needs if need in host.GPUS and not host.can_use(need)]

    def _failure(self, result, what, hint=None):
        told = failure(result)
        return EasySIFError(self.recipe.where, what, facts=told.facts, hint=hint, exit_code=told.exit_code)

    def module_text(self, module):
        """Return what the module does, in the language of a module file (str), of which the path is given (str)."""
        self.resume()
        return render.module(module_plan(self.installation), self.root, self.prefix, module)

    def extensions(self):
        """Return what the module has that is worth finding, beside its name: pairs of name and version (list)."""
        self.resume()
        packages = (self.manifest.get('layer') or {}).get('packages', ())
        found = {**self.installation.provides, **{one['name']: one['version'] for one in packages}}
        return sorted((name, version) for name, version in found.items())

    def usage(self):
        """Return what the help text of the module ends with (str)."""
        lines = ['Commands that run inside the image: %s.' % (', '.join(self.recipe.commands) or 'none of its own'),
                 'start-shell opens a shell inside; singularity exec $SIF%s COMMAND runs anything else.'
                 % self.recipe.env_suffix]
        if self.recipe.python_env:
            lines.append('pip install adds packages to your own overlay ($CONTAINERROOT); list-packages shows all; '
                         'make-squashfs packs the overlay into one file, unmake-squashfs unpacks it.')
        return '\n'.join(lines)
