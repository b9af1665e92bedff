# SPDX-License-Identifier: GPL-2.0-only
"""Servers that cut, stall, lie and refuse, for each kind of image that comes over a network: what is got is whole, what
is not to be had leaves nothing, and the next call succeeds without help."""

import json
import os
import time
from types import SimpleNamespace

import pytest

import toys
from easysif import site as sites
from easysif.errors import EasySIFError
from easysif.images import build, download, sif, sources, transport
from easysif.obtain import Places, obtain
from helpers_registry import digest_of, stub
from test_images_fetch import CHUNK, cut, served, sif_file
from test_obtain import recipe
from test_registry import CONFIG, MANIFEST

KINDS = ('docker', 'oras', 'https')


def later(fault):
    """Make an answer good the first time, at which https files are only looked at."""
    def wrap(answer):
        calls = []
        return lambda handler: (calls.append(1), (answer if len(calls) == 1 else fault(answer))(handler))[1]
    return wrap


def always(fault):
    """A fault that happens in each answer."""
    return lambda answer: fault(answer)


def once(status):
    """A refusal that passes."""
    left = [(status, {'Retry-After': '0'}, b'')]
    return lambda answer: lambda handler: left.pop() if left else answer(handler)


def refused(status):
    return lambda answer: lambda handler: (status, {}, b'no')


def changed(change):
    """Another body, of which the server says that it is the whole."""
    def fault(answer):
        def lie(handler):
            return 200, {'ETag': '"one"'}, change(answer(handler)[2])
        return lie
    return fault


def slow(answer):
    """All of it, in more time than a server may say nothing."""
    def send(handler):
        status, headers, body = answer(handler)
        handler.send_response(status)
        for name, value in dict(headers, **{'Content-Length': str(len(body)), 'Connection': 'close'}).items():
            handler.send_header(name, value)
        handler.end_headers()
        for number in range(6):
            time.sleep(0.4)
            handler.wfile.write(body[number * len(body) // 6:(number + 1) * len(body) // 6])
            handler.wfile.flush()
        return 200, {}, b''
    return send


def stalled(answer):
    """A part of it, and then nothing."""
    def send(handler):
        handler.send_response(200)
        handler.send_header('Content-Length', str(len(answer(handler)[2])))
        handler.end_headers()
        handler.wfile.write(b'x' * 1000)
        handler.wfile.flush()
        time.sleep(8)
        return 200, {}, b''
    return send


def flip(body):
    return body[:-1] + bytes([body[-1] ^ 1])


LENGTH = 'digest does not match the image|has [0-9]+ bytes, not '

#: fault -> what it makes of an answer, what is said of it (None: it passes)
FAULTS = {
    'cut once': (lambda answer: cut(answer, CHUNK), None),
    'cut each time': (lambda answer: cut(answer, 1000, times=99), 'connection was cut'),
    'slow': (slow, None),
    'stalled': (stalled, 'no byte within 2 s'),
    'another bit': (changed(flip), 'digest does not match the image'),
    'shorter than it is': (changed(lambda body: body[:-5]), LENGTH),
    'longer than it is': (changed(lambda body: body + b'x'), LENGTH),
    '401': (refused(401), r'login needed \(HTTP 401\)'),
    '403': (refused(403), r'access refused \(HTTP 403\)'),
    '404': (refused(404), r'no such (image|file) \(HTTP 404\)'),
    '429': (refused(429), r'too many requests, try again later \(HTTP 429\)'),
    '500': (refused(500), r'server error \(HTTP 500\)'),
    '429 once': (once(429), None),
    '500 once': (once(500), None),
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A server with one image of each kind; get(kind), and ``bodies``: kind -> (path, answer)."""
    monkeypatch.setattr(sources, 'WAITS', (0.01,))
    monkeypatch.setattr(download, 'WAITS', (0.01,))
    monkeypatch.setattr(transport, 'READ_TIMEOUT', 2)
    image = sif_file(tmp_path / 'image.sif')
    data = image.read_bytes() + os.urandom(600000)
    made = SimpleNamespace(data=data, bodies={'https': ('/x.sif', served(data, ETag='"one"'))})
    answers, digests = {}, {'https': digest_of(data)}
    for kind, config, media_type in (
            ('docker', CONFIG, 'application/vnd.oci.image.config.v1+json'),
            ('oras', b'{}', 'application/vnd.oci.empty.v1+json')):
        manifest = json.dumps({
            'schemaVersion': 2, 'mediaType': MANIFEST,
            'config': {'mediaType': media_type, 'digest': digest_of(config), 'size': len(config)},
            'layers': [{'mediaType': 'a/b', 'digest': digest_of(data), 'size': len(data)}]}).encode()
        digests[kind] = digest_of(manifest)
        answers.update({'/v2/x/%s/manifests/%s' % (kind, name): (200, {'Content-Type': MANIFEST}, manifest)
                        for name in ('1', digests[kind])})
        answers['/v2/x/%s/blobs/%s' % (kind, digest_of(config))] = (200, {}, config)
        made.bodies[kind] = '/v2/x/%s/blobs/%s' % (kind, digest_of(data)), served(data)

    def pack(source, path, *others):
        """As the runtime would, if there were an image in the layer."""
        with open(os.path.join(path, 'blobs/sha256', digest_of(data)[7:]), 'rb') as blob:
            assert blob.read() == data
        with open(others[4], 'wb') as target:
            target.write(data)

    monkeypatch.setattr(build, '_make', pack)
    answers.update(dict(made.bodies.values()))
    with stub(answers) as server:
        (tmp_path / 'site.yaml').write_text('registry_mirrors: {up.invalid: ["http://%s"]}\n' % server.host)
        monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
        for name in ('downloads', 'work', 'log'):
            (tmp_path / name).mkdir()
        places = Places(find_file=lambda name: None, searched=[],
                        downloads=str(tmp_path / 'downloads'), work=str(tmp_path / 'work'),
                        log=str(tmp_path / 'log' / 'build.log'))
        runtime = SimpleNamespace(name='apptainer', path='/no/runtime', environment=lambda **_: dict(os.environ))
        references = {'https': 'https://up.invalid/x.sif', 'docker': 'docker://up.invalid/x/docker:1',
                      'oras': 'oras://up.invalid/x/oras:1'}

        def get(kind):
            one = recipe(references[kind], digest=digests[kind])
            return obtain(one, sites.resolve().site, runtime, places)

        made.get, made.server = get, server
        made.left = lambda: toys.files(tmp_path / 'downloads') | toys.files(tmp_path / 'work')
        yield made


@pytest.mark.long
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', FAULTS)
def test_what_is_got_is_whole_and_what_fails_leaves_nothing(world, kind, name):
    fault, reason = FAULTS[name]
    path, good = world.bodies[kind]
    world.server.answers[path] = (later if kind == 'https' else always)(fault)(good)
    if reason:
        with pytest.raises(EasySIFError, match=reason):
            world.get(kind)
        assert world.left() == set()
        world.server.answers[path] = good
    got = world.get(kind)
    with open(got.path, 'rb') as handle:
        assert handle.read() == world.data
    # the image, its record, and our own link to it
    image = os.path.basename(got.kept)
    assert world.left() == {image, image + '.json', os.path.basename(got.path)}


@pytest.mark.parametrize('kind', ['oras', 'https'])
def test_a_sif_file_of_another_architecture_is_refused_and_not_kept(world, kind, monkeypatch):
    monkeypatch.setattr(sif, 'architecture', lambda machine=None: 'other')
    with pytest.raises(EasySIFError, match='image is made for other processors than those of this machine'):
        world.get(kind)
    assert world.left() == set()
