# SPDX-License-Identifier: GPL-2.0-only
"""Finds what is installed in a prefix."""

import os
import shlex

from easysif import layout, manifest, modulefile, schema
from easysif.errors import EasySIFError
from easysif.run import failure, run

#: by any of these an installation is ours, whatever else has gone from it
OURS = (manifest.NAME, 'easysif/wrapper', 'easysif/module.sh')

#: what a loaded module says of its overlay, and the user may have changed: a wrapper that is asked must not believe it
LOADED = ('CONTAINERROOT', 'USER_SOFTWARE')


def easybuild_prefix():
    """Return the prefix that EasyBuild would use, as far as its environment says (str), whether it is there or not.

    It is where the directory of all installations lies, whatever that is called.
    """
    top = os.environ.get('EASYBUILD_INSTALLPATH') or os.environ.get('EASYBUILD_PREFIX') or os.path.expanduser(
        '~/.local/easybuild')
    software = os.environ.get('EASYBUILD_INSTALLPATH_SOFTWARE') or os.path.join(
        top, os.environ.get('EASYBUILD_SUBDIR_SOFTWARE') or 'software')
    return layout.prefix_of(os.path.abspath(software))


def source_paths(prefix):
    """Return where EasyBuild would look for files of recipes, as far as its environment says (list of str).

    :param prefix: EasyBuild's install path (str)
    """
    named = os.environ.get('EASYBUILD_SOURCEPATH')
    return named.split(os.pathsep) if named else [os.path.join(prefix, 'sources')]


def option(prefix):
    """Return what a command has to be given for a prefix: `` --prefix DIR``, '' for EasyBuild's own (str)."""
    return '' if prefix == easybuild_prefix() else ' --prefix %s' % shlex.quote(prefix)


def default_prefix():
    """Return the prefix that EasyBuild would use (str).

    :raises EasySIFError: nothing is installed there
    """
    prefix = easybuild_prefix()
    if not os.path.isdir(prefix):
        raise EasySIFError(prefix, 'there are no installed modules', hint='name the prefix with --prefix DIR')
    return prefix


def modules(prefix):
    """Return our installations in a prefix: module name -> installation directory (dict, sorted).

    Damaged ones are among them, and those of which only the module file is left; half-made ones and those on their
    way out are not: their names begin with a dot.

    :param prefix: EasyBuild's install path (str)
    """
    found, layouts = {}, layout.layouts(prefix)
    for software, levels in dict.fromkeys((one.software, one.levels) for one in layouts):
        for module in _below(software, levels):
            root = os.path.join(software, module)
            if module not in found and any(os.path.lexists(os.path.join(root, path)) for path in OURS):
                found[module] = root
    for one in layouts:
        for path in _below(one.modules, one.levels):
            module = modulefile.stem(path)
            root, full = os.path.join(one.software, module), os.path.join(one.modules, path)
            if module not in found and not os.path.isdir(os.path.join(root, manifest.EASYBUILDS)):
                if modulefile.is_ours(full) and modulefile.is_of(full, root, prefix):
                    found[module] = root
    return dict(sorted(found.items()))


def find(prefix, module):
    """Return the name and the installation directory of one module (tuple of str).

    :param prefix: EasyBuild's install path (str)
    :param module: name with version, or the name alone where only one version is installed (str)
    :raises EasySIFError: it is not installed, or several are
    """
    known = modules(prefix)
    fitting = meant(module, known)
    if len(fitting) == 1:
        return fitting[0], known[fitting[0]]
    if fitting:
        raise EasySIFError(module, 'is installed in several versions', facts=[('versions', ', '.join(fitting))],
                           hint='name one: %s' % fitting[-1])
    near = schema.closest(module, list(known) + [os.path.dirname(name) for name in known])
    raise EasySIFError(module, 'is not installed here',
                       facts=[('prefix', prefix), ('installed', ', '.join(known) or 'nothing')],
                       hint="did you mean '%s'?" % near if near else 'eb --search %s' % shlex.quote(module))


def overlay(root):
    """Return the user's directory for a module, whether it is there or not (str), '' where it has no overlay.

    The installation is asked, only its own plan knows.

    :param root: installation directory (str)
    :raises EasySIFError: it does not answer
    """
    result = _ask(root, 'print-overlay')
    if result.status == 0:
        return os.fsdecode(result.stdout.rstrip(b'\n'))
    values = environment(root)  # wrappers made before there was that word
    return values.get('CONTAINERROOT', '') if values.get('USER_SOFTWARE') else ''


def environment(root):
    """Return the environment in which the wrappers of an installation run their commands (dict of str).

    :param root: installation directory (str)
    :raises EasySIFError: the wrappers do not work, as where the image is gone
    """
    result = _ask(root, 'print-environment')
    if result.status:
        raise failure(result, what='the wrappers of the module do not work')
    return dict(line.partition('=')[::2] for line in os.fsdecode(result.stdout).split('\n') if '=' in line)


def _ask(root, question):
    env = {name: value for name, value in os.environ.items() if name not in LOADED}
    return run(['/bin/sh', os.path.join(root, 'easysif', 'wrapper'), question], env=env, check=False, binary=True,
               timeout=60)


def means(word, name):
    """Tell whether a word means a module (bool): its name, the last parts of it, or either without the version."""
    whole = name if '/' in word else os.path.dirname(name)
    return any(full == word or full.endswith('/' + word) for full in {whole, os.path.dirname(name)})


def meant(word, known):
    """Return the modules that a word means (list of str): as they are installed, else as they are loaded.

    :param known: as from `modules` (dict)
    """
    return [name for name in known if means(word, name)] or _called(word, known)


def top_of(record, name, prefix):
    """Return the directory of modules in which the module file of an installation has its name (str).

    :param record: its manifest (dict), None where that cannot be read
    """
    recorded = record and record['modulefile']
    if recorded and modulefile.is_called(recorded['path'], name):
        return modulefile.stem(recorded['path'])[:-len(name) - 1]
    return layout.usual(prefix).modules


def _called(word, known):
    """Return the modules that are loaded by a name of another naming scheme, such as tools/toy/1 (list of str)."""
    found = []
    for name, root in known.items() if '/' in word else ():
        try:
            recorded = manifest.read(root)['modulefile']
        except EasySIFError:
            continue
        stem = modulefile.stem(recorded['path']) if recorded else ''
        if any(one.endswith(os.sep + word) for one in (stem, os.path.dirname(stem))):
            found.append(name)
    return found


def _below(directory, levels):
    """Return the paths that lie so many levels below a directory (list of str), relative to it."""
    found = _entries(directory)
    for _ in range(levels - 1):
        found = [os.path.join(one, name) for one in found for name in _entries(os.path.join(directory, one))]
    return found


def _entries(directory):
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith('.'))
    except OSError:
        return []
