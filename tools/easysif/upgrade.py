# SPDX-License-Identifier: GPL-2.0-only
"""From one version of a module to another: which ones there are, the user's packages, the default.

Nothing of the old module is ever changed, and nothing in the overlay of the new one is deleted, whatever happens.
"""

import json
import os
import re
import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

from easysif import installed, inventory, modulefile, recipe, search
from easysif.before_upgrade import BeforeUpgrade
from easysif.belongings import Belongings
from easysif.errors import TOOL, EasySIFError
from easysif.overlay.recorded import packages_record
from easysif.packages.asked import package_of
from easysif.packages.install import add
from easysif.packages.pins import key, of_record
from easysif.packages.target import Target
from easysif.run import failure, run

#: those of modules
EASYBLOCKS = ('ContainerImage', 'ContainerBindings')

#: what a virtual environment brings itself
OF_VENV = ('pip', 'setuptools', 'wheel')

#: the commands by which a module may offer pip
PIPS = (('pip',), ('pip3',), ('python3', '-m', 'pip'), ('python', '-m', 'pip'))


@dataclass(frozen=True)
class Package:
    """A package that the user added to the old module.

    :param name: as pip knows it (str)
    :param version: which one the old module has (str)
    :param there: which one the new module has (str), None where it lacks it
    :param origin: where the new module has it from, as list-packages says: ``overlay`` is the user's own (str)
    """

    name: str
    version: str
    there: Optional[str]
    origin: Optional[str]

    @property
    def is_wanted(self):
        """Whether the new module lacks it; what it has itself in the same version or a newer one is fine (bool)."""
        return self.there is None or self.origin != 'overlay' and order(self.there) < order(self.version)

    @property
    def requirement(self):
        """What pip is asked for (str)."""
        return self.name if self.version == '?' else '%s==%s' % (self.name, self.version)


def order(version):
    """Return by what versions are compared (list): 24.9 < 24.10, 2.0rc1 < 2.0 < 2.0.post1 < 2.0.1."""
    parts = re.findall(r'\d+|[a-z]+', version.lower().partition('+')[0])
    return [(2, int(part)) if part.isdigit() else (1 if part == 'post' else -1, part) for part in parts] + [(0,)]


def newer(prefix):
    """Return for each installed module what is newer (dict): newest installed module and newest recipe, or None.

    Only what has the same name and the same version suffix is compared; a module without anything newer is left out.
    The name counts however a naming scheme spells it, in lower case or behind a category.

    :param prefix: EasyBuild's install path (str)
    """
    modules = installed.modules(prefix)
    known, recipes, found = {}, {}, {}
    for module in modules:
        known.setdefault(_kind(module), []).append(module)
    for name in {_kind(module)[0] for module in modules}:
        for kind, module, file_name in _recipes(name):
            recipes.setdefault(kind, []).append((module, file_name))
    for module in modules:
        newest = max(known[_kind(module)], key=_age)
        there, file_name = max(recipes.get(_kind(module), [(module, None)]), key=lambda one: _age(one[0]))
        is_new = _age(there) > _age(newest)
        if newest != module or is_new:
            found[module] = (newest if newest != module else None, file_name if is_new else None)
    return found


def _kind(module):
    name, version = os.path.split(module)
    return os.path.basename(name).lower(), version.partition('-')[2]


def _age(module):
    return order(os.path.basename(module).partition('-')[0])


def _recipes(name):
    for file_name in search.names():
        path = file_name.lower().startswith(name + '-') and search.find(file_name)
        values = {}
        with suppress(EasySIFError):  # one that nobody can read, and eb says why
            values = recipe.parse(path)[0] if path else values
        if values.get('easyblock') in EASYBLOCKS and str(values.get('name')).lower() == name:
            module = '%s/%s%s' % (name, values.get('version'), values.get('versionsuffix') or '')
            yield _kind(module), module, file_name


def packages(old, new):
    """Return what the user added to a module, and what another one has of it (list of Package).

    :param old: the module that has them (Belongings)
    :param new: the other one (Belongings)
    :raises EasySIFError: one of them does not tell
    """
    there = {key(one['name']): one for one in _list(new)}
    found = []
    for one in _list(old):
        if one['from'] == 'overlay' and key(one['name']) not in OF_VENV:
            other = there.get(key(one['name']), {})
            found.append(Package(one['name'], one['version'], other.get('version'), other.get('from')))
    return found


def has_overlay(known):
    """Tell whether packages can be added to a module (bool)."""
    return bool(known.record and (known.record['parameters'] or {}).get('python_env'))


def _list(known):
    result = run([os.path.join(known.root, 'bin', 'list-packages'), '--json'], check=False)
    try:
        return json.loads(result.stdout)
    except ValueError:
        raise EasySIFError(known.name, 'does not tell which packages it has', facts=failure(result).facts,
                           hint='easysif verify %s%s' % (known.name, installed.option(known.prefix)),
                           exit_code=TOOL) from None


def pip(known):
    """Return the command by which a module offers pip (list of str).

    :raises EasySIFError: it offers none
    """
    for words in PIPS:
        if os.path.lexists(os.path.join(known.root, 'bin', words[0])):
            return list(words)
    raise EasySIFError(known.name, 'has no command that runs pip',
                       hint="module load %s; start-shell -c 'python3 -m pip install PACKAGE'" % known.name)


def carry(old, new, wanted):
    """Install packages into the overlay of a module, and record them as they were asked for in the old one.

    :param old: the module that has them (Belongings)
    :param new: the other one (Belongings)
    :param wanted: the packages (list of Package)
    :raises EasySIFError: it cannot be done, and what the overlay is then is told
    """
    target = Target(new.name, new.root, installed.overlay(new.root), 'easysif upgrade')
    asked_of_old, resolved = packages_record(installed.overlay(old.root))
    direct = {(pin.key, pin.version): pin for pin in of_record(resolved) if pin.direct}
    lines = [direct.get((key(one.name), one.version), one).requirement for one in wanted]
    of_old = {package_of(one): one for one in asked_of_old}
    asked = [of_old[key(one.name)] for one in wanted if key(one.name) in of_old] if of_old else lines
    with target.alone():
        copy = BeforeUpgrade(target.overlay.directory, new.name)
        try:
            add(target, lines, asked=asked)
        except EasySIFError as err:
            raise EasySIFError(err.where, err.what, facts=err.facts, exit_code=err.exit_code,
                               hint='%s; %s' % (copy.put_back(), err.hint)) from err
        except BaseException:  # as by Ctrl-C
            copy.drop_if_unchanged()
            copy.check()
            raise
        copy.drop()


def set_default(known):
    """Make a module the default of its name, as ``eb --set-default-module`` does; return the former one (str or None).

    :param known: the module (Belongings)
    :raises EasySIFError: it cannot be written
    """
    former = modulefile.default_version(os.path.dirname(known.module))
    for path in (known.module, *known.links):
        default = modulefile.default(path)[0]
        is_link = os.path.islink(default) or not os.path.lexists(default)
        if modulefile.is_lua(path) and not is_link:
            raise EasySIFError(known.name, 'the default cannot be set: what should be a link is something else',
                               facts=[('file', default)], hint='ls -ld %s' % shlex.quote(default))
        if not is_link and modulefile.default_version(os.path.dirname(path)) is None:
            raise EasySIFError(known.name, 'the default cannot be set: the file that names it holds something else',
                               facts=[('file', default)], hint='cat %s' % shlex.quote(default))
        try:
            modulefile.make_default(path, known.module)
        except OSError as err:
            raise EasySIFError(known.name, 'the default cannot be set (%s)' % err.strerror, facts=[('file', default)],
                               hint='ls -ld %s' % shlex.quote(os.path.dirname(default))) from err
    return former and '%s/%s' % (os.path.dirname(known.name), former)


def find(prefix, module):
    """Return an installed module (Belongings).

    :raises EasySIFError: it is not installed, or damaged
    """
    known = Belongings(installed.find(prefix, module)[0], prefix)
    if known.record is None:
        inventory.read(known.name, known.root)  # says that there is none
    return known
