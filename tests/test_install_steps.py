# SPDX-License-Identifier: GPL-2.0-only
"""What an installation makes outside of its directory: made where the module uses it, and taken back."""

import os
import shutil
from types import SimpleNamespace

import pytest

import standins
import toys
from easysif import modulefile, site_files
from easysif.containerroot import ContainerRoot
from easysif.errors import EasySIFError
from easysif.install import Install
from easysif.obtain import Obtained
from easysif.run import run
from easysif.site import resolve


@pytest.fixture
def installed(tmp_path):
    """A function that gives an environment module whose wrapper says where its overlay is (Install)."""
    def make(containerroot=None, python_env=None):
        prefix = tmp_path / 'prefix'
        root = prefix / 'software' / 'toy' / '1.0'
        (root / 'easysif').mkdir(parents=True)
        wrapper = root / 'easysif' / 'wrapper'
        wrapper.write_text("#!/bin/sh\n[ ! -e '%s/broken' ] || { echo 'no plan' >&2; exit 1; }\nCONTAINERROOT='%s'\n"
                           'export CONTAINERROOT\nexec env\n'
                           % (tmp_path, containerroot or prefix / 'overlays' / 'toy' / '1.0'))
        wrapper.chmod(0o755)
        work = Install(SimpleNamespace(python_env=python_env, where='toy-1.0.eb'), resolve({}).site, str(prefix),
                       str(root), 'toy/1.0')
        work.containerroot = ContainerRoot('toy-1.0.eb', str(prefix), 'toy/1.0', dict(os.environ))
        work.installation = SimpleNamespace(environment=True, sif_name='toy.sif')
        return work
    return make


def test_what_was_fetched_goes_only_when_the_installation_stands(installed, tmp_path):
    work = installed()
    for name in ('toy.sif', 'toy.sif.json'):
        (tmp_path / name).touch()
    work.obtained = Obtained(str(tmp_path / 'toy.sif'), own=True, kept=str(tmp_path / 'toy.sif'))
    work.undo()
    assert (tmp_path / 'toy.sif').exists()
    assert work.finish(work.root) is None
    assert not list(tmp_path.glob('toy.sif*'))


def test_a_failure_takes_the_overlay_and_the_marker_of_the_prefix_back(installed, tmp_path):
    work = installed()
    work.make_overlay()
    assert toys.files(tmp_path / 'prefix') == {'easysif/prefix.json', 'software/toy/1.0/easysif/wrapper'}
    assert (tmp_path / 'prefix' / 'overlays' / 'toy' / '1.0').is_dir()
    work.undo()
    assert sorted(os.listdir(tmp_path / 'prefix')) == ['software']


@pytest.mark.parametrize('gone', ['overlays', 'overlays/toy', 'overlays/toy/1.0', 'easysif'])
def test_nothing_to_take_back_is_no_error(installed, tmp_path, gone):
    work = installed()
    work.make_overlay()
    shutil.rmtree(tmp_path / 'prefix' / gone)
    work.undo()
    assert toys.files(tmp_path / 'prefix') == {'software/toy/1.0/easysif/wrapper'}


def test_what_others_made_meanwhile_stays(installed, tmp_path):
    work = installed()
    work.make_overlay()
    for name in ('overlays/toy/2.0', 'easysif/site.sh'):
        (tmp_path / 'prefix' / name).mkdir()
    work.undo()
    assert (tmp_path / 'prefix' / 'overlays' / 'toy' / '2.0').is_dir()
    assert sorted(os.listdir(tmp_path / 'prefix' / 'easysif')) == ['prefix.json', 'site.sh']


def test_an_overlay_that_was_there_stays(installed, tmp_path):
    work = installed()
    overlay = tmp_path / 'prefix' / 'overlays' / 'toy' / '1.0'
    overlay.mkdir(parents=True)
    work.make_overlay()
    work.undo()
    assert overlay.is_dir()


def test_no_overlay_is_made_where_the_module_uses_another_one(installed, tmp_path):
    work = installed(containerroot=tmp_path / 'mine' / 'toy' / '1.0', python_env='toy')
    work.make_overlay()
    assert work.finish(work.root) is None
    assert sorted(os.listdir(tmp_path / 'prefix')) == ['easysif', 'software'] and not (tmp_path / 'mine').exists()


def test_a_plan_that_fails_is_told(installed, tmp_path):
    work = installed()
    (tmp_path / 'broken').touch()
    with pytest.raises(EasySIFError) as caught:
        work.make_overlay()
    assert str(caught.value) == ('toy-1.0.eb: the wrappers of the module do not work\n'
                                 '  command    %s/easysif/wrapper print-environment\n'
                                 '  exit code  1\n  last line  no plan' % work.root)
    assert work.finish(work.root) == str(caught.value)


def test_the_site_is_told_to_the_prefix_when_the_installation_stands(installed, tmp_path):
    work = installed()
    work.make_overlay()
    assert os.listdir(tmp_path / 'prefix' / 'easysif') == ['prefix.json']
    assert work.finish(work.root) is None
    assert sorted(os.listdir(tmp_path / 'prefix' / 'easysif')) == ['prefix.json', *site_files.NAMES]


def test_links_come_back_with_the_overlay(installed, tmp_path):
    work = installed()
    work.finish(work.root)
    shutil.rmtree(tmp_path / 'prefix' / 'overlays')
    assert work.finish(work.root) is None
    overlay = tmp_path / 'prefix' / 'overlays' / 'toy' / '1.0'
    assert {path.name: os.readlink(path) for path in overlay.iterdir()} == {
        'toy.sif': work.root + '/toy.sif', 'runscripts': work.root + '/runscripts'}


def test_links_that_cannot_be_made_are_a_warning(installed, tmp_path):
    work = installed()
    (tmp_path / 'prefix' / 'overlays').touch()
    assert work.finish(work.root) == ('toy-1.0.eb: no links to image and runscripts could be made (Not a directory)\n'
                                      'hint: ls -la %s/overlays/toy/1.0' % (tmp_path / 'prefix'))


def test_what_fails_of_the_last_steps_is_told_by_itself_and_the_others_are_done(installed, tmp_path):
    work = installed()
    other = tmp_path / 'prefix' / 'modules' / 'all' / 'toy' / '1.0'
    (tmp_path / 'prefix' / 'overlays').touch()
    work.manifest = {'modulefile': {'path': '%s.lua' % other, 'links': []}}

    def busy(recorded):
        raise OSError(16, 'Busy', modulefile.other(recorded['path']))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modulefile, 'drop_other', busy)
        told = work.finish(work.root)
    assert told == (
        'toy-1.0.eb: what was the module file in the other language is still there (Busy)\n'
        '  file  %s\nhint: ls -la %s\n'
        'toy-1.0.eb: no links to image and runscripts could be made (Not a directory)\n'
        'hint: ls -la %s/overlays/toy/1.0' % (other, other.parent, tmp_path / 'prefix'))
    assert set(site_files.NAMES) < set(os.listdir(tmp_path / 'prefix' / 'easysif'))


def test_an_error_of_the_system_in_the_last_steps_is_a_warning_as_well(installed, tmp_path, monkeypatch):
    work = installed()

    def full(*_):
        raise OSError(28, 'No space left on device', '/full')
    monkeypatch.setattr(site_files, 'apply', full)
    assert work.finish(work.root) == (
        'toy-1.0.eb: /full (No space left on device)\nhint: df -h; ls -ld /full')
    assert (tmp_path / 'prefix' / 'overlays' / 'toy' / '1.0' / 'toy.sif').is_symlink()  # the others are done


def test_site_files_that_cannot_be_written_are_a_warning(installed, tmp_path):
    work = installed()
    (tmp_path / 'prefix' / 'easysif').mkdir()
    (tmp_path / 'prefix' / 'easysif' / 'site.lua').mkdir()
    assert '/prefix/easysif/site.lua: cannot be written (' in work.finish(work.root)


@pytest.mark.e2e
def test_in_a_prefix_of_others_no_overlay_is_made(images, tmp_path, monkeypatch):
    prefix = tmp_path / 'prefix'
    (prefix / 'easysif').mkdir(parents=True)
    (prefix / 'easysif' / 'prefix.json').write_text('{}')
    (prefix / 'easysif' / 'prefix.json').chmod(0o444)
    monkeypatch.setenv('EASYSIF_OVERLAYS', str(tmp_path / 'mine'))  # else one's own prefix is used all the same
    standins.install(images.sif('busybox'), 'busybox', prefix)
    assert not (prefix / 'overlays').exists()


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    log = tmp_path / 'of others' / 'build.log'
    with pytest.raises(EasySIFError) as caught:
        run(['true'], log=str(log))
    assert str(caught.value) == ("%s: cannot be written (No such file or directory)\nhint: ls -ld '%s'"
                                 % (log, log.parent))
