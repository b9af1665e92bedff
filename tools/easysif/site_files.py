# SPDX-License-Identifier: GPL-2.0-only
"""Writes what the site provides to the files that modules and wrappers read: ``site.lua``, ``site.tcl``, ``site.sh``.

So the values of a site stand in no modulefile, and after a system update one command mends every installed module.
"""

import os

from easysif import files, host_libraries, host_paths, needs, runtime
from easysif.errors import EasySIFError
from easysif.modes import Modes
from easysif.render import lua_quote, shell_quote, tcl_quote
from easysif.resources import mountable
from easysif.site import Need
from easysif.site_plan import FORCE, literal

NOTICE = 'What this site provides to modules and wrappers. Written by: easysif site apply'

#: the files, in the order in which they are written
NAMES = ('site.lua', 'site.sh', 'site.tcl')

#: settings of one text that modules and wrappers read
SETTINGS = ('image_store', 'overlays', 'ca_certificates', 'module_dependency', 'login_host')


def apply(prefix, site, refused=()):
    """Write the files of a prefix and return the paths of those that changed (list of str).

    :param prefix: EasyBuild's install path (str)
    :param site: the resolved site (Site)
    :param refused: the compressors of squashfs files that its runtime cannot mount (sequence of str)
    :raises EasySIFError: a file cannot be written
    """
    directory = os.path.join(prefix, 'easysif')
    marker = mark(prefix)
    with Modes(prefix).publishing(*(os.path.join(directory, name) for name in NAMES)):
        return ([marker] if marker else []) + write(directory, site, refused)


def mark(prefix):
    """Make ``prefix.json`` and return its path (str), None where it was there.

    Whoever may write this file uses the overlays of this prefix; it is made once, so it keeps its owner.
    """
    marker = os.path.join(prefix, 'easysif', 'prefix.json')
    with Modes(prefix).publishing(marker):
        return marker if not os.path.exists(marker) and files.write(marker, '{"schema": 1}\n') else None


def write(directory, site, refused=()):
    """Write the files into a directory and return the paths of those that changed (list of str)."""
    site = host_libraries.resolved(site)
    paths = [os.path.join(directory, name) for name in NAMES]
    texts = [render(site, refused) for render in (lua_text, shell_text, tcl_text)]
    return [path for path, content in zip(paths, texts) if files.write(path, content)]


def _provided(site):
    """Return what modules read of each need, with all that it requires, and of what is forced: (str, Need) pairs."""
    found = [(name, _whole([site.provides[one] for one in needs.closure([name], site.provides)]))
             for name in site.provides]
    forced = Need(tuple(site.force.get('binds') or ()), site.force.get('container_env') or {})
    return sorted([*found, (FORCE, _whole([forced]))])


def _sites(site):
    return _whole([Need(site.binds, site.container_env)])


def _whole(parts):
    """Return parts as one, the first before the others, with what this host has for the patterns in it (Need)."""
    searched = {key: host_paths.directories(one for part in parts for one in getattr(part, key))
                for key in ('path', 'library_path')}
    return Need(host_paths.expanded(bind for part in parts for bind in part.binds),
                {name: value for part in reversed(parts) for name, value in part.container_env.items()}, **searched)


def _switches(site):
    """Return the variables of the runtimes that isolate a container, without their prefix (str)."""
    return ' '.join(word.upper().replace('-', '_') for word in site.isolation)


def lua_text(site, refused=()):
    """Return the site as a Lua table (str)."""
    lines = ['-- ' + NOTICE, 'return {', '    settings = {']
    lines += ['        %s = %s,' % (name, lua_quote(getattr(site, name) or '')) for name in SETTINGS]
    lines += ['        refused_compressors = %s,' % lua_quote(' '.join(refused)),
              '        isolation = %s,' % lua_quote(_switches(site))]
    lines += ['    },'] + _lua_lists(_sites(site), '    ') + ['    needs = {']
    for name, need in _provided(site):
        lines += ['        [%s] = {' % lua_quote(name)] + _lua_lists(need, '            ') + ['        },']
    return '\n'.join(lines + ['    },', '}', ''])


def _lua_lists(source, indent):
    binds = ', '.join(lua_quote(bind) for bind in source.binds)
    pairs = ', '.join('{ %s, %s }' % (lua_quote(name), lua_quote(literal(value)))
                      for name, value in sorted(source.container_env.items()))
    return [indent + 'binds = { %s },' % binds, indent + 'container_env = { %s },' % pairs] + [
        '%s%s = %s,' % (indent, name, lua_quote(value)) for name, value in _searched(source)]


def tcl_text(site, refused=()):
    """Return the site as a dictionary of Tcl, which is read and not evaluated (str)."""
    lines = ['notice ' + tcl_quote(NOTICE), 'settings {']
    lines += ['    %s %s' % (name, tcl_quote(getattr(site, name) or '')) for name in SETTINGS]
    lines += ['    refused_compressors ' + tcl_quote(' '.join(refused)), '    isolation ' + tcl_quote(_switches(site))]
    lines += ['}'] + _tcl_lists(_sites(site), '') + ['needs {']
    for name, need in _provided(site):
        lines += ['    %s {' % tcl_quote(name)] + _tcl_lists(need, '        ') + ['    }']
    return '\n'.join(lines + ['}', ''])


def _tcl_lists(source, indent):
    binds = ' '.join(tcl_quote(bind) for bind in source.binds)
    pairs = ' '.join('%s %s' % (name, tcl_quote(literal(value)))
                     for name, value in sorted(source.container_env.items()))
    return [indent + 'binds {%s}' % binds, indent + 'container_env {%s}' % pairs] + [
        '%s%s %s' % (indent, name, tcl_quote(value)) for name, value in _searched(source)]


def shell_text(site, refused=()):
    """Return the site as assignments of a POSIX shell (str)."""
    try:
        path = runtime.find(site).path
    except EasySIFError:  # wrappers look for it again, on the node where they run
        path = ''
    values = [('runtime', site.runtime), ('runtime_path', path), ('share', site.share)]
    values += [(name, getattr(site, name) or '') for name in SETTINGS]
    values += [('refused_compressors', ' '.join(refused)), ('isolation', _switches(site))]
    squashfs = mountable(site.squashfs, refused)
    values += [('squashfs_' + name, str(value)) for name, value in sorted(squashfs.items())]
    lines = ['# shellcheck shell=sh disable=SC2016,SC2034', '# ' + NOTICE]
    lines += ['es_site_%s=%s' % (name, shell_quote(value)) for name, value in values]
    lines += _shell_lists('es_site_%s', _sites(site))
    for name, need in _provided(site):
        lines += _shell_lists('es_need_%s_' + name.replace('-', '_'), need)
    return '\n'.join(lines + [''])


def _shell_lists(form, source):
    pairs = ['%s=%s' % (name, literal(value)) for name, value in sorted(source.container_env.items())]
    return ['%s=%s' % (form % 'binds', shell_quote('\n'.join(source.binds))),
            '%s=%s' % (form % 'env', shell_quote('\n'.join(pairs)))] + [
        '%s=%s' % (form % name, shell_quote(value)) for name, value in _searched(source)]


def _searched(source):
    """Return what is searched for commands and libraries: pairs of name and value, those that are empty left out."""
    return [(name, literal(':'.join(getattr(source, name)))) for name in ('path', 'library_path')
            if getattr(source, name)]
