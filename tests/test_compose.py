# SPDX-License-Identifier: GPL-2.0-only
"""The text of a recipe that is written for people: read back it is what was meant, and it is written whole or not."""

import multiprocessing
import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hostile
import toys
from easysif import recipe, rules
from easysif.authoring import compose
from easysif.errors import EasySIFError, SeveralErrors

VALUES = {'easyblock': 'ContainerImage', 'name': 'toy', 'version': '1.0', 'homepage': 'https://toy.invalid',
          'description': 'Toys', 'image': 'toy.sif', 'sanity_check_commands': ['toy play'], 'moduleclass': 'tools'}


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    return tmp_path_factory.mktemp('compose')


@given(values=st.fixed_dictionaries(
    {}, optional={key: hostile.GOOD_RECIPE[key] for key in hostile.GOOD_RECIPE if key in rules.ORDER}))
@example(values={'commands': ['a%d' % number for number in range(200)], 'sanity_check_commands': ['b  c' * 40] * 30})
@example(values={'sanity_check_commands': ['name = 1', '[x]', 'easyblock = "x"']})
@example(values={'commands': {'a\u3000b': "its \"x\"  \u200b 'y'"}, 'description': 'a \\ b\n\tc'})
@example(values={'provides': {'a': '1', 'b': '2'}, 'verify': True, 'binds': ['/a b%d:/c' % at for at in range(40)]})
def test_what_was_composed_is_read_back_as_it_was_meant(work, values):
    values = {**VALUES, **{key: value for key, value in values.items() if value or key != 'description'}}
    path = work / 'toy-1.0.eb'
    text = compose.compose(values)
    path.write_text(text, encoding='utf-8')
    found, lines, errors = recipe.parse(str(path))
    assert errors == [] and found.pop('toolchain') == recipe.CONSTANTS['SYSTEM']
    assert found == {key: value for key, value in values.items() if value}
    placed = [key for key in lines if key in rules.ORDER]
    assert placed == sorted(placed, key=rules.ORDER.index)
    assert text.endswith('\n') and '\n\n\n' not in text and ' \n' not in text
    # what it says now it says again: a text that is literal stays one
    assert recipe.validate(dict(found, toolchain=recipe.CONSTANTS['SYSTEM']), 'toy-1.0.eb').name == values['name']


@given(text=hostile.lines())
def test_a_literal_text_arrives_as_it_is(text):
    values = dict(VALUES, toolchain=recipe.CONSTANTS['SYSTEM'], container_env={'X': compose.literal(text)})
    assert recipe.validate(values, 'toy-1.0.eb').container_env == {'X': text}


def test_long_lists_fill_lines_unless_these_become_too_many(work):
    text = compose.compose(dict(VALUES, commands=['command-%02d' % number for number in range(20)]),
                           {'commands': 'all of them', 'name': ''})
    lines = text[text.index('commands = '):text.index('\n\nsanity')].splitlines()
    assert (lines[0], lines[-1]) == ('commands = [', ']  # all of them')
    assert all(line.startswith("    'command-") for line in lines[1:-1]) and len(lines) == 5
    assert max(map(len, text.splitlines())) <= compose.WIDTH
    text = compose.compose(dict(VALUES, commands=['command-%04d' % number for number in range(999)]))
    assert len([line for line in text.splitlines() if line]) <= rules.MAX_LINES


@pytest.mark.parametrize('version, image, expected', [
    ('1.21', 'docker://quay.io/b/samtools:1.21--h50_0', 'docker://quay.io/b/samtools:%(version)s--h50_0'),
    ('2.4', 'docker://nvcr.io/nv/jax:2.4-py3@sha256:2.4', 'docker://nvcr.io/nv/jax:%(version)s-py3@sha256:2.4'),
    ('3', 'docker://python', 'docker://python'),
    ('3', 'docker://h:5000/python3', 'docker://h:5000/python3'),
    ('2.7.1', '/store/lumi-pytorch-rocm-6.2.7.1-v2.7.1.sif', '/store/lumi-pytorch-rocm-6.2.7.1-v%(version)s.sif'),
    ('1.2', 'https://h/1.2/x-1.22-11.2-1.2.3-1.2.sif', 'https://h/1.2/x-1.22-11.2-1.2.3-%(version)s.sif'),
    ('1.2', 'docker-archive:x-1.2.tar', 'docker-archive:x-%(version)s.tar'),
    ('1.2', 'x-%(version)s.sif', 'x-%(version)s.sif'),
])
def test_the_image_of_a_recipe_follows_its_version(version, image, expected):
    assert compose.image_of(version, image) == expected


@pytest.mark.parametrize('directory, path', [
    ('.', 'toy-1.0.eb'), ('here/it is', 'here/it is/toy-1.0.eb'),
    ('easyconfigs', 'easyconfigs/t/toy/toy-1.0.eb'), ('easyconfigs/x/y/', 'easyconfigs/t/toy/toy-1.0.eb')])
def test_where_a_recipe_belongs(directory, path, tmp_path):
    assert compose.path_of(VALUES, directory) == path
    assert compose.path_of(VALUES, str(tmp_path / directory)) == str(tmp_path / path)
    assert compose.path_of(dict(VALUES, name='3d', versionsuffix='-x'), 'easyconfigs') == 'easyconfigs/0/3d/3d-1.0-x.eb'


def test_what_breaks_a_rule_is_not_written_unless_its_author_is_told():
    proposal = compose.Proposal('toy-1.0.eb', compose.compose(dict(VALUES, description='A toy.', needs=['nvidia'])))
    with pytest.raises(SeveralErrors) as err:
        compose.look_at([proposal])
    assert [one.where for one in err.value.errors] == ['toy-1.0.eb:7', 'toy-1.0.eb:12']
    with pytest.raises(SeveralErrors) as err:
        compose.look_at([proposal], ['described'])
    assert "needs 'nvidia', which no site provides" in str(err.value)


def test_nothing_is_written_over_without_being_asked_for():
    proposal = compose.Proposal('a/b/toy-1.0.eb', 'new')
    compose.write(proposal)
    for text in ('new', 'mine'):
        toys.Path('a/b/toy-1.0.eb').write_text(text)
        with pytest.raises(EasySIFError) as err:
            compose.write(proposal)
        assert str(err.value) == ('a/b/toy-1.0.eb: there is a file already\n'
                                  'hint: look at it, or write over it with --force')
        assert toys.Path('a/b/toy-1.0.eb').read_text() == text
    compose.write(proposal, force=True)
    assert toys.Path('a/b/toy-1.0.eb').read_text() == 'new' and os.listdir('a/b') == ['toy-1.0.eb']


@pytest.mark.parametrize('call', ['fsync', 'link', 'rename'])
def test_a_full_disk_leaves_no_file_and_no_directory(call, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, call, full)
    if call == 'rename':  # only where there are no hard links
        monkeypatch.setattr(os, 'link', full)
    os.mkdir('a')
    if call == 'link':
        compose.write(compose.Proposal('a/toy-1.0.eb', 'x'))
        assert os.listdir('a') == ['toy-1.0.eb']
        return
    with pytest.raises(EasySIFError) as err:
        compose.write(compose.Proposal('a/b/c/toy-1.0.eb', 'x'))
    assert str(err.value).startswith('%s/a/b/c/toy-1.0.eb: cannot be written (No space left on device)\nhint: check: ls'
                                     % tmp_path)
    assert os.listdir('a') == []


def _write(number):
    try:
        compose.write(compose.Proposal('a/b/toy-1.0.eb', str(number) * 10000))
    except EasySIFError as err:
        return str(err)
    return number


def test_of_several_at_once_one_writes_and_the_others_are_told():
    with multiprocessing.get_context('fork').Pool(8) as pool:
        told = pool.map(_write, range(8), chunksize=1)
    done = [one for one in told if isinstance(one, int)]
    assert len(done) == 1 and toys.Path('a/b/toy-1.0.eb').read_text() == str(done[0]) * 10000
    assert all('there is a file already' in one or 'File exists' in one for one in told if one not in done)
    assert os.listdir('a/b') == ['toy-1.0.eb']


def test_a_link_that_leads_nowhere_is_a_file_as_well():
    os.symlink('nowhere', 'toy-1.0.eb')
    with pytest.raises(EasySIFError):
        compose.write(compose.Proposal('toy-1.0.eb', 'x'))
    assert not os.path.exists('nowhere')
