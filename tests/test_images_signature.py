# SPDX-License-Identifier: GPL-2.0-only
"""Signatures of SIF files, made by the real runtime with real keys."""

import os
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from easysif import obtain, runtime
from easysif.errors import EasySIFError
from easysif.images import define, kept, signature
from helpers_registry import answers_of_sif, stub
from test_obtain import SITE, recipe


@pytest.fixture(scope='module')
def signed(tmp_path_factory):
    """A signed SIF file (path), the keyring and its armoured form (files, keys), another keyring, the fingerprint."""
    directory = tmp_path_factory.mktemp('signed')
    path = str(directory / 'signed.sif')
    (directory / 'tree').mkdir()
    (directory / 'tree' / 'file').write_text('in the image')
    subprocess.run(['mksquashfs', str(directory / 'tree'), str(directory / 'bare.squashfs'), '-quiet'], check=True,
                   stdout=subprocess.DEVNULL)

    def call(*argv, keys='keys', answer=None):
        env = dict(os.environ, APPTAINER_KEYSDIR=str(directory / keys), APPTAINER_CONFIGDIR=str(directory / 'config'))
        return subprocess.run(['apptainer', *argv], env=env, input=answer, check=True, capture_output=True,
                              text=True).stdout

    for keys, name in (('keys', 'Publisher'), ('others', 'Somebody')):
        (directory / keys).mkdir(mode=0o700)
        call('key', 'newpair', '--password=', '--name', name, '--comment=', '--email=x@example.com', '--push=false',
             '--bit-length', '2048', keys=keys)
    call('sif', 'new', path)
    call('sif', 'add', '--datatype', '4', '--parttype', '2', '--partfs', '1', '--partarch', '2', '--groupid', '1', path,
         str(directory / 'bare.squashfs'))
    shutil.copy(path, directory / 'unsigned.sif')
    call('sign', path)
    fingerprint = call('key', 'list').partition('Fingerprint:')[2].split()[0]
    armoured = str(directory / 'keys.asc')
    call('key', 'export', '--armor', armoured, answer='0\n')  # it asks which of the keys, even of one
    return SimpleNamespace(path=path, unsigned=str(directory / 'unsigned.sif'), fingerprint=fingerprint,
                           armoured=armoured,
                           keys=str(directory / 'keys' / 'pgp-public'), others=str(directory / 'others' / 'pgp-public'))


@pytest.fixture
def apptainer():
    return runtime.find(SimpleNamespace(runtime='apptainer'))


def refusal(*args):
    with pytest.raises(EasySIFError) as caught:
        signature.verify(*args, 'x.eb')
    return str(caught.value)


def test_a_signed_image_is_told_with_its_key_by_either_form_of_a_keyring(signed, apptainer):
    assert signature.verify(signed.path, apptainer, signed.keys, 'x.eb') == [signed.fingerprint]
    with open(signed.armoured, encoding='ascii') as handle:
        assert handle.read().startswith('-----BEGIN PGP PUBLIC KEY BLOCK-----\n')
    assert signature.verify(signed.path, apptainer, signed.armoured, 'x.eb') == [signed.fingerprint]


def test_the_keyring_of_the_user_counts_where_the_site_has_none(signed, apptainer, monkeypatch):
    monkeypatch.setenv('APPTAINER_KEYSDIR', os.path.dirname(signed.keys))
    assert signature.verify(signed.path, apptainer, None, 'x.eb') == [signed.fingerprint]
    assert 'signature of the image cannot be verified' in refusal(signed.path, apptainer, signed.others)


def test_an_unsigned_image_is_refused(signed, apptainer):
    assert refusal(signed.unsigned, apptainer, signed.keys) == (
        'x.eb: image is not signed\n  image  %s\n  keys   %s\n'
        'hint: ask its publisher for a signed one: apptainer sign NAME.sif' % (signed.unsigned, signed.keys))


def test_a_key_that_does_not_count_and_a_flipped_bit_are_refused(signed, apptainer, tmp_path):
    text = 'x.eb: signature of the image cannot be verified\n  image   %s\n  keys    %s\n  reason  '
    error = refusal(signed.path, apptainer, signed.others)
    assert error.startswith(text % (signed.path, signed.others) + 'signature object ')
    assert 'made by unknown entity' in error
    assert error.endswith('\nhint: apptainer verify --all --local %s' % signed.path)
    flipped = tmp_path / 'flipped.sif'
    data = bytearray(open(signed.path, 'rb').read())
    place = data.index(b'hsqs') + 50
    data[place] ^= 1
    flipped.write_bytes(data)
    assert refusal(str(flipped), apptainer, signed.keys).startswith(text % (flipped, signed.keys))


def test_a_keyring_that_is_not_there_names_the_setting(signed, apptainer):
    assert refusal(signed.path, apptainer, '/no/such') == (
        'x.eb: the keyring of the site cannot be read\n  file  /no/such\n'
        'hint: correct keyring in the site file, or export EASYSIF_KEYRING=/path')


@pytest.mark.parametrize('wanted, site, is_signed, works', [
    (False, 'none', False, True), (True, 'none', False, False), (True, 'none', True, True),
    (False, 'sif', False, False), (False, 'sif', True, True), (False, 'all', True, True),
])
def test_recipe_and_site_say_whether_an_image_must_be_signed(signed, apptainer, monkeypatch, wanted, site, is_signed,
                                                             works):
    monkeypatch.setattr(obtain.sif, 'check_architecture', lambda *_: None)
    monkeypatch.setattr(obtain.sif, 'read', lambda *_: None)
    path = signed.path if is_signed else signed.unsigned
    places = obtain.Places(find_file=lambda _: path, searched=[], downloads='', work='', log='')
    settings = SimpleNamespace(**dict(vars(SITE), verify=site, keyring=signed.keys))
    try:
        found = obtain.obtain(recipe('x.sif', verify=wanted), settings, apptainer, places)
    except EasySIFError as err:
        assert not works and 'image is not signed' in str(err)
    else:
        assert works and found.origin.get('signed_by') == ([signed.fingerprint] if is_signed else None)


def test_what_is_made_here_cannot_be_signed(signed, apptainer, monkeypatch, tmp_path):
    made = kept.Obtained(signed.path)
    monkeypatch.setattr(obtain, '_from_registry', lambda *_: made)
    monkeypatch.setattr(obtain.sif, 'check_architecture', lambda *_: None)
    monkeypatch.setattr(obtain.sif, 'read', lambda *_: None)
    for wanted, verify in ((True, 'none'), (False, 'all')):
        site = SimpleNamespace(**dict(vars(SITE), verify=verify))
        with pytest.raises(EasySIFError) as caught:
            obtain.obtain(recipe(verify=wanted), site, apptainer, SimpleNamespace(checksums=()))
        assert str(caught.value) == (
            'toy-1.0.eb: image is made here, so nobody has signed it\n  image   docker://docker.io/x/toy:1\n'
            '  verify  %s\nhint: name a signed SIF file: oras://, https:// or NAME.sif' % (
                'recipe' if wanted else 'site'))
    site = SimpleNamespace(**dict(vars(SITE), verify='sif'))
    places = SimpleNamespace(checksums=())
    assert obtain.obtain(recipe(), site, apptainer, places) == replace(made)


def test_a_definition_may_say_who_must_have_signed_its_base_also_where_we_fetch_it(signed, apptainer, monkeypatch,
                                                                                   tmp_path):
    """The runtime itself holds it against the header, which stays."""
    monkeypatch.setenv('APPTAINER_KEYSDIR', os.path.dirname(signed.keys))
    shutil.copy(signed.path, tmp_path / 'base.sif')

    def make(bootstrap, origin, fingerprint):
        path = tmp_path / 'x.def'
        path.write_text('Bootstrap: %s\nFrom: %s\nFingerprints: %s\n' % (bootstrap, origin, fingerprint))
        define.from_definition(str(path), str(tmp_path / 'x.sif'), {}, apptainer, site, str(tmp_path),
                               str(tmp_path / 'log'), 'x.eb')
        os.unlink(tmp_path / 'x.sif')

    with open(signed.path, 'rb') as handle, stub(answers_of_sif(handle.read(), 'x/base:1')) as server:
        site = SimpleNamespace(registry_mirrors={'up.invalid': ['http://' + server.host]}, registries=None,
                               base_images={}, ca_certificates=None,
                               squashfs={'compressor': 'gzip', 'level': 1, 'block': '128K'})
        for base in (('localimage', 'base.sif'), ('oras', 'up.invalid/x/base:1')):
            make(*base, signed.fingerprint)
            with pytest.raises(EasySIFError) as caught:
                make(*base, 'AB' * 20)
            assert 'image not signed by required entities' in dict(caught.value.facts)['reason']
