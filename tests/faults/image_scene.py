# SPDX-License-Identifier: GPL-2.0-only
"""Installs whose image comes in each of the ways that EasySIF has, from a server so slow that it can be disturbed."""

import json
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import yaml

import toys
from helpers_registry import answers_of, answers_of_sif, call, stub, tiny_layout
from scene import Scene

SLOWNESS = 0.6  #: seconds that the image itself takes
PIECES = 12

#: a build that others' files are left of when it is killed, where this machine gives it several users
DEFINITION = '''Bootstrap: docker
From: up.invalid/x/toy:1

%post
    mkdir -p /data/deep
    chown 5:5 /data/deep /data || true
    chmod 700 /data/deep
    touch /made
'''

WAYS = ('https', 'oras', 'docker', 'docker-archive', 'oci-archive', 'definition')


def ways(directory):
    """Return what recipes of each way say (dict of str).

    :param directory: where the archives are (Path)
    """
    return dict(zip(WAYS, (
        'https://up.invalid/toy.sif', 'oras://up.invalid/x/sif:1', 'docker://up.invalid/x/toy:1',
        'docker-archive:%s' % (directory / 'docker-archive.tar'), 'oci-archive:%s' % (directory / 'oci-archive.tar'),
        'toy.def')))


def slowly(data, etag):
    """Return an answer that is sent in pieces, from where it is asked for (function of a stub's handler)."""
    def answer(handler):
        begin = int(handler.headers.get('Range', 'bytes=0-')[6:-1])
        handler.send_response(206 if begin else 200)
        if begin:
            handler.send_header('Content-Range', 'bytes %d-%d/%d' % (begin, len(data) - 1, len(data)))
        handler.send_header('ETag', etag)
        handler.send_header('Connection', 'close')
        handler.send_header('Content-Length', str(len(data) - begin))
        handler.end_headers()
        step = len(data) // PIECES + 1
        for at in range(begin, len(data), step):
            time.sleep(SLOWNESS / PIECES)
            handler.wfile.write(data[at:at + step])
        return 200, {}, b''
    return answer


@contextmanager
def upstream(directory, toy):
    """Serve the toy image in all ways; gives the server, with ``seen`` (requests).

    :param directory: where archives are made (Path)
    :param toy: the SIF file (Path)
    """
    layout = tiny_layout(directory, str(toys.make_root(directory)))
    for kind in ('docker', 'oci'):
        call('skopeo', 'copy', '-q', 'oci:' + layout, '%s-archive:%s' % (kind, directory / (kind + '-archive.tar')))
    answers = {'/toy.sif': (200, {}, toy.read_bytes()), **answers_of(layout, 'x/toy:1'),
               **answers_of_sif(toy.read_bytes(), 'x/sif:1')}
    with stub({path: slowly(body, '"%d"' % number) if len(body) > 100000 else (status, headers, body)
               for number, (path, (status, headers, body)) in enumerate(answers.items())}) as server:
        yield server


class ImageScene(Scene):
    """A prefix with a module that nobody touches, and one of its own for each way.

    :param directory: a directory of its own (Path)
    :param toy: the SIF file (Path)
    :param server: what serves it (upstream)
    :param archives: where the archives are (Path)
    :param tmp: the directory for temporary files (Path), one in the other where None
    """

    def __init__(self, directory, toy, server, archives, tmp=None):
        super().__init__(directory, toy, SimpleNamespace(url='http://' + server.host), tmp)
        self.site.write_text(yaml.safe_dump({'registry_mirrors': {'up.invalid': ['http://' + server.host]}}))
        self.ways, self.durations, self.images = {}, {}, ways(archives)
        for way, image in self.images.items():
            beside = directory / ('by ' + way)
            beside.mkdir()
            (beside / 'toy.def').write_text(DEFINITION)
            self.ways[way] = self.recipe(beside, '1.0', 0, image=image)

    def prepare(self):
        """Install what stands, and note how the prefix looks (ImageScene)."""
        self.eb(self.recipe(self.directory, '0.9', 7))
        self.base, self.expected = self.listing(), {}
        self.before = {'other': self.state()['other']}
        return self

    def undisturbed(self, way):
        """Install once as it should be, unless that was done before; note how the prefix looks then, and how long it
        takes. Return the seconds until the image is there, and until all is done (tuple of float)."""
        if way not in self.durations:
            self.reset()
            clock = self.directory / ('clock of ' + way)
            self.eb(self.ways[way], faults={'1.0': {'clock': str(clock), 'step': 'post_fetch', 'do': 'time'}})
            self.durations[way] = tuple(map(float, clock.read_text().split()))
            self.expected[way] = self.listing()
            self.reset()
        return self.durations[way]

    def reset(self):
        """Have neither the module nor an image of it."""
        super().reset()
        for path in toys.files(self.prefix / 'sources'):
            (self.prefix / 'sources' / path).unlink()


def check(scene, way, stands, done=True):
    """Make sure that nothing half is seen, and that nothing is left; return whether the module is there (bool).

    :param scene: where it happened (ImageScene)
    :param way: how the image came (str)
    :param stands: whether the module has to be there (bool), None where it may
    :param done: whether nothing may be left of the fault (bool); after kill -9 the next call sees to that
    """
    scene.nothing_runs()
    said = scene.look()
    assert said.pop('toy/0.9') == '7' and scene.state()['other'] == scene.before['other']
    assert said in ([{'toy/1.0': '0'}] if stands else [{}] if stands is False else [{}, {'toy/1.0': '0'}]), said
    if said:
        root, manifest = toys.installation(scene.prefix, 'toy/1.0')
        assert toys.sha256(root / manifest['image']['file']) == manifest['image']['sha256']
    for record in Path(scene.prefix, 'sources').rglob('image-*.sif.json'):
        assert toys.sha256(record.with_suffix('')) == json.loads(record.read_text())['sha256']
    assert '%s/' % scene.directory not in Path('/proc/self/mounts').read_text()
    if done:
        found = {path for path in scene.listing() if not path.startswith('build/') or 'easysif' in path}
        assert found == (scene.expected[way] if said else scene.base)
        assert toys.snapshot(scene.prefix / 'software' / '.locks') == {}
        assert sorted(path.name for path in scene.tmp.iterdir() if not path.name.startswith('eb-')) == []
    return bool(said)
