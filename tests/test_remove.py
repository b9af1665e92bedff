# SPDX-License-Identifier: GPL-2.0-only
"""easysif remove: what the manifest names goes, all else stays, whatever happens in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import harness
import toys
from easysif import belongings, files, layout, remove, verify
from easysif.errors import EasySIFError
from easysif.lock import Lock
from made_up import MadeUp
from standins import on_terminal


pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def toy(prefix):
    """One installed module (MadeUp)."""
    return MadeUp(prefix)


def left(prefix):
    """Return the files below a prefix, but for what the site provides (set of str)."""
    return {path for path in toys.files(prefix) if not path.startswith('easysif/')}


def refused(easysif, prefix, *argv):
    """Run a command that must fail and change nothing; return its error output (str)."""
    before = toys.snapshot(prefix, 'software/.locks')
    code, out, err = easysif(*argv)
    assert (code, out) == (1, '') and toys.snapshot(prefix, 'software/.locks') == before
    return err


def test_all_that_was_installed_goes_and_nothing_else(easysif, toy, prefix):
    other = MadeUp(prefix, 'other/1')
    before = toys.snapshot(prefix)
    MadeUp(prefix, 'tool/2', python_env=None)
    count = len(toys.files(prefix / 'software' / 'tool' / '2'))
    code, out, err = easysif('remove', 'tool')
    assert (code, out.split(',')[0], err) == (0, 'tool/2: removed %d files' % count, '')
    assert toys.snapshot(prefix) == before
    assert easysif('remove', 'toy/1')[0] == easysif('remove', 'other/1')[0] == 0
    assert left(prefix) == set()
    assert not toy.root.parent.exists() and not other.modulefile.parent.exists() and not toy.link.parent.exists()
    assert not (prefix / 'software' / '.locks').exists()


def test_links_of_the_users_directory_go_and_it_goes_where_it_is_empty(easysif, toy, prefix):
    toy.overlay.mkdir(parents=True)
    (toy.overlay / 'toy.sif').symlink_to(toy.sif)
    (toy.overlay / 'runscripts').symlink_to(toy.root / 'runscripts')
    (toy.overlay / 'user-software').mkdir()
    code, out, err = easysif('remove', 'toy')
    assert (code, len(out.splitlines()), err) == (0, 1, '') and not (prefix / 'overlays').exists()


def test_the_overlay_stays_and_is_named_with_what_to_type(easysif, toy):
    toy.add_package()
    toy.pack()
    (toy.overlay / 'toy.sif').symlink_to(toy.sif)
    before = toys.snapshot(toy.overlay, 'toy.sif')
    code, out, err = easysif('remove', 'toy')
    assert (code, err) == (0, '') and toys.snapshot(toy.overlay) == before
    assert out.splitlines()[1] == 'kept  your overlay %s, 3 files, 12.0 KiB; to remove it: rm -r -- %s' % (
        toy.overlay, toy.overlay)


def test_an_overlay_elsewhere_is_the_one_that_is_meant(easysif, toy, prefix, tmp_path, monkeypatch):
    toy.add_package()
    (prefix / 'easysif' / 'prefix.json').chmod(0o444)
    mine = tmp_path / 'mine' / 'toy' / '1'
    (mine / 'user-software').mkdir(parents=True)
    (mine / 'user-software' / 'file').write_text('mine')
    monkeypatch.setenv('EASYSIF_OVERLAYS', str(tmp_path / 'mine'))
    monkeypatch.setenv('CONTAINERROOT', '/somewhere/else')
    code, out, err = easysif('remove', 'toy', '--overlay', '--yes')
    assert (code, err) == (0, '')
    assert out.splitlines()[1] == 'your overlay is removed as well: %s, 1 file, 4.0 KiB' % mine
    assert not mine.parent.exists() and left(prefix) == {'overlays/toy/1/user-software/venv/toy/package'}


def test_files_of_others_stay_and_are_named(easysif, toy, prefix):
    (toy.root / 'notes').mkdir()
    (toy.root / 'notes' / 'mine.txt').write_text('mine')
    (toy.root / 'bin' / 'script').write_text('mine')
    (toy.root / 'empty').mkdir()
    (toy.root / '.easysif.json.new-123').write_text('of a killed one')
    before = {name: (toy.root / name).read_text() for name in ('bin/script', 'notes/mine.txt')}
    code, out, err = easysif('remove', 'toy')
    assert (code, err) == (0, '')
    assert out.splitlines()[1:] == ['kept  %s, which is not ours' % (toy.root / name) for name in before]
    assert left(prefix) == {'software/toy/1/' + name for name in before}
    assert not (toy.root / 'empty').exists()
    assert 'is not installed here' in refused(easysif, prefix, 'remove', 'toy')


def test_nothing_is_removed_through_a_link(easysif, toy, tmp_path):
    outside = tmp_path / 'outside'
    shutil.copytree(toy.root / 'bin', outside, symlinks=True)
    store = tmp_path / 'store.sif'
    toy.sif.rename(store)
    toy.sif.symlink_to(store)
    shutil.rmtree(toy.root / 'bin')
    (toy.root / 'bin').symlink_to(outside)
    before = toys.snapshot(tmp_path, 'prefix')
    code, out, _ = easysif('remove', 'toy')
    assert code == 0 and out.splitlines()[1] == 'kept  %s, which is not ours' % (toy.root / 'bin')
    assert toys.snapshot(tmp_path, 'prefix') == before


def test_read_only_installations_are_removed(easysif, toy, prefix):
    (toy.root / 'bin' / 'mine').write_text('stays')
    for parent, _, names in os.walk(toy.root, topdown=False):
        os.chmod(parent, 0o555)
    toy.modulefile.parent.chmod(0o555)
    assert easysif('remove', 'toy')[0] == 0
    assert left(prefix) == {'software/toy/1/bin/mine'}


def test_all_is_told_as_json(easysif, toy):
    toy.add_package()
    (toy.root / 'mine').write_text('mine')
    count = len(toys.files(toy.root)) - 1
    code, out, err = easysif('remove', 'toy', '--json')
    told = json.loads(out)
    assert told.pop('gone')['files'] == count
    assert (code, err, told) == (0, '', {
        'module': 'toy/1', 'root': str(toy.root), 'foreign': ['mine'], 'overlay': str(toy.overlay),
        'overlay_size': {'files': 1, 'size': 4096}, 'overlay_removed': False, 'notes': []})


def test_a_shell_where_it_is_loaded_is_told(easysif, toy, monkeypatch):
    monkeypatch.setenv('LOADEDMODULES', 'other/1:toy/1')
    assert easysif('remove', 'toy')[1].endswith('it is loaded in this shell: module unload toy/1\n')


def copied(prefix, tmp_path):
    backup = tmp_path / 'back up'
    shutil.copytree(prefix, backup, symlinks=True)
    return backup


@pytest.mark.parametrize('command', [['remove', 'toy'], ['remove', 'toy', '--overlay', '--yes'], ['refresh', 'toy']])
@pytest.mark.parametrize('lost', [None, 'module.sh'])
def test_a_copied_prefix_leaves_the_original_alone(easysif, toy, prefix, tmp_path, command, lost):
    toy.add_package()
    backup = copied(prefix, tmp_path)
    if lost:
        (backup / 'software' / 'toy' / '1' / 'easysif' / lost).unlink()
    before = toys.snapshot(tmp_path, 'back up/software/.locks')
    code, _, err = easysif(*command, '--prefix', str(backup))
    assert code == 1 and 'was installed elsewhere, and what belongs to that is not touched\n' in err
    assert '\n  installed in  %s\n  this one      %s\n  module file   %s\n' % (
        toy.root, backup / 'software' / 'toy' / '1', toy.modulefile) in err
    assert toys.snapshot(tmp_path, 'back up/software/.locks') == before


@pytest.mark.parametrize('kind', ['path', 'links'])
def test_a_manifest_that_names_files_elsewhere_is_refused(easysif, toy, prefix, tmp_path, kind):
    victim = tmp_path / 'victim' / 'toy' / '1.lua'
    victim.parent.mkdir(parents=True)
    victim.write_text('precious')
    values = toy.record()['modulefile']
    toy.record(modulefile=dict(values, **{kind: str(victim) if kind == 'path' else [str(victim)]}))
    assert 'was installed elsewhere' in refused(easysif, prefix, 'remove', 'toy')
    assert victim.read_text() == 'precious'


def test_module_files_outside_the_prefix_are_ours_where_they_say_so(easysif, toy, prefix, tmp_path):
    there = tmp_path / 'modules' / 'all' / 'toy' / '1.lua'
    there.parent.mkdir(parents=True)
    toy.modulefile.rename(there)
    toy.link.unlink()
    values = json.loads((toy.root / 'easysif.json').read_text())
    values['modulefile'].update(path=str(there), links=[])
    (toy.root / 'easysif.json').write_text(json.dumps(values))
    assert easysif('remove', 'toy')[0] == 0 and not there.exists() and left(prefix) == set()


# --- the overlay as well ------------------------------------------------------------------------------------------


def test_without_a_terminal_the_overlay_needs_yes(easysif, toy, prefix):
    toy.add_package()
    assert refused(easysif, prefix, 'remove', 'toy', '--overlay') == (
        'error: toy/1: the overlay is removed after a question only, and there is no terminal\n'
        '  overlay  %s, 1 file, 4.0 KiB\nhint: easysif remove toy/1 --overlay --yes\n' % toy.overlay)
    toy.pack()
    (toy.overlay / 'user-software' / 'closed').mkdir(mode=0o500)
    code, out, err = easysif('remove', 'toy', '--overlay', '--yes')
    assert (code, err) == (0, '') and 'your overlay is removed as well: %s, 3 files' % toy.overlay in out
    assert left(prefix) == set() and not (prefix / 'overlays').exists()


@pytest.mark.parametrize('answer, status', [('y\r', 0), ('Yes\r', 0), ('\r', 1), ('n\r', 1), ('\x04', 1)])
def test_on_a_terminal_there_is_a_question(toy, prefix, answer, status):
    toy.add_package()
    question = 'remove toy/1 and what you added to it, %s, 1 file, 4.0 KiB? [y/N] ' % toy.overlay
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    got, shown = on_terminal([sys.executable, '-m', 'easysif.cli', 'remove', 'toy', '--overlay'], env,
                             [(question, answer)])
    assert got == status and toy.root.exists() == toy.overlay.exists() == bool(status)
    assert ('nothing was removed' in shown) == bool(status)


def test_an_overlay_of_another_prefix_stays(easysif, toy, prefix, tmp_path, monkeypatch):
    other = MadeUp(tmp_path / 'other')
    other.add_package()
    (prefix / 'easysif' / 'prefix.json').chmod(0o444)
    monkeypatch.setenv('EASYSIF_OVERLAYS', str(tmp_path / 'other' / 'overlays'))
    assert refused(easysif, prefix, 'remove', 'toy', '--overlay', '--yes') == (
        'error: toy/1: the overlay is of another prefix\n  overlay  %s\n  prefix   %s\nhint: easysif remove toy/1\n'
        % (other.overlay, prefix))
    assert (other.overlay / 'user-software' / 'venv' / 'toy' / 'package').exists()


def test_an_overlay_that_became_another_one_since_the_question_stays(toy, prefix, tmp_path, monkeypatch):
    toy.add_package()
    removal = remove.Removal('toy', str(prefix), with_overlay=True)
    (prefix / 'easysif' / 'prefix.json').chmod(0o444)
    mine = tmp_path / 'mine' / 'toy' / '1'
    (mine / 'user-software').mkdir(parents=True)
    (mine / 'user-software' / 'file').write_text('mine')
    monkeypatch.setenv('EASYSIF_OVERLAYS', str(tmp_path / 'mine'))
    with pytest.raises(EasySIFError) as caught:
        removal.run()
    assert str(caught.value) == (
        'toy/1: the overlay is another one now\n  before  %s\n  now     %s\nhint: run the same command again'
        % (toy.overlay, mine))
    assert toy.root.exists() and toy.modulefile.exists() and toy.overlay.exists() and mine.exists()
    monkeypatch.delenv('EASYSIF_OVERLAYS')
    (prefix / 'easysif' / 'prefix.json').chmod(0o644)
    removal = remove.Removal('toy', str(prefix), with_overlay=True)
    monkeypatch.setattr(belongings, 'of_others', lambda path: path)
    with pytest.raises(EasySIFError, match='the overlay is not yours to remove'):
        removal.run()
    assert toy.root.exists() and toy.overlay.exists()


def test_what_a_link_in_the_overlay_leads_to_stays(easysif, toy, tmp_path):
    there = tmp_path / 'scratch'
    (there / 'venv').mkdir(parents=True)
    (there / 'venv' / 'package').write_text('precious')
    toy.overlay.mkdir(parents=True)
    (toy.overlay / 'user-software').symlink_to(there)
    code, out, err = easysif('remove', 'toy', '--overlay', '--yes')
    assert (code, err) == (0, '') and (there / 'venv' / 'package').read_text() == 'precious'
    assert not toy.overlay.exists()
    assert out.splitlines()[-1] == '%s was a link; what it leads to stays: %s' % (toy.overlay / 'user-software', there)


def test_an_overlay_that_is_a_link_is_not_followed(easysif, toy, prefix, tmp_path):
    there = tmp_path / 'scra tch'
    (there / 'user-software').mkdir(parents=True)
    (there / 'user-software' / 'x').touch()
    toy.overlay.parent.mkdir(parents=True)
    toy.overlay.symlink_to(there)
    assert refused(easysif, prefix, 'remove', 'toy', '--overlay', '--yes') == (
        "error: toy/1: the overlay is a link, which is not followed\n  link      %s\n  leads to  %s\n"
        "hint: easysif remove toy/1; then: rm -r -- %s '%s'\n" % (toy.overlay, there, toy.overlay, there))


def test_an_overlay_of_another_user_is_refused(easysif, toy, prefix, monkeypatch):
    toy.add_package()
    monkeypatch.setattr(remove.os, 'geteuid', lambda: 12345)
    assert refused(easysif, prefix, 'remove', 'toy', '--overlay', '--yes') == (
        'error: toy/1: the overlay is not yours to remove\n  of others  %s\nhint: easysif remove toy/1\n' % toy.overlay)


def test_damaged_wrappers_are_not_asked_for_the_overlay(easysif, toy, prefix, tmp_path):
    (toy.root / 'easysif' / 'wrapper').write_text('touch %s\n' % (tmp_path / 'run'))
    assert refused(easysif, prefix, 'remove', 'toy', '--overlay', '--yes') == (
        'error: toy/1: which overlay is yours is not known: the wrappers are damaged\n  installation  %s\n'
        'hint: easysif refresh toy/1\n' % toy.root)
    (toy.root / 'easysif' / 'wrapper').unlink()
    toy.add_package()
    code, out, _ = easysif('remove', 'toy')
    assert code == 0 and 'kept  your overlay %s' % toy.overlay in out and not (tmp_path / 'run').exists()


def test_an_overlay_that_is_being_packed_is_not_removed(easysif, toy, prefix):
    toy.add_package()
    with Lock(str(toy.overlay / '.pack.lock'), 'make-squashfs'):
        code, _, err = easysif('remove', 'toy', '--overlay', '--yes')
    assert code == 1 and err.startswith('error: toy/1: another process is at work here\n')
    assert toy.modulefile.exists() and (toy.overlay / 'user-software' / 'venv' / 'toy' / 'package').exists()


# --- what cannot be removed ---------------------------------------------------------------------------------------


def test_what_is_not_installed_is_said(easysif, toy, prefix):
    assert refused(easysif, prefix, 'remove', 'toyy') == (
        'error: toyy: is not installed here\n  prefix     %s\n  installed  toy/1\n'
        "hint: did you mean 'toy'?\n" % prefix)


@pytest.mark.parametrize('text, why', [('{', 'is damaged'), (None, 'cannot be read (No such file or directory)')])
def test_without_a_manifest_nothing_is_guessed(easysif, toy, prefix, text, why):
    path = toy.root / 'easysif.json'
    path.unlink()
    if text:
        path.write_text(text)
    err = refused(easysif, prefix, 'remove', 'toy')
    first, fact, hint = err.splitlines()
    assert first.startswith('error: toy/1: cannot be removed: easysif.json: ' + why)
    assert fact == '  file  %s' % path
    assert hint == ('hint: eb --rebuild toy-1.eb && easysif remove toy/1; or by hand, whatever else lies there: '
                    'rm -r -- %s %s %s' % (toy.root, toy.modulefile, toy.link))
    subprocess.run(['sh', '-c', hint.partition('there: ')[2]], check=True)
    assert left(prefix) == set()


def test_a_manifest_of_a_newer_easysif_is_left_to_that(easysif, toy, prefix):
    toy.record(schema=9)
    assert 'was written by a newer EasySIF' in refused(easysif, prefix, 'remove', 'toy')


@pytest.mark.parametrize('changes', [
    {'module': 'other/1'},
    {'modulefile': {'path': '/home/you/.bashrc', 'links': [], 'sha256': '0' * 64}},
    {'modulefile': {'path': '/p/modules/all/toy/1.lua', 'links': ['/home/you/.bashrc'], 'sha256': '0' * 64}},
])
def test_a_manifest_of_another_module_is_refused(easysif, toy, prefix, changes):
    toy.record(**changes)
    err = refused(easysif, prefix, 'remove', 'toy')
    assert err.startswith('error: toy/1: cannot be removed: easysif.json is of another module\n')


def test_what_belongs_to_others_is_refused_before_anything_is_touched(easysif, toy, prefix, monkeypatch):
    (toy.root / 'runscripts' / 'lib').chmod(0o555)
    monkeypatch.setattr(remove.os, 'geteuid', lambda: 12345)
    assert refused(easysif, prefix, 'remove', 'toy') == (
        'error: toy/1: is not yours to remove\n  not writable  %s\nhint: ls -ld %s\n'
        % ((toy.root / 'runscripts' / 'lib',) * 2))


def test_a_module_file_alone_is_removed(easysif, toy, prefix):
    shutil.rmtree(toy.root)
    code, out, err = easysif('remove', 'toy')
    assert (code, out, err) == (0, 'toy/1: removed 0 files, 0 bytes\n', '') and left(prefix) == set()


def test_an_installation_of_form_1_is_removed(easysif, toy, prefix):
    toy.form_1()
    (toy.root / 'mine').write_text('mine')
    assert easysif('remove', 'toy')[0] == 0
    assert left(prefix) == {'software/toy/1/mine'}


def test_the_default_is_mended_or_said(easysif, toy, prefix):
    for path in (toy.modulefile, toy.link):
        (path.parent / 'default').symlink_to('1.lua')
    rc = toy.modulefile.parent / '.modulerc.lua'
    rc.write_text('module_version("toy/1","default")\n')
    code, out, _ = easysif('remove', 'toy')
    assert code == 0 and left(prefix) == {'modules/all/toy/.modulerc.lua'}
    assert out.splitlines()[1:] == ['%s names the version as the default; edit it' % rc,
                                    'it was the default of toy: the newest version is now']


def test_a_default_of_another_version_stays(easysif, toy):
    (toy.modulefile.parent / 'default').symlink_to('11.lua')
    (toy.modulefile.parent / '.modulerc.lua').write_text('module_version("toy/1.1","default")\n')
    assert len(easysif('remove', 'toy')[1].splitlines()) == 1
    assert (toy.modulefile.parent / 'default').is_symlink()


def test_a_prefix_that_is_reached_by_a_link_has_the_same_lock(easysif, toy, prefix, tmp_path):
    (tmp_path / 'link').symlink_to(prefix)
    lock = prefix / 'software' / '.locks' / (str(toy.root).replace('/', '_') + '.lock')
    with Lock(str(lock), 'toy-1.eb'):
        code, _, err = easysif('remove', 'toy', '--prefix', str(tmp_path / 'link'))
    assert code == 1 and '  lock    %s\n' % lock in err


# --- faults -------------------------------------------------------------------------------------------------------


def test_while_another_process_is_at_work_nothing_is_touched(easysif, toy, prefix):
    lock = prefix / 'software' / '.locks' / (str(toy.root).replace('/', '_') + '.lock')
    with Lock(str(lock), 'toy-1.eb'):
        err = refused(easysif, prefix, 'remove', 'toy')
    assert err.startswith('error: toy/1: another process is at work here\n  holder  process %d of' % os.getpid())
    assert err.endswith('hint: wait for it to end, then run the same command again\n')


def fails(path, *_):
    raise OSError(13, 'Permission denied', path)


def test_what_cannot_be_moved_away_is_left_as_it_was(easysif, toy, prefix, monkeypatch):
    renames = []

    def rename(path, other):
        renames.append(path)
        if path == str(toy.root):
            fails(path)
        os.replace(path, other)
    monkeypatch.setattr(remove.os, 'rename', rename)
    assert refused(easysif, prefix, 'remove', 'toy') == (
        'error: toy/1: cannot be removed (Permission denied); it is left as it was\n  file  %s\nhint: ls -la %s\n'
        % (toy.root, toy.root.parent))
    assert str(toy.modulefile) in renames and str(toy.link) in renames


def test_files_that_cannot_be_removed_are_told(easysif, toy, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', fails)
        code, _, err = easysif('remove', 'toy')
    assert (code, err) == (1, 'error: toy/1: was removed, but not all of its files (Permission denied)\n  file  %s\n'
                              'hint: easysif remove toy/1\n' % (toy.root.parent / '.1.new'))
    assert not toy.modulefile.exists() and not toy.root.exists()
    assert easysif('remove', 'toy/1') == (0, 'toy/1: removed what an earlier removal had left\n', '')
    assert not toy.root.parent.exists()


@pytest.mark.parametrize('word', ['toy', 'bio/toy', 'toy/1', 'bio/toy/1'])
def test_what_was_left_is_found_where_names_have_three_parts(easysif, prefix, monkeypatch, word):
    layout.note(str(prefix), str(prefix / 'software' / 'bio' / 'toy' / '1'), 'bio/toy/1',
                str(prefix / 'modules' / 'all' / 'bio' / 'toy' / '1.lua'))
    toy = MadeUp(prefix, 'bio/toy/1')
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', fails)
        assert easysif('remove', 'bio/toy/1')[0] == 1
    assert easysif('remove', word) == (0, 'bio/toy/1: removed what an earlier removal had left\n', '')
    assert not toy.root.parent.exists()


def test_an_overlay_that_cannot_be_removed_is_told(easysif, toy, prefix, monkeypatch):
    toy.add_package()
    aside = toy.overlay.parent / '.1.removed'
    rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, 'rmtree', lambda path: fails(path) if path == str(aside) else rmtree(path))
        code, _, err = easysif('remove', 'toy', '--overlay', '--yes')
    assert (code, err) == (1, 'error: toy/1: was removed, but not all of the overlay (Permission denied)\n'
                              '  file  %s\nhint: rm -r -- %s\n' % (aside, aside))
    assert easysif('remove', 'toy') == (0, 'toy/1: removed what an earlier removal had left\n', '')
    assert left(prefix) == set()


KILLED = """
import os, sys
from easysif import cli
count = int(sys.argv.pop(1))
def counted(event, args):
    global count
    if event in ('os.rename', 'os.remove', 'os.rmdir', 'shutil.rmtree'):
        if '.locks' in str(args[0]) or '.locks' in os.getcwd():
            return
        count -= 1
        if count < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(counted)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.long
@pytest.mark.parametrize('foreign', [False, True])
def test_after_kill_9_at_any_moment_the_next_one_finishes(easysif, prefix, tmp_path, foreign):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    reached = 0
    for count in [*range(8), 20, 30, 45]:
        shutil.rmtree(prefix, ignore_errors=True)
        toy = MadeUp(prefix)
        toy.add_package()
        if foreign:
            (toy.root / 'bin' / 'mine').write_text('mine')
        process = subprocess.run([sys.executable, '-c', KILLED, str(count), 'remove', 'toy/1'], env=env, timeout=60,
                                 capture_output=True)
        visible = {path for path in toys.files(prefix / 'modules') if not os.path.basename(path).startswith('.')}
        if process.returncode == -signal.SIGKILL:
            reached += 1
            assert toy.root.exists() or 'all/toy/1.lua' not in visible
            code, out, err = easysif('remove', 'toy/1')
            assert (code, err) == (0, '') or 'is not installed here' in err, (count, out, err)
        kept = {'overlays/toy/1/user-software/venv/toy/package'}
        assert left(prefix) - {path for path in left(prefix) if '/.locks/' in path} == (
            kept | {'software/toy/1/bin/mine'} if foreign else kept), count
    assert reached >= 8


def test_of_two_at_once_one_removes_and_the_other_says_why_not(toy, prefix):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    both = [subprocess.Popen([sys.executable, '-m', 'easysif.cli', 'remove', 'toy'], env=env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    err = ''.join(err for _, err in outputs)
    assert 'another process is at work here' in err or 'is not installed here' in err
    assert left(prefix) == set()


@pytest.mark.long
def test_with_a_refresh_at_the_same_time_it_is_there_whole_or_gone(toy, prefix):
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for pause in (0, 0.1, 0.2, 0.4):
        shutil.rmtree(prefix)
        toy = MadeUp(prefix)
        (toy.root / 'bin' / 'fine').unlink()
        commands = []
        for command in ('refresh', 'remove'):
            commands.append(subprocess.Popen([sys.executable, '-m', 'easysif.cli', command, 'toy/1'], env=env,
                                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            time.sleep(pause)
        (_, refused), (_, err) = [process.communicate(timeout=60) for process in commands]
        statuses = [process.returncode for process in commands]
        assert statuses in ([0, 0], [0, 1], [1, 0]), (refused, err)
        if statuses[1] == 0:
            assert not toy.root.exists() and not toy.modulefile.exists() and not os.path.lexists(toy.link)
        else:
            assert 'another process is at work here' in err
            assert verify.verify('toy/1', str(toy.root), str(prefix)).problems == []
        assert os.listdir(prefix / 'software') in (['toy'], [])


# --- with the real eb ---------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_what_eb_installed_goes_and_can_be_installed_again(eb, shell, toy, prefix, tmp_path, easysif):
    shutil.rmtree(prefix)
    recipe = toys.recipe(tmp_path / 'recipes', image='toy.sif', commands=['fine'], versionsuffix='-x',
                         postinstallcmds=['echo more > %(installdir)s/more'])
    source = shutil.copy(toys.make_image(tmp_path / 'image'), recipe.parent)
    eb(recipe, '--set-default-module')
    shell('module load toy; test "$(fine x)" = x')
    code, out, err = easysif('remove', 'toy')
    assert (code, err) == (0, '') and out.endswith('it was the default of toy: the newest version is now\n')
    assert toys.files(prefix / 'modules') | toys.files(prefix / 'software') == set()
    assert os.listdir(prefix / 'software') == [] and not (prefix / 'overlays').exists()
    assert 'toy' not in shell('module -t avail 2>&1').output
    assert os.path.exists(source)
    eb(recipe)
    shell('module load toy; test "$(fine x)" = x')


@pytest.mark.e2e
def test_while_eb_rebuilds_it_is_refused_and_a_running_container_keeps_its_image(eb, toy, prefix, tmp_path, easysif):
    shutil.rmtree(prefix)
    go = tmp_path / 'go'
    recipe = toys.recipe(tmp_path / 'recipes', image='toy.sif', commands=['fine', 'sh'])
    shutil.copy(toys.make_image(tmp_path / 'image'), recipe.parent)
    eb(recipe)
    root, _ = toys.installation(prefix)
    begun = tmp_path / 'begun'
    recipe.write_text(recipe.read_text() + "postinstallcmds = ['touch %s; while ! test -e %s; do sleep 0.1; done']\n"
                      % (begun, go))
    with ThreadPoolExecutor() as pool:
        rebuild = pool.submit(eb, recipe, '--rebuild')
        try:
            wait_for(begun.exists)
            code, _, err = easysif('remove', 'toy')
        finally:
            go.touch()
        assert code == 1 and err.startswith('error: toy/1.0: another process is at work here\n  holder  process ')
        assert '(toy-1.0.eb)' in err and rebuild.result().status == 0
    job = subprocess.Popen([root / 'bin' / 'sh', '-c', 'echo up; read word; exec fine "$word"'], text=True,
                           env=harness.user_environment(tmp_path / 'home'), stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
    assert job.stdout.readline() == 'up\n'
    assert easysif('remove', 'toy')[0] == 0 and not root.exists()
    assert job.communicate('still here\n', timeout=120)[0] == 'still here\n'


def wait_for(condition, seconds=60):
    """Wait until a condition holds; the test fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_another_one_takes_away_while_we_look_is_said_so(easysif, toy, monkeypatch):
    def vanished(directory):
        raise FileNotFoundError(2, 'No such file or directory', directory)
    monkeypatch.setattr(remove.Size, 'of', vanished)
    code, _, err = easysif('remove', 'toy/1')
    assert code == 1 and 'toy/1: another process is at work here: a file vanished while it was looked at' in err
    assert 'hint: run the same command again' in err and toy.root.exists()
