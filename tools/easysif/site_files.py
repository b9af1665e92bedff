# SPDX-License-Identifier: GPL-2.0-only
"""Writes what the site provides to the files that modules and wrappers read: ``site.lua`` and ``site.sh``.

So the values of a site stand in no modulefile, and after a system update one command mends every installed module.
"""

import os

from easysif import files, runtime
from easysif.errors import EasySIFError
from easysif.modes import Modes
from easysif.module import literal
from easysif.render import lua_quote, shell_quote

NOTICE = 'What this site provides to modules and wrappers. Written by: easysif site apply'

#: settings of one text that modules and wrappers read
SETTINGS = ('image_store', 'overlays', 'ca_certificates', 'module_dependency')


def apply(prefix, site, refused=()):
    """Write the files of a prefix and return the paths of those that changed (list of str).

    :param prefix: EasyBuild's install path (str)
    :param site: the resolved site (Site)
    :param refused: the compressors of squashfs files that its runtime cannot mount (sequence of str)
    :raises EasySIFError: a file cannot be written
    """
    directory = os.path.join(prefix, 'easysif')
    marker = mark(prefix)
    with Modes(prefix).publishing(*(os.path.join(directory, name) for name in ('site.lua', 'site.sh'))):
        return ([marker] if marker else []) + write(directory, site, refused)


def mark(prefix):
    """Make ``prefix.json`` and return its path (str), None where it was there.

    Whoever may write this file uses the overlays of this prefix; it is made once, so it keeps its owner.
    """
    marker = os.path.join(prefix, 'easysif', 'prefix.json')
    with Modes(prefix).publishing(marker):
        return marker if not os.path.exists(marker) and files.write(marker, '{"schema": 1}\n') else None


def write(directory, site, refused=()):
    """Write ``site.lua`` and ``site.sh`` into a directory and return the paths of those that changed (list of str)."""
    texts = {'site.lua': lua_text(site, refused), 'site.sh': shell_text(site, refused)}
    return [path for path, content in ((os.path.join(directory, name), texts[name]) for name in sorted(texts))
            if files.write(path, content)]


def lua_text(site, refused=()):
    """Return the site as a Lua table (str)."""
    lines = ['-- ' + NOTICE, 'return {', '    settings = {']
    lines += ['        %s = %s,' % (name, lua_quote(getattr(site, name) or '')) for name in SETTINGS]
    lines += ['        refused_compressors = %s,' % lua_quote(' '.join(refused))]
    lines += ['    },'] + _lua_lists(site, '    ') + ['    needs = {']
    for name, need in sorted(site.provides.items()):
        lines += ['        [%s] = {' % lua_quote(name)] + _lua_lists(need, '            ') + ['        },']
    return '\n'.join(lines + ['    },', '}', ''])


def _lua_lists(source, indent):
    binds = ', '.join(lua_quote(bind) for bind in source.binds)
    pairs = ', '.join('{ %s, %s }' % (lua_quote(name), lua_quote(literal(value)))
                      for name, value in sorted(source.container_env.items()))
    return [indent + 'binds = { %s },' % binds, indent + 'container_env = { %s },' % pairs]


def shell_text(site, refused=()):
    """Return the site as assignments of a POSIX shell (str)."""
    try:
        path = runtime.find(site).path
    except EasySIFError:  # wrappers look for it again, on the node where they run
        path = ''
    values = [('runtime', site.runtime), ('runtime_path', path)]
    values += [(name, getattr(site, name) or '') for name in SETTINGS]
    values.append(('refused_compressors', ' '.join(refused)))
    values += [('squashfs_' + name, str(value)) for name, value in sorted(site.squashfs.items())]
    lines = ['# shellcheck shell=sh disable=SC2016,SC2034', '# ' + NOTICE]
    lines += ['es_site_%s=%s' % (name, shell_quote(value)) for name, value in values]
    lines += _shell_lists('es_site_%s', site)
    for name, need in sorted(site.provides.items()):
        lines += _shell_lists('es_need_%s_' + name.replace('-', '_'), need)
    return '\n'.join(lines + [''])


def _shell_lists(form, source):
    pairs = ['%s=%s' % (name, literal(value)) for name, value in sorted(source.container_env.items())]
    return ['%s=%s' % (form % 'binds', shell_quote('\n'.join(source.binds))),
            '%s=%s' % (form % 'env', shell_quote('\n'.join(pairs)))]
