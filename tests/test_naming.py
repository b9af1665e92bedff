# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild's naming schemes, its options for directories, and two prefixes: every command finds what is installed."""

import json
import os
from pathlib import Path

import pytest

import harness
import toys
from easysif import installed, layout
from made_up import MadeUp

#: options of eb, with {} for a directory of the test -> what the module is called in which directory of modules, where
#: it is installed, and what it is called by easysif; all below the directory of the test
SCHEMES = {
    'flat': (['--module-naming-scheme=EasyBuildMNS'], 'p/modules/all', 'toy/1.0', 'p/software', 'toy/1.0'),
    'hierarchical': (['--module-naming-scheme=HierarchicalMNS'], 'p/modules/all/Core', 'toy/1.0', 'p/software',
                     'toy/1.0'),
    'categorised': (['--module-naming-scheme=CategorizedModuleNamingScheme'], 'p/modules/all', 'tools/toy/1.0',
                    'p/software', 'toy/1.0'),
    'hierarchical, also of installations': (
        ['--module-naming-scheme=HierarchicalMNS', '--disable-fixed-installdir-naming-scheme'],
        'p/modules/all/Core', 'toy/1.0', 'p/software', 'Core/toy/1.0'),
    'no suffix': (['--suffix-modules-path='], 'p/modules', 'toy/1.0', 'p/software', 'toy/1.0'),
    'other names': (['--subdir-modules=mods', '--subdir-software=sw'], 'p/mods/all', 'toy/1.0', 'p/sw', 'toy/1.0'),
    'apart': (['--installpath-modules={}/m', '--installpath-software={}/q/apps', '--set-default-module'], 'm/all',
              'toy/1.0', 'q/apps', 'toy/1.0'),
}


@pytest.mark.e2e
@pytest.mark.parametrize('name', SCHEMES)
def test_every_command_finds_what_a_naming_scheme_puts_elsewhere(eb, easysif, toy, tmp_path, name):
    options, directory, module, software, word = SCHEMES[name]
    recipe = toys.recipe(tmp_path / 'recipes', commands=['fine'], sanity_check_commands=['fine hello | grep hello'])
    eb(recipe, '--sourcepath=%s' % toy.parent, *(option.format(tmp_path) for option in options), prefix=tmp_path / 'p')
    prefix, software, root = str((tmp_path / software).parent), tmp_path / software, tmp_path / software / word
    file = tmp_path / directory / (module + '.lua')
    harness.run_shell('module use %s; module load %s; fine it works | grep "it works"; test "$EBROOTTOY" = %s' % (
        tmp_path / directory, module, root), tmp_path / 'none', tmp_path / 'home')

    def called(*words):
        code, out, err = easysif(*words, '--prefix', prefix)
        assert (code, err) == (0, ''), out
        return out
    assert [one['module'] for one in json.loads(called('list', '--json'))] == [word]
    for said in {word, 'toy', 'toy/1.0', module}:
        assert json.loads(called('show', said, '--json'))['installation'] == str(root)
    shown = json.loads(called('show', 'toy', '--json'))
    assert shown['modulefile'] == str(file) and shown['problem'] is None
    harness.run_shell(shown['load'] + '; fine', tmp_path / 'none', tmp_path / 'home')
    called('test', 'toy')
    called('verify')
    text = file.read_text()
    file.write_text('broken(')
    assert easysif('verify', 'toy', '--prefix', prefix)[0] == 1
    called('refresh', 'toy')
    assert file.read_text() == text
    called('refresh', '--all')
    called('site', 'apply')
    called('verify', 'toy/1.0')
    called('remove', 'toy', '--yes')
    left = [path for top in (software, tmp_path / directory.split('/all')[0]) for path in toys.files(top)
            if '.locks' not in path]
    assert left == [] and not file.parent.exists()
    assert json.loads(called('list', '--json')) == []


@pytest.mark.e2e
def test_an_overlay_is_found_under_every_way_of_installing(eb, easysif, images, tmp_path, monkeypatch):
    recipe = toys.recipe(tmp_path / 'recipes', 'snake', image=images.sif('python').name, python_env='snake',
                         commands=['python', 'pip'])
    options = ['--module-naming-scheme=HierarchicalMNS', '--disable-fixed-installdir-naming-scheme',
               '--installpath-software=%s/q/apps' % tmp_path, '--installpath-modules=%s/m' % tmp_path]
    eb(recipe, '--sourcepath=%s' % images.sif('python').parent, *options, prefix=tmp_path / 'p')
    prefix, overlay = tmp_path / 'q', tmp_path / 'q' / 'overlays' / 'Core' / 'snake' / '1.0'
    assert (overlay / 'user-software' / 'venv' / 'snake').is_dir()
    (overlay / 'user-software' / 'venv' / 'snake' / 'mine').write_text('precious')
    code, out, err = easysif('overlay', 'status', 'snake', '--prefix', str(prefix), '--json')
    assert (code, err) == (0, '') and str(overlay) in out
    use = 'module use %s/m/all/Core; module load snake\n' % tmp_path
    done = harness.run_shell(use + '%s/bin/easysif overlay status --json; make-squashfs --remove' % (
        harness.CLONE / 'tools'), tmp_path / 'none', tmp_path / 'home', env={
            name: harness.eb_environment(prefix, tmp_path / 'home')[name] for name in ('EB_PYTHON', 'PYTHONPATH')})
    assert str(overlay) in done.stdout and (overlay / 'user-software.squashfs').is_file()
    assert harness.run_shell(use + 'python -c "print(open(\'/user-software/venv/snake/mine\').read())"', tmp_path /
                             'none', tmp_path / 'home').stdout == 'precious\n'
    code, out, err = easysif('remove', 'snake', '--overlay', '--yes', '--prefix', str(prefix))
    assert (code, err) == (0, '') and not (prefix / 'overlays').exists()


@pytest.mark.e2e
def test_users_have_their_own_beside_what_the_site_installed(eb, easysif, toy, tmp_path):
    central, own = tmp_path / 'central', tmp_path / 'own'
    for prefix, version, command in ((central, '1.0', 'fine'), (central, '3.0', 'fine'), (own, '2.0', 'fine'),
                                     (own, '3.0', 'fine of my own')):
        recipe = toys.recipe(tmp_path / 'recipes', version=version, commands={'fine': command})
        eb(recipe, '--sourcepath=%s' % toy.parent, *(['--set-default-module'] if version == '1.0' else []),
           prefix=prefix)
    before = toys.snapshot(central)
    for path in [central, *central.rglob('*')]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    use = 'module use %s/modules/all\n' % central
    mine = use + 'module use %s/modules/all\n' % own

    def loaded(script, module):
        return harness.run_shell('%smodule load %s; echo $EBROOTTOY; fine' % (script, module), tmp_path / 'none',
                                 tmp_path / 'home').stdout.splitlines()
    # the default is what the site calls so; of one name and version, one's own
    assert loaded(use, 'toy') == loaded(mine, 'toy') == ['%s/software/toy/1.0' % central, '']
    assert loaded(use, 'toy/3.0') == ['%s/software/toy/3.0' % central, '']
    assert loaded(mine, 'toy/2.0') == ['%s/software/toy/2.0' % own, '']
    assert loaded(mine, 'toy/3.0') == ['%s/software/toy/3.0' % own, 'of my own']
    for prefix, names in ((central, ['toy/1.0', 'toy/3.0']), (own, ['toy/2.0', 'toy/3.0'])):
        code, out, _ = easysif('list', '--prefix', str(prefix), '--json')
        assert [one['module'] for one in json.loads(out)] == names
        assert easysif('verify', '--prefix', str(prefix))[0] == 0
    code, _, err = easysif('remove', 'toy/3.0', '--prefix', str(central), '--yes')
    if os.geteuid():
        assert code == 1 and 'Traceback' not in err
        assert {path for path in toys.snapshot(central)} == set(before)
    for path in [central, *central.rglob('*')]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.e2e
def test_the_module_of_the_runtime_is_loaded_with_ours_and_goes_with_them(eb, site_file, toy, tmp_path):
    """At a site whose runtime is in a module: nothing is found on PATH without it."""
    prefix, modules = tmp_path / 'p', tmp_path / 'site-modules'
    (modules / 'runtime').mkdir(parents=True)
    (modules / 'runtime' / '1.lua').write_text('prepend_path("PATH", "%s")\n' % (harness.CACHE / 'runtime' / 'bin'))
    toys.recipe(tmp_path / 'recipes', 'bound', image=None, easyblock='ContainerBindings')
    recipes = [toys.recipe(tmp_path / 'recipes', commands=['fine']),
               tmp_path / 'recipes' / 'bound-1.0.eb']
    eb(*recipes, '--sourcepath=%s' % toy.parent, prefix=prefix, site=site_file(module_dependency='runtime/1'),
       env={'MODULEPATH': str(modules)})
    script = ('module use %s; ! command -v apptainer; module load {0}; module list 2>&1; command -v apptainer; '
              'module unload {0}; ! command -v apptainer' % modules)
    for module in ('toy', 'bound'):
        done = harness.run_shell(script.format(module), prefix, tmp_path / 'home', env={'PATH': harness.SYSTEM_PATH})
        assert 'runtime/1' in done.stdout and str(harness.CACHE / 'runtime' / 'bin' / 'apptainer') in done.stdout
    ran = harness.run([prefix / 'software' / 'toy' / '1.0' / 'bin' / 'fine', 'alone'], env={
        'PATH': harness.SYSTEM_PATH, 'HOME': str(tmp_path / 'home')})
    assert ran.stdout == 'alone\n'  # a wrapper finds it without any module


def test_the_usual_layout_needs_no_note(tmp_path):
    prefix = str(tmp_path)
    layout.note(prefix, prefix + '/software/toy/1', 'toy/1', prefix + '/modules/all/toy/1.lua')
    assert toys.files(tmp_path) == set() and layout.layouts(prefix) == [layout.usual(prefix)]


def test_each_other_layout_is_noted_once_and_relative_to_the_prefix(tmp_path):
    prefix = tmp_path / 'p'
    for _ in range(2):
        for version in '12':
            layout.note(str(prefix), '%s/sw/toy/%s' % (prefix, version), 'toy/' + version,
                        '%s/modules/toy/%s.lua' % (prefix, version))
        layout.note(str(prefix), '%s/software/Core/toy/1' % prefix, 'Core/toy/1', '/m/all/Core/toy/1.lua')
        layout.note(str(prefix), '%s/software/toy/1' % prefix, 'toy/1', '/m/all/odd/name.lua')
    assert len(list((prefix / 'easysif' / 'layout').iterdir())) == 3
    other = tmp_path / 'moved'
    prefix.rename(other)
    found = layout.layouts(str(other))
    assert found[0] == layout.usual(str(other)) and set(found[1:]) == {
        layout.Layout('%s/sw' % other, '%s/modules' % other), layout.Layout('%s/software' % other, '/m/all'),
        layout.Layout('%s/software' % other, '/m/all', 3)}


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"software": 1, "modules": 2, "levels": 2}', 'null',
                                  '{"software": "a", "modules": "b", "levels": 1000000}', '\udcff'])
def test_a_note_that_makes_no_sense_counts_as_none(tmp_path, text):
    path = tmp_path / 'easysif' / 'layout' / 'x.json'
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode('utf-8', 'surrogateescape'))
    assert layout.layouts(str(tmp_path)) == [layout.usual(str(tmp_path))]
    assert installed.modules(str(tmp_path)) == {}


@pytest.mark.parametrize('word, means', [('toy', True), ('toy/1', True), ('Core/toy', True), ('Core/toy/1', True),
                                         ('1', False), ('oy', False), ('Core', False), ('oy/1', False)])
def test_a_word_means_a_module_by_its_last_parts(word, means):
    assert installed.means(word, 'Core/toy/1') == means


@pytest.mark.parametrize('variables, prefix', [
    ({'INSTALLPATH_SOFTWARE': '/q/apps'}, '/q'), ({'PREFIX': '/p', 'SUBDIR_SOFTWARE': 'sw'}, '/p'),
    ({'PREFIX': '/p', 'INSTALLPATH': '/i'}, '/i'), ({'PREFIX': '/p', 'SUBDIR_SOFTWARE': 'a/b'}, '/p/a')])
def test_the_prefix_is_where_the_directory_of_all_installations_is(monkeypatch, variables, prefix):
    for name, value in variables.items():
        monkeypatch.setenv('EASYBUILD_' + name, value)
    assert installed.easybuild_prefix() == prefix


def test_what_is_spelled_through_a_link_is_found_as_it_was_installed(tmp_path, easysif):
    made = MadeUp(tmp_path / 'prefix', python_env=None)
    (tmp_path / 'link').symlink_to('prefix')
    before = toys.snapshot(made.root)
    code, out, err = easysif('refresh', '--all', '--prefix', str(tmp_path / 'link'))
    assert (code, err) == (0, '') and toys.snapshot(made.root) == before, out
    assert Path(made.modulefile).is_file()
