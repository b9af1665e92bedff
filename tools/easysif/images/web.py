# SPDX-License-Identifier: GPL-2.0-only
"""SIF files that a web server has: looked at, and fetched, by way of the site's mirrors."""

import shlex
from contextlib import contextmanager
from dataclasses import dataclass

from easysif.errors import TOOL, EasySIFError
from easysif.images.download import Download, validator
from easysif.images.progress import Progress
from easysif.images.sources import Source, check_certificates, first_answer, sources
from easysif.images.transport import NoAnswer, Transport

WORDS = {404: 'no such file', 410: 'no such file'}


@dataclass(frozen=True)
class Seen:
    """A file as a server describes it: who has it (Source), its number of bytes (int) and what tells this state of it
    from others (str); both None where the server does not say."""

    source: Source
    size: int
    validator: str


def look(reference, site, where):
    """Ask who has a file, without fetching it (Seen).

    :param reference: of kind URL (Reference)
    :param site: its ``registry_mirrors`` and ``ca_certificates`` are used
    :param where: the recipe, for messages (str)
    :raises EasySIFError: nobody has it
    """
    def ask(source):
        with _open(source, reference, site, {}) as answer:
            return Seen(source, answer.length(), validator(answer.headers))

    check_certificates(site.ca_certificates, where)
    found, failures = first_answer(sources(reference.registry, site.registry_mirrors, where), ask)
    if not found:
        raise _not_to_be_had(reference, failures, where)
    return found


def fetch(reference, seen, target, site, where, digest=None, tell=None):
    """Fetch a file, and return its digest, ``sha256:…`` (str), which is not judged here.

    :param seen: what `look` found (Seen)
    :param target: the file to write, which must not exist (str)
    :param digest: what it must have (str), None where that is not known; then only the state that was seen counts
    :param tell: takes a line for the log now and then (callable: str)
    :raises EasySIFError: nobody gives all of it, there is no room for it

    The other parameters are those of `look`.
    """
    others = [one for one in sources(reference.registry, site.registry_mirrors, where) if one != seen.source]
    failures, name = [], reference.path.rpartition('/')[2].partition('?')[0] or reference.registry
    with Progress(name, seen.size, tell) as progress, Download(target, name, where, digest=digest,
                                                               count=progress.add) as download:
        for source in (seen.source, *others):
            try:
                download.take(lambda headers: _open(source, reference, site, headers))
                return download.sha256
            except NoAnswer as err:
                failures.append((source, err))
    raise _not_to_be_had(reference, failures, where)


@contextmanager
def _open(source, reference, site, headers):
    scheme = 'http' if source.plain_http or not source.mirror and reference.text.startswith('http:') else 'https'
    url = '%s://%s/%s%s' % (scheme, source.host, source.prefix, reference.path)
    transport = Transport(url, site.ca_certificates, netrc=True)
    with transport.open(url, headers) as answer:
        if answer.status == 401 and transport.has_login:
            raise answer.refusal({401: 'login refused'})
        if answer.status not in (200, 206):
            raise answer.refusal(WORDS)
        yield answer


def _not_to_be_had(reference, failures, where):
    source, last = failures[-1]
    host = source.host.rpartition(':')[0] or source.host
    if last.status in (401, 403):
        hint = 'write a login into ~/.netrc: machine %s login NAME password PASSWORD' % host
    elif all(err.status in (404, 410) for _, err in failures):
        hint = 'correct the address in the recipe'
    else:
        hint = 'check the network: curl -LI %s' % shlex.quote(reference.text)
    return EasySIFError(where, "image '%s' is not to be had" % reference.text, exit_code=TOOL, hint=hint,
                        facts=[(source.label, err.reason) for source, err in failures])
