# SPDX-License-Identifier: GPL-2.0-only
"""What an image knows of the software that it was made for: which commands are its, version, licence, home, GPU.

The records of conda, of the image's Python and of Debian are asked, then its labels; where no package bears the name,
its commands are those that do, then those outside the system's directories.
"""

import json
import posixpath
import re
import time
from dataclasses import dataclass

from easysif.formats import FORMATS
from easysif.images import labels
from easysif.images.asking import FLAGS, ask_python, ask_shell
from easysif.install import NO_START
from easysif.rules import NOT_TO_SHADOW
from easysif.run import run

#: directories whose commands belong to the image's system
_SYSTEM = ('/bin', '/sbin', '/usr/bin', '/usr/sbin')

#: seconds after which a command that was asked for its version has started: at first, and at least where the others
#: needed far less
START_LIMIT, SHORTEST_LIMIT = 20, 2

MOST = 60  #: commands of which nobody knows whose they are, beyond which none is taken

#: what a software is called by those who package it, where EasyBuild calls it otherwise
_PACKAGES = {'pytorch': 'torch'}

_TEXTS = ('version', 'licence', 'homepage', 'summary')

#: labels that name an image, and those that tell of what is in it
_NAMES = ('org.opencontainers.image.title', 'org.label-schema.name', 'name')
_LABELS = {'version': ('org.opencontainers.image.version', 'org.label-schema.version', 'version'),
           'licence': ('org.opencontainers.image.licenses', 'license'),
           'homepage': ('org.opencontainers.image.url', 'org.opencontainers.image.documentation',
                        'org.opencontainers.image.source', 'org.label-schema.url', 'about.home'),
           'summary': ('org.opencontainers.image.description', 'org.label-schema.description', 'about.summary')}


@dataclass(frozen=True)
class Software:
    """A software of an image; what is not known is '' or empty.

    :param commands: its commands that start, sorted (tuple of str), and those that do not (``broken``)
    :param source: who says so: ``conda``, ``Python``, ``Debian``, ``name`` or ``place`` (str)
    :param packages: Python packages of its name and kin, such as jax and jaxlib (tuple of str)
    :param needs: GPUs that the image is made for (tuple of str)
    """

    commands: tuple
    broken: tuple
    source: str
    version: str
    licence: str
    homepage: str
    summary: str
    packages: tuple
    needs: tuple


def look(name, sif, runtime, facts, where, show=None):
    """Return what an image knows of a software (Software).

    :param name: its name (str)
    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param facts: what is inside (inspect.ImageFacts)
    :param where: the recipe, for messages (str)
    :param show: takes what is at work now (callable: str)
    :raises EasySIFError: the image does not start
    """
    names = list(filter(None, [name.lower(), _PACKAGES.get(name.lower())]))
    environments = [facts.conda.prefix] if facts.conda else []
    told = ask_shell(sif, runtime, 'look-for-software', [*environments, ':', *names], where) or []
    conda = _conda([value for key, value in told if key == 'conda'])
    debian = {posixpath.basename(value) for key, value in told if key == 'debian'}
    package = _package(ask_python(sif, runtime, facts.python.path, 'look_for_package.py', names)[2]
                       if facts.python else None)
    label = _labels(labels.read(sif, runtime), names)
    named = {one for one in facts.available if re.match(re.escape(name.lower()) + r'\d*([-_.]|$)', one.lower())}
    # a package of the name that has no commands is a library, and what else lies there is none of its
    ways = [('conda', conda['commands']), ('Python', set(package['scripts'])), ('Debian', debian),
            ('name', named), ('place', set() if package['version'] or conda['version'] else _elsewhere(facts))]
    source, commands = next(((who, _usable(found, facts)) for who, found in ways if _usable(found, facts)), ('', ()))
    paths = {one: posixpath.join(facts.available[one], one) for one in sorted(commands)}
    commands = _starting(paths, sif, runtime, show)
    known = {key: next(filter(None, (one.get(key) for one in (conda, package, label))), '') for key in _TEXTS}
    return Software(commands=tuple(filter(commands.get, commands)), source=source, packages=package['family'],
                    broken=tuple(one for one in commands if not commands[one]),
                    needs=tuple('%s-gpu' % value for key, value in told if key == 'gpu'), **known)


def _usable(commands, facts):
    return {one for one in commands if one in facts.available and one not in NOT_TO_SHADOW and _is_name(one)}


def _starting(commands, sif, runtime, show):
    """Return which commands of an image start there, whatever they answer (dict of bool), as an installation will ask.

    One that waits for something is not waited for: its time is a multiple of what the quickest one needed.

    :param commands: name -> path inside (dict)
    """
    found, limit = {}, START_LIMIT
    for number, (name, path) in enumerate(commands.items(), 1):
        if show:
            show('starting command %d of %d: %s' % (number, len(commands), name))
        begin = time.monotonic()
        result = run(runtime.exec_argv(sif, [path, '--version'], flags=FLAGS), env=runtime.environment(),
                     timeout=limit, check=False)
        limit = min(limit, max(SHORTEST_LIMIT, 5 * (time.monotonic() - begin)))
        found[name] = result.status not in NO_START and not (result.status == 255 and 'FATAL' in result.stderr)
    return found


def _is_name(word):
    try:
        FORMATS['command-name'](word)
    except ValueError:
        return False
    return True


def _elsewhere(facts):
    """Return the commands outside the system's directories (set of str), none where they are too many."""
    found = _usable({name for name, place in facts.available.items() if place not in _SYSTEM}, facts)
    return found if len(found) <= MOST else set()


def _conda(lines):
    """Return what the record of a conda package tells (dict): of the lines of its JSON those that matter."""
    text = '\n'.join(lines)
    found = {'commands': set(re.findall(r'"bin/([^"/\\]+)"', text))}
    for key, word in (('version', 'version'), ('licence', 'license')):
        value = re.search(r'"%s":\s*("(?:[^"\\\n]|\\.)*")' % word, text)
        try:
            found[key] = json.loads(value.group(1)) if value else ''
        except ValueError:
            found[key] = ''
    return found


def _package(answer):
    """Return what the image's Python tells of a package (dict), empty where it tells nothing that one would."""
    answer = answer if isinstance(answer, dict) else {}
    found = {key: answer[key] if answer.get(key) != 'UNKNOWN' and isinstance(answer.get(key), str) else ''
             for key in _TEXTS}
    for key in ('scripts', 'family'):
        value = answer.get(key)
        found[key] = tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
    found['family'] = tuple(filter(re.compile('[A-Za-z0-9][A-Za-z0-9._-]*').fullmatch, found['family']))
    return found


def _labels(found, names):
    """Return what the labels of an image tell of a software (dict), nothing where they are those of its base image."""
    titles = ' '.join(found.get(label, '') for label in (*_NAMES, *_LABELS['homepage'])).lower()
    if not any(name in titles for name in names):
        return {}
    return {key: next((found[name] for name in labels if found.get(name)), '') for key, labels in _LABELS.items()}
