# SPDX-License-Identifier: GPL-2.0-only
"""A real OCI registry on a loopback port, and tiny real images in it, for the tests of images."""

import hashlib
import http.server
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

#: bcrypt of PASSWORD: docker-registry takes nothing else
USER, PASSWORD = 'reader', 'loopback secret'
HTPASSWD = '%s:$2b$05$abcdefghijklmnopqrstuuemHb6zXG6T1jrInw5PqYUG0NU0JuG6.\n' % USER

#: what a tiny root file system has in /bin, besides sh
COMMANDS = ('dash', 'cat', 'chown', 'chmod', 'env', 'ls', 'sleep', 'mkdir', 'id', 'touch', 'rm')

INDEX = 'application/vnd.oci.image.index.v1+json'
MANIFEST = 'application/vnd.oci.image.manifest.v1+json'


class LoopbackRegistry:
    """A docker-registry that serves one directory by plain http, with ``login`` to those who know the password."""

    def __init__(self, directory, login=False):
        self.directory, self.login = str(directory), login

    def __enter__(self):
        os.makedirs(self.directory, exist_ok=True)
        config = {'version': 0.1, 'log': {'level': 'info', 'accesslog': {'disabled': True}},
                  'storage': {'filesystem': {'rootdirectory': os.path.join(self.directory, 'data')}},
                  'http': {'addr': '127.0.0.1:0'}}
        if self.login:
            with open(os.path.join(self.directory, 'htpasswd'), 'w') as handle:
                handle.write(HTPASSWD)
            config['auth'] = {'htpasswd': {'realm': 'Registry Realm', 'path': handle.name}}
        path = os.path.join(self.directory, 'config.yml')
        with open(path, 'w') as handle:
            json.dump(config, handle)  # JSON is YAML
        said = os.path.join(self.directory, 'log')
        with open(said, 'wb') as log:
            self.process = subprocess.Popen(['docker-registry', 'serve', path], stdout=log, stderr=log)
        while True:
            with open(said, errors='replace') as log:
                text = log.read()
            found = re.search(r'listening on 127\.0\.0\.1:([0-9]+)', text)
            if found:
                break
            assert self.process.poll() is None, 'docker-registry did not start: %s' % text
            time.sleep(0.05)
        self.port = int(found.group(1))
        self.host = 'localhost:%d' % self.port
        self.url = 'http://%s' % self.host
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def push(self, layout, name):
        """Push an image of an OCI layout (``DIR:TAG``) as ``name``, ``repository:tag``; return its digest (str)."""
        login = ['--dest-creds', '%s:%s' % (USER, PASSWORD)] if self.login else []
        call('skopeo', 'copy', '-q', '--dest-tls-verify=false', *login, 'oci:%s' % layout,
             'docker://%s/%s' % (self.host, name))
        return self.digest(name)

    def digest(self, name):
        """Return the digest of what a tag stands for (str)."""
        return digest_of(self.manifest(name))

    def manifest(self, name):
        """Return the manifest that a tag stands for (bytes)."""
        repository, tag = name.split(':')
        request = urllib.request.Request('%s/v2/%s/manifests/%s' % (self.url, repository, tag),
                                         headers={'Accept': '%s, %s' % (INDEX, MANIFEST)})
        if self.login:
            manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            manager.add_password(None, self.url, USER, PASSWORD)
            opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
            return opener.open(request, timeout=10).read()
        return urllib.request.urlopen(request, timeout=10).read()

    def put(self, name, document, media_type):
        """Store a manifest or an index under a tag; return its digest (str)."""
        repository, tag = name.split(':')
        data = json.dumps(document).encode()
        request = urllib.request.Request('%s/v2/%s/manifests/%s' % (self.url, repository, tag), data=data,
                                         method='PUT', headers={'Content-Type': media_type})
        urllib.request.urlopen(request, timeout=10).read()
        return digest_of(data)

    def blob(self, digest):
        """Return the file in which the registry keeps a blob (str)."""
        algorithm, value = digest.split(':')
        return os.path.join(self.directory, 'data', 'docker/registry/v2/blobs', algorithm, value[:2], value, 'data')


def call(*argv, **options):
    """Run a tool of the tests, and show what it printed if it fails."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, '%s\n%s' % (' '.join(argv), done.stdout)


def digest_of(data):
    """Return the digest of some bytes (str)."""
    return 'sha256:%s' % hashlib.sha256(data).hexdigest()


def tiny_rootfs(directory, commands=COMMANDS):
    """Make a root file system of 5 MB with a few commands of this machine and what they need; return it (str)."""
    directory = str(directory)
    for name in ('bin', 'etc', 'tmp', 'var/tmp', 'proc', 'dev', 'sys', 'root'):
        os.makedirs(os.path.join(directory, name), exist_ok=True)
    wanted = [os.path.realpath(shutil.which(name)) for name in commands]
    libraries = set()
    for path in wanted:
        shutil.copy(path, os.path.join(directory, 'bin'))
        libraries |= set(re.findall(r'(/\S+) \(0x', subprocess.run(['ldd', path], stdout=subprocess.PIPE,
                                                                   text=True, check=True).stdout))
    for path in libraries:
        target = directory + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)
    os.symlink('dash', os.path.join(directory, 'bin/sh'))
    return directory


def tiny_layout(directory, rootfs, tag='latest', config=()):
    """Put a root file system into an OCI layout as an image; return ``DIR:TAG`` (str).

    :param config: more options of ``umoci config``, such as ``--architecture=riscv64`` (sequence of str)
    """
    layout, image = os.path.join(str(directory), 'layout'), os.path.join(str(directory), 'layout:%s' % tag)
    if not os.path.isdir(layout):
        call('umoci', 'init', '--layout', layout)
    call('umoci', 'new', '--image', image)
    call('umoci', 'insert', '--rootless', '--image', image, rootfs, '/')
    call('umoci', 'config', '--image', image, '--config.cmd=/bin/sh', *config)
    return image


class Stub(http.server.BaseHTTPRequestHandler):
    """Answers from ``server.answers``: path -> (status, headers, body) or a function of the handler, which has what a
    POST sent as ``form``."""

    protocol_version = 'HTTP/1.1'
    form = None

    def do_POST(self):
        self.form = self.rfile.read(int(self.headers['Content-Length'])).decode()
        self.do_GET()

    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        answer = self.server.answers.get(self.path.partition('?')[0], (404, {}, b'{}'))
        status, headers, body = answer(self) if callable(answer) else answer
        self.send_response(status)
        for name, value in dict({'Content-Length': str(len(body)), 'Connection': 'close'}, **headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def answers_of(layout, name):
    """Return what a stub answers that has an image of an OCI layout (``DIR:TAG``) as ``name``, ``repository:tag``."""
    directory, _, tag = layout.rpartition(':')
    repository, name = name.split(':')

    def content(digest):
        with open(os.path.join(directory, 'blobs', *digest.split(':')), 'rb') as handle:
            return handle.read()

    with open(os.path.join(directory, 'index.json')) as handle:
        digest = next(entry['digest'] for entry in json.load(handle)['manifests']
                      if entry['annotations']['org.opencontainers.image.ref.name'] == tag)
    manifest = json.loads(content(digest))
    answers = {'/v2/%s/manifests/%s' % (repository, one): (200, {'Content-Type': MANIFEST}, content(digest))
               for one in (name, digest)}
    answers.update(('/v2/%s/blobs/%s' % (repository, blob['digest']), (200, {}, content(blob['digest'])))
                   for blob in (manifest['config'], *manifest['layers']))
    return answers


def answers_of_sif(data, name):
    """Return what a stub answers that has a SIF file (bytes) as the artifact ``name``, ``repository:tag``."""
    repository, name = name.split(':')
    manifest = json.dumps({
        'schemaVersion': 2, 'mediaType': MANIFEST,
        'config': {'mediaType': 'application/vnd.oci.empty.v1+json', 'digest': digest_of(b'{}'), 'size': 2},
        'layers': [{'mediaType': 'application/vnd.sylabs.sif.layer.v1.sif', 'digest': digest_of(data),
                    'size': len(data)}]}).encode()
    answers = {'/v2/%s/manifests/%s' % (repository, one): (200, {'Content-Type': MANIFEST}, manifest)
               for one in (name, digest_of(manifest))}
    return dict(answers, **{'/v2/%s/blobs/%s' % (repository, digest_of(data)): (200, {}, data)})


@contextmanager
def stub(answers, tls=None):
    """A registry that says what a test wants; gives its server, with ``host`` and ``seen`` (requests)."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Stub)
    server.handle_error = lambda *_: None  # who asks may hang up; what is printed would be taken for a later test's
    server.daemon_threads = True
    server.answers, server.seen, server.host = answers, [], 'localhost:%d' % server.server_port
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def self_signed(directory):
    """Make a certificate for localhost; return it and its key (str, str)."""
    certificate, key = str(directory / 'cert.pem'), str(directory / 'key.pem')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-days', '2',
                    '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate],
                   check=True, stderr=subprocess.DEVNULL)
    return certificate, key
