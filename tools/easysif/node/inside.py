# SPDX-License-Identifier: GPL-2.0-only
"""What an image sees of this node: the libraries that binds bring with all that they need, GPUs, /dev/shm."""

import os
import re
from dataclasses import dataclass

from easysif import host_libraries, host_paths, needs
from easysif.data import DIRECTORY
from easysif.errors import EasySIFError
from easysif.node import mpi
from easysif.node.finding import NOTE, OK, PROBLEM, Finding
from easysif.node.host import GPUS
from easysif.node.host import devices as host_devices
from easysif.run import run
from easysif.site_plan import GPU_SWITCHES

HELPER = os.path.join(DIRECTORY, 'helpers', 'check-libraries')
MOST = 400      #: libraries that are looked at
TIMEOUT = 300   #: seconds for all of them

MISSING = re.compile(r'\s*(\S+) => not found')
VERSION = re.compile(r".*: (?:.*: )?version `([^']+)' not found \(required by ([^)]+)\)")
SYMBOL = re.compile(r'(?:symbol lookup error: .*)?.*undefined symbol: ([^\s,]+)')

#: what is said of what a library lacks
FORMS = {'version': 'needs %s, which the image does not have', 'library': 'needs %s, which is not inside',
         'symbol': 'has unresolved symbols: %s'}


@dataclass(frozen=True)
class Look:
    """What was seen inside of an image, with what the site binds for needs.

    :param text: what the helper said (str)
    :param every: the needs, with all that they require (list of str)
    :param libraries: those that binds bring, as seen inside -> on the host (dict)
    :param targets: all that is bound, as seen inside (list of str)
    """

    text: str
    every: list
    libraries: dict
    targets: list

    def own_mpi(self):
        """Return the names of the image's own MPI libraries (list of str)."""
        return mpi.names(path for path in _told(self.text, 'mpi')
                         if not any(path == one or path.startswith(one.rstrip('/') + '/') for one in self.targets))

    def wrong(self):
        """Return what libraries lack inside (list): each library, ``version``, ``library`` or ``symbol``, and what."""
        return list(_wrong(self.text, lambda library: host_libraries.unresolved(self.libraries.get(library, library))))


def brought(site, every):
    """Return the binds of needs, with those of the site, and the libraries that they bring.

    :param site: the site, with the libraries of its needs as binds (Site)
    :param every: the needs, with all that they require (list of str)
    :return: where each bind is seen inside -> bind (dict), directories searched (tuple), libraries, as seen inside ->
        on the host (dict)
    """
    parts = [site.provides[need] for need in every if need in site.provides]
    binds = host_paths.expanded([*(site.force.get('binds') or ()), *site.binds,
                                 *(bind for part in parts for bind in part.binds)])
    seen = {}
    for bind in binds:
        if host_paths.matches(bind):
            seen.setdefault(host_paths.target(bind), bind)
    search = host_paths.directories(path for part in parts for path in part.library_path)
    return seen, search, dict(_libraries(seen, search))


def look(image, site, wanted, runtime):
    """Return what is seen inside of an image with what the site binds for needs (Look).

    :param image: the SIF file (str)
    :param site: the resolved site (Site)
    :param wanted: the needs (sequence of str)
    :param runtime: the container runtime (Runtime)
    :raises EasySIFError: no shell of the image could be started
    """
    site, every = host_libraries.resolved(site), needs.closure(wanted, site.provides)
    seen, search, libraries = brought(site, every)
    switches = {'%s_%s' % (name, GPU_SWITCHES[need]): '1' for need in every if need in GPU_SWITCHES
                for name in ('APPTAINER', 'SINGULARITY')}
    variables = {name: value for need in reversed(every) if need in site.provides
                 for name, value in site.provides[need].container_env.items()}
    if search:
        variables['EASYSIF_LIBRARY_PATH'] = ':'.join(search)
    argv = runtime.exec_argv(image, ['/bin/sh', '/easysif-check', *list(libraries)[:MOST]],
                             binds=[*seen.values(), (HELPER, '/easysif-check', 'ro')], flags=['--no-home'])
    told = run(argv, env=runtime.environment(switches, inside=variables), check=False, timeout=TIMEOUT)
    if 'easysif-check done' not in told.stdout:
        raise EasySIFError(image, 'no shell of the image could be started (%s)'
                           % (told.stderr.strip().split('\n')[-1] or 'exit code %s' % told.status),
                           hint='%s exec %s /bin/sh' % (runtime.name, image))
    return Look(told.stdout, every, libraries, list(seen))


def check(image, site, wanted, runtime):
    """Yield what is wrong inside of an image with what the site binds for needs, and what is well.

    :param image: the SIF file (str)
    :param site: the resolved site (Site)
    :param wanted: the needs (sequence of str)
    :param runtime: the container runtime (Runtime)
    """
    try:
        seen = look(image, site, wanted, runtime)
    except EasySIFError as err:
        yield Finding(PROBLEM, 'inside', err.what, err.hint)
        return
    yield from _of_libraries(seen.text, seen.wrong(), len(seen.libraries))
    yield from mpi.check(seen.own_mpi(), mpi.names(seen.libraries))
    yield from _of_devices(seen.text, seen.every)


def _libraries(seen, search):
    """Yield the libraries that binds bring, as files and in directories searched: path inside, on the host (str)."""
    for target, bind in seen.items():
        source = bind.partition(':')[0]
        if os.path.isfile(source) and host_libraries.LIBRARY.search(target):
            yield target, source
    for directory in search:
        covering = [target for target in seen if directory == target or directory.startswith(target + '/')]
        if covering:
            target = max(covering, key=len)
            host = os.path.join(seen[target].partition(':')[0], os.path.relpath(directory, target))
            for name in _names(host):
                if host_libraries.LIBRARY.search(name) and os.path.join(directory, name) not in seen:
                    yield os.path.join(directory, name), os.path.join(host, name)


def _names(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:  # it is not there, or not for us
        return []


def _told(text, word):
    """Return what the helper says of a kind of file (list of str)."""
    start = 'easysif-check %s ' % word
    return [line[len(start):] for line in text.splitlines() if line.startswith(start)]


def _wrong(text, unresolved):
    """Yield what the loader of the image lacks for each library: the library, the kind of what it lacks, and what.

    :param unresolved: of a library as seen inside the symbols that its host lacks as well: those that a plugin expects
        of its program (function of str -> collection of str)
    """
    lacks, library = {}, None
    for line in text.splitlines():
        if line.startswith('easysif-check library '):
            library = line.partition('library ')[2]
        elif line.startswith('easysif-check'):
            library = None
        elif library:
            for kind, pattern in (('version', VERSION), ('library', MISSING), ('symbol', SYMBOL)):
                found = pattern.match(line)
                if found:
                    lacks.setdefault((library, kind), {})[found.group(1)] = None
                    break
    for (library, kind), names in lacks.items():
        if kind == 'symbol' and (library, 'version') in lacks:  # it is for want of that version
            continue
        usual = unresolved(library) if kind == 'symbol' else ()
        names = [name for name in names if name not in usual]
        if names:
            yield library, kind, FORMS[kind] % ', '.join(names)


def remedy(what):
    """Return what helps against what is wrong with a library (str).

    :param what: as Look.wrong() tells it (str)
    """
    return ('use an image whose C library is not older than that of the host' if 'GLIBC' in what
            else 'bind what it needs as well')


def _of_libraries(text, wrong, number):
    """Yield what the loader of the image says of each library."""
    loader = _told(text, 'loader')
    if loader == ['musl'] and number:
        yield Finding(PROBLEM, 'libraries', 'the C library of the image is musl, which loads no library of the host',
                      'use an image with the GNU C library')
    elif loader:
        yield Finding(NOTE, 'libraries', 'the image has no ldd and no loader that is known, so that libraries of the '
                      'host cannot be tried')
    for library, _, what in wrong:
        yield Finding(PROBLEM, 'libraries', '%s %s' % (library, what), remedy(what))
    if number and not wrong and not loader:
        yield Finding(OK, 'libraries', '%d of the host, all that they need is found inside' % min(number, MOST))


def _of_devices(text, every):
    """Yield which GPUs, and whether /dev/shm, are seen inside."""
    devices = _told(text, 'device')
    for need in every:
        if need in GPUS:
            kind, there = GPUS[need][0], set(host_devices(need))
            hidden = sorted(there - set(devices))
            if hidden:
                yield Finding(PROBLEM, 'gpu inside', '%s are not seen inside' % ', '.join(hidden),
                              'see what the runtime says: singularity --debug exec --%s …'
                              % ('nv' if kind == 'NVIDIA' else 'rocm'))
            elif there:
                driver = [path for path in devices if '.so' in path]
                yield Finding(OK if driver or kind == 'AMD' else PROBLEM, 'gpu inside', '%s: %s' % (
                    kind, ', '.join(sorted(there) + driver) if driver or kind == 'AMD' else 'no libcuda.so.1 inside'))
            else:
                yield Finding(NOTE, 'gpu inside', 'no %s GPU on this node to be seen' % kind)
    shm = 'easysif-check shm yes' in text
    yield Finding(OK if shm else PROBLEM, '/dev/shm inside', 'can be written' if shm else 'cannot be written',
                  None if shm else 'look at "mount dev" and "bind path" in the configuration of the runtime')
