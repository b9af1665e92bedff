# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of Jupyter that run in modules: two files each, in a directory where Jupyter looks.

``kernel.json`` says what Jupyter starts, and in ``metadata`` whose it is; it is written last and removed first.
``launch`` is what is started: a copy of ``helpers/kernel``.
"""

import json
import os
import re
import shlex
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from easysif import files, installed, inventory, layout
from easysif.data import helper, helper_text
from easysif.errors import TOOL, EasySIFError
from easysif.lock import Lock
from easysif.run import failure, run
from easysif.running import directories, jupyter

SPEC, LAUNCHER = 'kernel.json', 'launch'
INSIDE = os.path.join('runscripts', 'lib', 'kernel.py')  #: what the launcher runs, in an installation
VARIABLE = 'EASYSIF_KERNEL_ENV'
SCHEMA = 1
TIMEOUT = 300  #: seconds in which a container has to start and Python to import ipykernel
ELSEWHERE = 'another place, for Jupyter as well: export JUPYTER_DATA_DIR=<a directory of yours>'

#: a package belongs to where it was imported from
ORIGINS = {'user-software': 'overlay', 'shared-software': 'shared overlay', 'layer': 'layer'}


@dataclass(frozen=True)
class Kernel:
    """A kernel of ours.

    :param name: what Jupyter calls it (str)
    :param directory: its directory (str)
    :param display_name: what users see (str)
    :param module: its module (str)
    :param root: the installation of the module (str)
    :param environment: variables of the kernel (dict of str)
    :param problem: why it does not start (str), None where nothing is seen
    :param made: directories that were made for it (list of str)
    """

    name: str
    directory: str
    display_name: str
    module: str
    root: str
    environment: dict
    problem: str = None
    made: list = field(default_factory=list, repr=False)

    def told(self):
        """Return what is said of it as JSON (dict)."""
        return {name: getattr(self, name) for name in (
            'name', 'directory', 'display_name', 'module', 'root', 'environment', 'problem')}


def look(module, root):
    """Return what a kernel would find inside a module (dict): ``python``, ``ipykernel``, ``from``, ``debugger``.

    :param module: its name (str)
    :param root: its installation (str)
    :raises EasySIFError: it cannot run kernels; ipykernel is not there
    """
    record = inventory.read(module, root)
    option = installed.option(layout.prefix_above(root, module))
    if not record['image'] or not record['inside']['python'] or not record['inside']['shell']:
        lacks = 'image' if not record['image'] else 'Python' if not record['inside']['python'] else 'shell'
        raise EasySIFError(module, 'has no %s, and a kernel of Jupyter needs one' % lacks,
                           facts=[('installation', root)], hint='easysif show %s%s' % (module, option))
    if not os.path.exists(os.path.join(root, INSIDE)):
        raise EasySIFError(module, 'was installed by an EasySIF that did not know kernels yet',
                           facts=[('installation', root)], hint='easysif refresh %s%s' % (module, option))
    result = run(['/bin/sh', helper('kernel'), root, module, '--check'], check=False, timeout=TIMEOUT)
    line = re.search('^easysif kernel (.*)$', result.stdout, re.MULTILINE)
    if result.status or not line:
        raise failure(result, what='what is inside cannot be found out', hint='easysif verify %s%s' % (module, option))
    found = json.loads(line.group(1))
    if found['error']:
        raise EasySIFError(module, 'ipykernel cannot be imported', facts=[('error', found['error'])],
                           hint='module load %s && python -c "import ipykernel"' % module, exit_code=TOOL)
    if not found['ipykernel']:
        raise _no_ipykernel(module, root, record, option)
    origin = ORIGINS.get(found['place'].lstrip('/').split('/')[0], 'image')
    return {'python': found['python'], 'ipykernel': found['ipykernel'], 'from': origin, 'debugger': found['debugger']}


def _no_ipykernel(module, root, record, option):
    overlay = installed.overlay(root) if (record['parameters'] or {}).get('python_env') else None
    packed = overlay and inventory.overlay_at(overlay).state in ('packed', 'both')
    add = 'module load %s && pip install ipykernel' % module
    hint = ('easysif overlay unpack %s%s && %s' % (module, option, add) if packed else add if overlay else
            'its recipe gives no python_env, so nothing can be added: easysif show %s%s' % (module, option))
    return EasySIFError(module, 'has no ipykernel, which runs the cells of a notebook',
                        facts=[('image', 'does not bring it'), ('overlay', overlay or 'none')], hint=hint)


class Kernels:
    """The kernels of ours in one place.

    :param directory: the place, as ``~/.local/share/jupyter`` (str)
    :param shared: whether they are for other users as well (bool)
    """

    def __init__(self, directory, shared=False):
        self.place, self.directory, self.shared = directory, os.path.join(directory, 'kernels'), shared

    def all(self):
        """Return those that are there (list of Kernel, by name)."""
        try:
            names = sorted(os.listdir(self.directory))
        except OSError:
            return []
        return [one for one in map(self._read, names) if one]

    def add(self, name, module, root, display_name=None, environment=None, debugger=False):
        """Make a kernel, or make it anew.

        :param name: what Jupyter is to call it (str)
        :param module: the module, by its full name (str)
        :param root: its installation (str)
        :param display_name: what users see (str), the module where None
        :param environment: variables for it (dict of str)
        :param debugger: whether it has one (bool)
        :returns: the kernel, and whether it was there before (Kernel, bool)
        :raises EasySIFError: something else has the name; it cannot be written
        """
        jupyter.check_name(name)
        path = os.path.join(self.directory, name)
        jupyter.check_path(path, 'easysif kernel add %s --jupyter-prefix DIR' % module if self.shared else ELSEWHERE)
        jupyter.check_path(root, 'eb --installpath=DIR RECIPE.eb; easysif kernel add %s --prefix DIR' % module)
        with self._alone(name) as made:
            before = self._read(name)
            self._check_free(path, before, module, root)
            known = {*made, *(one for kernel in self.all() for one in kernel.made)}
            done = Kernel(name, path, display_name or module, module, root, dict(environment or {}), made=sorted(known))
            try:
                os.makedirs(path, mode=0o755 if self.shared else 0o700, exist_ok=True)
                for one, text in ((LAUNCHER, helper_text('kernel')), (SPEC, _spec(done, debugger))):
                    files.write(os.path.join(path, one), text, 0o600)
                    os.chmod(os.path.join(path, one), 0o644 if self.shared else 0o600)
                for one in [*made, path] if self.shared else []:
                    os.chmod(one, 0o755)
            except OSError as err:
                raise self._refused(path, err) from err
            return done, before is not None

    def remove(self, kernels):
        """Remove kernels, and directories that were made for them and are empty.

        :param kernels: those of this place (list of Kernel)
        :returns: files in their directories that are not ours, and stay (list of str)
        :raises EasySIFError: one cannot be removed
        """
        kept = []
        with self._alone(kernels[0].module):
            made = [one for kernel in self.all() for one in kernel.made]
            for kernel in kernels:
                try:
                    for name in (SPEC, LAUNCHER):
                        path = os.path.join(kernel.directory, name)
                        files.sweep(path)
                        with suppress(FileNotFoundError):
                            os.unlink(path)
                except OSError as err:
                    raise EasySIFError(kernel.directory, 'cannot be removed (%s)' % err.strerror,
                                       hint='ls -la -- %s' % shlex.quote(kernel.directory)) from err
                kept += [os.path.join(kernel.directory, name) for name in sorted(os.listdir(kernel.directory))]
                directories.remove_empty([kernel.directory])
        directories.remove_empty(made)
        return kept

    @contextmanager
    def _alone(self, where):
        """Make the directory and hold its lock for the block, which gets the directories that were made (list of str).

        Where the block fails these go again.
        """
        made = directories.missing(self.directory)
        try:
            try:
                os.makedirs(self.directory, exist_ok=True)
            except OSError as err:
                raise self._refused(self.directory, err) from err
            with files.ended_in_order(), Lock(os.path.join(self.directory, '.easysif.lock'), where, wait=None):
                yield made
        except BaseException:
            directories.remove_empty(made)
            raise

    def _check_free(self, path, before, module, root):
        others = [one for one in _names(path) if one not in (SPEC, LAUNCHER) and not files.LITTER.match(one)]
        if before and (before.module, before.root) != (module, root):
            raise EasySIFError(path, 'is the kernel of another module',
                               facts=[('its module', before.module), ('installation', before.root)],
                               hint='choose another name with --name, or: easysif kernel remove %s --name %s%s' % (
                                   before.module, before.name, jupyter.option(before.directory)))
        if not before and os.path.lexists(path) and (others or SPEC in _names(path) or not os.path.isdir(path)):
            raise EasySIFError(path, 'is there already, and not from easysif kernel',
                               hint='choose another name: --name %s-easysif' % os.path.basename(path))

    def _refused(self, path, err):
        return EasySIFError(path, 'no kernel can be put here (%s)' % err.strerror, hint=(
            'ls -ld -- %s; for you alone: without --jupyter-prefix and --sys-prefix' % shlex.quote(self.place)
            if self.shared else ELSEWHERE))

    def _read(self, name):
        path = os.path.join(self.directory, name)
        try:
            with open(os.path.join(path, SPEC), encoding='utf-8') as handle:
                spec = json.load(handle)
            ours = spec['metadata']['easysif']
            module, root = ours['module'], ours['root']
            pairs = [pair.partition('=') for pair in spec.get('env', {}).get(
                'APPTAINERENV_' + VARIABLE, '').split(',') if pair]
            return Kernel(name, path, str(spec.get('display_name', name)), str(module), str(root),
                          {key: unquote(value) for key, _, value in pairs}, _problem(path, root), list(ours['made']))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # none of ours


def _problem(path, root):
    if not os.path.exists(os.path.join(root, 'bin', 'start-shell')):
        return 'its module is not installed any more'
    if not os.path.exists(os.path.join(root, INSIDE)):
        return 'its module was installed anew by an EasySIF that does not know kernels'
    return None if os.path.exists(os.path.join(path, LAUNCHER)) else 'its launcher is gone'


def _spec(kernel, debugger):
    spec = {'argv': ['/bin/sh', os.path.join(kernel.directory, LAUNCHER), kernel.root, kernel.module, '-f',
                     '{connection_file}'],
            'display_name': kernel.display_name, 'language': 'python', 'interrupt_mode': 'signal',
            'metadata': {'debugger': debugger, 'easysif': {
                'schema': SCHEMA, 'module': kernel.module, 'root': kernel.root, 'made': kernel.made}}}
    if kernel.environment:
        # Such as no shell and no template changes: inside they are put in when all else has had its say.
        text = ','.join('%s=%s' % (name, quote(value, safe='')) for name, value in sorted(kernel.environment.items()))
        spec['env'] = {prefix + VARIABLE: text for prefix in ('APPTAINERENV_', 'SINGULARITYENV_')}
    return json.dumps(spec, indent=2, ensure_ascii=False) + '\n'


def meant(kernels, word, name=None):
    """Return the kernels that a user means (list of Kernel): those of one module, one of them with its name.

    :param kernels: those that there are (list of Kernel)
    :param word: the module, with or without its version (str)
    :param name: the kernel (str)
    :raises EasySIFError: there is none, or there are some of several modules
    """
    found = [one for one in kernels if installed.means(word, one.module) and name in (None, one.name)]
    modules = sorted({(one.module, one.root) for one in found})
    if len(modules) == 1:
        return found
    if not found:
        known = ', '.join('%s (%s)' % (one.name, one.module) for one in kernels) or 'none'
        raise EasySIFError(word, 'has no kernel here' if name is None else 'has no kernel %s here' % name,
                           facts=[('kernels', known)], hint='easysif kernel list')
    raise EasySIFError(word, 'means several modules', facts=[
        (one.name, '%s in %s' % (one.module, one.root)) for one in found],
        hint='easysif kernel remove %s --name %s%s' % (
            found[0].module, found[0].name, jupyter.option(found[0].directory)))


def of_installation(root):
    """Return this user's kernels of an installation, wherever Jupyter looks (list of Kernel)."""
    return [one for place in jupyter.directories() for one in Kernels(place).all() if one.root == root]


def _names(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
