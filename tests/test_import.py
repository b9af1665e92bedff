# SPDX-License-Identifier: GPL-2.0-only
"""easysif import shpc: container.yaml files of all the kinds that SHPC 0.1.32 takes become recipes, and what has no
place in one is said. The hostile, the huge and the half make no file at all."""

import json
import os
import shlex

import pytest
import yaml

import harness
import toys
from easysif import check, recipe
from helpers_registry import LoopbackRegistry, tiny_layout, tiny_rootfs

ONE, TWO, THREE = ('sha256:' + digit * 64 for digit in '123')

#: as the registry of SHPC has those of BioContainers: no digest on the line of its tag, versions in no order
BIO = """\
url: https://biocontainers.pro/tools/toytools
maintainer: '@somebody'
description: A toy for everything.
latest:
  1.10--h2_1:
    {two}
tags:
  1.9--h1_0: {one}
  1.10--h1_0: {one}
  1.10--h2_1: {two}
  '2.0': {three}
docker: quay.io/biocontainers/toytools
filter:
- ^1.*
aliases:
  toytools: /usr/local/bin/toytools
  toy.pl: /usr/local/bin/toy.pl
  sort: /usr/local/bin/sort
""".format(one=ONE, two=TWO, three=THREE)

EXPECTED = """\
easyblock = 'ContainerImage'

name = 'toytools'
version = '1.10'
versionsuffix = '-singularity'

homepage = 'https://biocontainers.pro/tools/toytools'
description = "Toy for everything"

toolchain = SYSTEM

image = 'docker://quay.io/biocontainers/toytools:%(version)s--h2_1'
digest = '{two}'
commands = ['toytools', 'toy.pl']

# not tested: SHPC tells no work to do, so it is only started
sanity_check_commands = ['timeout 60 toytools </dev/null >/dev/null 2>&1; test $? -lt 126']

moduleclass = 'bio'
""".format(two=TWO)

LOST = ['aliases.sort: would hide that of the host',
        'sanity_check_commands: SHPC has no test; the one here starts a command, no more',
        'filter: of use to the registry of SHPC only', 'maintainer: of use to the registry of SHPC only']


@pytest.fixture
def imported(easysif, tmp_path):
    """Import a container.yaml with --dry-run: its values as they are read, and what was lost (function)."""
    def read(*options, **changes):
        values = dict({'docker': 'h.invalid/lab/toy', 'url': 'https://toy.invalid', 'maintainer': '@x',
                       'description': 'Toys', 'latest': {'1.0': ONE}, 'tags': {'1.0': ONE},
                       'aliases': {'toy': '/usr/bin/toy'}}, **changes)
        (tmp_path / 'container.yaml').write_text(
            yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        code, out, err = easysif('import', 'shpc', 'container.yaml', '--dry-run', '--json', *options)
        assert (code, err) == (0, ''), err
        (found,) = json.loads(out)
        path = tmp_path / os.path.basename(found['recipe'])
        path.write_text(found['text'])
        assert [str(one.error) for one in check.check([str(path)])] == []
        return recipe.read(str(path))[0], found['notes']
    return read


def test_a_recipe_of_biocontainers(easysif, tmp_path):
    (tmp_path / 'container.yaml').write_text(BIO)
    path = 'toytools-1.10-singularity.eb'
    code, out, err = easysif('import', 'shpc', 'container.yaml')
    assert (code, out) == (0, '%s: written, pinned to %s\n' % (path, TWO))
    assert err == ''.join('note: %s: %s\n' % (path, line) for line in LOST)
    assert (tmp_path / path).read_text() == EXPECTED
    why = 'SHPC tells no work to do, so it is only started'
    assert easysif('check', path) == (0, 'note: %s is not tested: %s\n1 recipe checked, all well\n' % (path, why), '')
    assert json.loads(easysif('check', '--json', path)[1])['untested'] == {path: why}
    assert easysif('import', 'shpc', 'container.yaml')[::2] == (
        1, 'error: %s: there is a file already\nhint: look at it, or write over it with --force\n' % path)
    assert easysif('import', 'shpc', 'container.yaml', '--force')[0] == 0


def test_a_tag_or_all_versions_in_a_tree(easysif, tmp_path):
    (tmp_path / 'container.yaml').write_text(BIO)
    code, out, err = easysif('import', 'shpc', 'container.yaml', '--tag', '1.9--h1_0', '--versionsuffix', '',
                             '--dry-run')
    assert (code, out) == (0, EXPECTED.replace("'1.10'", "'1.9'").replace('h2_1', 'h1_0').replace(TWO, ONE).replace(
        "versionsuffix = '-singularity'\n", ''))
    code, out, err = easysif('import', 'shpc', 'container.yaml', '--all-tags', '--output', 'easyconfigs', '--json')
    paths = ['easyconfigs/t/toytools/toytools-%s-singularity.eb' % version for version in ('1.9', '1.10', '2.0')]
    assert [(one['recipe'], one['digest']) for one in json.loads(out)] == list(zip(paths, (ONE, TWO, THREE)))
    assert json.loads(out)[1] == {'recipe': paths[1], 'written': True, 'digest': TWO, 'notes': LOST, 'text': EXPECTED,
                                  'source': 'container.yaml'}
    code, out, err = easysif('check', 'easyconfigs')
    assert code == 0 and out.endswith('\n3 recipes checked, all well\n') and out.count(' is not tested: ') == 3
    os.unlink(paths[0])
    code, out, err = easysif('import', 'shpc', 'container.yaml', '--all-tags', '--output', 'easyconfigs')
    assert code == 1 and out.startswith(paths[0]) and out.count('\n') == 1 and err.count('there is a file already') == 2
    code, out, err = easysif('import', 'shpc', 'container.yaml', '--tag', '1.90')
    assert (code, err) == (1, "error: container.yaml: has no tag '1.90'\n"
                              "  tags  1.9--h1_0, 1.10--h1_0, 1.10--h2_1, 2.0\nhint: take one of these\n")
    assert "hint: did you mean '1.9--h1_0'?" in easysif('import', 'shpc', 'container.yaml', '--tag', '1.9--h1')[2]


@pytest.mark.parametrize('aliases, commands, lost', [
    ({'a': 'a', 'b': '/bin/b'}, ['a', 'b'], []),
    ({'a': '/opt/a/bin/a'}, {'a': '/opt/a/bin/a'}, []),
    ({'a': '/bin/b', 'c': '/bin/c'}, {'a': '/bin/b', 'c': '/bin/c'}, []),
    ({'a': 'python -m a "b c"', '%(name)s x': 'z'}, {'a': 'python -m a "b c"'},
     ["aliases.%(name)s x: must not hold '%('"]),
    ([{'name': 'a', 'command': '/x/a', 'singularity_options': '--nv', 'singularity_script': 'x.sh', 'options': '--nv'},
      {'name': 'b', 'command': 'b'}], {'a': '/x/a', 'b': 'b'},
     ['aliases.a: %s has no place in a recipe' % key for key in ('options', 'singularity_options',
                                                                 'singularity_script')]),
    ({'a': 'sh -c "x $1 >y"', 'b': '`id`', 'c': 'c; d', 'd': '/bin/d'}, ['d'],
     ["aliases.a: is for a shell to read: 'sh -c \"x $1 >y\"'", "aliases.b: is for a shell to read: '`id`'",
      "aliases.c: is for a shell to read: 'c; d'"]),
    ({'../a': 'a', '-x': 'a', 'start-shell': 'a', 'b': '"', 'c': '', 'd': None, 'srun': '/bin/srun'}, None,
     ['aliases.-x: must be the name of a command', 'aliases.../a: must be the name of a command without a path',
      'aliases.b: must be a command inside', 'aliases.c: must be a', 'aliases.d: names no command',
      'aliases.srun: would hide that of the host', "aliases.start-shell: must not be 'start-shell'",
      'commands: there are none, so the module has start-shell only']),
    ({'a': '-rf', 'b': '--x y', 'c': '../../bin/x', 'd': './x', 'e': 'x/', 'f': '/bin/', 'g': '"" x', 'h': '/x/../y'},
     {'h': '/x/../y'},
     ["aliases.%s: must begin with the name of a command or its path inside the image, not with '%s'" % pair
      for pair in (('a', '-rf'), ('b', '--x'), ('c', '../../bin/x'), ('d', './x'), ('e', 'x/'), ('f', '/bin/'))]
     + ["aliases.g: must be a command inside the image, not '\"\" x'"]),
    ({'a': '(id)', 'b': '{x,y}', 'c': '!x', 'd': 'x #y', 'e': 'x ~/y', 'f': 'x ${HOME}'}, None,
     ["aliases.%s: is for a shell to read: '" % key for key in 'abcdef'] + ['commands: there are none']),
    (None, None, ['commands: there are none']),
    ({'cmd-%d' % number: '/bin/cmd-%d' % number for number in range(300)},
     sorted('cmd-%d' % number for number in range(300)), []),
])
def test_aliases_become_commands(imported, aliases, commands, lost):
    values, notes = imported(aliases=aliases)
    assert values.get('commands') == commands
    told = [one for one in notes if one.startswith(('aliases', 'commands'))]
    assert len(told) == len(lost) and all(map(str.startswith, told, lost)), told
    if not commands:
        assert values['sanity_check_commands'][0].startswith('timeout 60 start-shell -c : ')


def test_environment_features_and_scripts(imported):
    values, notes = imported(
        env={'OMP': '1', 'FONTS': '/a b', 'PATHS': '$HOME/x', 'bad-name': '1', 'T': '%(name)s', 'CMD': '`id`'},
        features={'gpu': True, 'x11': True, 'home': True, 'other': True, 'none': None, 'off': False},
        docker_scripts={'a': 'a.sh'}, singularity_scripts={'b': 'b.sh'}, test='test.sh')
    assert values['container_env'] == {'FONTS': '/a b', 'OMP': '1', 'T': '%%(name)s'}
    assert values['needs'] == ['nvidia-gpu', 'x11?']
    assert notes == [
        'features.gpu: taken for a GPU of NVIDIA; for one of AMD write amd-gpu', 'features.other: not known here',
        "env.CMD: '`id`' is for a shell to read", "env.PATHS: '$HOME/x' is for a shell to read",
        'env.bad-name: must be the name of a variable',
        'sanity_check_commands: test.sh is a script, and recipes have no shell; the one here starts a command, no more',
        'maintainer: of use to the registry of SHPC only', 'docker_scripts: for docker',
        'singularity_scripts: b is a script, and recipes have no shell']


@pytest.mark.parametrize('changes, image, digest', [
    ({}, 'docker://h.invalid/lab/toy:%(version)s', ONE),
    ({'docker': None, 'oras': 'ghcr.io/lab/toy'}, 'oras://ghcr.io/lab/toy:%(version)s', ONE),
    ({'oras': 'ghcr.io/lab/toy'}, 'oras://ghcr.io/lab/toy:%(version)s', ONE),
    ({'latest': {'1.0': 'unknown'}, 'tags': {}}, 'docker://h.invalid/lab/toy:%(version)s', None),
    ({'docker': None, 'path': 'sha256:%s.sif' % ('1' * 64)}, '%(name)s-%(version)s.sif', ONE),
    ({'docker': None, 'gh': 'lab/toy', 'latest': {'salad': '0.0.1'}},
     'https://github.com/lab/toy/releases/download/0.0.1/lab-toy.%(version)s.sif', None),
])
def test_where_the_image_comes_from(imported, tmp_path, monkeypatch, changes, image, digest):
    (tmp_path / 'toy').mkdir()
    monkeypatch.chdir('toy')  # an image in a file is called as the directory is
    (tmp_path / 'toy' / 'container.yaml').symlink_to('../container.yaml')
    values, notes = imported(**changes)
    assert (values['name'], values['image'], values.get('digest')) == ('toy', image, digest)
    assert ("digest: 'unknown' is none" in notes) == (changes.get('tags') == {})
    assert ('image: cp -- %s toy-1.0.sif, here or into the image store' % shlex.quote('sha256:%s.sif' % ('1' * 64))
            in notes) == ('path' in changes)
    comment = '# not pinned: no digest in container.yaml\n'
    assert (comment in (tmp_path / ('toy-%s-singularity.eb' % values['version'])).read_text()) == (digest is None)


@pytest.mark.parametrize('text, description', [
    ('A  the tool.\n\nFor all. ', 'Tool. For all'), ('toy.', 'Software of the registry of SHPC'),
    ('...', 'Software of the registry of SHPC'), ('x ]==] \x1b[31m $(id) %(name)s', 'X  ] [31m $(id) %%(name)s')])
def test_any_text_describes_it(imported, text, description):
    values, _ = imported(description=text)
    assert values['description'] == description


@pytest.mark.parametrize('url', ['', None, 'www.toy.invalid', 'https://x/]==]', 'javascript:x'])
def test_without_a_web_address_there_is_that_of_the_registry(imported, url):
    values, notes = imported(url=url)
    assert values['homepage'] == 'https://github.com/singularityhub/shpc-registry'
    assert [one for one in notes if one.startswith('url')] == (["url: '%s' is no web address" % url] if url else [])


def test_a_tag_may_have_others_of_some_values(imported, easysif, tmp_path):
    changes = dict(tags={'1.0': ONE, '2.0': TWO}, overrides={'2.0': 'two.yaml'})
    (tmp_path / 'two.yaml').write_text('aliases: {toy: /opt/toy}\nenv: {A: b}\ndescription: Newer toys\nurl: x\n'
                                       'docker_script: d.sh\nsingularity_script: s.sh\n')
    assert imported(**changes)[0]['commands'] == ['toy']
    values, notes = imported('--tag', '2.0', **changes)
    assert values['commands'] == {'toy': '/opt/toy'} and values['container_env'] == {'A': 'b'}
    assert values['description'] == 'Newer toys' and values['homepage'] == 'https://toy.invalid'
    assert notes[0] == 'url: an override, two.yaml, cannot have it' and 'docker_script: for docker' in notes
    assert 'singularity_scripts: s.sh is a script, and recipes have no shell' in notes
    command = ['import', 'shpc', 'container.yaml', '--tag', '2.0', '--dry-run']
    for text, message in [
            ('', 'two.yaml: must be a mapping, not nothing\nhint: write KEY: VALUE, with keys out of aliases, env'),
            ('[a]\n', "two.yaml: must be a mapping, not the list ['a']"),
            ('aliases: [{name: a}]\n', 'two.yaml: aliases[0].command is missing'),
            ('aliases: {toy: /opt/to', 'two.yaml:1: not valid YAML'),
            ('aliases:\n  toy: /opt/to', 'two.yaml: ends within a line'),
            ('a: [', 'two.yaml:1: not valid YAML')]:
        (tmp_path / 'two.yaml').write_text(text)
        code, out, err = easysif(*command)
        assert (code, out) == (1, '') and err.startswith('error: ' + message), err
    (tmp_path / 'two.yaml').unlink()
    assert easysif(*command)[2] == 'error: two.yaml: cannot be read (No such file or directory)\n'
    for name in ('../two.yaml', '/etc/passwd', 'a/b.yaml'):
        (tmp_path / 'container.yaml').write_text(BIO + 'overrides: {"2.0": %s}\n' % name)
        assert easysif(*command)[2] == (
            "error: container.yaml:19: must be the name of a file beside it, not '%s'\n"
            'hint: copy that file beside it, and write its name alone\n' % name)


BOMB = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    '%s: &%s [%s]\n' % (key, key, ', '.join(['*' + last] * 9)) for last, key in zip('abcdefgh', 'bcdefghi'))


@pytest.mark.parametrize('content, message', [
    (b'', 'container.yaml: the file must be a mapping, as the container.yaml of SHPC\'s registry are, not nothing'),
    (b'- a\n', 'container.yaml: the file must be a mapping'),
    (b'docker: [\n', 'container.yaml:2: not valid YAML: '),
    (BIO[:150].encode(), 'container.yaml: '),
    (BIO.replace('url: ', 'docker: x\nurl: ').encode(), "container.yaml:13: 'docker' is there twice, first in line 1"),
    (BIO.replace('maintainer: ', 'maintaner: ').encode(), "container.yaml:2: unknown key 'maintaner'\n  allowed  "),
    (BIO.replace('latest:', 'oldest:').encode(), "container.yaml:4: unknown key 'oldest'"),
    (BIO.replace('description: A toy', 'description: [A toy]\nx: A').encode(), 'container.yaml:3: description must be'),
    (BIO.replace('docker: quay.io/biocontainers/toytools', 'filter: []').encode(), 'container.yaml:'),
    (BIO.replace('docker: ', 'docker_script: ').encode(),
     'container.yaml: names no image\n  known  oras, gh, docker, path\nhint: write docker: HOST/NAME'),
    (BIO.replace('1.10--h2_1', '../1.10').encode(), 'container.yaml:10: version of the recipe would be'),
    (BIO.replace('1.10--h2_1', '1.10--$(id)').encode(), "container.yaml: toytools-1.10-singularity.eb:12: image 'dock"),
    (BIO.replace('toytools\nf', '"tóys; touch evil"\nf').encode(), 'container.yaml:12: name of the recipe would be'),
    (BIO.replace('quay.io/', 'me:s3cret@quay.io/').encode(),
     'container.yaml: toytools-1.'),
    (b'\x7fELF\x00\x01\x02' + bytes(range(256)) * 9, 'container.yaml: not valid YAML: '),
    (b'!!python/object/apply:os.system ["touch evil"]\n', 'container.yaml'),
    (b'x: ' + b'[' * 100000, 'container.yaml: not valid YAML: nested too deeply'),
    (BOMB.encode(), 'container.yaml: holds more than 10000 values, aliases counted as what they stand for'),
    (b'a: b\n' * (1 << 20), 'container.yaml: is larger than 4194304 bytes'),
    (b'? [a]\n: b\n', 'container.yaml:1: not valid YAML: '),
    (b'a: &a\n  b: *a\n', 'container.yaml:1: not valid YAML: found unconstructable'),
], ids=range(21))
def test_what_is_none_makes_no_file(easysif, tmp_path, content, message):
    (tmp_path / 'container.yaml').write_bytes(content)
    (tmp_path / 'good.yaml').write_text(BIO.replace('toytools', 'good'))
    for options in ([], ['--all-tags']):
        code, out, err = easysif('import', 'shpc', 'container.yaml', 'good.yaml', '--force', '--output', 'out',
                                 *options)
        assert code == 1 and err.count('\nerror: ') <= 3 and len(err) < 4000 and 's3cret' not in err
        assert 'error: ' + message in err, err
        assert all(name.startswith('good-') for name in os.listdir('out')) and 'out/good-1.10' in out  # one hides none
    assert not (tmp_path / 'evil').exists()


def test_killed_at_any_moment_it_leaves_whole_recipes(easysif, tmp_path):
    (tmp_path / 'container.yaml').write_text(BIO)
    words = ['import', 'shpc', 'container.yaml', '--all-tags', '--output', 'easyconfigs']
    for call, number in (('open', 1), ('fsync', 2), ('link', 1), ('link', 2), ('unlink', 1)):
        assert harness.killed(call, number, lambda: easysif(*words)), (call, number)
        there = list((tmp_path / 'easyconfigs').rglob('*.eb'))
        assert [str(one.error) for one in check.check(map(str, there))] == []
        harness.age(tmp_path / 'easyconfigs')
    assert easysif(*words, '--force')[0] == 0
    assert sorted(toys.files(tmp_path / 'easyconfigs')) == sorted(
        't/toytools/toytools-%s-singularity.eb' % version for version in ('1.9', '1.10', '2.0'))


def test_of_a_file_that_is_cut_off_within_a_line_nothing_is_made(easysif, tmp_path):
    cuts = [at for at in range(1, len(BIO)) if BIO[at - 1] != '\n']
    for at in cuts[::29] + cuts[-3:]:
        (tmp_path / 'container.yaml').write_text(BIO[:at])
        code, out, err = easysif('import', 'shpc', 'container.yaml', '--output', 'out')
        assert (code, out) == (1, '') and err.startswith('error: container.yaml:'), (at, err)
        assert not (tmp_path / 'out').exists()
    assert err == ('error: container.yaml: ends within a line, as a file of which only a part was fetched\n'
                   'hint: fetch it again; if this is all of it: echo >> container.yaml\n')


@pytest.mark.parametrize('encoding, told', [
    ('utf-16', None), ('utf-8-sig', None), ('utf-16-le', 'unacceptable character #x0000'),
    ('utf-16-be', 'unacceptable character #x0000'), ('utf-32', 'unacceptable character #x0000')])
def test_a_file_in_another_encoding_is_read_as_yaml_says_or_refused_with_the_reason(easysif, tmp_path, encoding, told):
    (tmp_path / 'container.yaml').write_bytes(BIO.encode(encoding))
    code, out, err = easysif('import', 'shpc', 'container.yaml', '--dry-run')
    assert (code, out) == ((1, '') if told else (0, EXPECTED))
    assert told is None or err.startswith('error: container.yaml: not valid YAML: ' + told), err


@pytest.mark.parametrize('suffix', ['/../../evil', 'a/b', '-x y', '$(id)', 'x' * 65])
def test_a_suffix_that_is_none_is_said_before_anything_else(easysif, tmp_path, suffix):
    (tmp_path / 'container.yaml').write_text(BIO)
    told = "error: --versionsuffix: must be text of letters, digits and . _ + -, not '%s'\n" \
           'hint: write --versionsuffix=-singularity, or leave it out\n' % suffix
    for words in (['import', 'shpc', 'container.yaml', '--output', 'easyconfigs'],
                  ['new', 'toy', '1', '--image', 'docker://up.invalid/toy:1', '--output', 'easyconfigs']):
        assert easysif(*words, '--versionsuffix=' + suffix) == (1, '', told)
    assert sorted(os.listdir(tmp_path)) == ['container.yaml', 'home']


@pytest.mark.parametrize('make, message', [
    (lambda path: os.symlink('/dev/zero', path), 'is larger than 4194304 bytes'),
    (os.mkdir, 'cannot be read (Is a directory)'), (os.mkfifo, 'cannot be read (it is a named pipe)'),
    (lambda path: None, 'cannot be read (No such file or directory)')])
def test_what_is_no_file_at_all_is_said(easysif, make, message):
    make('container.yaml')
    assert easysif('import', 'shpc', 'container.yaml') == (1, '', 'error: container.yaml: %s\n' % message)


@pytest.mark.e2e
def test_what_was_imported_installs_and_runs(eb, easysif, shell, site_file, tmp_path):
    layout = tiny_layout(tmp_path / 'layout', tiny_rootfs(tmp_path / 'rootfs'))
    with LoopbackRegistry(tmp_path / 'registry') as running:
        digest = running.push(layout, 'biocontainers/toy:1.0--h1_0')
        (tmp_path / 'container.yaml').write_text(yaml.safe_dump({
            'docker': 'quay.io/biocontainers/toy', 'url': 'https://toy.invalid', 'maintainer': '@x',
            'description': 'Toys', 'latest': {'1.0--h1_0': digest}, 'tags': {'1.0--h1_0': digest},
            'env': {'GREETING': "it's $5".replace('$', ''), 'T': '%(name)s'},
            'aliases': {'toy-cat': '/bin/cat', 'toy-env': '/bin/env', 'cat': '/bin/cat'}}))
        assert easysif('import', 'shpc', 'container.yaml')[0] == easysif('check', 'toy-1.0-singularity.eb')[0] == 0
        eb(tmp_path / 'toy-1.0-singularity.eb', site=site_file(registry_mirrors={'quay.io': [running.url]}))
    assert shell('module load toy; echo hello | toy-cat; toy-env | grep -e ^GREETING= -e ^T=').stdout == (
        "hello\nGREETING=it's 5\nT=%(name)s\n")
