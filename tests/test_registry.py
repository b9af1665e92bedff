# SPDX-License-Identifier: GPL-2.0-only
"""From a reference to a digest: against a real docker-registry, and against stubs that misbehave."""

import base64
import json
import os
import socket
import time
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qs

import pytest

from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.images import client, registry, sif, sources, transport
from easysif.images.reference import parse
from helpers_registry import (INDEX, MANIFEST, PASSWORD, USER, LoopbackRegistry, digest_of, self_signed, stub,
                              tiny_layout, tiny_rootfs)

HERE = sif.architecture()
OTHER = 'riscv64' if HERE != 'riscv64' else 'arm64'
SECRET = 'hunter2-planted'
CONFIG = json.dumps({'architecture': HERE, 'os': 'linux'}).encode()


@pytest.fixture(scope='module')
def layout(tmp_path_factory):
    directory = tmp_path_factory.mktemp('layout')
    return tiny_layout(directory, tiny_rootfs(directory / 'rootfs', commands=('dash',)))


@pytest.fixture(scope='module')
def loopback(tmp_path_factory, layout):
    """A registry with x/tiny:1, and x/multi:1, an index for this machine and two others."""
    directory = tmp_path_factory.mktemp('registry')
    foreign = tiny_layout(os.path.dirname(layout.rpartition(':')[0]), str(directory), 'other',
                          ['--architecture=%s' % OTHER])
    with LoopbackRegistry(directory / 'registry') as running:
        running.push(layout, 'x/tiny:1')
        running.push(layout, 'x/multi:here')
        running.push(foreign, 'x/multi:other')
        running.push(layout, 'deep/prefix/x/tiny:1')
        running.put('x/multi:1', index(entry(running, 'x/multi:other', OTHER), entry(running, 'x/multi:here', HERE),
                                       dict(entry(running, 'x/multi:other', 'unknown'),
                                            platform={'os': 'unknown', 'architecture': 'unknown'})), INDEX)
        running.put('x/multi:foreign', index(entry(running, 'x/multi:other', OTHER),
                                             entry(running, 'x/multi:other', 'arm', variant='v7')), INDEX)
        yield running


@pytest.fixture(autouse=True)
def quiet_home(tmp_path, monkeypatch):
    """No login and no proxy of the caller, and no long waits."""
    monkeypatch.setattr(sources, 'WAITS', (0.01,))
    monkeypatch.setenv('HOME', str(tmp_path))
    for name in list(os.environ):
        if name.lower().endswith('_proxy') or 'DOCKER' in name or name.endswith('CONFIGDIR'):
            monkeypatch.delenv(name)


def index(*entries):
    return {'schemaVersion': 2, 'mediaType': INDEX, 'manifests': list(entries)}


def entry(running, name, architecture, **platform):
    data = running.manifest(name)
    return {'mediaType': MANIFEST, 'digest': digest_of(data), 'size': len(data),
            'platform': dict({'os': 'linux', 'architecture': architecture}, **platform)}


def resolve(text, mirrors, **options):
    return registry.resolve(parse(text, 'x.eb'), mirrors, 'x.eb', **options)


def refusal(text, mirrors, **options):
    with pytest.raises(EasySIFError) as caught:
        resolve(text, mirrors, **options)
    return caught.value


def closed_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def image(config=CONFIG, kind=registry.IMAGES[0]):
    """Return manifest (bytes) and the answers of a stub that has it as x/y:1."""
    manifest = json.dumps({'schemaVersion': 2, 'mediaType': MANIFEST, 'layers': [],
                           'config': {'mediaType': kind, 'digest': digest_of(config), 'size': len(config)}}).encode()
    return manifest, {
        '/v2/x/y/manifests/1': (200, {'Content-Type': MANIFEST}, manifest),
        '/v2/x/y/manifests/%s' % digest_of(manifest): (200, {'Content-Type': MANIFEST}, manifest),
        '/v2/x/y/blobs/%s' % digest_of(config): (200, {}, config)}


def test_a_tag_stands_for_the_digest_of_its_manifest(loopback):
    found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [loopback.url]})
    digest = loopback.digest('x/tiny:1')
    assert found == registry.Resolved(
        uri='docker://%s/x/tiny@%s' % (loopback.host, digest), digest=digest, manifest_digest=digest,
        media_type=MANIFEST, plain_http=True, source=loopback.host, mirror=True, architecture=HERE,
        name='up.invalid/x/tiny:1')


def test_of_an_index_its_own_digest_and_this_machines_manifest_are_found(loopback):
    found = resolve('docker://up.invalid/x/multi:1', {'up.invalid': [loopback.url]})
    assert found.digest == loopback.digest('x/multi:1')
    assert found.manifest_digest == loopback.digest('x/multi:here') != found.digest
    assert found.uri.endswith('@' + found.manifest_digest)
    assert (found.media_type, found.architecture) == (INDEX, HERE)


@pytest.mark.parametrize('name', ['x/multi:1', 'x/multi:here'])
def test_a_recipes_digest_may_be_that_of_the_index_or_of_the_manifest(loopback, name):
    found = resolve('docker://up.invalid/x/multi:1', {'up.invalid': [loopback.url]}, digest=loopback.digest(name))
    assert found.digest == loopback.digest(name)
    assert found.manifest_digest == loopback.digest('x/multi:here')


def test_of_several_variants_the_plain_one_is_taken(loopback):
    document = index(dict(entry(loopback, 'x/multi:other', HERE), platform={
        'os': 'linux', 'architecture': HERE, 'variant': 'v9'}), entry(loopback, 'x/multi:here', HERE))
    loopback.put('x/multi:variants', document, INDEX)
    found = resolve('docker://up.invalid/x/multi:variants', {'up.invalid': [loopback.url]})
    assert found.manifest_digest == loopback.digest('x/multi:here')


def test_an_index_without_this_machine_lists_what_it_has(loopback):
    error = refusal('docker://up.invalid/x/multi:foreign', {'up.invalid': [loopback.url]})
    assert str(error) == ("x.eb: image 'docker://up.invalid/x/multi:foreign' is not made for this machine\n"
                          '  machine  linux/%s\n  image    linux/%s, linux/arm/v7\n'
                          'hint: choose an image or a tag that has linux/%s' % (HERE, OTHER, HERE))
    assert error.exit_code == INPUT


def test_an_image_of_another_architecture_is_refused(loopback):
    error = refusal('docker://up.invalid/x/multi:other', {'up.invalid': [loopback.url]})
    assert '  machine  linux/%s\n  image    linux/%s\n' % (HERE, OTHER) in str(error)


def test_a_mirror_with_a_path_has_the_repositories_below_it(loopback):
    found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [loopback.url + '/deep/prefix/']})
    assert found.uri.startswith('docker://%s/deep/prefix/x/tiny@' % loopback.host)


def test_mirrors_are_asked_in_order_and_one_that_has_nothing_falls_through(loopback):
    dead = 'http://localhost:%d' % closed_port()
    with stub({}) as empty:
        found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': (dead, 'http://' + empty.host, loopback.url)})
    assert found.source == loopback.host
    assert [path for path, _ in empty.seen] == ['/v2/x/tiny/manifests/1']


def test_mirrors_of_another_registry_are_not_asked(loopback):
    error = refusal('docker://localhost:%d/x/tiny:1' % closed_port(), {'up.invalid': [loopback.url]})
    assert 'is not to be had' in str(error) and loopback.host not in str(error)


def test_when_no_source_has_it_each_is_named_with_its_reason(loopback):
    dead, itself = closed_port(), closed_port()
    mirrors = {'localhost:%d' % itself: ['http://localhost:%d' % dead, loopback.url]}
    error = refusal('docker://localhost:%d/x/none:1' % itself, mirrors)
    assert str(error) == (
        "x.eb: image 'docker://localhost:{0}/x/none:1' is not to be had\n"
        '  http://localhost:{1}  no connection (Connection refused)\n'
        '  {2}  no such image (HTTP 404)\n'
        '  {3}  no connection (Connection refused)\n'
        'hint: check the network: curl -I https://localhost:{0}/v2/, or name a mirror under registry_mirrors in the '
        'site file').format(itself, dead, loopback.url.ljust(22), ('localhost:%d' % itself).ljust(22))
    assert error.exit_code == TOOL


def test_a_name_that_is_nowhere_is_the_recipes_mistake(tmp_path):
    certificate, key = self_signed(tmp_path)
    with stub({}, tls=(certificate, key)) as itself, stub({}) as mirror:
        error = refusal('docker://%s/x/none:1' % itself.host, {itself.host: ['http://' + mirror.host]},
                        ca_certificates=certificate)
    assert str(error).endswith('\nhint: correct the name, the tag or the digest in the recipe')
    assert error.exit_code == TOOL


def test_a_host_that_does_not_exist_is_said_so():
    error = refusal('docker://no-such-host.invalid/x/y:1', {})
    assert 'no-such-host.invalid  host name is not known (' in str(error)


# Digests

def test_a_pinned_digest_is_installed_although_the_tag_moved(loopback, layout, tmp_path):
    old = loopback.push(layout, 'x/moved:1')
    loopback.push(tiny_layout(tmp_path, str(tmp_path)), 'x/moved:1')
    assert loopback.digest('x/moved:1') != old
    assert resolve('docker://up.invalid/x/moved:1', {'up.invalid': [loopback.url]}, digest=old).digest == old


def test_a_digest_in_the_reference_counts_like_the_recipes(loopback):
    digest = loopback.digest('x/tiny:1')
    for text in ('docker://up.invalid/x/tiny@%s' % digest, 'docker://up.invalid/x/tiny:gone@%s' % digest):
        assert resolve(text, {'up.invalid': [loopback.url]}).digest == digest


def test_a_digest_that_the_registry_lost_shows_what_the_tag_stands_for_now(loopback):
    wanted, dead = digest_of(b'once upon a time'), closed_port()
    error = refusal('docker://localhost:%d/x/tiny:1' % dead, {'localhost:%d' % dead: [loopback.url]}, digest=wanted)
    now = loopback.digest('x/tiny:1')
    assert str(error) == (
        'x.eb: digest does not match the image\n'
        '  {pad}  {0}\n  {found}  {1}  (localhost:{2}/x/tiny:1)\n'
        '  {3}  no such image (HTTP 404)\n  localhost:{2}{gap}  no connection (Connection refused)\n'
        'hint: the tag was pushed again upstream; review it, then run: easysif pin x.eb').format(
            wanted, now, dead, loopback.url, pad='recipe'.ljust(22), found='found'.ljust(22), gap=' ' * 7)
    assert error.exit_code == INPUT


@pytest.mark.parametrize('digest, message', [
    ('sha256:12', "x.eb: digest 'sha256:12' is not sha256: and 64 hexadecimal digits\n"
                  "hint: write digest = 'sha256:…', as docker images --digests shows it"),
    (digest_of(b'b'), 'x.eb: image and digest name two different images\n  image   %s\n  digest  %s\n'
                      "hint: write the digest once, and image = 'docker://up.invalid/x/y:1'"
                      % (digest_of(b'a'), digest_of(b'b'))),
])
def test_a_digest_that_makes_no_sense_is_refused_before_anything_is_asked(digest, message):
    assert str(refusal('docker://up.invalid/x/y:1@%s' % digest_of(b'a'), {}, digest=digest)) == message


def test_a_file_is_nothing_for_a_registry():
    assert str(refusal('x.sif', {})) == ("x.eb: image 'x.sif' is nothing that a registry knows\n"
                                         "hint: write image = 'docker://…'")


def test_a_registry_that_lies_about_a_pinned_manifest_is_caught():
    manifest, answers = image()
    wanted = digest_of(b'another')
    answers['/v2/x/y/manifests/%s' % wanted] = (200, {'Docker-Content-Digest': wanted}, manifest)
    with stub(answers) as liar:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + liar.host]}, digest=wanted)
    assert str(error) == (
        'x.eb: digest does not match the image\n  expected  {0}\n  found     {1}  (sent by http://{2})\n'
        'hint: {2} sends other bytes than it is asked for: take it out of registry_mirrors in the site file').format(
            wanted, digest_of(manifest), liar.host)
    assert error.exit_code == TOOL


def test_a_registry_that_lies_about_the_image_configuration_is_caught():
    _, answers = image()
    answers['/v2/x/y/blobs/%s' % digest_of(CONFIG)] = (200, {}, b'{}')
    with stub(answers) as liar:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + liar.host]})
    assert 'expected  %s\n' % digest_of(CONFIG) in str(error) and 'found     %s' % digest_of(b'{}') in str(error)


def test_a_registry_itself_that_lies_is_not_blamed_on_the_mirrors(tmp_path):
    manifest, answers = image()
    wanted = digest_of(b'another')
    answers['/v2/x/y/manifests/%s' % wanted] = (200, {}, manifest)
    certificate, key = self_signed(tmp_path)
    with stub(answers, tls=(certificate, key)) as liar:
        error = refusal('docker://%s/x/y:1' % liar.host, {}, digest=wanted, ca_certificates=certificate)
    assert str(error).endswith('hint: %s sends other bytes than it is asked for: try again, and tell those who run it'
                               % liar.host)


@pytest.mark.parametrize('body', [b'<html>log in to the network</html>', b'[]', b'', b'[' * 99999])
def test_an_answer_that_is_no_manifest_falls_through(loopback, body):
    digest = loopback.digest('x/tiny:1')
    with stub({'/v2/x/tiny/manifests/%s' % digest: (200, {}, body)}) as portal:
        found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': ['http://' + portal.host, loopback.url]},
                        digest=digest)
    assert found.source == loopback.host


def test_a_manifest_of_a_kind_that_is_not_supported_is_named():
    old = json.dumps({'schemaVersion': 1, 'fsLayers': []}).encode()
    kind = 'application/vnd.docker.distribution.manifest.v1+prettyjws'
    with stub({'/v2/x/y/manifests/1': (200, {'Content-Type': kind + '; charset=utf-8'}, old)}) as running:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert str(error) == ("x.eb: image 'docker://up.invalid/x/y:1' has a manifest of a kind that is not supported\n"
                          '  found  %s\nhint: push it again with a current tool' % kind)


def test_an_artifact_that_is_no_container_image_is_named():
    _, answers = image(kind='application/vnd.sylabs.sif.config.v1+json')
    with stub(answers) as running:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert str(error) == ("x.eb: image 'docker://up.invalid/x/y:1' is no container image\n"
                          '  found      application/vnd.sylabs.sif.config.v1+json\n'
                          '  supported  application/vnd.oci.image.config.v1+json\n'
                          'hint: choose a tag that docker pull can run')


# Faults of the transport

@pytest.mark.parametrize('status, reason', [
    (403, 'access refused (HTTP 403)'), (404, 'no such image (HTTP 404)'),
    (429, 'too many requests, try again later (HTTP 429)'), (500, 'server error (HTTP 500)'),
    (503, 'server error (HTTP 503)'), (418, 'unexpected answer (HTTP 418)'), (401, 'login needed (HTTP 401)'),
])
def test_a_status_is_put_into_words(status, reason):
    with stub({'/v2/x/y/manifests/1': (status, {}, b'{}')}) as running:
        assert reason in str(refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]}))


@pytest.mark.long
def test_a_stalled_registry_is_given_up(loopback, monkeypatch):
    monkeypatch.setattr(transport, 'READ_TIMEOUT', 1)
    begin = time.monotonic()
    with stub({'/v2/x/tiny/manifests/1': lambda _: time.sleep(20)}) as stalled:
        found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': ['http://' + stalled.host, loopback.url]})
        assert found.source == loopback.host
        error = refusal('docker://up.invalid/x/tiny:1', {'up.invalid': ['http://' + stalled.host]})
    assert 'http://%s  no byte within 1 s' % stalled.host in str(error)
    assert time.monotonic() - begin < 15


@pytest.mark.long
def test_a_registry_that_stalls_within_its_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(transport, 'READ_TIMEOUT', 1)

    def half(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', '1000')
        handler.end_headers()
        handler.wfile.write(b'{"schema')
        handler.wfile.flush()
        time.sleep(20)

    with stub({'/v2/x/y/manifests/1': half}) as stalled:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + stalled.host]})
    assert 'no byte within 1 s' in str(error)


def test_a_cut_connection_is_no_wrong_digest(loopback):
    digest = loopback.digest('x/tiny:1')
    half = loopback.manifest('x/tiny:1')[:50]
    with stub({'/v2/x/tiny/manifests/%s' % digest: (200, {'Content-Length': '500'}, half)}) as cut:
        mirrors = {'up.invalid': ['http://' + cut.host, loopback.url]}
        found = resolve('docker://up.invalid/x/tiny:1', mirrors, digest=digest)
        assert found.source == loopback.host
        error = refusal('docker://up.invalid/x/tiny:1', {'up.invalid': ['http://' + cut.host]}, digest=digest)
    assert 'connection was cut' in str(error)


def test_an_endless_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(client, 'LARGEST', 1 << 20)
    with stub({'/v2/x/y/manifests/1': (200, {}, b' ' * (2 << 20))}) as running:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert 'answer is longer than 1 MiB' in str(error)


def test_a_certificate_counts_only_where_the_site_trusts_it(tmp_path, monkeypatch):
    certificate, key = self_signed(tmp_path)
    manifest, answers = image()
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', '/etc/ssl/certs/ca-certificates.crt')
    with stub(answers, tls=(certificate, key)) as running:
        text = 'docker://%s/x/y:1' % running.host
        assert 'its certificate is not trusted (self-signed certificate)' in str(refusal(text, {}))
        found = resolve(text, {}, ca_certificates=certificate)
    assert (found.plain_http, found.mirror, found.digest) == (False, False, digest_of(manifest))


def test_certificates_that_are_not_there_name_the_setting():
    assert str(refusal('docker://up.invalid/x/y:1', {}, ca_certificates='/no/such.pem')) == (
        'x.eb: the certificates of the site cannot be read\n  file  /no/such.pem\n'
        'hint: correct ca_certificates in the site file, or export EASYSIF_CA_CERTIFICATES=/path')


def test_a_proxy_is_not_asked_for_this_machine_itself(loopback, monkeypatch):
    for name in ('http_proxy', 'HTTP_PROXY', 'https_proxy', 'all_proxy'):
        monkeypatch.setenv(name, 'http://localhost:%d' % closed_port())
    assert resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [loopback.url]}).source == loopback.host


# Logins

@pytest.fixture(scope='module')
def locked(tmp_path_factory, layout):
    """A registry that asks for a password."""
    with LoopbackRegistry(tmp_path_factory.mktemp('locked'), login=True) as running:
        running.push(layout, 'x/tiny:1')
        yield running


def write_login(path, host, user=USER, password=PASSWORD):
    path.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(('%s:%s' % (user, password)).encode()).decode()
    path.write_text(json.dumps({'auths': {host: {'auth': auth}}}))


def test_without_a_login_a_private_registry_says_how_to_log_in(locked):
    error = refusal('docker://%s/x/tiny:1' % locked.host, {locked.host: [locked.url]})
    assert '%s  login needed (HTTP 401)' % locked.url in str(error)


@pytest.mark.parametrize('place', ['.apptainer/docker-config.json', '.singularity/docker-config.json',
                                   '.docker/config.json', '.config/containers/auth.json'])
@pytest.mark.parametrize('key', ['%s', 'https://%s', 'https://%s/v1/'])
def test_a_login_is_taken_from_where_runtime_and_docker_keep_it(locked, tmp_path, place, key):
    write_login(tmp_path / place, key % locked.host)
    found = resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]})
    assert found.digest == locked.digest('x/tiny:1')


@pytest.mark.parametrize('place, variable, value', [
    ('d/config.json', 'DOCKER_CONFIG', 'd'), ('d/docker-config.json', 'APPTAINER_CONFIGDIR', 'd'),
    ('x.json', 'APPTAINER_AUTHFILE', 'x.json'), ('x.json', 'REGISTRY_AUTH_FILE', 'x.json'),
    ('d/containers/auth.json', 'XDG_RUNTIME_DIR', 'd'), ('d/containers/auth.json', 'XDG_CONFIG_HOME', 'd')])
def test_a_login_is_taken_from_where_variables_say(locked, tmp_path, monkeypatch, place, variable, value):
    write_login(tmp_path / place, locked.host)
    monkeypatch.setenv(variable, str(tmp_path / value))
    assert resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}).source == locked.host


def test_a_login_of_podman_may_be_for_a_part_of_a_registry(locked, tmp_path):
    path, right, wrong = tmp_path / '.config/containers/auth.json', *(
        {'auth': base64.b64encode(('%s:%s' % (USER, password)).encode()).decode()} for password in (PASSWORD, SECRET))
    path.parent.mkdir(parents=True)
    for logins, is_good in (({'': wrong, '/x': right}, True), ({'': wrong, '/x/tiny': right, '/x': wrong}, True),
                            ({'': right, '/y': wrong, '/x/tin': wrong}, True), ({'': right, '/x': wrong}, False)):
        path.write_text(json.dumps({'auths': {locked.host + part: login for part, login in logins.items()}}))
        if is_good:
            assert resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}).source == locked.host
        else:
            assert 'login refused' in str(refusal('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}))


@pytest.mark.parametrize('config, asked', [
    ({'credsStore': 'toy'}, True), ({'credHelpers': {'HOST': 'toy'}}, True), ({'credHelpers': {'x': 'toy'}}, False),
    ({'credsStore': 'no-such'}, False), ({'credsStore': 'fails'}, False), ({'credHelpers': {'HOST': '../toy'}}, False),
    ({'credsStore': ['toy']}, False)])
def test_a_login_is_taken_from_a_credential_helper_of_docker(locked, tmp_path, monkeypatch, config, asked):
    for name, script in (('toy', 'cat >"$HOME/asked"; echo \'{"Username": "%s", "Secret": "%s"}\'' % (USER, PASSWORD)),
                         ('fails', 'echo "credentials not found"; exit 1')):
        (tmp_path / ('docker-credential-' + name)).write_text('#!/bin/sh\n%s\n' % script)
        (tmp_path / ('docker-credential-' + name)).chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (tmp_path, os.environ['PATH']))
    (tmp_path / '.docker').mkdir()
    (tmp_path / '.docker/config.json').write_text(json.dumps(config).replace('HOST', locked.host))
    if asked:
        assert resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}).source == locked.host
        assert (tmp_path / 'asked').read_text() == locked.host
    else:
        assert 'login needed (HTTP 401)' in str(refusal('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}))
        assert not (tmp_path / 'asked').exists()


@pytest.mark.parametrize('text', ['', 'x', '[]', '{"auths": []}', '{"auths": {"HOST": 1}}', '{"auths": {"HOST": {}}}',
                                  '{"auths": {"HOST": {"auth": "%"}}}', '{"auths": {"HOST": {"auth": "eA=="}}}'])
def test_a_damaged_login_counts_as_none(locked, tmp_path, text):
    (tmp_path / '.docker').mkdir()
    (tmp_path / '.docker/config.json').write_text(text.replace('HOST', locked.host))
    error = refusal('docker://%s/x/tiny:1' % locked.host, {locked.host: [locked.url]})
    assert '%s  login needed (HTTP 401)' % locked.url in str(error)


def test_a_wrong_password_is_said_and_not_shown(locked, tmp_path):
    write_login(tmp_path / '.docker/config.json', locked.host, password=SECRET)
    error = refusal('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]})
    assert '%s  login refused (HTTP 401)' % locked.url in str(error)
    assert SECRET not in str(error) and base64.b64encode(SECRET.encode()).decode()[:8] not in str(error)


def test_a_login_in_variables_goes_to_the_registry_itself_and_to_no_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv('APPTAINER_DOCKER_USERNAME', 'user')
    monkeypatch.setenv('APPTAINER_DOCKER_PASSWORD', SECRET)
    manifest, answers = image()

    def guarded(handler):
        if handler.headers.get('Authorization'):
            return 200, {}, manifest
        return 401, {'WWW-Authenticate': 'Basic realm="here"'}, b''

    certificate, key = self_signed(tmp_path)
    answers['/v2/x/y/manifests/1'] = guarded
    with stub(answers, tls=(certificate, key)) as itself, stub(answers) as mirror:
        found = resolve('docker://%s/x/y:1' % itself.host, {itself.host: ['http://' + mirror.host]},
                        ca_certificates=certificate)
    assert found.source == itself.host
    assert all('Authorization' not in headers for _, headers in mirror.seen)


def test_netrc_does_not_replace_a_login(locked, tmp_path, monkeypatch):
    write_login(tmp_path / '.docker/config.json', locked.host)
    (tmp_path / '.netrc').write_text('machine localhost login someone password %s\n' % SECRET)
    (tmp_path / '.netrc').chmod(0o600)
    monkeypatch.setattr(transport, 'is_loopback', lambda _: False)
    assert resolve('docker://up.invalid/x/tiny:1', {'up.invalid': [locked.url]}).source == locked.host


@contextmanager
def token_registry(login=None, scheme='http'):
    """A stub that wants a token, as Docker Hub, NGC and quay.io do; ``login`` is what its login server wants."""
    manifest, answers = image()
    guarded = dict(answers)

    def guard(path):
        def answer(handler):
            if handler.headers.get('Authorization') == 'Bearer %s' % SECRET:
                return guarded[path]
            return 401, {'WWW-Authenticate': 'Bearer realm="%s://%s/token",service="reg, with comma",scope='
                         '"repository:x/y:pull"' % (scheme, running.host)}, b'{}'
        return answer

    def token(handler):
        if login and handler.headers.get('Authorization') != login:
            return 401, {}, b'{}'
        return 200, {}, json.dumps({'token': SECRET}).encode()

    answers.update({path: guard(path) for path in guarded}, **{'/token': token})
    with stub(answers) as running:
        running.digest, running.held = digest_of(manifest), guarded
        yield running


def test_a_token_is_fetched_without_a_login_where_none_is_wanted():
    with token_registry() as running:
        found = resolve('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
        assert found.digest == running.digest
        query = [path for path, _ in running.seen if path.startswith('/token')][0]
    assert query == '/token?service=reg%2C+with+comma&scope=repository%3Ax%2Fy%3Apull'


def test_a_token_is_fetched_with_the_login(tmp_path):
    basic = 'Basic %s' % base64.b64encode(b'user:pass').decode()
    with token_registry(login=basic) as running:
        mirrors = {'up.invalid': ['http://' + running.host]}
        error = refusal('docker://up.invalid/x/y:1', mirrors)
        assert 'login needed (HTTP 401 from its login server)' in str(error)
        write_login(tmp_path / '.docker/config.json', running.host, 'user', 'pass')
        assert resolve('docker://up.invalid/x/y:1', mirrors).digest == running.digest
        write_login(tmp_path / '.docker/config.json', running.host, 'user', 'wrong')
        error = refusal('docker://up.invalid/x/y:1', mirrors)
    assert 'login refused (HTTP 401 from its login server)' in str(error) and SECRET not in str(error)


@contextmanager
def identity_registry(kept):
    """A registry whose login server takes the identity token KEPT for a token, and nothing else; ``forms`` it got."""
    with token_registry() as running:
        running.forms = []

        def token(handler):
            running.forms.append((handler.path, dict(handler.headers), parse_qs(handler.form or '')))
            if handler.command != 'POST' or running.forms[-1][2].get('refresh_token') != [kept]:
                return 400, {}, b'{"error": "invalid_grant"}'
            return 200, {}, json.dumps({'access_token': SECRET, 'refresh_token': 'another'}).encode()
        running.answers['/token'] = token
        running.get = partial(resolve, 'docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
        running.refusal = partial(refusal, 'docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
        yield running


@pytest.mark.parametrize('config', [
    {'auths': {'HOST': {'identitytoken': 'k&pt +/='}}},
    # as az acr login and docker login have it
    {'auths': {'HOST': {'auth': base64.b64encode(b'00000000-0000:').decode(), 'identitytoken': 'k&pt +/='}}},
    {'credsStore': 'toy'}, {'credHelpers': {'HOST': 'toy'}}])
def test_an_identity_token_is_shown_to_the_login_server_alone_and_in_no_address(tmp_path, monkeypatch, config):
    helper = tmp_path / 'docker-credential-toy'
    helper.write_text('#!/bin/sh\necho \'{"Username": "<token>", "Secret": "k&pt +/="}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv('PATH', '%s:%s' % (tmp_path, os.environ['PATH']))
    (tmp_path / '.docker').mkdir()
    with identity_registry('k&pt +/=') as running:
        (tmp_path / '.docker/config.json').write_text(json.dumps(config).replace('HOST', running.host))
        assert running.get().digest == running.digest
        (path, headers, form), = running.forms
        assert (path, headers.get('Authorization'), form) == ('/token', None, {
            'service': ['reg, with comma'], 'scope': ['repository:x/y:pull'], 'grant_type': ['refresh_token'],
            'refresh_token': ['k&pt +/='], 'client_id': ['easysif']})
        assert {headers.get('Authorization') for _, headers in running.seen} == {None, 'Bearer ' + SECRET}


def test_an_identity_token_that_is_not_taken_is_said_and_not_shown_or_sent_elsewhere(tmp_path):
    (tmp_path / '.docker').mkdir()
    with identity_registry('another') as running, stub({}) as other:
        (tmp_path / '.docker/config.json').write_text(json.dumps({'auths': {
            running.host: {'identitytoken': 'hunter2-kept'}}}))
        said = [str(running.refusal())]
        running.answers['/token'] = (307, {'Location': 'http://%s/token' % other.host}, b'')
        said.append(str(running.refusal()))
        running.answers['/v2/x/y/manifests/1'] = (401, {'WWW-Authenticate': 'Basic realm="here"'}, b'')
        said.append(str(running.refusal()))
        assert other.seen == []
    for text, reason in zip(said, ('login refused (HTTP 400 from its login server)',
                                   'login refused (HTTP 307 from its login server)',
                                   'has no login server, to which an identity token could be shown')):
        assert reason in text and 'hunter2' not in text, text


@pytest.mark.parametrize('login', [{'identitytoken': 'hunter2-kept'},
                                   {'auth': base64.b64encode(b'me:hunter2-kept').decode()}])
def test_a_login_server_elsewhere_is_shown_no_login_where_anybody_can_have_named_it(tmp_path, monkeypatch, login):
    """Without https whoever is on the way could send a login to a server of their own."""
    (tmp_path / '.docker').mkdir()
    monkeypatch.setattr(client, 'is_loopback', lambda _: False)
    with identity_registry('hunter2-kept') as running, stub({}) as other:
        (tmp_path / '.docker/config.json').write_text(json.dumps({'auths': {running.host: login}}))
        if 'identitytoken' in login:
            assert running.get().digest == running.digest  # on the same host
        challenge = 'Bearer realm="http://%s/token"' % other.host.replace('localhost', '127.0.0.1')
        running.answers['/v2/x/y/manifests/1'] = (401, {'WWW-Authenticate': challenge}, b'')
        said = str(running.refusal())
        assert other.seen == []
    assert ('names the login server 127.0.0.1 without https, as anybody on the way could have done: no login is sent '
            'there') in said and 'hunter2' not in said


def test_a_token_stays_with_its_registry_and_netrc_adds_nothing_where_we_are_sent(tmp_path, monkeypatch):
    (tmp_path / '.netrc').write_text('default login someone password %s\n' % USER)
    (tmp_path / '.netrc').chmod(0o600)
    monkeypatch.setattr(transport, 'is_loopback', lambda _: False)
    with token_registry() as running, stub({}) as other:
        for path in [path for path in running.answers if '/blobs/' in path]:
            other.answers['/blob'] = running.held[path]
            away = 'http://%s/blob' % other.host.replace('localhost', '127.0.0.1')
            running.answers['/elsewhere'] = 302, {'Location': away}, b''
            running.answers[path] = 302, {'Location': '/elsewhere'}, b''
        found = resolve('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
        assert found.digest == running.digest
    sent = [headers.get('Authorization') for path, headers in running.seen if path == '/elsewhere']
    assert sent == ['Bearer %s' % SECRET] and [headers.get('Authorization') for _, headers in other.seen] == [None]


def test_a_login_server_that_gives_no_token_is_not_believed():
    with token_registry() as running:
        running.answers['/token'] = (200, {}, b'{}')
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert 'login needed (HTTP 200 from its login server)' in str(error)


def test_an_https_registry_may_not_ask_for_a_login_in_the_open(tmp_path):
    certificate, key = self_signed(tmp_path)
    challenge = {'WWW-Authenticate': 'Bearer realm="http://login.example/token"'}
    with stub({'/v2/x/y/manifests/1': (401, challenge, b'')}, tls=(certificate, key)) as running:
        error = refusal('docker://%s/x/y:1' % running.host, {}, ca_certificates=certificate)
    assert str(error).endswith('{0}  its login server has no https address\n'
                               'hint: apptainer registry login --username NAME docker://{0}'.format(running.host))


@pytest.mark.parametrize('answer, reason', [
    ((401, {'WWW-Authenticate': 'Bearer realm="https://["'}, b''), 'its login server has no https address'),
    ((401, {'WWW-Authenticate': 'Bearer realm="https://%s.x/"' % ('a' * 70)}, b''), 'its address is none, or one to'),
    ((302, {'Location': 'https://['}, b''), 'its address is none, or one to which it sends us on')])
def test_an_address_that_is_none_is_no_surprise(answer, reason):
    with stub({'/v2/x/y/manifests/1': answer}) as running:
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert reason in str(error)


def test_a_name_that_needs_no_login_may_not_exist():
    # so does Docker Hub: a token for anything, and then 401 for what is not there
    with token_registry() as running:
        running.answers['/v2/x/y/manifests/1'] = (401, {'WWW-Authenticate': 'Bearer realm="http://%s/token"'
                                                        % running.host}, b'')
        error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['http://' + running.host]})
    assert 'no such image, or login needed (HTTP 401)' in str(error)


# Mirrors as the site file has them

@pytest.mark.parametrize('url', ['localhost:5000', 'ftp://a.b', 'http://', 'http://a.b?x=1', 'http://a.b#x'])
def test_a_mirror_that_is_no_url_prefix_is_refused(url):
    error = refusal('docker://up.invalid/x/y:1', {'up.invalid': [url]})
    assert str(error) == ("x.eb: registry_mirrors of up.invalid: '%s' is not a URL prefix\n"
                          'hint: write http://HOST:PORT or https://HOST/PREFIX in the site file' % url)


def test_a_login_in_a_mirror_is_refused_and_not_shown():
    error = refusal('docker://up.invalid/x/y:1', {'up.invalid': ['https://user:%s@mirror.example' % SECRET]})
    assert str(error) == ('x.eb: registry_mirrors of up.invalid holds a login, which a site file must not\n'
                          'hint: apptainer registry login --username NAME docker://mirror.example')


@pytest.mark.parametrize('url, host, prefix, plain', [
    ('http://mirror', 'mirror:80', '', True), ('https://mirror/p', 'mirror:443', 'p/', False),
    ('https://mirror.example', 'mirror.example', '', False), ('http://localhost', 'localhost', '', True),
])
def test_a_bare_host_name_gets_its_port_so_that_the_runtime_sees_a_host(url, host, prefix, plain):
    first, last = sources.sources('up.invalid', {'up.invalid': [url]}, 'x.eb')
    assert (first.host, first.prefix, first.plain_http, first.mirror) == (host, prefix, plain, True)
    assert (last.host, last.plain_http, last.mirror) == ('up.invalid', False, False)


def test_docker_hub_is_spoken_to_at_its_own_address():
    assert registry._api_host('docker.io') == 'registry-1.docker.io'
    assert registry._api_host('quay.io') == 'quay.io'
