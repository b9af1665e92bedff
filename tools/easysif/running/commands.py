# SPDX-License-Identifier: GPL-2.0-only
"""Single commands of images in a directory of the user: links to wrappers, and a record of them.

A link is recorded before it is made, and taken out of the record after it has gone: whatever ends us in between, the
next command finds what is ours. A link that the user removed or changed is no longer ours. Images of which no command
is left go with the last one.
"""

import difflib
import json
import os
import shlex
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from easysif import files, installed, manifest
from easysif.errors import EasySIFError
from easysif.formats import FORMATS
from easysif.lock import Lock
from easysif.rules import NOT_TO_SHADOW
from easysif.running import directories
from easysif.running.own_images import OwnImages, full_name
from easysif.running.words import is_image

SCHEMA = 1


@dataclass(frozen=True)
class Command:
    """A command.

    :param name: what is typed (str)
    :param path: the link (str)
    :param image: the image or the module that was named (str)
    :param file: where the image is kept (str), None where it is not known
    :param state: ``fine``; ``gone``, where its module or image is no longer there (str)
    """

    name: str
    path: str
    image: str
    file: str
    state: str


def usual_directory():
    """Return where commands are put unless told otherwise (str)."""
    return os.path.expanduser('~/.local/bin')


class Commands:
    """The commands of a user.

    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path, whose modules may be named (str)
    :param tell: takes a line for the log (callable: str)
    """

    def __init__(self, site, prefix, tell=None):
        self.site, self.prefix, self.tell = site, prefix, tell
        self.home = os.path.expanduser('~/.local/share/easysif/commands')
        self.images = OwnImages(self.home, site, tell)
        self.record = os.path.join(self.home, 'commands.json')

    def add(self, image, names, directory, needs=()):
        """Make commands of an image, or of an installed module, in a directory.

        :param image: a SIF file, a reference or a module (str)
        :param names: the commands, as they are called in the image, or NEW=NAME (list of str)
        :param directory: where to put them (str), which is made
        :param needs: words for what the site must provide to an image (list of str)
        :returns: the commands (list of Command), and what the user has to know (list of str)
        :raises EasySIFError: something else has the name there, the image has no such command or cannot be had
        """
        inside = {os.path.join(os.path.abspath(directory), new): name for new, name in map(_parts, names)}
        of_image = is_image(image, lambda: self.prefix)
        if needs and not of_image:
            raise EasySIFError(image, 'is a module, which has the needs of its recipe: --needs is for images',
                               facts=[('--needs', ','.join(needs))],
                               hint='easysif command add %s' % shlex.join([image, *names]))
        names = list(dict.fromkeys(inside.values()))
        with self._alone(image) as known:
            for path in inside:
                self._check_free(path, known)
            notes = []
            if of_image:
                image = full_name(image)
                root, notes = self.images.install(image, names, needs)
            else:
                image, root = self._module(image, names)
            made, before = directories.missing(os.path.abspath(directory)), dict(known['commands'])
            for path, name in inside.items():
                known['commands'][path] = {'target': os.path.join(root, 'bin', name), 'root': root, 'image': image}
            known['made'] = sorted({*known['made'], *made})
            self._write(known)
            try:
                os.makedirs(directory, exist_ok=True)
                for path in inside:
                    self._check_free(path, {'commands': before})  # much may come there while an image is fetched
                    files.link(known['commands'][path]['target'], path)
                files.sync_directory(directory)
            except (OSError, EasySIFError) as err:
                links = {path: known['commands'][path] for path in inside if _is_ours(path, known['commands'][path])}
                directories.remove_empty(made)
                known['commands'] = {**before, **links}
                known['made'] = [one for one in known['made'] if one not in made or os.path.isdir(one)]
                self._write(known)
                if isinstance(err, EasySIFError):
                    raise
                raise EasySIFError(directory, 'no command can be put here (%s)' % err.strerror,
                                   hint='ls -ld -- %s; or another place: --to DIR' % shlex.quote(directory)) from err
            return [_command(path, known['commands'][path]) for path in inside], notes

    def all(self):
        """Return all commands of the user (list of Command)."""
        return [_command(path, one) for path, one in sorted(self._read()['commands'].items()) if _is_ours(path, one)]

    def remove(self, names):
        """Remove commands, and the images of which none is left.

        :param names: names or paths (list of str)
        :returns: the commands (list of Command), and the images that went (list of str)
        :raises EasySIFError: one is not there or not ours; it cannot be removed
        """
        with self._alone(names[0]) as known:
            paths = list(dict.fromkeys(self._path(name, known) for name in names))
            done = [_command(path, known['commands'][path]) for path in paths]
            for path in paths:
                try:
                    with suppress(FileNotFoundError, NotADirectoryError):  # its directory is gone
                        os.unlink(path)
                except OSError as err:
                    raise EasySIFError(path, 'cannot be removed (%s)' % err.strerror,
                                       hint='ls -ld -- %s' % shlex.quote(os.path.dirname(path))) from err
                del known['commands'][path]
            directories.remove_empty(known['made'])
            self._write(known)
            return done, self._sweep(known, with_fetched=True)

    @contextmanager
    def _alone(self, where):
        """Hold the lock for the block, which gets the record; what is not needed any more goes before and after."""
        top = os.path.dirname(self.home)
        made = directories.missing(self.home)
        try:
            with files.ended_in_order(), Lock(os.path.join(top, '.commands.lock'), where, wait=None, tell=self.tell):
                known = self._read()
                known['made'] = sorted({*known['made'], *made})
                known['commands'] = {path: one for path, one in known['commands'].items()
                                     if _is_ours(path, one) or not os.path.isdir(os.path.dirname(path))}
                made = known['made']
                try:
                    self._sweep(known)
                    yield known
                finally:
                    self._sweep(self._read())
        finally:
            if not os.path.lexists(self.record):
                directories.remove_empty([*made, self.home, top])

    def _sweep(self, known, with_fetched=False):
        """Remove what no command needs, the record with the last one; return the images that went (list of str).

        An image that was fetched for a command that could not be made waits for another try.
        """
        for path in known['commands']:
            files.sweep(path)
        if not known['commands']:
            with suppress(FileNotFoundError):
                os.unlink(self.record)
            files.sweep(self.record)
        return self.images.sweep({one['root'] for one in known['commands'].values()}, with_fetched)

    def _read(self):
        try:
            with open(self.record, encoding='utf-8') as handle:
                known = json.load(handle)
            if known['schema'] != SCHEMA:
                raise EasySIFError(self.record, 'was written by another version of EasySIF',
                                   facts=[('schema', known['schema'])], hint='pip install --upgrade easysif')
            return {'schema': SCHEMA, 'commands': known['commands'], 'made': known['made']}
        except FileNotFoundError:
            return {'schema': SCHEMA, 'commands': {}, 'made': []}
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise EasySIFError(self.record, 'the record of your commands cannot be read (%s)' % err,
                               hint='rm -- %s; then remove the links by hand' % shlex.quote(self.record)) from err

    def _write(self, known):
        files.write(self.record, json.dumps(known, indent=2, sort_keys=True) + '\n', 0o644)

    def _check_free(self, path, known):
        if not os.path.lexists(path) or path in known['commands'] and _is_ours(path, known['commands'][path]):
            return
        what = 'a link to %s' % os.readlink(path) if os.path.islink(path) else 'a directory' if os.path.isdir(
            path) else 'a file'
        raise EasySIFError(path, 'is there already, and not from easysif command', facts=[('there', what)],
                           hint='mv -- %s; or another directory: --to DIR' % shlex.join([path, path + '.old']))

    def _module(self, name, wanted):
        """Return the full name of a module that has wrappers for all that is wanted, and its directory (str, str)."""
        module, root = installed.find(self.prefix, name)
        record = manifest.read(root)
        wrappers = sorted((record.get('parameters') or {}).get('commands') or ())
        for one in wanted:
            if os.path.exists(os.path.join(root, 'bin', one)):
                continue
            near = difflib.get_close_matches(one, wrappers, n=3)
            image = manifest.image_file(record)
            path = image and os.path.join(root, image)
            raise EasySIFError(module, "has no command '%s'" % one,
                               facts=[('closest', ', '.join(near) or 'none'), ('commands', ', '.join(wrappers))],
                               hint='easysif command add %s' % shlex.join(
                                   [module, near[0]] if near or not path else [path, one]))
        return module, root

    def _path(self, name, known):
        """Return the link that a name or a path means (str)."""
        paths = [path for path in known['commands'] if (path if '/' in name else os.path.basename(path)) == (
            os.path.abspath(name) if '/' in name else name)]
        if len(paths) == 1:
            return paths[0]
        if paths:
            raise EasySIFError(name, 'is in several directories', facts=[('commands', ', '.join(paths))],
                               hint='easysif command remove %s' % shlex.quote(paths[0]))
        names = sorted({os.path.basename(path) for path in known['commands']})
        near = difflib.get_close_matches(os.path.basename(name), names, n=1)
        raise EasySIFError(name, 'is no command from easysif command', facts=[('commands', ', '.join(names) or 'none')],
                           hint='easysif command remove %s' % shlex.quote(near[0]) if near else 'easysif command list')


def _parts(text):
    """Return what a command is to be called, and what it is called inside (str, str)."""
    new, _, name = text.rpartition('=')
    for word in filter(None, (new, name)):
        try:
            FORMATS['command-name'](word)
        except ValueError as err:
            raise EasySIFError('easysif command', 'the name of a command %s' % err, facts=[('name', word)],
                               hint='easysif command add IMAGE samtools') from err
    new = new or name
    if new in NOT_TO_SHADOW:
        raise EasySIFError('easysif command', "'%s' would hide that of the host" % new,
                           hint='give it a name of its own: easysif command add IMAGE my-%s=%s' % (new, name))
    return new, name


def _command(path, one):
    file = None
    with suppress(EasySIFError, TypeError):
        file = os.path.join(one['root'], manifest.image_file(manifest.read(one['root'])))
    is_fine = file and os.path.exists(file) and os.path.exists(one['target'])
    return Command(os.path.basename(path), path, one['image'], file, 'fine' if is_fine else 'gone')


def _is_ours(path, one):
    """Tell whether a link is still the one that was made (bool)."""
    return os.path.islink(path) and os.readlink(path) == one['target']
