# SPDX-License-Identifier: GPL-2.0-only
"""The libraries of this host that a need brings: those that the site names, with all that they need.

Each is bound under the name by which programs ask for it into a directory of the need alone, so that nothing else of
the host's directories comes along. The C library and those of the compilers stay the image's own: its programs are made
for these, and the loader of an image works with no other. As patterns in binds, that is resolved where a module is
installed or ``easysif site apply`` runs.
"""

import dataclasses
import os
import re

from easysif import host_paths
from easysif.errors import EasySIFError
from easysif.run import run

INSIDE = '/host'  #: the directory inside of which each need has one of its own

#: what a shared library is called
LIBRARY = re.compile(r'\.so(\.[0-9.]+)?$')

#: libraries that stay the image's own: those of the C library, which belong to its loader, and those of compilers
OWN = re.compile(r'(ld-|ld64|linux-|lib(c|m|mvec|pthread|dl|rt|resolv|util|anl|nss_\w+|gcc_s|stdc\+\+|gfortran|quadmath'
                 r'|gomp)\.so)')

#: how the loader of the host tells a library that a file needs
NEEDED = re.compile(r'\s+(\S+) => (/.*) \(0x[0-9a-f]+\)$')

#: how it tells a symbol that nothing has
UNRESOLVED = re.compile(r'undefined symbol: ([^\s,]+)')


def resolved(site):
    """Return a site whose needs have their libraries as binds, and the directory of these first to be searched (Site).

    :param site: the site (Site)
    """
    if not any(need.libraries for need in site.provides.values()):
        return site
    return dataclasses.replace(site, provides={name: _resolved(name, need) for name, need in site.provides.items()})


def directory(need):
    """Return the directory inside that holds the libraries of a need (str)."""
    return os.path.join(INSIDE, need)


def _resolved(name, need):
    binds = bound(directory(name), need.libraries)
    if not binds:
        return dataclasses.replace(need, libraries=())
    return dataclasses.replace(need, libraries=(), binds=(*need.binds, *binds),
                               library_path=(directory(name), *need.library_path))


def bound(inside, entries):
    """Return the binds for libraries that a site names (list of str).

    :param inside: the directory inside (str)
    :param entries: libraries, and programs whose libraries are meant, ``path[:name]``, with patterns (sequence of str)
    """
    files, found = [], {}
    for entry in entries:
        pattern, _, name = entry.partition(':')
        for path in host_paths.matches(pattern):
            files.append(path)
            if LIBRARY.search(path):
                found.setdefault(name or os.path.basename(path), path)
    for name, path in _needed(files):
        if not OWN.match(name) and host_paths.can_be_bound(path):
            found.setdefault(os.path.basename(name), path)
    return ['%s:%s' % (path, os.path.join(inside, name)) for name, path in found.items()]


def unresolved(path):
    """Return the symbols that a library lacks on this host, as a plugin does without its program (set of str)."""
    return set(UNRESOLVED.findall(_ldd('-r', path)))


def _needed(files):
    """Yield name and path of the libraries that files need, as the loader of this host finds them (str, str)."""
    for line in _ldd(*files).splitlines() if files else ():
        match = NEEDED.match(line)
        if match:
            yield match.groups()


def _ldd(*arguments):
    """Return what ldd prints (str), nothing where there is none: what is missing, `easysif site check` tells."""
    # what the caller's shell has loaded is nothing that a job has
    env = {name: value for name, value in os.environ.items() if not name.startswith('LD_')}
    try:
        told = run(['ldd', *arguments], env=dict(env, LC_ALL='C'), check=False)
    except EasySIFError:
        return ''
    return told.stdout + told.stderr
