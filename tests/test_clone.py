# SPDX-License-Identifier: GPL-2.0-only
"""The scripts that set a clone up: tools/env.sh in the shells of users, tools/quickstart and tools/setup up to eb."""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys

import pytest

SHELLS = ['bash', 'dash']  # zsh is tried by hand: not every machine of a developer has it


@pytest.fixture
def copy(clone, tmp_path):
    """A clone below a path with a space and a dollar sign, set up as far as env.sh looks (Path)."""
    copy = tmp_path / 'a $b' / 'clone'
    shutil.copytree(clone / 'tools', copy / 'tools', ignore=shutil.ignore_patterns('easysif', '__pycache__'))
    python = copy / '.easysif' / 'python' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (copy / '.easysif' / 'python' / 'stamp').touch()
    return copy


def run(command, cwd=None, **env):
    """Run a command with hardly an environment (subprocess.CompletedProcess)."""
    env = dict({'HOME': os.environ['HOME'], 'PATH': '/usr/bin:/bin'}, **env)
    return subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, timeout=60)


def source(copy, script, shell='bash', **env):
    """Source env.sh in a shell under set -eu, then run a script there."""
    return run([shell, '-c', 'set -eu; . %s\n%s' % (shlex.quote('%s/tools/env.sh' % copy), script)], copy, **env)


@pytest.mark.parametrize('shell', SHELLS)
def test_env_sh_gives_eb_module_and_easysif(copy, shell):
    prefix = '%s/.easysif' % copy
    result = source(copy, 'set +u; command -v eb easysif >/dev/null; command -v module >/dev/null; module -t list;'
                          'printf "%s\\n" "$EASYBUILD_PREFIX" "$EASYBUILD_MODULES_TOOL" "$EB_PYTHON" "$MODULEPATH" '
                          '"$PATH" "$PYTHONPATH" "${EASYSIF_SITE-none}"', shell)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        prefix, 'Lmod', prefix + '/python/bin/python', prefix + '/modules/all',
        '%s/tools/bin:%s/runtime/bin:/usr/bin:/bin' % (copy, prefix), '%s:%s/tools' % (copy, copy), 'none']


@pytest.mark.parametrize('shell', SHELLS)
def test_sourcing_env_sh_again_changes_nothing_and_no_helper_is_left(copy, shell):
    names = r"set | sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)[=(].*/\1/p' | sort"
    result = run([shell, '-c', '''set -eu
        options=$-; before=''; after=''; env=''
        before=$(%s)
        . tools/env.sh
        [ "$options" = "$-" ]
        after=$(%s); env=$(env)
        . tools/env.sh
        [ "$env" = "$(env)" ]
        printf '%%s\\n' "$before" "$after" | sort | uniq -u''' % (names, names)], copy)
    assert result.returncode == 0, result.stderr
    helpers = {'clone', 'prefix', 'lmod', 'directory', 'shell', 'wrong', 'hint', '_easysif_env'}
    assert not helpers & set(result.stdout.split())


def test_env_sh_chooses_the_site_of_its_prefix_but_not_over_the_users(copy, tmp_path):
    mine = copy / '.easysif' / 'site.yaml'
    mine.write_text('{}\n')
    other = tmp_path / 'other'
    shutil.copytree(copy / '.easysif', other, symlinks=True)
    say = 'echo "$EASYSIF_SITE"'
    assert source(copy, say).stdout == '%s\n' % mine
    assert source(copy, say, EASYSIF_SITE='lumi').stdout == 'lumi\n'
    again = source(copy, 'EASYSIF_PREFIX=%s; . tools/env.sh; %s' % (shlex.quote(str(other)), say))
    assert again.stdout == '%s/site.yaml\n' % other


@pytest.mark.parametrize('shell', SHELLS)
@pytest.mark.parametrize('character', [':', ',', '"', '\\', '\n'])
def test_env_sh_refuses_a_prefix_that_cannot_work(copy, shell, character):
    result = source(copy, '', shell, EASYSIF_PREFIX='/tmp/a%sb' % character)
    assert result.returncode != 0
    assert result.stderr == ('error: env.sh: /tmp/a%sb: a prefix cannot hold : , " \\ or a newline, which binds and '
                             'modules cannot carry\nhint: set EASYSIF_PREFIX to another directory\n' % character)


def test_env_sh_says_what_is_missing(copy, tmp_path):
    bare = source(copy, '', EASYSIF_PREFIX='/nowhere')
    assert bare.stderr == ('error: env.sh: /nowhere: nothing is set up here\n'
                           'hint: run %s/tools/quickstart, or set EASYSIF_PREFIX\n' % copy)
    elsewhere = run(['dash', '-c', '. "%s"/tools/env.sh' % copy.as_posix().replace('$', '\\$')], tmp_path)
    assert elsewhere.stderr == ('error: env.sh: this shell does not tell where the clone is\n'
                                'hint: cd to it, then: . tools/env.sh\n')
    colon = tmp_path / 'a:b'
    copy.rename(colon)
    assert source(colon, '').stderr == ("error: env.sh: %s: a clone cannot lie below a directory with ':', which "
                                        'PYTHONPATH cannot carry\nhint: move the clone\n' % colon)


@pytest.mark.parametrize('arguments, status, message', [
    (['--foo'], 2, "error: quickstart: unknown argument '--foo'\nhint: tools/quickstart --help\n"),
    (['--prefix'], 2, 'error: quickstart: --prefix needs a directory\nhint: tools/quickstart --prefix DIR\n'),
    (['--prefix', 'a:b'], 1, 'error: quickstart: a prefix cannot hold : , " \\ or a newline\n'
     '  prefix            a:b\nhint: tools/quickstart --prefix DIR\n')])
def test_quickstart_refuses_what_it_cannot_use(clone, arguments, status, message):
    result = run([clone / 'tools' / 'quickstart', *arguments])
    assert (result.returncode, result.stderr) == (status, message)


def test_quickstart_does_not_meet_another_one_in_its_prefix(clone, prefix):
    (prefix / 'log').mkdir(parents=True)
    with open(prefix / 'log' / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run([clone / 'tools' / 'quickstart', '--prefix=%s' % prefix])
    assert (result.returncode, result.stderr) == (
        1, 'error: quickstart: another quickstart is at work here\n  prefix            %s\n'
           'hint: wait for it to end\n' % prefix)


def test_an_ordinary_user_is_told_all_that_is_missing(clone, tmp_path):
    commands = tmp_path / 'bin'
    commands.mkdir()
    for entry in os.scandir('/usr/bin'):
        if entry.name not in ('mksquashfs', 'squashfuse', 'apptainer', 'singularity', 'sudo'):
            (commands / entry.name).symlink_to(entry.path)
    result = run([clone / 'tools' / 'setup' / 'system-parts', 'no-such-package'], PATH=str(commands))
    assert result.returncode == 1
    assert 'lacks parts that only its administrator can add\n' in result.stderr
    for name, package in (('squashfs', 'squashfs-tools'), ('squashfuse', 'squashfuse'),
                          ('no-such-package', 'no-such-package')):
        assert '  %-16s  Debian package %s\n' % (name, package) in result.stderr
    assert "hint: ask for these, on Debian: sudo sh -c 'apt-get update && apt-get install" in result.stderr
    assert ' squashfs-tools squashfuse ' in result.stderr and ' no-such-package' in result.stderr


@pytest.mark.parametrize('name, text, good', [
    ('apptainer', 'apptainer version 1.1.0', True), ('apptainer', 'apptainer version 1.0.3', False),
    ('singularity', 'singularity-ce version 4.1.0-noble', True), ('singularity', 'singularity-ce version 3.8.4', False),
    ('singularity', 'singularity version 3.8.7', False), ('singularity', 'apptainer version 1.4.5-2', True)])
def test_an_installed_runtime_is_used_where_it_is_new_enough(clone, tmp_path, name, text, good):
    program = tmp_path / name
    program.write_text('#!/bin/sh\necho %s\n' % text)
    program.chmod(0o755)
    result = run(['bash', '-c', '. "$0"; installed_runtime', clone / 'tools' / 'setup' / 'common.sh'],
                 PATH='%s:/usr/bin:/bin' % tmp_path)
    assert result.stdout == ('%s\n' % program if good else '')
    assert result.returncode == (0 if good else 1)


def test_a_failed_step_shows_its_error_or_its_last_lines(clone, tmp_path):
    script = '. "$0"/common.sh; . "$0"/progress.sh; announce_steps 1 .; step part "$@"'
    setup = clone / 'tools' / 'setup'
    ours = run(['bash', '-c', script, setup, 'bash', '-c', '. "$0"/common.sh; echo begin; fail 1 here "is wrong" '
                'file x hint "do y"', setup], tmp_path)
    assert (ours.returncode, ours.stderr) == (1, 'error: here: is wrong\n  file              x\nhint: do y\n')
    theirs = run(['bash', '-c', script, setup, 'bash', '-c', 'echo no luck; exit 7'], tmp_path)
    assert theirs.returncode == 3
    assert theirs.stderr.startswith('  | no luck\nerror: ')
    assert ('part failed, with the lines above at its end\n  log               ./1-part.log\nhint: mend that'
            in theirs.stderr)
