# SPDX-License-Identifier: GPL-2.0-only
"""An installation that fails leaves what stood there as it was: what the faults of tests/faults do not show."""

import os
import tempfile
from pathlib import Path

import pytest

import toys

pytestmark = pytest.mark.e2e


@pytest.fixture
def stands(eb, tmp_path, toy):
    """The recipe of an installation (Path)."""
    recipe = toys.recipe(tmp_path, commands=['fine'])
    eb(recipe, '--sourcepath=%s' % toy.parent)
    return recipe


def test_a_failed_rebuild_is_undone_also_where_images_are_fetched_to_another_file_system(stands, eb, prefix, tmp_path):
    before = toys.snapshot(prefix, 'build')
    with tempfile.TemporaryDirectory(dir='/dev/shm') as sources:
        assert os.stat(sources).st_dev != os.stat(prefix).st_dev
        toys.recipe(tmp_path, image='docker://docker.io/stand-in/busybox:1', commands=['cat'],
                    sanity_check_commands=['cat /not-there'])
        result = eb(stands, '--rebuild', '--sourcepath=%s' % sources, check=False)
        assert result.status != 0 and 'cat /not-there failed' in result.output
        # for the next try
        assert sorted(path.suffix for path in Path(sources).rglob('image-*')) == ['.json', '.sif']
    assert toys.snapshot(prefix, 'build') == before  # the log of the build is kept


def test_a_rebuild_that_fails_after_a_killed_one_leaves_what_stood_there(stands, eb, prefix, tmp_path, toy):
    before = toys.snapshot(prefix / 'software' / 'toy' / '1.0')
    hooks = tmp_path / 'hooks.py'
    hooks.write_text('import os\n\n\ndef post_install_hook(self):\n    os.kill(os.getpid(), 9)\n')
    arguments = [stands, '--rebuild', '--sourcepath=%s' % toy.parent, '--hooks=%s' % hooks]
    assert eb(*arguments, check=False).status in (-9, 137)
    assert '.1.0.new' in os.listdir(prefix / 'software' / 'toy')
    hooks.write_text("def post_install_hook(self):\n    raise KeyError('injected')\n")
    assert 'injected' in eb(*arguments, check=False).output
    assert toys.snapshot(prefix / 'software' / 'toy' / '1.0') == before
    assert os.listdir(prefix / 'software' / 'toy') == ['1.0']


def test_a_module_file_is_brought_back_where_only_it_was_made_anew(stands, eb, prefix, tmp_path):
    module = prefix / 'modules' / 'all' / 'toy' / '1.0.lua'
    module.write_text('-- somebody else wrote this\n')
    hooks = tmp_path / 'hooks.py'
    hooks.write_text("def post_module_hook(self):\n    raise KeyError('injected')\n")
    assert eb(stands, '--rebuild', '--module-only', '--hooks=%s' % hooks, check=False).status != 0
    assert module.read_text() == '-- somebody else wrote this\n'
    eb(stands, '--rebuild', '--module-only')
    assert 'family(' not in module.read_text() and 'SIFTOY' in module.read_text()
