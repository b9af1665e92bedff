# SPDX-License-Identifier: GPL-2.0-only
"""Definition files: what is really built, with the recipe's values put in and the bases as this site has them.

The header is read as Apptainer and SingularityCE read it; all else of the file passes through untouched.
"""

import os
import re
from dataclasses import dataclass

from easysif.errors import EasySIFError
from easysif.images import reference, registry
from easysif.images.sources import check_allowed
from easysif.images.place import sha256_of

TEMPLATE = re.compile(r'%\((name|version|versionsuffix)\)s')
ARGUMENT = re.compile(r'\{\{\s*(\w+)\s*\}\}')
ARGUMENTS = re.compile(r'^%arguments[ \t]*\n(.*?)(?=^%|\Z)', re.MULTILINE | re.DOTALL)
STAGE = re.compile(r'^bootstrap:', re.IGNORECASE | re.MULTILINE)
EXAMPLE = "let it begin with two lines: 'Bootstrap: docker' and 'From: debian:12'"


@dataclass(frozen=True)
class Base:
    """What one stage starts from.

    ``reference`` is what the definition names, ``source`` what is used for it (a path, or a ``docker://`` reference
    with digest); ``digest`` is that of the manifest or the file, '' where it is not known. ``plain_http`` and
    ``mirror`` are as in registry.Resolved.
    """

    reference: str
    source: str
    digest: str = ''
    plain_http: bool = False
    mirror: bool = False

    @property
    def is_pulled(self):
        """Whether the runtime fetches it from a registry (bool)."""
        return bool(self.digest) and self.source.startswith('docker://')


@dataclass(frozen=True)
class Derived:
    """A definition ready to be built: its text, and the base of each of its stages (tuple of Base, the last one's
    file system is the image's)."""

    text: str
    bases: tuple

    @property
    def base(self):
        """The base of the image itself (Base)."""
        return self.bases[-1]

    @property
    def plain_http(self):
        """Whether a registry is spoken to by http (bool)."""
        return any(base.plain_http for base in self.bases)


def derive(path, values, site, where, build_args=None, find_base=lambda name: None):
    """Return what is to be built for a definition file (Derived).

    :param path: the definition file (str)
    :param values: what ``%(name)s``, ``%(version)s`` and ``%(versionsuffix)s`` stand for (dict of str)
    :param site: its ``base_images``, ``registry_mirrors`` and ``ca_certificates`` are used
    :param where: the recipe, for messages (str)
    :param build_args: what ``{{ name }}`` stands for, besides what ``%arguments`` sections say (dict of str)
    :param find_base: finds the SIF file that ``From:`` names after ``Bootstrap: localimage`` where that is no path
                      (callable: str -> path or None)
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
    parts, bases = [text[:starts[0]]], []
    for start, end in zip(starts, starts[1:] + [len(text)]):
        part, base = _stage(text[start:end], path, site, where, find_base)
        parts.append(part)
        bases.append(base)
    derived = Derived(''.join(parts), tuple(bases))
    pulled = [base for base in bases if base.is_pulled]
    if derived.plain_http and not all(base.plain_http for base in pulled):
        raise EasySIFError(where, "the stages of definition '%s' need both http and https" % path,
                           facts=[(base.reference, base.source) for base in pulled],
                           hint='name an https mirror for all of them in registry_mirrors of the site file')
    return derived


def _stage(text, path, site, where, find_base):
    """Return the text of one stage with its base replaced, and the base (str, Base)."""
    lines = text.splitlines(keepends=True)
    length = next((i for i, line in enumerate(lines) if line.lstrip().startswith('%')), len(lines))
    header = {}
    for number, line in enumerate(lines[:length]):
        key, colon, value = line.partition('#')[0].partition(':')
        if colon:
            header[key.strip().lower()] = (value.strip(), number)
    bootstrap, origin = (header.get(key, ('', 0))[0] for key in ('bootstrap', 'from'))
    if not origin:
        if bootstrap in ('docker', 'localimage', ''):
            raise _malformed(path, where, "its header names no base after 'Bootstrap: %s'" % bootstrap)
        _check_bootstrap(bootstrap, bootstrap, path, site, where)
        return text, Base(bootstrap, bootstrap)
    named = origin if bootstrap == 'localimage' else '%s://%s' % (bootstrap, origin)
    if named in site.base_images:
        base = Base(named, _local(named, site.base_images[named], where))
        replaced = {'bootstrap': 'localimage', 'from': base.source}
    elif bootstrap == 'localimage':
        path = find_base(origin)
        if not path:
            return text, Base(named, named)
        base = Base(named, _usable(os.path.abspath(path), named, where), 'sha256:' + sha256_of(path))
        replaced = {'from': base.source}
    elif bootstrap == 'docker':
        full = '/'.join(filter(None, [header[key][0] for key in ('registry', 'namespace') if key in header] + [origin]))
        asked = reference.parse('docker://' + full, where)
        check_allowed(asked, site, where)
        found = registry.resolve(asked, site.registry_mirrors,
                                 '%s: %s' % (where, os.path.basename(path)), ca_certificates=site.ca_certificates)
        base = Base('docker://' + full, found.uri, found.digest, found.plain_http, found.mirror)
        replaced = {'from': found.uri[len('docker://'):]}
    else:
        _check_bootstrap(bootstrap, named, path, site, where)
        return text, Base(named, named)
    for key, (_, number) in header.items():
        if key in replaced:
            lines[number] = '%s: %s\n' % (key.capitalize(), replaced[key])
        elif key in ('registry', 'namespace'):
            lines[number] = ''
    return ''.join(lines), base


def _check_bootstrap(bootstrap, named, path, site, where):
    """Hold a base that the runtime itself fetches against the registries that the site allows."""
    if site.registries is None or bootstrap == 'scratch':
        return
    if bootstrap in ('oras', 'library') and named != bootstrap:
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
