# SPDX-License-Identifier: GPL-2.0-only
"""One registry over HTTP: time-outs, proxies, login, and a reason in words when there is no answer.

The library ``oras`` was tried for this and is not used: its requests have no time-out (a stalled registry hangs for
ever), an unreachable mirror costs 131 seconds of retries, and a registry with plain password login cannot be asked.
"""

import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from easysif.images import credentials

CONNECT_TIMEOUT = 10  # seconds
READ_TIMEOUT = 30  # seconds without a single byte
LARGEST = 8 << 20  # bytes of a manifest or an image configuration; registries accept 4 MiB

CHALLENGE = re.compile(r'\b(Bearer|Basic)\b((?:\s*,?\s*[A-Za-z_]+\s*=\s*(?:"[^"]*"|[^\s,"]+))*)', re.IGNORECASE)
PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


class NoAnswer(Exception):
    """A registry did not give what it was asked for; another one may.

    :param reason: why, for people, without any secret (str)
    :param status: HTTP status, 0 where there was none (int)
    """

    def __init__(self, reason, status=0):
        super().__init__(reason)
        self.reason, self.status = reason, status


@dataclass(frozen=True)
class Answer:
    """What a registry sent: the bytes as they came, and their media type ('' where it said none)."""

    data: bytes
    media_type: str


class Client:
    """A conversation with one registry.

    :param host: HOST or HOST:PORT that serves the registry's API (str)
    :param plain_http: speak http instead of https (bool)
    :param login: the name under which its login is kept (str)
    :param variables: whether a login in the environment is meant for it (bool)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    """

    def __init__(self, host, plain_http=False, login='', variables=False, ca_certificates=None):
        import requests  # costs 0.2 s, and most commands ask no registry

        self.base = '%s://%s' % ('http' if plain_http else 'https', host)
        self.plain_http, self.verify = plain_http, ca_certificates or True
        self.login_name, self.variables = login or host, variables
        self.errors = requests.exceptions
        self.session = requests.Session()
        # an authentication that adds nothing: otherwise requests takes one from ~/.netrc in place of our token
        self.session.auth = lambda request: request
        # Go, and so the runtime, never uses a proxy for this machine itself; requests would
        self.session.trust_env = not is_loopback(urlsplit(self.base).hostname)

    def get(self, path, accept=()):
        """Return what is at a path of the API (Answer).

        :param path: path below ``/v2/``, ``NAME/manifests/…`` or ``NAME/blobs/…`` (str)
        :param accept: media types that are understood (list of str)
        :raises NoAnswer: it is not there, or not to be had
        """
        url = '%s/v2/%s' % (self.base, path)
        headers = {'Accept': ', '.join(accept) or '*/*', 'Accept-Encoding': 'identity'}
        status, back, data = self._request(url, headers)
        if status == 401:
            login = credentials.find(self.login_name, self.variables)
            headers['Authorization'] = self._authorization(back.get('WWW-Authenticate', ''), login, path)
            status, back, data = self._request(url, headers)
            if status == 401:
                # Docker Hub answers so for a name that does not exist
                raise NoAnswer('%s (HTTP 401)' % ('login refused' if login else 'no such image, or login needed'), 401)
        if status != 200:
            known = {403: 'access refused', 404: 'no such image', 429: 'too many requests, try again later'}
            words = known.get(status, 'server error' if status >= 500 else 'unexpected answer')
            raise NoAnswer('%s (HTTP %d)' % (words, status), status)
        return Answer(data, back.get('Content-Type', '').partition(';')[0].strip())

    def _request(self, url, headers, params=None):
        """Return status, headers and body of one request (int, mapping, bytes)."""
        try:
            with self.session.get(url, headers=headers, params=params, stream=True, verify=self.verify,
                                  timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)) as response:
                data = bytearray()
                for chunk in response.iter_content(65536):
                    data += chunk
                    if len(data) > LARGEST:
                        raise NoAnswer('answer is longer than %d MiB' % (LARGEST >> 20), response.status_code)
                if response.headers.get('Content-Length', str(len(data))) != str(len(data)):
                    raise NoAnswer('connection was cut')
                return response.status_code, response.headers, bytes(data)
        except (self.errors.RequestException, OSError) as err:
            raise NoAnswer(self._why(err)) from err

    def _authorization(self, challenge, login, path):
        """Return the header value that answers a challenge (str)."""
        offers = {kind.lower(): {name.lower(): quoted or bare for name, quoted, bare in PARAMETER.findall(rest)}
                  for kind, rest in CHALLENGE.findall(challenge)}
        if 'bearer' in offers:
            return 'Bearer %s' % self._token(offers['bearer'], login, path)
        if 'basic' in offers and login:
            return login.header()
        raise NoAnswer('login needed (HTTP 401)', 401)

    def _token(self, offer, login, path):
        """Return the token that a registry's login server gives for reading one repository (str)."""
        realm = offer.get('realm', '')
        if urlsplit(realm).scheme not in (('http', 'https') if self.plain_http else ('https',)):
            raise NoAnswer('its login server has no https address', 401)
        repository = re.sub(r'/(manifests|blobs)/[^/]*\Z', '', path)
        params = {'service': offer.get('service'), 'scope': offer.get('scope') or 'repository:%s:pull' % repository}
        status, _, data = self._request(realm, {'Authorization': login.header()} if login else {}, params)
        answer = credentials.read_json(data)
        token = answer.get('token') or answer.get('access_token')
        if status != 200 or not isinstance(token, str):
            raise NoAnswer('login %s (HTTP %d from its login server)' % ('refused' if login else 'needed', status), 401)
        return token

    def _why(self, err):
        """Return in words why a request had no answer; addresses and headers are left out (str)."""
        if isinstance(err, self.errors.ConnectTimeout):
            return 'no connection within %d s' % CONNECT_TIMEOUT
        chain = [err]
        while chain[-1].__cause__ or chain[-1].__context__:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        for one in chain:
            if isinstance(one, (socket.timeout, self.errors.ReadTimeout)):
                return 'no byte within %d s' % READ_TIMEOUT
            if isinstance(one, ssl.SSLCertVerificationError):
                return 'its certificate is not trusted (%s)' % one.verify_message
            if isinstance(one, socket.gaierror):
                return 'host name is not known (%s)' % one.strerror
            if isinstance(one, OSError) and one.strerror:
                return 'no connection (%s)' % one.strerror
        return 'connection was cut (%s)' % type(err).__name__


def is_loopback(host):
    """Tell whether a host name or address is this machine's own (bool)."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
