# SPDX-License-Identifier: GPL-2.0-only
"""A recipe from an image: it is fetched as for an installation, looked into, and what was seen is written down."""

import os
import re
import tempfile
from contextlib import contextmanager, suppress

from easysif import files, installed, recipe, runtime
from easysif.authoring.compose import (
    Proposal, check_free, check_suffix, compose, image_of, literal, look_at, path_of, write)
from easysif.authoring.software import look
from easysif.errors import EasySIFError, told
from easysif.images import kept
from easysif.images.inspect import VENV_COMMANDS, look_inside
from easysif.images.place import sha256_of
from easysif.images.reference import DEFINITION, FILE, parse
from easysif.obtain import Places, obtain
from easysif.real_test import shortcoming
from easysif.schema import quote
from easysif.text import sentence

#: packages of Python whose modules are of the class ai
_AI = ('jax', 'torch', 'tensorflow', 'transformers', 'vllm', 'keras', 'flax', 'scikit-learn')

#: rules that a recipe need not keep yet: what an image does not say only its author can
LEFT = ('tested', 'described', 'has_a_homepage')

#: what stands for a homepage that nobody knows, until `easysif check` is content
NO_HOMEPAGE = 'https://example.org'


def new(values, site, directory='.', kind=None, searched=(), force=False, dry_run=False, tell=None, show=None):
    """Write a recipe for an image, which waits where ``eb`` takes it from (Proposal).

    :param values: its name, version, versionsuffix and image as in a recipe, and other parameters that are known and
                   not looked for (dict)
    :param site: the resolved site (Site)
    :param directory: where to write it (str); in a tree of recipes by letter and name
    :param kind: 'environment' or 'tool' module, None to find out (str)
    :param searched: directories where image files may be (list of str)
    :param force: whether another recipe may be written over (bool)
    :param dry_run: write nothing (bool)
    :param tell: takes a line for people (callable: str)
    :param show: takes what is at work now (callable: str)
    :raises EasySIFError: the image is not to be had, or nothing in it is worth a module
    """
    given = {key: value for key, value in values.items() if value}
    values = dict({'easyblock': 'ContainerImage', 'homepage': NO_HOMEPAGE, 'description': given['name'],
                   'toolchain': recipe.CONSTANTS['SYSTEM']}, **given)
    check_suffix(values.get('versionsuffix', ''))
    target = path_of(values, directory)
    wanted = recipe.validate(values, os.path.basename(target))
    reference = parse(wanted.image, wanted.where)
    check_free(target, force or dry_run)
    program = runtime.find(site, wanted.where)
    with _places(wanted, site, searched, tell) as places:
        obtained = obtain(wanted, site, program, places)
        facts = look_inside(obtained.path, program, wanted, wanted.where)
        software = look(wanted.name, obtained.path, program, facts, wanted.where, show)
        digest = obtained.origin.get('digest') or (
            'sha256:' + sha256_of(obtained.path) if reference.kind == FILE else None)
    found, notes = _work(given, wanted, kind, facts, software)
    about, more = _about(given, wanted, software)
    values.update(found, **about)
    values.update(image=image_of(wanted.version, given['image']), digest=None if reference.digest else digest)
    licence = sentence(software.licence)[:60]
    text = compose(values, {'name': licence and 'licence, as the image says: %s' % licence})
    proposal = Proposal(target, text, digest, [*more, *notes, *_to_do(values, reference, directory)])
    look_at([proposal], LEFT)
    if not dry_run:
        write(proposal, force)
    return proposal


@contextmanager
def _places(wanted, site, searched, tell):
    """Give where to look for an image and to work on it (Places): what is fetched is kept for ``eb``."""
    directories = [os.path.abspath(one) for one in (*searched, '.')]

    def find_file(name):
        found = (os.path.join(one, name) for one in directories)
        return next(filter(os.path.isfile, found), None)

    sources = os.path.join(installed.source_paths(installed.easybuild_prefix())[0], 'easysif')
    is_ours = os.access(files.existing_directory(sources), os.W_OK)
    log = is_named = None
    try:
        downloads, work = kept.directories(site, os.path.dirname(sources),
                                           sources if is_ours else tempfile.gettempdir())
        for directory in (downloads, work):
            os.makedirs(directory, exist_ok=True)
        log = os.path.join(work, 'easysif-new-%d.log' % os.getpid())
        yield Places(find_file, directories, downloads, work, log, lock={'wait': None, 'tell': tell})
    except (EasySIFError, OSError) as err:
        is_named = log and log in str(err)
        raise told(err, wanted.where) from err
    finally:
        with suppress(OSError):
            if log and not is_named:
                os.unlink(log)


def _work(given, wanted, kind, facts, software):
    """Return the parameters that say what the module is for (dict), and what is to be said of them (list of str)."""
    python = facts.python if facts.python and facts.python.has_venv and facts.python.version[:2] != '2.' else None
    if kind == 'environment' and not python:
        raise EasySIFError(wanted.where, 'the image has no Python 3 with venv to work in',
                           facts=[('python', '%s  (%s)' % (facts.python.path, facts.python.version)
                                   if facts.python else 'none')], hint='leave out --environment')
    commands = list(given.get('commands') or software.commands)
    bears_name = wanted.name.lower() in (one.lower() for one in commands if not VENV_COMMANDS.match(one))
    is_environment = kind == 'environment' or kind is None and python and not bears_name and (
        software.packages or {'python', 'python3'}.intersection(commands))
    if is_environment:
        has_pip = python.has_pip or python.has_ensurepip
        commands = ['python', 'python3', *(['pip'] if has_pip else []),
                    *(one for one in commands if not VENV_COMMANDS.match(one))]
    if not commands:
        raise EasySIFError(wanted.where, 'nobody knows which commands of the image are worth a wrapper',
                           facts=[('there', ', '.join(list(facts.available)[:40]) or 'no shell, so nothing was seen')],
                           hint='name them: easysif new %s %s --image %s --commands NAME,NAME'
                           % (wanted.name, wanted.version, wanted.image))
    notes = []
    if software.broken and not given.get('commands'):
        notes.append('commands: left out, as they do not start inside the image: %s' % ', '.join(software.broken))
    if software.source in ('name', 'place') and not given.get('commands'):
        notes.append('commands: taken %s, as no package of the image is called %s; look at them' % (
            'by their names' if software.source == 'name' else "from outside the system's directories", wanted.name))
    if software.version and software.version != wanted.version:
        notes.append('version: the image says that it has %s %s' % (wanted.name, software.version))
    return {'commands': commands, 'needs': list(software.needs),
            'python_env': wanted.name if is_environment else None,
            'conda_env': facts.conda.name if is_environment and facts.conda and facts.conda.name != 'base' else None,
            'provides': [_provided(one, wanted, software) for one in software.packages] if is_environment else None,
            'moduleclass': given.get('moduleclass') or (
                'ai' if any(one.lower() in _AI for one in software.packages) else 'tools')}, notes


def _provided(package, wanted, software):
    is_it = software.version == wanted.version and package.lower() == wanted.name.lower()
    return '%s/%%(version)s' % package if is_it else package


def _about(given, wanted, software):
    """Return homepage and description (dict), and what is to be said of them (list of str)."""
    homepage = given.get('homepage') or software.homepage
    notes = []
    if not re.fullmatch(r'https?://[!-Z^-~]{1,500}', homepage):
        notes.append('homepage: %s; write one, or give --homepage' % (
            'the image says %s, which is no web address' % ascii(homepage) if homepage else 'the image names none'))
        homepage = NO_HOMEPAGE
    description = sentence(given.get('description') or software.summary)
    if not description:
        notes.append('description: the image says nothing; write it, or give --description')
    description = re.sub(r'\]==+|\[==+\[', ' ', description[:200] or wanted.name)
    return {'homepage': literal(homepage), 'description': literal(description)}, notes


def _to_do(values, reference, directory):
    """Return what is left to do beside the recipe, or in it (list of str)."""
    notes = []
    if os.path.isabs(reference.path):
        notes.append('image: a path of this machine; put the file into the image store, and write its name alone')
    elif reference.kind == DEFINITION and os.path.abspath(directory) != os.getcwd():
        notes.append('image: put %s beside the recipe' % reference.path)
    tests = values.get('sanity_check_commands') or ()
    if not tests:
        notes.append('sanity_check_commands: write a test that does the work of %s, or give --test' % values['name'])
    elif all(map(shortcoming, tests)):
        notes.append('sanity_check_commands: %s; write a test that does the work of %s' % (
            ', '.join('%s %s' % (quote(one), shortcoming(one)) for one in tests), values['name']))
    return notes
