# SPDX-License-Identifier: GPL-2.0-only
"""JSON Schemas, and what they say, in our own words, of a value that does not fit.

A schema tells its message itself: ``description`` completes "KEY must be …", the first of ``examples`` is what
the hint offers to type, and ``format`` names one of the checks in ``formats``.
"""

import difflib
import json
import os
import re
import reprlib
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from easysif.data import DIRECTORY
from easysif.errors import masked, shortened
from easysif.formats import FORMATS


@contextmanager
def _without(name):
    """Let nobody find a package in the block."""
    there = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        if there:
            sys.modules[name] = there


# it comes with Jupyter, jsonschema takes it for formats that we have none of, and it takes most of a second to import
with _without('rfc3987_syntax'):
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

SCHEMAS = os.path.join(DIRECTORY, 'schemas')

MOST = 100     #: problems that are looked for; in what holds more, the rest is found when these are gone
LONGEST = 200  #: characters of a value that a message quotes


class _Repr(reprlib.Repr):
    """What is short enough for a message, without passwords: before a text loses its middle."""

    def repr_str(self, x, level):
        return super().repr_str(masked(x), level)


_REPR = _Repr()


@dataclass(frozen=True)
class Problem:
    """One thing that does not fit.

    :param path: keys and positions that lead to it (tuple), empty for the whole
    :param what: what is wrong, naming the key (str)
    :param facts: pairs of label and value (tuple)
    :param hint: what to type or to edit (str or None)
    """

    path: tuple
    what: str
    facts: tuple = ()
    hint: str = None


@lru_cache(maxsize=None)
def load(name):
    """Return one of our schemas (dict).

    :param name: file name without ``.schema.json`` (str)
    """
    with open(os.path.join(SCHEMAS, '%s.schema.json' % name), encoding='utf-8') as handle:
        return json.load(handle)


def easyblocks():
    """Return the names of our easyblocks (list of str)."""
    return load('recipe')['properties']['easyblock']['examples']


def unset(name, key):
    """Return what a key is that is not set: an empty list, an empty mapping, None for anything else.

    :param name: ``recipe`` or another schema (str)
    :param key: one of its properties (str)
    """
    types = load(name)['properties'][key].get('type', '')
    return [] if 'array' in types else {} if 'object' in types else None


def problems(name, values, write='{0}: {1!r}'.format):
    """Return everything in which values differ from a schema (list of Problem, without repeats), up to MOST.

    :param name: the schema (str)
    :param values: what to look at
    :param write: how a key with a value is written in this kind of file (function of str and object -> str)
    """
    found = {}
    every = (problem for err in _validator(name).iter_errors(values) for problem in _problems_of(err, write))
    for problem in islice(every, MOST):
        found.setdefault((problem.path, problem.what), problem)
    return list(found.values())


def label(path):
    """Return the name of a place in a file: ``provides.mpi.binds[0]`` (str)."""
    return ''.join('[%d]' % part if isinstance(part, int) else '.%s' % part for part in path).lstrip('.')


def describe(value):
    """Return a value as messages name it: ``the text 'x'``, ``the number 3`` (str)."""
    if isinstance(value, str):
        return 'the text %s' % quote(value)
    if value is None or isinstance(value, bool):
        return {True: 'true', False: 'false', None: 'nothing'}[value]
    words = {int: 'the number', float: 'the number', list: 'the list', tuple: 'the list', dict: 'the mapping'}
    return '%s %s' % (words.get(type(value), 'the value'), _REPR.repr(value))


def quote(value):
    """Return a value in quotes, on one line, without the middle of a long one (str)."""
    text = shortened(masked(value), LONGEST)
    return "'%s'" % text if text.isprintable() else ascii(text)


def closest(word, known):
    """Return the known word that was probably meant (str), None where none is near."""
    lower = {str(one).lower(): one for one in known}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.7)
    return lower[near[0]] if near else None


@lru_cache(maxsize=None)
def _validator(name):
    formats = FormatChecker(formats=())
    for word, check in FORMATS.items():
        formats.checks(word, raises=ValueError)(_for_texts(check))
    types = Draft202012Validator.TYPE_CHECKER.redefine_many({
        'array': lambda _, value: isinstance(value, (list, tuple)),
        'integer': lambda _, value: isinstance(value, int) and not isinstance(value, bool)})
    ours = extend(Draft202012Validator, {'pattern': _pattern, 'type': _type, 'uniqueItems': _unique_items,
                                         'maxLength': _max_length}, type_checker=types)
    return ours(load(name), format_checker=formats)


def _for_texts(check):
    def checked(value):
        if isinstance(value, dict if check is FORMATS['environment'] else str):
            check(value)
        return True
    return checked


def _pattern(validator, pattern, instance, schema):
    # Python's $ also matches before a newline at the end, that of JSON Schema does not
    if validator.is_type(instance, 'string') and not re.search(re.sub(r'\$$', r'\\Z', pattern), instance):
        yield ValidationError('does not match %r' % pattern)


# The library's own words quote the value whole, and its comparison of all items with all takes hours where they
# are many and of several types.

def _type(validator, types, instance, schema):
    types = [types] if isinstance(types, str) else types
    if not any(validator.is_type(instance, one) for one in types):
        yield ValidationError('not of type %s' % ' or '.join(types))


def _unique_items(validator, unique, instance, schema):
    if validator.is_type(instance, 'array'):
        seen = set()
        for item in instance:
            if isinstance(item, str) and item in seen:
                yield ValidationError(item)
                return
            seen.add(item if isinstance(item, str) else None)


def _max_length(validator, longest, instance, schema):
    if validator.is_type(instance, 'string') and len(instance) > longest:
        yield ValidationError('must have %d characters at the most, not %d' % (longest, len(instance)))


def _problems_of(err, write):
    path, subject = tuple(err.absolute_path), label(err.absolute_path)
    if err.validator == 'additionalProperties':
        known = list(err.schema['properties'])
        for key in err.instance:
            if key not in known:
                near = closest(key, known)
                yield Problem(path + (key,), 'unknown key %s%s' % (quote(key), ' in %s' % subject if subject else ''),
                              facts=(('allowed', ', '.join(known)),),
                              hint="did you mean '%s'?" % near if near else None)
    elif err.validator == 'required':
        for key in err.validator_value:
            if key not in err.instance:
                hint = _example(path[0], err.schema, write) if path else _example(
                    key, err.schema['properties'][key], write)
                yield Problem(path, '%s is missing' % label(path + (key,)), hint=hint)
    else:
        if 'propertyNames' in err.absolute_schema_path:
            subject = 'a key of %s' % subject if subject else 'a key'
        yield Problem(path, '%s %s' % (subject or 'the file', _rule(err)), hint=_hint(err, path, write))


def _rule(err):
    if err.validator == 'format':
        return str(err.cause)
    if err.validator == 'uniqueItems':
        return 'names %s twice' % quote(err.message)
    if err.validator == 'maxLength':
        return err.message
    if 'description' not in err.schema:
        return 'is not what the schema says (%s)' % err.message
    return 'must be %s, not %s' % (err.schema['description'], describe(err.instance))


def _hint(err, path, write):
    a_list = err.validator == 'type' and 'array' in err.schema['type']
    if len(path) == 1 and a_list and isinstance(err.instance, str) and len(err.instance) <= LONGEST:
        return 'write %s' % write(path[0], [err.instance])
    if err.validator == 'type' and 'string' in err.schema['type'] and isinstance(err.instance, (bool, int, float)):
        return 'put it in quotes'
    return _example(path[0], err.schema, write) if len(path) == 1 else None


def _example(key, schema, write):
    examples = schema.get('examples')
    return 'write %s' % write(key, examples[0]) if examples else None
