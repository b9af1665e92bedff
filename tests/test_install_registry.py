# SPDX-License-Identifier: GPL-2.0-only
"""Images of a registry through the real eb: digests, several architectures, and what works when it is gone."""

import pytest
import yaml

import harness
import toys
from easysif.images import sif
from helpers_registry import INDEX, MANIFEST, LoopbackRegistry, digest_of, tiny_layout, tiny_rootfs

pytestmark = pytest.mark.e2e

WRONG = 'sha256:' + '0' * 64


class Story:
    """What eb did with recipes of a registry, first with it, then without: texts by recipe, and states between."""

    def __init__(self, directory, layout, other, late, fails):
        self.directory, self.prefix = directory, directory / 'prefix'
        self.site = directory / 'site.yaml'
        with LoopbackRegistry(directory / 'registry') as running:
            running.push(layout, 'x/tiny:1')
            running.push(other, 'x/tiny:other')
            self.late, self.fails = running.push(late, 'x/tiny:late'), running.push(fails, 'x/tiny:fails')
            index = {'schemaVersion': 2, 'mediaType': INDEX, 'manifests': [
                self.entry(running, 'x/tiny:other', 's390x'), self.entry(running, 'x/tiny:1', sif.architecture())]}
            self.digest, self.index = running.digest('x/tiny:1'), running.put('x/tiny:many', index, INDEX)
            self.mirror = running.url
            self.site.write_text(yaml.safe_dump({'registry_mirrors': {'docker.io': [running.url]}}))
            self.recipes = {
                'right': self.recipe('right', digest=self.digest),
                'wrong': self.recipe('wrong', digest=WRONG),
                'many': self.recipe('many', image='docker://x/tiny:many', digest=self.index),
                'tag': self.recipe('tag'),
                'late': self.recipe('late', image='docker://x/tiny:late'),
                'fails': self.recipe('fails', image='docker://x/tiny:fails', sanity_check_commands=['ls /not-there']),
                'never': self.recipe('never', image='docker://x/tiny:never')}
            self.online = self.eb('right', 'wrong', 'many', 'tag', 'fails')
            self.sources = toys.files(self.prefix / 'sources')
            self.eb('late', arguments=['--fetch'])
            self.fetched = toys.files(self.prefix / 'sources')
        self.before = {name: toys.snapshot(self.root(name), 'easybuild', 'easysif.json') for name in ('right', 'many')}
        self.offline = self.eb('right', 'many', 'late', 'never', arguments=['--rebuild'])
        self.said_offline = self.warnings
        self.recipe('fails', image='docker://x/tiny:fails', sanity_check_commands=['ls /'])
        self.second_try = self.eb('fails')['fails']

    @staticmethod
    def entry(running, name, architecture):
        data = running.manifest(name)
        return {'mediaType': MANIFEST, 'digest': digest_of(data), 'size': len(data),
                'platform': {'os': 'linux', 'architecture': architecture}}

    def recipe(self, name, **values):
        return toys.recipe(self.directory, name, **dict({'image': 'docker://docker.io/x/tiny:1',
                                                         'commands': ['cat', 'ls']}, **values))

    def eb(self, *names, arguments=()):
        """Run one eb, and return what it printed of each recipe (dict)."""
        result = harness.run_eb([*(self.recipes[name] for name in names), *arguments,
                                 '--dump-test-report=%s' % (self.directory / 'report')], self.prefix,
                                self.directory / 'home', self.site, check=False)
        self.warnings = result.stderr
        return dict(zip(names, result.stdout.split('== processing EasyBuild easyconfig ')[1:]))

    def root(self, name):
        return self.prefix / 'software' / name / '1.0'

    def image(self, name):
        return toys.installation(self.prefix, '%s/1.0' % name)[1]['image']


@pytest.fixture(scope='module')
def story(tmp_path_factory):
    directory = tmp_path_factory.mktemp('story')
    rootfs = tiny_rootfs(directory / 'rootfs')
    return Story(directory, tiny_layout(directory, rootfs),
                 tiny_layout(directory, rootfs, 'other', ['--architecture=s390x']),
                 *(tiny_layout(directory, rootfs, name, ['--config.label=n=%s' % name]) for name in ('late', 'fails')))


def test_the_digest_of_a_recipe_is_recorded(story):
    assert 'COMPLETED: ' in story.online['right'], story.online['right']
    image = story.image('right')
    assert image['reference'] == 'docker://docker.io/x/tiny:1'
    assert image['digest'] == image['manifest_digest'] == story.digest
    assert image['source'] == story.mirror.split('//')[1]
    assert image['sha256'] == toys.sha256(story.root('right') / image['file'])


def test_the_digest_of_an_index_stands_for_the_manifest_of_this_machine(story):
    assert 'COMPLETED: ' in story.online['many'], story.online['many']
    assert (story.image('many')['digest'], story.image('many')['manifest_digest']) == (story.index, story.digest)


def test_a_missing_digest_is_recorded_as_it_was_found(story):
    assert 'COMPLETED: ' in story.online['tag'], story.online['tag']
    assert story.image('tag')['digest'] == story.digest


def test_a_wrong_digest_is_refused(story):
    assert "FAILED: Installation ended unsuccessfully: wrong-1.0.eb: " in story.online['wrong']
    assert WRONG in story.online['wrong'] and story.digest in story.online['wrong']
    assert not story.root('wrong').exists()


def test_one_copy_of_the_image_is_left_and_it_is_for_reading_only(story):
    left = [path for path in story.directory.rglob('*.sif') if path.name.startswith('right')]
    assert left == [story.root('right') / 'right-1.0.sif']
    assert toys.snapshot(left[0].parent)[left[0].name][0] == '-r--r--r--'
    assert story.sources == {'easysif/image-%s.sif%s' % (story.fails[7:19], end) for end in ('', '.json')}


def test_recipes_with_the_same_image_share_it(story):
    """It was fetched once, and a module that has it already lends it to the next one."""
    one, *others = ((story.root(name) / story.image(name)['file']).stat() for name in ('right', 'many', 'tag'))
    assert one.st_nlink == 3 and all(other.st_ino == one.st_ino for other in others)
    assert [story.image(name)['reference'] for name in ('right', 'many')] == [
        'docker://docker.io/x/tiny:1', 'docker://x/tiny:many']


def test_fetch_keeps_the_image_for_the_installation(story):
    image = 'easysif/image-%s.sif' % story.late[7:19]
    assert story.fetched - story.sources == {image, image + '.json'}
    assert not (story.prefix / 'build' / 'late').exists()


def test_what_was_fetched_is_installed_without_the_registry(story):
    assert 'COMPLETED: ' in story.offline['late'], story.offline['late']
    assert story.image('late')['manifest_digest'] == story.late
    assert 'easysif/image-%s.sif' % story.late[7:19] not in toys.files(story.prefix / 'sources')


@pytest.mark.parametrize('name', ['right', 'many'])
def test_what_stands_is_rebuilt_without_the_registry_and_that_is_said(story, name):
    assert 'COMPLETED: ' in story.offline[name], story.offline[name]
    image = story.image(name)
    assert "WARNING: %s-1.0.eb: image '%s' is not to be had\n" % (name, image['reference']) in story.said_offline
    assert 'the image that is here already is taken: %s\n' % image['digest'] in story.said_offline
    assert toys.snapshot(story.root(name), 'easybuild', 'easysif.json') == story.before[name]


def test_what_is_nowhere_fails_without_the_registry(story):
    assert "never-1.0.eb: image 'docker://x/tiny:never' is not to be had\n" in story.offline['never']
    assert 'no connection (Connection refused)' in story.offline['never']
    assert not story.root('never').exists()


def test_an_image_is_not_fetched_again_where_only_a_test_failed(story):
    assert 'ls /not-there failed' in story.online['fails']
    image = 'easysif/image-%s.sif' % story.fails[7:19]
    assert story.sources == {image, image + '.json'}
    assert 'COMPLETED: ' in story.second_try, story.second_try
    assert toys.files(story.prefix / 'sources') == set()


def test_an_image_is_installed_where_the_source_path_is_read_only(eb, tmp_path, prefix):
    sources = tmp_path / 'sources'
    sources.mkdir(mode=0o555)
    recipe = toys.recipe(tmp_path, image='docker://docker.io/stand-in/busybox:1', commands=['cat'])
    eb(recipe, '--sourcepath=%s' % sources)
    assert toys.installation(prefix)[0].joinpath('toy-1.0.sif').is_file()
    assert toys.files(prefix / 'build') == set()
