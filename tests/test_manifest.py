# SPDX-License-Identifier: GPL-2.0-only
"""``easysif.json``: what is in it, older forms, and what is told of one that cannot be used."""

import json
import os

import pytest

import toys
from easysif import manifest
from easysif.errors import INPUT, EasySIFError

DIGEST = 'sha256:' + '0' * 64


@pytest.fixture
def root(prefix):
    """An installation of a few files (Path), with what does not count."""
    root = prefix / 'software' / 'toy' / '1'
    for name in ('bin', 'easysif/lib', 'easybuild/reprod', 'runscripts/easybuild', 'empty'):
        (root / name).mkdir(parents=True)
    for name in ('toy.sif', 'easysif.json', 'easysif/untested', 'easybuild/toy.log', 'easysif/wrapper',
                 'easysif/lib/a b', 'runscripts/easybuild/mine', 'runscripts/toy.sif'):
        (root / name).write_text(name)
    (root / 'bin' / 'toy').symlink_to('../easysif/wrapper')
    (root / 'bin' / 'all').symlink_to('../runscripts')
    (root / 'bin' / 'gone').symlink_to('nowhere\n')
    return root


def told(root):
    """Return the text of the error that reading a manifest raises (str)."""
    with pytest.raises(EasySIFError) as caught:
        manifest.read(str(root))
    assert caught.value.exit_code == INPUT
    return str(caught.value)


def test_what_an_installation_holds_is_known_by_content(root):
    os.mkfifo(root / 'pipe')
    regular = ('easysif/wrapper', 'easysif/lib/a b', 'runscripts/easybuild/mine', 'runscripts/toy.sif')
    assert manifest.contents(str(root), 'toy.sif') == dict(
        {name: 'sha256:' + toys.sha256(root / name) for name in regular}, pipe=None,
        **{'bin/toy': 'link:../easysif/wrapper', 'bin/all': 'link:../runscripts', 'bin/gone': 'link:nowhere\n'})


def test_it_comes_back_as_it_was_written(root):
    bytes_only = os.fsencode(root) + b'/runscripts/\xff\xfe'
    with open(bytes_only, 'w'):
        pass
    (root / 'runscripts' / '..\n').touch()
    record = toys.record(files=manifest.contents(str(root), 'toy.sif'))
    manifest.write(str(root), record)
    assert manifest.read(str(root)) == record
    assert os.fsdecode(b'runscripts/\xff\xfe') in record['files']


def test_the_same_installation_gives_the_same_bytes(root):
    record = toys.record(files=manifest.contents(str(root), 'toy.sif'))
    manifest.write(str(root), record)
    first = (root / 'easysif.json').read_bytes()
    manifest.write(str(root), dict(sorted(record.items(), reverse=True)))
    assert (root / 'easysif.json').read_bytes() == first


def test_form_1_is_read_as_the_newest(root):
    old = toys.record(schema=1, files=['bin/toy', 'easysif.json', 'easysif/untested', 'toy.sif'])
    del old['modulefile'], old['parameters']
    (root / 'easysif.json').write_text(json.dumps(old))
    assert manifest.read(str(root)) == toys.record(files={'bin/toy': None})


@pytest.mark.parametrize('values, what', [
    ({'files': 'all'}, "files must be a mapping of paths below the installation to what is there, not the text 'all'"),
    ({'schema': 1, 'files': 'all'},
     "files must be a mapping of paths below the installation to what is there, not the text 'all'"),
    ({'schema': 0}, 'schema must be the version of this form, 1 or 2, not the number 0'),
    ({'schema': 1, 'files': ['../toy']}, "a key of files must be a path below the installation, not the text '../toy'"),
    *[({'files': {path: None}}, 'a key of files must be a path below the installation, not the text %r' % path)
      for path in ('', '/etc/passwd', '.', '..', 'a/..', 'a/./b', 'a//b', 'a/', 'a\n/../b')],
    ({'files': {'a': 'md5:0'}}, 'files.a must be sha256: with 64 hexadecimal digits, link: with a target, or null '
                                "where it is not known, not the text 'md5:0'"),
    *[({'image': dict(toys.record()['image'], file=name)},
       'image.file must be the file name in the installation, not the text %r' % name) for name in ('..', 'a/b', '')],
    ({'modulefile': {'path': 'toy.lua', 'links': [], 'sha256': '0' * 64}},
     "modulefile.path must be an absolute path, not the text 'toy.lua'"),
    ({'parameters': {}}, 'parameters.variable is missing'),
])
def test_one_with_another_value_is_refused(root, values, what):
    manifest.write(str(root), toys.record(**values))
    assert told(root) == '%s: %s\nhint: eb --rebuild RECIPE.eb' % (root / 'easysif.json', what)


@pytest.mark.parametrize('text, what', [('{', 'is damaged (Expecting property name'),
                                        ('', 'is damaged (Expecting value'),
                                        ('\udcff', "is damaged ('utf-8' codec can't decode"),
                                        ('[' * 100000, 'is damaged (maximum recursion'),
                                        ('[]', 'the file is not what the schema says')])
def test_one_that_is_damaged_is_told(root, text, what):
    (root / 'easysif.json').write_text(text, errors='surrogateescape')
    assert told(root).startswith('%s: %s' % (root / 'easysif.json', what))


def test_one_that_is_not_there_is_told(root):
    (root / 'easysif.json').unlink()
    assert told(root) == '%s: cannot be read (No such file or directory)\nhint: eb --rebuild RECIPE.eb' % (
        root / 'easysif.json')


def test_one_of_a_newer_form_is_left_to_a_newer_easysif(root):
    manifest.write(str(root), toys.record(schema=3))
    assert told(root) == ('%s: was written by a newer EasySIF\n  form   3\n  known  1 to 2\n'
                          'hint: pip install --upgrade easysif, or source tools/env.sh of a newer clone'
                          % (root / 'easysif.json'))
