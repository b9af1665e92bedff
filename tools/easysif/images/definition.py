# SPDX-License-Identifier: GPL-2.0-only
"""Definition files: what is really built, with the recipe's values put in and the bases as this site has them.

The header is read as Apptainer and SingularityCE read it; all else of the file passes through untouched.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field

from easysif.errors import EasySIFError
from easysif.images import reference, registry, sif
from easysif.images.place import sha256_of
from easysif.images.sources import check_allowed

TEMPLATE = re.compile(r'%\((name|version|versionsuffix)\)s')
ARGUMENT = re.compile(r'\{\{\s*(\w+)\s*\}\}')
ARGUMENTS = re.compile(r'^%arguments[ \t]*\n(.*?)(?=^%|\Z)', re.MULTILINE | re.DOTALL)
STAGE = re.compile(r'^bootstrap:', re.IGNORECASE | re.MULTILINE)
SIGNED = ('localimage', 'oras', 'library', 'shub')  #: of other bases the runtimes pass over Fingerprints in silence
EXAMPLE = "let it begin with two lines: 'Bootstrap: docker' and 'From: debian:12'"


@dataclass(frozen=True)
class Base:
    """What one stage starts from.

    ``reference`` is what the definition names, ``source`` what is used for it (a path, or a reference with digest);
    ``digest`` is that of the manifest or the file, '' where it is not known. ``resolved`` (registry.Resolved) is what
    we fetch for it, None for what the runtime finds or fetches itself.
    """

    reference: str
    source: str
    digest: str = ''
    resolved: object = field(default=None, compare=False, repr=False)

    @property
    def is_sif(self):
        """Whether it is the SIF file of an artifact (bool)."""
        return self.source.startswith('oras://')


@dataclass(frozen=True)
class Stage:
    """One stage of a definition: its lines (tuple of str), where in them the keys of its header are (dict of int), what
    it starts from (Base), and what its header says then: ``bootstrap``, ``from`` (dict of str)."""

    lines: tuple
    header: dict
    base: Base
    replaced: dict

    def text(self, replaced=None, comment=''):
        """Return its text (str).

        :param replaced: what the header is to say instead (dict of str), ``replaced`` where None
        :param comment: to stand before it (str)
        """
        replaced, lines = self.replaced if replaced is None else replaced, list(self.lines)
        for key, number in self.header.items():
            if key in replaced:
                lines[number] = '%s: %s\n' % (key.capitalize(), replaced[key])
            elif replaced and key in ('registry', 'namespace'):
                lines[number] = ''
        return comment + ''.join(lines)


@dataclass(frozen=True)
class Derived:
    """A definition ready to be built: what stands before its stages (str), and these (tuple of Stage). The file system
    of the last one is the image's."""

    head: str
    stages: tuple

    @property
    def bases(self):
        """What the stages start from (tuple of Base)."""
        return tuple(stage.base for stage in self.stages)

    @property
    def base(self):
        """The base of the image itself (Base)."""
        return self.bases[-1]

    @property
    def text(self):
        """The definition with its bases as they were found, each by digest (str)."""
        return self.head + ''.join(stage.text() for stage in self.stages)

    def with_bases(self, paths, where):
        """Return the definition with the bases that have been fetched, for the runtime (str).

        :param paths: where they are, by their ``source``: an OCI layout, or a SIF file (dict of str)
        :param where: the recipe, for messages (str)
        :raises EasySIFError: a path that no definition can hold
        """
        parts = [self.head]
        for stage in self.stages:
            base, path = stage.base, paths.get(stage.base.source)
            parts.append(stage.text() if path is None else stage.text(
                {'bootstrap': 'localimage' if base.is_sif else 'oci', 'from': _usable(path, base.reference, where)},
                '# %s is %s\n' % (base.reference, base.source)))
        return ''.join(parts)


def derive(path, values, site, where, build_args=None, find_base=lambda name: None, find_known=lambda fits: ()):
    """Return what is to be built for a definition file (Derived).

    :param path: the definition file (str)
    :param values: what ``%(name)s``, ``%(version)s`` and ``%(versionsuffix)s`` stand for (dict of str)
    :param site: its ``base_images``, ``registry_mirrors`` and ``ca_certificates`` are used
    :param where: the recipe, for messages (str)
    :param build_args: what ``{{ name }}`` stands for, besides what ``%arguments`` sections say (dict of str)
    :param find_base: finds the SIF file that ``From:`` names after ``Bootstrap: localimage`` where that is no path
                      (callable: str -> path or None)
    :param find_known: finds the images that are here already by their records (callable: (dict -> bool) -> iterable of
                       kept.Obtained), so that a base which one of them was made of is not fetched again
    :raises EasySIFError: no such file, no header, a base that is not to be had, a build argument without a value
    """
    try:
        with open(path, encoding='utf-8', errors='surrogateescape', newline='') as handle:
            text = handle.read()
    except OSError as err:
        raise EasySIFError(where, "definition file '%s' cannot be read (%s)" % (path, err.strerror),
                           hint='put it beside the recipe, or add its directory with --sourcepath') from err
    text = TEMPLATE.sub(lambda match: values[match.group(1)], text)
    starts = [match.start() for match in STAGE.finditer(text)]
    if not starts:
        raise _malformed(path, where, 'it has no line that starts with Bootstrap:')
    text = _with_arguments(text, path, where, dict(build_args or {}))
    starts = [match.start() for match in STAGE.finditer(text)]
    return Derived(text[:starts[0]], tuple(_stage(text[start:end], path, site, where, find_base, find_known)
                                           for start, end in zip(starts, starts[1:] + [len(text)])))


def _stage(text, path, site, where, find_base, find_known):
    """Return one stage with its base as it is found here (Stage)."""
    lines = text.splitlines(keepends=True)
    length = next((i for i, line in enumerate(lines) if line.lstrip().startswith('%')), len(lines))
    header, at = {}, {}
    for number, line in enumerate(lines[:length]):
        key, colon, value = line.partition('#')[0].partition(':')
        if colon:
            header[key.strip().lower()], at[key.strip().lower()] = value.strip(), number
    bootstrap, origin = (header.get(key, '') for key in ('bootstrap', 'from'))
    if not origin and bootstrap in ('docker', 'oras', 'localimage', ''):
        raise _malformed(path, where, "its header names no base after 'Bootstrap: %s'" % bootstrap)
    named = '%s://%s' % (bootstrap, origin)
    if bootstrap == 'localimage' or not origin:
        named = origin or bootstrap
    if bootstrap in ('docker', 'oras', 'library'):
        reference.check_no_login(named, where)
    base, replaced = Base(named, named), {}
    if named in site.base_images:
        base = Base(named, _local(named, site.base_images[named], where))
        replaced = {'bootstrap': 'localimage', 'from': base.source}
    elif bootstrap == 'localimage':
        base = _sif(named, path, where, find_base)
        replaced = {'from': base.source}
    elif bootstrap in ('docker', 'oras'):
        full = '/'.join([*(header[key] for key in ('registry', 'namespace') if header.get(key)), origin])
        base = _pulled('%s://%s' % (bootstrap, full), path, site, where, find_known)
        replaced = {'from': base.source.partition('://')[2]} if base.resolved else {
            'bootstrap': 'localimage', 'from': base.source}
    else:
        _check_bootstrap(bootstrap, named, path, site, where)
    kind = 'localimage' if named in site.base_images else bootstrap
    if header.get('fingerprints') and (kind not in SIGNED or os.path.isdir(base.source)):
        raise EasySIFError(where, "definition '%s' wants a base that is signed, and only SIF files are" % path,
                           facts=[('base', named), ('fingerprints', header['fingerprints'])],
                           hint='take Fingerprints out of its header, and name the base by its digest: From: '
                           'NAME@sha256:…')
    return Stage(tuple(lines), at, base, replaced)


def _pulled(named, path, site, where, find_known):
    """Return a base that a registry has, or what was made of it and is here already (Base)."""
    wanted = reference.parse(named, where)
    check_allowed(wanted, site, where)
    # then nobody needs to be asked
    here = wanted.digest and _here(wanted, wanted.digest, ('digest', 'manifest_digest'), where, find_known)
    if here:
        return Base(named, here, wanted.digest)
    found = registry.resolve(wanted, site.registry_mirrors, '%s: %s' % (where, os.path.basename(path)),
                             ca_certificates=site.ca_certificates)
    here = _here(wanted, found.manifest_digest, ('manifest_digest',), where, find_known)
    if here:
        return Base(named, here, found.digest)
    return Base(named, '%s://%s' % (wanted.kind, found.uri.partition('://')[2]), found.digest, found)


def _here(wanted, digest, keys, where, find_known):
    """Return the SIF file that is here already for a digest (str), None where there is none that is whole and fits.

    A runtime unpacks it to what it unpacks from the registry: in both all files are root's.
    """
    for found in find_known(lambda image: str(image.get('reference')).startswith(wanted.kind + '://')
                            and digest in [image.get(key) for key in keys]):
        with suppress(OSError, EasySIFError):  # the next may be whole
            if found.expected.rpartition(':')[2] == sha256_of(found.path):
                sif.check_architecture(sif.read(found.path, where), where)  # one digest may be of several architectures
                return _usable(os.path.abspath(found.path), wanted.text, where)
    return None


def _sif(named, path, where, find_base):
    """Return a base that is a file of this machine (Base)."""
    found = find_base(named) or os.path.join(os.path.dirname(os.path.abspath(path)), named)
    if not os.path.exists(found):
        raise EasySIFError(where, "the base of definition '%s' is not there: %s" % (os.path.basename(path), named),
                           hint="add its directory with --sourcepath; for the image of a module ('NAME/VERSION'): "
                           "builddependencies = [('NAME', 'VERSION')]")
    return Base(named, _usable(os.path.abspath(found), named, where),
                'sha256:' + sha256_of(found) if os.path.isfile(found) else '')


def _check_bootstrap(bootstrap, named, path, site, where):
    """Hold a base that the runtime itself fetches against the registries that the site allows."""
    if site.registries is None or bootstrap == 'scratch':
        return
    if bootstrap == 'library' and named != bootstrap:
        check_allowed(reference.parse(named, where), site, where)
    else:
        raise EasySIFError(where, "definition '%s' has a base of which it is not known where it comes from, and this "
                           'site does not allow all' % path,
                           facts=[('base', named), ('allowed', ', '.join(site.registries) or 'none')],
                           hint="write Bootstrap: docker, or name it in the site file: base_images: {'%s': /…}" % named)


def _local(named, path, where):
    """Return the absolute path of a base that the site has (str)."""
    path = os.path.abspath(path)
    if not os.path.exists(path):
        raise EasySIFError(where, "the site's base image for '%s' is not there" % named, facts=[('path', path)],
                           hint="correct base_images in the site file: '%s': /path/to/sif-or-directory" % named)
    return _usable(path, named, where)


def _usable(path, named, where):
    """Return a path if a definition can hold it (str)."""
    if '#' in path or '{{' in path or path.endswith('\\') or not path.isprintable():
        raise EasySIFError(where, "the base image for '%s' has a path that no definition can hold" % named,
                           facts=[('path', path)], hint='move it to a path without # {{ \\ and control characters')
    return path


def _with_arguments(text, path, where, given):
    """Return a definition with its build arguments put in, as ``apptainer build --build-arg`` does it (str)."""
    known, used, missing = {}, set(), []
    for section in ARGUMENTS.findall(text):
        known.update((key, value.strip()) for key, value in re.findall(r'^[ \t]*(\w+)=(.*)$', section, re.MULTILINE))

    def value(match):
        used.add(match[1])
        if match[1] not in given and match[1] not in known:
            missing.append(match[1])
        return given.get(match[1], known.get(match[1], ''))

    lines = [line if line.lstrip().startswith('#') else ARGUMENT.sub(value, line)
             for line in text.splitlines(keepends=True)]
    for names, what in ((missing, 'needs the build argument'), (sorted(set(given) - used), 'has no build argument')):
        if names:
            raise EasySIFError(where, "definition '%s' %s '%s'" % (path, what, names[0]),
                               facts=[('has', ', '.join(sorted(used | set(known))) or 'none')],
                               hint="write build_args = {'%s': '…'}" % names[0] if names is missing
                               else "remove '%s' from build_args" % names[0])
    return ''.join(lines)


def _malformed(path, where, reason):
    return EasySIFError(where, "definition '%s' has no usable header" % path, facts=[('reason', reason)], hint=EXAMPLE)
