# SPDX-License-Identifier: GPL-2.0-only
"""Messages: their form, whatever the texts that they quote hold."""

import pytest

from easysif import schema
from easysif.errors import LONGEST, MOST, EasySIFError, SeveralErrors, escaped, masked, shortened


def test_a_message_says_where_what_facts_and_hint():
    err = EasySIFError('x.eb', 'is wrong', [('found', 3), ('expected', 'four')], 'edit it')
    assert str(err) == 'x.eb: is wrong\n  found     3\n  expected  four\nhint: edit it'
    assert str(EasySIFError('x.eb', 'is wrong')) == 'x.eb: is wrong'


@pytest.mark.parametrize('text, shown', [
    ('\x1b[31mred\x1b]0;title\x07', '\\x1b[31mred\\x1b]0;title\\x07'), ('\x9b31m', '\\x9b31m'),
    ('a\rb\tc', 'a\\rb\\tc'),
    ('\0\x7f\u2028', '\\x00\\x7f\\u2028'), ('gpj.\u202esif', 'gpj.\\u202esif'), ('\udcff', '\\udcff'),
    ("ü 容器 \U0001f600 \xa0 C:\\x1b '\"", "ü 容器 \U0001f600 \xa0 C:\\x1b '\""),
])
def test_what_a_terminal_would_obey_is_escaped_wherever_it_stands(text, shown):
    assert escaped(text) == shown
    assert str(EasySIFError(text, text, [('fact', text)], text)) == '%s: %s\n  fact  %s\nhint: %s' % ((shown,) * 4)


def test_no_part_of_a_message_looks_like_another_one():
    forged = 'x\nhint: rm -rf ~'
    assert str(EasySIFError(forged, forged, [('last line', forged)], forged)) == (
        'x\\nhint: rm -rf ~: x\\nhint: rm -rf ~\n  last line  x\n             hint: rm -rf ~\n'
        'hint: x\\nhint: rm -rf ~')


def test_an_empty_word_is_seen():
    assert str(EasySIFError('', 'is not installed here')) == "'': is not installed here"


def test_of_a_long_text_the_middle_is_left_out():
    text = 'begin' + 'x' * 10 ** 6 + 'end'
    for shown in (shortened(text), str(EasySIFError('x', text)), str(EasySIFError('x', 'y', [('f', text)], text))):
        assert ' … (1000008 characters) … ' in shown and len(shown) < 2 * LONGEST + 100
        assert 'begin' in shown and shown.endswith('end')
    assert shortened('x' * LONGEST) == 'x' * LONGEST
    assert shortened('0123456789', 8) == '012345 … (10 characters) … 89'


@pytest.mark.parametrize('text, shown', [
    ('docker://me:s3cr-t@a.b:5000/c:1', 'docker://me:***@a.b:5000/c:1'),
    ('https://me:s/3@cr-t@a.b/x.sif', 'https://me:***@a.b/x.sif'), ('https://t0ken@a.b/x', 'https://***@a.b/x'),
    ('docker://t0ken@a.b/c', 'docker://***@a.b/c'), ('docker:me:s3cr-t@a.b/c', 'docker:***@a.b/c'),
    ("mirrors: ['https://a.b','https://me:s3@a.b']", "mirrors: ['https://a.b','https://me:***@a.b']"),
    ('oras://me:s3@a.b/c@sha256:12', 'oras://me:***@a.b/c@sha256:12'),
    *[(same, same) for same in (
        'docker://a.b:5000/c@sha256:12', 'docker://c:1@sha256:12', 'docker://a.b:5000/c@latest', 'docker://c@latest',
        'ask me@a.b: it is c:1', 'https://a.b:80/x@y/z.sif', 'https://a.b/x:y@z', 'git@a.b:c/d',
        'docker-archive:me@a.b/x.tar', "'oci-archive:me@a.b/x.tar'", '')],
])
def test_a_password_in_an_address_is_not_shown_wherever_it_stands(text, shown):
    assert masked(text) == shown and masked('%s  %s' % (text, text)) == '%s  %s' % (shown, shown)
    err = EasySIFError(text, text, [('fact', text), ('number', 3)], text)
    assert str(err) == '{0}: {0}\n  fact    {0}\n  number  3\nhint: {0}'.format(shown) if shown else True
    assert (err.where, err.what, dict(err.facts)['fact'], err.hint) == (shown,) * 4
    long = text.replace('s3cr-t', 's3cr-t' * 1000)
    for told in (schema.describe(long), schema.describe([long]), str(EasySIFError('x', long))):
        assert 's3' not in told and 't0' not in told


@pytest.mark.parametrize('text, shown', [
    ('docker://me:12/x@a.b/c:1', 'docker://me:***@a.b/c:1'),
    ('oras://me:5000/x@a.b:5000/c', 'oras://me:***@a.b:5000/c'),
    ('https://me:123456/x@a.b/c', 'https://me:***@a.b/c'), ("['docker://me:12/x@a.b/c']", "['docker://me:***@a.b/c']"),
    *[(same, same) for same in (
        'docker://a.b:5000/c@latest', 'docker://a.b:5000/c/d@sha256:12', 'https://a.b:65535/x@y/z.sif',
        'docker://a.b:5000/c:1@sha256:12')],
])
def test_a_password_that_begins_as_a_port_does_is_not_shown_where_it_can_be_none(text, shown):
    assert masked(text) == shown and masked('%s  %s' % (text, text)) == '%s  %s' % (shown, shown)


@pytest.mark.parametrize('text, shown', [
    ('docker://me:pa ss@a.b/c:1', 'docker://me:***@a.b/c:1'),
    ('https://me:p@ s/s@a.b/x.sif', 'https://me:***@a.b/x.sif'),
    ('oras://me: s@a.b/c@sha256:12', 'oras://me:***@a.b/c@sha256:12'),
    ("easysif command add 'docker://me:pa ss w@a.b/c' x", "easysif command add 'docker://me:***@a.b/c' x"),
    ("not the text 'docker://me:pa ss@a.b/c', nor 'https://me:p w@a.b/x'",
     "not the text 'docker://me:***@a.b/c', nor 'https://me:***@a.b/x'"),
    *[(same, same) for same in (
        'docker://a.b:5000/c is not x@y/z', 'docker://a.b:5000 is not x@y/z', 'docker://c:1 is not x@y/z',
        'docker://c:latest is there, and docker://a.b/c@sha256:12', 'docker://c:latest of me@a.b',
        "'docker://c:1' of 'me@a.b/c'", 'see docker://c:latest of me@a.b/c')],
])
def test_a_password_with_blanks_is_not_shown_where_it_can_be_told_from_a_sentence(text, shown):
    assert masked(text) == shown
    assert str(EasySIFError(text, text, [('fact', text)], text)) == '{0}: {0}\n  fact  {0}\nhint: {0}'.format(shown)


def test_of_very_many_problems_the_first_are_told_and_the_rest_counted():
    errors = [EasySIFError('x.eb:%d' % number, 'is wrong') for number in range(MOST + 7)]
    lines = str(SeveralErrors(errors)).split('\n')
    assert lines[:2] == ['x.eb:0: is wrong', 'error: x.eb:1: is wrong'] and lines[-1] == 'error: and 7 more'
    assert len(lines) == MOST + 1 and SeveralErrors(errors).errors == errors
    assert str(SeveralErrors(errors[:MOST])).endswith('x.eb:%d: is wrong' % (MOST - 1))
