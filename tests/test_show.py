# SPDX-License-Identifier: GPL-2.0-only
"""easysif show: all about a module, and what a recipe would install."""

import json
import os
import shutil
import sys

import pytest

import toys
from easysif import recipe, search
from easysif.check import recipe_directory
from easysif.module import Command
from easysif.site import resolve
from easysif.site_files import apply
from made_up import MadeUp, run_easysif


@pytest.fixture(autouse=True)
def its_prefix(prefix, monkeypatch):
    """The prefix is the one of EasyBuild's variables, the search path is the test's own directory."""
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    monkeypatch.setenv('EASYBUILD_ROBOT_PATHS', str(prefix.parent / 'recipes'))


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe to the search path, as toys.recipe does."""
    def call(name='toy', version='1', **values):
        return toys.recipe(tmp_path / 'recipes' / name[0].lower() / name, name, version, **values)
    return call


def rows(out):
    """Return what was printed, label -> lines (dict of list of str)."""
    found, label = {}, None
    for line in out.splitlines():
        if line[0] != ' ':
            label, _, value = line.partition('  ')
            found[label] = [value.strip()]
        else:
            found[label].append(line.strip())
    return found


def test_a_module_is_shown_with_all_that_is_recorded(easysif, prefix):
    toy = MadeUp(prefix, commands={'fine': Command(('fine',)), 'deep': Command(('fine', 'two words'))},
                 needs=('nvidia-gpu',), binds=('/opt', '/data:/d:ro'), container_env={'A': 'b c', 'B': ''})
    toy.add_package()
    record = toy.record(tests=[{'command': 'fine x', 'result': 'passed'},
                               {'command': 'fine y', 'result': 'skipped', 'needs': 'nvidia-gpu'}],
                        layer={'venv': 'toy', 'asked': ['flax'], 'packages': [
                            {'name': 'flax', 'version': '0.8.5', 'url': None, 'sha256': None},
                            {'name': 'optax', 'version': '0.2', 'url': 'https://h/o.whl', 'sha256': 'f' * 64}]})
    code, out, err = easysif('show', 'toy')
    assert (code, err) == (0, '') and rows(out) == {
        'module': ['toy/1'], 'recipe': ['toy-1.eb'], 'image': ['docker://example.org/toy:1'], 'from': ['example.org'],
        'digest': ['sha256:' + 'd' * 64], 'manifest': ['sha256:' + 'e' * 64], 'file': ['toy.sif  (761 bytes, amd64)'],
        'sha256': [record['image']['sha256']], 'runtime': ['apptainer 1.4.5'], 'site': ['default'],
        'kind': ['environment module'], 'commands': ["deep: fine 'two words'", 'fine'], 'needs': ['nvidia-gpu'],
        'binds': ['/opt', '/data:/d:ro'], 'environment': ['A=b c', 'B='], 'python': ['3.11.2 /usr/bin/python3'],
        'python_env': ['toy'], 'layer': ['flax 0.8.5', 'optax 0.2'],
        'tests': ['passed  fine x', 'skipped  fine y  (needs nvidia-gpu)'],
        'overlay': ['directory  %s' % toy.overlay], 'installation': [rows(out)['installation'][0]],
        'installed': [rows(out)['installed'][0]], 'module file': [str(toy.modulefile), str(toy.link)],
        'to load it': ['module use %s/modules/all; module load toy/1' % prefix],
        'to verify it': ['easysif verify toy/1'], 'to remove it': ['easysif remove toy/1']}
    assert rows(out)['installation'][0].startswith('%s  (' % toy.root)
    assert easysif('show', 'toy/1') == (code, out, err)


def test_a_module_is_shown_as_json(easysif, prefix):
    toy = MadeUp(prefix)
    record = toy.record()
    code, out, err = easysif('show', 'toy', '--json')
    shown = json.loads(out)
    assert (code, err) == (0, '') and shown.pop('size') > 761 and shown.pop('installed')[10] == 'T'
    assert shown == {
        'module': 'toy/1', 'installation': str(toy.root), 'prefix': str(prefix), 'problem': None,
        'image_in_use': str(toy.sif), 'overlay': {'state': 'none', 'path': str(toy.overlay)},
        'modulefile': str(toy.modulefile), 'load': 'module use %s/modules/all; module load toy/1' % prefix,
        'verify': 'easysif verify toy/1', 'remove': 'easysif remove toy/1',
        'easysif.json': json.loads(json.dumps(record))}


def test_a_tool_module_has_no_overlay_and_what_is_not_there_is_said(easysif, prefix, monkeypatch):
    tool = MadeUp(prefix, 'tool/2', python_env=None)
    tool.record(tests=[])
    monkeypatch.setenv('EASYBUILD_PREFIX', '/elsewhere')
    found = rows(easysif('show', 'tool', '--prefix', str(prefix))[1])
    assert [found[label] for label in ('kind', 'overlay', 'needs', 'binds', 'environment', 'tests')] == [
        ['tool module'], ['has none'], ['nothing'], ['none of its own'], ['none of its own'], ['none']]
    assert 'python' not in found and 'conda' not in found
    assert found['to remove it'] == ['easysif remove tool/2 --prefix %s' % prefix]


def test_an_image_of_the_store_is_shown_as_what_is_in_use(easysif, prefix, tmp_path):
    toy = MadeUp(prefix)
    (tmp_path / 'store').mkdir()
    toy.sif.rename(tmp_path / 'store' / 'toy.sif')
    apply(str(prefix), resolve({'EASYSIF_IMAGE_STORE': str(tmp_path / 'store')}).site)
    found = rows(easysif('show', 'toy')[1])
    assert found['image in use'] == [str(tmp_path / 'store' / 'toy.sif')] and 'DAMAGED' not in found


def test_what_form_1_did_not_record_is_said_to_be_unknown(easysif, prefix):
    toy = MadeUp(prefix)
    toy.form_1()
    found = rows(easysif('show', 'toy')[1])
    assert [found[label] for label in ('kind', 'needs', 'binds', 'environment')] == [['not known']] * 4
    assert found['commands'] == ['fine'] and found['module file'] == [str(toy.modulefile)]
    toy.modulefile.unlink()
    assert rows(easysif('show', 'toy')[1])['module file'] == ['not known']


def test_a_damaged_module_is_shown_as_far_as_it_goes(easysif, prefix):
    toy = MadeUp(prefix)
    toy.sif.unlink()
    code, out, err = easysif('show', 'toy')
    assert (code, err) == (0, '')
    assert rows(out)['DAMAGED'] == ['the image is gone', 'file  %s' % toy.sif, 'hint: easysif image restore toy/1']
    assert rows(out)['digest'] == ['sha256:' + 'd' * 64]
    shutil.rmtree(toy.root)
    found = rows(easysif('show', 'toy')[1])
    assert found['DAMAGED'][0] == 'the installation is gone, only its module file is left'
    assert found['overlay'] == ['unknown'] and found['module file'] == [str(toy.modulefile)] and 'image' not in found
    assert json.loads(easysif('show', 'toy', '--json')[1])['problem']['hint'] == 'eb --rebuild toy-1.eb'


def test_what_would_steer_a_terminal_is_shown_instead(easysif, prefix):
    toy = MadeUp(prefix)
    toy.record(recipe='\x1b[2Jtoy\n.eb')
    out = easysif('show', 'toy')[1]
    assert '\x1b' not in out and rows(out)['recipe'] == [r'\x1b[2Jtoy\n.eb']


def test_a_module_is_loaded_from_where_its_module_file_is(easysif, prefix):
    toy = MadeUp(prefix)
    for path, place in (('/m o/toy/1.lua', "'/m o'"), ('/m/other.lua', '%s/modules/all' % prefix)):
        toy.record(modulefile={'path': path, 'links': [], 'sha256': '0' * 64})
        assert rows(easysif('show', 'toy')[1])['to load it'] == ['module use %s; module load toy/1' % place]


def test_several_versions_must_be_told_apart(easysif, prefix):
    MadeUp(prefix)
    MadeUp(prefix, 'toy/2')
    assert easysif('show', 'toy') == (
        1, '', 'error: toy: is installed in several versions\n  versions  toy/1, toy/2\nhint: name one: toy/2\n')


def test_a_recipe_is_shown_with_what_this_site_makes_of_it(easysif, write):
    path = write(commands={'deep': "fine 'two words'"}, needs=['nvidia-gpu', 'mpi'], python_env='toy',
                 container_env={'A': 'b c'}, binds=['/opt'], digest='sha256:' + '1' * 64,
                 python_packages=['flax==0.8.5'], sanity_check_commands=['deep %(version)s'])
    code, out, err = easysif('show', 'toy-1.eb')
    assert (code, err) == (0, '') and rows(out) == {
        'recipe': [str(path)], 'module': ['toy/1'], 'description': ['A toy of the tests'],
        'homepage': ['https://example.com'], 'image': ['toy.sif'], 'digest': ['sha256:' + '1' * 64],
        'kind': ['environment module'], 'commands': ["deep: fine 'two words'"],
        'needs': ['nvidia-gpu  (provided by site default)', 'mpi  (NOT provided by site default)'],
        'python_env': ['toy'], 'layer': ['flax==0.8.5'], 'binds': ['/opt'], 'environment': ['A=b c'],
        'tests': ['deep 1'], 'installed': ['no'], 'to install it': ['eb toy-1.eb']}
    shown = json.loads(easysif('show', '--json', 'toy-1')[1])
    assert shown['needs'] == {'nvidia-gpu': True, 'mpi': False} and shown['installed'] is None
    assert (shown['recipe'], shown['module']) == (str(path), 'toy/1')
    assert shown['commands'] == {'deep': ['fine', 'two words']}


def test_a_recipe_elsewhere_is_shown_by_its_path(easysif, tmp_path, write):
    write()
    here = toys.recipe(tmp_path / "it's here", digest=None)
    found = rows(easysif('show', str(here))[1])
    assert found['recipe'] == [str(here)] and found['to install it'] == ["eb '%s'" % str(here).replace("'", "'\"'\"'")]
    assert found['digest'] == ['not in the recipe; what is found is recorded'] and found['needs'] == ['nothing']
    assert found['commands'] == ['none'] and found['tests'] == ['none']


def test_that_a_recipe_is_installed_is_told_and_from_which_image(easysif, write, prefix):
    toy = MadeUp(prefix)
    write(digest='sha256:' + 'd' * 64)
    assert rows(easysif('show', 'toy-1.eb')[1])['installed'] == [str(toy.root)]
    write(digest='sha256:' + 'c' * 64)
    assert rows(easysif('show', 'toy-1.eb')[1])['installed'] == [
        str(toy.root), 'of another image: sha256:' + 'd' * 64]
    write()
    toy.sif.unlink()
    assert rows(easysif('show', 'toy-1.eb')[1])['installed'] == [str(toy.root), 'DAMAGED: the image is gone']
    assert json.loads(easysif('show', 'toy-1.eb', '--json')[1])['installed'] == {
        'installation': str(toy.root), 'problem': 'the image is gone', 'digest': 'sha256:' + 'd' * 64,
        'same_image': None}


def test_a_recipe_that_is_not_ours_is_told(easysif, tmp_path):
    path = tmp_path / 'GCC-13.eb'
    path.write_text("easyblock = 'EB_GCC'\nname = 'GCC'\nlocal_x = f'{name}'\n")
    assert easysif('show', str(path)) == (
        1, '', 'error: GCC-13.eb: is no recipe for a container image\n  file       %s\n  easyblock  EB_GCC\n'
        'hint: eb --show-ec %s\n' % (path, path))
    path.write_text("name = 'GCC'\n")
    assert '\n  easyblock  none\n' in easysif('show', str(path))[2]


def test_what_is_wrong_with_a_recipe_is_told(easysif, write):
    path = write(image=7)
    assert easysif('show', 'toy-1')[2].startswith('error: toy-1.eb:7: image must be')
    path.write_text(path.read_text() + 'import os\n')
    assert 'error: toy-1.eb:9: a recipe is data: an import does not belong into it\n' in easysif('show', 'toy-1')[2]


@pytest.mark.parametrize('name, recipes, hint', [
    ('toyy', 'none of that name', 'easysif show toy'),
    ('jax', 'jax-1.eb, jax-2.eb', 'easysif show jax-1.eb'),
    ('JAX/2-cpu', 'jax-1.eb, jax-2.eb', 'easysif show jax-2.eb'),
    ('jax-2.1-cpu-x.eb', 'jax-1.eb, jax-2.eb', 'easysif show jax-1.eb'),
    ('nm-2', 'none of that name', 'easysif show m-2.eb'),
    ('m', 'm-0.eb, m-1.eb, m-2.eb, m-3.eb, m-4.eb, and 2 more', 'easysif show m-0.eb'),
    ('no such', 'none of that name', "easysif list; eb --search 'no such'"),
    ('/no/such.eb', 'none of that name', 'easysif list; eb --search /no/such.eb')])
def test_what_is_neither_is_told_with_what_is_near(easysif, write, prefix, name, recipes, hint):
    MadeUp(prefix)
    for version in ('1', '2'):
        write('jax', version)
    for number in range(7):
        write('m', str(number))
    assert easysif('show', name) == (
        1, '', 'error: %s: is neither an installed module nor a recipe\n  prefix     %s\n  installed  toy/1\n'
        '  recipes    %s\nhint: %s\n' % (name, prefix, recipes, hint))


def test_of_many_modules_a_few_are_named(easysif, prefix):
    for number in range(6):
        (prefix / 'software' / 'm' / str(number)).mkdir(parents=True)
        (prefix / 'software' / 'm' / str(number) / 'easysif.json').touch()
    assert '\n  installed  m/0, m/1, m/2, m/3, m/4, and 1 more\n' in easysif('show', 'xyzzy')[2]


def test_a_module_comes_before_a_recipe_of_the_same_name(easysif, prefix, write, monkeypatch):
    write('toy', '1').rename(prefix.parent / 'recipes' / 'toy.eb')
    assert 'to install it' in rows(easysif('show', 'toy')[1])
    MadeUp(prefix)
    assert 'to load it' in rows(easysif('show', 'toy')[1])
    assert 'to install it' in rows(easysif('show', 'toy.eb')[1])


def test_recipes_are_looked_for_where_easybuild_looks(tmp_path, monkeypatch, write):
    first, second, eb = tmp_path / 'first', tmp_path / 'second', tmp_path / 'prefix of eb'
    for place in (first, second / 'deep' / 'er', eb / 'easybuild' / 'easyconfigs' / '0' / '3d', first / '.git'):
        place.mkdir(parents=True)
    for path in (second / 'deep/er/a-1.eb', eb / 'easybuild/easyconfigs/0/3d/3d-1.eb', first / '.git/hidden-1.eb',
                 first / 'c-d-1.eb'):
        path.touch()
    (eb / 'bin').mkdir()
    (eb / 'bin' / 'eb').touch(0o755)
    monkeypatch.setenv('PATH', '%s:/bin' % (eb / 'bin'))
    monkeypatch.setenv('EASYBUILD_ROBOT', str(first))
    monkeypatch.setenv('EASYBUILD_ROBOT_PATHS', '%s::/no/such' % second)
    ours = os.path.abspath('easybuild')
    monkeypatch.setattr(sys, 'path', [str(tmp_path / 'package'), *sys.path])
    (tmp_path / 'package' / 'easybuild' / 'easyconfigs').mkdir(parents=True)
    found = search.directories()
    assert found[:3] == [str(first), str(second), str(tmp_path / 'package/easybuild/easyconfigs')] and ours not in found
    assert found[-1] == str(eb / 'easybuild' / 'easyconfigs')
    assert search.find('a-1.eb') == str(second / 'deep/er/a-1.eb')
    assert search.find('3d-1') == str(eb / 'easybuild/easyconfigs/0/3d/3d-1.eb')
    assert search.find('c-d-1') == str(first / 'c-d-1.eb')
    assert search.find('hidden-1.eb') is search.find('deep/er/a-1.eb') is None
    assert {'a-1.eb', '3d-1.eb', 'c-d-1.eb'} <= set(search.names())
    shutil.copy(first / 'c-d-1.eb', 'a-1.eb')
    assert search.find('a-1') == 'a-1.eb'


def test_our_recipes_are_found_without_any_setting(monkeypatch):
    monkeypatch.delenv('EASYBUILD_ROBOT_PATHS')
    for name in ('jax-24.10-singularity', 'jax-24.10-singularity.eb'):
        assert os.path.samefile(search.find(name), os.path.join(recipe_directory(), 'j/jax/jax-24.10-singularity.eb'))


@pytest.mark.long
def test_every_recipe_of_ours_can_be_shown(monkeypatch):
    monkeypatch.delenv('EASYBUILD_ROBOT_PATHS')
    names = [name for name in search.names() if recipe.parse(search.find(name))[0].get('easyblock') == 'ContainerImage']
    assert 'jax-24.10-singularity.eb' in names
    for name in names:
        result = run_easysif('show', name)
        assert result.status == 0 and rows(result.stdout)['to install it'] == ['eb %s' % name]
