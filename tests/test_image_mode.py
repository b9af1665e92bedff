# SPDX-License-Identifier: GPL-2.0-only
"""The image store through the real eb: modules that run from it, images that come from it and back."""

import json
import os
import stat

import pytest

import harness
import toys

pytestmark = pytest.mark.e2e


@pytest.fixture
def store(tmp_path, toy):
    """An image store with one image that was put there by hand (Path)."""
    path = tmp_path / 'store of the site'
    path.mkdir()
    (path / 'toy.sif').write_bytes(toy.read_bytes())
    (path / 'toy.sif').chmod(0o644)
    return path


@pytest.fixture
def easysif(prefix, tmp_path, store, site_file):
    """Run the command easysif of the clone with the site of that store (harness.Result)."""
    def call(*args, check=True):
        env = harness.eb_environment(prefix, tmp_path / 'home', site_file(image_store=str(store)))
        return harness.run(['easysif', *args], env=env, check=check, cwd=tmp_path)
    return call


def state(path):
    info = path.stat()
    return info.st_ino, info.st_mode, info.st_mtime_ns, info.st_nlink, toys.sha256(path)


def test_a_module_runs_the_file_of_the_store_whatever_is_done_with_it(
        eb, easysif, shell, prefix, tmp_path, store, site_file, toy):
    recipe = toys.recipe(tmp_path, commands=['fine'], python_env=None, checksums=[toys.sha256(toy)],
                         sanity_check_commands=['fine it runs'])
    before = state(store / 'toy.sif')

    def link(recipe, *options, check=True):
        return eb(recipe, *options, site=site_file(image_store=str(store), image_mode='link'), check=check).output

    link(recipe)
    root, record = toys.installation(prefix)
    assert os.readlink(root / 'toy.sif') == str(store / 'toy.sif') == record['image']['link']
    assert record['image']['sha256'] == toys.sha256(toy) and record['image']['size'] == toy.stat().st_size
    assert shell('module load toy; fine a b; echo $SIFTOY').stdout == 'a b\n%s/toy.sif\n' % root
    for words in (('verify', 'toy'), ('show', 'toy'), ('list',), ('refresh', 'toy'), ('test', 'toy'),
                  ('store', 'verify'), ('image', 'restore', 'toy')):
        easysif(*words)
    assert 'run by toy/1.0' in easysif('store', 'gc', 'toy.sif', '--yes').stdout
    link(recipe, '--rebuild')
    link(recipe, '--rebuild', '--read-only-installdir', '--set-gid-bit')
    assert shell('module load toy; fine again').stdout == 'again\n' and (root / 'toy.sif').is_symlink()
    assert state(store / 'toy.sif') == before

    wrong = toys.recipe(tmp_path / 'wrong', commands=['fine'], digest='sha256:' + '0' * 64, image_mode='link')
    assert 'digest does not match the image' in link(wrong, '--rebuild', check=False)
    absent = toys.recipe(tmp_path, 'absent', image='absent.sif', image_mode='link')
    assert ("absent-1.0.eb: the image store does not have the image, and image_mode is 'link'\n  image  absent.sif\n"
            '  store  %s\nhint: easysif store add ' % store) in link(absent, check=False)
    assert ("image_mode is 'link', and site 'site' has no image store\nhint: set image_store in the site file, or "
            'image_mode to copy') in eb(absent, site=site_file(), check=False).output

    site_file(image_store=str(store))
    (store / 'toy.sif').rename(store / 'toy.away')
    said = shell('module load toy', check=False).output
    assert 'the image is gone' in ' '.join(said.split()) and 'easysif image restore toy/1.0' in ' '.join(said.split())
    assert 'tried' in easysif('image', 'restore', 'toy', check=False).output
    (store / 'toy.away').rename(store / 'toy.sif')
    eb(recipe, '--rebuild', site=site_file(image_store=str(store)))
    assert not (root / 'toy.sif').is_symlink() and 'link' not in toys.installation(prefix)[1]['image']
    easysif('remove', 'toy')
    assert state(store / 'toy.sif') == before


def test_an_image_of_a_registry_is_added_installed_linked_and_brought_back(
        eb, easysif, shell, prefix, tmp_path, store, site_file):
    image = 'docker://docker.io/stand-in/busybox:1'
    recipes = [toys.recipe(tmp_path, name, image=image, commands=['echo'], **more) for name, more in (
        ('linked', {'image_mode': 'link'}), ('copied', {}))]
    site = site_file(image_store=str(store))
    assert 'the image store does not have the image' in eb(recipes[0], site=site, check=False).output
    out = easysif('store', 'add', 'copied-1.0.eb').stdout
    assert out.startswith('copied-1.0.sif: added, ')
    assert sorted(os.listdir(store / '.easysif')) == ['copied-1.0.sif.json']
    (stored,) = [one for one in json.loads(easysif('store', 'list', '--json').stdout)['images'] if one['sha256']]
    assert stored['reference'] == image and stored['digest'].startswith('sha256:')
    eb(*recipes, site=site)
    linked, copied = [toys.installation(prefix, name + '/1.0') for name in ('linked', 'copied')]
    assert os.readlink(linked[0] / 'linked-1.0.sif') == str(store / 'copied-1.0.sif')
    assert {record['image']['sha256'] for _, record in (linked, copied)} == {stored['sha256']}
    assert copied[1]['image']['digest'] == linked[1]['image']['digest'] == stored['digest']
    own = copied[0] / 'copied-1.0.sif'
    assert own.stat().st_nlink == 1
    own.unlink()
    assert shell('module load copied; echo runs | cat; echo $SIFCOPIED').stdout == (
        'runs\n%s/copied-1.0.sif\n' % store)  # without its own
    (store / 'copied-1.0.sif').unlink()
    out = easysif('image', 'restore', 'copied').stdout
    assert 'copied/1.0: the image is back, ' in out and 'from %s\n' % image in out and 'made anew' in out
    easysif('verify', 'copied')
    assert stat.S_IMODE(own.stat().st_mode) == 0o444
    assert shell('module load copied; echo runs $SIFCOPIED').stdout == 'runs %s\n' % own
    assert easysif('image', 'restore', 'linked').stdout.startswith('linked/1.0: the image is back, ')
    easysif('verify')
    assert sorted(os.listdir(prefix / 'software' / 'linked')) == ['1.0']
    assert toys.files(prefix / 'sources') == set()


def test_a_file_of_the_store_that_vanishes_between_check_and_use_leaves_nothing(eb, easysif, prefix, tmp_path, store,
                                                                                site_file):
    hooks = tmp_path / 'hooks.py'
    for mode, step, told in (('copy', 'pre_install', 'image file cannot be read: '),
                             ('link', 'pre_install', 'image file cannot be read: '),
                             ('link', 'post_sanitycheck', 'the file of the image store was changed while it was')):
        hooks.write_text('import os\n\n\ndef %s_hook(self, *args, **kwargs):\n    os.rename(%r, %r)\n' % (
            step, str(store / 'toy.sif'), str(tmp_path / 'away')))
        recipe = toys.recipe(tmp_path / mode, commands=['fine'], image_mode=mode)
        output = eb(recipe, '--hooks=%s' % hooks, site=site_file(image_store=str(store)), check=False).output
        assert told in output, output
        assert not (prefix / 'software' / 'toy').exists() and not (prefix / 'modules' / 'all' / 'toy').exists()
        (tmp_path / 'away').rename(store / 'toy.sif')
        eb(recipe, site=site_file(image_store=str(store)))
        easysif('remove', 'toy')
