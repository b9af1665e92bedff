# SPDX-License-Identifier: GPL-2.0-only
"""easysif bump: the next version of a recipe, letter by letter the same but for what has to be another."""

import json
import os
from pathlib import Path

import pytest

import harness
from easysif.images import registry, sources
from helpers_registry import MANIFEST, digest_of, stub
from test_registry import image

OLD = 'sha256:' + 'a' * 64
RECIPE = """\
# written by hand, é
easyblock = 'ContainerImage'

name = "x"
version = "1.2"   # the last of the old
versionsuffix = '-singularity'
homepage = 'https://x.invalid'
description = "Does x (as of 1.2, not 11.2 or 1.22)"

toolchain = SYSTEM
image = (
    "docker://up.invalid/x/y:"  # split
    '%(version)s--h1_0'
)
digest = '{old}'  # what it was
commands = [ 'x' ]

sanity_check_commands = ['x do']

moduleclass = 'tools'
""".format(old=OLD)
NEW = 'x-1.3-singularity.eb'


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A registry for up.invalid that has x/y in some versions, and tells of its tags in pages of two (stub)."""
    monkeypatch.setattr(sources, 'WAITS', ())
    manifest, answers = image()
    tags = ['1.2--h1_0', '1.3--h1_0', '1.30--h1_0', '2.0--h7_9', '2.0--h7_10', '2.0.1--h1_0', 'latest', 'v2.0']
    for tag in tags:
        answers['/v2/x/y/manifests/' + tag] = answers['/v2/x/y/manifests/1']

    def page(handler):
        first = int(handler.path.partition('?at=')[2] or 0)
        more = {'Link': '</v2/x/y/tags/list?at=%d>; rel="next"' % (first + 2)} if first + 2 < len(tags) else {}
        return 200, dict({'Content-Type': 'application/json'}, **more), json.dumps(
            {'name': 'x/y', 'tags': tags[first:first + 2]}).encode()

    answers['/v2/x/y/tags/list'] = page
    with stub(answers) as running:
        (tmp_path / 'site.yaml').write_text('registry_mirrors: {up.invalid: ["http://%s"]}\n' % running.host)
        monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
        running.digest, running.media_type = digest_of(manifest), MANIFEST
        yield running


@pytest.fixture
def recipe(tmp_path):
    """A recipe of version 1.2, with some texts of it changed (function)."""
    def write(changes=(), path='x-1.2-singularity.eb'):
        text = RECIPE
        for old, new in dict(changes).items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
        return path
    return write


STILL = 'note: %s: line 8 still names 1.2: description = "Does x (as of 1.2, not 11.2 or 1.22)"\n' % NEW


def test_only_version_and_digest_change(easysif, upstream, recipe, tmp_path):
    path = recipe()
    assert easysif('bump', path, '1.3') == (0, '%s: written, pinned to %s\n' % (NEW, upstream.digest), STILL)
    assert (tmp_path / NEW).read_text() == RECIPE.replace('version = "1.2"', 'version = "1.3"').replace(
        OLD, upstream.digest)
    assert (tmp_path / path).read_text() == RECIPE


def test_what_it_says_for_programs_and_shows_without_writing(easysif, upstream, recipe, tmp_path):
    path = recipe({'\n': '\r\n'}, 'easyconfigs/z/x-1.2-singularity.eb')
    expected = (tmp_path / path).read_bytes().decode().replace('"1.2"', '"1.3"').replace(OLD, upstream.digest)
    target = 'easyconfigs/x/x/' + NEW
    found = json.loads(easysif('bump', path, '1.3', '--dry-run', '--json')[1])
    assert found == {'recipe': target, 'written': False, 'digest': upstream.digest, 'text': expected,
                     'notes': [STILL.partition('.eb: ')[2].strip()]}
    assert not os.path.exists('easyconfigs/x')
    assert easysif('bump', path, '1.3')[0] == 0
    assert (tmp_path / target).read_bytes().decode() == expected
    before = len(upstream.seen)
    assert easysif('bump', path, '1.3') == (
        1, '', 'error: %s: there is a file already\nhint: look at it, or write over it with --force\n' % target)
    assert len(upstream.seen) == before  # nobody was asked for nothing
    assert easysif('bump', path, '1.3', '--dry-run')[0] == easysif('bump', path, '1.3', '--force')[0] == 0


@pytest.mark.parametrize('changes, expected', [
    ({"digest = '%s'  # what it was\n" % OLD: ''}, {'\n)\n': "\n)\ndigest = 'NEW'\n"}),
    ({"digest = '%s'  # what it was\n" % OLD: '', '\n)\n': '\n)  # not pinned: no network\n'},
     {'\n)  # not pinned: no network\n': "\n)\ndigest = 'NEW'\n"}),
    ({"digest = '%s'  # what it was\n" % OLD: '# not pinned: no network\n'},
     {'\n)\n# not pinned: no network\n': "\n)\ndigest = 'NEW'\n"}),
    ({"h1_0'\n": "h1_0'\n    '@%s'\n" % OLD}, {OLD: 'NEW'}),
    *[({"digest = '%s'  # what it was\n" % OLD: "%s = ['a']\nchecksums = ['%s']\n" % (others, OLD[7:])},
       {'\n)\n': "\n)\ndigest = 'NEW'\n"}) for others in ('sources', 'patches')],
])
def test_the_new_digest_is_where_the_old_one_or_an_excuse_was(easysif, upstream, recipe, tmp_path, changes, expected):
    path = recipe(changes)
    text = (tmp_path / path).read_text().replace('"1.2"', '"1.3"')
    for old, new in expected.items():
        assert old in text
        text = text.replace(old, new.replace('NEW', upstream.digest))
    assert easysif('bump', path, '1.3')[0] == 0
    assert (tmp_path / NEW).read_text() == text


def test_without_a_network_there_is_no_digest_and_nobody_is_asked(easysif, upstream, recipe, tmp_path):
    path = recipe({"h1_0'\n": "h1_0@%s'\n" % OLD})
    assert easysif('bump', path, '9.9', '--offline', '--force')[:2] == (0, 'x-9.9-singularity.eb: written\n')
    text = (tmp_path / 'x-9.9-singularity.eb').read_text()
    assert 'sha256' not in text and 'digest' not in text and "'%(version)s--h1_0'\n)\ncommands" in text
    assert upstream.seen == []
    path = recipe(path='easyconfigs/x/x/x-1.2-singularity.eb')
    assert easysif('bump', path, '9.9', '--offline')[0] == 0  # `check` wants a digest there; pin writes it
    code, out, err = easysif('check', 'easyconfigs/x/x/x-9.9-singularity.eb')
    assert code == 1 and err.count('error: ') == 1 and 'names no digest' in err


def test_a_recipe_that_is_none_of_the_best_has_versions_too(easysif, upstream, recipe, tmp_path):
    path = recipe({'Does x (as': 'A thing. (as', "'x do'": "'x --version'"})
    assert easysif('bump', path, '1.3')[0] == 0 and easysif('check', NEW)[0] == 1


def test_where_there_is_no_network_that_is_said(easysif, upstream, recipe, tmp_path):
    (tmp_path / 'site.yaml').write_text('registry_mirrors: {up.invalid: ["http://127.0.0.1:9"]}\n')
    code, out, err = easysif('bump', recipe(), '1.3')
    assert (code, out) == (3, '') and 'tags' not in err
    assert err.startswith("error: x-1.2-singularity.eb: image 'docker://up.invalid/x/y:1.3--h1_0' is not to be had\n")
    assert '\nhint: check the network: curl -I https://up.invalid/v2/' in err and not (tmp_path / NEW).exists()


def test_an_image_that_is_named_follows_the_version_as_well(easysif, upstream, recipe, tmp_path):
    code, out, err = easysif('bump', recipe(), '2.0', '--image', 'docker://up.invalid/x/y:2.0--h7_10')
    assert (code, out) == (0, 'x-2.0-singularity.eb: written, pinned to %s\n' % upstream.digest)
    assert "\nimage = 'docker://up.invalid/x/y:%(version)s--h7_10'\n" in \
        (tmp_path / 'x-2.0-singularity.eb').read_text().replace("(\n    '", "'").replace("'\n)", "'")


@pytest.mark.parametrize('tag', ['', ':1.3--h1_0'])
def test_a_digest_that_is_named_is_the_one_that_is_written(easysif, upstream, recipe, tmp_path, tag):
    mine = 'sha256:' + '7' * 64
    code, out, err = easysif('bump', recipe(), '1.3', '--image', 'docker://up.invalid/x/y%s@%s' % (tag, mine),
                             '--offline')
    assert (code, out) == (0, '%s: written, pinned to %s\n' % (NEW, mine))
    text = (tmp_path / NEW).read_text()
    assert text.count(mine) == 2 and OLD not in text and not upstream.seen


def test_a_suffix_that_names_the_old_version_is_told(easysif, recipe):
    path = recipe({"-singularity'": "-lib-1.2'"}, path='x-1.2-lib-1.2.eb')
    assert "still names 1.2: versionsuffix = '-lib-1.2'\n" in easysif('bump', path, '1.3', '--offline')[2]


def test_where_there_is_no_such_image_the_tags_of_that_version_are_told(easysif, upstream, recipe, tmp_path):
    path = recipe()
    code, out, err = easysif('bump', path, '2.0')
    assert (code, out) == (3, '')
    lines = err.splitlines()
    assert lines[0] == "error: x-1.2-singularity.eb: image 'docker://up.invalid/x/y:2.0--h1_0' is not to be had"
    assert lines[1].endswith('no such image (HTTP 404)')
    assert [line.split(None, 1) for line in lines[3:]] == [
        ['tags', 'v2.0, 2.0--h7_9, 2.0--h7_10'],
        ['hint:', 'take the last: easysif bump x-1.2-singularity.eb 2.0 --image docker://up.invalid/x/y:2.0--h7_10']]
    code, out, err = easysif('bump', path, '7')
    assert code == 3 and '\nhint: choose another version, or name the image with --image\n' in err
    assert '  1.2--h1_0, 1.3--h1_0, 1.30--h1_0, 2.0--h7_9, 2.0--h7_10, 2.0.1--h1_0, latest, v2.0\n' in err
    upstream.answers['/v2/x/y/tags/list'] = (200, {}, b'{"tags": {"a": 1}}')
    assert '  none\n' in easysif('bump', path, '7')[2]
    upstream.answers['/v2/x/y/tags/list'] = (403, {}, b'')
    code, out, err = easysif('bump', path, '7')
    assert code == 3 and 'tags' not in err and "is not to be had\n" in err
    assert os.listdir(tmp_path).count('x-1.2-singularity.eb') == 1 and not list(tmp_path.glob('x-[27]*'))


def test_a_registry_whose_pages_never_end_is_left_at_some_time(easysif, upstream, recipe, monkeypatch):
    monkeypatch.setattr(registry, 'MOST_PAGES', 5)
    upstream.answers['/v2/x/y/tags/list'] = (200, {'Link': '<http://elsewhere.invalid/v2/x/y/tags/list>;rel=next'},
                                             b'{"tags": ["7.0"]}')
    easysif('bump', recipe(), '7')
    assert len([one for one, _ in upstream.seen if 'tags' in one]) == 5


@pytest.mark.parametrize('changes, words, message', [
    ({}, ['1.2'], 'x-1.2-singularity.eb: has this version already\n  version  1.2\n'
                  'hint: easysif pin x-1.2-singularity.eb, if its image was pushed again\n'),
    ({'%(version)s--h1_0': 'stable'}, ['1.3'],
     'x-1.2-singularity.eb: image does not follow the version\n  image  docker://up.invalid/x/y:stable\n'
     'hint: name the new one: easysif bump x-1.2-singularity.eb 1.3 --image REFERENCE\n'),
    ({'"docker://up.invalid/x/y:"  # split': "'docker://up.invalid/x/y'", "'%(version)s--h1_0'": "'@%s'" % OLD},
     ['1.3'], 'x-1.2-singularity.eb: image does not follow the version\n'),
    ({}, ['../1'],
     "x-1.2-singularity.eb:5: version must be text of letters, digits and . _ + -, not the text '../1'\n"),
    ({}, ['a"b'], 'x-1.2-singularity.eb:5: version must be text of letters, digits and . _ + -'),
    ({}, ['1.3', '--image', 'nothing'], "x-1.2-singularity.eb:11: image must be a reference"),
    ({}, ['1.3', '--image', 'docker://me:s3cret@up.invalid/x/y:1.3'],
     'x-1.2-singularity.eb:11: image holds a login, which a recipe must not\n  host  up.invalid\n'),
    ({}, ['1.3', '--image', 'gone.sif'], 'x-1.2-singularity.eb: image file not found: gone.sif\n  searched  '),
    ({'name = "x"': 'name = f"x"'}, ['1.3'], 'x-1.2-singularity.eb:4: name must be written out'),
])
def test_what_cannot_be_the_next_version_is_said(easysif, upstream, recipe, tmp_path, changes, words, message):
    path = recipe(changes)
    code, out, err = easysif('bump', path, *words)
    assert (code, out) == (1, '') and err.startswith('error: ' + message) and 's3cret' not in err, err
    assert sorted(os.listdir(tmp_path)) == ['home', 'site.yaml', path]


def test_recipes_are_named_as_everywhere(easysif, upstream, tmp_path):
    (tmp_path / 'empty').mkdir()
    code, out, err = easysif('bump', 'SAMtools-1.21-singularity', '1.22', '--dry-run', '--offline')
    assert (code, "version = '1.22'" in out) == (0, True)
    assert easysif('bump', 'nosuch', '2')[2].startswith('error: nosuch: there is no such recipe\n')
    assert 'empty: cannot be read (Is a directory)' in easysif('bump', 'empty', '2')[2]


def test_image_files_are_looked_for_where_a_recipe_finds_them(easysif, recipe, tmp_path):
    path = recipe({'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.sif'})
    (tmp_path / 'x-1.3.sif').write_bytes(b'3')
    (tmp_path / 'there').mkdir()
    (tmp_path / 'there' / 'x-1.4.sif').write_bytes(b'4')
    assert digest_of(b'3') in easysif('bump', path, '1.3', '--dry-run')[1]
    assert digest_of(b'4') in easysif('bump', path, '1.4', '--dry-run', '--sourcepath', 'nowhere:there')[1]
    code, out, err = easysif('bump', path, '1.4')
    assert (code, err) == (1, 'error: x-1.2-singularity.eb: image file not found: x-1.4.sif\n  searched  %s\n'
                              'hint: name its directory with --sourcepath DIR\n' % tmp_path)


@pytest.mark.parametrize('sums, stay, notes', [
    ("['%s']" % OLD[7:], False, ['checksums were those of the image of 1.2, and are left out']),
    ("[\n    ('size', 4),\n]\nsources = []", False, ['checksums were those of the image of 1.2, and are left out']),
    ("[{'x-1.2.sif': '%s'}]" % OLD[7:], True, ['checksums has none of x-1.3.sif: write it']),
    ("[{'x-1.2.sif': '%s', 'x-1.3.sif': '%s'}]" % (OLD[7:], OLD[7:]), True, []),
    ("[{'x-%%(version)s.sif': '%s'}]" % OLD[7:], True, []),
    ("['%s']\npatches = ['a.patch']" % OLD[7:], True, []), ("['%s']\nsources = ['a']" % OLD[7:], True, []),
])
def test_no_checksum_goes_but_that_of_the_old_image(easysif, recipe, tmp_path, sums, stay, notes):
    path = recipe({'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.sif',
                   "digest = '%s'  # what it was\n" % OLD: 'checksums = %s\n' % sums})
    (tmp_path / 'x-1.3.sif').write_bytes(b'3')
    told = json.loads(easysif('bump', path, '1.3', '--dry-run', '--offline', '--json')[1])
    assert ('checksums = %s\n' % sums in told['text']) is stay
    assert [one for one in told['notes'] if 'checksums' in one and 'still names' not in one] == notes
    told = json.loads(easysif('bump', path, '1.3', '--dry-run', '--json')[1])  # the digest stands for a lost checksum
    assert [one for one in told['notes'] if 'checksums' in one and 'still names' not in one] == notes * stay


def test_a_definition_file_of_the_old_version_is_copied_and_one_of_all_stays(easysif, recipe, tmp_path):
    changes = {'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.def',
               "digest = '%s'  # what it was\n" % OLD: "checksums = ['%s']\n" % ('a' * 64)}
    path = recipe(changes)
    (tmp_path / 'x-1.2.def').write_text('Bootstrap: docker\nFrom: a:1.2\n')
    code, out, err = easysif('bump', path, '1.3')
    assert (code, out) == (0, NEW + ': written\n')
    assert 'note: %s: x-1.3.def is a copy of x-1.2.def: see what has to change in it\n' % NEW in err
    assert (tmp_path / 'x-1.3.def').read_text() == (tmp_path / 'x-1.2.def').read_text()
    assert "checksums = ['%s']" % ('a' * 64) in (tmp_path / NEW).read_text()
    (tmp_path / 'x-1.3.def').write_text('mine')
    assert easysif('bump', path, '1.3', '--force')[0] == 0 and (tmp_path / 'x-1.3.def').read_text() == 'mine'
    assert easysif('bump', path, '1.4', '--dry-run')[0] == 0 and not (tmp_path / 'x-1.4.def').exists()
    os.unlink('x-1.2.def')
    assert 'x-1.4.def is not there yet: write it\n' in easysif('bump', path, '1.4')[2]
    code, out, err = easysif('bump', path, '1.5', '--image', 'all.def')
    assert code == 0 and 'checksums' not in (tmp_path / 'x-1.5-singularity.eb').read_text()
    (tmp_path / 'all.def').write_text('')
    code, out, err = easysif('bump', 'x-1.5-singularity.eb', '1.6')
    assert code == 0 and '.def' not in err and sorted(tmp_path.glob('*.def')) == [tmp_path / 'all.def',
                                                                                  tmp_path / 'x-1.3.def']


def test_a_definition_file_goes_where_the_recipe_goes(easysif, recipe, tmp_path):
    path = recipe({'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.def',
                   "digest = '%s'  # what it was\n" % OLD: ''}, path='easyconfigs/wrong/x-1.2-singularity.eb')
    beside = tmp_path / 'easyconfigs/wrong/x-1.2.def'
    beside.write_bytes(b'Bootstrap: docker\r\nFrom: a:1.2  # \xe9\n')
    assert easysif('bump', path, '1.3') == (1, '', (
        'error: easyconfigs/wrong/x-1.2.def: is no text in UTF-8\n'
        'hint: see what it is: file easyconfigs/wrong/x-1.2.def\n'))
    assert not list(tmp_path.rglob('*1.3*'))
    beside.write_bytes(b'Bootstrap: docker\r\nFrom: a:1.2\n')
    assert easysif('bump', path, '1.3')[0] == 0
    assert {one.relative_to(tmp_path).as_posix() for one in tmp_path.rglob('*1.3*')} == {
        'easyconfigs/x/x/x-1.3.def', 'easyconfigs/x/x/x-1.3-singularity.eb'}
    assert (tmp_path / 'easyconfigs/x/x/x-1.3.def').read_bytes() == beside.read_bytes()


def test_a_recipe_that_cannot_be_written_leaves_no_definition_file(easysif, recipe, tmp_path, monkeypatch):
    path = recipe({'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.def',
                   "digest = '%s'  # what it was\n" % OLD: ''})
    (tmp_path / 'x-1.2.def').write_text('')

    link = os.link

    def full(source, target):
        if target.endswith('.eb'):
            raise OSError(28, 'No space left on device')
        link(source, target)

    for call in ('link', 'rename'):
        monkeypatch.setattr(os, call, full)
    code, out, err = easysif('bump', path, '1.3')
    assert code == 1 and 'cannot be written (No space left on device)' in err
    assert not list(Path('.').glob('*1.3*'))
    os.makedirs('easyconfigs')
    for name in (path, 'x-1.2.def'):
        (tmp_path / name).replace(tmp_path / 'easyconfigs' / name)
    assert easysif('bump', 'easyconfigs/' + path, '1.3')[0] == 1
    assert sorted(os.listdir('easyconfigs')) == sorted(['x-1.2.def', path])  # and no directories x/x


def test_killed_at_any_moment_it_leaves_a_whole_recipe_or_none(easysif, recipe, tmp_path):
    path = recipe({'"docker://up.invalid/x/y:"  # split': "'x-'", '%(version)s--h1_0': '%(version)s.def',
                   "digest = '%s'  # what it was\n" % OLD: ''})
    (tmp_path / 'x-1.2.def').write_text('Bootstrap: docker\nFrom: a\n')
    words = ['bump', path, '1.3']
    for call, number in (('open', 1), ('fsync', 1), ('fsync', 2), ('link', 1)):
        assert harness.killed(call, number, lambda: easysif(*words))
        assert not (tmp_path / NEW).exists()
        copies = [one.read_text() for one in tmp_path.glob('x-1.3.def')]
        assert copies in ([], ['Bootstrap: docker\nFrom: a\n'])
        harness.age(tmp_path)
    assert easysif(*words)[0] == 0
    assert {name for name in os.listdir(tmp_path) if '1.3' in name} == {NEW, 'x-1.3.def'}


def test_a_recipe_without_an_image_has_versions_too(easysif, recipe, tmp_path):
    begin, end = RECIPE.index('image = ('), RECIPE.index('commands = ')
    path = recipe({"'ContainerImage'": "'ContainerBindings'", RECIPE[begin:end]: "needs = ['mpi']\nchecksums = ['a']\n",
                   "commands = [ 'x' ]\n": ''})
    assert easysif('bump', path, '1.3', '--image', 'docker://up.invalid/x/y:1.3') == (
        1, '', 'error: %s: has no image, so it cannot get another one\nhint: leave out --image\n' % path)
    assert easysif('bump', path, '1.3')[:2] == (0, NEW + ': written\n')
