# SPDX-License-Identifier: GPL-2.0-only
"""What a recipe's ``image`` means: the text is taken apart once, here, and nothing is asked of any registry.

Names of ``docker://`` images follow docker's own rules, so that a reference means here what it means there.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from easysif.errors import EasySIFError

DOCKER, ORAS, LIBRARY, URL, ARCHIVE, FILE, DEFINITION = 'docker', 'oras', 'library', 'url', 'archive', 'file', 'def'

ARCHIVES = ('docker-archive', 'oci-archive')
SUPPORTED = ('docker://HOST/NAME:TAG, oras://HOST/NAME:TAG, library://NAME:TAG, https://HOST/NAME.sif, NAME.sif, '
             'NAME.def, docker-archive:NAME.tar, oci-archive:NAME.tar')

SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*):')
PORT = re.compile(r'[^/@:]+:[0-9]+/[^@]*\Z')
HOST = re.compile(r'(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*'
                  r'|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?\Z')
REPOSITORY = re.compile(r'[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*\Z')
TAG = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z')
LIBRARY_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._:@/-]*[A-Za-z0-9]')
DIGEST = re.compile(r'sha256:[0-9a-f]{64}\Z')

DOCKER_HUB = 'docker.io'


@dataclass(frozen=True)
class Reference:
    """One image as a recipe names it; a part that the kind does not have is ''.

    ``kind`` is DOCKER, ORAS, LIBRARY, URL, ARCHIVE, FILE or DEFINITION; ``text`` is what was written; ``registry``,
    ``repository``, ``tag`` and ``digest`` belong to DOCKER and ORAS (with a digest the tag is for people only);
    ``registry`` and ``path`` to URL, host and what follows it; ``path`` to the files, ``scheme`` to ARCHIVE.
    """

    kind: str
    text: str
    registry: str = ''
    repository: str = ''
    tag: str = ''
    digest: str = ''
    path: str = ''
    scheme: str = ''

    @property
    def file(self):
        """Name of the file, by which a mapping of checksums is asked (str)."""
        return (self.path or self.text).partition('?')[0].rpartition('/')[2]

    def name(self):
        """Return what people call it: ``nvcr.io/nvidia/jax:24.10-py3``, or the path (str)."""
        if self.kind not in (DOCKER, ORAS):
            return self.path or self.text
        return '%s/%s%s' % (self.registry, self.repository, ':' + self.tag if self.tag else '')


def parse(text, where):
    """Return what an image text refers to (Reference).

    :param text: value of the field ``image`` of a recipe, or the base of a definition (str)
    :param where: the file it stands in, for messages (str)
    :raises EasySIFError: the text names no image, or one of a kind that is not supported
    """
    if not isinstance(text, str):
        raise EasySIFError(where, 'image must be a text, not %r' % (text,), hint="write image = 'docker://…'")
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise EasySIFError(where, 'image %r is empty, or holds blanks at its ends or control characters' % text,
                           facts=[('supported', SUPPORTED)], hint="write image = 'docker://…'")
    match = SCHEME.match(text)
    if match:
        scheme = match.group(1)
        check_no_login(text, where)
        if text.startswith(('docker://', 'oras://')):
            return _in_registry(text, scheme, where)
        if text.startswith(('https://', 'http://')):
            return _url(text, where)
        if text.startswith('library://') and LIBRARY_NAME.fullmatch(text[len('library://'):]):
            return Reference(kind=LIBRARY, text=text)
        if scheme in ARCHIVES and re.search(r'[^/]\Z', text[len(scheme) + 1:]):
            path = text[len(scheme) + 1:]
            _check_path(path, text, where)
            return Reference(kind=ARCHIVE, text=text, path=path, scheme=scheme)
        raise _unsupported(text, scheme, where)
    _check_path(text, text, where)
    for suffix, kind in (('.sif', FILE), ('.def', DEFINITION)):
        if text.endswith(suffix) and not text.endswith('/' + suffix) and text != suffix:
            return Reference(kind=kind, text=text, path=text)
    raise EasySIFError(where, "image '%s' is neither a reference nor a .sif or .def file" % text,
                       facts=[('supported', SUPPORTED)],
                       hint="write image = 'docker://%s', if it is in a registry" % text)


def check_no_login(text, where):
    """Do nothing where a reference holds no login, however it is spelled.

    :param text: the reference (str)
    :param where: the file it stands in, for messages (str)
    :raises EasySIFError: it does, which the message does not show
    """
    scheme, separator, rest = text.partition('://')
    kind = scheme.lower() if separator else text.partition(':')[0].lower()
    if kind in ARCHIVES or not SCHEME.match(text) and text.endswith(('.sif', '.def')):  # files, called as they may be
        return
    before, at, after = re.sub(r'@sha256:[^@/]*\Z', '', rest if separator else text).rpartition('@')
    if kind in ('https', 'http'):  # elsewhere in an address of the web it means nothing
        is_login = at and not HOST.match((rest if separator else text[len(kind) + 1:].lstrip('/')).partition('/')[0])
        hint = 'write it into ~/.netrc: machine %s login NAME password PASSWORD'
    else:
        # HOST:PORT/NAME@ANYTHING is a digest that is none
        is_login = at and ('/' in after or ':' in before and not PORT.match(before))
        hint = 'apptainer registry login --username NAME {}://%s'.format(
            kind if kind in (ORAS, LIBRARY) else DOCKER)
    if is_login:
        host = after.partition('/')[0]
        raise EasySIFError(where, 'image holds a login, which a recipe must not', facts=[('host', host)],
                           hint=hint % host)


def file_name(reference, module):
    """Return how the SIF file of an image is called in an installation, and best in an image store (str).

    :param reference: what the recipe names (Reference)
    :param module: name and full version of the module (str)
    """
    return os.path.basename(reference.path) if reference.kind == FILE else '%s.sif' % module.replace('/', '-')


def is_digest(text):
    """Tell whether a text is a digest as we use them, ``sha256:`` and 64 hexadecimal digits (bool)."""
    return isinstance(text, str) and bool(DIGEST.match(text))


def _check_path(path, text, where):
    if '..' in path.split('/'):
        raise EasySIFError(where, "image '%s' leaves the directories that are searched for images" % text,
                           hint="write the file's name alone or its absolute path")


def _url(text, where):
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not HOST.match(parts.netloc) or not parts.path.strip('/') or parts.fragment:
        raise EasySIFError(where, "image '%s' is not the address of a file" % text,
                           hint="write image = 'https://HOST/PATH/NAME.sif'")
    return Reference(kind=URL, text=text, registry=parts.netloc, path=text.split('/', 3)[3])


def _in_registry(text, scheme, where):
    rest, at, digest = text[len(scheme + '://'):].partition('@')
    if at and not is_digest(digest):
        raise _malformed(text, where, "digest '%s' is not sha256: and 64 hexadecimal digits" % digest)
    head, slash, tail = rest.partition('/')
    # docker takes the first part for a host when it cannot be a user's name on Docker Hub
    if slash and ('.' in head or ':' in head or head == 'localhost' or head.lower() != head):
        registry, rest = head, tail
    elif scheme == ORAS:
        raise _malformed(text, where, "'%s' is not a host name" % head)
    else:
        registry = DOCKER_HUB
    if not HOST.match(registry):
        raise _malformed(text, where, "'%s' is not a host name" % registry)
    if registry in ('index.docker.io', 'registry-1.docker.io'):
        registry = DOCKER_HUB
    repository, colon, tag = rest.partition(':')
    if registry == DOCKER_HUB and repository and '/' not in repository:
        repository = 'library/' + repository
    if not REPOSITORY.match(repository):
        reason = ('the name must be in lower case' if REPOSITORY.match(repository.lower())
                  else "'%s' is not a name: letters, digits and single . _ - between them" % repository)
        raise _malformed(text, where, reason)
    if len(registry) + 1 + len(repository) > 255:
        raise _malformed(text, where, 'the name is longer than 255 characters')
    if colon and not TAG.match(tag):
        raise _malformed(text, where, "tag '%s' is not up to 128 letters, digits and _ . -" % tag)
    return Reference(kind=scheme, text=text, registry=registry, repository=repository,
                     tag=tag or ('' if digest else 'latest'), digest=digest)


def _malformed(text, where, reason):
    scheme = text.partition(':')[0]
    return EasySIFError(where, "image '%s' is not a%s reference" % (text, ' docker' if scheme == DOCKER else 'n oras'),
                        facts=[('reason', reason)],
                        hint="write it as %s pull takes it: image = '%s://HOST/NAME:TAG'"
                             % ('docker' if scheme == DOCKER else 'apptainer', scheme))


def _unsupported(text, scheme, where):
    name = text[len(scheme) + 1:].lstrip('/')
    if scheme.lower() == DOCKER:
        what, hint = "image '%s' is not a docker reference" % text, "write image = 'docker://%s'" % name
    elif scheme.lower() in ARCHIVES:
        what = "image '%s' names no archive" % text
        hint = "write image = '%s:NAME.tar'" % scheme.lower()
    elif scheme.lower() in (ORAS, LIBRARY, 'https', 'http'):
        what = "image '%s' is not a reference" % text
        hint = "write image = '%s://%s'" % (scheme.lower(), name)
    elif '/' in text and not text.startswith(scheme + ':/'):
        # HOST:PORT/NAME looks like a scheme
        what = "image '%s' has no scheme" % text
        hint = "write image = 'docker://%s'" % text
    else:
        what = "image '%s': %s: is not a kind of image" % (text, scheme)
        hint = "write image = 'docker://…', or the name of a .sif or .def file"
    return EasySIFError(where, what, facts=[('supported', SUPPORTED)], hint=hint)
