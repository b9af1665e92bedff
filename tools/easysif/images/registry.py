# SPDX-License-Identifier: GPL-2.0-only
"""From a name to a digest: which bytes a reference stands for, and where they are to be had.

Mirrors are asked in order before the registry itself. Whatever a registry sends is hashed here; what it says about
digests itself is not believed.
"""

import hashlib
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from easysif.errors import TOOL, EasySIFError
from easysif.images.client import Client, NoAnswer
from easysif.images.credentials import read_json
from easysif.images.reference import DOCKER, DOCKER_HUB, is_digest
from easysif.images.sif import architecture

INDEXES = ('application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.list.v2+json')
MANIFESTS = ('application/vnd.oci.image.manifest.v1+json', 'application/vnd.docker.distribution.manifest.v2+json')
IMAGES = ('application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json')


@dataclass(frozen=True)
class Resolved:
    """One image whose bytes are known.

    ``uri`` is what the runtime is given, ``docker://HOST/NAME@sha256:…`` of this machine's manifest; ``digest`` is
    what the tag stands for (the index of a multi-architecture image), ``manifest_digest`` this machine's manifest;
    ``media_type`` belongs to ``digest``; ``source`` is the host that has it, ``mirror`` whether it is a mirror, and
    ``plain_http`` whether it is spoken to by http; ``architecture`` is Go's name of the image's; ``name`` is what
    people call the image.
    """

    uri: str
    digest: str
    manifest_digest: str
    media_type: str
    plain_http: bool
    source: str
    mirror: bool
    architecture: str
    name: str


@dataclass(frozen=True)
class Source:
    """A place to ask: label for people, host, prefix of the repository ('' or ``…/``), http, mirror (bool)."""

    label: str
    host: str
    prefix: str = ''
    plain_http: bool = False
    mirror: bool = False


def resolve(reference, mirrors, where, digest=None, ca_certificates=None):
    """Find out which bytes a docker reference stands for, and who has them (Resolved).

    :param reference: what the recipe names, of kind DOCKER (Reference)
    :param mirrors: the site's ``registry_mirrors``: host -> URL prefixes, in order (dict of list of str)
    :param where: the recipe, for messages (str)
    :param digest: the recipe's ``digest`` (str), None where it has none
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    :raises EasySIFError: no source has it, a digest does not match, it is not for this machine, or the recipe or the
        site cannot be understood
    """
    if reference.kind != DOCKER:
        raise EasySIFError(where, "image '%s' is a file, which no registry knows" % reference.text,
                           hint="write image = 'docker://…'")
    check_certificates(ca_certificates, where)
    wanted = _wanted(reference, digest, where)
    failures, newer = [], None
    for source in _sources(reference, mirrors, where):
        client = Client(_api_host(source.host), source.plain_http, login=source.host, variables=not source.mirror,
                        ca_certificates=ca_certificates)
        try:
            return _ask(client, source, reference, wanted, where)
        except NoAnswer as err:
            failures.append((source, err))
            if err.status == 404 and wanted and reference.tag and not newer:
                newer = _standing_for(client, source, reference)
    raise _not_found(reference, wanted, newer, failures, where)


def check_certificates(path, where):
    """Raise an error where the certificates that a site wants to be trusted cannot be read.

    :param path: the site's ``ca_certificates`` (str), None or '' where it has none
    :raises EasySIFError: the file is not there, or is not for us to read
    """
    if path and not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise EasySIFError(where, 'the certificates of the site cannot be read', facts=[('file', path)],
                           hint='correct ca_certificates in the site file, or export EASYSIF_CA_CERTIFICATES=/path')


def _wanted(reference, digest, where):
    if digest and not is_digest(digest):
        raise EasySIFError(where, "digest '%s' is not sha256: and 64 hexadecimal digits" % (digest,),
                           hint="write digest = 'sha256:…', as docker images --digests shows it")
    if digest and reference.digest and digest != reference.digest:
        raise EasySIFError(where, 'image and digest name two different images',
                           facts=[('image', reference.digest), ('digest', digest)],
                           hint="write the digest once, and image = 'docker://%s'" % reference.name())
    return digest or reference.digest


def _sources(reference, mirrors, where):
    """Return the places to ask, in order (list of Source)."""
    sources = []
    for url in (mirrors or {}).get(reference.registry, ()):
        parts = urlsplit(url)
        if '@' in parts.netloc:
            raise EasySIFError(where, 'registry_mirrors of %s holds a login, which a site file must not'
                               % reference.registry, hint='apptainer registry login --username NAME docker://%s'
                               % parts.netloc.rpartition('@')[2])
        if parts.scheme not in ('http', 'https') or not parts.netloc or parts.query or parts.fragment:
            raise EasySIFError(where, "registry_mirrors of %s: '%s' is not a URL prefix" % (reference.registry, url),
                               hint='write http://HOST:PORT or https://HOST/PREFIX in the site file')
        host = parts.netloc
        if '.' not in host and ':' not in host and host != 'localhost':
            # the runtime would take a bare word for a user's name on Docker Hub
            host += ':80' if parts.scheme == 'http' else ':443'
        prefix = parts.path.strip('/')
        sources.append(Source(url, host, prefix + '/' if prefix else '', parts.scheme == 'http', True))
    return sources + [Source(reference.registry, reference.registry)]


def _api_host(host):
    return 'registry-1.docker.io' if host == DOCKER_HUB else host


def _ask(client, source, reference, wanted, where):
    """Return what one source says the reference stands for (Resolved)."""
    repository = source.prefix + reference.repository
    digest, document, media_type = _manifest(client, source, repository, wanted or reference.tag, where)
    manifest_digest, machine = digest, architecture()
    if 'manifests' in document:
        manifest_digest = _for_machine(document, machine, reference, where)
        _, document, _ = _manifest(client, source, repository, manifest_digest, where)
    config = document.get('config')
    if not isinstance(config, dict) or not is_digest(config.get('digest')):
        raise EasySIFError(where, "image '%s' has a manifest of a kind that is not supported" % reference.text,
                           facts=[('found', media_type or 'no media type')], hint='push it again with a current tool')
    if config.get('mediaType') not in IMAGES:
        raise EasySIFError(where, "image '%s' is no container image" % reference.text,
                           facts=[('found', config.get('mediaType')), ('supported', IMAGES[0])],
                           hint='choose a tag that docker pull can run')
    data = client.get('%s/blobs/%s' % (repository, config['digest'])).data
    _verify(data, config['digest'], source, where)
    found = read_json(data).get('architecture') or machine
    if found != machine:
        raise _other_machine(reference, machine, ['linux/%s' % found], where)
    return Resolved(uri='docker://%s/%s@%s' % (source.host, repository, manifest_digest), digest=digest,
                    manifest_digest=manifest_digest, media_type=media_type, plain_http=source.plain_http,
                    source=source.host, mirror=source.mirror, architecture=found, name=reference.name())


def _manifest(client, source, repository, name, where):
    """Return digest, content and media type of one manifest or index (str, dict, str)."""
    answer = client.get('%s/manifests/%s' % (repository, name), INDEXES + MANIFESTS)
    document = read_json(answer.data)
    if not document:
        # a page of a proxy, for instance: another source may do better
        raise NoAnswer('answer is no manifest')
    if is_digest(name):
        _verify(answer.data, name, source, where)
    return _sha256(answer.data), document, document.get('mediaType') or answer.media_type


def _verify(data, digest, source, where):
    """Hold the bytes that a source sent against the digest it was asked for.

    :raises EasySIFError: they are others
    """
    found = _sha256(data)
    if found != digest:
        todo = ('take it out of registry_mirrors in the site file' if source.mirror
                else 'try again, and tell those who run it')
        raise EasySIFError(where, 'digest does not match the image', exit_code=TOOL,
                           facts=[('expected', digest), ('found', '%s  (sent by %s)' % (found, source.label))],
                           hint='%s sends other bytes than it is asked for: %s' % (source.host, todo))


def _for_machine(index, machine, reference, where):
    """Return the digest of this machine's manifest in an index (str)."""
    entries = [entry for entry in index['manifests'] if isinstance(entry, dict)]
    platforms = [(entry.get('platform') or {}, entry.get('digest')) for entry in entries]
    fitting = [(one, digest) for one, digest in platforms
               if one.get('os') == 'linux' and one.get('architecture') == machine and is_digest(digest)]
    if not fitting:
        names = ['/'.join(filter(None, (one.get('os'), one.get('architecture'), one.get('variant'))))
                 for one, _ in platforms if one.get('os') not in (None, 'unknown')]
        raise _other_machine(reference, machine, names, where)
    # a variant such as amd64/v3 may need more than this machine has: the plain one runs everywhere
    return min(fitting, key=lambda pair: pair[0].get('variant') or '')[1]


def _other_machine(reference, machine, names, where):
    return EasySIFError(where, "image '%s' is not made for this machine" % reference.text,
                        facts=[('machine', 'linux/%s' % machine), ('image', ', '.join(names) or 'names no platform')],
                        hint='choose an image or a tag that has linux/%s' % machine)


def _standing_for(client, source, reference):
    """Return what the tag stands for at a source that lost the digest, as a text for people (str), '' if unknown."""
    try:
        answer = client.get('%s%s/manifests/%s' % (source.prefix, reference.repository, reference.tag),
                            INDEXES + MANIFESTS)
    except NoAnswer:
        return ''
    return _sha256(answer.data)


def _not_found(reference, wanted, newer, failures, where):
    asked = [(source.label, err.reason) for source, err in failures]
    if newer:
        return EasySIFError(where, 'digest does not match the image',
                            facts=[('recipe', wanted), ('found', '%s  (%s)' % (newer, reference.name()))] + asked,
                            hint="the tag was pushed again upstream; review it, then write digest = '%s'" % newer)
    source, last = failures[-1]
    if last.status in (401, 403):
        hint = 'apptainer registry login --username NAME docker://%s' % source.host
    elif all(err.status == 404 for _, err in failures):
        hint = 'correct the name, the tag or the digest in the recipe'
    else:
        hint = 'check the network: curl -I https://%s/v2/, or name a mirror under registry_mirrors in the site file' \
            % _api_host(source.host)
    return EasySIFError(where, "image '%s' is not to be had" % reference.text, facts=asked, hint=hint, exit_code=TOOL)


def _sha256(data):
    return 'sha256:%s' % hashlib.sha256(data).hexdigest()
