# SPDX-License-Identifier: GPL-2.0-only
"""Recipes become modules, by the real eb, from a registry and from files, and run in real containers."""

import json
import os
import re
import shlex
import shutil
import stat
import time

import pytest

import harness
import toys
from easysif import schema
from easysif.manifest import contents
from standins import package

pytestmark = pytest.mark.e2e


def sifs(directory):
    """Return all SIF files below a directory that are not links (list of Path)."""
    return [path for path in directory.rglob('*.sif') if not path.is_symlink()]


@pytest.mark.parametrize('name, module, script', [
    ('jax', 'jax/24.10-singularity', 'python -c "import jax; print(jax.grad(lambda x: x ** 3)(2.0))" | grep -x 12.0'),
    ('samtools', 'SAMtools/1.21-singularity',
     r'printf "@SQ\tSN:a\tLN:9\nr\t0\ta\t1\t9\t4M\t*\t0\t0\tACGT\t*\n" | samtools view -c | grep -x 1')])
def test_a_recipe_is_installed_through_the_mirror_of_its_registry(installed, shared, shell, images, name, module,
                                                                  script):
    root, manifest = toys.installation(installed, module)
    recipe = module.replace('/', '-') + '.eb'
    assert 'COMPLETED: Installation ended successfully' in shared.install(recipe).output
    assert manifest['image']['reference'] == images.upstream(name)
    assert manifest['image']['digest'] == manifest['image']['manifest_digest'] == images.digest(name)
    assert (manifest['module'], manifest['recipe']) == (module, recipe)
    assert [test['result'] for test in manifest['tests']] == ['passed']
    shell('module load %s; %s' % (module, script), prefix=installed)


@pytest.mark.parametrize('module', ['jax/24.10-singularity', 'SAMtools/1.21-singularity'])
def test_what_is_installed_is_recorded(installed, module):
    root, manifest = toys.installation(installed, module)
    assert schema.problems('manifest', manifest, json.dumps) == []
    image = root / manifest['image']['file']
    assert set(manifest['files']) == {path for path in toys.files(root) if not path.startswith('easybuild/')
                                      } - {image.name, 'easysif.json'}
    assert manifest['files'] == contents(str(root), image.name)
    assert (manifest['image']['sha256'], manifest['image']['size']) == (toys.sha256(image), image.stat().st_size)
    assert manifest['runtime']['name'] == 'apptainer' and re.match(r'1\.\d+\.\d+$', manifest['runtime']['version'])


def test_one_copy_of_each_image_is_left_for_reading_only(installed):
    found = sifs(installed)
    assert sorted(path.name for path in found) == ['SAMtools-1.21-singularity.sif', 'jax-24.10-singularity.sif']
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o444}
    assert {path.stat().st_nlink for path in found} == {1}
    for empty in ('sources', 'build'):
        assert toys.files(installed / empty) == set()


def test_an_overlay_has_links_to_image_and_runscripts(installed):
    root, manifest = toys.installation(installed, 'jax/24.10-singularity')
    overlay = installed / 'overlays' / 'jax' / '24.10-singularity'
    assert os.readlink(overlay / 'runscripts') == str(root / 'runscripts')
    assert os.readlink(overlay / manifest['image']['file']) == str(root / manifest['image']['file'])
    assert (overlay / 'user-software' / 'venv' / 'jax' / 'bin' / 'python').is_symlink()
    assert not (installed / 'overlays' / 'SAMtools').exists()


def test_a_sif_file_is_found_in_the_store_the_source_path_and_beside_the_recipe(eb, site_file, prefix, tmp_path, toy):
    places = {'store': tmp_path / 'store', 'path': tmp_path / 'sources' / 'p' / 'path', 'beside': tmp_path / 'recipes'}
    recipes = []
    for name, directory in places.items():
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy, directory / (name + '.sif'))
        recipes.append(toys.recipe(tmp_path / 'recipes', name, image=name + '.sif', commands=['fine'],
                                   digest='sha256:' + toys.sha256(toy)))
    before = {name: toys.snapshot(directory) for name, directory in places.items()}
    eb(*recipes, '--sourcepath=%s:%s' % (prefix / 'sources', tmp_path / 'sources'),
       site=site_file(image_store=str(places['store'])))
    for name, directory in places.items():
        root, manifest = toys.installation(prefix, name + '/1.0')
        image = root / (name + '.sif')
        assert manifest['image']['digest'] == 'sha256:' + manifest['image']['sha256'] == 'sha256:' + toys.sha256(toy)
        assert stat.S_IMODE(image.stat().st_mode) == 0o444
        assert not os.path.samefile(image, directory / (name + '.sif'))
    assert {name: toys.snapshot(directory) for name, directory in places.items()} == before


def test_the_same_recipe_site_and_prefix_give_the_same_bytes(eb, prefix, tmp_path, toy):
    recipes = [toys.recipe(tmp_path, 'tool', commands={'b': 'fine', 'a': 'fine "it is"'}, binds=['/opt:/opt'],
                           container_env={'B': '2', 'A': '1'}, needs=['nvidia-gpu']),
               toys.recipe(tmp_path, 'env', image='toy.sif')]
    installed = []
    for user in ('annaqq', 'bertqq'):
        home = tmp_path / user
        home.mkdir()
        eb(*recipes, '--sourcepath=%s' % toy.parent, env={'USER': user, 'LOGNAME': user, 'HOME': home, 'TMPDIR': home})
        installed.append({path: what for path, what in toys.snapshot(prefix, 'ebfiles_repo').items()
                          if '/easybuild' not in path})
        generated = ''.join((prefix / path).read_text().replace(str(prefix), '') for path in installed[-1]
                            if (prefix / path).is_file() and not path.endswith('.sif'))
        assert not re.search('annaqq|bertqq|' + time.strftime('%Y-%m-%d|%Y%m%d|%b %d'), generated)
        shutil.rmtree(prefix)
    assert installed[0] == installed[1]


@pytest.fixture
def easysif(prefix, tmp_path):
    """A function that runs the command easysif (Result)."""
    def call(*args, **env):
        return harness.run(['easysif', *args], env=dict(harness.eb_environment(prefix, tmp_path / 'home'), **env),
                           check=False)
    return call


def test_a_test_that_needs_a_gpu_is_skipped_recorded_and_run_later(eb, easysif, prefix, tmp_path, toy):
    recipe = toys.recipe(tmp_path, commands=['needs-gpu', 'fine'], needs=['amd-gpu'],
                         sanity_check_commands=['needs-gpu', 'fine'])
    result = eb(recipe, '--sourcepath=%s' % toy.parent)
    assert ('WARNING: test skipped: it failed and this machine has no amd-gpu: needs-gpu\n'
            'run it where there is one: easysif test toy/1.0\n') in result.output
    skipped = [{'command': 'needs-gpu', 'result': 'skipped', 'needs': 'amd-gpu'},
               {'command': 'fine', 'result': 'passed'}]
    assert toys.installation(prefix)[1]['tests'] == skipped

    failed = easysif('test', 'toy')
    assert (failed.status, failed.stdout) == (
        1, 'FAILED  needs-gpu\n        exit code 5: no toy GPU here\npassed  fine\n')
    assert toys.installation(prefix)[1]['tests'] == skipped

    passed = easysif('test', 'toy/1.0', '--json', TOY_GPU='yes')
    results = [{'command': 'needs-gpu', 'result': 'passed'}, {'command': 'fine', 'result': 'passed'}]
    assert (passed.status, json.loads(passed.stdout)) == (0, {'module': 'toy/1.0', 'tests': results})
    assert toys.installation(prefix)[1]['tests'] == results


def test_a_recipe_whose_own_test_fails_is_not_installed_and_what_stood_there_is_back(eb, prefix, tmp_path, toy):
    recipe = toys.recipe(tmp_path, commands=['fine', 'fails'], sanity_check_commands=['fine'])
    eb(recipe, '--sourcepath=%s' % toy.parent)
    before = toys.snapshot(prefix)
    toys.recipe(tmp_path, commands=['fine'], sanity_check_commands=['fine', 'fine | grep never'])
    result = eb(recipe, '--rebuild', check=False)
    assert result.status != 0
    assert 'sanity check command fine | grep never failed with exit code 1' in result.output
    assert toys.snapshot(prefix) == before


def test_a_command_may_fail_without_arguments_and_litters_nowhere(eb, prefix, tmp_path, toy):
    eb(toys.recipe(tmp_path, commands=['fails', 'litters']), '--sourcepath=%s' % toy.parent, cwd=tmp_path)
    assert not list(tmp_path.rglob('litter'))


@pytest.fixture(scope='module')
def kinds(shared, images, tmp_path_factory):
    """Images of several kinds, installed by one eb: conda, a venv, one without Python, one without a shell (Path)."""
    directory = tmp_path_factory.mktemp('kinds')
    recipes = {
        'conda': dict(python_env='science', commands=['python', 'tqdm']),
        'venv': dict(python_env='tools', commands=['python', 'tqdm']),
        'busybox': dict(),
        'static': dict(commands=['echo'], sanity_check_commands=['test "$(echo it runs)" = "it runs"']),
    }
    store = directory / 'store'
    store.mkdir()
    for name in recipes:
        (store / (name + '.sif')).symlink_to(images.sif(name))
    paths = [toys.recipe(directory, name, image=name + '.sif', **values) for name, values in recipes.items()]
    harness.run_eb([*paths, '--sourcepath=%s' % store], directory / 'prefix', directory / 'home', shared.site)
    return directory / 'prefix'


@pytest.mark.parametrize('name', ['conda', 'venv'])
def test_an_environment_module_sees_the_packages_of_its_image(kinds, shell, name):
    script = 'module load %s; python -c "import sys, tqdm; print(sys.prefix, tqdm.__version__)"; tqdm --version' % name
    env = {'conda': 'science', 'venv': 'tools'}[name]
    assert shell(script, prefix=kinds).stdout == '/user-software/venv/%s 4.66.1\n4.66.1\n' % env


def test_an_image_without_python_is_an_environment_module_too(kinds, shell):
    script = 'module load busybox; echo "$SIF"; start-shell -c "cat /STAND-IN"'
    printed = shell(script, prefix=kinds).stdout
    assert printed.startswith('%s/software/busybox/1.0/busybox.sif\nThis image is a stand-in' % kinds)


def test_an_image_without_a_shell_has_its_commands(kinds, shell):
    assert shell('module load static; command echo; "$EBROOTSTATIC/bin/echo" "a  b"', prefix=kinds).stdout == '\na  b\n'
    failed = shell('module load static; start-shell', prefix=kinds, check=False)
    assert (failed.status, failed.stderr) == (
        1, "error: static/1.0: the image has no shell\nhint: use its commands from the host\n")


def test_a_prefix_may_hold_spaces_quotes_dollars_and_letters_of_any_language(eb, shell, images, tmp_path):
    prefix = tmp_path / "it's a $HOME ünï 容器" / '$(id)'
    sif = images.sif('python')
    recipe = toys.recipe(tmp_path / 'my recipes', image=sif.name, python_env='toy', commands=['python', 'pip'],
                         sanity_check_commands=['python -c "import json"'])
    eb(recipe, '--sourcepath=%s' % sif.parent, prefix=prefix)
    wheel = package(tmp_path, 'parcel', '1.0')
    # each in a shell of its own: Lmod 8.6.19 loses letters beyond ASCII from its own table, as test_module.foreign says
    shell('''
        module load toy
        test "$(python -c 'import sys; print(sys.prefix)')" = /user-software/venv/toy
        pip install --quiet --no-index %s
        make-squashfs''' % shlex.quote(str(wheel)), prefix=prefix)
    printed = shell('''
        module load toy
        test -f "$CONTAINERROOT/user-software.squashfs"
        python -c "import parcel; print(parcel.__version__, parcel.__file__)"''', prefix=prefix).stdout
    assert printed == '1.0 /user-software/venv/toy/lib/python3.11/site-packages/parcel/__init__.py\n'
    assert [path.parent for path in sifs(prefix)] == [prefix / 'software' / 'toy' / '1.0']
