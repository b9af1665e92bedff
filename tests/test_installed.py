# SPDX-License-Identifier: GPL-2.0-only
"""What is installed in a prefix: found by name, its record read."""

import json

import pytest

import toys
from easysif import installed, manifest
from easysif.errors import INPUT, EasySIFError
from made_up import MadeUp


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
    for name in ('jax/1', 'jax/.1.old', 'jax/.2.new', 'jax/2.old', 'jax/2.removed'):
        add(name)
    assert list(installed.modules(str(prefix))) == ['jax/1', 'jax/2.old', 'jax/2.removed']


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


def test_what_other_prefixes_put_into_a_directory_of_modules_is_theirs(easysif, prefix, tmp_path):
    """Two --installpath-software with one --installpath-modules."""
    own, other = MadeUp(prefix), MadeUp(tmp_path / 'other', 'toy/2')
    (prefix / 'easysif' / 'layout').mkdir()
    (prefix / 'easysif' / 'layout' / 'x.json').write_text(json.dumps(
        {'schema': 1, 'software': 'software', 'modules': str(tmp_path / 'other' / 'modules' / 'all'), 'levels': 2}))
    assert installed.modules(str(prefix)) == {'toy/1': str(own.root)}
    code, _, err = easysif('remove', 'toy/2', '--prefix', str(prefix), '--yes')
    assert code == 1 and 'toy/2: is not installed here' in err
    (prefix / 'software' / 'toy' / '.2.new').mkdir()
    assert easysif('remove', 'toy/2', '--prefix', str(prefix), '--yes')[0] == 0, 'what a killed one left'
    assert not (prefix / 'software' / 'toy' / '.2.new').exists()
    assert other.modulefile.exists() and other.link.exists()
    assert easysif('verify', '--prefix', str(prefix))[0] == easysif('verify', '--prefix', str(other.prefix))[0] == 0
