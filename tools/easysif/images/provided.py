# SPDX-License-Identifier: GPL-2.0-only
"""What a recipe says that its image provides, held against the Python packages that are in it."""

import difflib
import re

from easysif.errors import EasySIFError, SeveralErrors
from easysif.packages.pins import key

#: a version as every index and every constraint file can have it; what else an image may say is none
VERSION = re.compile(r'[A-Za-z0-9][A-Za-z0-9.!+_-]{0,200}')


def check(provides, packages, where):
    """Return what a recipe names of an image, with the versions that the image has (dict of str).

    :param provides: name -> version, or None where the recipe leaves it open (dict)
    :param packages: the Python packages of the image, name -> version (dict of str)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: something is not in the image, or in another version; all problems at once
    """
    there = {key(name): version for name, version in packages.items() if VERSION.fullmatch(version)}
    found, errors = {}, []
    for name, version in provides.items():
        found[name] = there.get(key(name))
        if found[name] is None:
            near = difflib.get_close_matches(key(name), there, n=3)
            errors.append(EasySIFError(
                where, "provides names '%s', which is no Python package of the image" % name,
                facts=[('closest', ', '.join(near) or 'none')], hint="remove '%s' from provides%s" % (
                    name, ", or write '%s'" % near[0] if near else '')))
        elif version not in (None, found[name], found[name].partition('+')[0]):  # as == of pip: 2.7.1 is 2.7.1+cu128
            errors.append(EasySIFError(
                where, "provides says '%s/%s', but the image has another version" % (name, version),
                facts=[('image', found[name])], hint="write '%s/%s', or '%s' for whatever the image has"
                % (name, found[name], name)))
    if errors:
        raise errors[0] if len(errors) == 1 else SeveralErrors(errors)
    return found
