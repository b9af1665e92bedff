# SPDX-License-Identifier: GPL-2.0-only
"""What is installed in a prefix: found by name, its record read, put aside and brought back."""

import os
from types import SimpleNamespace

import pytest

import toys
from easysif import installed, manifest
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.install import Install
from easysif.site import resolve
from easysif.standing import Standing, remove_tree


@pytest.fixture
def add(prefix):
    """A function that puts an installation into the prefix, by its module's name (Path)."""
    def call(module):
        root = prefix / 'software' / module
        manifest.write(str(root), toys.record(module=module))
        return root
    return call


def told(function, *args):
    """Return the text of the error that a function raises (str)."""
    with pytest.raises(EasySIFError) as caught:
        function(*args)
    assert caught.value.exit_code == INPUT
    return str(caught.value)


def test_a_module_is_found_by_name_and_version_or_by_name_alone(add, prefix):
    jax = add('jax/1')
    (prefix / 'software' / 'other' / '1').mkdir(parents=True)
    assert installed.find(str(prefix), 'jax/1') == installed.find(str(prefix), 'jax') == ('jax/1', str(jax))
    assert list(installed.modules(str(prefix))) == ['jax/1']


def test_what_is_put_aside_is_no_module(add, prefix):
    for name in ('jax/1', 'jax/1.old', 'jax/1.removed'):
        add(name)
    assert list(installed.modules(str(prefix))) == ['jax/1']


def test_of_several_versions_one_must_be_named(add, prefix):
    add('jax/1')
    add('jax/2')
    assert told(installed.find, str(prefix), 'jax') == (
        'jax: is installed in several versions\n  versions  jax/1, jax/2\nhint: name one: jax/2')


def test_a_module_that_is_not_there_is_told_with_what_is(add, prefix):
    add('jax/1')
    assert told(installed.find, str(prefix), 'jaxx') == (
        "jaxx: is not installed here\n  prefix     %s\n  installed  jax/1\nhint: did you mean 'jax'?" % prefix)
    assert told(installed.find, str(prefix), 'xyzzy').endswith('\nhint: eb --search xyzzy')


def test_the_prefix_is_the_one_of_easybuild(prefix, monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    assert told(installed.default_prefix) == (
        '%s: there are no installed modules\nhint: name the prefix with --prefix DIR' % prefix)
    prefix.mkdir()
    assert installed.default_prefix() == str(prefix)


@pytest.fixture
def place(tmp_path):
    """An installation with its module file and a link to that: the three paths (tuple of Path)."""
    root, module, link = tmp_path / 'software' / 'toy' / '1', tmp_path / 'all' / 'toy', tmp_path / 'tools' / 'toy'
    for path in (root / 'old', module, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    (root / 'old').write_text('old')
    module.write_text('old module')
    module.chmod(0o640)
    link.symlink_to(module)
    return root, module, link


def standing(place, scratch='/nonexistent'):
    return Standing(str(place[0]), [str(path) for path in place[1:]], str(scratch))


def test_what_stood_there_comes_back(place, tmp_path):
    before = toys.snapshot(tmp_path)
    root, module, link = place
    old = standing(place, tmp_path / 'build' / 'toy')
    assert old.put_aside() == str(root) + '.old'
    assert os.listdir(root) == []
    (root / 'new').mkdir()
    (root / 'new' / 'file').write_text('new')
    (root / 'new').chmod(0o555)
    module.write_text('new module')
    link.unlink()
    link.write_text('no link')
    (tmp_path / 'build' / 'toy').mkdir(parents=True)
    old.bring_back()
    assert toys.snapshot(tmp_path) == before


def test_where_nothing_stood_nothing_is_left(tmp_path):
    place = tmp_path / 'software' / 'toy' / '1', tmp_path / 'all' / 'toy', tmp_path / 'tools' / 'toy'
    old = standing(place)
    assert old.put_aside() is None
    for path in place[1:]:
        path.parent.mkdir(parents=True)
        path.write_text('new')
    old.bring_back()
    assert toys.snapshot(tmp_path, 'home') == {}


def test_what_users_keep_beside_is_left(tmp_path):
    old = standing((tmp_path / 'software' / 'toy' / '1',))
    old.put_aside()
    (tmp_path / 'software' / 'mine').touch()
    old.bring_back()
    assert toys.files(tmp_path) == {'software/mine'}


def test_the_old_one_goes_when_the_new_one_stands(place, tmp_path):
    root = place[0]
    old = standing(place)
    old.put_aside()
    (root / 'new').touch()
    old.remove()
    assert toys.snapshot(root.parent) == {'1': ('drwxr-xr-x', ''), '1/new': ('-rw-r--r--', toys.sha256(root / 'new'))}
    old.bring_back()
    assert os.listdir(root) == ['new']


@pytest.mark.parametrize('half', [True, False])
def test_what_a_killed_session_put_aside_counts_as_what_stands(place, half):
    root = place[0]
    standing(place).put_aside()
    if not half:
        root.rmdir()
    else:
        (root / 'half').touch()
    old = standing(place)
    assert old.put_aside() == str(root) + '.old'
    old.bring_back()
    assert os.listdir(root.parent) == ['1'] and os.listdir(root) == ['old']


def test_what_a_killed_session_was_removing_goes(place):
    root = place[0]
    (root.parent / '1.removed' / 'rest').mkdir(parents=True)
    old = standing(place)
    old.put_aside()
    old.remove()
    assert os.listdir(root.parent) == ['1']


def test_a_tree_with_read_only_directories_is_removed_and_links_are_not_followed(tmp_path):
    (tmp_path / 'other').mkdir(mode=0o555)
    tree = tmp_path / 'tree'
    (tree / 'a' / 'b').mkdir(parents=True)
    (tree / 'a' / 'link').symlink_to(tmp_path / 'other')
    for path in (tree / 'a' / 'b', tree / 'a', tree):
        path.chmod(0o500)
    remove_tree(str(tree))
    remove_tree(str(tree))
    assert not tree.exists() and (tmp_path / 'other').stat().st_mode & 0o777 == 0o555


@pytest.fixture
def work(prefix):
    """An installation at the moment when its overlay is made (Install); its wrapper cannot make a venv."""
    recipe = SimpleNamespace(where='toy-1.eb', python_env='toy')
    work = Install(recipe, resolve({}).site, str(prefix), str(prefix / 'software' / 'toy' / '1'), 'toy/1')
    wrapper = prefix / 'software' / 'toy' / '1' / 'easysif' / 'wrapper'
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text('#!/bin/sh\n[ "$1" = print-environment ] || { echo "no space for $1" >&2; exit 1; }\n'
                       "echo 'CONTAINERROOT=%s'\n" % (prefix / 'overlays' / 'toy' / '1'))
    wrapper.chmod(0o755)
    work.runtime = SimpleNamespace(environment=lambda: dict(os.environ))
    work.installation = SimpleNamespace(environment=True, sif_name='toy.sif')
    return work


def test_an_overlay_whose_venv_cannot_be_made_is_told_and_taken_back(work, prefix):
    with pytest.raises(EasySIFError) as caught:
        work.make_overlay()
    assert str(caught.value) == (
        'toy-1.eb: the virtual environment of the overlay could not be made\n'
        '  command    %s/easysif/wrapper make-venv\n'
        '  exit code  1\n  last line  no space for make-venv' % work.root)
    assert caught.value.exit_code == TOOL
    assert (prefix / 'overlays' / 'toy' / '1' / 'user-software').is_dir()
    work.undo()
    assert not (prefix / 'overlays').exists()


def test_an_overlay_that_was_there_is_never_taken_back(work, prefix):
    mine = prefix / 'overlays' / 'toy' / '1' / 'user-software' / 'mine'
    mine.parent.mkdir(parents=True)
    mine.write_text('precious')
    with pytest.raises(EasySIFError):
        work.make_overlay()
    work.undo()
    assert mine.read_text() == 'precious'


def test_links_of_an_overlay_follow_the_image(work, prefix):
    overlay = prefix / 'overlays' / 'toy' / '1'
    overlay.mkdir(parents=True)
    (overlay / 'old.sif').symlink_to(prefix / 'software' / 'toy' / '1' / 'old.sif')
    (overlay / 'mine').symlink_to('/etc')
    (overlay / 'runscripts').write_text('a file of the user')
    work.finish()
    assert {path.name: path.is_symlink() and os.readlink(path) for path in overlay.iterdir()} == {
        'toy.sif': work.root + '/toy.sif', 'mine': '/etc', 'runscripts': False}
