# SPDX-License-Identifier: GPL-2.0-only
"""The scripts that set a clone up: tools/env.sh in the shells of users, tools/quickstart and tools/setup up to eb."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

PREFIX_RULE = 'a prefix cannot hold : , ; & | < > ( ) \' " ` \\ # % * ? [ {{ or control characters\n'
REFUSED = list(':,;&|<>()\'"`\\#%*?[\n\t') + ['{{']
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


def files(directory):
    """Return the files below a directory, each with its text (dict)."""
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob('*') if path.is_file()}


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


@pytest.mark.parametrize('name', ['eb', 'easysif'])
def test_where_env_sh_is_not_sourced_its_commands_say_so(clone, copy, name):
    """As in a job step of srun --export=NONE."""
    shutil.copy(clone / 'tools' / 'bin' / name, copy / 'tools' / 'bin')
    result = run(['%s/tools/bin/%s' % (copy, name), '--version'])
    assert (result.returncode, result.stdout, result.stderr) == (
        1, '', "error: %s: tools/env.sh is not sourced here: EB_PYTHON is not set\nhint: . '%s/tools/env.sh'\n" % (
            name, copy))


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
@pytest.mark.parametrize('character', REFUSED)
def test_env_sh_refuses_a_prefix_that_cannot_work(copy, shell, character):
    result = source(copy, '', shell, EASYSIF_PREFIX='/tmp/a%sb' % character)
    assert result.returncode != 0
    assert result.stderr == ('error: env.sh: /tmp/a%sb: %shint: set EASYSIF_PREFIX to another directory\n'
                             % (character, PREFIX_RULE))


def test_env_sh_says_what_is_missing(copy, tmp_path):
    bare = source(copy, '', EASYSIF_PREFIX='/nowhere')
    assert bare.stderr == ('error: env.sh: /nowhere: nothing is set up here\n'
                           'hint: run %s/tools/quickstart, or set EASYSIF_PREFIX\n' % copy)
    elsewhere = run(['dash', '-c', '. "%s"/tools/env.sh' % copy.as_posix().replace('$', '\\$')], tmp_path)
    assert elsewhere.stderr == ('error: env.sh: this shell does not tell where the clone is\n'
                                'hint: cd to it, then: . tools/env.sh\n')
    for name in ('a:b', 'a*b', 'a?b', 'a[b]'):
        copy = copy.rename(tmp_path / name)
        assert source(copy, '').stderr == ('error: env.sh: %s: a clone cannot lie below a directory with : * ? or [, '
                                           'which EasyBuild cannot search\nhint: move the clone\n' % copy)
        quickstart = run([copy / 'tools' / 'quickstart', '--prefix', tmp_path / 'prefix'])
        assert (quickstart.returncode, quickstart.stderr) == (
            1, 'error: quickstart: a clone cannot lie below a directory with : * ? or [\n'
               '  clone             %s\nhint: move the clone\n' % copy)


@pytest.mark.parametrize('directory', ['xdg', 'home'])
def test_eb_leaves_out_the_configuration_of_another_easybuild(copy, tmp_path, directory):
    """EasyBuild takes what its configuration files say of these over what follows from EASYBUILD_PREFIX."""
    hostile = {'installpath': '/else', 'installpath-modules': '/else/m', 'installpath-software': '/else/s',
               'subdir-modules': 'else', 'suffix-modules-path': 'else', 'module-naming-scheme': 'HierarchicalMNS'}
    path = tmp_path / {'xdg': 'xdg/easybuild.d/a.cfg', 'home': 'home/easybuild/config.cfg'}[directory]
    path.parent.mkdir(parents=True)
    path.write_text('[config]\n%s\n' % '\n'.join('%s = %s' % item for item in hostile.items()))
    env = {'EASYBUILD_%s' % name.upper().replace('-', '_'): value for name, value in hostile.items()}
    result = source(copy, 'EB_PYTHON=%s eb --show-config' % shlex.quote(sys.executable), **dict(
        env, XDG_CONFIG_DIRS=str(tmp_path / 'xdg'), XDG_CONFIG_HOME=str(tmp_path / 'home')))
    assert result.returncode == 0, result.stderr
    assert re.search(r'^installpath +\(E\) = %s$' % re.escape('%s/.easysif' % copy), result.stdout, re.M)
    assert not re.search('else|HierarchicalMNS|installpath-', result.stdout)


def test_eb_reads_the_configuration_that_its_user_names(copy, tmp_path):
    (tmp_path / 'mine.cfg').write_text('[config]\nsourcepath = /mine\n')
    result = source(copy, 'EB_PYTHON=%s eb --configfiles=%s/mine.cfg --show-config' % (
        shlex.quote(sys.executable), tmp_path))
    assert re.search(r'^sourcepath +\(F\) = /mine$', result.stdout, re.M), result.stderr


def test_eb_does_not_search_the_working_directory_nor_say_so_to_its_children(copy, tmp_path):
    hooks = tmp_path / 'hooks.py'
    hooks.write_text('import os, sys\nprint("search", [path for path in sys.path if path in ("", os.getcwd())])\n'
                     'print("leak", [name for name in os.environ if name.startswith("PYTHON")])\n')
    result = source(copy, 'cd %s; EB_PYTHON=%s eb --hooks=%s --search none' % (
        shlex.quote(str(tmp_path)), shlex.quote(sys.executable), hooks))
    assert "search []\nleak ['PYTHONPATH']\n" in result.stdout, result.stderr


@pytest.mark.parametrize('arguments, status, message', [
    (['--foo'], 2, "error: quickstart: unknown argument '--foo'\nhint: tools/quickstart --help\n"),
    (['--prefix'], 2, 'error: quickstart: --prefix needs a directory\nhint: tools/quickstart --prefix DIR\n'),
    (['--prefix', 'a:b'], 1, 'error: quickstart: ' + PREFIX_RULE +
     '  prefix            a:b\nhint: tools/quickstart --prefix DIR\n'),
    (['--prefix', '/dev/null'], 1, 'error: quickstart: this directory is not empty, and EasySIF did not make it\n'
     '  directory         /dev/null\nhint: name a new or an empty one: tools/quickstart --prefix DIR\n')])
def test_quickstart_refuses_what_it_cannot_use(clone, arguments, status, message):
    result = run([clone / 'tools' / 'quickstart', *arguments])
    assert (result.returncode, result.stderr) == (status, message)


@pytest.mark.parametrize('character', REFUSED)
def test_quickstart_refuses_a_prefix_that_leads_to_a_directory_it_cannot_use(clone, tmp_path, character):
    (tmp_path / ('a%sb' % character)).mkdir()
    (tmp_path / 'link').symlink_to('a%sb' % character)
    result = run([clone / 'tools' / 'quickstart', '--prefix', 'link/new'], tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith('error: quickstart: ' + PREFIX_RULE)
    assert not os.listdir(tmp_path / ('a%sb' % character))


def test_quickstart_says_where_it_can_make_no_prefix(clone):
    result = run([clone / 'tools' / 'quickstart', '--prefix', '/dev/null/a'])
    assert (result.returncode, result.stderr.splitlines()[1:]) == (1, [
        'error: quickstart: no directory for the set-up', '  directory         /dev/null/a',
        'hint: name a new or an empty one: tools/quickstart --prefix DIR'])


def test_quickstart_leaves_a_directory_of_somebody_else_alone(clone, tmp_path):
    """It would replace these, and its end would remove tmp."""
    for path in ('tmp/mine', 'python/mine', 'runtime/mine', 'base/debian/mine', 'site.yaml'):
        (tmp_path / 'its' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'its' / path).write_text('mine\n')
    before = files(tmp_path / 'its')
    result = run([clone / 'tools' / 'quickstart', '--prefix=its'], tmp_path)
    assert (result.returncode, result.stderr) == (
        1, 'error: quickstart: this directory is not empty, and EasySIF did not make it\n  directory         %s/its\n'
           'hint: name a new or an empty one: tools/quickstart --prefix DIR\n' % tmp_path)
    assert files(tmp_path / 'its') == before


@pytest.mark.long
@pytest.mark.parametrize('name', ['prefix', 'a b'])
def test_quickstart_removes_its_own_temporary_files_only(copy, tmp_path, name):
    """Here its first step says where they are, and fails."""
    step = copy / 'tools' / 'setup' / 'system-parts'
    step.write_text('#!/bin/sh\ntouch "$TMPDIR/file"\necho "$TMPDIR" >"$EASYSIF_PREFIX/told"\nexit 1\n')
    prefix = tmp_path / name
    assert run([copy / 'tools' / 'quickstart', '--prefix', prefix]).returncode == 3
    (prefix / 'tmp').mkdir()
    (prefix / 'tmp' / 'mine').touch()
    again = run([copy / 'tools' / 'quickstart', '--prefix', prefix])
    assert again.returncode == 3, again.stderr
    assert [path.name for path in prefix.glob('tmp*')] == ['tmp']
    assert (prefix / 'tmp' / 'mine').exists()
    assert not os.path.exists((prefix / 'told').read_text().strip())


@pytest.mark.parametrize('part, directory, mine', [
    ('python-env', 'python', 'lib/mine'), ('apptainer', 'runtime', 'root/mine'), ('base-image', 'base', 'debian/mine')])
def test_a_part_of_the_set_up_replaces_nothing_but_its_own(clone, tmp_path, part, directory, mine):
    path = tmp_path / directory / mine
    path.parent.mkdir(parents=True)
    path.write_text('mine\n')
    result = run([clone / 'tools' / 'setup' / part, tmp_path])
    directory = path.parents[1]
    assert (result.returncode, result.stderr) == (
        1, "error: %s: this directory is not empty, and EasySIF did not make it\n  directory         %s\n"
           "hint: mv '%s' '%s'.old\n" % (part, directory, directory, directory))
    assert path.read_text() == 'mine\n'


def test_what_a_part_made_is_emptied_but_for_its_mark(clone, tmp_path):
    script = '. "$0"; own x "$1" h; mkdir "$1/.a" && touch "$1/.a/b" "$1/c"; own x "$1" h; empty "$1"; ls -A "$1"'
    result = run(['bash', '-euc', script, clone / 'tools' / 'setup' / 'common.sh', tmp_path / 'a b'])
    assert (result.returncode, result.stdout) == (0, '.made-by-easysif\n'), result.stderr


def test_a_site_profile_of_somebody_else_is_left_alone(clone, tmp_path):
    (tmp_path / 'site.yaml').write_text('binds: [/data]\n')
    result = run([clone / 'tools' / 'setup' / 'base-image', tmp_path])
    assert (result.returncode, result.stdout) == (
        0, 'left to %s/site.yaml, which quickstart did not write\n' % tmp_path), result.stderr
    assert (tmp_path / 'site.yaml').read_text() == 'binds: [/data]\n'


def test_the_base_is_made_where_no_path_can_be_taken_for_shell(clone, tmp_path):
    commands, prefix = tmp_path / 'bin', tmp_path / "it's $(touch evil)"
    commands.mkdir()
    (commands / 'mmdebstrap').write_text('#!/bin/sh\necho "$TMPDIR" >%s/told\nexit 1\n' % tmp_path)
    for name in ('fakechroot', 'fakeroot'):
        (commands / name).write_text('#!/bin/sh\n')
    for path in commands.iterdir():
        path.chmod(0o755)
    result = run([clone / 'tools' / 'setup' / 'base-image', prefix], PATH='%s:/usr/bin:/bin' % commands)
    assert result.returncode == 0, result.stderr
    told = (tmp_path / 'told').read_text().strip()
    assert re.fullmatch('/tmp/easysif[.][0-9A-Za-z]{6}', told)
    assert not os.path.exists(told)


def test_the_wheel_is_built_by_a_setuptools_that_knows_its_patterns(clone):
    """Older ones take ** for *, and leave recipes out without a word."""
    assert '**/*.eb' in (clone / 'setup.cfg').read_text()
    wanted = re.search('setuptools>=([0-9.]+)', (clone / 'pyproject.toml').read_text()).group(1)
    assert tuple(map(int, wanted.split('.'))) >= (62, 3)


@pytest.mark.long
def test_quickstart_does_not_meet_another_one_in_its_prefix(clone, prefix):
    (prefix / 'log').mkdir(parents=True)
    (prefix / '.made-by-easysif').touch()
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
