# SPDX-License-Identifier: GPL-2.0-only
"""HTTP for images: time-outs, proxies, certificates, and a reason in words when there is no answer.

Imports nothing of ours. What it says of a failure holds no address, no header and no login.
"""

import errno
import ipaddress
import socket
import ssl
from contextlib import contextmanager
from urllib.parse import urlsplit

CONNECT_TIMEOUT = 10  #: seconds
READ_TIMEOUT = 30     #: seconds without a single byte
LONGEST_WAIT = 60     #: seconds that a server may ask us to wait before the next try
CHUNK = 1 << 18       #: bytes that are read at once; those of the last one are lost where a connection is cut

PASSING = (408, 425, 429, 500, 502, 503, 504)  #: statuses after which the same request may succeed later
WORDS = {401: 'login needed', 403: 'access refused', 404: 'not found', 410: 'not found',
         429: 'too many requests, try again later'}


class NoAnswer(Exception):
    """A server did not give what it was asked for; another one may.

    :param reason: why, for people, without any secret (str)
    :param status: HTTP status, 0 where there was none (int)
    :param again: the same server may give it to the next request (bool)
    :param wait: seconds that it wants us to wait before that (int)
    """

    def __init__(self, reason, status=0, again=False, wait=0):
        super().__init__(reason)
        self.reason, self.status, self.again, self.wait = reason, status, again, wait


class Answer:
    """What a server answered, whose body is still to be read.

    ``status`` is the HTTP status (int), ``headers`` a mapping that takes names in any case, ``url`` where it came
    from in the end (str).
    """

    def __init__(self, response, transport):
        self.status, self.headers, self.url = response.status_code, response.headers, response.url
        self._response, self._transport = response, transport

    def chunks(self):
        """Yield the body piece by piece (bytes).

        :raises NoAnswer: the connection was cut, or nothing came for too long
        """
        try:
            yield from self._response.iter_content(CHUNK)
        except (self._transport.errors.RequestException, OSError) as err:
            raise self._transport.no_answer(err) from err

    def length(self):
        """Return how many bytes the body has, as the server says (int), None where it does not."""
        text = self.headers.get('Content-Length', '')
        return int(text) if text.isdigit() else None

    def refusal(self, words=None):
        """Return why this status is not what was wanted (NoAnswer).

        :param words: what to say of a status instead of the usual (dict)
        """
        known = {**WORDS, **(words or {})}
        text = known.get(self.status, 'server error' if self.status >= 500 else 'unexpected answer')
        wait = self.headers.get('Retry-After', '')
        return NoAnswer('%s (HTTP %d)' % (text, self.status), self.status, self.status in PASSING,
                        min(int(wait), LONGEST_WAIT) if wait.isdigit() else 0)


class Transport:
    """A conversation with the servers behind one URL.

    :param url: what will be asked, or the beginning of it (str)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    :param netrc: send the login that ~/.netrc has for the host (bool)
    """

    def __init__(self, url, ca_certificates=None, netrc=False):
        import requests  # costs 0.2 s, and most commands ask no server

        self.errors, self._verify = requests.exceptions, ca_certificates or True
        self._session = requests.Session()
        self._session.rebuild_auth = self._send_on  # its own takes a login from ~/.netrc wherever we are sent
        login = requests.utils.get_netrc_auth(url) if netrc else None
        # an authentication that adds nothing: otherwise requests takes one from ~/.netrc in place of our token
        self._session.auth = login or (lambda request: request)
        self.has_login = bool(login)
        # Go, and so the runtime, never uses a proxy for this machine itself; requests would
        self._session.trust_env = not is_loopback(urlsplit(url).hostname)

    @contextmanager
    def open(self, url, headers, params=None, form=None):
        """Give what a server answers to a request (Answer), whatever its status.

        :param url: the address (str)
        :param headers: of the request (dict)
        :param params: of the query (dict)
        :param form: sent by POST, to this address and to none to which it sends us on (dict), None to GET
        :raises NoAnswer: there is no answer, or we are sent on from https to an address without it
        """
        try:
            response = self._session.request(
                'POST' if form else 'GET', url, headers=dict(headers, **{'Accept-Encoding': 'identity'}), params=params,
                data=form, stream=True, verify=self._verify, allow_redirects=not form,
                timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        except (self.errors.RequestException, OSError) as err:
            raise self.no_answer(err) from err
        except ValueError as err:
            raise NoAnswer('its address is none, or one to which it sends us on') from err
        with response:
            yield Answer(response, self)

    def _send_on(self, request, response):
        """Make a request fit for where a server sends us: a login stays with the server that it is for."""
        before, after = response.request.url, request.url
        if urlsplit(before).scheme == 'https' and urlsplit(after).scheme != 'https':
            raise NoAnswer('sends us on to an address without https')
        if self._session.should_strip_auth(before, after):
            request.headers.pop('Authorization', None)

    def no_answer(self, err):
        """Return in words why there was no answer (NoAnswer); addresses and headers are left out.

        :param err: what was raised (exception)
        """
        if isinstance(err, self.errors.ConnectTimeout):
            return NoAnswer('no connection within %d s' % CONNECT_TIMEOUT)
        chain = [err]
        while chain[-1].__cause__ or chain[-1].__context__:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        for one in chain:
            if isinstance(one, (socket.timeout, self.errors.ReadTimeout)):
                return NoAnswer('no byte within %d s' % READ_TIMEOUT, again=True)
            if isinstance(one, ssl.SSLCertVerificationError):
                return NoAnswer('its certificate is not trusted (%s)' % one.verify_message)
            if isinstance(one, socket.gaierror):
                return NoAnswer('host name is not known (%s)' % one.strerror, again=one.errno == socket.EAI_AGAIN)
            if isinstance(one, OSError) and one.strerror:
                cut = one.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
                return NoAnswer('no connection (%s)' % one.strerror, again=cut)
        return NoAnswer('connection was cut (%s)' % type(err).__name__, again=True)


def is_loopback(host):
    """Tell whether a host name or address is this machine's own (bool)."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
