# SPDX-License-Identifier: GPL-2.0-only
"""Every kind of image through the real eb, from loopback servers; and what of a login is written anywhere."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest
import yaml

import harness
import toys
from easysif.images import sif
from helpers_registry import PASSWORD, USER, LoopbackRegistry, call, stub, tiny_layout, tiny_rootfs
from test_images_fetch import cut, served

pytestmark = pytest.mark.e2e

#: of what modules run the file of an image store, with what they say
LINKED = {'library': '', 'oci': '', 'file': 'run-file it is\n'}

DEFINITION = '''Bootstrap: localimage
From: %s

%%post
    echo "%%(name)s {{ word }}" >/what
'''


@pytest.fixture(scope='module')
def world(tmp_path_factory, toy):
    """Servers of a SIF file, archives and recipes; what one eb made of them, and everything about it."""
    directory = tmp_path_factory.mktemp('world')
    rootfs = tiny_rootfs(directory / 'rootfs')
    layout = tiny_layout(directory, rootfs, config=['--config.label', 'org.example.says=it is'])
    other = tiny_layout(directory, rootfs, 'other', ['--architecture=s390x'])
    for kind, source, name in (('docker', layout, 'good'), ('oci', layout, 'good'), ('docker', other, 'bad')):
        archive = directory / ('%s-%s.tar' % (kind, name))
        call('skopeo', 'copy', '-q', 'oci:' + source, '%s-archive:%s' % (kind, archive))
    (directory / 'broken.tar').write_bytes(b'nothing')
    data, home = toy.read_bytes(), directory / 'home'
    library = {'data': {'id': '1', 'hash': 'sha256.' + toys.sha256(toy), 'size': len(data), 'uploaded': True,
                        'arch': sif.architecture(), 'tags': ['1']}}
    answers = {'/toy.sif': cut(served(data, ETag='"one"'), 300000, times=2), '/away.sif': (404, {}, b''),
               '/v1/images/a/b/c:1': (200, {'Content-Type': 'application/json'}, json.dumps(library).encode()),
               '/v1/imagefile/a/b/c:1': (200, {}, data)}
    with stub(answers) as server, LoopbackRegistry(directory / 'registry', login=True) as private:
        answers['/assets/config/config.prod.json'] = (200, {}, json.dumps(
            {name: {'uri': 'http://' + server.host} for name in ('libraryAPI', 'keystoreAPI')}).encode())
        env = harness.user_environment(home)
        (home / '.apptainer').mkdir()
        (home / '.apptainer' / 'remote.yaml').write_text(yaml.safe_dump({'Active': 'x', 'Remotes': {'x': {
            'URI': 'http://' + server.host, 'Insecure': True}}}))
        private.push(layout, 'x/tiny:1')
        subprocess.run(['apptainer', 'registry', 'login', '--username', USER, '--password', PASSWORD,
                        'oras://' + private.host], env=dict(env, APPTAINER_NOHTTPS='1'), check=True,
                       capture_output=True)
        call('apptainer', 'push', '--no-https', str(toy), 'oras://%s/x/toy:1' % private.host, env=env)
        (home / '.netrc').write_text('machine localhost login %s password %s\n' % (USER, PASSWORD))
        (home / '.netrc').chmod(0o600)
        mirrors = {'up.invalid': [private.url], 'web.invalid': ['http://' + server.host]}
        (directory / 'site.yaml').write_text(yaml.safe_dump({'cache_dir': str(directory / 'cache'),
                                                             'registry_mirrors': mirrors}))
        for name, base in (('file', 'toy.sif'), ('module', 'url/1.0'), ('based', 'up.invalid/x/tiny:1')):
            (directory / (name + '.def')).write_text((DEFINITION % base).replace(
                'localimage', 'docker' if name == 'based' else 'localimage'))
        images = {
            'url': dict(image='https://web.invalid/toy.sif', digest='sha256:' + toys.sha256(toy)),
            'nodigest': dict(image='https://web.invalid/toy.sif'),
            'oras': dict(image='oras://up.invalid/x/toy:1'),
            'private': dict(image='docker://up.invalid/x/tiny:1'),
            'library': dict(image='library://a/b/c:1'),
            'again': dict(image='library://a/b/c:2', digest='sha256:' + toys.sha256(toy)),
            'docker': dict(image='docker-archive:docker-good.tar', digest='sha256:' + toys.sha256(
                directory / 'docker-good.tar')),
            'oci': dict(image='oci-archive:%s' % (directory / 'oci-good.tar')),
            'absolute': dict(image=str(toy)),
            'file': dict(image='file.def', build_args={'word': 'it is'}),
            'module': dict(image='module.def', build_args={'word': 'so'}, builddependencies=[('url', '1.0')]),
            'based': dict(image='based.def', build_args={'word': 'on it'}),
            'foreign': dict(image='docker-archive:docker-bad.tar'),
            'broken': dict(image='oci-archive:broken.tar'),
            'nolib': dict(image='library://a/b/gone:1'),
            'otherlib': dict(image='library://a/b/c:1', digest='sha256:' + '0' * 64),
            'wrong': dict(image='https://web.invalid/toy.sif', digest='sha256:' + '0' * 64),
            'away': dict(image='https://web.invalid/away.sif')}
        recipes = [toys.recipe(directory, name, commands=['cat'], **values) for name, values in images.items()]
        result = harness.run_eb([*recipes, '--sourcepath=%s:%s' % (directory / 'sources', toy.parent),
                                 '--dump-test-report=%s' % (directory / 'report')], directory / 'prefix', home,
                                directory / 'site.yaml', check=False)
        linking = [toys.recipe(directory, 'run-' + name, image_mode='link', commands=['cat'], **images[name])
                   for name in LINKED]
        (directory / 'linking.yaml').write_text(yaml.safe_dump({
            'registry_mirrors': mirrors, 'image_store': str(directory / 'store')}))
        more = dict(harness.eb_environment(directory / 'prefix', home, directory / 'linking.yaml'),
                    EASYBUILD_SOURCEPATH=str(toy.parent))
        seen = list(server.seen)
        harness.run(['easysif', 'store', 'add', *linking], env=more, cwd=directory)
    # without the server
    harness.run_eb(linking, directory / 'prefix', home, directory / 'linking.yaml')
    printed = dict(zip(images, result.stdout.split('== processing EasyBuild easyconfig ')[1:]))
    return SimpleNamespace(directory=directory, prefix=directory / 'prefix', printed=printed, output=result.output,
                           seen=seen, toy=toy, server=server.host, private=private.host)


def image_of(world, name):
    assert 'COMPLETED: ' in world.printed[name], world.printed[name]
    return toys.installation(world.prefix, name + '/1.0')[1]['image']


@pytest.mark.parametrize('name', ['url', 'nodigest', 'oras', 'library', 'again', 'absolute'])
def test_a_sif_file_is_installed_byte_for_byte(world, name):
    image = image_of(world, name)
    assert image['sha256'] == toys.sha256(world.toy)
    if name != 'oras':
        assert image['digest'] == 'sha256:' + image['sha256']
    served_by = {'oras': world.private, 'url': world.server, 'nodigest': world.server}
    assert image.get('source') == served_by.get(name)


@pytest.mark.parametrize('name', ['private', 'docker', 'oci'])
def test_an_image_is_made_into_a_sif_file_that_tells_its_labels(world, shell, name):
    image = image_of(world, name)
    assert image['labels']['org.example.says'] == 'it is'
    assert shell('module load %s; echo works | cat' % name, prefix=world.prefix).stdout == 'works\n'


@pytest.mark.parametrize('name, base', [('file', 'toy.sif'), ('module', 'url/1.0')])
def test_a_definition_starts_from_a_sif_file_or_the_image_of_another_module(world, shell, name, base):
    image = image_of(world, name)
    assert (image['base'], image['base_digest']) == (base, 'sha256:' + toys.sha256(world.toy))
    word = {'file': 'it is', 'module': 'so'}[name]
    assert shell('module load %s; cat /what' % name, prefix=world.prefix).stdout == '%s %s\n' % (name, word)
    log, = (world.prefix / 'software' / name / '1.0' / 'easybuild').glob('*.log')
    assert 'Build complete' in log.read_text()


def test_a_base_that_a_module_of_the_prefix_has_is_not_fetched_again(world, shell):
    image, private = image_of(world, 'based'), image_of(world, 'private')
    assert image['base_source'] == str(world.prefix / 'software' / 'private' / '1.0' / private['file'])
    assert (image['base'], image['base_digest']) == ('docker://up.invalid/x/tiny:1', private['digest'])
    assert image['labels']['org.example.says'] == 'it is'
    assert shell('module load based; cat /what', prefix=world.prefix).stdout == 'based on it\n'


@pytest.mark.parametrize('name', LINKED)
def test_a_module_runs_from_the_store_what_was_made_of_a_library_an_archive_or_a_definition(world, shell, name):
    root, record = toys.installation(world.prefix, 'run-%s/1.0' % name)
    stored = world.directory / 'store' / ('run-%s-1.0.sif' % name)
    assert os.readlink(root / record['image']['file']) == str(stored) == record['image']['link']
    assert record['image']['sha256'] == toys.sha256(stored)
    assert record['image']['reference'] == image_of(world, name)['reference']
    what = '/what' if LINKED[name] else '/dev/null'
    assert shell('module load run-%s; cat %s' % (name, what), prefix=world.prefix).stdout == LINKED[name]
    assert sorted(os.listdir(world.directory / 'store' / '.easysif')) == sorted(
        'run-%s-1.0.sif.json' % one for one in LINKED)


@pytest.mark.parametrize('name, told', [
    ('foreign', 'foreign-1.0.eb: image is made for other processors than those of this machine\n  image    s390x  ('),
    ('broken', 'broken-1.0.eb: archive is no oci-archive: '),
    ('wrong', 'wrong-1.0.eb: digest does not match the image\n  recipe  sha256:%s\n  found   sha256:' % ('0' * 64)),
    ('nolib', "nolib-1.0.eb: image 'library://a/b/gone:1' could not be fetched\n  command    "),
    ('nolib', '\n  reason     While pulling library image: error fetching image: image does not exist in the '),
    ('nolib', '\nhint: which library is asked says: apptainer remote list'),
    ('otherlib', 'otherlib-1.0.eb: digest does not match the image\n  recipe  sha256:%s\n  found   sha256:' % (
        '0' * 64)),
    ('away', "away-1.0.eb: image 'https://web.invalid/away.sif' is not to be had\n"),
])
def test_what_cannot_be_installed_says_why_and_leaves_nothing(world, name, told):
    assert told in world.printed[name]
    assert not (world.prefix / 'software' / name).exists()


def test_nothing_that_was_fetched_is_left_and_the_same_file_is_not_fetched_twice(world):
    assert toys.files(world.directory / 'cache') == set() == toys.files(world.directory / 'sources')
    kept = [path for path in (world.directory / 'home').rglob('*') if path.stat().st_size > 100000]
    assert kept == []
    inodes = [(world.prefix / 'software' / name / '1.0' / image_of(world, name)['file']).stat().st_ino
              for name in ('again', 'url', 'nodigest', 'oras', 'library', 'absolute')]
    assert inodes[0] in inodes[1:]  # it names the digest of a file that any of them has
    # for the first that named it, and for the one to which it is another than its digest says
    assert len([path for path, _ in world.seen if path.startswith('/v1/imagefile/')]) == len(['library', 'otherlib'])


def test_a_login_is_written_nowhere(world):
    secrets = [PASSWORD.encode(), b'cmVhZGVyOmxvb3BiYWNrIHNlY3JldA']
    own = {world.directory / 'home' / name for name in ('.netrc', '.docker/config.json')}
    found = [path for path in world.directory.rglob('*') if path.is_file() and path not in own
             and any(secret in path.read_bytes() for secret in secrets)]
    assert found == [] and all(path.is_file() for path in own)
    assert PASSWORD not in world.output
