# SPDX-License-Identifier: GPL-2.0-only
"""SIF files and layers from servers that cut, stall, lie and refuse, and from real registries."""

import io
import os
import re
import shutil
import struct
import time
from types import SimpleNamespace

import pytest
import requests

from easysif import files
from easysif.errors import TOOL, EasySIFError
from easysif.images import download, pull, registry, sif, sources, space, transport, web
from easysif.images.progress import Progress
from easysif.images.reference import parse
from easysif.text import human
from helpers_registry import LoopbackRegistry, digest_of, self_signed, stub

SECRET = 'hunter2-planted'
DATA = bytes(range(256)) * 3000  # 768,000 bytes: several chunks
CHUNK = transport.CHUNK  # what a connection that is cut may lose is less than that
SITE = SimpleNamespace(registry_mirrors={}, ca_certificates=None)


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """No login and no proxy of the caller, and no long waits between two tries."""
    monkeypatch.setattr(sources, 'WAITS', (0.01,))
    monkeypatch.setattr(download, 'WAITS', (0.01, 0.01))
    for name in list(os.environ):
        if name.lower().endswith('_proxy') or 'DOCKER' in name or name == 'NETRC':
            monkeypatch.delenv(name)


def served(data=DATA, **headers):
    """An answer of a server that knows ranges (function of the handler)."""
    def answer(handler):
        begin = int(re.fullmatch(r'bytes=(\d+)-', handler.headers.get('Range', 'bytes=0-'))[1])
        wanted = handler.headers.get('If-Range')
        if begin and wanted in (None, headers.get('ETag'), headers.get('Last-Modified')):
            return 206, dict(headers, **{'Content-Range': 'bytes %d-%d/%d' % (begin, len(data) - 1, len(data))}), \
                data[begin:]
        return 200, headers, data
    return answer


def cut(answer, after, times=1):
    """The same, but the connection is cut after some bytes of the body, some times."""
    left = [times]

    def shortened(handler):
        status, headers, body = answer(handler)
        if left[0]:
            left[0] -= 1
            return status, dict(headers, **{'Content-Length': str(len(body))}), body[:after]
        return status, headers, body
    return shortened


def fetch(server, tmp_path, site=SITE, url=None, **options):
    reference = parse(url or 'http://%s/d/x.sif' % server.host, 'x.eb')
    target = str(tmp_path / 'x.sif')
    if os.path.exists(target):
        os.unlink(target)
    found = web.fetch(reference, web.look(reference, site, 'x.eb'), target, site, 'x.eb', **options)
    with open(target, 'rb') as handle:
        assert found == digest_of(handle.read())
    return found


def refusal(*args, **options):
    with pytest.raises(EasySIFError) as caught:
        fetch(*args, **options)
    return caught.value


def ranges(server):
    return [headers.get('Range') for _, headers in server.seen[1:]]


def test_a_file_comes_whole_with_its_digest_in_one_pass(tmp_path):
    with stub({'/d/x.sif': served()}) as server:
        assert fetch(server, tmp_path) == digest_of(DATA)
    assert ranges(server) == [None] and server.seen[1][1]['Accept-Encoding'] == 'identity'
    assert os.stat(tmp_path / 'x.sif').st_blocks * 512 < len(DATA) + 65536


@pytest.mark.parametrize('headers', [{'ETag': '"one"'}, {'Last-Modified': 'Sat, 21 Nov 2026 05:00:00 GMT'}])
def test_a_cut_connection_is_continued_where_it_was_cut(tmp_path, headers):
    with stub({'/d/x.sif': cut(served(**headers), CHUNK, times=4)}) as server:  # the first only looks
        assert fetch(server, tmp_path) == digest_of(DATA)
    assert ranges(server) == [None, 'bytes=262144-', 'bytes=524288-']
    assert server.seen[2][1]['If-Range'] == list(headers.values())[0]


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path):
    answers = [served(ETag='"one"'), cut(served(ETag='"one"'), CHUNK), served(DATA[::-1], ETag='"two"')]
    with stub({'/d/x.sif': lambda handler: answers.pop(0)(handler)}) as server:
        assert fetch(server, tmp_path) == digest_of(DATA[::-1])


@pytest.mark.parametrize('headers, digest, wanted', [
    ({}, None, [None, None]), ({'ETag': 'W/"weak"'}, None, [None, None]),
    ({}, digest_of(DATA), [None, 'bytes=262144-']),
])
def test_what_nobody_can_tell_to_be_the_same_is_begun_anew_unless_its_digest_tells(tmp_path, headers, digest, wanted):
    with stub({'/d/x.sif': cut(served(**headers), CHUNK, times=2)}) as server:
        assert fetch(server, tmp_path, digest=digest) == digest_of(DATA)
    assert ranges(server) == wanted


def test_a_server_that_sends_another_part_is_not_believed(tmp_path):
    wrong = (206, {'Content-Range': 'bytes 5-767999/768000', 'ETag': '"one"'}, DATA[5:])
    answers = [served(ETag='"one"'), cut(served(ETag='"one"'), CHUNK), lambda _: wrong, served(ETag='"one"')]
    with stub({'/d/x.sif': lambda handler: answers.pop(0)(handler)}) as server:
        assert fetch(server, tmp_path) == digest_of(DATA)
    assert ranges(server) == [None, 'bytes=262144-', None]


@pytest.mark.parametrize('status', [429, 500, 503])
def test_what_may_pass_is_tried_again(tmp_path, status):
    answers = [served(), (status, {'Retry-After': '0'}, b''), (status, {}, b''), served()]
    with stub({'/d/x.sif': lambda handler: one(handler) if callable(one := answers.pop(0)) else one}) as server:
        assert fetch(server, tmp_path) == digest_of(DATA)


@pytest.mark.parametrize('answer, reason, hint', [
    ((401, {}, b''), 'login needed (HTTP 401)',
     'write a login into ~/.netrc: machine localhost login NAME password PASSWORD'),
    ((403, {}, b''), 'access refused (HTTP 403)',
     'write a login into ~/.netrc: machine localhost login NAME password PASSWORD'),
    ((404, {}, b''), 'no such file (HTTP 404)', 'correct the address in the recipe'),
    ((429, {}, b''), 'too many requests, try again later (HTTP 429)', 'check the network: curl -LI %s'),
    ((500, {}, b''), 'server error (HTTP 500)', 'check the network: curl -LI %s'),
    ((418, {}, b''), 'unexpected answer (HTTP 418)', 'check the network: curl -LI %s'),
])
def test_a_refusal_is_put_into_words(tmp_path, answer, reason, hint):
    with stub({'/d/x.sif': answer}) as server:
        error = refusal(server, tmp_path)
    url = 'http://%s/d/x.sif' % server.host
    assert str(error) == "x.eb: image '%s' is not to be had\n  %s  %s\nhint: %s" % (
        url, server.host, reason, hint.replace('%s', url))
    assert error.exit_code == TOOL


@pytest.mark.long
@pytest.mark.parametrize('second, reason', [
    (cut(served(), 1000, times=99), 'connection was cut'),
    (lambda _: time.sleep(20), 'no byte within 1 s'),
    (lambda _: (200, {'Content-Encoding': 'gzip'}, DATA), 'sends the file packed (gzip)'),
    (lambda _: (206, {'Content-Range': 'bytes 5-9/10'}, DATA[5:]), 'sends another part than the one'),
    (lambda handler: stalled(handler), 'no byte within 1 s'),
])
def test_a_server_that_never_gives_all_is_given_up(tmp_path, monkeypatch, second, reason):
    monkeypatch.setattr(transport, 'READ_TIMEOUT', 1)
    begin = time.monotonic()
    answers = [served()]
    with stub({'/d/x.sif': lambda handler: (answers.pop() if answers else second)(handler)}) as server:
        assert reason in str(refusal(server, tmp_path))
    assert time.monotonic() - begin < 15


def stalled(handler):
    handler.send_response(200)
    handler.send_header('Content-Length', str(len(DATA)))
    handler.end_headers()
    handler.wfile.write(DATA[:1000])
    handler.wfile.flush()
    time.sleep(20)


def test_a_slow_server_is_waited_for(tmp_path):
    def slow(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', '6')
        handler.end_headers()
        for byte in b'abcdef':
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.3)
        return 200, {}, b''

    answers = [served(b'abcdef')]
    with stub({'/d/x.sif': lambda handler: (answers.pop() if answers else slow)(handler)}) as server:
        assert fetch(server, tmp_path) == digest_of(b'abcdef')


# Mirrors, logins, certificates

def test_mirrors_have_the_same_path_below_their_own_and_are_asked_in_order(tmp_path):
    with stub({}) as empty, stub({'/pre/d/x.sif': served()}) as mirror:
        site = SimpleNamespace(ca_certificates=None, registry_mirrors={
            'up.invalid': ['http://' + empty.host, 'http://%s/pre/' % mirror.host]})
        assert fetch(None, tmp_path, site, 'https://up.invalid/d/x.sif') == digest_of(DATA)
        assert [path for path, _ in empty.seen] == ['/d/x.sif']


def test_a_mirror_that_fails_on_the_way_is_followed_by_the_next_source(tmp_path):
    answers = [served(), cut(served(), CHUNK), lambda _: (404, {}, b'')]
    with stub({'/d/x.sif': lambda handler: answers.pop(0)(handler)}) as mirror:
        with stub({'/d/x.sif': served()}) as itself:
            site = SimpleNamespace(ca_certificates=None, registry_mirrors={itself.host: ['http://' + mirror.host]})
            assert fetch(itself, tmp_path, site, digest=digest_of(DATA)) == digest_of(DATA)
            assert itself.seen[0][1]['Range'] == 'bytes=262144-'


@pytest.mark.parametrize('machine', ['machine localhost', 'default'])
def test_a_login_comes_from_netrc_and_goes_to_its_host_alone(tmp_path, monkeypatch, machine):
    monkeypatch.setattr(transport, 'is_loopback', lambda _: False)  # requests reads ~/.netrc for others only
    with stub({'/d/x.sif': served()}) as other:
        def guarded(handler):
            if not handler.headers.get('Authorization'):
                return 401, {}, b''
            to = '/here' if handler.path == '/d/x.sif' else 'http://127.0.0.1:%s/d/x.sif' % other.host.split(':')[1]
            return 302, {'Location': to}, b''

        with stub({'/d/x.sif': guarded, '/here': guarded}) as server:
            assert 'login needed' in str(refusal(server, tmp_path))
            netrc = tmp_path / 'home' / '.netrc'
            netrc.write_text('%s login me password %s\n' % (machine, SECRET))
            netrc.chmod(0o600)
            assert fetch(server, tmp_path) == digest_of(DATA)
    assert all('Authorization' not in headers for _, headers in other.seen) and len(other.seen) == 2


def test_a_refused_login_is_said_and_not_shown(tmp_path):
    (tmp_path / 'home' / '.netrc').write_text('machine localhost login me password %s\n' % SECRET)
    with stub({'/d/x.sif': (401, {}, b'')}) as server:
        error = str(refusal(server, tmp_path))
    assert 'login refused (HTTP 401)' in error and SECRET not in error


def test_https_is_believed_by_the_sites_certificates_and_not_left(tmp_path):
    tls = self_signed(tmp_path)
    with stub({'/d/x.sif': served()}) as plain:
        answers = {'/d/x.sif': served(), '/away': (302, {'Location': 'http://%s/d/x.sif' % plain.host}, b'')}
        with stub(answers, tls=tls) as server:
            url, site = 'https://%s' % server.host, SimpleNamespace(registry_mirrors={}, ca_certificates=tls[0])
            assert 'its certificate is not trusted' in str(refusal(server, tmp_path, url=url + '/d/x.sif'))
            assert fetch(server, tmp_path, site, url + '/d/x.sif') == digest_of(DATA)
            assert 'sends us on to an address without https' in str(refusal(server, tmp_path, site, url + '/away'))
    assert not plain.seen


def test_a_proxy_is_used_for_other_machines(tmp_path, monkeypatch):
    with stub({'http://up.invalid/d/x.sif': served()}) as proxy:
        monkeypatch.setenv('http_proxy', 'http://' + proxy.host)
        assert fetch(proxy, tmp_path, url='http://up.invalid/d/x.sif') == digest_of(DATA)


# Space, progress

def test_without_room_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'free_space', lambda _: 700000)
    with stub({'/d/x.sif': served()}) as server:
        error = refusal(server, tmp_path)
    assert str(error) == ('x.eb: not enough space for the image in %s\n  needed  750.0 KiB  (x.sif)\n'
                          '  free    683.6 KiB\n'
                          'hint: free some space there (or quota), or: '
                          'export EASYSIF_CACHE_DIR=<a directory with more room>' % tmp_path)
    assert error.exit_code == TOOL and os.path.getsize(tmp_path / 'x.sif') == 0


def test_a_quota_is_asked_before_the_first_byte(tmp_path, monkeypatch):
    class Full:
        @staticmethod
        def fallocate(*_):
            space.ctypes.set_errno(122)
            return -1

    monkeypatch.setattr(space.ctypes, 'CDLL', lambda *_, **__: Full)
    with stub({'/d/x.sif': served()}) as server:
        assert 'not enough space for the image in %s\n  needed  750.0 KiB  (x.sif)' % tmp_path in str(
            refusal(server, tmp_path))


def test_progress_is_a_bar_on_a_terminal_and_lines_now_and_then_in_a_log(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines, now = [], [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    for stream in (Terminal(), io.StringIO()):
        now[0] = 100.0
        with Progress('x.sif', 13200000000, lines.append, stream) as progress:
            for _ in range(132):
                now[0] += 1
                progress.add(100000000)
        if stream.isatty():
            assert '\r\033[K[############............]  50 %  6.1 GiB of 12.3 GiB  95.4 MiB/s  x.sif' in \
                stream.getvalue()
            assert stream.getvalue().endswith('\r\033[K')
        else:
            assert stream.getvalue() == ''
    assert lines == ['fetched 12.3 GiB  95.4 MiB/s  x.sif',
                     'fetching 5.6 GiB of 12.3 GiB  95.4 MiB/s  x.sif',
                     'fetching 11.2 GiB of 12.3 GiB  95.4 MiB/s  x.sif', 'fetched 12.3 GiB  95.4 MiB/s  x.sif']


# Artifacts of registries

def sif_file(path):
    """Write the smallest SIF file that passes for one, of this machine; return it."""
    code = next(number for number, name in sif.ARCHITECTURES.items() if name == sif.architecture()).encode()
    block = b'hsqs' + bytes(36) + struct.pack('<Q', 96) + bytes(48)
    offset = sif.HEADER.size + sif.DESCRIPTOR.size
    head = sif.HEADER.pack(b'', sif.MAGIC, b'01', code, bytes(16), 0, 0, 0, 1, sif.HEADER.size, 0, offset, 96)
    extra = sif.PARTITION.pack(1, 2, code)
    entry = sif.DESCRIPTOR.pack(sif.TYPE_PARTITION, True, 1, 1, 0, offset, 96, 96, 0, 0, 0, 0, b'', extra)
    path.write_bytes(head + entry + block)
    return path


@pytest.fixture(scope='module')
def loopback(tmp_path_factory):
    with LoopbackRegistry(tmp_path_factory.mktemp('registry')) as running:
        yield running


def push(running, name, *blobs, kind=registry.SIF_LAYER, config=b'{}', config_kind='application/vnd.oci.empty.v1+json'):
    """Push an artifact of some files, as apptainer push and oras push do; return its digest (str)."""
    for data in (config, *blobs):
        asked = requests.post('%s/v2/%s/blobs/uploads/' % (running.url, name.split(':')[0]))
        requests.put(asked.headers['Location'], params={'digest': digest_of(data)}, data=data,
                     headers={'Content-Type': 'application/octet-stream'}).raise_for_status()

    def entry(data, kind):
        return {'mediaType': kind, 'digest': digest_of(data), 'size': len(data)}

    return running.put(name, {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                              'config': entry(config, config_kind), 'layers': [entry(one, kind) for one in blobs]},
                       'application/vnd.oci.image.manifest.v1+json')


def resolve(text, running, **options):
    return registry.resolve(parse(text, 'x.eb'), {'up.invalid': [running.url]}, 'x.eb', **options)


def test_an_oras_image_is_the_one_file_of_an_artifact(loopback, tmp_path):
    data = sif_file(tmp_path / 'a.sif').read_bytes()
    for name, kind in (('x/one:1', registry.SIF_LAYER), ('x/other:1', 'application/octet-stream')):
        digest = push(loopback, name, data, kind=kind)
        found = resolve('oras://up.invalid/' + name, loopback, digest=digest)
        assert (found.digest, found.manifest_digest, found.source) == (digest, digest, loopback.host)
        target = tmp_path / name.replace('/', '-')
        assert pull.sif(found, str(target), SITE, 'x.eb') == digest_of(data)
        assert target.read_bytes() == data


def test_of_several_files_the_one_sif_counts_and_what_is_none_is_named(loopback):
    push(loopback, 'x/two:1', b'1', b'2')
    with pytest.raises(EasySIFError) as caught:
        resolve('oras://up.invalid/x/two:1', loopback)
    assert str(caught.value) == ("x.eb: image 'oras://up.invalid/x/two:1' is not one SIF file\n  found  2 files\n"
                                 'hint: choose a tag that apptainer push made')
    push(loopback, 'x/image:1', b'1', kind='application/vnd.oci.image.layer.v1.tar', config_kind=registry.IMAGES[0])
    with pytest.raises(EasySIFError) as caught:
        resolve('oras://up.invalid/x/image:1', loopback)
    assert str(caught.value).endswith("  found  a container image\nhint: write image = 'docker://up.invalid/x/image:1'")
    push(loopback, 'x/sif:1', b'1')
    with pytest.raises(EasySIFError) as caught:
        resolve('docker://up.invalid/x/sif:1', loopback)
    assert '  found      a SIF file\n' in str(caught.value)
    assert str(caught.value).endswith("hint: write image = 'oras://up.invalid/x/sif:1'")


def test_a_layer_is_asked_of_the_next_source_where_one_fails_and_held_against_its_digest(loopback, tmp_path):
    data = sif_file(tmp_path / 'a.sif').read_bytes() + os.urandom(600000)
    push(loopback, 'x/layer:1', data)
    manifest = loopback.manifest('x/layer:1')
    paths = {'/v2/x/layer/manifests/1': (200, {}, manifest)}
    blob = '/v2/x/layer/blobs/%s' % digest_of(data)
    with stub(dict(paths, **{blob: cut(served(data), CHUNK, times=99)})) as first, stub({}) as itself:
        found = registry.resolve(parse('oras://%s/x/layer:1' % itself.host, 'x.eb'), {
            itself.host: ['http://' + first.host, loopback.url]}, 'x.eb')
        pull.sif(found, str(tmp_path / 'b.sif'), SITE, 'x.eb')
        assert (tmp_path / 'b.sif').read_bytes() == data and found.source == first.host
        first.answers[blob] = (200, {}, data[:-1] + b'x')
        with pytest.raises(EasySIFError) as caught:
            pull.sif(found, str(tmp_path / 'c.sif'), SITE, 'x.eb')
        assert str(caught.value).startswith('x.eb: digest does not match the image\n  expected  %s\n' % digest_of(data))
        first.answers[blob] = (200, {}, data + b'x')
        shutil.rmtree(os.path.dirname(loopback.blob(digest_of(data))))
        with pytest.raises(EasySIFError) as caught:
            pull.sif(found, str(tmp_path / 'd.sif'), SITE, 'x.eb')
    lines = str(caught.value).splitlines()
    label = 'part'.ljust(len(first.host) + 7)
    assert lines[:-2] == [
        "x.eb: image '%s/x/layer:1' could not be fetched" % itself.host,
        '  %s  %s, %s' % (label, digest_of(data), human(len(data))),
        '  http://%s  has %d bytes, not %d' % (first.host, len(data) + 1, len(data)),
        '  %s  no such image (HTTP 404)' % loopback.url]
    assert lines[-2].startswith('  %s         no connection ([SSL' % itself.host)
    assert lines[-1] == 'hint: try again; if it stays so: curl -I https://%s/v2/' % itself.host
