# SPDX-License-Identifier: GPL-2.0-only
"""Texts for a terminal: sizes, tables that fit, and names of others that cannot play tricks."""

import re
import signal
import unicodedata

from easysif.errors import escaped, shortened

LEAST = 24  #: columns that the flexible part of a table gets before others are left out for it
LONGEST = 200  #: characters of a cell, however wide the table may be


def human(size):
    """Return a number of bytes as people read it: ``85.9 MiB`` (str)."""
    for unit in ('bytes', 'KiB', 'MiB', 'GiB'):
        if size < 1024:
            break
        size /= 1024
    else:
        unit = 'TiB'
    return '%d bytes' % size if unit == 'bytes' else '%.1f %s' % (size, unit)


def counted(number, what):
    """Return a number of things as people read it: ``1 file``, ``2 files`` (str)."""
    return '%d %s%s' % (number, what, '' if number == 1 else 's')


def exit_code(status):
    """Return an exit status in words, that of a signal is negative: ``3``, or ``killed by SIGTERM`` (str)."""
    if status >= 0:
        return str(status)
    try:
        return 'killed by %s' % signal.Signals(-status).name
    except ValueError:
        return 'killed by signal %d' % -status


def sentence(text):
    """Return a text of anybody's as recipes describe software: one line, no article, no full stop (str)."""
    line = ' '.join(''.join(char if char.isprintable() else ' ' for char in text).split())
    line = re.sub(r'^((an?|the)\s+)+', '', line, flags=re.IGNORECASE).rstrip('. ')
    return line[:1].upper() + line[1:]


def width(text):
    """Return how many columns of a terminal a text takes (int)."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in 'WF' else 1
               for char in text)


def shorten(text, limit):
    """Return a text that takes so many columns at most, with its middle left out (str)."""
    if width(text) <= limit:
        return text
    head = _beginning(text, limit // 2)
    return head + '…' + _beginning(reversed(text), limit - 1 - width(head))[::-1]


def _beginning(chars, limit):
    fitting, space = [], limit
    for char in chars:
        space -= width(char)
        if space < 0:
            break
        fitting.append(char)
    return ''.join(fitting)


def table(rows, flexible, limit=None, dispensable=()):
    """Return the lines of a table that takes so many columns at most (list of str).

    :param rows: rows of the same cells, name -> text, the first of them the heads (list of dict)
    :param flexible: the column that is shortened first; at last the first one is as well (str)
    :param limit: columns of the terminal (int), None for no limit
    :param dispensable: columns that are left out where there is no space, in this order (sequence of str)
    """
    rows = [{name: escaped(shortened(cell, LONGEST)) for name, cell in row.items()} for row in rows]
    widths = {name: max(width(row[name]) for row in rows) for name in rows[0]}
    if limit is not None:
        for name in dispensable:
            if _total(dict(widths, **{flexible: min(widths[flexible], LEAST)})) <= limit:
                break
            del widths[name]
        for name in (flexible, next(iter(widths))):
            widths[name] = max(min(widths[name], widths[name] + limit - _total(widths)), 1)
    lines = []
    for row in rows:
        cells = [shorten(row[name], space) for name, space in widths.items()]
        lines.append('  '.join(cell + ' ' * (space - width(cell)) for cell, space in zip(cells, widths.values())))
    return [line.rstrip() for line in lines]


def _total(widths):
    return sum(widths.values()) + 2 * (len(widths) - 1)


def examples(pairs):
    """Return what the help of a command ends with (str).

    :param pairs: what is wanted, and what to type (list of (str, str))
    """
    return '\n'.join(['examples:', *('  # %s\n  %s' % pair for pair in pairs)])
