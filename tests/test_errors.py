# SPDX-License-Identifier: GPL-2.0-only
"""Messages: their form, whatever the texts that they quote hold."""

import pytest

from easysif.errors import LONGEST, MOST, EasySIFError, SeveralErrors, escaped, shortened


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


def test_of_a_long_text_the_middle_is_left_out():
    text = 'begin' + 'x' * 10 ** 6 + 'end'
    for shown in (shortened(text), str(EasySIFError('x', text)), str(EasySIFError('x', 'y', [('f', text)], text))):
        assert ' … (1000008 characters) … ' in shown and len(shown) < 2 * LONGEST + 100
        assert 'begin' in shown and shown.endswith('end')
    assert shortened('x' * LONGEST) == 'x' * LONGEST
    assert shortened('0123456789', 8) == '012345 … (10 characters) … 89'


def test_of_very_many_problems_the_first_are_told_and_the_rest_counted():
    errors = [EasySIFError('x.eb:%d' % number, 'is wrong') for number in range(MOST + 7)]
    lines = str(SeveralErrors(errors)).split('\n')
    assert lines[:2] == ['x.eb:0: is wrong', 'error: x.eb:1: is wrong'] and lines[-1] == 'error: and 7 more'
    assert len(lines) == MOST + 1 and SeveralErrors(errors).errors == errors
    assert str(SeveralErrors(errors[:MOST])).endswith('x.eb:%d: is wrong' % (MOST - 1))
