# SPDX-License-Identifier: GPL-2.0-only
"""What holds for the recipes of the repository together, beyond the rules that each keeps."""

import dataclasses
import os
import re
import sys
from pathlib import Path

import pytest
import yaml

import harness
import recipe_standins
from easysif import check, recipe, rules, site
from harness import CLONE

RECIPES = sorted((CLONE / 'easyconfigs').rglob('*.eb'))
LUMI = yaml.safe_load((CLONE / 'tests' / 'lumi_recipes.yaml').read_text())

#: what packages are called where LUMI has other names for them
CALLED = {'PyTorch': 'torch', 'DeepSpeed': 'deepspeed', 'flashattention': 'flash-attn', 'NumPy': 'numpy',
          'SciPy': 'scipy', 'Tensorflow': 'tensorflow-rocm', 'tensorflow': 'tensorflow-rocm'}

#: where the Cray programming environment and ROCm are on any system that has them
OF_SOFTWARE = ('/opt/cray', '/etc/cray-pe.d', '/opt/rocm', '/usr/bin', '/bin')

DEFINITIONS = sorted((CLONE / 'easyconfigs').rglob('*.def'))


def test_every_recipe_keeps_the_rules():
    assert [str(finding.error) for finding in check.check(map(str, RECIPES))] == []


def test_the_page_of_recipes_has_them_all_as_they_describe_themselves():
    rows = re.findall(r'^\| `(\S+\.eb)` \| (.*?) \|', (CLONE / 'docs' / 'recipes.md').read_text(), re.M)
    described = {path.name: recipe.parse(str(path))[0]['description'] for path in RECIPES}
    assert dict(rows) == described and len(rows) == len(described)


@pytest.mark.parametrize('path', DEFINITIONS, ids=lambda path: path.name)
def test_a_definition_is_used_and_names_the_version_of_everything_that_pip_installs(path):
    text = path.read_text().replace('\\\n', ' ')
    assert any("image = '%s'" % path.name in one.read_text() for one in path.parent.glob('*.eb'))
    for words in re.findall(r'/pip install (.*)', text):
        packages = [word for word in re.sub(r'--find-links \S+', '', words).split() if not word.startswith('-')]
        assert packages and [word for word in packages if '==' not in word] == []
    for base in re.findall(r'^From: (nvidia/.*)', text, re.M):
        assert re.search('@sha256:[0-9a-f]{64}$', base)


def test_what_a_definition_needs_to_build_only_is_removed_again():
    for path in DEFINITIONS:
        installed = set(' '.join(re.findall('apt-get install (.*)', path.read_text())).split())
        removed = set(' '.join(re.findall('apt-get purge (.*)', path.read_text())).split())
        assert {word for word in installed if word.endswith('-dev') or word == 'build-essential'} <= removed
        assert not installed or 'rm -rf /var/lib/apt/lists/*' in path.read_text()


def test_no_recipe_knows_of_a_site_or_of_the_tests():
    places = {'/appl/', '/pfs', '/scratch', '/project', '/p/software', '/global/', '/users', '/etc/slurm', '/var/spool'}
    for path in site.shipped().values():
        binds = re.findall(r'(?<![\w.])/[\w.-]+(?:/[\w.-]+)+', Path(path).read_text())
        places.update(one for one in binds if not one.startswith(OF_SOFTWARE))
    assert len(places) > 20
    for path in [*RECIPES, *DEFINITIONS]:
        text = path.read_text()
        assert [one for one in places if one in text] == []
        assert not re.search('stand-?in|127.0.0.1|localhost', text, re.IGNORECASE)


def test_a_recipe_has_no_shell_but_its_tests_and_no_key_of_another_kind():
    for path in RECIPES:
        values, lines, errors = recipe.parse(str(path))
        assert errors == [] and set(values) <= set(rules.ORDER)
        assert not re.search('not tested', path.read_text())  # that is for recipes of others
        told = {key: value for key, value in values.items() if key not in ('sanity_check_commands', 'container_env')}
        assert not re.search(r'[$`|;]|&&', repr(told)), path


@pytest.mark.parametrize('fact', LUMI, ids=lambda fact: '%(name)s-%(version)s%(versionsuffix)s' % fact)
def test_what_lumi_has_is_here_with_the_same_image_and_the_same_versions_in_a_fraction_of_the_lines(fact):
    suffix = fact['versionsuffix']
    if sum(one['image'] == fact['image'] for one in LUMI if one['version'] == '2.3.1') == 2 and fact['lines'] == 436:
        suffix = suffix.replace('-singularity-', '-singularity-exampleVenv-')
    path, = (CLONE / 'easyconfigs').rglob('%s-%s%s.eb' % (fact['name'], fact['version'], suffix))
    one = recipe.load(str(path))
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 25 < fact['lines'] / 4
    assert fact['image'] in (one.image, one.build_args.get('base'))
    assert bool(one.python_packages) == ('exampleVenv' in suffix)
    if one.image.endswith('.def'):
        assert one.container_env == {'PS1': fact['prompt']} and one.needs[0].startswith('cray-pe-')
        return
    assert set(one.needs) == {'amd-gpu', 'interconnect'}
    known = {CALLED.get(name, name): '' if version in ('unknown', '20240801', '20240918') else
             version.replace('community-', '') for name, version in fact.get('packages', {}).items()}
    assert {name: one.provides.get(name, 'missing') or '' for name in known} == known
    assert set(one.commands) >= set(fact.get('commands', ['python', 'pip'] if one.python_env else []))
    if 'conda' in fact:
        assert one.python_env == one.conda_env == fact['conda']


def test_all_of_lumi_are_few_lines_of_ours():
    assert len(LUMI) == 28 and sum(one['lines'] for one in LUMI) > 11000


def test_what_recipes_tell_of_one_image_fits_together():
    told = {}
    for path in RECIPES:
        if "'ContainerImage'" in path.read_text():
            found = recipe_standins.facts(recipe.load(str(path)))
            for name, version in found.packages.items():
                told.setdefault((found.title, name), set()).add(version)
    assert {key: versions for key, versions in told.items()
            if len(versions - {recipe_standins.ANY_VERSION}) > 1} == {}


def test_a_stand_in_has_what_its_recipe_tells(tmp_path):
    path = CLONE / 'easyconfigs/p/PyTorch/PyTorch-2.7.1-rocm-6.2.4-python-3.12-singularity-20250827.eb'
    found = recipe_standins.facts(recipe.load(str(path)))
    assert (found.base, found.conda, found.packages['vllm']) == ('recipes-conda', 'pytorch', '0.10.1+rocm624')
    tree = recipe_standins.make_tree(found, tmp_path)
    assert 'This stands in for lumi-pytorch-rocm-6.2.4' in (tree / 'README').read_text()
    assert "__version__ = '2.7.1'" in (tree / 'site-packages' / 'torch.py').read_text()
    assert {'python3.12', 'pip3.12', 'torchrun', 'ray'} <= {Path(one).name for one in (tree / 'bin').iterdir()}


@pytest.mark.parametrize('suffix, pythons, python, says', [
    ('-rocm-6.2.4-python-3.12-singularity-1', {'3.11', '3.12'}, '3.12', 'is a 3.12 of the machine that made it, as'),
    ('-rocm-6.2.4-python-3.12-singularity-1', {'3.11'}, '3.11', "is Debian's 3.11, as no 3.12 was to be had here"),
    ('-python-3.11', {'3.11', '3.12'}, '3.11', "is Debian's 3.11, as the image has"),
    ('-singularity', {'3.11', '3.12'}, '3.11', "is Debian's 3.11, as no recipe tells which one the image has"),
])
def test_a_stand_in_has_the_python_of_its_recipe_where_it_can_be_had(tmp_path, suffix, pythons, python, says):
    path = CLONE / 'easyconfigs/p/PyTorch/PyTorch-2.7.1-rocm-6.2.4-python-3.12-singularity-20250827.eb'
    found = recipe_standins.facts(dataclasses.replace(recipe.load(str(path)), versionsuffix=suffix))
    tree = recipe_standins.make_tree(found, tmp_path, pythons)
    assert 'Its Python, if it has one, %s' % says in (tree / 'README').read_text()
    assert os.readlink(tree / 'envs' / 'pytorch') == '/opt/miniconda3/pythons/%s' % python
    assert os.readlink(tree / 'bin' / 'pip3.12') == '/opt/miniconda3/pythons/%s/bin/pip3' % python


def test_a_python_that_does_not_run_is_no_python_for_stand_ins(tmp_path):
    broken = tmp_path / 'pyenv' / 'versions' / '3.12.9' / 'bin' / 'python3.12'
    broken.parent.mkdir(parents=True)
    broken.write_text('#!/bin/sh\necho "$0" 3.12.9\nexit 1\n')
    broken.chmod(0o755)
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'python3.10').symlink_to(sys.executable)  # which is no 3.10 at all
    told = harness.run([harness.IMAGES / 'pythons', tmp_path / 'cache'], env={
        'PATH': '%s:/usr/bin:/bin' % (tmp_path / 'bin'), 'HOME': str(tmp_path), 'PYENV_ROOT': str(tmp_path / 'pyenv')})
    assert (told.stdout, os.listdir(tmp_path / 'cache' / 'pythons')) == ('', [])
