# SPDX-License-Identifier: GPL-2.0-only
"""Archives of images, as ``docker save`` and skopeo write them: what they say of the image, without unpacking it."""

import json
import shlex
import tarfile

from easysif.errors import EasySIFError
from easysif.images.sif import architecture as machine_architecture

LARGEST = 8 << 20  #: bytes of one document in it


def architecture(path, scheme, where):
    """Return the architecture of the one image in an archive (str, as in Go).

    :param path: the archive, packed or not (str)
    :param scheme: ``docker-archive`` or ``oci-archive`` (str)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: it cannot be read, is no such archive, holds several images or one for another machine
    """
    try:
        with tarfile.open(path) as archive:
            config = (_docker if scheme == 'docker-archive' else _oci)(archive)
    except (OSError, EOFError, tarfile.TarError, KeyError, IndexError, TypeError, ValueError, AttributeError,
            RecursionError) as err:
        other = 'oci-archive' if scheme == 'docker-archive' else 'docker-archive'
        raise EasySIFError(where, 'archive is no %s: %s' % (scheme, path),
                           facts=[('because', '%s (%s)' % (err or 'it ends too early', type(err).__name__))],
                           hint="look into it: tar -tf %s; %s:NAME is the other kind" % (shlex.quote(path), other)
                           ) from err
    found, ours = config.get('architecture'), machine_architecture()
    if found not in (None, ours):
        raise EasySIFError(where, 'image is made for other processors than those of this machine',
                           facts=[('image', '%s  (%s)' % (found, path)), ('machine', ours)],
                           hint='save it again for linux/%s: docker save --platform linux/%s' % (ours, ours))
    return found or ours


def _docker(archive):
    images = _document(archive, 'manifest.json')
    if len(images) != 1:
        raise ValueError('it holds %d images, not one' % len(images))
    return _document(archive, images[0]['Config'])


def _oci(archive):
    manifest = _document(archive, 'index.json')
    for _ in range(3):  # an index may lead to another one
        if 'config' in manifest:
            return _document(archive, _blob(manifest['config']))
        if len(manifest['manifests']) != 1:
            raise ValueError('it holds %d images, not one' % len(manifest['manifests']))
        manifest = _document(archive, _blob(manifest['manifests'][0]))
    raise ValueError('its index leads nowhere')


def _blob(entry):
    return 'blobs/%s' % entry['digest'].replace(':', '/')


def _document(archive, name):
    """Return the JSON document of some name in an archive."""
    names = (name, './' + name)
    member = next((one for one in archive if one.name in names), None)
    if member is None:
        raise KeyError(name)
    with archive.extractfile(member) as handle:
        return json.loads(handle.read(LARGEST))
