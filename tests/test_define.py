# SPDX-License-Identifier: GPL-2.0-only
"""Definition files are built by whatever a machine has for ordinary users; and what is missing is said."""

import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from easysif import resources
from easysif.errors import TOOL, EasySIFError
from easysif.images import build, define, packing
from easysif.runtime import Runtime
from helpers_registry import tiny_rootfs

SETTINGS = "squashfs={'compressor': 'zstd', 'level': 3, 'block': '256K'}, registry_mirrors={}, base_images={}, " \
    'registries=None, ca_certificates=None'
SCRIPT = '''
from types import SimpleNamespace
from easysif import runtime
from easysif.errors import EasySIFError
from easysif.images import build, define, packing
site = SimpleNamespace(runtime='apptainer', %s)
try:
    define.from_definition('x.def', 'x.sif', {}, runtime.find(site), site, '.', 'log', 'x.eb')
    print('made')
except EasySIFError as err:
    print(err)
''' % SETTINGS

#: what a machine lacks: files that nobody sees there, and namespaces
LACKING = {
    'lines in /etc/subuid': 'mount --bind "$EMPTY" /etc/subuid',
    'newuidmap': 'mount --bind "$EMPTY" "$(command -v newuidmap)"',
    'user namespaces': 'mount --bind "$EMPTY" /etc/subuid; echo 0 >/proc/sys/user/max_user_namespaces',
}


@pytest.fixture
def make(tmp_path):
    """A function that makes an image where something is lacking, and returns what is said and the log (str, str)."""
    tiny_rootfs(tmp_path / 'root')
    (tmp_path / 'x.def').write_text('Bootstrap: localimage\nFrom: root\n%post\n  id -u\n  echo it is >/what\n')
    (tmp_path / 'empty').write_text('')

    def call(lacking):
        argv = ['unshare', '--user', '--mount', '--map-current-user', '--keep-caps', 'sh', '-ec',
                LACKING[lacking] + '; exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"', 'sh', sys.executable,
                '-c', SCRIPT]
        env = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.dirname(resources.__file__)),
                   EMPTY=str(tmp_path / 'empty'), PATH='%s:/usr/sbin:/sbin' % os.environ['PATH'])
        done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True, check=True)
        left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith('easysif-build-'))
        assert left == [] and (tmp_path / 'x.sif').exists() is (done.stdout == 'made\n')
        return done.stdout, (tmp_path / 'log').read_text()
    return call


@pytest.mark.parametrize('lacking', ['lines in /etc/subuid', 'newuidmap'])
def test_an_image_is_made_without(make, lacking):
    """The tiny image has no getopt, which fakeroot of the host would need in it."""
    said, log = make(lacking)
    assert said == 'made\n', said + log
    assert ('--ignore-subuid' in log) is (lacking == 'newuidmap')


def test_without_user_namespaces_it_is_said_what_is_missing(make):
    said, _ = make('user namespaces')
    assert said.startswith("x.eb: definition 'x.def' could not be made into a SIF file\n  command    ")
    assert said.endswith(
        '\n  reason     Building from a definition file unprivileged requires either a suid installation or '
        'unprivileged user namespaces'
        '\n  missing    user namespaces for ordinary users, or a setuid installation of the runtime'
        '\n  log        log'
        '\nhint: ask for it: sysctl user.max_user_namespaces=15000; or build it elsewhere and write image = "NAME.sif"'
        '\n')


CE = '--remote, --fakeroot, or the proot command are required to build this source as a non-root user'
CE_HINT = 'put such a proot on PATH, or ask for: usermod --add-subuids 200000-265535 --add-subgids 200000-265535 $USER'
NO_FAKEROOT = "echo 'INFO:    fakeroot command not found'; echo 'chown: x: Operation not permitted'"

NO_NAMESPACE = 'case "$*" in *--ignore-subuid*) %s;; *) echo "INFO:    /etc/subuid mapping can be ignored with ' \
    '--ignore-subuid"; fail "/etc/subuid mapping found but no user namespace available for fakeroot";; esac'
NO_NAMESPACE_HINT = (
    'a command fakeroot that works in the image, or user namespaces for ordinary users',
    'ask for: apt-get install fakeroot, which starts in images with glibc; or sysctl user.max_user_namespaces=15000')


@pytest.fixture
def standin(tmp_path):
    """A function that builds with a runtime that does as a script says, and returns with which options it was called.

    No machine has all of the runtimes.
    """
    def call(script):
        path = tmp_path / 'runtime'
        path.write_text(textwrap.dedent('''\
            #!/bin/sh
            [ "$2" = --help ] && exit 0
            [ "$1" = build ] || exit 1
            echo "$*" >>%s
            for last; do made=$before before=$last; done
            fail() { echo "FATAL:   $*" >&2; exit 255; }
            %s
            ''') % (tmp_path / 'calls', script))
        path.chmod(0o755)
        (tmp_path / 'x.def').write_text('Bootstrap: scratch\n')
        site = SimpleNamespace(registry_mirrors={}, registries=None, base_images={}, ca_certificates=None,
                               squashfs={'compressor': 'zstd', 'level': 3, 'block': '256K'})
        (tmp_path / 'work').mkdir()
        try:
            define.from_definition(str(tmp_path / 'x.def'), str(tmp_path / 'x.sif'), {},
                                   Runtime(str(path), 'singularity', (4, 1)), site, str(tmp_path / 'work'),
                                   str(tmp_path / 'log'), 'x.eb')
        finally:
            calls = [line.split() for line in (tmp_path / 'calls').read_text().splitlines()]
            found = [[word for word in line if word.startswith('--') and word not in ('--disable-cache', '--bind')]
                     for line in calls]
        return found
    return call


@pytest.mark.parametrize('script, calls', [
    ('case "$*" in *--fakeroot*) touch "$made";; *) fail "%s";; esac' % CE, [[], ['--fakeroot']]),
    # as SingularityCE 4.1.1 and Debian's proot 5.1.0 say it, with colours
    ('case "$*" in *--fakeroot*) touch "$made";; *) echo "/.singularity.d/libs/proot: error while loading shared '
     'libraries: libtalloc.so.2: cannot open"; printf "\\033[91mFATAL:   no\\n"; exit 1;; esac', [[], ['--fakeroot']]),
    ('case "$*" in *--ignore-fakeroot-command*) touch "$made";; *) echo "INFO:    Running post scriptlet"; '
     'echo "fakeroot: usage"; echo "INFO:    If error was from fakeroot, try"; touch "$made"; fail no;; esac',
     [[], ['--ignore-fakeroot-command']]),
    ('case "$*" in *--ignore-subuid*) touch "$made";; *) fail "newgidmap must be owned by the root user to set up";; '
     'esac', [[], ['--ignore-subuid']]),
    ('touch "$made"', [[]]),
])
def test_another_way_is_tried_where_one_does_not_work_here(standin, script, calls):
    assert standin(script) == calls


@pytest.mark.parametrize('script, missing, hint', [
    ('case "$*" in *--fakeroot*) fail "could not use fakeroot: no valid mapping entry found";; *) fail "%s";; esac'
     % CE, 'lines for you in /etc/subuid and /etc/subgid, or the command proot, linked statically', CE_HINT),
    ('fail "packer failed: failed to Lchown x"',
     'lines for you in /etc/subuid and /etc/subgid, without which a directory of other users is no base',
     'make a SIF file of the base: apptainer build base.sif DIRECTORY; or ask for: ' + CE_HINT.partition('for: ')[2]),
    # as Apptainer 1.4.5 with a setuid starter says it where the kernel gives no user namespaces
    (NO_NAMESPACE % 'echo "INFO:    fakeroot command not found"; fail "Building from a definition file requires root '
     'or some kind of fake root"', *NO_NAMESPACE_HINT),
    (NO_NAMESPACE % 'echo "INFO:    Running post scriptlet"; echo "/.singularity.d/libs/fakeroot: eval: line 140: '
     '/.singularity.d/libs/faked: not found"; echo "fakeroot: error while starting the \\`faked\' daemon."; '
     'fail "While performing build: while running engine: while running %post section: exit status 1"',
     *NO_NAMESPACE_HINT),
    (NO_FAKEROOT + '; fail no',
     'the command fakeroot, or lines for you in /etc/subuid and /etc/subgid: %post can have no other users',
     'ask for: apt-get install fakeroot; or ' + CE_HINT.partition('for: ')[2]),
    ('echo "INFO:    Running post scriptlet"; echo "+ make"; echo "INFO:    If error was from fakeroot"; fail no',
     None, 'less %(log)s'),
])
def test_what_is_missing_is_said(standin, tmp_path, script, missing, hint):
    with pytest.raises(EasySIFError) as caught:
        standin(script)
    assert dict(caught.value.facts).get('missing') == missing
    assert caught.value.hint == hint % {'log': tmp_path / 'log'} and caught.value.exit_code == TOOL


def test_what_a_runtime_says_in_colours_is_told_without(standin):
    with pytest.raises(EasySIFError) as caught:
        standin('printf "\\033[33mWARNING: x\\n\\033[0m\\033[91mFATAL:   it is why\\033[0m\\n"; exit 1')
    assert dict(caught.value.facts)['reason'] == 'it is why' and '\x1b' not in str(caught.value)


@pytest.mark.parametrize('name, said, compressor', [
    ('singularity', 'corrupted image: unknown compression algorithm value 6', 'gzip'),
    ('singularity', 'FATAL: no such command', 'zstd'), ('apptainer', 'unknown compression algorithm', 'zstd')])
def test_an_image_is_packed_so_that_this_runtime_starts_it(tmp_path, name, said, compressor):
    path = tmp_path / 'runtime'
    path.write_text('#!/bin/sh\n[ "$1" = sif ] || { echo "%s" >&2; exit 255; }\n' % said)
    path.chmod(0o755)
    found = packing.options(Runtime(str(path), name, (4, 1, 1)), build.packer(os.environ, 'x'), dict(os.environ),
                            str(tmp_path), {'compressor': 'zstd', 'level': 3, 'block': '256K'}, str(tmp_path / 'log'))
    assert found[:2] == ['-comp', compressor] and ('-Xcompression-level' in found) is (compressor == 'zstd')
    if compressor == 'gzip':
        assert (tmp_path / 'log').read_text() == (
            'easysif: singularity 4.1.1 starts no image that is packed with zstd: it is packed with gzip\n')
