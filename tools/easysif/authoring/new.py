# SPDX-License-Identifier: GPL-2.0-only
"""A recipe from an image: it is fetched as for an installation, looked into, and what was seen is written down."""

import os
import re
import tempfile
from dataclasses import dataclass

from easysif import recipe, runtime
from easysif.authoring.compose import compose, literal, path_of, write
from easysif.authoring.software import look
from easysif.errors import EasySIFError
from easysif.images.inspect import VENV_COMMANDS, look_inside
from easysif.images.place import sha256_of
from easysif.images.reference import ARCHIVE, FILE, parse
from easysif.obtain import Places, obtain

#: packages of Python that are worth a module class of their own
_AI = ('jax', 'torch', 'tensorflow', 'transformers', 'vllm', 'keras', 'flax')


@dataclass(frozen=True)
class New:
    """A recipe that was written.

    :param path: the file (str)
    :param text: what is in it (str)
    :param notes: what its author has to know or to do (list of str)
    """

    path: str
    text: str
    notes: list


def new(name, version, image, site, directory='.', given=None, kind=None, searched=(), force=False, dry_run=False,
        tell=None):
    """Write a recipe for an image (New).

    :param name: name of the software (str)
    :param version: its version (str)
    :param image: as in a recipe (str)
    :param site: the resolved site (Site)
    :param directory: where to write it (str); in a tree of recipes by letter and name
    :param given: parameters that are known and not looked for (dict)
    :param kind: 'environment' or 'tool' module, None to find out (str)
    :param searched: directories where image files may be (list of str)
    :param force: whether another recipe may be written over (bool)
    :param dry_run: write nothing (bool)
    :param tell: takes a line for people (callable: str)
    :raises EasySIFError: the image is not to be had, or nothing in it is worth a module
    """
    given = {key: value for key, value in (given or {}).items() if value}
    values = {'easyblock': 'ContainerImage', 'name': name, 'version': version,
              'versionsuffix': given.get('versionsuffix', '-singularity'), 'homepage': 'https://example.org',
              'description': 'Software', 'toolchain': {'name': 'system', 'version': 'system'}, 'image': image}
    target = path_of(values, directory)
    draft = recipe.validate(values, os.path.basename(target))
    if os.path.lexists(target) and not force and not dry_run:
        raise EasySIFError(target, 'there is a file already', hint='look at it, or write over it with --force')
    program = runtime.find(site, draft.where)
    with tempfile.TemporaryDirectory(dir=next(filter(None, [site.tmp_dir, site.cache_dir]), None)) as work:
        obtained = obtain(draft, site, program, _places(work, searched, site, tell))
        facts = look_inside(obtained.path, program, draft, draft.where)
        software = look(name, obtained.path, program, facts, draft.where)
    values, notes = _values(values, given, kind, facts, software, draft.where)
    digest = given.get('digest') or _digest(draft, obtained)
    values.update({'toolchain': 'SYSTEM', 'image': image, 'digest': digest})
    comments = {'image': '' if digest or image.endswith('.def') else 'not pinned: no digest is known'}
    if software.licence:
        comments['name'] = 'licence, as the image says: %s' % _one_line(software.licence)[:60]
    text = compose({key: value for key, value in values.items() if value}, comments)
    write(target, text, force, without=('tested',), dry_run=dry_run)
    return New(target, text, notes)


def _places(work, searched, site, tell):
    directories = [os.path.abspath(one) for one in (*searched, '.')]

    def find_file(name):
        found = (os.path.join(one, name) for one in directories)
        return next(filter(os.path.isfile, found), None)

    downloads = os.path.join(work, 'downloads')
    os.mkdir(downloads)
    return Places(find_file, lambda path: None, directories, downloads, work, os.path.join(work, 'build.log'),
                  lock={'wait': 0, 'tell': tell, 'hint': None})


def _values(values, given, kind, facts, software, where):
    """Return the parameters (dict), and what is to be said of them (list of str)."""
    notes = []
    is_python = bool(facts.python and facts.python.has_venv and int(facts.python.version.split('.')[0]) >= 3)
    if kind == 'environment' and not is_python:
        raise EasySIFError(where, 'the image has no Python 3 with venv to work in',
                           facts=[('python', '%s %s' % (facts.python.path, facts.python.version)
                                   if facts.python else 'none')],
                           hint='leave out --environment')
    bears_name = values['name'].lower() in (one.lower() for one in software.commands if not VENV_COMMANDS.match(one))
    commands = list(given.get('commands') or software.commands)
    is_environment = kind == 'environment' or kind is None and is_python and not bears_name and bool(
        software.packages or {'python', 'python3'}.intersection(commands))
    if is_environment:
        of_python = [one for one in ('python', 'python3', 'pip') if one in facts.available]
        commands = of_python + [one for one in commands if not VENV_COMMANDS.match(one)]
    if not commands:
        raise EasySIFError(where, 'nobody knows which commands of the image are worth a wrapper',
                           facts=[('there', ', '.join(list(facts.available)[:40]) or 'no shell, so nothing was seen')],
                           hint='name them: easysif new %s %s --image %s --commands NAME,NAME'
                           % (values['name'], values['version'], values['image']))
    if software.source in ('name', 'place') and not given.get('commands'):
        notes.append('commands: taken %s, as no package of the image is called %s: look at them' % (
            {'name': 'by their names', 'place': 'from outside the system\'s directories'}[software.source],
            values['name']))
    if software.version and software.version != values['version']:
        notes.append('version: the image says that it has %s %s' % (values['name'], software.version))
    if os.path.isabs(values['image']):
        notes.append('image: a path of this machine; put the file into the image store, and write its name alone')
    for key, found, other in (('homepage', software.homepage, 'https://example.org'),
                              ('description', _sentence(software.summary), 'Software %s' % values['name'])):
        if not given.get(key) and not found:
            notes.append('%s: the image says none, write one' % key)
        values[key] = literal(given.get(key) or found or other)
    if not re.match(r'https?://\S+\Z', values['homepage']):
        notes.append('homepage: %r is no web address, write one' % values['homepage'])
        values['homepage'] = 'https://example.org'
    is_ai = any(one.lower() in _AI for one in software.packages)
    values.update(
        needs=given.get('needs') or list(software.needs), commands=commands,
        python_env=values['name'] if is_environment else None,
        conda_env=facts.conda.name if is_environment and facts.conda and facts.conda.name != 'base' else None,
        provides=['%s/%%(version)s' % one if software.version == values['version'] and
                  one.lower() == values['name'].lower() else one for one in software.packages if is_environment],
        moduleclass=given.get('moduleclass') or ('ai' if is_ai else 'tools'),
        sanity_check_commands=given.get('sanity_check_commands'))
    if not values['sanity_check_commands']:
        notes.append('sanity_check_commands: write a test that does the work of %s; easysif check says how'
                     % values['name'])
    return values, notes


def _digest(draft, obtained):
    kind = parse(draft.image, draft.where).kind
    if kind in (FILE, ARCHIVE) and not obtained.origin.get('digest'):
        return 'sha256:' + sha256_of(obtained.path)
    return obtained.origin.get('digest')


def _one_line(text):
    return ' '.join(''.join(char if char.isprintable() else ' ' for char in text).split())


def _sentence(text):
    """Return a text of the image's as the description of a recipe: one line, no article, no full stop (str)."""
    text = re.sub(r'^(an?|the)\s+', '', _one_line(text), flags=re.IGNORECASE).rstrip('. ')
    return text[:1].upper() + text[1:200]
