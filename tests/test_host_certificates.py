# SPDX-License-Identifier: GPL-2.0-only
"""Behind a proxy that looks into TLS: what runs inside trusts its certificates where the site names them."""

import contextlib
import http.server
import ssl
import threading

import pytest

import harness
import toys

pytestmark = pytest.mark.e2e

#: asks for a page, with Python alone and by pip, and shows which variables name the certificates
ASK = '''\
import os, urllib.request
print({os.environ.get(name) for name in ('PIP_CERT', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')})
try:
    print(urllib.request.urlopen('https://example.org/', timeout=20).read().decode())
except urllib.error.URLError as err:
    print(err)
'''


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers in the place of every server that it is asked to connect to, with a certificate of its own making."""

    protocol_version = 'HTTP/1.1'
    context = None

    def do_CONNECT(self):
        """Go on with the TLS that the client starts now."""
        self.send_response(200)
        self.end_headers()
        try:
            self.connection = self.context.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):  # the client does not trust us
            self.close_connection = True
            return
        self.rfile, self.wfile = self.connection.makefile('rb'), self.connection.makefile('wb', 0)
        self.close_connection = False  # though some clients ask for the tunnel in HTTP/1.0

    def do_GET(self):
        """Answer as an index of packages without any."""
        text = b'<html><body>seen by the proxy</body></html>'
        self.send_response(200)
        self.send_header('Content-Type', 'text/html')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Say nothing."""


@contextlib.contextmanager
def proxy(directory):
    """A proxy on the loopback address, with a certificate that a CA has signed whose own is ca.pem (its URL)."""
    def openssl(*argv):
        harness.run(['openssl', *argv], cwd=directory)
    openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=the CA of the proxy', '-days', '2',
            '-keyout', 'ca.key', '-out', 'ca.pem')
    openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=example.org', '-keyout', 'key', '-out', 'request')
    (directory / 'names').write_text('subjectAltName=DNS:example.org\n')
    openssl('x509', '-req', '-in', 'request', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2',
            '-extfile', 'names', '-out', 'cert')
    Proxy.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Proxy.context.load_cert_chain(directory / 'cert', directory / 'key')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield 'http://127.0.0.1:%d' % server.server_address[1]
        server.shutdown()


def test_what_runs_inside_trusts_the_proxy_of_the_site(
        eb, shell, easysif, prefix, images, tmp_path, site_file, monkeypatch):
    with proxy(tmp_path) as url:
        recipe = toys.recipe(tmp_path, image=str(images.sif('venv')), needs=['ca-certificates'], commands=['python'],
                             sanity_check_commands=['python -c "import ssl"'])
        refused = eb(recipe, site=site_file(ca_certificates=''), check=False)
        assert refused.status and "needs 'ca-certificates', which site 'site' does not provide" in refused.output
        eb(recipe, site=site_file(ca_certificates=str(tmp_path / 'ca.pem')))
        (tmp_path / 'ask.py').write_text(ASK)
        variables = {'https_proxy': url, 'HTTPS_PROXY': url, 'no_proxy': None, 'NO_PROXY': None, 'PIP_INDEX_URL': None,
                     'PIP_EXTRA_INDEX_URL': None, 'PIP_TRUSTED_HOST': None}
        script = '''
module load toy
python %s/ask.py
python -m pip download --no-cache-dir --retries 0 -i https://example.org/simple nothing || true
''' % tmp_path
        told = shell(script, env=variables)
        assert "{'%s/ca.pem'}\n" % tmp_path in told.stdout and 'seen by the proxy' in told.stdout, told.output
        assert 'No matching distribution found for nothing' in told.stderr and 'SSL' not in told.output
        monkeypatch.setenv('EASYSIF_SITE', str(site_file(ca_certificates='')))
        assert easysif('site', 'apply', '--prefix', str(prefix))[0] == 0
        told = shell(script, env=variables)
        assert '{None}\n' in told.stdout and 'CERTIFICATE_VERIFY_FAILED' in told.stdout, told.output
        assert 'seen by the proxy' not in told.stdout and 'SSLCertVerificationError' in told.output
