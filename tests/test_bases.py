# SPDX-License-Identifier: GPL-2.0-only
"""The base of several definitions is fetched once, and goes when the process ends that used it."""

import json
import multiprocessing
import os
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest

import toys
from easysif import holder
from easysif.errors import EasySIFError
from easysif.images import bases, sif
from easysif.obtain import Places, obtain
from easysif.recipe import load
from easysif.runtime import Runtime
from easysif.site import resolve
from easysif.store.contents import Store
from helpers_registry import MANIFEST, answers_of_sif, digest_of, stub
from made_up import image

LAYER, CONFIG = b'layer' * 40000, json.dumps({'architecture': sif.architecture(), 'os': 'linux'}).encode()

#: a runtime that makes the image when it finds the base, but for definitions that say that it fails
RUNTIME = '''#!/bin/sh
[ "$2" = --help ] && exit 0
for last; do made=$before before=$last; done
base=$(sed -n 's/^From: //p' "$last")
[ -e "$base" ] && ! grep -q fails "$last" && cp %s "$made"
'''


def answers():
    """Return what a registry says that has an image and an artifact (dict)."""
    manifest = json.dumps({'schemaVersion': 2, 'mediaType': MANIFEST, 'config': {
        'mediaType': 'application/vnd.oci.image.config.v1+json', 'digest': digest_of(CONFIG), 'size': len(CONFIG)},
        'layers': [{'mediaType': 'application/vnd.oci.image.layer.v1.tar', 'digest': digest_of(LAYER),
                    'size': len(LAYER)}]}).encode()
    found = {'/v2/x/toy/manifests/%s' % one: (200, {'Content-Type': MANIFEST}, manifest)
             for one in ('1', digest_of(manifest))}

    def slowly(_):
        time.sleep(0.5)
        return 200, {}, LAYER
    return dict(found, **{'/v2/x/toy/blobs/' + digest_of(CONFIG): (200, {}, CONFIG),
                          '/v2/x/toy/blobs/' + digest_of(LAYER): slowly}, **answers_of_sif(LAYER, 'x/sif:1'))


@pytest.fixture
def world(tmp_path):
    """A registry and a runtime; ``make`` makes images of definitions, and ``asked`` counts what was asked for."""
    image(tmp_path / 'good.sif')
    runtime = tmp_path / 'runtime'
    runtime.write_text(RUNTIME % (tmp_path / 'good.sif'))
    runtime.chmod(0o755)
    downloads, work, told = tmp_path / 'downloads', tmp_path / 'work', []
    work.mkdir()
    with stub(answers()) as server:
        site = replace(resolve().site, registry_mirrors={'up.invalid': ['http://' + server.host]},
                       image_store=str(tmp_path / 'store'))

        def make(name, bootstrap='docker', base='toy:1', says='', beginning='up.invalid/x/'):
            (tmp_path / (name + '.def')).write_text('Bootstrap: %s\nFrom: %s%s\n# %s %s\n' % (
                bootstrap, beginning, base, name, says))
            places = Places(find_file=lambda file: str(tmp_path / file), searched=[],
                            downloads=str(downloads), work=str(work), log=str(tmp_path / (name + '.log')),
                            lock={'wait': None, 'tell': told.append})
            return obtain(load(toys.recipe(tmp_path, name, image=name + '.def')), site,
                          Runtime(str(runtime), 'singularity', (4, 1)), places)
        yield SimpleNamespace(
            make=make, server=server, store=tmp_path / 'store', downloads=downloads, work=work,
            told=told, bases=lambda: sorted(path.name for path in downloads.glob('base-*')),
            asked=lambda digest: Counter(path for path, _ in server.seen)['/v2/x/toy/blobs/' + digest])
    bases.forget()


def test_the_second_definition_on_a_base_fetches_nothing_and_nothing_is_left(world):
    for name in ('one', 'two'):
        world.make(name).forget()
    assert world.asked(digest_of(LAYER)) == 1 and len(world.bases()) == 1
    bases.forget('/elsewhere')
    assert len(world.bases()) == 1
    bases.forget(str(world.downloads))
    assert os.listdir(world.downloads) == os.listdir(world.work) == []
    for name in ('three', 'four'):
        world.make(name, 'oras', 'sif:1').forget()
    bases.forget()
    assert os.listdir(world.downloads) == os.listdir(world.work) == []


@pytest.mark.parametrize('bootstrap, repository', [('docker', 'toy'), ('oras', 'sif')])
def test_a_base_of_which_the_image_store_has_an_image_is_not_fetched(world, tmp_path, monkeypatch, bootstrap,
                                                                     repository):
    manifest = world.server.answers['/v2/x/%s/manifests/1' % repository][2]
    digest, store, stored = digest_of(manifest), Store(str(world.store)), world.store / 'any name.sif'
    store.prepare('x')

    def record(index=digest, **values):
        image(stored)
        info = stored.stat()
        store.write_record(stored.name, dict({
            'schema': 1, 'size': info.st_size, 'mtime_ns': info.st_mtime_ns, 'sha256': toys.sha256(stored),
            'reference': bootstrap + '://elsewhere.invalid/y:2', 'digest': index, 'manifest_digest': digest}, **values))

    def make(name, tag):
        del world.server.seen[:]
        return world.make(name, bootstrap, repository + tag).origin, [path for path, _ in world.server.seen]

    record('sha256:' + 'a' * 64)
    named = '%s://up.invalid/x/%s' % (bootstrap, repository)
    for name, tag, index in (('tag', ':1', digest), ('digest', '@' + digest, digest),
                             ('index', '@sha256:' + 'a' * 64, 'sha256:' + 'a' * 64)):
        origin, asked = make(name, tag)
        assert (origin['base'], origin['base_source'], origin['base_digest']) == (named + tag, str(stored), index)
        assert origin['definition'].startswith('Bootstrap: localimage\nFrom: %s\n' % stored)
        assert [path for path in asked if repository != 'toy' or 'manifests' in path] == (
            ['/v2/x/%s/manifests/1' % repository] if tag == ':1' else [])
        assert '/v2/x/%s/blobs/%s' % (repository, digest_of(LAYER)) not in asked
    # what is of another kind, damaged or for another machine is not the base
    record(reference='%s://up.invalid/x' % {'docker': 'oras', 'oras': 'docker'}[bootstrap])
    fetched = '%s@%s' % (named.replace('up.invalid', world.server.host), digest)
    assert make('kind', ':1')[0]['base_source'] == fetched
    record(sha256='0' * 64)
    assert make('damaged', ':1')[0]['base_source'] == fetched
    # but the next that is whole
    another = world.store / 'other name.sif'
    shutil.copy(stored, another)
    info = another.stat()
    store.write_record(another.name, dict(store.entry(stored.name).record, sha256=toys.sha256(another),
                                          size=info.st_size, mtime_ns=info.st_mtime_ns))
    assert make('next', ':1')[0]['base_source'] == str(another)
    # and none that anybody may change while it is built with
    record()
    for path in (another, stored):
        path.chmod(0o666)
    del world.told[:]
    assert make('open', ':1')[0]['base_source'] == fetched
    assert world.told == ['%s: can be written by everybody, so it is no base' % path for path in (stored, another)]
    another.unlink()
    stored.chmod(0o644)
    monkeypatch.setattr(sif, 'check_architecture', refuse)
    with pytest.raises(EasySIFError, match='another machine'):  # also what is made of it
        make('machine', '@' + digest)
    assert '/v2/x/%s/manifests/%s' % (repository, digest) in [path for path, _ in world.server.seen]


def test_a_base_may_be_a_file_of_the_image_store(world):
    world.store.mkdir()
    image(world.store / 'base.sif')
    origin = world.make('one', 'localimage', 'base.sif', beginning='').origin
    assert (origin['base'], origin['base_source'], origin['base_digest']) == (
        'base.sif', str(world.store / 'base.sif'), 'sha256:' + toys.sha256(world.store / 'base.sif'))
    world.store.chmod(0o777)
    with pytest.raises(EasySIFError, match='can be written by everybody'):
        world.make('two', 'localimage', 'base.sif', beginning='')


def refuse(found, where):
    """As where an image is for another machine."""
    raise EasySIFError(where, 'is for another machine')


@pytest.mark.long
def test_definitions_that_are_built_at_once_fetch_their_base_once(world):
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=world.make, args=('number%d' % number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert world.asked(digest_of(LAYER)) == 1


@pytest.mark.long
def test_a_base_serves_only_while_it_is_whole_and_goes_also_where_no_image_was_made_with_it(world, monkeypatch):
    with pytest.raises(EasySIFError, match='could not be made into a SIF file'):
        world.make('bad', says='fails')
    base, = world.downloads.glob('base-*')
    monkeypatch.setattr(os, 'link', lambda *_, **__: (_ for _ in ()).throw(OSError(18, 'another file system')))
    world.make('good')
    assert world.asked(digest_of(LAYER)) == 1
    blob = base / 'base' / 'blobs' / 'sha256' / digest_of(LAYER)[7:]
    for name, harm in (('flipped', lambda: blob.write_bytes(b'other')), ('gone', blob.unlink),
                       ('elsewhere', lambda: (blob.rename(base / 'away'), blob.symlink_to(base / 'away')))):
        harm()
        before = world.asked(digest_of(LAYER))
        world.make(name)
        assert world.asked(digest_of(LAYER)) == before + 1 and blob.read_bytes() == LAYER
    with pytest.raises(EasySIFError, match='could not be made into a SIF file'):
        world.make('worse', says='fails')
    bases.forget()
    assert world.bases() == []


def test_what_killed_ones_left_goes_and_what_is_in_use_stays(world):
    world.make('one').forget()
    (base,), ended = world.downloads.glob('base-*'), subprocess.Popen(['true'])
    ended.wait()
    record = json.loads((base / holder.NAME).read_text())
    bases.sweep(str(world.downloads), 'x.eb')
    assert base.exists()  # ours
    (base / holder.NAME).write_text(json.dumps(dict(record, pid=ended.pid)))
    bases.sweep(str(world.downloads), 'x.eb')
    assert not base.exists()
    half = world.downloads / (base.name + '.part-1'), world.downloads / 'base-0123456789ab.part-1'
    for path in half:
        (path / 'base').mkdir(parents=True)
    world.make('two').forget()
    assert [path.name for path in world.downloads.iterdir()] == [base.name]


def test_where_a_base_cannot_be_brought_is_told(world, monkeypatch):
    """As where the work directory is another file system, to which there are no hard links, and that is full."""
    def failing(function, number, why):
        def instead(source, *more, **others):
            if '/blobs/' in str(source):
                raise OSError(number, why)
            return function(source, *more, **others)
        return instead
    monkeypatch.setattr(bases.os, 'link', failing(os.link, 18, 'another file system'))
    monkeypatch.setattr(bases.shutil, 'copyfile', failing(shutil.copyfile, 28, 'full'))
    with pytest.raises(EasySIFError) as caught:
        world.make('one')
    assert str(caught.value).startswith(
        "one-1.0.eb: base 'docker://up.invalid/x/toy:1' cannot be brought to where it is used (full)\n  directory  ")
    assert '\nhint: df -h ' in str(caught.value)
