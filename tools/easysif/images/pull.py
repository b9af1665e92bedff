# SPDX-License-Identifier: GPL-2.0-only
"""What a registry has, brought here: a container image as an OCI layout, or the SIF file of an artifact.

Every blob is held against its digest, continued where it was cut, and asked of the next source where one fails.
"""

import json
import os
import shlex
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed

from easysif.errors import TOOL, EasySIFError
from easysif.images import space
from easysif.images.download import Download
from easysif.images.progress import Progress
from easysif.images.registry import client_of, other_bytes
from easysif.images.transport import NoAnswer
from easysif.text import human

MORE_ROOM = 'export EASYSIF_TMP_DIR=<a directory with more room>'
AT_ONCE = 3  #: layers that are fetched at the same time, as docker does


def layout(resolved, directory, site, where, tell=None, work=None):
    """Bring a container image here as an OCI layout.

    :param resolved: what to fetch (registry.Resolved)
    :param directory: the directory to make of it (str)
    :param site: its ``ca_certificates`` are used
    :param where: the recipe, for messages (str)
    :param tell: takes a line for the log now and then (callable: str)
    :param work: directory in which it will be unpacked (str), the same where None
    :raises EasySIFError: no source has all of it, a source sends other bytes, there is no room for it
    """
    blobs = {blob.digest: blob for blob in resolved.blobs}.values()
    total = sum(blob.size for blob in blobs)
    place = os.path.join(directory, 'blobs', 'sha256')
    os.makedirs(place)
    # they are unpacked and packed again: what is unpacked is no smaller
    is_one = work is None or os.stat(work).st_dev == os.stat(directory).st_dev
    if not is_one:
        space.check(directory, total, resolved.name, where, space.ELSEWHERE)
    space.check(work or directory, 2 * total, 'at least, to unpack %s' % resolved.name, where, MORE_ROOM)
    with Progress(resolved.name, total, tell) as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        failed = threading.Event()

        def count(number):
            if failed.is_set():
                raise CancelledError
            progress.add(number)

        tasks = [pool.submit(_fetch, blob, resolved, os.path.join(place, blob.digest.partition(':')[2]), site, where,
                             count) for blob in blobs]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            failed.set()
            raise
    manifest = {'mediaType': resolved.manifest.media_type, 'digest': resolved.manifest_digest,
                'size': len(resolved.manifest.data)}
    for path, content in ((os.path.join(place, resolved.manifest_digest.partition(':')[2]), resolved.manifest.data),
                          (os.path.join(directory, 'index.json'), _json({'schemaVersion': 2, 'manifests': [manifest]})),
                          (os.path.join(directory, 'oci-layout'), _json({'imageLayoutVersion': '1.0.0'}))):
        with open(path, 'wb') as handle:
            handle.write(content)


def sif(resolved, target, site, where, tell=None):
    """Bring the SIF file of an artifact here, and return its digest, ``sha256:…`` (str).

    The parameters are those of `layout`; ``target`` is the file, which must not exist (str).

    :raises EasySIFError: no source has it, a source sends other bytes, there is no room for it
    """
    blob, = resolved.blobs
    with Progress(resolved.name, blob.size, tell) as progress:
        _fetch(blob, resolved, target, site, where, progress.add)
    return blob.digest


def _fetch(blob, resolved, path, site, where, count):
    failures = []
    with Download(path, resolved.name, where, blob.size, blob.digest, count) as download:
        for source in resolved.asked:
            client = client_of(source, site.ca_certificates)
            url = '%s%s/blobs/%s' % (source.prefix, resolved.repository, blob.digest)
            try:
                download.take(lambda headers: client.open(url, headers))
            except NoAnswer as err:
                failures.append((source.label, err.reason))
                continue
            if download.sha256 != blob.digest:
                raise other_bytes(blob.digest, download.sha256, source, where)
            return
    raise EasySIFError(where, "image '%s' could not be fetched" % resolved.name, exit_code=TOOL,
                       facts=[('part', '%s, %s' % (blob.digest, human(blob.size))), *failures],
                       hint='try again; if it stays so: curl -I https://%s/v2/'
                            % shlex.quote(resolved.asked[-1].host))


def _json(value):
    return json.dumps(value).encode()
