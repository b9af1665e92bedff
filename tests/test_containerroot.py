# SPDX-License-Identifier: GPL-2.0-only
"""The user's directory of a module, as an installation makes, links and takes it back."""

import os
from types import SimpleNamespace

import pytest

from easysif.containerroot import ContainerRoot
from easysif.errors import TOOL, EasySIFError


@pytest.fixture
def work(prefix):
    """An installation and the user's directory of it; its wrapper cannot make a venv."""
    work = SimpleNamespace(root=str(prefix / 'software' / 'toy' / '1'), place=ContainerRoot(
        'toy-1.eb', str(prefix), 'toy/1', dict(os.environ)))
    wrapper = prefix / 'software' / 'toy' / '1' / 'easysif' / 'wrapper'
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text('#!/bin/sh\n[ "$1" = print-environment ] || { echo "no space for $1" >&2; exit 1; }\n'
                       "echo 'CONTAINERROOT=%s'\n" % (prefix / 'overlays' / 'toy' / '1'))
    wrapper.chmod(0o755)
    return work


def test_an_overlay_whose_venv_cannot_be_made_is_told_and_taken_back(work, prefix):
    with pytest.raises(EasySIFError) as caught:
        work.place.make(work.root, 'toy')
    assert str(caught.value) == (
        'toy-1.eb: the virtual environment of the overlay could not be made\n'
        '  command    %s/easysif/wrapper make-venv\n'
        '  exit code  1\n  last line  no space for make-venv' % work.root)
    assert caught.value.exit_code == TOOL
    assert (prefix / 'overlays' / 'toy' / '1' / 'user-software').is_dir()
    work.place.undo()
    assert not (prefix / 'overlays').exists()


def test_an_overlay_that_was_there_is_never_taken_back(work, prefix):
    mine = prefix / 'overlays' / 'toy' / '1' / 'user-software' / 'mine'
    mine.parent.mkdir(parents=True)
    mine.write_text('precious')
    with pytest.raises(EasySIFError):
        work.place.make(work.root, 'toy')
    work.place.undo()
    assert mine.read_text() == 'precious'


def test_links_of_an_overlay_follow_the_image(work, prefix):
    overlay = prefix / 'overlays' / 'toy' / '1'
    overlay.mkdir(parents=True)
    (overlay / 'old.sif').symlink_to(prefix / 'software' / 'toy' / '1' / 'old.sif')
    (overlay / 'mine').symlink_to('/etc')
    (overlay / 'runscripts').write_text('a file of the user')
    work.place.link(work.root, 'toy.sif')
    assert {path.name: path.is_symlink() and os.readlink(path) for path in overlay.iterdir()} == {
        'toy.sif': work.root + '/toy.sif', 'mine': '/etc', 'runscripts': False}


def test_what_the_user_puts_into_a_new_overlay_while_tests_run_stays(work, prefix):
    wrapper = prefix / 'software' / 'toy' / '1' / 'easysif' / 'wrapper'
    wrapper.write_text("#!/bin/sh\necho 'CONTAINERROOT=%s'\n" % (prefix / 'overlays' / 'toy' / '1'))
    work.place.make(work.root, 'toy')
    mine = prefix / 'overlays' / 'toy' / '1' / 'user-software' / 'mine'
    mine.write_text('precious')
    work.place.undo()
    assert mine.read_text() == 'precious'
