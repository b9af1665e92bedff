# SPDX-License-Identifier: GPL-2.0-only
"""easysif upgrade: what is newer; the user's packages and the default from one version to another, and back."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import harness
import standins
import toys
from easysif import before_upgrade, cli, files, layout, upgrade
from easysif.overlay.recorded import record, update_record
from easysif.packages import target
from made_up import MadeUp


@pytest.fixture(autouse=True)
def its_prefix(prefix, tmp_path, monkeypatch):
    """The prefix is the one of EasyBuild's variables, as it is for a user; there are no recipes."""
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    (tmp_path / 'recipes').mkdir()
    monkeypatch.setenv('EASYBUILD_ROBOT_PATHS', str(tmp_path / 'recipes'))


def script(path, text):
    """Put a shell script in the place of a command."""
    if os.path.lexists(path):
        path.unlink()
    path.write_text('#!/bin/sh\n' + text)
    path.chmod(0o755)


def pip_does(module, text):
    """Let pip of a module do what a shell script says; requirements come by its standard input."""
    script(module.root / 'bin' / 'pip', 'exit 9\n')  # a wrapper; inside is another one
    script(module.root / 'bin' / 'start-shell', '''case "$*" in
*venv_packages.py*) echo 'easysif venv-packages {"python": "3.11.2", "pip": "23", "exists": true, "packages": []}' ;;
*pip_main.py*) %s
esac
''' % text)


def has(module, *packages):
    """Let a module say that it has packages: (name, version, origin)."""
    told = [dict(zip(('name', 'version', 'from'), package)) for package in packages]
    script(module.root / 'bin' / 'list-packages', "cat <<'X'\n%s\nX\n" % json.dumps(told))


@pytest.fixture
def both(prefix):
    """Two versions of a toy, of which the first has packages of the user's."""
    old, new = MadeUp(prefix, 'toy/1'), MadeUp(prefix, 'toy/2')
    has(old, ('pip', '24', 'overlay'), ('jax', '1', 'image'), ('Mine_a', '1.0', 'overlay'), ('b', '2.10', 'overlay'),
        ('c', '3', 'overlay'))
    has(new, ('jax', '2', 'image'), ('b', '2.9', 'layer'), ('c', '3.1', 'image'))
    pip_does(new, 'cat >%s/asked; mkdir -p %s/user-software; touch %s/user-software/new ;;'
             % (prefix, new.overlay, new.overlay))
    return old, new


TABLE = """\
PACKAGE  toy/1  toy/2
Mine_a   1.0    -
b        2.10   2.9 (layer)
c        3      3.1 (image)  stays
"""


def test_what_would_be_carried_over_is_shown_and_nothing_is_done(easysif, both, prefix):
    before = toys.snapshot(prefix)
    assert easysif('upgrade', 'toy/1', 'toy/2') == (
        0, TABLE + 'to have them there: module load toy/2 && pip install Mine_a==1.0 b==2.10\n'
                   'or: easysif upgrade toy/1 toy/2 --yes\n', '')
    assert toys.snapshot(prefix) == before


def test_the_wrappers_are_told_what_a_loaded_module_has_set(easysif, both, monkeypatch):
    monkeypatch.setenv('EASYSIF_SET', 'SIF=/x')  # else they would take its overlay for the user's own bind
    for module in both:
        path = module.root / 'bin' / 'list-packages'
        script(path, '[ "$EASYSIF_SET" = SIF=/x ] || exit 1\n%s' % path.read_text().partition('\n')[2])
    code, out, err = easysif('upgrade', 'toy/1', 'toy/2')
    assert (code, err) == (0, '') and out.startswith(TABLE)


def test_with_yes_they_are_installed_by_the_new_ones_pip(easysif, both, prefix):
    old, new = both
    old.add_package()
    before = toys.snapshot(old.root), toys.snapshot(old.overlay)
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes') == (
        0, TABLE + 'installed into toy/2: Mine_a==1.0 b==2.10\n', '')
    assert (prefix / 'asked').read_text() == 'Mine_a==1.0\nb==2.10\n'
    assert (toys.snapshot(old.root), toys.snapshot(old.overlay)) == before
    assert toys.files(new.overlay) == {'user-software/new', 'overlay.json'}
    assert record(str(new.overlay))['packages'] == {'asked': ['Mine_a==1.0', 'b==2.10'], 'resolved': []}


def test_what_was_asked_for_is_what_is_recorded_of_the_new_one_too(easysif, both, prefix):
    old, new = both
    old.overlay.mkdir(parents=True)
    update_record(str(old.overlay), packages={'asked': ['other', 'mine.a[x]>=0.9', 'c'], 'resolved': [
        {'name': 'B', 'version': '2.10', 'url': 'git+https://e/b@f00', 'sha256': None, 'direct': True}]})
    easysif('upgrade', 'toy/1', 'toy/2', '--yes')
    assert (prefix / 'asked').read_text() == 'Mine_a==1.0\nB @ git+https://e/b@f00\n'
    assert record(str(new.overlay))['packages']['asked'] == ['mine.a[x]>=0.9']


@pytest.mark.parametrize('packages', [[1], 'x', {'asked': 3, 'resolved': 'x'}, {'asked': [1], 'resolved': [2]}])
def test_a_record_of_the_old_one_that_makes_no_sense_is_as_none(easysif, both, prefix, packages):
    old, new = both
    old.overlay.mkdir(parents=True)
    update_record(str(old.overlay), packages=packages)
    easysif('upgrade', 'toy/1', 'toy/2', '--yes')
    assert record(str(new.overlay))['packages']['asked'] == ['Mine_a==1.0', 'b==2.10']


def test_where_nothing_is_to_be_done_that_is_said(easysif, both):
    has(both[0], ('c', '3', 'overlay'))
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes')[1].splitlines()[-1] == (
        'toy/2 has all that you added to toy/1')
    has(both[0], ('jax', '3', 'image'))
    assert easysif('upgrade', 'toy/1', 'toy/2') == (0, 'you have added nothing to toy/1\n', '')


def test_what_the_overlay_of_the_new_one_has_stays(easysif, both):
    has(both[1], ('mine-A', '0.5', 'overlay'), ('b', '2', 'overlay'), ('c', '1', 'overlay'))
    code, out, _ = easysif('upgrade', 'toy/1', 'toy/2')
    assert code == 0 and out.count('stays') == 3


def fails(new, how):
    pip_does(new, 'cd %s/user-software\necho broken >mine; rm -rf sub; touch half\n%s ;;\n' % (new.overlay, how))


def fill(new):
    """Let the new one have an overlay with something in it, and return what is in it (dict)."""
    (new.overlay / 'user-software' / 'sub').mkdir(parents=True)
    (new.overlay / 'user-software' / 'sub' / 'file').write_text('precious')
    (new.overlay / 'user-software' / 'mine').write_text('precious')
    (new.overlay / 'user-software' / 'link').symlink_to('mine')
    return toys.snapshot(new.overlay)


def test_where_pip_fails_the_package_is_named_and_all_is_as_before(easysif, both, prefix):
    old, new = both
    before = fill(new), toys.snapshot(old.root)
    pip_does(new, 'echo "ERROR: No matching distribution found for b==2.10" >&2; exit 1 ;;')
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes', '--default') == (
        3, '', 'error: toy/2: pip could not install b==2.10\n'
        '  pip  ERROR: No matching distribution found for b==2.10\n'
        'hint: the overlay is as before; module load toy/2, then see all that it says: pip install b==2.10\n')
    assert (toys.snapshot(new.overlay), toys.snapshot(old.root)) == before
    assert not os.path.lexists(new.modulefile.parent / 'default')


def test_what_a_failed_pip_changed_stays_beside_the_overlay(easysif, both):
    """What another shell installed meanwhile is in it."""
    new = both[1]
    before = fill(new)
    fails(new, 'exit 1')
    for name in ('user-software.after-upgrade', 'user-software.after-upgrade-2'):
        code, _, err = easysif('upgrade', 'toy/1', 'toy/2', '--yes')
        assert code == 3 and err.startswith('error: toy/2: pip could not install the packages\n')
        assert '\nhint: the overlay is as before, what it was when pip failed is %s; module load' % (
            new.overlay / name) in err
        assert toys.files(new.overlay / name) == {'half', 'link', 'mine'}
        assert (new.overlay / name / 'mine').read_text() == 'broken\n'
    now = {path: one for path, one in toys.snapshot(new.overlay).items() if '.after-upgrade' not in path}
    assert now == before


def test_what_a_failed_pip_made_is_told_where_there_was_nothing(easysif, both):
    new = both[1]
    fails(new, 'exit 1')
    pip_does(new, 'mkdir %s/user-software/left; exit 1 ;;' % new.overlay)
    after = new.overlay / 'user-software.after-upgrade'
    assert 'hint: the overlay is as before, what it was when pip failed is %s; module load' % after in easysif(
        'upgrade', 'toy/1', 'toy/2', '--yes')[2]
    assert os.listdir(new.overlay / 'user-software') == []
    assert os.listdir(after) == ['left']


CUT_SHORT = """\
error: toy/2: an upgrade was cut short, which of two directories you want is not known
  now                 {0}/user-software
  before the upgrade  {0}/.user-software.before-upgrade
hint: to keep what is now: rm -r -- {0}/.user-software.before-upgrade; to go back: mv -- {0}/user-software \
{0}/user-software.after-upgrade && mv -- {0}/.user-software.before-upgrade {0}/user-software
"""


@pytest.mark.long
@pytest.mark.parametrize('choice', ['keep what is now', 'go back'])
def test_after_kill_9_nothing_is_lost_and_the_user_chooses(easysif, both, choice):
    new = both[1]
    before = fill(new)
    fails(new, 'kill -9 "$VICTIM"; sleep 5')
    code = ('import os, sys; os.environ["VICTIM"] = str(os.getpid()); from easysif import cli; '
            'cli.main(["upgrade", "toy/1", "toy/2", "--yes"])')
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    assert subprocess.run([sys.executable, '-c', code], env=env, timeout=60, capture_output=True).returncode == -9
    (new.overlay / 'user-software' / 'since then').write_text('precious')
    there = toys.files(new.overlay / 'user-software')
    pip_does(new, 'exit 0 ;;')
    code, _, err = easysif('upgrade', 'toy/1', 'toy/2', '--yes')
    assert code == 1 and err.endswith('which is dead\n' + CUT_SHORT.format(new.overlay))
    assert toys.files(new.overlay / 'user-software') == there
    command = err.partition('to %s: ' % choice)[2].partition('; to')[0]
    subprocess.run(['sh', '-c', command], check=True)
    if choice == 'go back':
        assert (new.overlay / 'user-software.after-upgrade' / 'since then').exists()
        shutil.rmtree(new.overlay / 'user-software.after-upgrade')
        assert toys.snapshot(new.overlay) == before
    else:
        assert toys.files(new.overlay / 'user-software') == there
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes')[0] == 0


def test_where_the_user_ends_it_both_directories_are_told(easysif, both, monkeypatch):
    new = both[1]
    before = fill(new)
    changes = []

    def interrupted(argv, **options):
        if 'install' not in argv:
            return run(argv, **options)
        for path in changes:
            path.write_text('of pip')
        raise KeyboardInterrupt
    run = target.run
    monkeypatch.setattr(target, 'run', interrupted)
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes') == (130, '', '')
    assert toys.snapshot(new.overlay) == before
    changes.append(new.overlay / 'user-software' / 'half')
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes') == (1, '', CUT_SHORT.format(new.overlay))
    assert (new.overlay / 'user-software' / 'half').exists()
    shutil.rmtree(new.overlay / 'user-software')
    assert 'to go back: mv -- {0}/.user-software.before-upgrade {0}/user-software\n'.format(new.overlay) in easysif(
        'upgrade', 'toy/1', 'toy/2', '--yes')[2]


@pytest.mark.parametrize('works', [True, False])
@pytest.mark.parametrize('moment', [1, 5, *map(harness.long, (2, 3, 4))])
def test_killed_at_any_moment_nothing_is_lost(easysif, both, monkeypatch, works, moment):
    new = both[1]
    fill(new)
    if not works:
        fails(new, 'touch of-others; exit 1')

    class Killed(BaseException):
        pass
    done = []

    def counted(function, *args):
        if 'user-software' in str(args):
            done.append(args)
            if len(done) == moment:
                raise Killed
        return function(*args)
    rename, remove_tree = os.rename, files.remove_tree
    with monkeypatch.context() as patch:
        patch.setattr(before_upgrade.os, 'rename', lambda *args: counted(rename, *args))
        patch.setattr(before_upgrade.files, 'remove_tree', lambda *args: counted(remove_tree, *args))
        try:
            cli.main(['upgrade', 'toy/1', 'toy/2', '--yes'])
        except Killed:
            pass
    there = toys.files(new.overlay)
    assert 'user-software/mine' in there or '.user-software.before-upgrade/mine' in there
    new_one = 'new' if works else 'of-others'
    assert moment < 3 or any(path.endswith('/' + new_one) for path in there)
    directories = [new.overlay / name for name in ('.user-software.before-upgrade', 'user-software')]
    assert any(toys.files(one) >= {'mine', 'link', 'sub/file'} and (one / 'mine').read_text() == 'precious'
               for one in directories)


def test_a_copy_that_cannot_be_made_is_told(easysif, both, monkeypatch):
    before = fill(both[1])

    def full(*args, **options):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(before_upgrade.shutil, 'copytree', full)
    directory = both[1].overlay / 'user-software'
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes') == (
        1, '', 'error: %s: cannot be copied for safety (No space left on device)\nhint: df -h %s\n'
        % (directory, directory))
    assert toys.snapshot(both[1].overlay) == before


@pytest.mark.parametrize('size, state, hint', [(200, 'packed', 'easysif overlay unpack toy/2'),
                                               (60, 'damaged', 'mv -- {0} {0}.damaged')])
def test_a_packed_overlay_is_not_added_to(easysif, both, size, state, hint):
    both[1].pack(size=size)
    assert easysif('upgrade', 'toy/1', 'toy/2', '--yes') == (
        1, '', 'error: toy/2: the overlay is %s, packages cannot be added\n  directory  %s\n'
        'hint: %s\n' % (state, both[1].overlay, hint.format(both[1].overlay / 'user-software.squashfs')))


def test_a_module_without_pip_is_told(easysif, both):
    (both[1].root / 'bin' / 'pip').unlink()
    assert easysif('upgrade', 'toy/1', 'toy/2') == (
        1, '', 'error: toy/2: has no command that runs pip\n'
        "hint: module load toy/2; start-shell -c 'python3 -m pip install PACKAGE'\n")
    script(both[1].root / 'bin' / 'python3', '')
    assert '&& python3 -m pip install Mine_a==1.0' in easysif('upgrade', 'toy/1', 'toy/2')[1]


def test_a_module_that_does_not_answer_is_told(easysif, both):
    script(both[0].root / 'bin' / 'list-packages', 'echo no image >&2; exit 1')
    assert easysif('upgrade', 'toy/1', 'toy/2') == (
        3, '', 'error: toy/1: does not tell which packages it has\n  command    %s --json\n  exit code  1\n'
        '  last line  no image\nhint: easysif verify toy/1\n' % (both[0].root / 'bin' / 'list-packages'))


def test_modules_without_overlay_have_nothing_to_carry(easysif, both, prefix):
    MadeUp(prefix, 'tool/1', python_env=None)
    for old, new in (('tool', 'toy/2'), ('toy/1', 'tool')):
        assert easysif('upgrade', old, new)[:2] == (
            0, 'tool/1 has no overlay: there are no packages to carry over\n')


@pytest.mark.parametrize('argv', [['toy/1'], ['toy/1', 'toy/1'], ['toy/1', 'toy/2', 'toy/3'], ['--yes'],
                                  ['--default']])
def test_two_modules_are_named_or_none(easysif, argv):
    assert easysif('upgrade', *argv) == (
        2, '', 'error: easysif upgrade: name two modules, the old one and the new one, or none\n'
        'hint: easysif upgrade\n')


def test_a_module_that_is_not_there_is_told(easysif, both):
    shutil.rmtree(both[0].root)
    assert 'the installation is gone' in easysif('upgrade', 'toy/1', 'toy/2')[2]
    assert 'is not installed here' in easysif('upgrade', 'toy/2', 'toy/3')[2]


def test_all_is_told_as_json(easysif, both):
    code, out, _ = easysif('upgrade', 'toy/1', 'toy/2', '--json')
    assert code == 0 and json.loads(out) == {
        'old': 'toy/1', 'new': 'toy/2', 'installed': False, 'default': None,
        'command': 'module load toy/2 && pip install Mine_a==1.0 b==2.10', 'packages': [
            {'name': 'Mine_a', 'version': '1.0', 'there': None, 'origin': None, 'wanted': True},
            {'name': 'b', 'version': '2.10', 'there': '2.9', 'origin': 'layer', 'wanted': True},
            {'name': 'c', 'version': '3', 'there': '3.1', 'origin': 'image', 'wanted': False}]}


# --- the default --------------------------------------------------------------------------------------------------


def test_the_default_is_set_and_set_back(easysif, both):
    old, new = both
    lines = easysif('upgrade', 'toy/1', 'toy/2', '--default')[1].splitlines()
    assert lines[-2:] == ['toy/2 is the default now; before, none was named: the newest was taken',
                          'the way back: easysif upgrade toy/2 toy/1 --default']
    assert [os.readlink(path.parent / 'default') for path in (new.modulefile, new.link)] == ['2.lua', '2.lua']
    has(new)
    told = json.loads(easysif('upgrade', 'toy/2', 'toy/1', '--default', '--json')[1])
    assert told['default'] == {'now': 'toy/1', 'before': 'toy/2'}
    assert [os.readlink(path.parent / 'default') for path in (new.modulefile, new.link)] == ['1.lua', '1.lua']


def test_a_default_that_cannot_be_set_is_told(easysif, both):
    default = both[1].modulefile.parent / 'default'
    default.write_text('a file')
    code, _, err = easysif('upgrade', 'toy/1', 'toy/2', '--default')
    assert (code, err) == (1, 'error: toy/2: the default cannot be set: what should be a link is something else\n'
                              '  file  %s\nhint: ls -ld %s\n' % (default, default))
    default.unlink()


def test_a_default_that_cannot_be_written_is_told(easysif, both, monkeypatch):
    def denied(target, path):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(upgrade.os, 'symlink', denied)
    default = both[1].modulefile.parent / 'default'
    code, _, err = easysif('upgrade', 'toy/1', 'toy/2', '--default')
    assert (code, err) == (1, 'error: toy/2: the default cannot be set (Permission denied)\n  file  %s\n'
                              'hint: ls -ld %s\n' % (default, default.parent))


# --- what is newer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('first, second', [('24.9', '24.10'), ('2.0rc1', '2.0'), ('2.0', '2.0.1'), ('1.9', '2'),
                                           ('1.0+cu121', '1.1'), ('1.0', '1.0.post1'), ('1.0.post1', '1.0.1'),
                                           ('1.0rc1', '1.0.post1'), ('1.0.post2', '1.0.post10')])
def test_versions_are_compared_as_people_do(first, second):
    assert upgrade.order(first) < upgrade.order(second)


def test_what_is_newer_is_listed(easysif, prefix, tmp_path):
    for name in ('toy/1.9-x', 'toy/1.10-x', 'toy/3.0-y', 'alone/1'):
        MadeUp(prefix, name)
    assert easysif('upgrade') == (0, """\
MODULE     NEWER       TYPE
toy/1.9-x  toy/1.10-x  easysif upgrade toy/1.9-x toy/1.10-x
""", '')
    for version, suffix in (('1.8', '-x'), ('1.11', '-x'), ('9', '-z')):
        toys.recipe(tmp_path / 'recipes', version=version, versionsuffix=suffix)
    toys.recipe(tmp_path / 'recipes', name='alone', version='2', easyblock='Tarball')
    (tmp_path / 'recipes' / 'toy-99-x.eb').write_text('no Python')
    toys.recipe(tmp_path / 'recipes', name='toy-more', version='7', versionsuffix='-x')
    assert easysif('upgrade')[1] == """\
MODULE      NEWER          TYPE
toy/1.10-x  toy-1.11-x.eb  eb toy-1.11-x.eb
toy/1.9-x   toy/1.10-x     easysif upgrade toy/1.9-x toy/1.10-x
"""
    assert json.loads(easysif('upgrade', '--json')[1]) == {
        'toy/1.10-x': {'installed': None, 'recipe': 'toy-1.11-x.eb'},
        'toy/1.9-x': {'installed': 'toy/1.10-x', 'recipe': 'toy-1.11-x.eb'}}


def test_it_is_found_however_a_naming_scheme_spells_the_module(easysif, prefix, tmp_path):
    layout.note(str(prefix), str(prefix / 'software' / 'bio' / 'samtools' / '1.9'), 'bio/samtools/1.9',
                str(prefix / 'modules' / 'all' / 'bio' / 'samtools' / '1.9.lua'))
    MadeUp(prefix, 'bio/samtools/1.9')
    MadeUp(prefix, 'site-bindings/1')
    toys.recipe(tmp_path / 'recipes', name='SAMtools', version='1.10')
    toys.recipe(tmp_path / 'recipes', name='site-bindings', version='2', easyblock='ContainerBindings')
    assert easysif('upgrade')[1] == """\
MODULE            NEWER               TYPE
bio/samtools/1.9  SAMtools-1.10.eb    eb SAMtools-1.10.eb
site-bindings/1   site-bindings-2.eb  eb site-bindings-2.eb
"""


def test_where_nothing_is_newer_that_is_said(easysif, prefix):
    MadeUp(prefix)
    assert easysif('upgrade') == (0, 'nothing is newer than what is installed in %s\n' % prefix, '')


# --- with real containers -----------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_packages_are_carried_over_in_real_containers(images, prefix, tmp_path):
    values = dict(python_env='tools', commands=['python', 'pip'])
    old, new = (standins.install(images.sif('venv'), 'tools', prefix, version, **values) for version in ('1', '2'))
    for name, version in (('alpha', '1.0'), ('beta', '2.0'), ('gamma', '1.0')):
        standins.package(tmp_path, name, version)
    env = old.env(PIP_NO_INDEX='1', PIP_FIND_LINKS=tmp_path, PYTHONPATH=os.pathsep.join(sys.path))
    old.run('pip', 'install', 'alpha', 'beta', env=env)
    new.run('pip', 'install', 'gamma', env=env)
    before = toys.snapshot(old.overlay)

    def easysif(*argv, **options):
        return harness.run([sys.executable, '-m', 'easysif.cli', 'upgrade', *argv, '--prefix', prefix], env=env,
                           **options)
    (tmp_path / 'beta-2.0-py3-none-any.whl').rename(tmp_path / 'away')
    theirs = toys.snapshot(new.overlay)
    failed = easysif('tools/1', 'tools/2', '--yes', check=False)
    assert failed.status == 3 and 'pip could not install beta==2.0' in failed.stderr
    assert toys.snapshot(new.overlay) == theirs
    (tmp_path / 'away').rename(tmp_path / 'beta-2.0-py3-none-any.whl')
    assert 'pip install alpha==1.0 beta==2.0' in easysif('tools/1', 'tools/2').stdout
    assert 'installed into tools/2: alpha==1.0 beta==2.0' in easysif('tools/1', 'tools/2', '--yes').stdout
    new.run('python', '-c', 'import alpha, beta, gamma; assert beta.__version__ == "2.0"', env=env)
    assert toys.snapshot(old.overlay) == before
    assert 'tools/2 has all that you added' in easysif('tools/1', 'tools/2', '--default').stdout
    assert harness.run_shell('module load tools; echo $EBVERSIONTOOLS $LOADEDMODULES', prefix, old.home
                             ).stdout.split() == ['tools/2']
    easysif('tools/2', 'tools/1', '--default')
    assert harness.run_shell('module load tools; echo $LOADEDMODULES', prefix, old.home).stdout.split() == ['tools/1']
