# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild's templates in the texts of a recipe, ``%(version)s``: those that follow from name and version."""

import re

from easysif import schema
from easysif.errors import EasySIFError

#: names that EasyBuild knows only at install, and other spellings that it understands; in its own parameters they stay
_LATER = re.compile(r'arch|module_name|toolchain_(name|ver|version)|version_?(prefix|suffix)|(bitbucket|github)_account'
                    r'|(build|install|start)_?dir|parallel|rpath_enabled|software_commit|sysroot|mpi_cmd_prefix|'
                    r'(cuda|amdgcn)_\w+|(cuda|java|perl|py|r)_?(maj|min|short)?_?ver|'
                    r'name_letter|name_(letter_)?lower|ver_(maj|min|patch|maj_min|min_patch|maj_min_patch)')

LONGEST = 256  # characters of a name or a version

_TEMPLATE = re.compile(r'(%+)\((\w+)\)s')


class Unknown(Exception):
    """A template that is not known: ``str()`` names it, ``hint`` (str or None) the one that was probably meant."""

    def __init__(self, name, known):
        super().__init__('the unknown template %s' % schema.quote('%%(%s)s' % name))
        near = schema.closest(name, known)
        self.hint = "did you mean '%%(%s)s'?" % near if near else None


def templates(values):
    """Return EasyBuild's templates that follow from name and version (dict).

    :param values: with name, version and versionsuffix (dict); a part of the version that is not there is no template
    """
    # what is longer is refused anyway, and must not be multiplied before that
    name, version, suffix = (str(values.get(key, ''))[:LONGEST] for key in ('name', 'version', 'versionsuffix'))
    parts = version.split('.')
    known = {'name': name, 'namelower': name.lower(), 'nameletter': name[:1], 'nameletterlower': name[:1].lower(),
             'version': version, 'versionsuffix': suffix, 'version_major': parts[0]}
    if len(parts) > 1:
        known.update(version_minor=parts[1], version_major_minor='.'.join(parts[:2]))
    if len(parts) > 2:
        known.update(version_patch=parts[2], version_minor_patch='.'.join(parts[1:3]),
                     version_major_minor_patch='.'.join(parts[:3]))
    return known


def resolve(text, values):
    """Return a text with EasyBuild's templates for name and version put in (str); ``%%(name)s`` stays ``%(name)s``.

    :param values: name, version and versionsuffix (dict)
    :raises EasySIFError: it has a template that is not known
    """
    try:
        return resolved(text, values)
    except Unknown as err:
        raise EasySIFError(schema.quote(text), 'has %s' % err, hint=err.hint,
                           facts=[('known', ', '.join(templates(values)))]) from err


def resolved(value, values, later=False):
    """Return a value with the templates in all its texts resolved, keys of mappings included.

    As in EasyBuild, two percent signs before a name are one that is meant.

    :param values: name, version and versionsuffix (dict)
    :param later: leave those that EasyBuild knows only at install as they are (bool)
    :raises Unknown: there is no such template
    """
    known = templates(values)

    def put_in(match):
        signs, name = match.groups()
        half, odd = divmod(len(signs), 2)
        if not odd:
            return '%' * half + '(%s)s' % name
        if name in known:
            return '%' * half + known[name]
        if later and _LATER.fullmatch(name):
            return match.group()
        raise Unknown(name, known)

    def all_in(item):
        if isinstance(item, dict):
            return {all_in(key) if isinstance(key, str) else key: all_in(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return type(item)(all_in(inner) for inner in item)
        return _TEMPLATE.sub(put_in, item) if isinstance(item, str) else item
    return all_in(value)
