# SPDX-License-Identifier: GPL-2.0-only
"""What a user asks for: requirements on the command line and in requirements files, with those that they name."""

import os
import re
import shlex

from easysif.errors import EasySIFError
from easysif.packages.pins import key

#: how a file names another one, and how a requirement begins
OTHER = re.compile(r'(-r|--requirement|-c|--constraint)[=\s]*(.+)')
NAME = re.compile(r'[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?')

DEEPEST = 20  #: files that name one another


def read(path, depth=0):
    """Return the lines of a requirements file as pip is given them, with those of the files that it names (list).

    :param path: the file (str)
    :raises EasySIFError: a file cannot be read
    """
    try:
        with open(path, encoding='utf-8-sig') as handle:
            text = handle.read()
    except (OSError, ValueError) as err:
        raise EasySIFError(path, 'cannot be read (%s)' % (getattr(err, 'strerror', None) or err),
                           hint='ls -l %s' % shlex.quote(path)) from err
    found = []
    for line in re.sub(r'\\\n', ' ', text).splitlines():
        line = re.sub(r'(^|\s+)#.*', '', line).strip()
        match = OTHER.fullmatch(line)
        if not match:
            found += [line] if line else []
            continue
        other = match[2].strip('\'"')
        if '://' not in other:
            other = os.path.join(os.path.dirname(os.path.abspath(path)), other)
        if match[1] in ('-c', '--constraint'):
            found.append('--constraint %s' % shlex.quote(other))
        elif '://' in other or depth == DEEPEST:
            raise EasySIFError(path, 'names a file that is not read', facts=[('line', line)],
                               hint='copy what it says into %s' % shlex.quote(path))
        else:
            found += read(other, depth + 1)
    return found


def requirements(lines):
    """Return those lines that ask for a package, without options (list of str)."""
    return [re.split(r'\s--(hash|config-settings|global-option)[=\s]', line)[0].strip() for line in lines
            if not line.startswith('-') or re.match(r'(-e|--editable)[=\s]', line)]


def merged(before, now):
    """Return what has been asked for in all (list of str): a new request takes the place of one for the same package.

    :param before: what was recorded (list of str)
    :param now: what is asked for now (list of str)
    """
    replaced = {package_of(one) for one in now}
    return [one for one in before if package_of(one) not in replaced] + list(dict.fromkeys(now))


def package_of(requirement):
    """Return the package that is asked for, as `key` writes it, or all of a request that names none (str)."""
    name = NAME.match(requirement)
    is_name = name and not re.match(r'(/|://|:)', requirement[name.end():])
    return key(name.group()) if is_name else requirement
