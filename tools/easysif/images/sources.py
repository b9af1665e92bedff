# SPDX-License-Identifier: GPL-2.0-only
"""Who may be asked for an image: the site's mirrors in their order, then the host that the recipe names."""

import os
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from easysif.errors import EasySIFError
from easysif.images.reference import LIBRARY
from easysif.images.transport import NoAnswer

LIBRARY_HOST = 'cloud.sylabs.io'  #: what library:// without a host means to the runtimes

WAITS = (1, 4)  #: seconds before all are asked again that may answer the next time


@dataclass(frozen=True)
class Source:
    """A place to ask: label for people, host, prefix of the repository ('' or ``…/``), http, mirror (bool)."""

    label: str
    host: str
    prefix: str = ''
    plain_http: bool = False
    mirror: bool = False


def check_allowed(reference, site, where):
    """Do nothing where the site lets an image come from there; files of this host are always allowed.

    :param reference: the image (Reference)
    :param site: its ``registries`` are used, all where None
    :param where: the recipe, for messages (str)
    :raises EasySIFError: it does not
    """
    host = LIBRARY_HOST if reference.kind == LIBRARY else reference.registry
    if host and site.registries is not None and host not in site.registries:
        raise EasySIFError(where, "image is from '%s', which this site does not allow" % host,
                           facts=[('image', reference.text), ('allowed', ', '.join(site.registries) or 'none')],
                           hint='ask for it to be put under registries in the site file, or the image into the store')


def sources(host, mirrors, where):
    """Return the places to ask for what a host has, in order (list of Source).

    :param host: HOST or HOST:PORT as the recipe names it (str)
    :param mirrors: the site's ``registry_mirrors``: host -> URL prefixes, in order (dict of list of str)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: a mirror is no URL prefix, or holds a login
    """
    found = []
    for url in (mirrors or {}).get(host, ()):
        parts = urlsplit(url)
        if '@' in parts.netloc:
            raise EasySIFError(where, 'registry_mirrors of %s holds a login, which a site file must not' % host,
                               hint='apptainer registry login --username NAME docker://%s'
                               % parts.netloc.rpartition('@')[2])
        if parts.scheme not in ('http', 'https') or not parts.netloc or parts.query or parts.fragment:
            raise EasySIFError(where, "registry_mirrors of %s: '%s' is not a URL prefix" % (host, url),
                               hint='write http://HOST:PORT or https://HOST/PREFIX in the site file')
        address = parts.netloc
        if '.' not in address and ':' not in address and address != 'localhost':
            # the runtime would take a bare word for a user's name on Docker Hub
            address += ':80' if parts.scheme == 'http' else ':443'
        prefix = parts.path.strip('/')
        found.append(Source(url, address, prefix + '/' if prefix else '', parts.scheme == 'http', True))
    return found + [Source(host, host)]


def first_answer(places, ask):
    """Return what the first source answers that has an answer, and why those before it had none.

    Those whose failure may pass are asked again after a while, when all others have failed, too.

    :param places: the sources, in order (list of Source)
    :param ask: gives the answer of one (callable: Source -> anything)
    :returns: the answer, None where there is none, and pairs of Source and NoAnswer (tuple)
    """
    failures = {}
    for wait in (0, *WAITS):
        asked = [source for source in places if source not in failures or failures[source].again]
        if not asked:
            break
        if failures:
            time.sleep(max([wait] + [failures[source].wait for source in asked]))
        for source in asked:
            try:
                return ask(source), list(failures.items())
            except NoAnswer as err:
                failures[source] = err
    return None, list(failures.items())


def check_certificates(path, where):
    """Raise an error where the certificates that a site wants to be trusted cannot be read.

    :param path: the site's ``ca_certificates`` (str), None or '' where it has none
    :raises EasySIFError: the file is not there, or is not for us to read
    """
    if path and not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise EasySIFError(where, 'the certificates of the site cannot be read', facts=[('file', path)],
                           hint='correct ca_certificates in the site file, or export EASYSIF_CA_CERTIFICATES=/path')
