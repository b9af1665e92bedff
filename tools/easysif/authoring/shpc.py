# SPDX-License-Identifier: GPL-2.0-only
"""Recipes from those of Singularity HPC (SHPC): its container.yaml as values of ours, and what has no place in them.

What the keys mean was read in SHPC 0.1.32 (main/schemas.py, main/container/config.py and singularity.py).
"""

import os
import posixpath
import re
import shlex
from dataclasses import dataclass

import yaml

from easysif import rules, schema, yaml_file
from easysif.authoring.compose import literal
from easysif.errors import EasySIFError, SeveralErrors
from easysif.formats import FORMATS
from easysif.images.reference import is_digest

SUFFIX = '-singularity'

#: directories that are on the PATH of practically every image, so that a command there is known by its name
ON_PATH = ('/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin', '/opt/conda/bin')

#: keys that a file of ``overrides`` may replace for a tag
OVERRIDES = ('aliases', 'env', 'features', 'description', 'docker_script', 'singularity_script')


@dataclass(frozen=True)
class Imported:
    """A recipe that was read elsewhere.

    :param values: parameters of ours (dict)
    :param notes: key -> words of a comment behind it (dict)
    :param lost: what could not be carried over, and why (list of str)
    """

    values: dict
    notes: dict
    lost: list


def tags(path):
    """Return the tags of a container.yaml of which to make recipes (list of str): the last build of each version.

    :param path: the file (str)
    :raises EasySIFError: it cannot be read, or is not what SHPC would take
    """
    found, _ = _read(path)
    return list({tag.partition('--')[0]: tag for tag in [*found['tags'], *found['latest']]}.values())


def convert(path, tag=None, suffix=SUFFIX):
    """Return a recipe of ours from a container.yaml (Imported).

    :param path: the file (str)
    :param tag: which of its tags (str), None for the latest
    :param suffix: the versionsuffix (str)
    :raises EasySIFError: it cannot be read, is not what SHPC would take, has no such tag or nothing to run
    """
    found, place = _read(path)
    known = {**found['tags'], **found['latest']}
    tag = tag or next(iter(found['latest']))
    if tag not in known:
        near = schema.closest(tag, known)
        raise EasySIFError(path, "has no tag '%s'" % tag, facts=[('tags', ', '.join(known))],
                           hint="did you mean '%s'?" % near if near else None)
    lost = []
    found = _overridden(found, tag, path, lost)
    values = {'easyblock': 'ContainerImage', **_identity(found, tag, path, place), 'versionsuffix': suffix,
              'homepage': _homepage(found, lost), 'description': _description(found), 'toolchain': 'SYSTEM',
              **_image(found, tag, known[tag], path, place, lost)}
    values['needs'] = _needs(found.get('features') or {}, lost)
    values['commands'] = _commands(found.get('aliases') or {}, values['name'], lost)
    values['container_env'] = _environment(found.get('env') or {}, lost)
    values['moduleclass'] = 'bio' if 'biocontainers/' in values['image'] else 'tools'
    values['sanity_check_commands'] = [_test(values)]
    lost += ['test: SHPC has none that does the software\'s work; the one written starts a command, no more']
    lost += ['%s: of use to the registry of SHPC only' % key for key in ('filter', 'maintainer') if found.get(key)]
    lost += ['%s: for docker' % key for key in ('docker_scripts', 'docker_script') if found.get(key)]
    lost += ['%s: %s is a script, and recipes have no shell' % (key, name) for key in ('singularity_scripts', )
             for name in found.get(key) or ()]
    notes = {} if values.get('digest') else {'image': 'not pinned: no digest in %s' % os.path.basename(path)}
    return Imported({key: value for key, value in values.items() if value}, notes, lost)


def _read(path):
    """Return a container.yaml (dict), and the function that gives the place of a key in it for messages."""
    values, lines = yaml_file.read(path, yaml.BaseLoader)

    def place(*keys):
        line = next((lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in lines), None)
        return '%s:%d' % (path, line) if line else path
    # a key without a value is one that is not there
    values = {key: item for key, item in values.items() if item != ''} if isinstance(values, dict) else values
    problems = schema.problems('shpc', values)
    if problems:
        raise SeveralErrors([EasySIFError(place(*one.path), one.what, facts=one.facts) for one in problems])
    return values, place


def _overridden(found, tag, path, lost):
    """Return the values with those that the file of ``overrides`` has for a tag in their place (dict)."""
    name = (found.get('overrides') or {}).get(tag)
    if not name:
        return found
    if os.path.basename(name) != name:
        raise EasySIFError(path, "overrides of '%s' is not the name of a file beside it: %s"
                           % (tag, schema.quote(name)))
    beside = os.path.join(os.path.dirname(path), name)
    values, _ = yaml_file.read(beside, yaml.BaseLoader)
    if not isinstance(values, dict):
        raise EasySIFError(beside, 'must be a mapping, not %s' % schema.describe(values))
    lost += ['%s of %s: an override cannot have it' % (key, name) for key in values if key not in OVERRIDES]
    both = {**found, **{key: item for key, item in values.items() if key in OVERRIDES and item != ''}}
    problems = schema.problems('shpc', {key: item for key, item in both.items() if not key.endswith('_script')})
    if problems:
        raise SeveralErrors([EasySIFError(beside, one.what, facts=one.facts) for one in problems])
    return both


def _identity(found, tag, path, place):
    """Return name and version (dict): of the repository, and of the tag without the build that follows ``--``."""
    source = next((found[key] for key in ('docker', 'oras', 'gh') if found.get(key)), None)
    name = posixpath.basename((source or os.path.basename(os.path.dirname(os.path.abspath(path)))).rstrip('/'))
    values = {'name': name, 'version': tag.partition('--')[0]}
    for key, value in values.items():
        rule = schema.load('recipe')['properties'][key]
        if not re.search(rule['pattern'], value) or len(value) > rule['maxLength']:
            raise EasySIFError(place('tags', tag), '%s of the recipe would be %s, and must be %s'
                               % (key, schema.quote(value), rule['description']))
    return values


def _homepage(found, lost):
    url = found.get('url', '')
    if re.search(schema.load('recipe')['properties']['homepage']['pattern'], url):
        return literal(url)
    if url:
        lost.append('url: %s is no web address' % schema.quote(url))
    return 'https://github.com/singularityhub/shpc-registry'


def _description(found):
    text = re.sub(r'^(an?|the)\s+', '', ' '.join(found['description'].split()), flags=re.IGNORECASE).rstrip('. ')
    text = re.sub(r'\]==+|\[==+\[', ' ', text)
    return literal(text[:1].upper() + text[1:]) or 'Software of the registry of SHPC'


def _image(found, tag, digest, path, place, lost):
    """Return image and digest (dict)."""
    for scheme in ('docker', 'oras'):
        if found.get(scheme):
            image = '%s://%s:%%(version)s%s' % (scheme, literal(found[scheme]), tag[len(tag.partition('--')[0]):])
            if is_digest(digest):
                return {'image': image, 'digest': digest}
            lost.append('digest: %s is none' % schema.quote(digest))
            return {'image': image}
    if found.get('path'):
        if not found['path'].endswith('.sif') or '/' in found['path']:
            raise EasySIFError(place('path'), 'path is not the name of a SIF file: %s' % schema.quote(found['path']))
        return {'image': literal(found['path'])}
    if found.get('gh'):
        raise EasySIFError(place('gh'), 'gh: is an image among the releases of GitHub, which has no address in here',
                           hint='easysif new NAME VERSION --image https://github.com/…/NAME.sif')
    raise EasySIFError(path, 'names no image', facts=[('known', 'docker, oras, path')])


def _needs(features, lost):
    needs = []
    for name, value in features.items():
        if value.lower() not in ('true', 'yes', 'on', '1'):
            continue
        if name == 'gpu':
            needs.append('nvidia-gpu')
            lost.append('features.gpu: taken for an NVIDIA GPU; for one of AMD write amd-gpu')
        elif name == 'x11':
            needs.append('x11?')
        elif name != 'home':  # which the runtimes bind by themselves
            lost.append('features.%s: not known here' % name)
    return needs


def _commands(aliases, name, lost):
    """Return the wrappers: a list where each is known by its name on the image's PATH, else name -> command (dict)."""
    found = {}
    pairs = aliases.items() if isinstance(aliases, dict) else [(one['name'], one['command']) for one in aliases]
    for alias, command in pairs:
        problem = _problem(alias, 'command-name') or _problem(command, 'command-line') or (
            'would hide that of the host' if alias in rules.NOT_TO_SHADOW else
            'is for a shell to read' if re.search(r'[$`|&;<>*?~]', command) else None)
        if problem:
            lost.append('aliases.%s: %s' % (alias, problem))
        else:
            found[alias] = command
    for one in aliases if isinstance(aliases, list) else ():
        lost += ['aliases.%s: %s' % (one['name'], key) for key in ('singularity_options', 'singularity_script')
                 if one.get(key)]
    by_name = all(shlex.split(command) == [command] and posixpath.basename(command) == alias
                  and posixpath.dirname(command) in ('', *ON_PATH) for alias, command in found.items())
    return list(found) if by_name else {alias: literal(command) for alias, command in found.items()}


def _environment(env, lost):
    found = {}
    rule = schema.load('recipe')['properties']['container_env']['propertyNames']
    for name, value in env.items():
        if not re.search(rule['pattern'], name):
            lost.append('env.%s: must be %s' % (name, rule['description']))
        elif re.search('[$`]', value):
            lost.append('env.%s: %s is for a shell to read' % (name, schema.quote(value)))
        else:
            found[name] = literal(value)
    return found


def _test(values):
    """Return a command that starts the software (str); what it is for nobody has written down."""
    commands = list(values['commands'])
    first = next((one for one in commands if one.lower() == values['name'].lower()), next(iter(commands), None))
    start = shlex.quote(first) if first else 'start-shell -c :'
    return 'timeout 60 %s </dev/null >/dev/null 2>&1; test $? -lt 126' % start


def _problem(text, word):
    try:
        FORMATS[word](text)
    except ValueError as err:
        return str(err)
    return None
