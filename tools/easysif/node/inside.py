# SPDX-License-Identifier: GPL-2.0-only
"""What an image sees of this node: the libraries that binds bring with all that they need, GPUs, /dev/shm."""

import os
import re

from easysif import host_paths, needs
from easysif.data import DIRECTORY
from easysif.errors import EasySIFError
from easysif.node.finding import NOTE, OK, PROBLEM, Finding
from easysif.node.host import GPUS
from easysif.node.host import devices as host_devices
from easysif.run import run
from easysif.site_plan import GPU_SWITCHES

HELPER = os.path.join(DIRECTORY, 'helpers', 'check-libraries')
MOST = 400      #: libraries that are looked at
TIMEOUT = 300   #: seconds for all of them

LIBRARY = re.compile(r'\.so(\.[0-9.]+)?$')
MISSING = re.compile(r'\s*(\S+) => not found')
VERSION = re.compile(r".*: (?:.*: )?version `([^']+)' not found \(required by ([^)]+)\)")
SYMBOL = re.compile(r'(?:symbol lookup error: |undefined symbol: )(?:.*undefined symbol: )?([^\s,]+)')


def check(image, site, wanted, runtime):
    """Yield what is wrong inside of an image with what the site binds for needs, and what is well.

    :param image: the SIF file (str)
    :param site: the resolved site (Site)
    :param wanted: the needs (sequence of str)
    :param runtime: the container runtime (Runtime)
    """
    every = needs.closure(wanted, site.provides)
    parts = [site.provides[need] for need in every if need in site.provides]
    binds = host_paths.expanded([*(site.force.get('binds') or ()), *site.binds,
                                 *(bind for part in parts for bind in part.binds)])
    seen = {}
    for bind in binds:
        if host_paths.matches(bind):
            seen.setdefault(host_paths.target(bind), bind)
    search = host_paths.directories(path for part in parts for path in part.library_path)
    libraries = list(_libraries(seen, search))
    switches = {'%s_%s' % (name, GPU_SWITCHES[need]): '1' for need in every if need in GPU_SWITCHES
                for name in ('APPTAINER', 'SINGULARITY')}
    variables = {name: value for part in reversed(parts) for name, value in part.container_env.items()}
    if search:
        variables['LD_LIBRARY_PATH'] = ':'.join(search)
    argv = runtime.exec_argv(image, ['/bin/sh', '/easysif-check', *libraries[:MOST]],
                             binds=[*seen.values(), (HELPER, '/easysif-check', 'ro')], flags=['--no-home'])
    try:
        told = run(argv, env=runtime.environment(switches, inside=variables), check=False, timeout=TIMEOUT)
    except EasySIFError as err:
        yield Finding(PROBLEM, 'inside', err.what, err.hint)
        return
    if 'easysif-check done' not in told.stdout:
        yield Finding(PROBLEM, 'inside', 'no shell of the image could be started (%s)'
                      % (told.stderr.strip().split('\n')[-1] or 'exit code %s' % told.status),
                      '%s exec %s /bin/sh' % (runtime.name, image))
        return
    yield from _of_libraries(told.stdout, len(libraries))
    yield from _of_devices(told.stdout, every)


def _libraries(seen, search):
    """Yield the paths inside of libraries that binds bring: files, and those in directories that are searched (str)."""
    for target, bind in seen.items():
        source = bind.partition(':')[0]
        if os.path.isfile(source) and LIBRARY.search(target):
            yield target
    for directory in search:
        covering = [target for target in seen if directory == target or directory.startswith(target + '/')]
        if covering:
            target = max(covering, key=len)
            host = os.path.join(seen[target].partition(':')[0], os.path.relpath(directory, target))
            for name in _names(host):
                if LIBRARY.search(name) and os.path.join(directory, name) not in seen:
                    yield os.path.join(directory, name)


def _names(directory):
    try:
        return sorted(os.listdir(directory))
    except OSError:  # it is not there, or not for us
        return []


def _of_libraries(text, number):
    """Yield what the loader of the image says of each library."""
    wrong, library = {}, None
    for line in text.splitlines():
        if line.startswith('easysif-check library '):
            library = line.partition('library ')[2]
        elif line.startswith('easysif-check'):
            library = None
            if line == 'easysif-check loader none':
                yield Finding(NOTE, 'libraries', 'the image has no ldd and no loader that is known, so that libraries '
                              'of the host cannot be tried')
        elif library:
            found = VERSION.match(line)
            if found:
                wrong.setdefault((library, 'needs %s, which the image does not have' % found.group(1)), None)
            elif MISSING.match(line):
                wrong.setdefault((library, 'needs %s, which is not inside' % MISSING.match(line).group(1)), None)
            elif 'undefined symbol' in line and SYMBOL.search(line):
                wrong.setdefault((library, 'has the unresolved symbol %s' % SYMBOL.search(line).group(1)), None)
    for library, what in wrong:
        yield Finding(PROBLEM, 'libraries', '%s %s' % (library, what), 'use an image whose C library is not older than '
                      'that of the host' if 'GLIBC' in what else 'bind what it needs as well')
    if number and not wrong and 'easysif-check loader none' not in text:
        yield Finding(OK, 'libraries', '%d of the host, all that they need is found inside' % min(number, MOST))


def _of_devices(text, every):
    """Yield which GPUs, and whether /dev/shm, are seen inside."""
    devices = [line.partition('device ')[2] for line in text.splitlines() if line.startswith('easysif-check device ')]
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
