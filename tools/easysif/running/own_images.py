# SPDX-License-Identifier: GPL-2.0-only
"""Images of which a user has single commands: installed as modules are, in a prefix of their own that no one sees.

So an image is fetched, verified and held against the site's policy as one of a recipe is, and a command is a wrapper as
one of a module is.
"""

import glob
import hashlib
import os
import posixpath
import re
import shlex
from contextlib import suppress

from easysif import files, installed, layout, manifest, recipe, render
from easysif.errors import EasySIFError
from easysif.images.kept import directories
from easysif.images.reference import DOCKER, ORAS, parse
from easysif.images.space import AGAIN
from easysif.install import Install
from easysif.obtain import Places
from easysif.remove import Removal
from easysif.running.words import REFERENCE
from easysif.standing import Standing


def full_name(text):
    """Return an image as it can be named from anywhere: a reference, or the path of a file (str).

    :raises EasySIFError: there is no such file
    """
    if REFERENCE.match(text):
        return text
    if not os.path.isfile(text):
        raise EasySIFError(text, 'there is no such image', hint='ls -l -- %s' % shlex.quote(text))
    return os.path.abspath(text)


def module_of(text):
    """Return what the installation of an image is called, name and version (str, str).

    The version ends with what tells references apart that have the same last part.
    """
    reference = parse(text, text)
    path = reference.repository or reference.path or reference.text
    last = posixpath.basename(path.partition('?')[0].rstrip('/'))
    name, _, version = last.partition(':')
    if reference.kind in (DOCKER, ORAS):
        version = reference.tag or reference.digest.partition(':')[2][:12]
    name = re.sub(r'\.sif$', '', name)
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    return _word(name) or 'image', '%s%s' % (version and _word(version) + '-', mark)


def _word(text):
    return re.sub('^[.+-]+', '', re.sub('[^A-Za-z0-9_.+-]', '-', text))[:50]


class OwnImages:
    """The images of a user's commands.

    :param home: the prefix in which they are (str), which need not be there
    :param site: the resolved site (Site)
    :param tell: takes a line for the log (callable: str)
    """

    def __init__(self, home, site, tell=None):
        self.home, self.site, self.tell = home, site, tell

    def install(self, text, names, needs=()):
        """Install an image with wrappers for some of its commands, besides those that it has already.

        :param text: a reference, or the path of a SIF file (str)
        :param names: the commands (list of str)
        :param needs: words for what the site must provide (list of str)
        :returns: the installation directory (str), and what the user has to know (list of str)
        :raises EasySIFError: the image is not to be had, or is not allowed here; a command is not in it
        """
        name, version = module_of(text)
        module = posixpath.join(name, version)
        root = os.path.join(self.home, 'software', module)
        before = self._parameters(root)
        known = recipe.validate({
            'easyblock': 'ContainerImage', 'name': name, 'version': version, 'homepage': 'https://localhost',
            'description': 'Commands of an image', 'toolchain': recipe.CONSTANTS['SYSTEM'], 'moduleclass': 'tools',
            'image': text, 'commands': list(dict.fromkeys([*before.get('commands', ()), *names])),
            'needs': list(dict.fromkeys([*before.get('needs', ()), *needs]))}, text)
        work = Install(known, self.site, self.home, root, module, more_room=AGAIN)
        standing = Standing(root, module, os.path.join(layout.usual(self.home).modules, module + '.lua'), [])
        try:
            with standing.alone(text, wait=None, tell=self.tell):
                return root, list(filter(None, self._run(work, standing)))
        except OSError as err:
            raise EasySIFError(text, 'cannot be put among the images of your commands (%s)' % err.strerror,
                               facts=[('directory', self.home)], hint='df -h -- "%s"' % self.home) from err

    def _run(self, work, standing):
        """Install, and return what the user has to know (list of str or None)."""
        notes = [work.check(standing.module)]
        try:
            with self._places(standing) as places:
                notes += [work.fetch(places), work.inspect()]
                work.put(standing.make(), [])
                work.check_start()
                text = 'prepend_path("PATH", %s)\n%s' % (
                    render.lua_quote(os.path.join(work.root, 'bin')), work.module_text(standing.module))
                standing.publish(work.complete(standing, text, None))
                return [*notes, work.finish(standing.root)]
        finally:
            if work.obtained:
                work.obtained.release()
            standing.clear()

    def _places(self, standing):
        return _Places(self.home, self.site, standing.new + '.work', self.tell)

    @staticmethod
    def _parameters(root):
        try:
            return manifest.read(root).get('parameters') or {}
        except EasySIFError:
            return {}

    def sweep(self, used, with_fetched=False):
        """Remove the images of which no command is left, and all of this directory where there is none.

        :param used: the installation directories that are needed (set of str)
        :param with_fetched: also what waits for another try, where nothing is left (bool)
        :returns: the images that went, as they were named (list of str)
        """
        gone = []
        for name, root in installed.modules(self.home).items():
            if root not in used:
                gone.append(_reference_of(root) or name)
                Removal(name, self.home).run()
        software = layout.usual(self.home).software
        for path in glob.glob(os.path.join(glob.escape(software), '*', '.*')):  # of commands that were killed
            if not any(os.path.basename(path).startswith('.%s.' % os.path.basename(root)) for root in used):
                files.remove_tree(path)
        if not used and not installed.modules(self.home):
            files.remove_tree(os.path.join(software, '.locks'))
            for name in ('easysif', 'fetched') if with_fetched else ('easysif',):
                files.remove_tree(os.path.join(self.home, name))
            for parent, _, _ in sorted(os.walk(self.home), reverse=True):
                with suppress(OSError):  # something of others is in it
                    os.rmdir(parent)
        return gone


def _reference_of(root):
    try:
        return manifest.read(root)['image']['reference']
    except (EasySIFError, TypeError):
        return None


class _Places:
    """Where an image is fetched to and worked on, as long as the block lasts (Places)."""

    def __init__(self, home, site, work, tell):
        self.home, self.site, self.work, self.tell = home, site, work, tell

    def __enter__(self):
        files.remove_tree(self.work)  # of one that was killed
        os.makedirs(self.work)
        downloads, work = directories(self.site, self.home, self.work)
        if not self.site.cache_dir:
            downloads = os.path.join(self.home, 'fetched')
        return Places(find_file=lambda name: name if os.path.isfile(name) else None,
                      searched=[], downloads=downloads, work=work, log=os.path.join(self.work, 'build.log'),
                      prefix=self.home, lock={'wait': None, 'tell': self.tell})

    def __exit__(self, *_):
        with suppress(OSError):  # a build may leave what only another one can remove
            files.remove_tree(self.work)
        with suppress(OSError):  # empty where nothing waits for another try
            os.rmdir(os.path.join(self.home, 'fetched'))
