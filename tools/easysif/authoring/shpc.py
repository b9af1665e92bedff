# SPDX-License-Identifier: GPL-2.0-only
"""Recipes from those of Singularity HPC (SHPC): its container.yaml as values of ours, and what has no place in them.

What the keys mean was read in SHPC 0.1.32 (main/schemas.py, main/container/config.py and singularity.py).
"""

import os
import posixpath
import re
import shlex

import yaml

from easysif import rules, schema, yaml_file
from easysif.authoring.compose import Proposal, check_suffix, compose, literal, look_at, path_of
from easysif.errors import EasySIFError, SeveralErrors
from easysif.formats import FORMATS
from easysif.images.reference import is_digest
from easysif.text import sentence

#: directories that are on the PATH of practically every image, so that a command there is known by its name
ON_PATH = ('/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin')

#: keys that a file of ``overrides`` may replace for a tag
OVERRIDES = ('aliases', 'env', 'features', 'description', 'docker_script', 'singularity_script')

REGISTRY = 'https://github.com/singularityhub/shpc-registry'


def proposals(path, tag=None, all_tags=False, suffix='-singularity', directory='.'):
    """Return the recipes that a container.yaml makes (list of Proposal), all of which keep the rules.

    :param path: the file (str)
    :param tag: which of its tags (str), None for the latest
    :param all_tags: one for each version, of its last build (bool)
    :param suffix: the versionsuffix (str)
    :param directory: where they are to be (str)
    :raises EasySIFError: it cannot be read, is not what SHPC would take, has no such tag, or makes no valid recipe
    """
    check_suffix(suffix)
    found = _Container(path)
    chosen = found.last_builds() if all_tags else [tag or next(iter(found.values['latest']))]
    made = []
    for one in chosen:
        values, lost = found.of(one, suffix)
        comments = {'sanity_check_commands': 'not tested: SHPC tells no work to do, so it is only started'}
        if not values.get('digest'):
            comments['image'] = 'not pinned: no digest in %s' % os.path.basename(path)
        made.append(Proposal(path_of(values, directory), compose(values, comments), values.get('digest'), lost))
    try:
        look_at(made)
    except SeveralErrors as err:
        raise SeveralErrors([EasySIFError('%s: %s' % (path, problem.where), problem.what, facts=problem.facts,
                                          hint=problem.hint) for problem in err.errors]) from err
    return made


class _Container:
    """A container.yaml: ``values`` as they are written, every scalar a text (dict)."""

    def __init__(self, path):
        self.path = path
        self.values, self.lines = _read(path)
        problems = schema.problems('shpc', self.values)
        if problems:
            raise SeveralErrors([EasySIFError(self.place(*one.path), one.what, facts=one.facts, hint=one.hint)
                                 for one in problems])
        self.tags = {**self.values['tags'], **self.values['latest']}

    def place(self, *keys):
        """Return where a key is, for messages (str)."""
        line = next((self.lines[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self.lines), None)
        return '%s:%d' % (self.path, line) if line else self.path

    def last_builds(self):
        """Return the tags of which to make recipes (list of str): of each version the last build."""
        return list({tag.partition('--')[0]: tag for tag in self.tags}.values())

    def of(self, tag, suffix):
        """Return the values of a recipe for a tag (dict), and what could not be carried over (list of str)."""
        if tag not in self.tags:
            near = schema.closest(tag, self.tags)
            raise EasySIFError(self.path, 'has no tag %s' % schema.quote(tag), facts=[('tags', ', '.join(self.tags))],
                               hint="did you mean '%s'?" % near if near else 'take one of these')
        lost = []
        found = self._overridden(tag, lost)
        values = {'easyblock': 'ContainerImage', **self._identity(tag), 'versionsuffix': suffix}
        values.update(self._image(tag, values, lost), homepage=_homepage(found, lost),
                      description=_description(found, values['name']),
                      needs=_needs(found.get('features') or {}, lost),
                      commands=_commands(found.get('aliases') or {}, lost),
                      container_env=_environment(found.get('env') or {}, lost))
        values['moduleclass'] = 'bio' if '/biocontainers/' in values['image'] else 'tools'
        values['sanity_check_commands'] = [_test(values)]
        lost.append('sanity_check_commands: %s; the one here starts a command, no more' % (
            '%s is a script, and recipes have no shell' % found['test'] if found.get('test') else 'SHPC has no test'))
        lost += ['%s: of use to the registry of SHPC only' % key for key in ('filter', 'maintainer') if found.get(key)]
        lost += ['%s: for docker' % key for key in ('docker_scripts', 'docker_script') if found.get(key)]
        scripts = found.get('singularity_scripts') or {}
        lost += ['singularity_scripts: %s is a script, and recipes have no shell' % name
                 for name in [*scripts, *filter(None, [found.get('singularity_script')])]]
        return values, lost

    def _overridden(self, tag, lost):
        """Return the values with those that the file of ``overrides`` has for a tag in their place (dict)."""
        name = (self.values.get('overrides') or {}).get(tag)
        if not name:
            return self.values
        if os.path.basename(name) != name:
            raise EasySIFError(self.place('overrides', tag), 'must be the name of a file beside it, not %s'
                               % schema.quote(name), hint='copy that file beside it, and write its name alone')
        beside = os.path.join(os.path.dirname(self.path), name)
        values, _ = _read(beside)
        if not isinstance(values, dict):
            raise EasySIFError(beside, 'must be a mapping, not %s' % schema.describe(values),
                               hint='write KEY: VALUE, with keys out of %s' % ', '.join(OVERRIDES))
        lost += ['%s: an override, %s, cannot have it' % (key, name) for key in values if key not in OVERRIDES]
        both = {**self.values, **{key: item for key, item in values.items() if key in OVERRIDES}}
        problems = schema.problems('shpc', both)
        if problems:
            raise SeveralErrors([EasySIFError(beside, one.what, facts=one.facts, hint=one.hint) for one in problems])
        return both

    def _identity(self, tag):
        """Return name and version (dict): of the repository, and of the tag without the build that follows ``--``."""
        key = next(filter(self.values.get, ('oras', 'gh', 'docker')), None)
        source = self.values[key] if key else os.path.dirname(os.path.abspath(self.path))
        values = {'name': posixpath.basename(source.rstrip('/')), 'version': tag.partition('--')[0]}
        for word, place, hint in (('name', [key], 'call the repository, or this directory, after the software'),
                                  ('version', ['tags', tag], 'choose another tag: --tag TAG')):
            rule = schema.load('recipe')['properties'][word]
            if not re.search(rule['pattern'], values[word]) or len(values[word]) > rule['maxLength']:
                raise EasySIFError(self.place(*place), '%s of the recipe would be %s, and must be %s' % (
                    word, schema.quote(values[word]), rule['description']), hint=hint)
        return values

    def _image(self, tag, values, lost):
        """Return image and digest (dict), of what SHPC would take first."""
        known, value = self.values, self.tags[tag]
        build = literal(tag[len(values['version']):])
        digest = {'digest': value} if is_digest(value) else {}
        if not digest and not known.get('gh'):
            lost.append('digest: %s is none' % schema.quote(value))
        if known.get('gh') and not known.get('oras'):
            # where the releases of singularityhub/singularity-deploy have it
            return {'image': 'https://github.com/%s/releases/download/%s/%s.%%(version)s%s.sif' % (
                literal(known['gh']), literal(value), literal(known['gh'].replace('/', '-')), build)}
        for scheme in ('oras', 'docker'):
            if known.get(scheme):
                return {'image': '%s://%s:%%(version)s%s' % (scheme, literal(known[scheme]), build), **digest}
        if known.get('path'):
            file = '%(name)s-%(version)s.sif'
            lost.append('image: cp -- %s %s, here or into the image store' % (
                shlex.quote(os.path.join(os.path.dirname(self.path), known['path'])),
                shlex.quote('%s-%s.sif' % (values['name'], values['version']))))
            return {'image': file, **digest}
        raise EasySIFError(self.path, 'names no image', facts=[('known', 'oras, gh, docker, path')],
                           hint='write docker: HOST/NAME')


def _read(path):
    """Return what a file of SHPC holds, every scalar a text, and the lines of its keys."""
    values, lines = yaml_file.read(path, yaml.BaseLoader)
    with open(path, 'rb') as handle:
        # what was cut off is mostly valid YAML all the same; YAML may also be UTF-16
        if values is not None and not handle.read().endswith((b'\n', b'\n\0')):
            raise EasySIFError(path, 'ends within a line, as a file of which only a part was fetched',
                               hint='fetch it again; if this is all of it: echo >> %s' % shlex.quote(path))
    if isinstance(values, dict):  # a key without a value is one that is not there
        values = {key: item for key, item in values.items() if item not in ('', '~', 'null')}
    return values, lines


def _homepage(found, lost):
    url = found.get('url', '')
    if re.fullmatch(r'https?://[!-Z^-~]{1,500}', url):
        return literal(url)
    if url:
        lost.append('url: %s is no web address' % schema.quote(url))
    return REGISTRY


def _description(found, name):
    text = re.sub(r'\]==+|\[==+\[', ' ', sentence(found['description']))
    return literal(text) if text.lower() not in ('', name.lower()) else 'Software of the registry of SHPC'


def _needs(features, lost):
    needs = []
    for name, value in features.items():
        if value.lower() not in ('true', 'yes', 'on', '1'):
            continue
        if name == 'gpu':
            needs.append('nvidia-gpu')
            lost.append('features.gpu: taken for a GPU of NVIDIA; for one of AMD write amd-gpu')
        elif name == 'x11':
            needs.append('x11?')
        elif name != 'home':  # which the runtimes bind by themselves
            lost.append('features.%s: not known here' % name)
    return needs


def _commands(aliases, lost):
    """Return the wrappers: a list where each is known by its name on the image's PATH, else name -> command (dict)."""
    found = {}
    pairs = aliases.items() if isinstance(aliases, dict) else [(one['name'], one['command']) for one in aliases]
    for alias, command in pairs:
        problem = _problem(alias, 'command-name') or _problem(command, 'command-line') or (
            'would hide that of the host' if alias in rules.NOT_TO_SHADOW else
            'names no command' if command in ('null', '~') else
            'is for a shell to read: %s' % schema.quote(command) if re.search(r'[$`|&;<>*?~(){}!#]', command) else None)
        if problem:
            lost.append('aliases.%s: %s' % (alias, problem))
        else:
            found[alias] = command
    for one in aliases if isinstance(aliases, list) else ():
        lost += ['aliases.%s: %s has no place in a recipe' % (one['name'], key)
                 for key in one if key not in ('name', 'command')]
    if not found:
        lost.append('commands: there are none, so the module has start-shell only')
    by_name = all(shlex.split(command) == [command] and posixpath.basename(command) == alias
                  and posixpath.dirname(command) in ('', *ON_PATH) for alias, command in found.items())
    return list(found) if by_name else {alias: literal(command) for alias, command in found.items()}


def _environment(env, lost):
    found, rule = {}, schema.load('recipe')['properties']['container_env']['propertyNames']
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
    return 'timeout 60 %s </dev/null >/dev/null 2>&1; test $? -lt 126' % (
        literal(shlex.quote(first)) if first else 'start-shell -c :')


def _problem(text, word):
    try:
        FORMATS[word](text)
    except ValueError as err:
        return str(err)
    return None
