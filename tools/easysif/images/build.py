# SPDX-License-Identifier: GPL-2.0-only
"""From an image of a registry, an archive or a definition file to one SIF file, by the container runtime.

The runtime works in a private directory below the one it is given, and its cache is off. The SIF is packed as the
site's ``squashfs`` says.
"""

import os
import re
import shlex
import shutil

from easysif.data import helper
from easysif.errors import TOOL, EasySIFError
from easysif.images import archive, credentials, definition, pull, space
from easysif.images.sif import architecture_code
from easysif.images.sources import check_certificates
from easysif.images.workspace import remove, workspace
from easysif.resources import mksquashfs_options
from easysif.run import describe, run
from easysif.runtime import bind

#: What of the caller's environment %post gets: how to reach package indexes from here.
FORWARDED = re.compile(r'(PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|PIP_TRUSTED_HOST|(http|https|ftp|all|no)_proxy)\Z',
                       re.IGNORECASE)
CERTIFICATES = ('PIP_CERT', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')
NOISE = re.compile(r'(FATAL|ERROR):   |WARNING: |INFO:    |\[notice\]|\+ ')  # not what went wrong in %post
FULL = re.compile('no space left on device|disk quota exceeded', re.IGNORECASE)
MORE_ROOM = 'export EASYSIF_TMP_DIR=<a directory with more room>'
LOGINS = ('DOCKER_USERNAME', 'DOCKER_PASSWORD')


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
        env = _environment(runtime, work, set())
        pack = _packer(env, where)
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
        env = _environment(runtime, work, set())
        pack = _packer(env, where)
        space.check(work, os.path.getsize(path), 'at least, to unpack %s' % path, where, MORE_ROOM)
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
        env = _environment(runtime, work, set(), ca_certificates=site.ca_certificates)
        _step([runtime.path, 'pull', '--disable-cache', target, reference.text], target, env, work, log, where,
              "image '%s'" % reference.text, failed='could not be fetched')


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
          *([] if os.geteuid() == 0 else ['-all-root']), *mksquashfs_options(site.squashfs)], packed)
    # now, or the disk is busy with what goes anyway when the image is synced; this is what makes it fast
    remove(tree, log)
    step([runtime.path, 'sif', 'new', target], target)
    step([runtime.path, 'sif', 'add', '--datatype', '4', '--parttype', '2', '--partfs', '1', '--partarch',
          architecture_code(architecture), '--groupid', '1', target, packed], target)


def from_definition(definition_path, target, values, runtime, site, tmp_dir, log, where, build_args=None,
                    find_base=lambda name: None):
    """Make a SIF file from a definition file, and return what it was made of (dict).

    Relative paths in the definition start at its own directory. ``/tmp`` and ``/var/tmp`` of the build are private:
    the runtime would show those of the host, which ``rm -rf /tmp/*`` in a definition empties.

    :param definition_path: the definition file (str)
    :param values: what its templates stand for (dict of str)
    :param where: the recipe, for messages (str)
    :param build_args: values of its build arguments (dict of str)
    :param find_base: finds a base that is a SIF file (callable: str -> path or None)
    :raises EasySIFError: it cannot be read, its base is not to be had, the runtime failed

    The other parameters are those of from_registry. The result has ``base`` (as the definition names it),
    ``base_source`` (path or reference used for it), ``base_digest`` ('' if unknown) and ``definition`` (the text).
    """
    check_certificates(site.ca_certificates, where)
    derived = definition.derive(definition_path, values, site, where, build_args, find_base)
    with workspace(tmp_dir, target, log, where) as work:
        hosts = {(base.source[len('docker://'):].partition('/')[0], base.mirror)
                 for base in derived.bases if base.is_pulled}
        env = _environment(runtime, work, hosts, _inside(site, work), site.ca_certificates)
        argv = _argv(runtime, env, work, site, derived.plain_http, where)
        for name in ('tmp', 'var/tmp'):
            argv += ['--bind', bind(os.path.join(work, 'inside', name), '/' + name)]
        path = os.path.join(work, 'definition.def')
        with open(path, 'w', encoding='utf-8', errors='surrogateescape', newline='') as handle:
            handle.write(derived.text)
        _step(argv + [os.path.abspath(target), path], target, env, os.path.dirname(os.path.abspath(definition_path)),
              log, where, "definition '%s'" % os.path.basename(definition_path))
    return {'base': derived.base.reference, 'base_source': derived.base.source, 'base_digest': derived.base.digest,
            'definition': derived.text}


def _environment(runtime, work, hosts, inside=None, ca_certificates=None):
    """Return the environment of a build (dict).

    :param hosts: what it fetches from, each with whether it is a mirror (set of (str, bool))
    :param inside: variables that %post gets (dict)
    :param ca_certificates: file with the certificates to trust, the system's where None (str)
    """
    prefix = runtime.name.upper() + '_'
    env = runtime.environment(inside=inside, extra={prefix + 'TMPDIR': os.path.join(work, 'runtime'),
                                                    prefix + 'CACHEDIR': os.path.join(work, 'cache')})
    if ca_certificates:
        env['SSL_CERT_FILE'] = ca_certificates
    # a login in variables goes to whatever is asked: only the one that is meant for the one host
    env = {key: value for key, value in env.items() if not key.endswith(LOGINS)}
    if len(hosts) == 1:
        host, mirror = hosts.pop()
        login = credentials.find(host, variables=not mirror)
        env.update(login.variables(prefix) if login else {})
    return env


def _inside(site, work):
    """Return the variables that %post gets (dict), and lay the site's certificates out for it."""
    inside = {key: value for key, value in os.environ.items() if FORWARDED.match(key)}
    if site.ca_certificates:
        # not bound over the image's own: where it has none that is fatal, where it has, no update of it would work;
        # in a hidden directory, for definitions that end with rm -rf /tmp/*
        shutil.copyfile(site.ca_certificates, os.path.join(work, 'inside/tmp/.easysif/ca-certificates.crt'))
        inside.update((name, '/tmp/.easysif/ca-certificates.crt') for name in CERTIFICATES)
    return inside


def _packer(env, where):
    """Return the path of mksquashfs (str).

    :raises EasySIFError: it is not there
    """
    mksquashfs = shutil.which('mksquashfs', path='%s:/usr/sbin:/sbin' % env.get('PATH', os.defpath))
    if not mksquashfs:
        raise EasySIFError(where, 'mksquashfs is not on PATH, and no SIF file is made without it', exit_code=TOOL,
                           hint='apt-get install squashfs-tools, or have your site install it')
    return mksquashfs


def _argv(runtime, env, work, site, plain_http, where):
    """Return the command up to its target and source (list of str), which may add to ``env``."""
    mksquashfs = _packer(env, where)
    argv, options = [runtime.path, 'build', '--disable-cache'], ' '.join(mksquashfs_options(site.squashfs))
    if '--mksquashfs-args' in run([runtime.path, 'build', '--help'], env=env, timeout=60).stdout:
        argv += ['--mksquashfs-args', options]
    else:
        # SingularityCE and old Apptainer have no such option, but take the first mksquashfs on PATH
        shutil.copy(helper('mksquashfs'), os.path.join(work, 'bin'))
        os.chmod(os.path.join(work, 'bin', 'mksquashfs'), 0o755)
        env.update(PATH='%s:%s' % (os.path.join(work, 'bin'), env.get('PATH', os.defpath)),
                   EASYSIF_MKSQUASHFS=mksquashfs, EASYSIF_MKSQUASHFS_OPTIONS=options)
    return argv + (['--no-https'] if plain_http else [])


def _step(argv, made, env, cwd, log, where, subject, failed='could not be made into a SIF file'):
    """Run a command of a build to its end.

    :param failed: what to say of the subject if it fails (str)
    :param made: the file or directory that it makes (str)
    :raises EasySIFError: it failed; with the reason that the runtime gives and what was printed last before it
    """
    begin = os.path.getsize(log) if os.path.exists(log) else 0
    result = run(argv, env=env, cwd=cwd, log=log, check=False)
    if result.status == 0 and os.path.exists(made):
        return
    lines = _lines(log, begin)
    # the runtime pads its words ("ERROR:   "), which tells its lines from those of pip and others
    reason = next((line[9:] for line in lines if line.startswith(('FATAL:   ', 'ERROR:   '))), '')
    last = next((line for line in reversed(lines) if line and not NOISE.match(line)), '')
    facts = [('command', shlex.join(result.argv)), ('exit code', describe(result.status)), ('reason', reason),
             ('last line', last), ('log', log)]
    full = any(FULL.search(line) for line in lines[-10:])
    raise EasySIFError(where, '%s %s' % (subject, failed), exit_code=TOOL,
                       facts=[(label, value) for label, value in facts if value],
                       hint=MORE_ROOM if full
                       else 'less %s' % shlex.quote(log))


def _lines(log, begin):
    """Return the last lines of a log that were written after a position in it (list of str)."""
    with open(log, 'rb') as handle:
        handle.seek(max(begin, os.path.getsize(log) - (1 << 16)))
        return [line.strip() for line in handle.read().decode('utf-8', 'replace').splitlines()]
