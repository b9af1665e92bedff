# SPDX-License-Identifier: GPL-2.0-only
"""From a definition file to one SIF file, as an ordinary user, by whatever this machine has for that.

Bases that a registry has are fetched by us, as other images are; the runtime gets them as files. It makes the image in
a user namespace, with the numbers of /etc/subuid or with the command fakeroot, or with proot: which of them it takes
by itself, and where one of them does not work here it is told to take another one.
"""

import os
import re
import shutil

from easysif.data import helper
from easysif.images import build, definition, packing, pull
from easysif.images.sources import check_certificates
from easysif.images.workspace import remove, workspace
from easysif.run import run
from easysif.runtime import bind

#: What of the caller's environment %post gets: how to reach package indexes from here.
FORWARDED = re.compile(r'(PIP_INDEX_URL|PIP_EXTRA_INDEX_URL|PIP_TRUSTED_HOST|(http|https|ftp|all|no)_proxy)\Z',
                       re.IGNORECASE)
CERTIFICATES = ('PIP_CERT', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')

#: What a runtime says where a way to build does not work here, and the option with which it takes another one.
#: The second: fakeroot of this machine does not start in the image, as in one with another libc; no command has run.
OTHER_WAYS = (
    (re.compile('^FATAL: .*new[ug]idmap|can be ignored with --ignore-subuid', re.MULTILINE), '--ignore-subuid'),
    (re.compile(r'Running post scriptlet\n(?!(?s:.*)^\+ )(?s:.*)If error was from fakeroot', re.MULTILINE),
     '--ignore-fakeroot-command'),
    # the last: proot of this machine needs libraries that are not in the image
    (re.compile('--fakeroot, or the proot command|you can use --remote or --fakeroot|/libs/proot: '), '--fakeroot'),
)

SUBUID = 'usermod --add-subuids 200000-265535 --add-subgids 200000-265535 $USER'
#: What a runtime says where nothing of it works: what is missing, and what to ask the administrators for.
MISSING = (
    (re.compile('requires either a suid installation or unprivileged user namespaces'),
     'user namespaces for ordinary users, or a setuid installation of the runtime',
     'ask for it: sysctl user.max_user_namespaces=15000; or build it elsewhere and write image = "NAME.sif"'),
    # a setuid installation where there are no user namespaces
    (re.compile("requires root or some kind of fake root|error while starting the .faked. daemon"),
     'a command fakeroot that works in the image, or user namespaces for ordinary users',
     'ask for: apt-get install fakeroot, which starts in images with glibc; or sysctl user.max_user_namespaces=15000'),
    (re.compile('could not use fakeroot|--fakeroot, or the proot command|you can use --remote or --fakeroot'),
     'lines for you in /etc/subuid and /etc/subgid, or the command proot, linked statically',
     'put such a proot on PATH, or ask for: %s' % SUBUID),
    (re.compile('failed to Lchown'),
     'lines for you in /etc/subuid and /etc/subgid, without which a directory of other users is no base',
     'make a SIF file of the base: apptainer build base.sif DIRECTORY; or ask for: %s' % SUBUID),
    (re.compile('fakeroot command not found(?s:.*)(Operation not permitted|Invalid argument|set[ug]id|setgroups)'),
     'the command fakeroot, or lines for you in /etc/subuid and /etc/subgid: %post can have no other users',
     'ask for: apt-get install fakeroot; or %s' % SUBUID),
)


def from_definition(definition_path, target, values, runtime, site, tmp_dir, log, where, build_args=None,
                    find_base=lambda name: None, tell=None, bases=None, find_known=lambda fits: ()):
    """Make a SIF file from a definition file, and return what it was made of (dict).

    Relative paths in the definition start at its own directory. ``/tmp`` and ``/var/tmp`` of the build are private:
    the runtime would show those of the host, which ``rm -rf /tmp/*`` in a definition empties.

    :param definition_path: the definition file (str)
    :param target: the SIF file to write, which must not exist (str)
    :param values: what its templates stand for (dict of str)
    :param runtime: the container runtime (runtime.Runtime)
    :param site: its ``squashfs``, ``registry_mirrors``, ``base_images`` and ``ca_certificates`` are used
    :param tmp_dir: directory with room for the unpacked image (str)
    :param log: file that takes all output (str)
    :param where: the recipe, for messages (str)
    :param build_args: values of its build arguments (dict of str)
    :param find_base: finds a base that is a SIF file (callable: str -> path or None)
    :param tell: takes a line for the log now and then (callable: str)
    :param bases: where bases are fetched once for several builds (bases.Bases), None where they are only for this one
    :param find_known: finds the images that are here already by their records, as for `definition.derive`
    :raises EasySIFError: it cannot be read, its base is not to be had, the runtime failed

    The result has ``base`` (as the definition names it), ``base_source`` (path or reference used for it),
    ``base_digest`` ('' if unknown) and ``definition`` (the text).
    """
    check_certificates(site.ca_certificates, where)
    derived = definition.derive(definition_path, values, site, where, build_args, find_base, find_known)
    with workspace(tmp_dir, target, log, where) as work:
        env = build.environment(runtime, work, _inside(site, work), site.ca_certificates)
        argv = _argv(runtime, env, work, site, log, where)
        for name in ('tmp', 'var/tmp'):
            argv += ['--bind', bind(os.path.join(work, 'inside', name), '/' + name)]
        path = os.path.join(work, 'definition.def')
        with open(path, 'w', encoding='utf-8', errors='surrogateescape', newline='') as handle:
            handle.write(derived.with_bases(_fetch(derived, work, site, where, tell, bases), where))
        _build(argv, [os.path.abspath(target), path], env, os.path.dirname(os.path.abspath(definition_path)), log,
               where, "definition '%s'" % os.path.basename(definition_path))
    return {'base': derived.base.reference, 'base_source': derived.base.source, 'base_digest': derived.base.digest,
            'definition': derived.text}


def _fetch(derived, work, site, where, tell, bases):
    """Bring the bases here that registries have; return their paths by the reference that was used (dict of str)."""
    paths = {}
    for base in derived.bases:
        if base.resolved and base.source not in paths:
            path = paths[base.source] = os.path.join(work, 'base-%d' % len(paths))
            if bases:
                bases.bring(base, path, work, site, tell)
            else:
                (pull.sif if base.is_sif else pull.layout)(base.resolved, path, site, where, tell)
    return paths


def _build(argv, rest, env, cwd, log, where, subject):
    """Have the runtime build, by one way after the other where one does not work on this machine."""
    options, (made, _) = [], rest
    while True:
        failure = build.attempt([*argv, *options, *rest], made, env, cwd, log)
        if not failure:
            return
        said = failure.said()
        other = next((option for pattern, option in OTHER_WAYS if option not in options and pattern.search(said)), None)
        if not other:
            raise failure.error(where, subject, missing=next(
                ((what, hint) for pattern, what, hint in MISSING if pattern.search(said)), None))
        options.append(other)
        if os.path.lexists(made):
            remove(made, log)
        with open(log, 'a', encoding='utf-8') as handle:
            handle.write('easysif: that does not work on this machine, another way is tried: %s\n' % other)


def _inside(site, work):
    """Return the variables that %post gets (dict), and lay the site's certificates out for it."""
    inside = {key: value for key, value in os.environ.items() if FORWARDED.match(key)}
    if site.ca_certificates:
        # not bound over the image's own: where it has none that is fatal, where it has, no update of it would work;
        # in a hidden directory, for definitions that end with rm -rf /tmp/*
        shutil.copyfile(site.ca_certificates, os.path.join(work, 'inside/tmp/.easysif/ca-certificates.crt'))
        inside.update((name, '/tmp/.easysif/ca-certificates.crt') for name in CERTIFICATES)
    return inside


def _argv(runtime, env, work, site, log, where):
    """Return the command up to its target and source (list of str), which may add to ``env``."""
    mksquashfs = build.packer(env, where)
    argv = [runtime.path, 'build', '--disable-cache']
    options = ' '.join(packing.options(runtime, mksquashfs, env, work, site.squashfs, log))
    if '--mksquashfs-args' in run([runtime.path, 'build', '--help'], env=env, timeout=60).stdout:
        return argv + ['--mksquashfs-args', options]
    # SingularityCE and old Apptainer have no such option, but take the first mksquashfs on PATH
    shutil.copy(helper('mksquashfs'), os.path.join(work, 'bin'))
    os.chmod(os.path.join(work, 'bin', 'mksquashfs'), 0o755)
    env.update(PATH='%s:%s' % (os.path.join(work, 'bin'), env.get('PATH', os.defpath)),
               EASYSIF_MKSQUASHFS=mksquashfs, EASYSIF_MKSQUASHFS_OPTIONS=options)
    return argv
