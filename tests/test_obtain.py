# SPDX-License-Identifier: GPL-2.0-only
"""An image that was fetched or built is tied to its digest, and to its bytes until it is installed."""

import hashlib
import json
import multiprocessing
import os
import socket
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import toys
from easysif import files, holder, known
from easysif import obtain as module
from easysif.errors import TOOL, EasySIFError
from easysif.images import kept as module_kept
from easysif.images import sources
from easysif.images.place import sha256_of
from easysif.lock import Lock
from easysif.obtain import Places, obtain
from easysif.recipe import validate
from helpers_registry import digest_of, stub
from test_images_fetch import served, sif_file

FIRST, SECOND = ('sha256:' + digit * 64 for digit in 'ab')
REFERENCE = 'docker://docker.io/x/toy:1'
SITE = SimpleNamespace(image_store=None, image_mode='copy', registries=None, registry_mirrors={}, ca_certificates=None,
                       verify='none', keyring=None)


def recipe(image=REFERENCE, **values):
    return validate(dict({'easyblock': 'ContainerImage', 'name': 'toy', 'version': '1.0', 'image': image,
                          'homepage': 'https://example.com', 'description': 'A toy', 'moduleclass': 'tools',
                          'toolchain': {'name': 'system', 'version': 'system'}}, **values), 'toy-1.0.eb')


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A registry that has `digest` and a runtime that makes `content` of it: counts what is `made`, or is `gone`."""
    world = SimpleNamespace(digest=FIRST, content='image', made=0, gone=False, verified=[], logs=[])

    def resolve(*_, **__):
        if world.gone:
            raise EasySIFError('toy-1.0.eb', 'image is not to be had', exit_code=TOOL)
        return SimpleNamespace(digest=world.digest, manifest_digest=world.digest, source='docker.io')

    def make(_, part, *others):
        world.made += 1
        world.logs.append(next(other for other in others if str(other).endswith('.log')))
        with open(part, 'w') as handle:
            handle.write(world.content)
        return {'base': None}

    began = time.time()  # stands in the names of links, by which results are compared
    monkeypatch.setattr(module_kept, 'time', SimpleNamespace(time=lambda: began))
    monkeypatch.setattr(module.registry, 'resolve', resolve)
    monkeypatch.setattr(module.build, 'from_registry', make)
    monkeypatch.setattr(module.define, 'from_definition', make)
    monkeypatch.setattr(module.checksums, 'verify', lambda path, *_: world.verified.append(path))
    monkeypatch.setattr(module.sif, 'read', lambda *_: None)
    monkeypatch.setattr(module.sif, 'check_architecture', lambda *_: None)
    world.places = Places(find_file=lambda name: str(tmp_path / name), searched=[],
                          downloads=str(tmp_path / 'down[l]oads'), work=str(tmp_path / 'tmp'),
                          log=str(tmp_path / 'private' / 'build.log'))
    world.obtain = lambda image=REFERENCE, site=SITE, **values: obtain(recipe(image, **values), site, None,
                                                                       world.places)
    return world


def test_a_fetched_image_has_its_digest_in_its_name_and_its_sha256_in_its_record(world):
    got = world.obtain()
    assert os.path.basename(got.kept) == 'image-aaaaaaaaaaaa.sif'
    assert os.path.samefile(got.path, got.kept) and got.path != got.kept
    with open(got.kept + '.json') as handle:
        record = json.load(handle)
    assert record == {'reference': REFERENCE, 'digest': FIRST, 'manifest_digest': FIRST, 'source': 'docker.io',
                      'sha256': toys.sha256(got.path)}
    assert got.own and got.expected == record.pop('sha256') and got.origin == record
    again = world.obtain()
    assert (again, world.made) == (got, 1)
    assert sorted(os.listdir(world.places.downloads)) == [
        'image-aaaaaaaaaaaa.sif', 'image-aaaaaaaaaaaa.sif.json', os.path.basename(got.path)]


def test_images_of_one_name_and_several_digests_do_not_meet(world):
    first = world.obtain()
    world.digest, world.content = SECOND, 'another'
    second = world.obtain()
    assert first.path != second.path
    assert (toys.sha256(first.path), toys.sha256(second.path)) == (first.expected, second.expected)


def test_a_fetched_image_whose_bytes_are_not_the_recorded_ones_is_made_again(world):
    got = world.obtain()
    with open(got.path, 'w') as handle:
        handle.write('torn')
    assert (world.obtain(), world.made) == (got, 2)
    assert toys.sha256(got.path) == got.expected


@pytest.mark.parametrize('record', ['[]', '"x"', 'null', '{', '{}'])
def test_a_record_that_says_nothing_counts_as_none(world, record):
    got = world.obtain()
    with open(got.kept + '.json', 'w') as handle:
        handle.write(record)
    assert (world.obtain(), world.made) == (got, 2)
    world.gone = True
    with open(got.kept + '.json', 'w') as handle:
        handle.write(record)
    with pytest.raises(EasySIFError, match='not to be had'):
        world.obtain()


@pytest.mark.parametrize('cache, prefix, made', [
    (0o755, 0o755, 1), (0o777, 0o755, 2), (0o1777, 0o775, 2), (0o775, 0o755, 2), (0o775, 0o775, 1), (0o777, None, 2)])
def test_what_a_stranger_may_have_put_there_is_made_again(world, tmp_path, monkeypatch, cache, prefix, made):
    world.places = replace(world.places, prefix=str(tmp_path / 'prefix'))
    got = world.obtain()
    os.chmod(world.places.downloads, cache)
    if prefix:
        (tmp_path / 'prefix').mkdir()
        (tmp_path / 'prefix').chmod(prefix)
    assert (world.obtain(), world.made) == (got, 1)
    stat, stranger = os.lstat, 2 ** 31 - 7  # who has no name here

    def seen(path, **options):
        info = stat(path, **options)
        return os.stat_result([*info[:4], stranger, *info[5:]]) if 'image-' in str(path) else info

    monkeypatch.setattr(os, 'lstat', seen)
    assert (world.obtain(), world.made) == (got, made)
    if made == 2:
        monkeypatch.setattr(module_kept, '_unlink', lambda _: None)  # as in a directory with the sticky bit
        with pytest.raises(EasySIFError) as caught:
            world.obtain()
        assert str(caught.value) == (
            'toy-1.0.eb: a file of another user is where the image is to be kept\n  file   %s.json\n  owner  %d\n'
            'hint: ask %d to remove it, or export EASYSIF_CACHE_DIR=/path' % (got.kept, stranger, stranger))


def test_a_link_is_no_image_that_was_fetched(world, tmp_path):
    got = world.obtain()
    for path in (got.kept + '.json', got.kept):
        os.rename(path, tmp_path / 'elsewhere')
        os.symlink(tmp_path / 'elsewhere', path)
        os.chmod(world.places.downloads, 0o777)
        assert world.obtain().expected == got.expected and not os.path.islink(path)
    assert world.made == 3


def test_a_fetched_image_is_on_disk_before_it_has_its_name(world, monkeypatch):
    done = []
    for name, rest in (('fsync', os.fsync), ('rename', os.rename)):
        monkeypatch.setattr(os, name, lambda *args, name=name, call=rest: done.append((name, args)) or call(*args))
    target = world.obtain().kept
    names = [name for name, args in done if name == 'fsync' or args[-1] == target]
    assert names[:2] == ['fsync', 'rename']


def test_only_one_process_makes_an_image(world):
    os.makedirs(world.places.downloads)
    target = os.path.join(world.places.downloads, 'image-aaaaaaaaaaaa.sif')
    with Lock(target + '.lock', 'another'), pytest.raises(EasySIFError) as caught:
        world.obtain()
    assert str(caught.value).startswith('toy-1.0.eb: another process is at work here\n') and not world.made


def test_one_may_wait_for_the_process_that_makes_it(world):
    told, target = [], os.path.join(world.places.downloads, 'image-aaaaaaaaaaaa.sif')
    with Lock(target + '.lock', 'another') as lock:
        def tell(line):
            told.append(line)
            lock.__exit__(None, None, None)
        world.places = replace(world.places, lock={'wait': None, 'tell': tell})
        assert world.obtain().kept == target
    assert len(told) == 1 and told[0].startswith('waiting for process %d of ' % os.getpid())


def test_what_killed_ones_left_goes_and_what_is_in_use_stays(world):
    """A living one, one that cannot be seen from here, and files that are not of ours."""
    downloads = world.places.downloads
    os.makedirs(downloads)

    def leave(digit, **record):
        target = os.path.join(downloads, 'image-%s.sif' % (digit * 12))
        for name in (target + '.part-17', os.path.join(downloads, '.%s.json.new-17' % os.path.basename(target))):
            with open(name, 'w'):
                pass
        if record:
            os.mkdir(target + '.lock')
            with open(os.path.join(target + '.lock', 'holder'), 'w') as handle:
                json.dump(dict(json.loads(holder.write('x', '')), **record), handle)

    for digit, record in zip('abcde', ({'pid': 4194305}, {'pid': 4194305}, {}, {'user': 'alice'}, {'host': 'another'})):
        leave(digit, **record)
    for name in ('other.sif.part-1', 'image-cccccccccccc.sif.partial', 'image-cccccccccccc.sif.lock.part-1'):
        with open(os.path.join(downloads, name), 'w'):
            pass
    used, here, now = 'image-cccccccccccc.sif.used-%s-%d-%d', socket.gethostname(), time.time()
    for place in ((here, 4194305, now), (here, 1, 5), ('another', 4194305, now), ('another', 1, now - 8 * 86400)):
        with open(os.path.join(downloads, used % place), 'w'):
            pass
    got = world.obtain()
    assert sorted(os.listdir(downloads)) == sorted([
        os.path.basename(got.path), used % (here, 1, 5), used % ('another', 4194305, now),
        'image-aaaaaaaaaaaa.sif', 'image-aaaaaaaaaaaa.sif.json', 'other.sif.part-1',
        'image-cccccccccccc.sif.partial', 'image-cccccccccccc.sif.lock.part-1',
        *('%simage-%s.sif%s' % (dot, digit * 12, end) for digit in 'de'
          for dot, end in (('', '.part-17'), ('', '.lock'), ('.', '.json.new-17')))])


def test_an_image_is_not_put_where_another_one_makes_it_by_now(world, monkeypatch):
    """As after this process was suspended for long."""
    make = module.build.from_registry

    def lose(_, part, *others):
        make(_, part, *others)
        os.unlink(os.path.join(part.rpartition('.part-')[0] + '.lock', 'holder'))

    monkeypatch.setattr(module.build, 'from_registry', lose)
    with pytest.raises(EasySIFError, match='toy-1.0.eb: the lock was lost'):
        world.obtain()
    assert os.listdir(world.places.downloads) == []


def test_what_another_process_has_made_meanwhile_is_taken(world, monkeypatch):
    got = world.obtain()
    kept = os.path.join(os.path.dirname(world.places.downloads), 'kept')
    os.rename(world.places.downloads, kept)

    class Slow(Lock):
        def __enter__(self):
            os.makedirs(world.places.downloads, exist_ok=True)
            for name in os.listdir(kept):
                os.rename(os.path.join(kept, name), os.path.join(world.places.downloads, name))
            return super().__enter__()

    monkeypatch.setattr(module_kept, 'Lock', Slow)
    assert (world.obtain(), world.made) == (got, 1)


def test_without_the_registry_the_newest_fetched_image_that_fits_is_taken(world):
    first = world.obtain()
    world.digest = SECOND
    second = world.obtain()
    os.utime(first.path, (1, 1))
    world.gone = True
    assert world.obtain().kept == second.kept
    assert world.obtain(digest=FIRST).kept == first.kept
    with pytest.raises(EasySIFError, match='not to be had'):
        world.obtain(image=REFERENCE + '2')


def test_an_installed_image_leaves_no_second_copy(world):
    got = world.obtain()
    got.forget()
    got.forget()
    assert os.listdir(world.places.downloads) == []


def test_definitions_of_one_name_do_not_meet_and_are_verified(world, tmp_path):
    paths = []
    for text in ('one', 'two'):
        (tmp_path / 'toy.def').write_text(text)
        paths.append(world.obtain(image='toy.def').path)
    assert world.verified == [str(tmp_path / 'toy.def')] * 2 and len(set(paths)) == 2


@pytest.mark.parametrize('image', [REFERENCE, 'toy.def'])
def test_the_log_of_a_build_is_not_where_others_build(world, tmp_path, image):
    (tmp_path / 'toy.def').touch()
    world.obtain(image=image)
    assert world.logs == [str(tmp_path / 'private' / 'build.log')]


def test_files_are_verified_wherever_they_are_found(world, tmp_path):
    store = tmp_path / 'store'
    store.mkdir()
    (store / 'stored.sif').touch()
    site = SimpleNamespace(image_store=str(store), image_mode='copy', verify='none')
    for name, found in (('stored.sif', store / 'stored.sif'), ('found.sif', tmp_path / 'found.sif')):
        assert world.obtain(image=name, site=site).path == str(found) == world.verified[-1]


@pytest.mark.parametrize('image', ['toy.sif', REFERENCE])
def test_the_installed_image_is_taken_only_if_it_is_whole(world, tmp_path, image, monkeypatch):
    read = []
    monkeypatch.setattr(known, 'sha256_of', lambda path: read.append(path) or sha256_of(path))
    world.gone = True
    record = {'reference': image, 'digest': FIRST, 'file': 'toy.sif', 'sha256': hashlib.sha256(b'image').hexdigest(),
              'size': 5}
    world.places = replace(world.places, find_file=lambda name: None,
                           previous=(str(tmp_path), {'image': record, 'files': {'bin/toy': {}}}))
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'toy').touch()
    for content in (None, 'another', 'other'):
        if content:
            (tmp_path / 'toy.sif').write_text(content)
        with pytest.raises(EasySIFError) as caught:
            world.obtain(image=image)
        assert ('image file not found: toy.sif' if image == 'toy.sif' else 'is not to be had') in str(caught.value)
    (tmp_path / 'toy.sif').write_text('image')
    del read[:]
    for is_older in (False, True):  # than what was made after it: then nobody has written to it
        if is_older:
            os.utime(tmp_path / 'toy.sif', (0, 0))
        found = world.obtain(image=image)
        assert (found.path, found.verified) == (str(tmp_path / 'toy.sif'), files.identity(found.path))
        assert read == [found.path]
    assert world.verified == ([str(tmp_path / 'toy.sif')] * 2 if image == 'toy.sif' else [])


def test_a_file_whose_sha256_the_recipe_names_is_not_read_where_it_is_installed_already(world, tmp_path):
    (tmp_path / 'module').mkdir()
    (tmp_path / 'module' / 'toy.sif').write_bytes(b'image')
    sha256 = hashlib.sha256(b'image').hexdigest()
    record = {'reference': 'other.sif', 'digest': 'sha256:' + sha256, 'file': 'toy.sif', 'sha256': sha256, 'size': 5}
    world.places = replace(world.places, previous=(str(tmp_path / 'module'), {'image': record, 'files': {}}))
    for values, path in (({'digest': 'sha256:' + sha256}, 'module/toy.sif'), ({'digest': FIRST}, 'found.sif'),
                         ({}, 'found.sif')):
        found = world.obtain(image='found.sif', **values)
        assert found.path == str(tmp_path / path), values
        assert found.origin['reference'] == 'found.sif'


# Files of web servers, and several installations at once

@pytest.fixture
def web(tmp_path):
    """A server of a SIF file at /x.sif, and a function that obtains it: ``web.obtain(name, **parameters)``."""
    data = sif_file(tmp_path / 'upstream.sif').read_bytes()
    with stub({'/x.sif': served(data, ETag='"one"')}) as server:
        def find(name='toy', wait=None, **values):
            places = Places(find_file=lambda _: None, searched=[], work=str(tmp_path), log='',
                            downloads=str(tmp_path / 'downloads'), lock={'wait': wait})
            return obtain(recipe('http://%s/x.sif' % server.host, name=name, **values), SITE, None, places)
        server.obtain, server.data, server.digest = find, data, digest_of(data)
        yield server


def test_a_file_that_is_the_same_upstream_is_not_fetched_again(web):
    first = web.obtain()
    assert first.origin == {'reference': 'http://%s/x.sif' % web.host, 'digest': web.digest, 'source': web.host,
                            'validator': '"one"'}
    assert web.obtain('other').kept == first.kept and len(web.seen) == 3
    web.answers['/x.sif'] = served(web.data, ETag='"two"')
    assert web.obtain().origin['validator'] == '"two"' and len(web.seen) == 5


def test_with_a_digest_nobody_is_asked_for_what_is_here(web):
    web.obtain(digest=web.digest)
    asked = len(web.seen)
    web.answers.clear()
    assert web.obtain(digest=web.digest).expected == web.digest[7:] and len(web.seen) == asked


def test_what_was_fetched_before_its_digest_was_known_is_not_fetched_again(web):
    first, asked = web.obtain(), len(web.seen)
    assert web.obtain(digest=web.digest).kept == first.kept and len(web.seen) == asked


def test_a_digest_in_a_record_is_believed_only_if_the_file_has_it(web, monkeypatch):
    monkeypatch.setattr(sources, 'WAITS', ())

    def forge(found, content):
        os.unlink(found.kept)
        with open(found.kept, 'wb') as image, open(found.kept + '.json', 'w') as record:
            image.write(content)
            json.dump(dict(found.origin, sha256=digest_of(content)[7:]), record)

    for digest in (web.digest, None):
        forge(web.obtain(digest=digest), web.data + b'more')
        found = web.obtain(digest=digest)
        assert found.expected == web.digest[7:]
        found.forget()
    forge(web.obtain(), web.data + b'more')
    web.answers.clear()
    with pytest.raises(EasySIFError, match='not to be had'):
        web.obtain()


@pytest.mark.parametrize('image', ['library://x/y/toy:1', 'oras://localhost/x/toy:1'])
def test_so_is_that_of_other_files_that_come_as_they_are(world, monkeypatch, image):
    data = b'genuine'

    def make(path):
        world.made += 1
        with open(path, 'wb') as handle:
            handle.write(data)

    monkeypatch.setattr(module.build, 'from_library', lambda _, part, *__: make(part))
    monkeypatch.setattr(module.pull, 'sif', lambda _, part, *__: make(part))
    monkeypatch.setattr(module.registry, 'resolve', lambda *_, **__: SimpleNamespace(
        digest=digest_of(data), manifest_digest=digest_of(data), source='x', blobs=[SimpleNamespace(
            digest=digest_of(data))]))
    found = world.obtain(image, digest=digest_of(data))
    assert world.obtain(image, digest=digest_of(data)) == found and world.made == 1
    with open(found.path, 'w') as image_file, open(found.kept + '.json', 'w') as record:
        image_file.write('forged')
        json.dump(dict(found.origin, sha256=digest_of(b'forged')[7:]), record)
    assert world.obtain(image, digest=digest_of(data)) == found and world.made == 2


def test_a_file_of_another_digest_is_refused_and_not_kept(web, tmp_path):
    with pytest.raises(EasySIFError) as caught:
        web.obtain(digest=FIRST)
    assert str(caught.value) == (
        'toy-1.0.eb: digest does not match the image\n  recipe  %s\n  found   %s  (%s)\n'
        "hint: find out why; if it is the right one, write digest = '%s'" % (FIRST, web.digest, web.host, web.digest))
    assert os.listdir(tmp_path / 'downloads') == []


@pytest.mark.parametrize('change, told', [
    (lambda data: data[:-50], 'image is not complete'),
    (lambda data: b'<html>log in</html>', 'a web page'),
    (lambda data: data.replace(b'hsqs', b'hsqt'), 'image is damaged'),
])
def test_a_file_that_is_no_whole_sif_is_refused_and_not_kept(web, tmp_path, change, told):
    web.answers['/x.sif'] = served(change(web.data))
    with pytest.raises(EasySIFError, match=told):
        web.obtain()
    assert os.listdir(tmp_path / 'downloads') == []


def test_a_file_that_is_gone_upstream_is_taken_from_here_and_that_is_said(web, monkeypatch):
    monkeypatch.setattr(sources, 'WAITS', ())
    first = web.obtain()
    web.answers.clear()
    found = web.obtain()
    assert found.kept == first.kept
    assert found.note.endswith('(HTTP 404)\nhint: correct the address in the recipe\n'
                               'the image that is here already is taken: %s' % web.digest)


@pytest.mark.long
def test_many_at_once_fetch_an_image_once_and_each_has_it_until_it_is_done(web, tmp_path):
    def install(number, queue):
        found = web.obtain('toy%d' % number)
        barrier.wait(60)
        if number % 2:
            found.forget()
        barrier.wait(60)
        with open(found.path if number % 2 == 0 else os.devnull, 'rb') as handle:
            queue.put(digest_of(handle.read()))
        found.forget()

    slow = web.answers['/x.sif']
    web.answers['/x.sif'] = lambda handler: time.sleep(0.2) or slow(handler)
    context = multiprocessing.get_context('fork')
    queue, barrier = context.Queue(), context.Barrier(6)
    processes = [context.Process(target=install, args=(number, queue)) for number in range(6)]
    for process in processes:
        process.start()
    assert sorted(queue.get(timeout=60) for _ in processes) == sorted([web.digest] * 3 + [digest_of(b'')] * 3)
    for process in processes:
        process.join()
    assert len(web.seen) == 6 + 1  # each looks, one fetches
    assert os.listdir(tmp_path / 'downloads') == []
