# SPDX-License-Identifier: GPL-2.0-only
"""Module files in Tcl beside those in Lua: whatever deals with installed modules knows both, the real eb makes both.

What such a module does is in test_module.py.
"""

import json
import os
import shutil

import pytest

import harness
import toys
from easysif import modulefile, upgrade
from easysif.errors import EasySIFError
from made_up import MadeUp


@pytest.fixture
def both(prefix, its_prefix):
    """A module in Lua and a newer one in Tcl, in one prefix (tuple of MadeUp)."""
    return MadeUp(prefix), MadeUp(prefix, 'toy/2.0-x', ending='')


def test_a_module_in_tcl_is_listed_shown_and_verified_like_one_in_lua(easysif, both, prefix):
    lua, tcl = both
    assert [one['module'] for one in json.loads(easysif('list', '--json')[1])] == ['toy/1', 'toy/2.0-x']
    shown = json.loads(easysif('show', 'toy/2.0-x', '--json')[1])
    assert shown['modulefile'] == str(tcl.modulefile) and shown['problem'] is None
    assert shown['load'] == 'module use %s/modules/all; module load toy/2.0-x' % prefix
    assert easysif('verify')[0] == 0
    tcl.modulefile.write_text('#%Module\n')
    code, _, err = easysif('verify')
    assert code == 1 and 'toy/2.0-x: the module file was changed' in err


def test_a_module_in_tcl_is_made_anew_in_tcl(easysif, both):
    lua, tcl = both
    before = [one.modulefile.read_text() for one in both]
    tcl.modulefile.unlink()
    (tcl.root / 'easysif' / 'site.tcl').unlink()
    code, out, err = easysif('refresh', '--all')
    assert (code, err) == (0, '') and 'toy/2.0-x: refreshed easysif/site.tcl, ' in out and str(tcl.modulefile) in out
    assert [one.modulefile.read_text() for one in both] == before and easysif('verify')[0] == 0


def test_a_module_in_tcl_is_removed_whole_and_alone(easysif, both):
    lua, tcl = both
    upgrade.set_default(upgrade.find(str(tcl.prefix), 'toy/2.0-x'))
    code, out, err = easysif('remove', 'toy/2.0-x', '--yes')
    assert (code, err) == (0, '') and 'it was the default of toy' in out
    assert not os.path.lexists(tcl.modulefile) and not os.path.lexists(tcl.link) and not tcl.root.exists()
    assert sorted(os.listdir(tcl.modulefile.parent)) == ['1.lua'] == sorted(os.listdir(tcl.link.parent))
    assert lua.modulefile.exists() and easysif('verify')[0] == 0


@pytest.mark.parametrize('gone', ['installation', 'manifest'])
def test_a_module_file_in_tcl_of_what_is_gone_is_known(easysif, both, gone):
    lua, tcl = both
    if gone == 'installation':
        shutil.rmtree(tcl.root)
    else:
        (tcl.root / 'easysif.json').write_text('x')
    assert [one['module'] for one in json.loads(easysif('list', '--json')[1])] == ['toy/1', 'toy/2.0-x']
    code, out, err = easysif('remove', 'toy/2.0-x', '--yes')
    if gone == 'installation':
        assert code == 0 and not tcl.modulefile.exists()
    else:
        assert code == 1 and 'rm -r -- %s %s %s' % (tcl.root, tcl.modulefile, tcl.link) in err


def test_the_default_is_set_as_eb_does_in_either_language(both):
    lua, tcl = both
    directory, classes = tcl.modulefile.parent, tcl.link.parent
    known = [upgrade.find(str(lua.prefix), name) for name in ('toy/1', 'toy/2.0-x')]
    assert upgrade.set_default(known[0]) is None
    assert [os.readlink(one / 'default') for one in (directory, classes)] == ['1.lua'] * 2
    assert upgrade.set_default(known[1]) == 'toy/1' and upgrade.set_default(known[1]) == 'toy/2.0-x'
    assert (directory / '.version').read_text() == '#%Module\nset ModulesVersion 2.0-x\n'
    assert os.readlink(classes / '.version') == str(directory / '.version')
    assert not os.path.lexists(directory / 'default') and not os.path.lexists(classes / 'default')
    assert modulefile.default_version(str(directory)) == modulefile.default_version(str(classes)) == '2.0-x'


def test_a_default_that_somebody_else_named_is_left_alone(both):
    named = both[1].modulefile.parent / '.version'
    named.write_text('#%Module\nset ModulesVersion [exec date]\n')
    with pytest.raises(EasySIFError) as caught:
        upgrade.set_default(upgrade.find(str(both[1].prefix), 'toy/2.0-x'))
    assert named.read_text().endswith('[exec date]\n') and str(caught.value) == (
        'toy/2.0-x: the default cannot be set: the file that names it holds something else\n'
        '  file  %s\nhint: cat %s' % (named, named))


def test_what_is_no_module_file_of_ours_is_not_taken_for_one(tmp_path):
    for name, text in (('default', '#%Module\n# EasySIF module'), ('1.bak_2024', '-- EasySIF module'),
                       ('1', '#%Module')):
        (tmp_path / name).write_text(text)
        assert not modulefile.is_ours(str(tmp_path / name))
    (tmp_path / '1').write_text('#%Module\n# EasySIF module')
    assert modulefile.is_ours(str(tmp_path / '1'))


def test_the_module_in_the_other_language_that_stood_there_goes(prefix):
    old, other = MadeUp(prefix), MadeUp(prefix, 'toy/2')
    (old.modulefile.parent / 'default').symlink_to('1.lua')
    recorded = {'path': modulefile.other(str(old.modulefile)), 'links': [modulefile.other(str(old.link))]}
    modulefile.drop_other(recorded)
    modulefile.drop_other(recorded)
    assert sorted(os.listdir(old.modulefile.parent)) == sorted(os.listdir(old.link.parent)) == ['.version', '2.lua']
    assert modulefile.is_default(recorded['path']) and modulefile.is_default(recorded['links'][0]), 'as it was before'
    (other.modulefile.parent / 'default').symlink_to('2.lua')
    (other.modulefile.parent / '.version').write_text('of somebody else')
    modulefile.drop_other({'path': modulefile.other(str(other.modulefile)), 'links': []})
    assert (other.modulefile.parent / '.version').read_text() == 'of somebody else'
    assert os.listdir(other.modulefile.parent) == ['.version'] and other.link.exists() is False
    theirs = prefix / 'modules' / 'all' / 'toy' / '1.lua'
    theirs.write_text('-- of somebody else')
    modulefile.drop_other(recorded)
    assert theirs.exists()


SHELLS = {'Lmod': harness.LMOD_INIT, 'EnvironmentModules': harness.MODULES_INIT}

#: loads, uses, looks at and unloads the module; the environment is then as it was
SESSION = '''%s
set -e; export TMPDIR=/tmp; module use "$1"; env | sort | grep -v '^_\\|LMOD\\|MODULES\\|_LMFILES_' >before
module load toy; test "$EBROOTTOY/toy.sif,$EBVERSIONTOY" = "$SIF,1.0"; start-shell -c 'fine inside' | grep -x inside
singularity exec $SIF fine by hand | grep -x 'by hand'
module help toy 2>&1 | grep -q 'Commands that run inside the image'; module whatis toy 2>&1 | grep -q 'A toy'
module show toy 2>&1 | grep -q SINGULARITY_BINDPATH
module unload toy; env | sort | grep -v '^_\\|LMOD\\|MODULES\\|_LMFILES_' | diff before -'''


@pytest.mark.e2e
def test_eb_makes_modules_in_tcl_with_either_module_tool_and_either_loads_them(eb, prefix, tmp_path, toy, easysif):
    """EasyBuild loads what it has made by the tool that it is told; what was in Lua before is in Tcl then."""
    recipe = toys.recipe(tmp_path, image=str(toy),
                         sanity_check_commands=["start-shell -c 'fine x' | grep -x x"])
    environments = {'Lmod': {}, 'EnvironmentModules': {'EASYBUILD_MODULES_TOOL': 'EnvironmentModules',
                                                       'MODULES_CMD': harness.MODULECMD}}
    eb(str(recipe), '--set-default-module')
    modules = prefix / 'modules' / 'all' / 'toy'
    assert sorted(os.listdir(modules)) == ['1.0.lua', 'default']
    for tool, more in environments.items():
        eb(str(recipe), '--rebuild', '--module-syntax=Tcl', '--set-default-module', env=more)
        assert sorted(os.listdir(modules)) == ['.version', '1.0']
        assert sorted(os.listdir(prefix / 'modules' / 'tools' / 'toy')) == ['.version', '1.0']
        root, manifest = toys.installation(prefix)
        assert manifest['tests'] == [{'command': "start-shell -c 'fine x' | grep -x x", 'result': 'passed'}]
        assert manifest['modulefile']['path'] == str(modules / '1.0') and manifest['modulefile']['block']
        assert easysif('verify', '--prefix', str(prefix))[0] == 0
        for init in SHELLS.values():
            harness.run(['bash', '--noprofile', '--norc', '-c', SESSION % init, 'bash', prefix / 'modules' / 'all'],
                        env=harness.user_environment(tmp_path / 'home'), cwd=tmp_path)
    eb(str(recipe), '--module-only', '--rebuild')
    assert sorted(os.listdir(modules)) == ['1.0.lua', 'default']
    assert sorted(os.listdir(prefix / 'modules' / 'tools' / 'toy')) == ['1.0.lua', 'default']
