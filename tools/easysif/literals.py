# SPDX-License-Identifier: GPL-2.0-only
"""The values of a recipe as they are written: literals and constants, read by ``ast`` and never executed."""

import ast

from easysif import schema

_MOST_BITS = 256   #: of a number: one of thousands of digits cannot even be printed


class NotData(Exception):
    """An expression of a recipe is more than data, or less. ``node`` is where, ``hint`` what to write instead."""

    def __init__(self, node, what, hint):
        super().__init__(what)
        self.node, self.hint = node, hint


def value_of(node, constants):
    """Return the value that an expression writes down, with constants in it.

    :param node: the expression (ast.AST)
    :param constants: name -> value (dict)
    :raises NotData: it is to be computed
    """
    if isinstance(node, ast.Name):
        if node.id not in constants:
            near = schema.closest(node.id, constants)
            raise NotData(node, "uses the name '%s', which is no constant" % node.id,
                          "did you mean %s?" % near if near else "write '%s' in quotes if it is a text" % node.id)
        return constants[node.id]
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_key(key, constants): value_of(item, constants) for key, item in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [value_of(item, constants) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    for number in ast.walk(node):
        if isinstance(getattr(number, 'value', None), int) and number.value.bit_length() > _MOST_BITS:
            raise NotData(number, 'has a number of more than %d bits' % _MOST_BITS, 'put it in quotes if it is a text')
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError) as err:
        raise NotData(node, 'must be written out, not computed by %s' % name_of(node),
                      "templates such as '%(version)s' are allowed in texts") from err


def _key(node, constants):
    key = value_of(node, constants)
    if isinstance(key, (list, dict, tuple)):
        raise NotData(node, 'has a key that is %s' % schema.describe(key), 'use a text as key')
    return key


def name_of(node):
    """Return what a piece of Python is called by people (str)."""
    names = {ast.JoinedStr: 'an f-string', ast.Call: 'a call', ast.BinOp: 'an operator', ast.Import: 'an import',
             ast.ImportFrom: 'an import', ast.FunctionDef: 'a function', ast.If: 'an if', ast.For: 'a loop',
             ast.Expr: 'a value without a name', ast.AugAssign: 'an assignment with an operator',
             ast.Assign: 'an assignment to several names'}
    return names.get(type(node), 'Python code (%s)' % type(node).__name__)
