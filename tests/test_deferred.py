# SPDX-License-Identifier: GPL-2.0-only
"""What stands of us in a module file: a call of the plan in the installation, so that module spider compiles none."""

import pytest

import harness
from easysif import deferred, render
from easysif.module import module_plan
from made_up import MadeUp

pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def toy(tmp_path):
    """One installed module, in a prefix whose name is odd (MadeUp)."""
    return MadeUp(tmp_path / 'pre "fix" $(touch evil)')


def test_a_module_file_in_lua_is_short_and_does_what_the_plan_says(toy, tmp_path):
    text = toy.modulefile.read_text()
    assert 'An EasySIF module' in text and len(text) < 1500 < len((toy.root / deferred.NAME).read_text())
    loaded = 'module load toy; echo "$SIFTOY"; module unload toy; echo "[$SIFTOY$SIF$APPTAINER_BINDPATH]"'
    assert harness.run_shell(loaded, toy.prefix, tmp_path / 'home').stdout == '%s\n[]\n' % toy.sif
    shown = harness.run_shell('module show toy', toy.prefix, tmp_path / 'home').output
    assert 'setenv("SIFTOY"' in shown.replace("'", '"') and 'family("easysif_environment")' in shown.replace("'", '"')


def test_module_spider_reads_none_of_it(toy, tmp_path):
    (toy.root / deferred.NAME).write_text('error("somebody read me")\n')
    said = harness.run_shell('module --ignore_cache spider toy; module avail; module whatis toy', toy.prefix,
                             tmp_path / 'home').output
    assert 'toy' in said and 'somebody' not in said


def test_without_it_loading_says_what_to_type_and_that_helps(toy, tmp_path, easysif):
    (toy.root / deferred.NAME).unlink()
    failed = harness.run_shell('module load toy', toy.prefix, tmp_path / 'home', check=False)
    said = ' '.join(failed.stderr.split())  # Lmod folds long lines
    assert failed.status and 'toy/1: what the module does is gone file %s/easysif/module.lua' % toy.root in said
    assert "hint: easysif refresh toy/1 --prefix '%s'" % toy.prefix in said
    code, out, err = easysif('verify', 'toy', '--prefix', str(toy.prefix))
    assert code == 1 and 'easysif/module.lua is missing' in out + err
    assert easysif('refresh', 'toy', '--prefix', str(toy.prefix))[0] == 0
    harness.run_shell('module load toy', toy.prefix, tmp_path / 'home')


@pytest.mark.parametrize('init', [harness.LMOD_INIT, harness.MODULES_INIT], ids=['Lmod', 'Environment Modules'])
def test_one_in_tcl_is_short_as_well_and_says_so(tmp_path, easysif, init):
    toy = MadeUp(tmp_path / 'prefix', ending='')
    assert len(toy.modulefile.read_text()) < 1500 < len((toy.root / deferred.TCL_NAME).read_text())

    def session(script):
        return harness.run(['bash', '--norc', '-c', '%s; module use "$1"; %s' % (init, script), 'bash',
                            toy.modulefile.parents[1]], env=harness.user_environment(tmp_path / 'home'), check=False)
    loaded = session('module load toy; echo "$SIFTOY"; module unload toy; echo "[$SIFTOY$SIF$APPTAINER_BINDPATH]"')
    assert loaded.stdout == '%s\n[]\n' % toy.sif
    assert 'easysif_environment' in session('module show toy').output
    (toy.root / deferred.TCL_NAME).unlink()
    assert 'A toy.' in session('module whatis toy').output
    failed = session('module load toy')
    assert failed.status and 'toy/1: what the module does is gone file %s/easysif/module.tcl hint: easysif refresh' % (
        toy.root) in ' '.join(failed.stderr.split())
    assert easysif('refresh', 'toy', '--prefix', str(toy.prefix))[0] == 0
    assert session('module load toy').status == 0


def test_what_an_older_easysif_wrote_is_made_short_by_refresh(toy, easysif):
    short = toy.modulefile.read_text()
    begin, end = toy.block
    text = short[:begin] + render.lua(module_plan(toy.inst), str(toy.root), str(toy.prefix)) + short[end:]
    for path in (toy.modulefile, toy.root / 'easysif' / 'modulefile'):
        path.write_text(text)
    (toy.root / deferred.NAME).unlink()
    toy.block[1] += len(text) - len(short)
    toy.record()
    assert easysif('verify', 'toy', '--prefix', str(toy.prefix))[0] == 0
    assert easysif('refresh', 'toy', '--prefix', str(toy.prefix))[0] == 0
    assert toy.modulefile.read_text() == short and (toy.root / deferred.NAME).is_file()
