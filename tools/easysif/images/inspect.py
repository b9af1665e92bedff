# SPDX-License-Identifier: GPL-2.0-only
"""What is inside an image that its module must know: shell, environment, commands, conda, Python.

Two container starts, one of a shell and one of the image's Python where it has one, see the image and nothing of
the caller's machine or account. Works for any image with a POSIX shell; without one it is known that there is none.
"""

import difflib
import posixpath
import re
import shlex
from dataclasses import dataclass, field
from typing import Optional

from easysif.errors import EasySIFError, SeveralErrors
from easysif.images import provided
from easysif.images.asking import FLAGS, ask_python, ask_shell
from easysif.run import failure

SHELLS = ('/bin/bash', '/usr/bin/bash', '/bin/sh', '/usr/bin/sh')
LONGEST = 4096  #: characters that are looked at of a command to activate conda

#: what the image's Python tells of itself, and of which type
ANSWER = {'version': str, 'prefix': str, 'base_prefix': str, 'has_pip': bool, 'has_venv': bool, 'has_ensurepip': bool,
          'site_packages': list, 'scripts': list, 'distributions': dict}
VENV_COMMANDS = re.compile(r'(python|pip)(\d+(?:\.\d+)?)?$')


@dataclass(frozen=True)
class Command:
    """A command inside: its path (str), None where there is none; whether the image's Python runs it as a script."""

    path: Optional[str]
    is_python_script: bool = False


@dataclass(frozen=True)
class Conda:
    """A conda environment inside: its directory, its name (``base`` for conda's own), the directory of conda (str)."""

    prefix: str
    name: str
    root: str


@dataclass(frozen=True)
class Python:
    """The image's Python: path, version (``3.10.12``), prefixes (str), modules it has, directories of packages."""

    path: str
    version: str
    prefix: str
    base_prefix: str
    has_pip: bool
    has_venv: bool
    has_ensurepip: bool
    site_packages: tuple

    @property
    def is_venv(self):
        """Whether it is the Python of a venv, whose packages another venv on top of it would miss (bool)."""
        return self.prefix != self.base_prefix


@dataclass(frozen=True)
class ImageFacts:
    """What is inside an image; ``dataclasses.asdict`` makes JSON of it.

    :param shell: path of its bash, else of its sh (str), None where it has neither: then little else is known
    :param env: those variables we care for that the image itself defines (dict of str)
    :param commands: what the first word of each command of the recipe is inside (dict of Command)
    :param provides: what the recipe names of the image, with the versions found (dict of str)
    :param available: all commands on the image's PATH and in its conda environment, name -> directory (dict of str)
    """

    shell: Optional[str]
    env: dict
    commands: dict
    available: dict
    conda: Optional[Conda]
    python: Optional[Python]
    provides: dict = field(default_factory=dict)


def look_inside(sif, runtime, recipe, where):
    """Return what is inside an image, after holding it against what the recipe expects there (ImageFacts).

    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param recipe: its commands, python_env, python_packages and conda_env are used (recipe.Recipe)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: the image does not start; a command, the conda environment or Python is not there
    """
    words = sorted({words[0] for words in recipe.commands.values()})
    absolute = [word for word in (*words, recipe.conda_env or '') if word.startswith('/')]
    records = ask_shell(sif, runtime, 'look-inside', [*SHELLS, *absolute], where)
    if records is None:
        _check_no_shell(recipe, sif, where)
        return ImageFacts(None, {}, {word: Command(None) for word in words}, {}, None, None)
    seen = _Seen(records)
    conda = _conda(seen, recipe, where)
    places = ([conda.prefix + '/bin'] if conda else []) + seen.path
    found = {word: word if word in seen.files else seen.find(word, places) for word in words}
    python = seen.find('python3', places) or seen.find('python', places)
    answer = python and _ask_python(sif, runtime, python, [path for path in found.values() if path], recipe, where)
    scripts = answer.pop('scripts') if answer else ()
    packages = answer.pop('distributions') if answer else {}
    python = Python(path=python, **answer) if answer else None
    _check_python(python, seen, recipe, where)
    available = {name: place for place in reversed(places) for name in sorted(seen.directories.get(place, ()))}
    _check_commands(found, python, available, places, recipe, runtime, sif, where)
    shell = next((path for path in SHELLS if path in seen.files), None)
    return ImageFacts(shell or seen.find('bash', places) or seen.find('sh', places), seen.env,
                      {word: Command(path, path in scripts) for word, path in found.items()}, available,
                      conda, python, provided.check(recipe.provides, packages, where))


class _Seen:
    """The records of helpers/look-inside, by kind.

    A conda environment whose path no variable and no PATH can hold is as good as none.
    """

    def __init__(self, records):
        self.env, self.files, self.conda, self.path, self.directories = {}, set(), [], [], {}
        root = directory = None
        for key, value in records:
            if key == 'env':
                name, _, content = value.partition('=')
                self.env[name] = content
            elif key == 'file':
                self.files.add(value)
            elif key == 'root':
                root = value
            elif key == 'conda' and re.fullmatch('/[^\x00-\x1f\x7f:\ufffd]*', value):
                self.conda.append(_conda_at(posixpath.normpath(value), root))
            elif key in ('dir', 'bin'):
                directory = self.directories.setdefault(posixpath.normpath(value), set())
                self.path += [posixpath.normpath(value)] if key == 'dir' else []
            elif key == 'name' and directory is not None:
                directory.add(value)

    def find(self, name, places):
        """Return the path of a command that is in one of some directories (str), None where in none."""
        return next((posixpath.join(place, name) for place in places if name in self.directories.get(place, ())), None)


def _conda_at(prefix, root):
    if not root:
        parent = posixpath.dirname(prefix)
        root = posixpath.dirname(parent) if posixpath.basename(parent) == 'envs' else prefix
    return Conda(prefix, 'base' if prefix == root else posixpath.basename(prefix), root)


def _ask_python(sif, runtime, python, paths, recipe, where):
    """Return what helpers/look_inside_python.py tells (dict); None where Python does not start and none is needed."""
    result, late, told = ask_python(sif, runtime, python, 'look_inside_python.py', paths)
    answer = _answer(told)
    if answer or not recipe.venv:
        return answer
    error, what = failure(result), 'does not start' if result.status else 'does not answer as Python does'
    raise EasySIFError(where, "the image's Python %s: %s" % (what, python), facts=error.facts + late,
                       exit_code=error.exit_code, hint='try it by hand: %s' %
                       shlex.join(runtime.exec_argv(sif, [python, '--version'], flags=FLAGS)))


def _answer(answer):
    """Return what the image's Python tells of itself (dict), None where that is nothing that a Python would say."""
    if not isinstance(answer, dict) or {key: type(value) for key, value in answer.items()} != ANSWER:
        return None
    if not re.fullmatch(r'[0-9]{1,4}(\.[0-9]{1,4}){2}', answer['version']):
        return None
    if not all(isinstance(path, str) for path in (
            *answer['site_packages'], *answer['scripts'], *answer['distributions'].values())):
        return None
    return dict(answer, site_packages=tuple(answer['site_packages']))


def _conda(seen, recipe, where):
    """Return the conda environment that the module works in (Conda), None where the image has none that is meant.

    The recipe's comes first, then what the image itself activates, then the one with the name of python_env, then
    what is on the image's PATH, then the only one there is.
    """
    said = re.search(r'(\S+)/bin/activate(?:\s+(\S+))?|conda activate (\S+)', seen.env.get('WITH_CONDA', '')[:LONGEST])
    root, name = (said.group(1), said.group(2) or said.group(3) or 'base') if said else (None, None)
    named = [env for env in seen.conda if env.name != 'base']
    candidates = [
        lambda env: env.prefix == posixpath.normpath(seen.env.get('CONDA_PREFIX', '-')),
        lambda env: name in (env.prefix, env.name) and root in (None, env.root),
        lambda env: env.name == recipe.python_env,
        lambda env: env.prefix + '/bin' in seen.path,
        lambda env: len(named or seen.conda) == 1 and env in (named or seen.conda),
    ]
    if recipe.conda_env:
        candidates = [lambda env: recipe.conda_env.rstrip('/') in (env.prefix, env.name)]
    for is_meant in candidates:
        for env in filter(is_meant, seen.conda):
            return env
    if not recipe.conda_env:
        return None
    there = ['%s (%s)' % (env.name, env.prefix) for env in seen.conda]
    closest = difflib.get_close_matches(recipe.conda_env, [env.name for env in seen.conda], n=1)
    raise EasySIFError(where, "conda_env '%s' is not in the image" % recipe.conda_env,
                       facts=[('there', ', '.join(there) or 'no conda environment at all')],
                       hint="did you mean '%s'?" % closest[0] if closest else
                       'name one of them, by its directory where it is in an unusual place' if there else
                       'remove conda_env, or give its directory if it is in an unusual place')


def _check_no_shell(recipe, sif, where):
    for key in ('python_env', 'conda_env', 'python_packages'):
        if getattr(recipe, key):
            raise EasySIFError(where, '%s needs a shell in the image, which has none' % key, facts=[('image', sif)],
                               hint='remove %s; the commands of such an image still work' % key)
    provided.check(recipe.provides, {}, where)


def _check_python(python, seen, recipe, where):
    if not recipe.venv:
        return
    key = 'python_env' if recipe.python_env else 'python_packages'
    if python is None:
        others = ', '.join(env.name for env in seen.conda)
        raise EasySIFError(where, '%s is given, but the image has no python' % key,
                           facts=[('searched', ', '.join(seen.path) or 'PATH is empty')],
                           hint='name its conda environment in conda_env: %s' % others if others else
                           'remove %s, or take an image that has Python 3' % key)
    wrong = ('is older than Python 3' if int(python.version.split('.')[0]) < 3 else
             '' if python.has_venv else 'has no module venv')
    if wrong:
        raise EasySIFError(where, "%s is given, but the image's python %s" % (key, wrong),
                           facts=[('python', '%s  (%s)' % (python.path, python.version))],
                           hint='remove %s, or add a complete Python 3 to the image (Debian: python3-venv)' % key)


def _check_commands(found, python, available, places, recipe, runtime, sif, where):
    errors = []
    for word in sorted(found):
        if found[word] or recipe.python_packages or recipe.python_env and _comes_with_venv(word, python):
            continue  # of a layer, who makes it holds the commands against it
        near = difflib.get_close_matches(word, available, n=3)
        place = available[near[0]] if near else (places or ['/usr/bin'])[0]
        errors.append(EasySIFError(
            where, "command '%s' is not in the image" % word, facts=[('closest', ', '.join(near) or 'none')],
            hint='list what the image has: %s' % shlex.join([runtime.name, 'exec', sif, 'ls', place])))
    if errors:
        raise errors[0] if len(errors) == 1 else SeveralErrors(errors)


def _comes_with_venv(word, python):
    match = VENV_COMMANDS.match(word)
    if not match or match.group(2) and not (python.version + '.').startswith(match.group(2) + '.'):
        return False
    return match.group(1) == 'python' or python.has_pip or python.has_ensurepip
