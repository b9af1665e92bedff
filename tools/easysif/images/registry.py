# SPDX-License-Identifier: GPL-2.0-only
"""From a name to a digest: which bytes a reference stands for, and where they are to be had.

Mirrors are asked in order before the registry itself. Whatever a registry sends is hashed here; what it says about
digests itself is not believed.
"""

import hashlib
from dataclasses import dataclass, field

from easysif.errors import TOOL, EasySIFError
from easysif.images.client import Client, Document
from easysif.images.credentials import read_json
from easysif.images.reference import DOCKER, DOCKER_HUB, ORAS, TAG, is_digest
from easysif.images.sif import architecture
from easysif.images.sources import check_certificates, first_answer, sources
from easysif.images.transport import NoAnswer

INDEXES = ('application/vnd.oci.image.index.v1+json', 'application/vnd.docker.distribution.manifest.list.v2+json')
MANIFESTS = ('application/vnd.oci.image.manifest.v1+json', 'application/vnd.docker.distribution.manifest.v2+json')
IMAGES = ('application/vnd.oci.image.config.v1+json', 'application/vnd.docker.container.image.v1+json')
MOST_PAGES = 50  #: of the list of tags; a registry tells 50 to 1000 on each
SIF_LAYER = 'application/vnd.sylabs.sif.layer.v1.sif'


@dataclass(frozen=True)
class Blob:
    """Bytes that a registry keeps: their digest, their number (int), their media type."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Resolved:
    """One image whose bytes are known.

    ``uri`` is what the runtime is given, ``docker://HOST/NAME@sha256:…`` of this machine's manifest; ``digest`` is
    what the tag stands for (the index of a multi-architecture image), ``manifest_digest`` this machine's manifest;
    ``media_type`` belongs to ``digest``; ``source`` is the host that has it, ``mirror`` whether it is a mirror, and
    ``plain_http`` whether it is spoken to by http; ``architecture`` is Go's name of the image's ('' where it says
    none); ``name`` is what people call the image. ``manifest`` (Document) is the manifest of this machine,
    ``blobs`` its configuration and its layers (tuple of Blob), of an artifact the SIF file alone, and ``asked`` who
    may have them, in order (tuple of Source).
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
    repository: str = field(default='', compare=False)
    manifest: object = field(default=None, compare=False, repr=False)
    blobs: tuple = field(default=(), compare=False, repr=False)
    asked: tuple = field(default=(), compare=False, repr=False)


def resolve(reference, mirrors, where, digest=None, ca_certificates=None):
    """Find out which bytes a reference to a registry stands for, and who has them (Resolved).

    :param reference: what the recipe names, of kind DOCKER or ORAS (Reference)
    :param mirrors: the site's ``registry_mirrors``: host -> URL prefixes, in order (dict of list of str)
    :param where: the recipe, for messages (str)
    :param digest: the recipe's ``digest`` (str), None where it has none
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    :raises EasySIFError: no source has it, a digest does not match, it is not for this machine, or the recipe or the
        site cannot be understood
    """
    if reference.kind not in (DOCKER, ORAS):
        raise EasySIFError(where, "image '%s' is nothing that a registry knows" % reference.text,
                           hint="write image = 'docker://…'")
    check_certificates(ca_certificates, where)
    wanted = _wanted(reference, digest, where)
    asked = sources(reference.registry, mirrors, where)
    found, failures = first_answer(
        asked, lambda source: _ask(client_of(source, ca_certificates), source, asked, reference, wanted, where))
    if found:
        return found
    newer = None
    for source, err in failures:
        if err.status == 404 and wanted and reference.tag and not newer:
            newer = _standing_for(client_of(source, ca_certificates), source, reference)
    raise _not_found(reference, wanted, newer, failures, where)


def tags(reference, mirrors, where, ca_certificates=None):
    """Return the tags that a repository has (list of str), the first thousands of them where they are many.

    :param reference: an image in it, of kind DOCKER or ORAS (Reference)
    :param mirrors: as for `resolve`
    :param where: the recipe, for messages (str)
    :param ca_certificates: as for `resolve`
    :raises EasySIFError: nobody tells them
    """
    def ask(source):
        client, told = client_of(source, ca_certificates), []
        path = '%s%s/tags/list' % (source.prefix, reference.repository)
        for _ in range(MOST_PAGES):
            answer = client.get(path, ['application/json'])
            found = read_json(answer.data).get('tags')
            told += [tag for tag in found if isinstance(tag, str) and TAG.match(tag)] if isinstance(found, list) else []
            path = answer.next_path
            if not path:
                break
        return told

    found, failures = first_answer(sources(reference.registry, mirrors, where), ask)
    if found is None:
        raise _not_found(reference, None, None, failures, where)
    return found


def client_of(source, ca_certificates):
    """Return a conversation with one source (Client).

    :param source: whom to ask (Source)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    """
    return Client(_api_host(source.host), source.plain_http, login=source.host, variables=not source.mirror,
                  ca_certificates=ca_certificates)


def _wanted(reference, digest, where):
    if digest and not is_digest(digest):
        raise EasySIFError(where, "digest '%s' is not sha256: and 64 hexadecimal digits" % (digest,),
                           hint="write digest = 'sha256:…', as docker images --digests shows it")
    if digest and reference.digest and digest != reference.digest:
        raise EasySIFError(where, 'image and digest name two different images',
                           facts=[('image', reference.digest), ('digest', digest)],
                           hint="write the digest once, and image = '%s://%s'" % (reference.kind, reference.name()))
    return digest or reference.digest


def _api_host(host):
    return 'registry-1.docker.io' if host == DOCKER_HUB else host


def _ask(client, source, asked, reference, wanted, where):
    """Return what one source says the reference stands for (Resolved)."""
    repository = source.prefix + reference.repository
    digest, document, answer = _manifest(client, source, repository, wanted or reference.tag, where)
    manifest_digest, machine, media_type = digest, architecture(), answer.media_type
    if 'manifests' in document:
        manifest_digest = _for_machine(document, machine, reference, where)
        _, document, answer = _manifest(client, source, repository, manifest_digest, where)
    blobs = [_blob(one) for one in (document.get('config'), *(document.get('layers') or ()))]
    if None in blobs:
        raise EasySIFError(where, "image '%s' has a manifest of a kind that is not supported" % reference.text,
                           facts=[('found', media_type or 'no media type')], hint='push it again with a current tool')
    if reference.kind == ORAS:
        found, blobs = '', [_sif_of(blobs, reference, where)]
    else:
        found = _architecture(client, source, repository, blobs, reference, where) or machine
        if found != machine:
            raise _other_machine(reference, machine, ['linux/%s' % found], where)
    return Resolved(uri='docker://%s/%s@%s' % (source.host, repository, manifest_digest), digest=digest,
                    manifest_digest=manifest_digest, media_type=media_type, plain_http=source.plain_http,
                    source=source.host, mirror=source.mirror, architecture=found, name=reference.name(),
                    repository=reference.repository, manifest=answer, blobs=tuple(blobs),
                    asked=(source, *(one for one in asked if one != source)))


def _blob(entry):
    """Return what an entry of a manifest names (Blob), None where it makes no sense."""
    if not isinstance(entry, dict) or not is_digest(entry.get('digest')):
        return None
    size = entry.get('size')
    return Blob(entry['digest'], size, str(entry.get('mediaType'))) if type(size) is int and size >= 0 else None


def _architecture(client, source, repository, blobs, reference, where):
    """Return the architecture that the configuration of an image names (str), None where it names none."""
    if blobs[0].media_type not in IMAGES:
        is_sif = len(_sifs(blobs)) == 1
        raise EasySIFError(where, "image '%s' is no container image" % reference.text,
                           facts=[('found', 'a SIF file' if is_sif else blobs[0].media_type), ('supported', IMAGES[0])],
                           hint="write image = 'oras://%s'" % reference.name() if is_sif
                           else 'choose a tag that docker pull can run')
    data = client.get('%s/blobs/%s' % (repository, blobs[0].digest)).data
    _verify(data, blobs[0].digest, source, where)
    return read_json(data).get('architecture')


def _sifs(blobs):
    return [blob for blob in blobs[1:] if blob.media_type == SIF_LAYER]


def _sif_of(blobs, reference, where):
    """Return the one SIF file of an artifact (Blob); one that is alone need not be labelled as such."""
    found = _sifs(blobs) or blobs[1:]
    if len(found) != 1 or blobs[0].media_type in IMAGES:
        is_image = blobs[0].media_type in IMAGES
        raise EasySIFError(where, "image '%s' is not one SIF file" % reference.text,
                           facts=[('found', 'a container image' if is_image else '%d files' % len(found))],
                           hint="write image = 'docker://%s'" % reference.name() if is_image
                           else 'choose a tag that apptainer push made')
    return found[0]


def _manifest(client, source, repository, name, where):
    """Return digest and content of one manifest or index, and how it came (str, dict, Document)."""
    answer = client.get('%s/manifests/%s' % (repository, name), INDEXES + MANIFESTS)
    document = read_json(answer.data)
    if not document:
        # a page of a proxy, for instance: another source may do better
        raise NoAnswer('answer is no manifest')
    if is_digest(name):
        _verify(answer.data, name, source, where)
    return _sha256(answer.data), document, Document(answer.data, document.get('mediaType') or answer.media_type)


def _verify(data, digest, source, where):
    """Hold the bytes that a source sent against the digest it was asked for.

    :raises EasySIFError: they are others
    """
    found = _sha256(data)
    if found != digest:
        raise other_bytes(digest, found, source, where)


def other_bytes(expected, found, source, where):
    """Return the error that tells of a source which sends other bytes than it was asked for (EasySIFError).

    :param expected: the digest that it was asked for (str)
    :param found: that of what it sent (str)
    :param source: who sent it (Source)
    :param where: the recipe, for messages (str)
    """
    todo = ('take it out of registry_mirrors in the site file' if source.mirror
            else 'try again, and tell those who run it')
    return EasySIFError(where, 'digest does not match the image', exit_code=TOOL,
                        facts=[('expected', expected), ('found', '%s  (sent by %s)' % (found, source.label))],
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
                            hint='the tag was pushed again upstream; review it, then run: easysif pin %s' % where)
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
