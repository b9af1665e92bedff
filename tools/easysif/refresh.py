# SPDX-License-Identifier: GPL-2.0-only
"""Makes module file and wrappers of an installed module anew from its manifest, without its image and EasyBuild.

Each file is made beside its place and renamed there; what is the same already is left alone.
"""

import hashlib
import os
import shlex
import stat
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from easysif import deferred, files, installed, inventory, manifest, wrappers
from easysif.belongings import Belongings
from easysif.containerroot import ContainerRoot
from easysif.describe import describe
from easysif.errors import EasySIFError
from easysif.modes import Modes
from easysif.report import OWN
from easysif.verify import verify

WRAPPER = 'link:../easysif/wrapper'  #: what every command in bin/ is


@dataclass
class Refreshed:
    """What was made anew of a module.

    :param module: its name (str)
    :param changed: the files that were written or removed (list of str), relative to the installation if they are in it
    :param problems: what is wrong and could not be mended (list of EasySIFError)
    """

    module: str
    changed: list = field(default_factory=list)
    problems: list = field(default_factory=list)


def refresh(name, prefix, site):
    """Make module file and wrappers of a module anew, and return what that changed (Refreshed).

    :param name: as in ``jax/24.10`` (str)
    :param prefix: EasyBuild's install path (str)
    :param site: the resolved site (Site)
    """
    done = Refreshed(name)
    try:
        known = _known(name, prefix)
        standing = known.standing()
        try:
            with standing.alone(name):
                _Refresh(_known(name, prefix), standing, done).run(site)
        finally:
            standing.tidy()
            with suppress(OSError):  # another one has its lock there
                os.rmdir(os.path.dirname(standing.lock))
        found = verify(name, known.root, known.prefix, deep=False).problems
        told = {str(err.facts[0][1]) for err in done.problems if err.facts}
        done.problems += [err for err in found if str(err.facts[0][1]) not in told]
    except EasySIFError as err:
        done.problems.append(err)
    except OSError as err:
        done.problems.append(_failed(name, err))
    return done


def refresh_held(known, standing, site):
    """Make them anew of a module whose lock is held, and publish its record as it is now (Refreshed).

    Whenever that is killed, the record is the old one, or all is made anew but the module file, which whoever takes the
    lock next then puts in its place.

    :param known: where it is (Belongings), whose record may say something new
    :param standing: its place (Standing)
    :param site: the resolved site (Site)
    :raises EasySIFError: nothing can be written, or an older EasySIF has installed it
    """
    done = Refreshed(known.name)
    _check_form(known)
    _Refresh(known, standing, done).run(site)
    return done


def _known(name, prefix):
    known = Belongings(name, prefix)
    if known.record is None:
        inventory.read(name, known.root)  # says that there is none
    _check_form(known)
    return known


def _check_form(known):
    if known.record['parameters'] is None:
        again = 'easysif refresh %s%s' % (known.name, installed.option(known.prefix))
        raise EasySIFError(known.name, 'an older EasySIF installed it, and did not record what is needed',
                           facts=[('file', os.path.join(known.root, manifest.NAME))],
                           hint='%s && %s' % (_module_only(known.name, known.root, known.record), again))


def _module_only(name, root, record):
    return inventory.rebuild(name, root, record).replace('eb ', 'eb --module-only ', 1)


def _failed(name, err):
    return EasySIFError(name, 'cannot be refreshed (%s)' % err.strerror, facts=[('file', err.filename)],
                        hint='ls -la %s' % shlex.quote(os.path.dirname(str(err.filename))))


class _Refresh:
    """One module, under its lock.

    :param known: where it is (Belongings)
    :param standing: its place (Standing)
    :param done: takes what was done (Refreshed)
    """

    def __init__(self, known, standing, done):
        self.known, self.standing, self.done, self.record = known, standing, done, known.record
        self.root, self.mode = known.root, stat.S_IMODE(os.stat(known.root).st_mode) & ~stat.S_IWOTH
        self.group = os.stat(known.root).st_gid

    def run(self, site):
        """Make it anew.

        :raises EasySIFError: nothing can be written; what is wrong with a single file is told in `done`
        """
        inst = describe(self.record, self.known.prefix, self.root)
        new = self.standing.make()
        try:
            wrappers.write(inst, self.record['inside'], site, new)
            text = self._module_text(inst)
            if text is not None:
                files.write(os.path.join(new, manifest.MODULE), text)
            made = manifest.contents(new, manifest.image_file(self.record))
            files.sync(new)
            self.standing.held.check()
            self._announce(made)
            self._put(new)
        finally:
            self.standing.clear()
        self._clear_out(made, text is not None)
        # the module file is renamed after the record: in between it lies beside its place, where the next one finds it
        with self._written(self.known.module, text) if text is not None else nullcontext():
            with self._written(os.path.join(self.root, manifest.NAME), self._recorded(made)):
                pass
        self._link()
        if self.record['parameters']['environment']:
            self._link_containerroot(inst.sif_name)

    def _announce(self, made):
        """Let the record on disk name what is new before it is there: removing takes it whenever we are killed."""
        record = manifest.read(self.root)
        if set(made) - set(record['files']):
            record['files'] = {**made, **record['files']}
            with self._written(os.path.join(self.root, manifest.NAME), manifest.dumps(record)):
                pass
            self.done.changed.clear()  # the record is told of when it is whole

    def _module_text(self, inst):
        """Return the module file with what is ours in it made anew (str), None where that cannot be done."""
        recorded = self.record['modulefile'] or {}
        if not recorded.get('block'):
            self._cannot('an older EasySIF installed it: its module file cannot be made anew')
            return None
        for path in (os.path.join(self.root, manifest.MODULE), self.known.module):
            with suppress(OSError, ValueError), open(path, 'rb') as handle:
                content = handle.read()
                if hashlib.sha256(content).hexdigest() == recorded['sha256']:
                    text, (begin, end) = content.decode(), recorded['block']
                    block = deferred.block(inst, self.known.module)
                    self.record['modulefile'] = dict(recorded, block=[begin, begin + len(block)])
                    return text[:begin] + block + text[end:]
        self._cannot('the module file and its copy in the installation are both damaged')
        return None

    def _cannot(self, what):
        self.done.problems.append(EasySIFError(self.known.name, what, facts=[('file', self.known.module)],
                                               hint=_module_only(self.known.name, self.root, self.record)))

    def _put(self, new):
        """Rename each file that is not there, or is another one, into the installation."""
        for path, entry in manifest.walk(new, without=()):
            target = os.path.join(self.root, path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    self._make_directory(target)
                    continue
                runs = 0o111 if entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR else 0
                if not manifest.is_same(entry.path, target):
                    mode = self._mode_of(target, runs)
                    with files.writable(os.path.dirname(target)):
                        os.rename(entry.path, target)
                    self._permit(target, mode)
                    self.done.changed.append(path)
                elif self._permit(target, self._mode_of(target, runs)):
                    self.done.changed.append(path)
            except OSError as err:
                self.done.problems.append(_failed(self.known.name, err))

    def _make_directory(self, path):
        if os.path.islink(path):  # or what we write would go elsewhere
            with files.writable(os.path.dirname(path)):
                os.unlink(path)
        if not os.path.isdir(path):
            with files.writable(os.path.dirname(path)):
                os.mkdir(path)
            self._permit(path, self.mode)

    def _mode_of(self, path, runs):
        """Return the mode for a file: what it had, else what the installation has; None for a link."""
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            mode = 0
        mode = stat.S_IMODE(mode) if stat.S_ISREG(mode) else self.mode & 0o666
        return mode & (self.mode | 0o600) | (mode & self.mode & 0o444) >> 2 & runs

    def _permit(self, path, mode):
        """Give a file or directory a mode and the group of the installation; return whether its mode was another."""
        info = os.lstat(path)
        if stat.S_ISLNK(info.st_mode):
            return False
        with suppress(OSError):  # a group that is not ours
            if info.st_gid != self.group:
                os.chown(path, -1, self.group)
        if stat.S_IMODE(info.st_mode) == mode:
            return False
        os.chmod(path, mode)
        return True

    def _clear_out(self, made, has_module):
        """Remove what former wrappers consisted of and is no more."""
        for path, content in list(self.record['files'].items()):
            ours = path.startswith(OWN + os.sep) and (has_module or path != manifest.MODULE)
            full = os.path.join(self.root, path)
            if path in made or not (ours or path.startswith('bin' + os.sep) and content == WRAPPER):
                continue
            del self.record['files'][path]
            if os.path.lexists(full):
                with files.writable(os.path.dirname(full)):
                    os.unlink(full)
                self.done.changed.append(path)
        self.record['files'].update(made)

    @contextmanager
    def _written(self, path, text):
        """Write a file beside its place for the block, and rename it there then, unless it is the same already."""
        if _holds(path, text):
            yield
            return
        before = os.lstat(path).st_mode if os.path.isfile(path) and not os.path.islink(path) else None
        directory = os.path.dirname(path)
        with Modes(self.known.prefix).publishing(path):
            os.makedirs(directory, exist_ok=True)
            with files.writable(directory), files.written_beside(path, text) as beside:
                if before is not None:
                    os.chmod(beside, stat.S_IMODE(before) & ~stat.S_IWOTH)
                yield
                os.rename(beside, path)
        name = os.path.relpath(path, self.root) if path.startswith(self.root + os.sep) else path
        self.done.changed.append(name)

    def _link(self):
        missing = [link for link in self.known.links
                   if not os.path.islink(link) or os.readlink(link) != self.known.module]
        self.standing.publish({})
        self.done.changed += missing

    def _recorded(self, made):
        """Return what the record is now (str)."""
        if manifest.MODULE in made:
            self.record['modulefile']['sha256'] = made[manifest.MODULE].partition(':')[2]
        return manifest.dumps(self.record)

    def _link_containerroot(self, sif_name):
        """Link image and runscripts from the user's directory in the prefix, where that is what the module uses."""
        own = os.path.join(self.known.prefix, 'overlays', self.known.name)
        with suppress(EasySIFError):  # without its image it does not answer, which is told
            if installed.environment(self.root).get('CONTAINERROOT') == own:
                before = _listing(own)
                ContainerRoot(self.record['recipe'], self.known.prefix, self.known.name, {}).link(self.root, sif_name)
                self.done.changed += [os.path.join(own, name) for name in sorted(_listing(own) - before)]


def _holds(path, text):
    try:
        with open(path, encoding='utf-8', newline='') as handle:
            return handle.read() == text and not os.stat(path).st_mode & stat.S_IWOTH
    except (OSError, ValueError):
        return False


def _listing(directory):
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()
