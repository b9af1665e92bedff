# SPDX-License-Identifier: GPL-2.0-only
"""easysif pin writes digests into recipes, and nothing else."""

import json
import os
from types import SimpleNamespace

import pytest

import toys
from easysif import pin
from easysif.images import sources
from easysif.site import resolve
from helpers_registry import digest_of, stub
from test_registry import image

OLD, NEW = ('sha256:' + digit * 64 for digit in 'ab')


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A registry for up.invalid that has x/y:1, whose manifest has the digest ``digest``."""
    monkeypatch.setattr(sources, 'WAITS', ())
    manifest, answers = image()
    with stub(answers) as running:
        (tmp_path / 'site.yaml').write_text('registry_mirrors: {up.invalid: ["http://%s"]}\n' % running.host)
        monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
        running.digest = digest_of(manifest)
        yield running


@pytest.mark.parametrize('before, after', [
    ("image = 'x.sif'\nneeds = []\n", "image = 'x.sif'\ndigest = 'NEW'\nneeds = []\n"),
    ("# é\r\nimage = 'x.sif'  # here\r\n\r\n\r\nneeds = []\r\n",
     "# é\r\nimage = 'x.sif'  # here\r\ndigest = 'NEW'\r\n\r\n\r\nneeds = []\r\n"),
    ("image = (\n    'x'\n    '.sif'\n)\n", "image = (\n    'x'\n    '.sif'\n)\ndigest = 'NEW'\n"),
    ("image = 'x.sif'", "image = 'x.sif'\ndigest = 'NEW'\n"),
    ('digest   = "OLD" # why OLD\nimage = "x"\n', 'digest   = "NEW" # why NEW\nimage = "x"\n'),
    ("image = 'x.sif'  # not pinned: no network\nneeds = []\n", "image = 'x.sif'\ndigest = 'NEW'\nneeds = []\n"),
    ("# not pinned: no network\r\nimage = 'x.sif'\r\n", "image = 'x.sif'\r\ndigest = 'NEW'\r\n"),
    ("image = 'docker://a.b/c:1@OLD'\ndigest = 'OLD'\n", "image = 'docker://a.b/c:1@NEW'\ndigest = 'NEW'\n"),
    ("image = 'x'\ndigest = ''\nb = 'OLD'\n", "image = 'x'\ndigest = 'NEW'\nb = 'OLD'\n"),
])
def test_the_rest_of_a_recipe_stays_as_it_is(before, after):
    before, after = (text.replace('OLD', OLD).replace('NEW', NEW).encode() for text in (before, after))
    assert pin.pinned(before, NEW) == after == pin.pinned(after, NEW)


def test_several_recipes_are_pinned_at_once_and_only_once(easysif, upstream, tmp_path):
    (tmp_path / 'c.sif').write_bytes(b'c')
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'e.tar').write_bytes(b'e')
    recipes = {
        'a': dict(image='docker://up.invalid/x/y:1'),
        'b': dict(image='docker://up.invalid/x/y:1', digest=OLD),
        'c': dict(image='c.sif'),
        'd': dict(image='d.def'),
        'e': dict(image='oci-archive:e.tar'),
        'f': dict(image='http://%s/f.sif' % upstream.host),
        'g': dict(image='docker://up.invalid/x/y@' + OLD),
    }
    upstream.answers['/f.sif'] = (200, {}, b'f')
    paths = {name: toys.recipe(tmp_path, name, **values) for name, values in recipes.items()}
    paths['a'].chmod(0o640)
    before = {name: path.read_bytes() for name, path in paths.items()}
    wanted = {'a': upstream.digest, 'b': upstream.digest, 'c': digest_of(b'c'), 'd': None, 'e': digest_of(b'e'),
              'f': digest_of(b'f'), 'g': OLD}
    lines = [
        'a-1.0.eb: %%s %s' % wanted['a'],
        'b-1.0.eb: the image was changed upstream, %%s %s, which had %s' % (wanted['b'], OLD),
        'c-1.0.eb: %%s %s' % wanted['c'],
        'd-1.0.eb: a definition file has no digest; its sha256 belongs into checksums',
        'e-1.0.eb: %%s %s' % wanted['e'], 'f-1.0.eb: %%s %s' % wanted['f'], 'g-1.0.eb: has the digest of its image']
    names = [path.name for path in paths.values()]
    options = ['--sourcepath', str(tmp_path / 'elsewhere')]
    assert easysif('pin', '--check', *names, *options) == (1, '\n'.join(lines).replace('%s', 'would get') + '\n', '')
    assert {name: path.read_bytes() for name, path in paths.items()} == before
    assert easysif('pin', *names, *options) == (0, '\n'.join(lines).replace('%s', 'got') + '\n', '')
    for name, path in paths.items():
        text = path.read_text()
        assert (wanted[name] in text if wanted[name] else path.read_bytes() == before[name]), name
    assert paths['a'].stat().st_mode & 0o777 == 0o640
    after = {name: path.read_bytes() for name, path in paths.items()}
    assert easysif('pin', '--check', *names, *options)[0] == 0
    code, out, _ = easysif('pin', '--json', *names, *options)
    assert json.loads(out)[0] == {'recipe': 'a-1.0.eb', 'before': wanted['a'], 'now': wanted['a']}
    assert (code, {name: path.read_bytes() for name, path in paths.items()}) == (0, after)


@pytest.mark.parametrize('others', ['sources', 'patches'])
def test_checksums_of_sources_and_patches_stay_where_an_image_is_pinned(upstream, tmp_path, monkeypatch, others):
    path = toys.recipe(tmp_path, image='docker://up.invalid/x/y:1', checksums=['0' * 64], **{others: ['a']})
    before, ends = path.read_text(), []
    monkeypatch.setattr(pin, 'atexit', SimpleNamespace(register=lambda *call: ends.append(call)))
    pin.inject(str(path), resolve().site, [], lambda line: None)
    for function, *values in ends:
        function(*values)
    assert path.read_text() == before.replace('moduleclass', "digest = '%s'\nmoduleclass" % upstream.digest)


def test_what_cannot_be_pinned_is_told_and_the_others_are_pinned(easysif, upstream, tmp_path):
    good = toys.recipe(tmp_path, 'good', image='docker://up.invalid/x/y:1')
    toys.recipe(tmp_path, 'gone', image='gone.sif')
    toys.recipe(tmp_path, 'wrong', image='nothing')
    code, out, err = easysif('pin', 'gone-1.0.eb', 'wrong-1.0.eb', 'good-1.0.eb')
    assert (code, out) == (1, 'good-1.0.eb: got %s\n' % upstream.digest)
    assert ('error: gone-1.0.eb: image file not found: gone.sif\n  searched  %s\n'
            'hint: name its directory with --sourcepath DIR\nerror: wrong-1.0.eb:7: image must be a reference'
            % tmp_path) in err
    assert upstream.digest in good.read_text()


def test_a_registry_that_the_site_does_not_allow_is_not_asked(easysif, upstream, tmp_path, monkeypatch):
    (tmp_path / 'closed.yaml').write_text('registries: [docker.io]\n')
    monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'closed.yaml'))
    path = toys.recipe(tmp_path, image='http://%s/f.sif' % upstream.host)
    before, asked = path.read_bytes(), len(upstream.seen)
    code, _, err = easysif('pin', path.name)
    assert code == 1 and err.startswith("error: toy-1.0.eb: image is from '%s', which this site does not allow\n"
                                        % upstream.host), err
    assert (path.read_bytes(), len(upstream.seen)) == (before, asked)


def test_a_recipe_that_cannot_be_written_stays(easysif, upstream, tmp_path, monkeypatch):
    path = toys.recipe(tmp_path, image='docker://up.invalid/x/y:1')
    before = path.read_bytes()

    def refuse(*_):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(os, 'rename', refuse)
    code, _, err = easysif('pin', path.name)
    assert code == 1 and 'error: %s: cannot be written (Permission denied)\n' % path in err
    assert path.read_bytes() == before
