# SPDX-License-Identifier: GPL-2.0-only
"""The container runtime: which one, shielded from loaded modules, and how a command is run with it.

Imports errors and run only. Binds, GPU and environment of a module are decided elsewhere: here a call gets what
it is given and nothing that happens to be in the caller's shell.
"""

import os
import re
import shutil
from dataclasses import dataclass

from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.run import run

NAMES = ('apptainer', 'singularity')

#: what of the runtime's own settings is the user's and survives: who they are at a registry, keys of encrypted
#: images, how containers are made on this machine, where its files go. All else may come from a loaded module.
KEPT = ('DOCKER_USERNAME', 'DOCKER_PASSWORD', 'LOGIN_USERNAME', 'LOGIN_PASSWORD', 'AUTHFILE', 'ENCRYPTION_PASSPHRASE',
        'ENCRYPTION_PEM_PATH', 'USERNS', 'CONFIGDIR', 'KEYSDIR', 'CACHEDIR', 'TMPDIR')

#: variables of the caller that would change the runtime itself or, as it hands them on, what runs inside
DROPPED = re.compile(r'(APPTAINER|SINGULARITY)(ENV)?_|PYTHON|CONDA_|_CE_|BASH_FUNC_|'
                     r'(LD_PRELOAD|LD_LIBRARY_PATH|LD_AUDIT|VIRTUAL_ENV|WITH_(CONDA|VENV|CONDA_VENV)|ENV|BASH_ENV)$')


@dataclass(frozen=True)
class Runtime:
    """A container runtime: its absolute path (str), ``apptainer`` or ``singularity`` (str), version (tuple of int)."""

    path: str
    name: str
    version: tuple

    def environment(self, extra=None, inside=None):
        """Return the environment for a call of the runtime, free of what loaded modules set (dict).

        :param extra: variables to add (dict)
        :param inside: variables that the command inside the container gets, each as it is (dict)
        """
        kept = {prefix.upper() + '_' + suffix for prefix in NAMES for suffix in KEPT}
        env = {key: value for key, value in os.environ.items() if key in kept or not DROPPED.match(key)}
        # without this a `$(…)` in a value is run by a shell inside the container
        env[self.name.upper() + '_NO_EVAL'] = '1'
        env.update({'%sENV_%s' % (self.name.upper(), key): value for key, value in (inside or {}).items()})
        env.update(extra or {})
        return env

    def exec_argv(self, sif, command, binds=(), flags=()):
        """Return the command line that runs a command inside an image, without the runtime's notices (list of str).

        Errors of the runtime stay visible. Variables for the inside go through :meth:`environment`.

        :param sif: the image file (str)
        :param command: command and arguments (list of str)
        :param binds: what else is visible inside: pairs (source, target), triples with options, or texts in the
                      runtime's own form (sequence)
        :param flags: more options of ``exec`` (sequence of str)
        :raises EasySIFError: a path that a bind cannot carry
        """
        argv = [self.path, '--silent', 'exec', *flags]
        for item in binds:
            argv += ['--bind', item if isinstance(item, str) else bind(*item)]
        # an absolute path is never taken for an option nor for docker:…
        return argv + [os.path.abspath(sif), *command]


def bind(source, target, options=''):
    """Return a bind in the runtime's form (str).

    :param source: path on the host (str)
    :param target: path inside (str)
    :param options: as ``ro`` or ``image-src=/,ro`` (str)
    :raises EasySIFError: a path holds what separates binds
    """
    for path in (source, target):
        if re.search('[:,\n]', path):
            raise EasySIFError(path, 'cannot be seen inside a container: its path holds a colon, comma or newline',
                               hint='move it to a path without these characters')
    return ':'.join(part for part in (source, target, options) if part)


def find(site, where='easysif'):
    """Return the runtime that a site uses (Runtime).

    :param site: its settings; ``site.runtime`` is ``auto``, a name or an absolute path
    :param where: what needs it, for messages (str)
    :raises EasySIFError: there is none, or it does not start
    """
    if site.runtime == 'auto':
        path = next(filter(None, map(shutil.which, NAMES)), None)
        if path is None:
            raise EasySIFError(where, 'no container runtime: neither apptainer nor singularity is on PATH',
                               hint='module load apptainer, or set runtime in your site file', exit_code=TOOL)
    else:
        path = shutil.which(site.runtime)
        if path is None:
            absolute = os.path.isabs(site.runtime)
            raise EasySIFError(where, "no container runtime: '%s' is not %s" % (
                               site.runtime, 'an executable file' if absolute else 'on PATH'),
                               facts=[('also here', ', '.join(filter(shutil.which, NAMES)) or 'none')],
                               hint='set runtime in your site file (auto takes what is on PATH)', exit_code=TOOL)
    path = os.path.abspath(path)
    # the runtime says itself which one it is: `singularity` is a link to apptainer where both names are kept
    text = run([path, '--version'], env=Runtime(path, NAMES[0], ()).environment(), timeout=60).stdout
    number = re.search(r'(\d+)\.(\d+)(?:\.(\d+))?', text)
    if not number:
        raise EasySIFError(where, "'%s' is no container runtime" % path,
                           facts=[('--version', text.strip() or '(nothing)')],
                           hint='set runtime in your site file', exit_code=INPUT)
    name = NAMES[0] if NAMES[0] in text.lower() else NAMES[1]
    return Runtime(path, name, tuple(int(part or 0) for part in number.groups()))
