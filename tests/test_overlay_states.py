# SPDX-License-Identifier: GPL-2.0-only
"""Directory and squashfs in every combination: what packing and unpacking do, what is kept, who is in the way."""

import errno
import json
import os
import shlex
import shutil
import signal
import struct
import sys
from types import SimpleNamespace

import pytest

import harness
from easysif import overlay as library
from easysif import modes, schema, squashfs
from easysif.errors import EasySIFError
from easysif.overlay import bytecode, generations, pack as pack_module, usage
from easysif.overlay.command import run_pack
from easysif.overlay.content import Content
from easysif.overlay.pack import Wishes, pack
from easysif.overlay.place import Overlay
from easysif.overlay.recorded import packages_record
from easysif.overlay.state import status
from packing import Commands, Sleeper, killed_before, tree
from standins import on_terminal

pytestmark = pytest.mark.long


@pytest.fixture
def overlay(tmp_path):
    """The two commands over an overlay: ``overlay('make-squashfs')``."""
    return Commands(tmp_path)


def change(overlay, text):
    """Let a file of the directory be another one."""
    (overlay.directory / 'venv' / 'jax' / 'a file').write_text(text)


def change_unseen(overlay):
    """The same, but it is as long and as old as it was."""
    file = overlay.directory / 'venv' / 'jax' / 'a file'
    time = os.stat(file).st_mtime_ns
    file.write_text('CONTENT')
    os.utime(file, ns=(time, time))


def names(overlay):
    """Return what is in the overlay (list of str)."""
    return sorted(os.listdir(overlay.root))


def inside(path):
    """Return the text of ``a file`` in a squashfs file (str)."""
    return harness.run(['unsquashfs', '-cat', path, 'venv/jax/a file']).stdout


def inner(overlay):
    """Return the overlay as the commands have it (Overlay)."""
    return Overlay(str(overlay.root), 'jax/24.10', 'make-squashfs')


# --- what is recorded -------------------------------------------------------------------------------------------------

def test_what_is_recorded_fits_its_schema_and_what_others_recorded_stays(overlay):
    root = str(overlay.root)
    assert library.record(root) == {'schema': 1}
    library.update_record(root, packages={'asked': ['flax>=0.8'], 'resolved': []}, later='x')
    overlay('make-squashfs')
    change(overlay, 'other')
    overlay('make-squashfs', '--replace')
    found = library.record(root)
    assert schema.problems('overlay', found) == []
    assert found['packages'] == {'asked': ['flax>=0.8'], 'resolved': []} and found['later'] == 'x'
    assert set(found['kept']) == {'1'} and found['squashfs']['files'] == 1
    library.update_record(root, later=None)
    assert 'later' not in library.record(root)


def test_a_record_that_nobody_can_read_is_put_aside_and_one_of_the_future_refused(overlay):
    overlay.record.write_text('{"packages"')
    overlay('make-squashfs')
    assert (overlay.root / 'overlay.json.damaged').read_text() == '{"packages"' and overlay.squashfs.exists()
    overlay.record.write_text('second')
    library.update_record(str(overlay.root), packages={})
    assert (overlay.root / 'overlay.json.damaged').read_text() == '{"packages"'
    assert (overlay.root / 'overlay.json.damaged-2').read_text() == 'second'
    overlay.record.write_text('{"schema": 2}')
    with pytest.raises(EasySIFError) as caught:
        library.update_record(str(overlay.root), packages={})
    assert str(caught.value) == '%s: was written by a newer EasySIF\n  schema  2\n  known   1\nhint: use that one, ' \
        'or: mv -- %s' % (overlay.record, shlex.join([str(overlay.record), '%s.newer' % overlay.record]))


def test_a_record_that_makes_no_sense_is_no_crash(overlay):
    root = str(overlay.root)
    for known in ([1], 'x', 3, None, {'asked': 3, 'resolved': 'x'}, {'asked': [1], 'resolved': [2]}):
        overlay.record.write_text(json.dumps({'packages': known, 'kept': {'1': 3}, 'squashfs': [4]}))
        assert packages_record(root) == ([], []) and status(inner(overlay))['packages'] == {'asked': 0, 'resolved': 0}
    overlay('make-squashfs', '--remove')
    found = json.loads(overlay.record.read_text())
    found['squashfs']['bytes'] = 'many'
    overlay.record.write_text(json.dumps(found))
    overlay('unmake-squashfs')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'


def test_a_record_that_cannot_be_read_stays(overlay):
    overlay.record.write_text('{}')
    overlay.record.chmod(0)
    overlay.fails('make-squashfs', 1, '%s: cannot be read (Permission denied)\nhint: ls -l -- %s\n' % (
        overlay.record, shlex.quote(str(overlay.record))))


# --- both -------------------------------------------------------------------------------------------------------------

def test_a_directory_that_differs_is_packed_only_where_that_is_wanted(overlay):
    overlay('make-squashfs')
    change(overlay, 'other')
    result = overlay.fails('make-squashfs', 1, 'make-squashfs: the overlay of jax/24.10 is packed, and the directory '
                           'beside it may differ')
    assert result.stderr.endswith('\nhint: make-squashfs --replace packs the directory, unmake-squashfs '
                                  '--use-directory uses it as it is; the squashfs file is kept\n')
    said = overlay('make-squashfs', '--replace').stdout
    assert 'the former squashfs file is kept as %s.1\n' % overlay.squashfs in said
    assert inside(overlay.squashfs) == 'other' and inside('%s.1' % overlay.squashfs) == 'content'
    overlay.fails('make-squashfs', 1, 'is packed already')
    change(overlay, 'third')
    said = overlay('make-squashfs', '--replace').stdout
    assert 'no longer kept: %s.1\n' % overlay.squashfs in said and inside('%s.2' % overlay.squashfs) == 'other'
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs', 'user-software.squashfs.2']


def test_squashfs_files_that_the_user_put_there_are_never_pruned(overlay):
    overlay('make-squashfs')
    for number in ('2', '20250101'):
        shutil.copy(overlay.squashfs, '%s.%s' % (overlay.squashfs, number))
    for text in ('second', 'third'):
        change(overlay, text)
        said = overlay('make-squashfs', '--replace').stdout
    assert 'no longer kept: %s.20250102\n' % overlay.squashfs in said and said.count('no longer kept') == 1
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs', 'user-software.squashfs.2',
                              'user-software.squashfs.20250101', 'user-software.squashfs.20250103']


@pytest.mark.parametrize('mine', ['a squashfs', 'something', 'a directory', 'a link', 'unreadable'])
def test_what_the_user_put_over_a_squashfs_that_is_kept_is_never_pruned(overlay, tmp_path, mine):
    overlay('make-squashfs')
    change(overlay, 'second')
    overlay('make-squashfs', '--replace')
    kept = overlay.root / 'user-software.squashfs.1'
    assert '1' in json.loads(overlay.record.read_text())['kept']
    kept.unlink()
    if mine == 'a directory':
        kept.mkdir()
    elif mine == 'a link':
        kept.symlink_to(tmp_path / 'nowhere')
    else:
        shutil.copy(overlay.squashfs, kept) if mine == 'a squashfs' else kept.write_text('precious')
        kept.chmod(0 if mine == 'unreadable' else 0o600)
    before = os.lstat(kept)
    for text, number in (('the third one', 2), ('the fourth one', 3)):
        change(overlay, text)
        said = overlay('make-squashfs', '--replace').stdout
        assert 'the former squashfs file is kept as %s.%d\n' % (overlay.squashfs, number) in said
    assert os.lstat(kept).st_ino == before.st_ino and os.lstat(kept).st_mtime_ns == before.st_mtime_ns
    assert names(overlay)[2:] == ['user-software.squashfs', 'user-software.squashfs.1', 'user-software.squashfs.3']


def test_a_link_that_the_user_made_to_a_squashfs_that_is_kept_is_no_second_name_of_it(overlay):
    """As some go back: with ``ln -s``."""
    overlay('make-squashfs')
    change(overlay, 'second')
    overlay('make-squashfs', '--replace')
    overlay.squashfs.unlink()
    overlay.squashfs.symlink_to('user-software.squashfs.1')
    overlay('unmake-squashfs', '--use-directory')
    for text in ('the third one', 'the fourth one'):
        overlay('make-squashfs', '--replace')
        change(overlay, text)
    assert inside('%s.1' % overlay.squashfs) == inside('%s.2' % overlay.squashfs) == 'content'
    assert os.path.islink('%s.2' % overlay.squashfs)


def made_for(overlay):
    """Return for what Python the overlay says that it is (str)."""
    return (overlay.root / 'made-for').read_text().split()[1]


def rolled_back(overlay, number, can_link):
    """Roll back in a process that kills itself before one of its calls that change files; return its exit status (int).

    :param number: of the call, from 1 on (int)
    """
    def refuse(*_, **__):
        raise OSError(errno.EOPNOTSUPP, 'Operation not supported')
    counted, pid = killed_before(number), os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.link = os.link if can_link else refuse
        with inner(overlay).alone() as lock:
            for name in ('rename', 'link', 'unlink', 'fsync'):
                setattr(os, name, counted(getattr(os, name)))
            generations.rollback(inner(overlay), lock)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize('state', ['squashfs', 'directory', 'rolled back'])
@pytest.mark.parametrize('can_link', [True, False])
def test_rollback_is_killed_before_any_call_and_something_is_packed_at_every_moment(overlay, tmp_path, state, can_link):
    """What it was made for is that of what is used, after the next command; nothing is lost and nothing there twice."""
    for text, python in (('3.11', '3.11'), ('3.12', '3.12')):
        change(overlay, text)
        (overlay.root / 'made-for').write_text('python %s\n' % python)
        overlay('make-squashfs', '--replace')
    if state != 'squashfs':
        overlay('unmake-squashfs')
        (overlay.root / 'made-for').write_text('python 3.13\n')
        change(overlay, '3.13')
    if state == 'rolled back':
        generations.rollback(inner(overlay), SimpleNamespace(check=lambda: None))
    before, number, status, seen = tmp_path / 'before', 0, None, []
    shutil.copytree(overlay.root, before, symlinks=True)
    while status != 0:
        shutil.rmtree(overlay.root)
        harness.run(['cp', '-a', before, overlay.root])
        number += 1
        status = rolled_back(overlay, number, can_link)
        assert status in (0, -signal.SIGKILL)
        is_packed = overlay.squashfs.exists()
        assert is_packed or state != 'squashfs'
        with inner(overlay).alone():
            pass
        assert is_packed == overlay.squashfs.exists()
        seen.append(inside(overlay.squashfs) if is_packed else '3.13')
        assert made_for(overlay) == seen[-1], number
        files = sorted(inside(path) for path in overlay.root.glob('*.squashfs*'))
        assert files == (['3.11', '3.12'] if state == 'squashfs' else ['3.12']), number
        assert not [name for name in names(overlay) if not name.startswith(('user-software', 'overlay.js', 'made-for'))]
        assert schema.problems('overlay', library.record(str(overlay.root))) == []
    former, now = {'squashfs': ('3.12', '3.11'), 'directory': ('3.13', '3.12'), 'rolled back': ('3.12', '3.13')}[state]
    assert number > 5 and seen == [former] * seen.count(former) + [now] * seen.count(now) and {*seen} == {former, now}
    assert 'made_for' not in library.record(str(overlay.root))


def test_what_was_kept_before_there_were_numbers_is_older_than_all_and_never_pruned(overlay):
    overlay('make-squashfs')
    former = [shutil.copy(overlay.squashfs, '%s.%s' % (overlay.squashfs, end)) for end in ('previous', 'previous-2')]
    assert [path for _, path in inner(overlay).kept()] == former
    for text in ('the second', 'the third one'):
        change(overlay, text)
        overlay('make-squashfs', '--replace')
    newest = '%s.2' % overlay.squashfs
    assert [path for _, path in inner(overlay).kept()] == [*former, newest] and inside(newest) == 'the second'
    os.unlink(newest)
    assert generations.find_newest(inner(overlay)) == former[1]


@pytest.mark.parametrize('keep', [1, 2])
def test_of_two_that_differ_the_one_that_is_not_used_is_kept(overlay, keep):
    overlay.fake.site(squashfs={'compressor': 'zstd', 'level': 3, 'block': '256K', 'keep': keep})
    overlay('make-squashfs')
    change(overlay, 'other')
    said = overlay('unmake-squashfs', '--replace').stdout
    assert tree(overlay.directory)[b'venv/jax/a file'][2] == b'content' and not overlay.squashfs.exists()
    assert 'what the directory held is kept as %s.3\n' % overlay.squashfs in said
    assert said.startswith('unpacked; the squashfs file is %s\n' % (
        'no longer kept' if keep == 1 else 'kept as %s.2' % overlay.squashfs))
    kept = [name for name in names(overlay) if 'squashfs' in name]
    assert kept == ['user-software.squashfs.2', 'user-software.squashfs.3'][-keep:]
    assert inside('%s.3' % overlay.squashfs) == 'other'
    overlay('make-squashfs')
    change(overlay, 'mine')
    said = overlay('unmake-squashfs', '--use-directory').stdout
    assert said.startswith('the directory is used as it is; the squashfs file is kept as %s.4\n' % overlay.squashfs)
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'mine'
    assert inside('%s.4' % overlay.squashfs) == 'content'


def test_a_dry_run_changes_nothing_and_says_what_is_done_then(overlay):
    """As text, and as JSON with what the real run says then."""
    names_of = {'d': overlay.directory, 's': overlay.squashfs}
    for text, argv, said in (
            (None, ['make-squashfs'], 'would pack {d}, 1 file, 7 bytes, into {s}\n'),
            (None, ['unmake-squashfs'], 'would use {d} as it is; the squashfs file would be kept as {s}.1\n'),
            ('other', ['make-squashfs', '--replace'], 'would pack {d}, 1 file, 5 bytes, into {s}\n'),
            ('second', ['make-squashfs', '--replace', '--remove'],
             'would pack {d}, 1 file, 6 bytes, into {s}\nthe former squashfs file would be kept as {s}.2\n'
             'would no longer be kept: {s}.1\nwould remove {d}\n'),
            (None, ['unmake-squashfs'], 'would unpack {s} into {d}; the squashfs file would be kept as {s}.3\n'
                                        'would no longer be kept: {s}.2\n'),
            # as it is, and within the same second, it would be the file that is kept
            ('third', ['make-squashfs'], 'would pack {d}, 1 file, 5 bytes, into {s}\n'),
            ('something', ['unmake-squashfs', '--replace'],
             'would unpack {s} into {d}; the squashfs file would no longer be kept\n'
             'what the directory holds now would be kept as {s}.6\nwould no longer be kept: {s}.3\n'),
            (None, ['make-squashfs'], 'would pack {d}, 1 file, 5 bytes, into {s}\n'),
            (None, ['make-squashfs', '--remove'], 'would remove {d}, 1 file, 5 bytes; all of it is in {s}\n')):
        if text:
            change(overlay, text)
        before = tree(overlay.root)
        assert overlay(*argv, '--dry-run').stdout == said.format(**names_of)
        told = json.loads(overlay(*argv, '--dry-run', '--json').stdout)
        assert tree(overlay.root) == before and told.pop('dry_run') is True
        done = json.loads(overlay(*argv, '--json').stdout)
        assert done.pop('dry_run') is False and dict(done, size=None) == dict(told, size=None)


def test_what_was_done_is_told_as_json(overlay):
    done = json.loads(overlay('make-squashfs', '--json').stdout)
    assert done == {'dry_run': False, 'directory': str(overlay.directory), 'squashfs': str(overlay.squashfs),
                    'files': 1, 'bytes': 7, 'size': overlay.squashfs.stat().st_size, 'packed': True, 'kept': None,
                    'pruned': [], 'removed': False}
    done = json.loads(overlay('unmake-squashfs', '--json').stdout)
    assert done == {'dry_run': False, 'directory': str(overlay.directory), 'squashfs': str(overlay.squashfs),
                    'extracted': False, 'kept': '%s.1' % overlay.squashfs, 'kept_directory': None, 'pruned': []}


def test_what_the_list_of_the_place_gives_to_directories_they_get_anew(overlay):
    """A squashfs file has no access control lists: those of a prefix of a group come back, entries of one's own do not.
    Nothing is said of either, and nothing fails."""
    entries = ((modes.OWNER, 7), (modes.GROUP, 7), (modes.OTHERS, 5))
    value = struct.pack('<I', 2) + b''.join(modes.ENTRY.pack(who, bits, modes.NOBODY) for who, bits in entries)
    inner_one = overlay.directory / 'venv' / 'jax'
    for path in (overlay.root, overlay.directory, overlay.directory / 'venv', inner_one):
        os.setxattr(path, modes.DEFAULT, value)
    named = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in (
        (1, 7, modes.NOBODY), (2, 7, 12345), (4, 5, modes.NOBODY), (16, 7, modes.NOBODY), (32, 5, modes.NOBODY)))
    os.setxattr(inner_one, modes.ACCESS, named)
    mode = inner_one.stat().st_mode
    assert overlay('make-squashfs', '--remove', '--verify=full').stderr == ''
    assert overlay('unmake-squashfs').stderr == ''
    assert os.getxattr(inner_one, modes.DEFAULT) == value and inner_one.stat().st_mode == mode
    assert modes.ACCESS not in os.listxattr(inner_one)


# --- the directory goes -----------------------------------------------------------------------------------------------

def test_after_packing_with_remove_there_are_three_files_at_most(overlay):
    (overlay.root / 'made-for').write_text('python 3.12\n')
    before = tree(overlay.directory)
    said = overlay('make-squashfs', '--remove', '--verify=full').stdout
    assert said.endswith('now: module reload; the directory %s is removed\n' % overlay.directory)
    assert names(overlay) == ['made-for', 'overlay.json', 'user-software.squashfs']
    overlay('unmake-squashfs')
    assert tree(overlay.directory) == before
    overlay('make-squashfs')
    assert overlay('make-squashfs', '--remove').stdout == 'removed %s, 1 file, 7 bytes; all of it is in %s\n' % (
        overlay.directory, overlay.squashfs)
    assert not overlay.directory.exists()


@pytest.mark.parametrize('options', [['--remove'], ['--verify=full'], ['--remove', '--dry-run'], []])
def test_what_differs_by_its_bytes_only_is_neither_removed_nor_taken_for_packed(overlay, options):
    overlay('make-squashfs')
    change_unseen(overlay)
    overlay.fails('make-squashfs', 1, 'is packed, and the directory beside it may differ', arguments=options)
    overlay('make-squashfs', '--replace', *options)
    if '--dry-run' not in options:
        assert inside(overlay.squashfs) == 'CONTENT' and inside('%s.1' % overlay.squashfs) == 'content'
    if not options:
        overlay.fails('make-squashfs', 1, 'is packed already', arguments=['--replace'])


def test_what_differs_by_its_bytes_only_is_not_taken_for_what_was_packed_when_it_is_unpacked(overlay):
    """Neither is lost: without an option nothing is done, with one of the two the other one is kept."""
    overlay('make-squashfs')
    change_unseen(overlay)
    overlay.fails('unmake-squashfs', 1, 'unmake-squashfs: a directory is there that may differ from the squashfs file')
    overlay.fails('unmake-squashfs', 1, 'a directory is there that may differ', arguments=['--dry-run'])
    overlay('unmake-squashfs', '--replace')
    kept = overlay.root / 'user-software.squashfs.3'
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content' and inside(kept) == 'CONTENT'
    os.rename(kept, overlay.squashfs)
    overlay('unmake-squashfs', '--use-directory')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'
    assert 'CONTENT' in [inside(path) for path in overlay.root.glob('user-software.squashfs.*')]


def test_what_nobody_touched_is_not_read_back(overlay):
    """What is copied is, as its times say nothing of its bytes."""
    overlay('make-squashfs')
    overlay.stand_in('unsquashfs', 'case $* in *-ll*) ;; *) echo read >>"$HOME/read" ;; esac; exec "$REAL" "$@"')
    overlay.fails('make-squashfs', 1, 'is packed already')
    read = harness.Path(overlay.env['HOME']) / 'read'
    assert not read.exists()
    os.rename(overlay.directory, overlay.root / 'aside')
    harness.run(['cp', '-a', overlay.root / 'aside', overlay.directory])
    overlay('unmake-squashfs')
    assert read.read_text() == 'read\n' and not overlay.squashfs.exists()


def test_a_directory_that_changes_after_it_was_packed_is_not_removed(overlay):
    overlay.stand_in('unsquashfs', '"$REAL" "$@"; echo more >>%s' % shlex.quote(
        str(overlay.directory / 'venv' / 'jax' / 'a file')))
    result = overlay('make-squashfs', '--remove', check=False)
    assert result.status == 1 and 'make-squashfs: the directory changed after it was packed, so it is not removed' in \
        result.stderr and 'hint: make-squashfs --replace --remove, once nothing writes to it' in result.stderr
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'contentmore\n'
    assert inside(overlay.squashfs) == 'content'
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs']


def test_what_of_others_cannot_be_removed_is_out_of_the_way_and_that_is_said(overlay, monkeypatch, capsys):
    monkeypatch.setattr(pack_module, 'discard', lambda path: None)
    args = SimpleNamespace(json=False, dry_run=False, remove=True, replace=False, force=False, verify='list')
    run_pack(inner(overlay), args)
    assert capsys.readouterr().out.endswith(
        'now: module reload; the directory %s is out of the way; what of it is somebody else\'s goes with the next '
        'command of theirs\n' % overlay.directory)
    monkeypatch.undo()
    overlay('unmake-squashfs')
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs.1']


def test_a_directory_that_was_looked_at_for_the_last_time_when_it_was_killed_comes_back(overlay):
    overlay('make-squashfs')
    os.rename(overlay.directory, overlay.root / '.user-software.doubted-4711')
    late = overlay.root / '.user-software.doubted-4711' / 'late'
    late.write_text('precious')
    overlay.directory.mkdir()  # as loading the module does
    said = overlay('make-squashfs', check=False).stderr
    assert 'is packed, and the directory beside it may differ' in said
    assert (overlay.directory / 'late').read_text() == 'precious'
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs']


@pytest.mark.parametrize('end', [KeyboardInterrupt, SystemExit(143), EasySIFError('make-squashfs', 'changed')])
def test_the_directory_is_back_at_once_where_the_last_look_at_it_ends_early(overlay, monkeypatch, end):
    looks = iter([True])

    def is_still(content, top=None):
        if next(looks, False):
            return True
        raise end
    monkeypatch.setattr(Content, 'is_still', is_still)
    before = tree(overlay.directory)
    with pytest.raises(BaseException) as caught:
        pack(inner(overlay), Wishes(remove=True))
    assert caught.value is end or caught.type is end
    assert tree(overlay.directory) == before
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs']


def test_a_directory_that_cannot_come_back_is_named(overlay, monkeypatch):
    def is_still(content, top=None):
        if top:
            overlay.directory.mkdir()
            (overlay.directory / 'other').touch()
        return not top
    monkeypatch.setattr(Content, 'is_still', is_still)
    with pytest.raises(EasySIFError) as caught:
        pack(inner(overlay), Wishes(remove=True))
    doubted = overlay.root / ('.user-software.doubted-%d' % os.getpid())
    said = 'make-squashfs: the directory is under another name now, as something else took its place\n' \
        '  directory     %s\n  in its place  %s\nhint: mv -- %s, then the same command again' % (
            doubted, overlay.directory, shlex.join([str(overlay.directory), '%s.other' % overlay.directory]))
    assert str(caught.value) == said and (doubted / 'venv' / 'jax' / 'a file').read_text() == 'content'
    result = overlay('unmake-squashfs', '--dry-run', check=False)
    assert 'unmake-squashfs: the directory is under another name now, as something else took its place: %s\n' \
        % doubted in result.stderr
    os.rename(overlay.directory, '%s.other' % overlay.directory)
    overlay('unmake-squashfs')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'


def test_a_directory_that_changes_after_it_was_packed_is_not_replaced(overlay):
    overlay('make-squashfs')
    change(overlay, 'other')
    late = overlay.directory / 'late'
    overlay.stand_in('unsquashfs', '"$REAL" "$@"; case $* in *squashfs.easysif-new-*) echo >>%s ;; esac'
                     % shlex.quote(str(late)))
    result = overlay('unmake-squashfs', '--replace', check=False)
    assert result.status == 1 and result.stderr == (
        'error: unmake-squashfs: the directory changed meanwhile, so it is not replaced\n  directory  %s\n  squashfs   '
        '%s\nhint: wait for pip to end, then: unmake-squashfs --replace\n' % (overlay.directory, overlay.squashfs))
    assert late.exists() and (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'other'
    assert inside(overlay.squashfs) == 'content' and not list(overlay.root.glob('*new-*'))


def test_what_the_user_named_much_like_ours_stays(overlay):
    for name in ('user-software.new-2', 'user-software.squashfs.new-1', 'user-software.easysif-new-ideas',
                 'user-software.squashfs.easysif-new-1.bak', '.user-software.leaving-x', '.user-software.doubted-me',
                 '.overlay.json.new-y', 'user-software.before-rebuild'):
        (overlay.root / name).mkdir()
    before = names(overlay)
    for name in ('user-software.easysif-new-1', 'user-software.squashfs.easysif-new-2', '.user-software.leaving-4',
                 'user-software.easysif-new-3.probe', '.overlay.json.new-5', '.made-for.new-6',
                 '.environment.json.new-7'):
        (overlay.root / name).touch()
    overlay('make-squashfs')
    assert names(overlay) == sorted([*before, 'overlay.json', 'user-software.squashfs'])


def test_what_reads_back_other_than_it_was_is_found_by_full_verification(overlay):
    overlay.stand_in('mksquashfs', 'cp -a "$1" "$HOME/copy"; tr a-z A-Z <"$1/venv/jax/a file" '
                                   '>"$HOME/copy/venv/jax/a file"; shift; "$REAL" "$HOME/copy" "$@" >/dev/null')
    overlay.fails('make-squashfs', 3, '1 files are not in the squashfs as they are', '  first  venv/jax/a file',
                  arguments=['--verify=full'])


# --- by hand ----------------------------------------------------------------------------------------------------------

def test_what_is_removed_by_hand_is_gone_and_nothing_else(overlay):
    overlay('make-squashfs')
    shutil.rmtree(overlay.directory)
    overlay.fails('make-squashfs', 1, 'is packed already')
    overlay('unmake-squashfs')
    overlay('make-squashfs')
    overlay.squashfs.unlink()
    overlay.fails('unmake-squashfs', 1, 'the overlay of jax/24.10 is not packed')
    overlay('make-squashfs')
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs', 'user-software.squashfs.1']


def test_copies_made_by_hand_are_as_good_as_what_was_copied(overlay, tmp_path):
    overlay('make-squashfs')
    harness.run(['cp', '-r', overlay.root, tmp_path / 'copy'])
    shutil.rmtree(overlay.root)
    harness.run(['cp', '-r', tmp_path / 'copy', overlay.root])
    shutil.rmtree(overlay.directory)
    overlay('unmake-squashfs')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'
    harness.run(['cp', '-r', overlay.directory, tmp_path / 'directory'])
    os.utime(overlay.directory / 'venv', (1, 1))  # a kept squashfs with the bytes of this one would be one too many
    overlay('make-squashfs', '--remove')
    harness.run(['cp', '-r', tmp_path / 'directory', overlay.directory])
    os.utime(overlay.directory / 'venv' / 'jax' / 'a file', (1, 1))  # all of this may be within one second
    overlay.fails('unmake-squashfs', 1, 'a directory is there that may differ')  # its times are other ones
    (tmp_path / 'directory' / 'more').write_bytes(os.urandom(5000))  # for a file of another length
    harness.run(['mksquashfs', tmp_path / 'directory', tmp_path / 'by-hand', '-quiet', '-no-progress'])
    shutil.rmtree(overlay.directory)
    shutil.copy(tmp_path / 'by-hand', overlay.squashfs)
    overlay('unmake-squashfs')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'


def test_a_directory_that_a_link_leads_to_is_packed_but_never_replaced(overlay, tmp_path):
    shutil.move(overlay.directory, tmp_path / 'scratch')
    overlay.directory.symlink_to(tmp_path / 'scratch')
    said = ('the directory is a link, which is not followed\n  link      %s\n  leads to  %s\n'
            'hint: rm -- %s, which leaves') % (
        overlay.directory, tmp_path / 'scratch', shlex.quote(str(overlay.directory)))
    overlay.fails('make-squashfs', 1, 'make-squashfs: ' + said, arguments=['--remove'])
    overlay('make-squashfs')
    change(overlay, 'other')
    overlay.fails('unmake-squashfs', 1, 'unmake-squashfs: ' + said, arguments=['--replace'])
    overlay.directory.unlink()
    overlay('unmake-squashfs')
    assert (overlay.directory / 'venv' / 'jax' / 'a file').read_text() == 'content'
    assert (tmp_path / 'scratch' / 'venv' / 'jax' / 'a file').read_text() == 'other'


def test_a_mount_point_is_packed_but_never_replaced(overlay, tmp_path, monkeypatch):
    """As a disk image of the user's, or a file system for each project: nothing can be renamed to its place."""
    shutil.copytree(overlay.directory, tmp_path / 'mounted')
    mounted = ['unshare', '--map-root-user', '--mount', 'sh', '-ec', 'mount --bind "$0" "$1"; shift; exec "$@"',
               tmp_path / 'mounted', overlay.directory]

    def run(*argv, check=True):
        return harness.run([*mounted, *argv], env=overlay.env, check=check)
    said = ('the directory is a mount point, and nothing can take its place\n  directory  %s\nhint: umount %s, and '
            'mount above it: %s; pip install works as it is\n') % (
        overlay.directory, *[shlex.quote(str(path)) for path in (overlay.directory, overlay.root)])
    make, unmake = [overlay.fake.root / 'bin' / name for name in ('make-squashfs', 'unmake-squashfs')]
    before = tree(overlay.root)
    assert run(make, '--remove', check=False).stderr == 'error: make-squashfs: ' + said and tree(overlay.root) == before
    run(make)
    (tmp_path / 'mounted' / 'more').touch()
    assert run(unmake, '--replace', check=False).stderr == 'error: unmake-squashfs: ' + said
    code = ('import sys; from easysif.overlay import place, state; from easysif.packages import target; '
            'it = place.Overlay(sys.argv[1], "jax/24.10", "easysif"); found = target.Target.__new__(target.Target); '
            'found.overlay, found.host_venv = it, it.directory + "/venv/jax"; '
            'what = (lambda: state.remove(it, True)) if sys.argv[2] == "remove" else found.beside().__enter__\n'
            'try: what()\nexcept place.EasySIFError as err: sys.exit("error: %s" % err)')
    monkeypatch.setitem(overlay.env, 'PYTHONPATH', os.pathsep.join(sys.path))
    for action in ('remove', 'beside'):
        assert run(sys.executable, '-c', code, overlay.root, action, check=False).stderr == 'error: easysif: ' + said
    run(unmake, '--use-directory')
    assert names(overlay) == ['overlay.json', 'user-software', 'user-software.squashfs.1']


def test_what_is_mounted_in_the_directory_keeps_its_files(overlay, tmp_path, monkeypatch):
    """As somebody's data by sshfs."""
    (tmp_path / 'far').mkdir()
    (tmp_path / 'far' / 'precious').write_text('mine')
    (overlay.directory / 'my\u3000 data').mkdir()

    def run(*argv, check=False):
        script = 'mount --bind "$0" "$1"; shift; exec "$@"'
        return harness.run(['unshare', '--map-root-user', '--mount', 'sh', '-ec', script, tmp_path / 'far',
                            overlay.directory / 'my\u3000 data', *argv], env=overlay.env, check=check)
    said = ('something is mounted in the directory, whose own files would go with it\n  mounted  %s/my\u3000 data\n'
            'hint: umount %s, or fusermount -u\n') % (
                overlay.directory, shlex.quote('%s/my\u3000 data' % overlay.directory))
    make, unmake = [overlay.fake.root / 'bin' / name for name in ('make-squashfs', 'unmake-squashfs')]
    assert run(make, '--remove').stderr == 'error: make-squashfs: ' + said
    run(make, check=True)
    change(overlay, 'other')
    assert run(unmake, '--replace').stderr == 'error: unmake-squashfs: ' + said
    code = ('import sys; from easysif.overlay import place, state\n'
            'try: state.remove(place.Overlay(sys.argv[1], "jax/24.10", "easysif"))\n'
            'except place.EasySIFError as err: sys.exit("error: %s" % err)')
    monkeypatch.setitem(overlay.env, 'PYTHONPATH', os.pathsep.join(sys.path))
    assert run(sys.executable, '-c', code, overlay.root).stderr == 'error: easysif: ' + said
    assert (tmp_path / 'far' / 'precious').read_text() == 'mine'


def test_environments_that_a_link_leads_to_on_another_file_system_are_named(overlay):
    """Also where that is the root file system, above which there is nothing."""
    venv, it = overlay.directory / 'venv', Overlay(str(overlay.root), 'jax/24.10', 'easysif')
    it.refuse_mount(str(venv))
    shutil.rmtree(venv)
    venv.symlink_to('/proc/tty')
    with pytest.raises(EasySIFError) as caught:
        it.refuse_mount(str(venv))
    assert str(caught.value) == (
        'easysif: the directory is a link to another file system, and nothing can be renamed into it\n'
        '  link      %s\n  leads to  /proc/tty\nhint: rm -- %s && cp -a -- /proc/tty %s' % (
            venv, shlex.quote(str(venv)), shlex.quote(str(venv))))


# --- damage -----------------------------------------------------------------------------------------------------------

def test_a_flipped_bit_is_found_before_anything_is_unpacked(overlay):
    (overlay.directory / 'big').write_bytes(os.urandom(300000))
    overlay('make-squashfs', '--remove')
    content = bytearray(overlay.squashfs.read_bytes())
    content[1000] ^= 4
    overlay.squashfs.write_bytes(content)
    result = overlay.fails('unmake-squashfs', 1, 'the squashfs file is damaged: its content is not what was packed')
    aside = 'hint: mv -- %s' % shlex.join([str(overlay.squashfs), '%s.damaged' % overlay.squashfs])
    assert result.stderr.endswith(aside + '\n')
    shutil.copy(overlay.squashfs, '%s.2' % overlay.squashfs)
    result = overlay('unmake-squashfs', check=False)
    assert result.stderr.endswith('%s && mv -- %s to use what was kept last\n' % (
        aside, shlex.join(['%s.2' % overlay.squashfs, str(overlay.squashfs)])))


# --- who is in the way ------------------------------------------------------------------------------------------------

def test_a_process_that_writes_to_the_directory_is_named(overlay):
    path = overlay.directory / 'log'
    with Sleeper(path, 'w') as process:
        result = overlay.fails('make-squashfs', 1, 'make-squashfs: 1 process may write to the overlay\n', (
            'hint: wait for it to end; with --force what changes meanwhile is noticed, and then nothing is done'))
        assert '  process %d  %s' % (process.pid, sys.executable[:39]) in result.stderr
        assert '%s w (writes log)\n' % str(path)[-20:] in result.stderr
        overlay('make-squashfs', '--force')
    with Sleeper(path, 'r'):
        overlay('make-squashfs', '--replace', check=False)
    assert usage.users(str(overlay.directory)) == []


def test_of_many_processes_some_are_named_with_their_jobs(overlay, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '77')
    sleepers = [Sleeper(overlay.directory / 'log', 'a') for _ in range(5)]
    try:
        result = overlay.fails('make-squashfs', 1, 'make-squashfs: 5 processes may write to the overlay\n')
        assert result.stderr.count('(writes log, job 77)') == 3 and '  and  ' in result.stderr
        assert '  2 more\nhint: wait for them to end' in result.stderr
    finally:
        for sleeper in sleepers:
            sleeper.__exit__()


def test_the_shell_from_which_it_is_called_may_have_a_file_open(overlay):
    script = 'exec 3>"%s"; "$0"; exit $?' % (overlay.directory / 'log')
    harness.run(['bash', '-c', script, overlay.fake.root / 'bin' / 'make-squashfs'], env=overlay.env)


def test_a_file_that_goes_while_the_directory_is_read_is_no_crash(overlay, monkeypatch):
    path = overlay.directory / 'link'
    path.symlink_to('x')

    def gone(name):
        raise FileNotFoundError(2, 'No such file or directory', name)
    monkeypatch.setattr(os, 'readlink', gone)
    with pytest.raises(EasySIFError) as caught:
        Content(str(overlay.directory), 'make-squashfs')
    assert str(caught.value) == ('make-squashfs: the directory changed while it was read\n  file  %s\n'
                                 'hint: wait for pip to end, then the same command again' % path)


# --- space ------------------------------------------------------------------------------------------------------------

def test_what_surely_does_not_fit_is_refused_at_once(overlay, monkeypatch):
    (overlay.directory / 'random').write_bytes(os.urandom(4 << 20))
    (overlay.directory / 'zeros').write_bytes(bytes(64 << 20))
    least = Content(str(overlay.directory), 'x').least_packed()
    assert 100 << 10 < least < 2 << 20
    place = Overlay(str(overlay.root), 'jax/24.10', 'make-squashfs')
    monkeypatch.setattr(os, 'statvfs', lambda path: os.statvfs_result((4096, 4096, 0, 10, 10, 0, 0, 0, 0, 255)))
    with pytest.raises(EasySIFError) as caught:
        place.check_space('the squashfs needs at least', 2 << 20)
    assert str(caught.value).startswith(
        'make-squashfs: there is not enough space\n  the squashfs needs at least  2.0 MiB\n'
        '  free                         40.0 KiB\n  directory                    %s\nhint: df -h ' % overlay.root)


# --- bytecode ---------------------------------------------------------------------------------------------------------

def test_sources_without_bytecode_are_found_and_compiled_by_the_modules_python(overlay, tmp_path):
    packages = overlay.directory / 'venv' / 'jax' / 'lib' / 'python3' / 'site-packages'
    (packages / 'a' / '__pycache__').mkdir(parents=True)
    for name in ('a/done.py', 'a/left.py', 'top.py', 'a/__pycache__/done.cpython-312.pyc'):
        (packages / name).write_text('x = 1\n')
    (overlay.directory / 'script.py').write_text('')
    left = [os.path.join('/user-software/venv/jax/lib/python3/site-packages', name) for name in ('a/left.py', 'top.py')]
    assert sorted(bytecode.missing(Content(str(overlay.directory), 'x'))) == left
    runtime = tmp_path / 'runtime'
    runtime.mkdir()
    (runtime / 'apptainer').write_text('#!/bin/sh\necho "$*" >"$HOME/args"; cat >"$HOME/sources"\n'
                                       'touch %s; exit 1\n' % shlex.quote(str(packages / 'a/__pycache__/left.pyc')))
    (runtime / 'apptainer').chmod(0o755)
    overlay('make-squashfs', PATH='%s:%s' % (runtime, overlay.env['PATH']))
    home = overlay.env['HOME']
    with open(os.path.join(home, 'args')) as args, open(os.path.join(home, 'sources')) as sources:
        assert ' python -m compileall -q -j ' in args.read() and sorted(sources.read().split()) == left
    assert 'a/__pycache__/left.pyc' in harness.run(['unsquashfs', '-ll', overlay.squashfs]).stdout


# --- on a terminal ----------------------------------------------------------------------------------------------------

def test_a_bar_shows_how_far_it_is_on_a_terminal_only(overlay):
    (overlay.directory / 'big').write_bytes(os.urandom(3 << 20))
    slow = 'cat "$1/big" >/dev/null; sleep 0.5; "$REAL" "$@"'
    overlay.stand_in('mksquashfs', slow)
    assert overlay('make-squashfs', '--remove').stderr == ''
    overlay.stand_in('unsquashfs', 'sleep 0.5; exec "$REAL" "$@"')
    status, shown = on_terminal([overlay.fake.root / 'bin' / 'unmake-squashfs'], overlay.env, [])
    assert status == 0 and 'unpacking [' in shown and ' %  ' in shown and ' of 3.0 MiB' in shown
    assert shown.index('unpacking [') < shown.rindex('\r\x1b[K') < shown.index('unpacked; ')
    assert squashfs.problem('%s.1' % overlay.squashfs) is None
