# SPDX-License-Identifier: GPL-2.0-only
"""What an image knows of the software that it was made for: which commands are its, version, licence, home, GPU.

The records of conda, of Debian and of the image's Python are asked, then its labels; where none of them knows the
software, its commands are those that bear its name, then those outside the system's directories.
"""

import json
import posixpath
import re
from dataclasses import dataclass

from easysif.formats import FORMATS
from easysif.images import labels
from easysif.images.asking import ask_python, ask_shell
from easysif.rules import NOT_TO_SHADOW

#: directories whose commands belong to the image's system
_SYSTEM = ('/bin', '/sbin', '/usr/bin', '/usr/sbin')

MOST = 60  #: commands of which nobody knows whose they are, beyond which none is taken

_LABELS = {'version': ('org.opencontainers.image.version', 'version'),
           'licence': ('org.opencontainers.image.licenses', 'license'),
           'homepage': ('org.opencontainers.image.url', 'org.opencontainers.image.documentation',
                        'org.opencontainers.image.source', 'org.label-schema.url', 'about.home'),
           'summary': ('org.opencontainers.image.description', 'org.label-schema.description', 'about.summary',
                       'org.opencontainers.image.title')}


@dataclass(frozen=True)
class Software:
    """A software of an image; what is not known is '' or empty.

    :param commands: its commands, sorted (tuple of str)
    :param source: who says so: ``conda``, ``Debian``, ``Python``, ``name`` or ``place`` (str)
    :param packages: Python packages of its name and kin, such as jax and jaxlib (tuple of str)
    :param needs: GPUs that the image is made for (tuple of str)
    """

    commands: tuple
    source: str
    version: str
    licence: str
    homepage: str
    summary: str
    packages: tuple
    needs: tuple


def look(name, sif, runtime, facts, where):
    """Return what an image knows of a software (Software).

    :param name: its name (str)
    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param facts: what is inside (inspect.ImageFacts)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: the image does not start
    """
    environments = [facts.conda.prefix] if facts.conda else []
    told = ask_shell(sif, runtime, 'look-for-software', [name.lower(), *environments], where) or []
    conda = _conda([value for key, value in told if key == 'conda'])
    debian = {posixpath.basename(value) for key, value in told if key == 'debian'}
    package = _package(ask_python(sif, runtime, facts.python.path, 'look_for_package.py', [name])[2]
                       if facts.python else None)
    label = _labels(labels.read(sif, runtime))
    named = {one for one in facts.available if re.match(re.escape(name.lower()) + r'\d*([-_.]|$)', one.lower())}
    # a conda package or a Python package of the name that has no commands is a library, and has none
    ways = [('conda', conda.pop('commands')), ('Python', set(package.pop('scripts'))), ('Debian', debian),
            ('name', named), ('place', set() if package['version'] or conda['version'] else _elsewhere(facts))]
    source, commands = next(((who, found) for who, found in ways if _usable(found, facts)), ('', set()))
    known = {key: next(filter(None, (one.get(key) for one in (conda, package, label))), '')
             for key in ('version', 'licence', 'homepage', 'summary')}
    return Software(commands=tuple(sorted(_usable(commands, facts))), source=source, packages=package['family'],
                    needs=tuple('%s-gpu' % value for key, value in told if key == 'gpu'), **known)


def _usable(commands, facts):
    return {one for one in commands if one in facts.available and one not in NOT_TO_SHADOW and _is_name(one)}


def _is_name(word):
    try:
        FORMATS['command-name'](word)
    except ValueError:
        return False
    return True


def _elsewhere(facts):
    """Return the commands outside the system's directories (set of str), none where they are too many."""
    found = {name for name, place in facts.available.items() if place not in _SYSTEM}
    return found if len(found) <= MOST else set()


def _conda(lines):
    """Return what the record of a conda package tells (dict); its lines are those of JSON, one value each."""
    found = {'commands': set(), 'version': '', 'licence': ''}
    for line in lines:
        file = re.match(r'\s*(?:"_path":\s*)?"bin/([^"/]+)",?\s*$', line)
        value = re.match(r'\s*"(license|version)":\s*(".*"),?\s*$', line)
        if file:
            found['commands'].add(file.group(1))
        elif value:
            try:
                found[{'license': 'licence'}.get(value.group(1), value.group(1))] = json.loads(value.group(2))
            except ValueError:
                pass
    return found


def _package(answer):
    """Return what the image's Python tells of a package (dict), empty where it tells nothing that one would."""
    texts, lists = ('version', 'licence', 'homepage', 'summary'), ('scripts', 'family')
    answer = answer if isinstance(answer, dict) else {}
    found = {key: answer[key] if isinstance(answer.get(key), str) else '' for key in texts}
    for key in lists:
        value = answer.get(key)
        found[key] = tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
    return found


def _labels(found):
    return {key: next((found[name] for name in names if found.get(name)), '') for key, names in _LABELS.items()}
