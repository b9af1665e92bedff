# SPDX-License-Identifier: GPL-2.0-only
"""YAML with the line of every key, and an error of ours for everything that is wrong with it."""

import yaml

from easysif.errors import EasySIFError
from easysif.schema import label, quote


def read(path):
    """Return what a YAML file holds and its lines, as ``parse`` does.

    :raises EasySIFError: it cannot be read, or is not valid
    """
    try:
        with open(path, 'rb') as handle:
            return parse(handle.read(), path)
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror) from err


def parse(text, where):
    """Return the value of a YAML document (None for an empty one) and the line of each place in it.

    :param text: the document (str or bytes)
    :param where: its name for messages (str)
    :return: value, and a dict from the keys that lead to a place (tuple) to its line (int)
    :raises EasySIFError: it is not valid YAML, or has a key twice
    """
    lines = {}
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            _mark(node, (), where, lines, set())
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
    except ValueError as err:  # a date such as 2024-13-01
        raise EasySIFError(where, 'not valid YAML: %s' % err) from err


def _mark(node, path, where, lines, seen):
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
            _mark(item, place, where, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            lines[path + (at,)] = item.start_mark.line + 1
            _mark(item, path + (at,), where, lines, seen)
