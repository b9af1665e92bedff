# SPDX-License-Identifier: GPL-2.0-only
"""A recipe: an easyconfig as data. Read by ``ast``, never executed; judged by schemas/recipe.schema.json.

It knows no sites, and asks for no image; the library and the easyblock work with the Recipe that it returns.
"""

import ast
import os
import re
import shlex
import warnings
from dataclasses import dataclass

from easysif import schema
from easysif.errors import EasySIFError, SeveralErrors
from easysif.images.reference import check_no_login
from easysif.literals import NotData, name_of, value_of
from easysif.templates import Unknown, resolved, templates

#: EasyBuild's names for values that recipes use; any other name is an error
CONSTANTS = {'SYSTEM': {'name': 'system', 'version': 'system'}, 'EXTERNAL_MODULE': 'EXTERNAL_MODULE'}

#: our parameters with what EasyBuild says of them, in the order of DESIGN section 4; templates in them have to be known
OURS = {
    'image': "Container image: docker://, oras://, library:// or https:// reference, SIF file, definition, archive",
    'digest': "sha256:… of the image (of the OCI manifest for docker and oras references, else of the file)",
    'image_mode': "copy, or link to run the image from the site's image store",
    'verify': "True where the image must be signed",
    'build_args': "Build arguments of a definition file: {name: text}",
    'needs': "Words for what the site must provide, such as nvidia-gpu; with ? behind it where it may",
    'python_env': "Name of the virtual environment in the overlay; without it the module has no overlay",
    'conda_env': "Name of the conda environment inside the image, where it is not found by looking",
    'commands': "Wrappers: list of commands, or {name: command inside the image}",
    'python_packages': "Requirements of pip that belong to the recipe, in a layer between image and overlay",
    'container_env': "Environment variables inside the image",
    'binds': "Binds that belong to this software, source[:destination[:options]]",
    'provides': "Python packages of the image worth finding with module spider, name or name/version",
    'runscripts': "Commands of EasySIF beside those that every module has: start-vnc, stop-vnc, vnc-info",
}
EMPTY = {name: schema.unset('recipe', name) for name in OURS}  #: what EasyBuild has for those that are not set

#: EasyBuild's parameters that are read here
_THEIRS = ('homepage', 'description', 'sanity_check_commands')

LARGEST = 4 << 20  #: bytes that a recipe may have


@dataclass(frozen=True)
class Recipe:
    """What a recipe says, checked and with its templates resolved.

    ``where`` is the file name for messages, ``path`` the file itself (None where it is not known), ``commands`` wrapper
    -> words of the command inside the image; ``optional_needs`` are those of the needs that a site may lack.
    """

    name: str
    version: str
    versionsuffix: str
    where: str
    path: str
    image: str
    digest: str
    image_mode: str
    verify: bool
    build_args: dict
    needs: tuple
    python_env: str
    conda_env: str
    commands: dict
    python_packages: tuple
    container_env: dict
    binds: tuple
    provides: dict
    description: str
    homepage: str
    sanity_check_commands: tuple
    optional_needs: tuple = ()
    runscripts: tuple = ()

    @property
    def full_version(self):
        """Version as in the module's name: ``24.10-singularity`` (str)."""
        return self.version + self.versionsuffix

    @property
    def is_environment(self):
        """Whether one works *in* the module: a Python environment, or an image that is no tool's (bool)."""
        return bool(self.python_env or self.image and not self.commands and not self.runscripts)

    @property
    def venv(self):
        """The name of the virtual environments in overlay and layer (str), None where it has neither."""
        return self.python_env or (self.name if self.python_packages else None)

    @property
    def env_suffix(self):
        """The name as in ``EBROOT<NAME>``: what EasyBuild's ``convert_name`` makes of it (str)."""
        return self.name.replace('+', 'plus').replace('-', 'min').replace('.', '').upper()


def load(path):
    """Return the recipe in a file (Recipe).

    :raises EasySIFError: it cannot be read, or something in it is wrong; all problems at once
    """
    values, lines = read(path)
    return validate(values, os.path.basename(path), lines, path)


def read(path):
    """Return the values of a recipe (dict) and the line of each key (dict of int), as they are written.

    :raises EasySIFError: it cannot be read, or is more than data; all problems at once
    """
    values, lines, errors = parse(path)
    if errors:
        raise SeveralErrors(errors)
    return values, lines


def parse(path):
    """Return values (dict), lines (dict) and problems (list of EasySIFError): as ``read``, but whatever is there.

    A key whose value could not be read has a line and no value.

    :raises EasySIFError: the file cannot be read, or is no Python at all
    """
    where = os.path.basename(path)
    values, lines, errors = {}, {}, []
    text, starts = _text(path, where), set()
    for node in _statements(text, where):
        starts.add(node.lineno)
        place = '%s:%d' % (where, node.lineno)
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            errors.append(EasySIFError(place, 'a recipe is data: %s does not belong into it' % name_of(node),
                                       hint='write only lines of the form key = value'))
            continue
        key = node.targets[0].id
        if key.startswith('local_'):
            errors.append(EasySIFError(place, "a recipe has no variables of its own, such as '%s'" % key,
                                       hint='write its value where it is used'))
            continue
        if key in lines:
            errors.append(EasySIFError(place, '%s is set twice, first in line %d' % (key, lines[key])))
        lines[key] = node.lineno
        try:
            values[key] = value_of(node.value, CONSTANTS)
        except NotData as err:
            errors.append(EasySIFError('%s:%d' % (where, err.node.lineno), '%s %s' % (key, err), hint=err.hint))
    errors += [EasySIFError('%s:%d' % (where, number), 'EasyBuild takes this line of a text or a list for %s' % what,
                            hint='begin the line with something else') for number, what in _misread(text, starts)]
    return values, lines, errors


def checksums_of_image(values):
    """Return the checksums that are those of the image's file, as they are written (list), None or empty for none.

    Where a recipe has sources or patches they are those of these; without an image they are of nothing.

    :param values: what the recipe says (dict)
    """
    is_of_others = values.get('sources') or values.get('patches') or not values.get('image')
    return None if is_of_others else values.get('checksums')


def validate(values, where, lines=None, path=None):
    """Return the recipe that values make, whether they come from ``read`` or from EasyBuild (Recipe).

    Empty values are what EasyBuild gives to parameters that are not set, and count as not set.

    :param values: parameters (dict)
    :param where: name of the recipe for messages (str)
    :param lines: line of each key (dict), where known
    :param path: the file (str), where known
    :raises EasySIFError: something is wrong; all problems at once
    """
    lines, errors = lines or {}, []

    def wrong(key, what, **kwargs):
        line = lines.get(key, 0)
        errors.append((line, EasySIFError('%s:%d' % (where, line) if line else where, what, **kwargs)))

    known = schema.load('recipe')['properties']
    given = {key: value for key, value in values.items() if key not in known or not _is_unset(value, known[key])}
    complete = {}
    for key in given:
        try:
            complete[key] = resolved(given[key], given, later=key not in OURS)
        except Unknown as err:
            wrong(key, '%s has %s' % (key, err), facts=[('known', ', '.join(templates(given)))], hint=err.hint)
    given.update((key, complete[key]) for key in (*OURS, *_THEIRS) if key in complete)
    for problem in schema.problems('recipe', given, lambda key, value: '%s = %r' % (key, value)):
        wrong(problem.path[0] if problem.path else None, problem.what, hint=problem.hint,
              # of all words only ours: EasyBuild's are many
              facts=[('ours', ', '.join(OURS))] if problem.facts and not problem.hint else ())
    image = given.get('image')
    is_definition = isinstance(image, str) and image.endswith('.def')
    if isinstance(image, str):
        try:  # here, so that no command comes to print it
            check_no_login(image, where)
        except EasySIFError as err:
            wrong('image', err.what, facts=err.facts, hint=err.hint)
    if is_definition and given.get('digest'):
        wrong('digest', 'digest does not go with a definition file, whose images differ from build to build',
              hint='remove digest; the sha256 of %s belongs into checksums' % image)
    if isinstance(image, str) and image.startswith('docker://') and checksums_of_image(given):
        wrong('checksums', 'checksums are those of a file, and the image is none: it has a digest instead',
              facts=[('image', image)], hint='remove checksums, then: easysif pin %s' % shlex.quote(str(path or where)))
    if given.get('build_args') and not is_definition:
        wrong('build_args', 'build_args go with a definition file only', hint="write image = 'NAME.def'")
    both = [name for name in given.get('runscripts', ()) if name in given.get('commands', ())]
    if both:
        wrong('commands', "commands and runscripts have both '%s'" % both[0], hint='name it in one of them')
    if errors:
        raise SeveralErrors([err for _, err in sorted(errors, key=lambda pair: pair[0])])
    commands, needs = given.get('commands', ()), given.get('needs', ())
    return Recipe(
        name=given['name'], version=given['version'], versionsuffix=given.get('versionsuffix', ''), where=where,
        path=path, image=image, digest=given.get('digest'), image_mode=given.get('image_mode'),
        verify=given.get('verify', False), build_args=dict(given.get('build_args', {})),
        needs=tuple(need.rstrip('?') for need in needs), python_env=given.get('python_env'),
        optional_needs=tuple(need[:-1] for need in needs if need.endswith('?')), conda_env=given.get('conda_env'),
        commands={name: tuple(shlex.split(commands[name])) if isinstance(commands, dict) else (name,)
                  for name in commands},
        runscripts=tuple(given.get('runscripts', ())), python_packages=tuple(given.get('python_packages', ())),
        container_env=dict(given.get('container_env', {})), binds=tuple(given.get('binds', ())),
        provides=_provides(given.get('provides', ())), description=given['description'], homepage=given['homepage'],
        sanity_check_commands=tuple(given.get('sanity_check_commands', ())))


def _provides(given):
    """Return what a recipe provides: name -> version, None where it leaves that open (dict)."""
    pairs = given.items() if isinstance(given, dict) else (item.partition('/')[::2] for item in given)
    return {name: version or None for name, version in pairs}


def _is_unset(value, rules):
    """Tell whether a value is what EasyBuild gives to a parameter of such a type that is not set (bool)."""
    empty = {'boolean': (None,), 'string': (None, ''), 'array': ([], ()), 'object': ({},)}
    types = rules.get('type', list(empty)) if isinstance(rules, dict) else list(empty)
    return any(value in empty[one] for one in ([types] if isinstance(types, str) else types))


def _text(path, where):
    try:
        with open(path, 'rb', opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
            data = handle.read(LARGEST + 1)
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror) from err
    if data is None or len(data) > LARGEST:
        raise EasySIFError(where, 'is no recipe: it is %s' % (
            'a named pipe' if data is None else 'larger than %d bytes' % LARGEST))
    try:
        return data.decode('utf-8').replace('\r\n', '\n').replace('\r', '\n')
    except ValueError as err:
        raise EasySIFError(where, 'not a valid recipe: %s' % err) from err


def _misread(text, starts):
    """Yield number and meaning of the lines in which EasyBuild, which looks for patterns, sees what is not there.

    It takes the first line that begins like ``easyblock =`` for that, and what begins with a bracket for a section of
    another format, at which the recipe ends.
    """
    for number, line in enumerate(text.split('\n'), 1):
        known = re.match(r'\s*(name|easyblock)\s*(=|: )', line)
        if known and number not in starts:
            yield number, 'the parameter %s' % known.group(1)
        elif line.startswith('['):
            yield number, 'a section'


def _statements(text, where):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # an escape that Python only warns of becomes an error one day
            return ast.parse(text).body
    except SyntaxError as err:
        raise EasySIFError('%s:%d' % (where, err.lineno or 1), 'not a valid recipe: %s' % err.msg) from err
    except (ValueError, RecursionError, MemoryError) as err:
        raise EasySIFError(where, 'not a valid recipe: %s' % (str(err) or 'nested too deeply')) from err
