# SPDX-License-Identifier: GPL-2.0-only
"""easysif refresh: module files and wrappers are made anew, images and overlays are left alone."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading

import pytest

import harness
import toys
from easysif import cli, deferred, installed, refresh, standing, verify, wrappers
from easysif.errors import EasySIFError
from easysif.lock import Lock
from made_up import MadeUp


pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def toy(prefix):
    """One installed module (MadeUp)."""
    return MadeUp(prefix)


def times(directory):
    """Return what tells whether anything below a directory was written (dict)."""
    paths = [os.path.join(parent, name) for parent, directories, names in os.walk(directory)
             for name in directories + names]
    return {path: (os.lstat(path).st_ino, os.lstat(path).st_mtime_ns) for path in paths if not path.endswith('.locks')}


def problems(toy):
    """Return what verify finds (list of str)."""
    return [str(err) for err in verify.verify(toy.name, str(toy.root), str(toy.prefix)).problems]


@pytest.mark.long
def test_what_is_well_is_left_alone(easysif, toy, prefix):
    MadeUp(prefix, 'tool/2', python_env=None)
    assert easysif('refresh', 'toy', 'tool/2')[0] == 0  # the links of the user's directory
    before, written = toys.snapshot(prefix), times(prefix / 'software' / 'toy' / '1')
    assert easysif('refresh', '--all') == (0, 'tool/2: unchanged\ntoy/1: unchanged\n', '')
    assert toys.snapshot(prefix) == before and times(prefix / 'software' / 'toy' / '1') == written


def damage(path, text='damaged'):
    path.unlink()
    path.write_text(text)


@pytest.mark.long
@pytest.mark.parametrize('harm, told', [
    (lambda toy: toy.modulefile.unlink(), '{p}/modules/all/toy/1.lua'),
    (lambda toy: damage(toy.modulefile, ''), '{p}/modules/all/toy/1.lua'),
    (lambda toy: damage(toy.modulefile), '{p}/modules/all/toy/1.lua'),
    (lambda toy: toy.modulefile.write_bytes(b'\xff\0'), '{p}/modules/all/toy/1.lua'),
    (lambda toy: shutil.rmtree(toy.prefix / 'modules'), '{p}/modules/all/toy/1.lua, {p}/modules/tools/toy/1.lua'),
    (lambda toy: toy.link.unlink(), '{p}/modules/tools/toy/1.lua'),
    (lambda toy: damage(toy.link), '{p}/modules/tools/toy/1.lua'),
    (lambda toy: damage(toy.root / 'easysif' / 'wrapper'), 'easysif/wrapper'),
    (lambda toy: (toy.root / 'easysif' / 'wrapper').chmod(0o644), 'easysif/wrapper'),
    (lambda toy: (toy.root / 'easysif' / 'module.sh').chmod(0o666), 'easysif/module.sh'),
    (lambda toy: damage(toy.root / 'easysif' / 'modulefile'), 'easysif/modulefile'),
    (lambda toy: (toy.root / 'bin' / 'fine').unlink(), 'bin/fine'),
    (lambda toy: damage(toy.root / 'bin' / 'fine'), 'bin/fine'),
    (lambda toy: shutil.rmtree(toy.root / 'bin'),
     'bin/fine, bin/list-packages, bin/make-squashfs, bin/start-shell, bin/unmake-squashfs'),
    (lambda toy: damage(toy.root / 'runscripts' / 'init-venv'), 'runscripts/init-venv'),
    (lambda toy: (toy.root / 'easysif' / 'site.sh').unlink(), 'easysif/site.sh'),
])
def test_damage_is_mended_and_verify_is_content(easysif, toy, prefix, harm, told):
    easysif('refresh', 'toy')
    before = toys.snapshot(prefix)
    harm(toy)
    assert toys.snapshot(prefix) != before
    assert easysif('refresh', 'toy') == (0, 'toy/1: refreshed %s\n' % told.format(p=prefix), '')
    changed = {path for path, one in toys.snapshot(prefix).items() if before.get(path) != one}
    assert changed == set() and set(before) == set(toys.snapshot(prefix))
    assert problems(toy) == []


def test_a_directory_that_became_a_link_is_one_again(easysif, toy, tmp_path):
    outside = tmp_path / 'outside'
    shutil.move(toy.root / 'bin', outside)
    (toy.root / 'bin').symlink_to(outside)
    before = toys.snapshot(outside)
    assert easysif('refresh', 'toy')[0] == 0
    assert not (toy.root / 'bin').is_symlink() and toys.snapshot(outside) == before and problems(toy) == []


def test_read_only_installations_are_mended_and_stay_read_only(easysif, toy):
    easysif('refresh', 'toy')
    for parent, _, names in os.walk(toy.root):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode & 0o555)
        os.chmod(parent, 0o555)
    before = toys.snapshot(toy.root)
    for path in (toy.root / 'bin', toy.root / 'easysif'):
        path.chmod(0o755)
    (toy.root / 'bin' / 'fine').unlink()
    damage(toy.root / 'easysif' / 'wrapper')
    (toy.root / 'easysif' / 'wrapper').chmod(0o444)
    (toy.root / 'easysif' / 'module.sh').unlink()
    for path in (toy.root / 'bin', toy.root / 'easysif'):
        path.chmod(0o555)
    assert easysif('refresh', 'toy') == (
        0, 'toy/1: refreshed bin/fine, easysif/module.sh, easysif/wrapper\n', '')
    assert toys.snapshot(toy.root) == before


def test_a_new_easysif_writes_its_wrappers_and_modules_and_records_them(easysif, toy, monkeypatch):
    easysif('refresh', 'toy')
    image, old = toy.sif.stat(), toy.modulefile.read_text()
    monkeypatch.setattr(wrappers, 'COMMANDS', ('start-shell', 'new-command'))
    block = deferred.block
    monkeypatch.setattr(deferred, 'block', lambda *args: block(*args).replace('run()', 'run() -- as of now'))
    assert easysif('refresh', 'toy') == (
        0, 'toy/1: refreshed bin/new-command, easysif/modulefile, bin/list-packages, easysif.json, %s\n'
        % toy.modulefile, '')
    new = toy.modulefile.read_text()
    assert new == old.replace('run()', 'run() -- as of now') != old
    assert (toy.root / 'easysif' / 'modulefile').read_text() == new and problems(toy) == []
    assert not os.path.lexists(toy.root / 'bin' / 'list-packages') and toy.sif.stat() == image
    monkeypatch.setattr(deferred, 'block', block)  # and back
    easysif('refresh', 'toy')
    assert toy.modulefile.read_text() == old and problems(toy) == []


def test_a_change_of_the_site_reaches_prefix_and_modules(easysif, toy, prefix, tmp_path, monkeypatch):
    easysif('refresh', 'toy')
    (tmp_path / 'site.yaml').write_text('binds: [/scratch]\n')
    monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
    assert easysif('refresh', 'toy') == (
        0, 'written  {0}/easysif/site.lua\nwritten  {0}/easysif/site.sh\nwritten  {0}/easysif/site.tcl\n'
           'toy/1: refreshed easysif/site.lua, easysif/site.sh, easysif/site.tcl, easysif.json\n'.format(prefix), '')
    assert problems(toy) == []


def test_files_of_others_and_of_the_recipe_stay(easysif, toy):
    (toy.root / 'mine').write_text('mine')
    (toy.root / 'bin' / 'by-recipe').write_text('by the recipe')
    toy.record()
    (toy.root / 'bin' / 'mine').write_text('mine')
    toy.add_package()
    before = toys.snapshot(toy.overlay)
    (toy.root / 'bin' / 'fine').unlink()
    code, out, err = easysif('refresh', 'toy')
    assert code == 1 and out.startswith('toy/1: refreshed bin/fine') and err == (
        'error: toy/1: bin/mine does not belong to the module\n  file  {0}\nhint: look at it: ls -l {0}\n'
        .format(toy.root / 'bin' / 'mine'))
    assert (toy.root / 'mine').read_text() == 'mine'
    assert (toy.root / 'bin' / 'by-recipe').read_text() == 'by the recipe'
    assert toys.snapshot(toy.overlay, 'runscripts', 'toy.sif') == before


def test_what_only_a_rebuild_mends_is_said(easysif, toy):
    (toy.root / 'data').write_text('by the recipe')
    toy.record()
    (toy.root / 'data').write_text('changed')
    (toy.root / 'bin' / 'fine').unlink()
    code, out, err = easysif('refresh', 'toy')
    assert code == 1 and 'bin/fine' in out and err.startswith('error: toy/1: data was changed\n')
    assert err.endswith('hint: eb --rebuild toy-1.eb\n')


@pytest.mark.parametrize('harm, what', [(lambda sif: sif.unlink(), 'the image is gone'),
                                        (lambda sif: damage(sif), 'the image has 7 bytes, not 761')])
def test_without_its_image_the_rest_is_mended(easysif, toy, harm, what):
    easysif('refresh', 'toy')
    harm(toy.sif)
    toy.modulefile.unlink()
    (toy.root / 'bin' / 'fine').unlink()
    code, out, err = easysif('refresh', 'toy')
    assert (code, err.splitlines()[0]) == (1, 'error: toy/1: ' + what) and err.count('error:') == 1
    assert out == 'toy/1: refreshed bin/fine, %s\n' % toy.modulefile
    assert len(problems(toy)) == 1


def test_links_of_the_users_directory_are_made_anew(easysif, toy):
    toy.overlay.mkdir(parents=True)
    (toy.overlay / 'old.sif').symlink_to(toy.root / 'old.sif')
    assert easysif('refresh', 'toy') == (
        0, 'toy/1: refreshed {0}/runscripts, {0}/toy.sif\n'.format(toy.overlay), '')
    assert sorted(os.listdir(toy.overlay)) == ['runscripts', 'toy.sif', 'user-software']


def test_one_that_cannot_be_refreshed_does_not_stop_the_others(easysif, toy, prefix):
    old, broken = MadeUp(prefix, 'old/1'), MadeUp(prefix, 'broken/1')
    old.form_1()
    (broken.root / 'easysif.json').write_text('{')
    gone = MadeUp(prefix, 'gone/1')
    shutil.rmtree(gone.root)
    easysif('refresh', 'toy')
    toy.modulefile.unlink()
    code, out, err = easysif('refresh', '--all')
    assert code == 1 and out == ('broken/1: NOT refreshed\ngone/1: NOT refreshed\nold/1: NOT refreshed\n'
                                 'toy/1: refreshed %s\n' % toy.modulefile)
    assert [line for line in err.splitlines() if line.startswith(('error', 'hint'))] == [
        'error: broken/1: easysif.json: is damaged (Expecting property name enclosed in double quotes: line 1 column 2 '
        '(char 1))', 'hint: eb --rebuild broken-1.eb',
        'error: gone/1: the installation is gone, only its module file is left', 'hint: eb --rebuild gone-1.eb',
        'error: old/1: an older EasySIF installed it, and did not record what is needed',
        'hint: eb --module-only --rebuild old-1.eb && easysif refresh old/1']


def test_without_the_block_only_wrappers_are_mended(easysif, toy):
    toy.record(modulefile=dict(toy.record()['modulefile'], block=None))
    before = toy.modulefile.read_text()
    (toy.root / 'bin' / 'fine').unlink()
    code, out, err = easysif('refresh', 'toy')
    assert code == 1 and 'bin/fine' in out and toy.modulefile.read_text() == before and err == (
        'error: toy/1: an older EasySIF installed it: its module file cannot be made anew\n  file  %s\n'
        'hint: eb --module-only --rebuild toy-1.eb\n' % toy.modulefile)
    assert problems(toy) == []


def test_a_module_file_and_a_copy_that_are_both_damaged_are_told_once(easysif, toy):
    damage(toy.modulefile)
    damage(toy.root / 'easysif' / 'modulefile')
    code, _, err = easysif('refresh', 'toy')
    assert code == 1 and err.startswith(
        'error: toy/1: the module file and its copy in the installation are both damaged\n  file  %s\n'
        'hint: eb --module-only --rebuild toy-1.eb\n' % toy.modulefile)


def test_a_directory_in_the_way_is_told(easysif, toy):
    path = toy.root / 'bin' / 'fine'
    path.unlink()
    path.mkdir()
    (toy.root / 'bin' / 'start-shell').unlink()
    code, out, err = easysif('refresh', 'toy')
    assert code == 1 and 'bin/start-shell' in out
    assert err.startswith('error: toy/1: cannot be refreshed (Is a directory)\n  file  ')


def test_a_prefix_that_cannot_be_written_is_told(easysif, toy, prefix):
    (toy.root / 'bin' / 'fine').unlink()
    (prefix / 'software' / 'toy').chmod(0o555)
    try:
        code, out, err = easysif('refresh', 'toy')
    finally:
        (prefix / 'software' / 'toy').chmod(0o755)
    assert (code, out) == (1, 'toy/1: NOT refreshed\n')
    assert err == ('error: toy/1: cannot be refreshed (Permission denied)\n  file  {0}/.1.new\nhint: ls -la {0}\n'
                   .format(toy.root.parent))


def test_a_site_that_cannot_be_written_does_not_stop_the_modules(easysif, toy, prefix):
    (toy.root / 'bin' / 'fine').unlink()
    (prefix / 'easysif' / 'site.lua').unlink()
    (prefix / 'easysif').chmod(0o555)
    code, out, err = easysif('refresh', 'toy')
    (prefix / 'easysif').chmod(0o755)
    assert code == 1 and out.startswith('toy/1: refreshed bin/fine')
    assert err.startswith('error: %s: cannot be written (Permission denied)\n' % (prefix / 'easysif' / 'site.lua'))


def test_modules_or_all_must_be_said(easysif, toy):
    for argv in ([], ['toy', '--all']):
        assert easysif('refresh', *argv) == (
            2, '', 'error: easysif refresh: name modules, or say --all\nhint: easysif refresh --all\n')
    assert 'is not installed here' in easysif('refresh', 'no')[2]


def test_where_nothing_is_installed_nothing_is_written(easysif, prefix):
    assert easysif('refresh', '--all') == (0, 'no modules of EasySIF are installed in %s\n' % prefix, '')
    assert not prefix.exists()


def test_all_is_told_as_json(easysif, toy, prefix):
    easysif('refresh', 'toy')
    toy.sif.unlink()
    (toy.root / 'bin' / 'fine').unlink()
    code, out, err = easysif('refresh', '--all', '--json')
    told = json.loads(out)
    (one,) = told.pop('modules')
    (problem,) = one.pop('problems')
    assert (code, err, told) == (1, '', {'prefix': str(prefix), 'written': [], 'problems': []})
    assert one == {'module': 'toy/1', 'changed': ['bin/fine']} and problem['what'] == 'the image is gone'


def test_while_another_process_is_at_work_nothing_is_touched(easysif, toy, prefix):
    (toy.root / 'bin' / 'fine').unlink()
    lock = prefix / 'software' / '.locks' / (str(toy.root).replace('/', '_') + '.lock')
    with Lock(str(lock), 'toy-1.eb'):
        code, out, err = easysif('refresh', 'toy')
    assert (code, out) == (1, 'toy/1: NOT refreshed\n') and 'another process is at work here' in err
    assert not os.path.lexists(toy.root / 'bin' / 'fine')
    assert easysif('refresh', 'toy')[0] == 0 and not (prefix / 'software' / '.locks').exists()


KILLED = """
import os, sys
from easysif import cli
count = int(sys.argv.pop(1))
def counted(event, args):
    global count
    if event == 'os.rename' and '.locks' not in str(args[0]):
        count -= 1
        if count < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(counted)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.long
def test_after_kill_9_at_any_moment_the_next_one_mends(easysif, toy, prefix):
    easysif('refresh', 'toy')
    before = toys.snapshot(prefix)
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    killed = 0
    for count in range(12):
        shutil.rmtree(toy.root / 'bin')
        damage(toy.root / 'easysif' / 'wrapper')
        toy.modulefile.unlink()
        process = subprocess.run([sys.executable, '-c', KILLED, str(count), 'refresh', 'toy'], env=env, timeout=60,
                                 capture_output=True)
        killed += process.returncode == -signal.SIGKILL
        assert easysif('refresh', 'toy')[0] == 0 and toys.snapshot(prefix) == before, count
    assert killed >= 8


def test_what_a_killed_one_has_put_there_is_taken_by_removing_it(easysif, toy, prefix, monkeypatch):
    """Files that no former EasySIF had: the record names them before they are there."""
    record = json.loads((toy.root / 'easysif.json').read_text())
    for path in ('runscripts/get-master', 'easysif/lib/__main__.py'):
        (toy.root / path).unlink()
        del record['files'][path]
    (toy.root / 'easysif.json').write_text(json.dumps(record))

    def killed(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(refresh._Refresh, '_clear_out', killed)
        assert easysif('refresh', 'toy')[0] == 130
    assert (toy.root / 'runscripts' / 'get-master').is_file()
    assert easysif('remove', 'toy')[0] == 0 and not toy.root.parent.exists()


@pytest.mark.long
@pytest.mark.parametrize('fault', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
@pytest.mark.parametrize('moment', range(3))
def test_a_new_block_that_was_not_written_everywhere_is_by_the_next_one(easysif, toy, monkeypatch, moment, fault):
    """The copy, the record and the module file are changed one after the other."""
    easysif('refresh', 'toy')
    old, block, rename = toy.modulefile.read_text(), deferred.block, os.rename
    monkeypatch.setattr(deferred, 'block', lambda *args: block(*args).replace('run()', 'run() -- as of now'))
    target = [toy.root / 'easysif' / 'modulefile', toy.root / 'easysif.json', toy.modulefile][moment]
    with monkeypatch.context() as patch:
        def full(path, other):
            if other == str(target):
                raise fault
            rename(path, other)
        patch.setattr(refresh.os, 'rename', full)
        assert easysif('refresh', 'toy')[0] == (130 if isinstance(fault, KeyboardInterrupt) else 1)
    assert easysif('refresh', 'toy')[0] == 0
    assert toy.modulefile.read_text() == old.replace('run()', 'run() -- as of now') != old
    assert (toy.root / 'easysif' / 'modulefile').read_text() == toy.modulefile.read_text() and problems(toy) == []


@pytest.mark.long
def test_wrappers_that_run_meanwhile_never_see_a_half(toy, prefix):
    site = cli.refresh.resolve().site
    stop, failed, count = threading.Event(), [], 0

    def ask():
        while not stop.is_set():
            try:
                if installed.overlay(str(toy.root)) != str(toy.overlay):
                    failed.append('another overlay')
            except EasySIFError as err:
                failed.append(str(err))
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for count in range(10):
            with open(toy.root / 'easysif' / 'wrapper', 'a', encoding='utf-8') as handle:
                handle.write('\n# %d\n' % count)
            done = refresh.refresh('toy/1', str(prefix), site)
            assert 'easysif/wrapper' in done.changed and not done.problems
    finally:
        stop.set()
        thread.join()
    assert failed == []


def test_a_lock_that_was_lost_is_noticed_before_anything_is_put(easysif, toy, monkeypatch):
    (toy.root / 'bin' / 'fine').unlink()

    def lost(self):
        raise EasySIFError('toy/1', 'the lock was lost')
    monkeypatch.setattr(standing.Lock, 'check', lost)
    code, out, err = easysif('refresh', 'toy')
    assert (code, out, err) == (1, 'toy/1: NOT refreshed\n', 'error: toy/1: the lock was lost\n')
    assert not os.path.lexists(toy.root / 'bin' / 'fine') and not (toy.root.parent / '.1.new').exists()


def test_a_new_file_has_the_mode_of_the_installation(easysif, toy):
    toy.root.chmod(0o2750)
    for name in ('module.sh', 'wrapper'):
        (toy.root / 'easysif' / name).unlink()
    assert easysif('refresh', 'toy')[0] == 0
    assert [stat.S_IMODE((toy.root / 'easysif' / name).stat().st_mode) for name in ('module.sh', 'wrapper')] == [
        0o640, 0o750]


@pytest.mark.e2e
def test_what_eb_installed_is_mended_and_runs(eb, shell, prefix, tmp_path, site_file):
    recipe = toys.recipe(tmp_path / 'recipes', image='toy.sif', commands=['fine'], description='A [=[ toy ]=] é\ndo',
                         modluafooter='setenv("TOY_FOOTER", "%(version)s")')
    shutil.copy(toys.make_image(tmp_path / 'image'), recipe.parent)
    eb(recipe, '--read-only-installdir')
    env = harness.eb_environment(prefix, tmp_path / 'home', site_file())

    def easysif(*argv):
        return harness.run(['easysif', *argv], env=env)
    root, manifest = toys.installation(prefix)
    module = prefix / 'modules' / 'all' / 'toy' / '1.0.lua'
    text = module.read_text()
    assert (root / 'easysif' / 'modulefile').read_text() == text
    begin, end = manifest['modulefile']['block']
    assert text[begin:end].startswith('do -- An EasySIF module') and text[begin:end].endswith('\n    end\nend\n')
    assert easysif('refresh', '--all').stdout == 'toy/1.0: unchanged\n'
    before = toys.snapshot(root)
    module.write_text('')
    for name in ('bin', 'easysif'):
        (root / name).chmod(0o755)
    (root / 'bin' / 'fine').unlink()
    (root / 'easysif' / 'wrapper').unlink()
    for name in ('bin', 'easysif'):
        (root / name).chmod(0o555)
    assert easysif('refresh', '--all').stdout == 'toy/1.0: refreshed bin/fine, easysif/wrapper, %s\n' % module
    assert toys.snapshot(root) == before and module.read_text() == text
    assert 'all well' in easysif('verify').stdout
    shell('module load toy; test "$(fine x) $TOY_FOOTER" = "x 1.0"')
    eb(recipe, '--module-only', '--rebuild')
    assert easysif('refresh', '--all').stdout == 'toy/1.0: unchanged\n'
    assert 'all well' in easysif('verify').stdout
