# SPDX-License-Identifier: GPL-2.0-only
"""Definition files become modules, by the real eb: the quickstart recipe from both of its bases, and small ones."""

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e

BASE = 'docker://python:3.11-slim-bookworm'
SMALL = '''Bootstrap: docker
From: stand-in/busybox:1

%%post
    echo %s
    echo "%%(name)s %%(version)s" >/what
    %s
'''


@pytest.mark.parametrize('base', ['from the Debian sources of this machine', 'from a mirrored image'])
def test_the_quickstart_recipe_is_built_and_computes(eb, shell, site_file, images, prefix, base):
    root_file_system = harness.CACHE / 'base' / 'debian'
    local = {BASE: str(root_file_system)} if 'Debian' in base else {}
    eb('jax-0.10.2-cpu-singularity.eb', site=site_file(base_images=local))
    root, manifest = toys.installation(prefix, 'jax/0.10.2-cpu-singularity')
    image = manifest['image']
    assert (image['reference'], image['base'], image['digest']) == ('jax-cpu.def', BASE, None)
    assert (image['base_source'], image['base_digest']) == (
        (str(root_file_system), '') if local else
        ('%s@%s' % (images.local('python').rsplit(':', 1)[0], images.digest('python')), images.digest('python')))
    assert 'jax==0.10.2' in image['definition'] and [test['result'] for test in manifest['tests']] == ['passed']
    assert [path for path in prefix.rglob('*.sif') if not path.is_symlink()] == [root / image['file']]
    assert toys.files(prefix / 'sources') == toys.files(prefix / 'build') == set()
    assert shell('module load jax; python -c "import jax; print(jax.__version__, jax.grad(lambda x: x ** 3)(2.0))"'
                 ).stdout == '0.10.2 12.0\n'


@pytest.fixture(scope='module')
def small(tmp_path_factory, registry):
    """Small definitions through one eb: what it printed of each recipe (dict), the prefix and the directory (Path)."""
    directory = tmp_path_factory.mktemp('small')
    site = directory / 'site.yaml'
    site.write_text(yaml.safe_dump(harness.site_settings(registry)))
    recipes = []
    for name, last in (('good', 'true'), ('bad', 'echo this is why >&2; false')):
        definition = directory / (name + '.def')
        definition.write_text(SMALL % (name, last))
        recipes.append(toys.recipe(directory, name, image=definition.name, checksums=[toys.sha256(definition)],
                                   commands=['cat'], sanity_check_commands=['cat /what | grep -x "%s 1.0"' % name]))
    fetched = harness.run_eb([recipes[0], '--fetch'], directory / 'prefix', directory / 'home', site)
    sources = directory / 'prefix' / 'sources'
    kept = {path: toys.sha256(sources / path) for path in toys.files(sources)}
    result = harness.run_eb([*recipes, '--dump-test-report=%s' % (directory / 'report')], directory / 'prefix',
                            directory / 'home', site, check=False)
    printed = dict(zip(('good', 'bad'), result.stdout.split('== processing EasyBuild easyconfig ')[1:]))
    return printed, directory / 'prefix', directory, fetched.output, kept


def test_a_definition_is_built_with_its_templates_resolved_and_its_checksum_right(small):
    printed, prefix, directory, _, _ = small
    assert 'COMPLETED: ' in printed['good'], printed['good']
    image = toys.installation(prefix, 'good/1.0')[1]['image']
    assert image['definition_sha256'] == toys.sha256(directory / 'good.def')
    assert 'echo "good 1.0" >/what' in image['definition']


def test_what_was_built_by_fetch_is_not_built_again(small):
    _, prefix, directory, fetched, kept = small
    image = min(kept)
    assert 'COMPLETED: Installation STOPPED successfully' in fetched
    assert set(kept) == {image, image + '.json'} and image.startswith('easysif/image-')
    assert toys.files(prefix / 'sources') == set()
    # no two builds give the same bytes
    assert toys.sha256(prefix / 'software' / 'good' / '1.0' / 'good-1.0.sif') == kept[image]


def test_a_definition_that_fails_says_why_and_keeps_the_log(small):
    printed, prefix, _, _, _ = small
    log = prefix / 'build' / 'bad' / '1.0' / 'system-system' / 'build.log'
    assert "bad-1.0.eb: definition 'bad.def' could not be made into a SIF file\n  command    " in printed['bad']
    assert '\n  last lines  + echo bad\n' in printed['bad']
    assert '\n              this is why\n              + false\n  log         %s\nhint: less %s' % (
        log, log) in printed['bad']
    assert 'this is why' in log.read_text()
    assert not (prefix / 'software' / 'bad').exists()


def test_another_version_is_tried_with_the_definition_beside_the_original(eb, site_file, tmp_path):
    result = eb('jax-0.10.2-cpu-singularity.eb', '--try-software-version=0.10.1', '--fetch', check=False,
                site=site_file(base_images={BASE: str(tmp_path / 'gone')}))
    assert 'definition file not found' not in result.output and str(tmp_path / 'gone') in result.output
