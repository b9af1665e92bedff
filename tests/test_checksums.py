# SPDX-License-Identifier: GPL-2.0-only
"""``checksums`` of every kind and form mean what they mean to EasyBuild, for ``eb`` and for ``easysif store add``."""

import ast
import hashlib
import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

import toys
from easysif.errors import EasySIFError
from easysif.images import checksums
from easysif.images.place import sha256_of
from easysif.obtain import Places, obtain
from easysif.recipe import load
from easysif.site import resolve
from easysif.store.contents import Store
from harness import long
from helpers_registry import answers_of_sif, stub
from test_images_fetch import served, sif_file

DATA = b'an image' * 1000
NAME = 'toy.sif'
SHA256, SHA512, MD5, SHA1 = (hashlib.new(kind, DATA).hexdigest() for kind in ('sha256', 'sha512', 'md5', 'sha1'))
OTHER = '0' * 64
KINDS = {'sha256': SHA256, 'sha512': SHA512, 'md5': MD5, 'sha1': SHA1, 'size': len(DATA),
         'adler32': '0x%d' % zlib.adler32(DATA), 'crc32': '0x%d' % zlib.crc32(DATA)}

#: the first entry of ``checksums``, and whether it is that of the file; None where it makes no sense
FORMS = [
    *[((kind, value), True) for kind, value in KINDS.items()],
    *[((kind, value if kind == 'size' else value[:-1] + ('1' if value[-1] != '1' else '2')), kind == 'size')
      for kind, value in KINDS.items()],
    (('size', len(DATA) + 1), False), (['size', len(DATA)], True), (['size', 1], False), (('size', '8000'), False),
    (None, True), (SHA256, True), (OTHER, False), (MD5, True), ('0' * 32, False), (SHA256.upper(), False),
    ([SHA256, MD5], True), ([SHA256, '0' * 32], False), ([MD5, OTHER], False), ([SHA256, MD5, ('size', 8000)], True),
    ([SHA256, ('sha512', SHA512)], True), ([SHA256, ('sha512', OTHER)], False), ([('size', 8000), OTHER], False),
    ((SHA256, OTHER), True), ((OTHER, SHA256), True), ((OTHER, '1' * 64), False), ((OTHER, ('md5', MD5)), True),
    ([[OTHER, SHA256]], True), ([[OTHER, SHA256, MD5]], True), ([['md5', MD5]], True), ([[('md5', MD5), OTHER]], True),
    ({NAME: SHA256}, True), ({NAME: OTHER}, False), ({NAME: None}, True), ({NAME: ('md5', MD5)}, True),
    ({NAME: [SHA256, MD5]}, True), ({NAME: (OTHER, SHA256)}, True), ([{NAME: MD5}, SHA256], True),
    ({'b.sif': SHA256}, None), ({}, None), ('x', None), ('', None), (['sha256', SHA256], None), (7, None),
    (('sha3', SHA256), None), ([SHA256, None], None), ([[[SHA256, MD5, OTHER]]], None), ({NAME: {NAME: SHA256}}, None),
    ((), False), (b'x', None), ('0' * 63, None), (SHA512, None)]

#: says of each form on its standard input whether EasyBuild takes a file for the right one
EASYBUILD = '''
import ast, sys
from easybuild.framework.easyconfig.types import to_checksums
from easybuild.tools.build_log import EasyBuildError
from easybuild.tools.filetools import verify_checksum
from easybuild.tools.options import set_up_configuration
set_up_configuration(args=['--prefix=' + sys.argv[1], '--modules-tool=Lmod', '--disable-cleanup-tmpdir'], silent=True)
for form in ast.literal_eval(sys.stdin.read()):
    try:
        print('told', verify_checksum(sys.argv[2], to_checksums([form])[0]))
    except (EasyBuildError, ValueError, TypeError):
        print('told', None)
'''


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('image') / NAME
    path.write_bytes(DATA)
    return path


def holds(path, form):
    """Tell whether a file has a checksum, None where that is none."""
    try:
        checksums.verify(str(path), NAME, [form], 'x.eb')
        return True
    except EasySIFError as err:
        return None if 'nothing that a file could have' in err.what else False


def test_every_form_means_what_easybuild_takes_it_for(image, tmp_path):
    told = subprocess.run([sys.executable, '-c', EASYBUILD, str(tmp_path), str(image)], text=True, capture_output=True,
                          input=repr([form for form, _ in FORMS]), env=dict(os.environ, HOME=str(tmp_path)))
    theirs = [ast.literal_eval(line[5:]) for line in told.stdout.splitlines() if line.startswith('told ')]
    assert len(theirs) == len(FORMS), told.stderr
    for (form, expected), one in zip(FORMS, theirs):
        assert (holds(image, form), one) == (expected, expected), form


def test_where_some_of_several_must_match_all_that_follow_must_match_as_well(image):
    """EasyBuild stops at the first alternative that matches, and does not look at what else is in the list."""
    assert holds(image, [(OTHER, SHA256), OTHER]) is False


def test_what_does_not_match_and_what_is_none_are_told(image):
    for entry, shown in ((OTHER, OTHER), (('md5', 'x'), "('md5', 'x')")):
        with pytest.raises(EasySIFError) as caught:
            checksums.verify(str(image), NAME, [entry], 'x.eb')
        assert str(caught.value) == (
            'x.eb: checksums do not match %s\n  recipe  %s\n  found   %s\n'
            'hint: review the file; if it is right, write the sha256 found into checksums' % (image, shown, SHA256))
    kinds = ('\n  kinds    adler32, crc32, md5, sha1, sha256, sha512, size\n'
             "hint: sha256sum toy.sif, and write checksums = ['…']")
    for values, what in ((['x'], "'x'\n  because  it has 1 characters; a sha256 has 64, an md5 32"),
                         ([{'b.sif': OTHER}], "{'b.sif': '%s'}\n  because  it has none of toy.sif" % OTHER),
                         ([7], '7\n  because  it is none'),
                         (SHA256, "'%s'\n  because  a list is needed, with one for each file" % SHA256)):
        with pytest.raises(EasySIFError) as caught:
            checksums.verify(str(image), NAME, values, 'x.eb')
        assert str(caught.value) == 'x.eb: checksums are nothing that a file could have: ' + what + kinds


@pytest.mark.parametrize('kind', [min(KINDS), *map(long, sorted(set(KINDS) - {min(KINDS)}))])
def test_the_store_takes_no_image_that_is_not_what_the_recipe_says(easysif, tmp_path, monkeypatch, its_prefix, kind):
    data = sif_file(tmp_path / 'upstream.sif').read_bytes()
    (tmp_path / 'sources').mkdir()
    (tmp_path / 'sources' / 'file.sif').write_bytes(data)
    reader = checksums._File(str(tmp_path / 'upstream.sif'), NAME, 'x.eb', [])
    right, wrong = reader._compute(kind), {'size': 1}.get(kind, 'x')
    with stub(dict({'/x.sif': served(data, ETag='"one"')}, **answers_of_sif(data, 'x/toy:1'))) as server:
        (tmp_path / 'site.yaml').write_text('registry_mirrors: {up.invalid: ["http://%s"]}\n' % server.host)
        monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
        for number, image in enumerate(('file.sif', 'http://%s/x.sif' % server.host, 'oras://up.invalid/x/toy:1')):
            def add(value):
                toys.recipe(tmp_path, version=str(number), image=image, checksums=[(kind, value)])
                return easysif('store', 'add', '--store', 'store', '--sourcepath', str(tmp_path / 'sources'),
                               'toy-%d.eb' % number)
            code, _, err = add(wrong)
            assert code == 1 and 'toy-%d.eb: checksums do not match ' % number in err, err
            assert not os.path.exists('store/toy-%d.sif' % number)
            code, _, err = add(right)
            assert code == 0, err


@pytest.mark.parametrize('name, text', [('toy.def', 'toy.def'), ('toy.tar', 'docker-archive:toy.tar')])
def test_what_an_image_was_made_of_is_held_against_the_recipe_where_it_is_run_from_the_store(tmp_path, name, text):
    store, beside = Store(str(tmp_path / 'store')), tmp_path / name
    store.prepare('x')
    sif_file(tmp_path / 'store' / 'any name.sif')
    beside.write_bytes(DATA)
    info = os.stat(store.path('any name.sif'))
    made_of = {'definition_sha256': SHA256, 'recipe': 'toy-1.0.eb'} if name == 'toy.def' else {
        'digest': 'sha256:' + SHA256}
    store.write_record('any name.sif', dict(made_of, schema=1, size=info.st_size, mtime_ns=info.st_mtime_ns,
                                            sha256=sha256_of(store.path('any name.sif')), reference=text))
    site = replace(resolve().site, image_store=store.directory)

    def run(*sums, **values):
        recipe = load(str(toys.recipe(tmp_path, image=text, image_mode='link', **values)))
        places = Places(lambda one: str(beside) if beside.exists() else None, ['here'], str(tmp_path / 'downloads'),
                        str(tmp_path), str(tmp_path / 'log'), checksums=sums)
        return obtain(recipe, site, None, places)

    def refusal(*sums, **values):
        with pytest.raises(EasySIFError) as caught:
            run(*sums, **values)
        return str(caught.value)

    for sums in ((), (SHA256,), (MD5,), ({name: SHA256},)):
        assert run(*sums).path == store.path('any name.sif')
    for wrong in (OTHER, '0' * 32, {name: OTHER}):
        assert refusal(wrong).startswith('toy-1.0.eb: checksums do not match %s\n  recipe  ' % beside)
    if name == 'toy.def':
        assert "the image store does not have the image, and image_mode is 'link'" in refusal(build_args={'a': 'b'})
        record = json.loads(Path(store.directory, '.easysif', 'any name.sif.json').read_text())
        store.write_record('any name.sif', dict(record, build_args={'a': 'b'}))
        assert run(build_args={'a': 'b'}).path == store.path('any name.sif')
        assert "the image store does not have the image, and image_mode is 'link'" in refusal()
        store.write_record('any name.sif', record)
    beside.write_bytes(b'another')
    assert "the image store does not have the image, and image_mode is 'link'" in refusal()
    beside.unlink()
    if name == 'toy.def':
        assert refusal(SHA256).startswith('toy-1.0.eb: definition file not found: toy.def\n  searched  here\n')
        return
    assert run().path == run(SHA256).path == run(SHA256, digest='sha256:' + SHA256).path
    assert "the image store does not have the image, and image_mode is 'link'" in refusal(OTHER)
    assert refusal(OTHER, digest='sha256:' + SHA256).startswith('toy-1.0.eb: checksums do not match toy.tar\n')
    assert refusal(MD5).startswith('toy-1.0.eb: archive not found: toy.tar\n')  # nothing to hold it against


def test_names_in_checksums_may_have_templates_and_tuples_stay_alternatives(easysif, tmp_path, its_prefix):
    sif_file(tmp_path / 'toy-1.0.sif')
    right = toys.sha256(tmp_path / 'toy-1.0.sif')
    for first, code in (({'%(namelower)s-%(version)s.sif': right}, 0), ((OTHER, right), 0), ((OTHER, '1' * 64), 1),
                        ({'%(name)s-%(version)s.sif': (OTHER, ('sha256', right))}, 0), (('sha256', right), 0)):
        toys.recipe(tmp_path, image='%(name)s-%(version)s.sif', checksums=[first])
        found = easysif('store', 'add', '--store', 'store', 'toy-1.0.eb')
        assert found[0] == code, (first, found)


def test_an_image_that_is_no_file_has_no_checksums(easysif, its_prefix):
    toys.recipe('.', image='docker://up.invalid/x/y:1', checksums=[OTHER])
    for words in (('store', 'add', '--store', 'store'), ('pin',), ('check',)):
        code, _, err = easysif(*words, 'toy-1.0.eb')
        assert code == 1 and (
            'error: toy-1.0.eb:9: checksums are those of a file, and the image is none: it has a digest instead\n'
            '  image  docker://up.invalid/x/y:1\n'
            'hint: remove checksums, then: easysif pin toy-1.0.eb\n') in err, err
    for others in ('sources', 'patches'):  # then they are those of these
        load(toys.recipe('.', image='docker://up.invalid/x/y:1', checksums=[OTHER], **{others: ['a']}))
