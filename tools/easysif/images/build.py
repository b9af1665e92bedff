# SPDX-License-Identifier: GPL-2.0-only
"""From an image of a registry or an archive to one SIF file, by the container runtime.

The runtime works in a private directory below the one it is given, and its cache is off. The SIF is packed as the
site's ``squashfs`` says.
"""

import os
import re
import shlex
import shutil
from dataclasses import dataclass

from easysif.errors import TOOL, EasySIFError
from easysif.images import archive, packing, pull, space
from easysif.images.workspace import remove, workspace
from easysif.run import run
from easysif.text import exit_code

COLOURS = re.compile(r'\x1b\[[0-9;]*m')  # of SingularityCE, also in a file
NOISE = re.compile(r'(FATAL|ERROR):   |WARNING: |INFO:    |\[notice\]')  # not what went wrong in %post
FULL = re.compile('no space left on device|disk quota exceeded', re.IGNORECASE)
LOGINS = ('DOCKER_USERNAME', 'DOCKER_PASSWORD')
HEAD, TAIL = 1 << 12, 1 << 16  #: bytes of a log that are looked at: in the beginning is said how it is built
LINES, WIDEST = 8, 200         #: lines of it that an error shows, and characters of each


def from_registry(resolved, target, runtime, site, tmp_dir, log, where=None, tell=None):
    """Make a SIF file of an image that a registry has.

    :param resolved: what to fetch (registry.Resolved)
    :param target: the SIF file to write, which must not exist (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param site: its ``squashfs`` and ``ca_certificates`` are used
    :param tmp_dir: directory with room for the unpacked image (str)
    :param log: file that takes all output (str)
    :param where: the recipe, for messages (str), the image's name where None
    :param tell: takes a line for the log now and then (callable: str)
    :raises EasySIFError: it is not to be had, or the runtime failed
    """
    where = where or resolved.name
    with workspace(tmp_dir, target, log, where) as work:
        env = environment(runtime, work)
        pack = packer(env, where)
        layout = os.path.join(work, 'layout')
        pull.layout(resolved, layout, site, where, tell)
        _make('oci:layout', layout, resolved.architecture, pack, env, work, target, runtime, site, log, where,
              "image '%s'" % resolved.name)


def from_archive(path, scheme, target, runtime, site, tmp_dir, log, where):
    """Make a SIF file of an archive that ``docker save``, podman or skopeo wrote.

    :param path: the archive (str)
    :param scheme: ``docker-archive`` or ``oci-archive`` (str)
    :raises EasySIFError: it is none, is for another machine, or the runtime failed

    The other parameters are those of from_registry.
    """
    found = archive.architecture(path, scheme, where)
    with workspace(tmp_dir, target, log, where) as work:
        env = environment(runtime, work)
        pack = packer(env, where)
        space.check(work, os.path.getsize(path), 'at least, to unpack %s' % path, where, pull.MORE_ROOM)
        link = os.path.join(work, 'archive.tar')  # a colon in its path would be taken for the end of it
        os.symlink(os.path.abspath(path), link)
        _make('%s:archive.tar' % scheme, link, found, pack, env, work, target, runtime, site, log, where,
              "archive '%s'" % os.path.basename(path))


def from_library(reference, target, runtime, site, tmp_dir, log, where):
    """Have the runtime fetch an image of a library, which is a SIF file already.

    :param reference: what the recipe names (Reference)
    :raises EasySIFError: the runtime failed

    The other parameters are those of from_registry.
    """
    with workspace(tmp_dir, target, log, where) as work:
        target = os.path.abspath(target)
        env = environment(runtime, work, ca_certificates=site.ca_certificates)
        _step([runtime.path, 'pull', '--disable-cache', target, reference.text], target, env, work, log, where,
              "image '%s'" % reference.text, failed='could not be fetched',
              hint='which library is asked says: %s remote list' % runtime.name)


def _make(source, path, architecture, pack, env, work, target, runtime, site, log, where, subject):
    """Have the runtime unpack an image, and pack it as the site wants it.

    :param source: what the runtime is given, which it looks for in ``work`` (str)
    :param path: what can go when that is done (str)
    """
    target, tree, packed = os.path.abspath(target), os.path.join(work, 'image'), os.path.join(work, 'packed')

    def step(argv, made):
        _step(argv, made, env, work, log, where, subject)

    step([runtime.path, 'build', '--disable-cache', '--sandbox', tree, source], tree)
    remove(path, log)
    # as the runtime itself packs, but for the site's options: in an image made by a user everything is root's
    step([pack, tree, packed, '-noappend', '-no-recovery', '-no-progress',
          *([] if os.geteuid() == 0 else ['-all-root']),
          *packing.options(runtime, pack, env, work, site.squashfs, log)], packed)
    # now, or the disk is busy with what goes anyway when the image is synced; this is what makes it fast
    remove(tree, log)
    for argv in packing.step_sif(runtime, target, packed, architecture):
        step(argv, target)


def environment(runtime, work, inside=None, ca_certificates=None):
    """Return the environment of a build (dict).

    :param runtime: the container runtime (runtime.Runtime)
    :param work: the private directory of the build (str)
    :param inside: variables that %post gets (dict)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    """
    prefix = runtime.name.upper() + '_'
    env = runtime.environment(inside=inside, extra={prefix + 'TMPDIR': os.path.join(work, 'runtime'),
                                                    prefix + 'CACHEDIR': os.path.join(work, 'cache')})
    if ca_certificates:
        env['SSL_CERT_FILE'] = ca_certificates
    # registries are asked by us; a login in variables the runtime would send to whatever it asks
    return {key: value for key, value in env.items() if not key.endswith(LOGINS)}


def packer(env, where):
    """Return the path of mksquashfs (str).

    :param env: the environment of the build (dict)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: it is not there
    """
    mksquashfs = shutil.which('mksquashfs', path='%s:/usr/sbin:/sbin' % env.get('PATH', os.defpath))
    if not mksquashfs:
        raise EasySIFError(where, 'mksquashfs is not on PATH, and no SIF file is made without it', exit_code=TOOL,
                           hint='apt-get install squashfs-tools, or have your site install it')
    return mksquashfs


@dataclass(frozen=True)
class Failure:
    """A command of a build that failed: what it left (run.Result), and its output in a log from a position on."""

    result: object
    log: str
    begin: int

    def said(self):
        """Return the beginning and the end of what it printed (str)."""
        with open(self.log, 'rb') as handle:
            handle.seek(self.begin)
            head, rest = handle.read(HEAD), handle.tell()
            handle.seek(max(rest, os.path.getsize(self.log) - TAIL))
            return COLOURS.sub('', (head + handle.read()).decode('utf-8', 'replace'))

    def error(self, where, subject, failed='could not be made into a SIF file', missing=None, hint=None):
        """Return the error that gives the reason of the runtime and what was printed last before it (EasySIFError).

        :param where: the recipe, for messages (str)
        :param subject: what was to be made (str)
        :param failed: what to say of it (str)
        :param missing: what this machine has not, and what to do (pair of str), None where it is not that
        :param hint: what to do (str), to read the log where None
        """
        lines = [line.strip() for line in self.said().splitlines()]
        # the runtime pads its words ("ERROR:   "), which tells its lines from those of pip and others
        reason = next((line[9:] for line in lines if line.startswith(('FATAL:   ', 'ERROR:   '))), '')
        last = [line[:WIDEST] for line in lines if line and not NOISE.match(line)][-LINES:]
        what, hint = missing or ('', hint or 'less %s' % shlex.quote(self.log))
        if any(FULL.search(line) for line in lines[-10:]):
            hint = pull.MORE_ROOM
        facts = [('command', shlex.join(self.result.argv)), ('exit code', exit_code(self.result.status)),
                 ('reason', reason), ('missing', what), ('last lines' if len(last) > 1 else 'last line',
                                                         '\n'.join(last)), ('log', self.log)]
        return EasySIFError(where, '%s %s' % (subject, failed), exit_code=TOOL, hint=hint,
                            facts=[(label, value) for label, value in facts if value])


def attempt(argv, made, env, cwd, log):
    """Run a command of a build to its end; return None where it made what it should, else why not (Failure).

    :param argv: command and arguments (list of str)
    :param made: the file or directory that it makes (str)
    :param env: its environment (dict)
    :param cwd: its working directory (str)
    :param log: file that takes all output (str)
    """
    begin = os.path.getsize(log) if os.path.exists(log) else 0
    result = run(argv, env=env, cwd=cwd, log=log, check=False)
    return None if result.status == 0 and os.path.exists(made) else Failure(result, log, begin)


def _step(argv, made, env, cwd, log, where, subject, **words):
    """Run a command of a build to its end.

    :raises EasySIFError: it failed
    """
    failure = attempt(argv, made, env, cwd, log)
    if failure:
        raise failure.error(where, subject, **words)
