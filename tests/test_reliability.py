# SPDX-License-Identifier: GPL-2.0-only
"""The table of docs/reliability.md is what the tests with faults count, with a row for each and no other."""

import ast
import re

from harness import CLONE

PAGE = (CLONE / 'docs' / 'reliability.md').read_text()
TESTS = sorted((CLONE / 'tests' / 'faults').glob('test_*.py'))


def rows():
    """Return the table as it was written: fault -> moments, passed (dict)."""
    table = PAGE.partition('<!-- made by tools/run-tests --reliability -->\n')[2].partition('<!-- end -->\n')[0]
    found = re.findall(r'^\| (.+) \| (\d+) \| (\d+) \|$', table, re.M)
    return {fault: (int(moments), int(passed)) for fault, moments, passed in found}


def marked():
    """Return the faults that tests are marked with (set of str), and the tests that have no such mark (list of str)."""
    faults, bare = set(), []
    for path in TESTS:
        tree = ast.parse(path.read_text())
        for test in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')):
            marks = [node for decorator in test.decorator_list for node in ast.walk(decorator)
                     if isinstance(node, ast.Call) and ast.unparse(node.func) == 'pytest.mark.fault']
            bare += [] if marks else [test.name]
            for text in (mark.args[0] for mark in marks):
                faults |= {text.value} if isinstance(text, ast.Constant) else _keys(tree, 'DAMAGES')
    return faults, bare


def _keys(tree, name):
    table = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name)
    return {key.value for key in table.keys}


def test_every_fault_has_a_row_and_every_row_a_fault():
    faults, bare = marked()
    assert bare == [] and len(faults) > 20
    assert set(rows()) == faults | {'all'}


def test_nothing_came_to_harm_at_any_moment():
    table = rows()
    total = table.pop('all')
    assert [fault for fault, (moments, passed) in table.items() if not moments == passed > 0] == []
    assert total == tuple(map(sum, zip(*table.values())))


def test_each_is_killed_at_thirty_moments():
    for kind in ('a rebuild', 'an install', '`make-squashfs`', '`unmake-squashfs`'):
        assert rows()['`kill -9` of %s at a moment of its duration' % kind][0] == 30


def test_an_image_is_killed_at_twenty_moments_for_each_way_in_which_it_comes():
    for kind in ('`eb --fetch`', 'an install'):
        assert rows()['`kill -9` of %s at 20 moments of it, for each of six kinds of image' % kind][0] == 6 * 20
