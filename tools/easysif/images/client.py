# SPDX-License-Identifier: GPL-2.0-only
"""One registry over HTTP: its API, and the login that it asks for.

The library ``oras`` was tried for this and is not used: its requests have no time-out (a stalled registry hangs for
ever), an unreachable mirror costs 131 seconds of retries, and a registry with plain password login cannot be asked.
"""

import re
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from easysif.images import credentials
from easysif.images.transport import NoAnswer, Transport, is_loopback

CLIENT = 'easysif'  #: how we call ourselves where an identity token is shown
LARGEST = 8 << 20  # bytes of a manifest or an image configuration; registries accept 4 MiB

CHALLENGE = re.compile(r'\b(Bearer|Basic)\b((?:\s*,?\s*[A-Za-z_]+\s*=\s*(?:"[^"]*"|[^\s,"]+))*)', re.IGNORECASE)
PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
NEXT = re.compile(r'<(?:https?://[^/>]*)?/v2/([^>]+)>\s*;\s*rel="?next"?')
WORDS = {404: 'no such image'}


@dataclass(frozen=True)
class Document:
    """What a registry sent: the bytes, their media type and the path of the next page ('' where it said none)."""

    data: bytes
    media_type: str
    next_path: str = ''


class Client:
    """A conversation with one registry about one repository.

    :param host: HOST or HOST:PORT that serves the registry's API (str)
    :param plain_http: speak http instead of https (bool)
    :param login: the name under which its login is kept (str)
    :param variables: whether a login in the environment is meant for it (bool)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    """

    def __init__(self, host, plain_http=False, login='', variables=False, ca_certificates=None):
        self.base = '%s://%s' % ('http' if plain_http else 'https', host)
        self.plain_http, self.login_name, self.variables = plain_http, login or host, variables
        self._transport, self._authorization = Transport(self.base, ca_certificates), None

    def get(self, path, accept=()):
        """Return what is at a path of the API (Document).

        :param path: path below ``/v2/``, ``NAME/manifests/…`` or ``NAME/blobs/…`` (str)
        :param accept: media types that are understood (list of str)
        :raises NoAnswer: it is not there, or not to be had
        """
        with self.open(path, {'Accept': ', '.join(accept) or '*/*'}) as answer:
            media_type = answer.headers.get('Content-Type', '').partition(';')[0].strip()
            following = NEXT.match(answer.headers.get('Link', ''))
            return Document(_read(answer), media_type, following[1] if following else '')

    @contextmanager
    def open(self, path, headers):
        """Give what is at a path of the API (Answer), the whole or the part that the headers ask for.

        :param path: as for `get` (str)
        :param headers: of the request (dict)
        :raises NoAnswer: it is not there, or not to be had
        """
        url = '%s/v2/%s' % (self.base, path)
        for is_last in (False, True):
            login = {'Authorization': self._authorization} if self._authorization else {}
            with self._transport.open(url, dict(headers, **login)) as answer:
                if answer.status in (200, 206):
                    yield answer
                    return
                if answer.status != 401:
                    raise answer.refusal(WORDS)
                challenge = answer.headers.get('WWW-Authenticate', '')
            if not is_last:  # a token that was good for the last request may be too old for this one
                self._authorize(challenge, path)
        # Docker Hub answers so for a name that does not exist
        raise NoAnswer('%s (HTTP 401)' % (
            'login refused' if self._find_login(path) else 'no such image, or login needed'), 401)

    def _find_login(self, path):
        return credentials.find(self.login_name, self.variables, repository=_repository(path))

    def _authorize(self, challenge, path):
        """Find the header value that answers a challenge."""
        login = self._find_login(path)
        offers = {kind.lower(): {name.lower(): quoted or bare for name, quoted, bare in PARAMETER.findall(rest)}
                  for kind, rest in CHALLENGE.findall(challenge)}
        if 'bearer' in offers:
            self._authorization = 'Bearer %s' % self._token(offers['bearer'], login, path)
        elif 'basic' in offers and login and login.token:
            raise NoAnswer('has no login server, to which an identity token could be shown', 401)
        elif 'basic' in offers and login:
            self._authorization = login.header()
        else:
            raise NoAnswer('login needed (HTTP 401)', 401)

    def _token(self, offer, login, path):
        """Return the token that a registry's login server gives for reading one repository (str)."""
        realm, ours = offer.get('realm', ''), urlsplit(self.base).hostname
        try:
            parts = urlsplit(realm)
            is_fit = parts.scheme in (('http', 'https') if self.plain_http else ('https',))
        except ValueError:
            is_fit = False
        if not is_fit:
            raise NoAnswer('its login server has no https address', 401)
        if login and self.plain_http and parts.hostname != ours and not is_loopback(ours):
            raise NoAnswer('names the login server %s without https, as anybody on the way could have done: no login '
                           'is sent there' % parts.hostname, 401)
        params = {'service': offer.get('service'),
                  'scope': offer.get('scope') or 'repository:%s:pull' % _repository(path)}
        headers, form = {'Authorization': login.header()} if login else {}, None
        if login and login.token:  # OAuth 2, as docker does it: never in an address, which servers log
            headers, params, form = {}, None, dict(params, grant_type='refresh_token', refresh_token=login.token,
                                                   client_id=CLIENT)
        with self._transport.open(realm, headers, params, form) as answer:
            told = credentials.read_json(_read(answer))
            status, passing = answer.status, answer.refusal()
        token = told.get('token') or told.get('access_token')
        if status != 200 or not isinstance(token, str):
            raise NoAnswer('login %s (HTTP %d from its login server)' % ('refused' if login else 'needed', status), 401,
                           passing.again, passing.wait)
        return token


def _repository(path):
    return re.sub(r'/(manifests|blobs|tags)/[^/]*\Z', '', path)


def _read(answer):
    """Return the whole body of a small answer (bytes)."""
    data = bytearray()
    for chunk in answer.chunks():
        data += chunk
        if len(data) > LARGEST:
            raise NoAnswer('answer is longer than %d MiB' % (LARGEST >> 20), answer.status)
    if answer.length() not in (None, len(data)):
        raise NoAnswer('connection was cut', again=True)
    return bytes(data)
