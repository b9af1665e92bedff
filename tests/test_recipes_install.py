# SPDX-License-Identifier: GPL-2.0-only
"""Every recipe of the repository is installed by the real eb, on a stand-in for its image, and used."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

import harness
import toys
from easysif import check, recipe, site
from recipe_standins import DEBIAN, StandIns, had, minor_of

pytestmark = pytest.mark.e2e

#: sites in the order in which one is looked for that has all that a recipe would like to have
SITES = ('default', 'perlmutter', 'jureca', 'lumi')


def _recipes():
    """Return the recipes by their paths, but those for CPUs, which test_recipes_cpu.py builds with real packages."""
    found = {path: recipe.load(path) for path in map(os.path.abspath, check.find())
             if "'ContainerImage'" in Path(path).read_text()}
    return {path: one for path, one in found.items()
            if not one.image.endswith('.def') or 'slim' not in Path(path).with_name(one.image).read_text()}


RECIPES = _recipes()

#: how many recipes one eb gets
AT_ONCE = 7

#: the environment of the shell, without what Lmod keeps its books in
ENVIRONMENT = "env -0 | sort -z | tr '\\0\\n' '\\n ' | grep -v '^\\(__LMOD_\\|_ModuleTable\\|_=\\|LMOD_\\)'"


def site_of(one):
    """Return the name of the first site whose profile names all that a recipe needs, or would like (str)."""
    return next(name for name in SITES if set(one.needs) <= set(site.read(site.shipped()[name])['provides']))


@pytest.fixture(scope='module')
def installed(request, tmp_path_factory, images, registry):
    """The chosen recipes, installed by a few eb at a time: what was printed of each (dict), the prefix (Path)."""
    directory = tmp_path_factory.mktemp('recipes')
    wanted = sorted({item.callspec.params['path'] for item in request.session.items if item.path == request.path})
    own = [images.upstream(name) for name in ('jax', 'samtools')]
    bases = StandIns(images, directory / 'store').make([RECIPES[path] for path in wanted
                                                        if RECIPES[path].image not in own])

    for name in SITES:
        text = yaml.safe_load(Path(site.shipped()[name]).read_text())
        text.update(harness.site_settings(registry), image_store=str(directory / 'store'), base_images=bases)
        text.pop('match', None)
        (directory / ('%s.yaml' % name)).write_text(yaml.safe_dump(text))

    def install(paths):
        report = directory / ('%s.md' % Path(paths[0]).stem)  # eb goes on to the next recipe where it has to write one
        result = harness.run_eb([*(harness.unpinned(path, directory / 'unpinned') for path in paths),
                                 '--dump-test-report=%s' % report], directory / 'prefix', directory / 'home',
                                directory / ('%s.yaml' % site_of(RECIPES[paths[0]])), check=False,
                                env={'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': '/stand-in/wheels'})
        before, *parts = result.output.split('== processing EasyBuild easyconfig ')
        assert len(parts) == len(paths), before
        return parts

    groups = [[path for path in wanted if site_of(RECIPES[path]) == name] for name in SITES]
    with ThreadPoolExecutor(2) as two:
        parts = [part for parts in two.map(install, [paths[first:first + AT_ONCE] for paths in groups
                                                     for first in range(0, len(paths), AT_ONCE)]) for part in parts]
    return {part.split()[0].rsplit('/', 1)[-1]: part for part in parts}, directory / 'prefix'


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.rsplit('/', 1)[-1][:-3])
def test_a_recipe_is_installed_tested_loaded_used_extended_and_unloaded(installed, shell, path):
    one, (printed, prefix) = RECIPES[path], installed
    said = printed[path.rsplit('/', 1)[-1]]
    assert 'COMPLETED: Installation ended successfully' in said, said
    name = '%s/%s%s' % (one.name, one.version, one.versionsuffix)
    root, manifest = toys.installation(prefix, name)
    assert [test['result'] for test in manifest['tests']] == ['passed'] * len(one.sanity_check_commands)
    assert set(manifest['inside']['provides']) == set(one.provides)
    if minor_of(one):
        python = minor_of(one) if minor_of(one) in had() else DEBIAN
        assert manifest['inside']['python']['version'].startswith(python + '.')
    script = ['before=$(%s)' % ENVIRONMENT, 'module load %s' % name]
    if one.python_env:
        script += ['here=$(echo "$USER_SOFTWARE"/venv/*/lib/python3.*/site-packages)',
                   'echo "answer = 42" >"$here/mine.py"', 'python -c "import mine; print(mine.answer)"']
    else:
        script += ['start-shell -c "echo 42"']
    script += ['module unload %s' % name, 'test "$before" = "$(%s)"' % ENVIRONMENT]
    assert shell('\n'.join(script), prefix=prefix).stdout == '42\n'
