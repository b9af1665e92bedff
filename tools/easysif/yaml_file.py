# SPDX-License-Identifier: GPL-2.0-only
"""YAML with the line of every key, and an error of ours for everything that is wrong with it."""

import os
import stat

import yaml

from easysif.errors import EasySIFError
from easysif.schema import label, quote

LARGEST = 4 << 20      #: bytes that a file may have
MOST_VALUES = 10000    #: that it may hold, each alias counted as what it stands for
LONGEST_NUMBER = 100   #: characters; one of thousands of digits cannot even be printed

_TAG = 'tag:yaml.org,2002:'


def read(path, loader=yaml.SafeLoader):
    """Return what a YAML file holds and its lines, as ``parse`` does.

    :param path: the file (str)
    :param loader: yaml.BaseLoader where every value is a text: a version 1.10 is no number (class)
    :raises EasySIFError: it cannot be read, or is not valid
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # which would wait for somebody who writes into it
            raise EasySIFError(path, 'cannot be read (it is a named pipe)')
        with open(path, 'rb') as handle:
            data = handle.read(LARGEST + 1)
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror) from err
    if len(data) > LARGEST:
        raise EasySIFError(path, 'is larger than %d bytes' % LARGEST)
    return parse(data, path, loader)


def parse(text, where, loader=yaml.SafeLoader):
    """Return the value of a YAML document (None for an empty one) and the line of each place in it.

    :param text: the document (str or bytes)
    :param where: its name for messages (str)
    :param loader: yaml.SafeLoader or yaml.BaseLoader (class)
    :return: value, and a dict from the keys that lead to a place (tuple) to its line (int)
    :raises EasySIFError: it is not valid YAML, has a key twice, or holds more than any of our files has to
    """
    lines = {}
    try:
        loader = loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            if _size(node, {}) > MOST_VALUES:
                raise EasySIFError(where, 'holds more than %d values, aliases counted as what they stand for'
                                   % MOST_VALUES)
            _mark(node, (), where, lines, set(), loader)
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.YAMLError as err:
        mark = getattr(err, 'problem_mark', None) or getattr(err, 'context_mark', None)
        what = getattr(err, 'problem', None) or str(err).splitlines()[0]
        place = '%s:%d' % (where, mark.line + 1) if mark else where
        raise EasySIFError(place, 'not valid YAML: %s' % what) from err
    except RecursionError as err:
        raise EasySIFError(where, 'not valid YAML: nested too deeply') from err
    except ValueError as err:  # an escape beyond the last character
        raise EasySIFError(where, 'not valid YAML: %s' % err) from err


def _size(node, known):
    """Return how many values a node stands for (int), which for a few aliases of aliases may be billions."""
    if id(node) not in known:
        known[id(node)] = 1  # for an alias inside itself
        if isinstance(node, yaml.MappingNode):
            known[id(node)] += sum(_size(key, known) + _size(item, known) for key, item in node.value)
        elif isinstance(node, yaml.SequenceNode):
            known[id(node)] += sum(_size(item, known) for item in node.value)
    return known[id(node)]


def _mark(node, path, where, lines, seen, loader):
    if id(node) in seen:  # an alias, which may even lie inside itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            place = path + (key.value if isinstance(key, yaml.ScalarNode) else None,)
            line = key.start_mark.line + 1
            if place in lines:
                raise EasySIFError('%s:%d' % (where, line), '%s is there twice, first in line %d'
                                   % (quote(label(place)), lines[place]), hint='keep one of the two')
            lines[place] = line
            _mark(key, place, where, lines, seen, loader)
            _mark(item, place, where, lines, seen, loader)
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            lines[path + (at,)] = item.start_mark.line + 1
            _mark(item, path + (at,), where, lines, seen, loader)
    else:
        _check_scalar(node, path, where, loader)


def _check_scalar(node, path, where, loader):
    place, kind = '%s:%d' % (where, node.start_mark.line + 1), node.tag.rpartition(':')[2]
    if node.tag in (_TAG + 'merge', _TAG + 'value'):  # << and =, which are no values
        return
    if node.tag in (_TAG + 'int', _TAG + 'float') and len(node.value) > LONGEST_NUMBER:
        raise EasySIFError(place, '%s is a number of %d characters' % (quote(label(path)), len(node.value)),
                           hint='put it in quotes if it is a text')
    try:
        loader.construct_object(node)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        # what PyYAML stumbles over, as in a date 2024-13-01 or in !!bool x
        raise EasySIFError(place, 'not valid YAML: %s is no %s: %s'
                           % (quote(label(path)), kind, quote(node.value))) from err
