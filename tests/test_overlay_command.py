# SPDX-License-Identifier: GPL-2.0-only
"""easysif overlay: what an overlay is, packed and unpacked by name, the way back, what is damaged, what is removed."""

import json
import os
import re
import shlex
import shutil
import sys

import pytest

import harness
import toys
from easysif import overlay as library
from easysif import schema
from made_up import MadeUp, run_easysif
from packing import Sleeper
from standins import on_terminal

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('its_prefix')]


@pytest.fixture
def toy(prefix):
    """One installed module with something in its overlay (MadeUp)."""
    made = MadeUp(prefix)
    made.add_package()
    return made


def done(easysif, *argv):
    """Run a command that must succeed, and return what it prints (str)."""
    code, out, err = easysif('overlay', *argv)
    assert (code, err) == (0, ''), err
    return out


def refused(easysif, toy, *argv):
    """Run a command that must fail and change nothing, and return its error (str)."""
    before = toys.snapshot(toy.overlay)
    code, out, err = easysif('overlay', *argv)
    assert (code, out) == (1, '') and toys.snapshot(toy.overlay) == before
    return err


def write(toy, text):
    (toy.overlay / 'user-software' / 'venv' / 'toy' / 'package').write_text(text)


def packed(toy):
    return {path.name: path.read_bytes() for path in toy.overlay.glob('user-software.squashfs*')}


def test_the_whole_life_of_an_overlay(easysif, toy):
    """Packed, changed, packed again, back and forth, unpacked, removed."""
    directory = toy.overlay / 'user-software'
    squashfs = '%s.squashfs' % directory
    out = done(easysif, 'pack', 'toy')
    assert out.startswith('packed into %s (4.0 KiB)\n' % squashfs)
    first = packed(toy)['user-software.squashfs']
    write(toy, 'second')
    done(easysif, 'pack', 'toy', '--replace', '--remove')
    second = packed(toy)['user-software.squashfs']
    assert packed(toy)['user-software.squashfs.1'] == first and not directory.exists()
    assert done(easysif, 'rollback', 'toy') == (
        'using {0}.1 as {0}\nthe former squashfs file is kept as {0}.2\nnow: module reload\n'.format(squashfs))
    assert packed(toy) == {'user-software.squashfs': first, 'user-software.squashfs.2': second}
    before = toys.snapshot(toy.overlay)
    assert done(easysif, 'rollback', 'toy', '--dry-run') == (
        'would use {0}.2 as {0}\nthe former squashfs file would be kept as {0}.3\n'.format(squashfs))
    assert toys.snapshot(toy.overlay) == before
    done(easysif, 'rollback', 'toy')
    assert packed(toy) == {'user-software.squashfs': second, 'user-software.squashfs.3': first}
    assert [one['recorded'] for one in json.loads(done(easysif, 'check', 'toy', '--json'))['files']] == [True, True]
    done(easysif, 'unpack', 'toy')
    assert (directory / 'venv' / 'toy' / 'package').read_text() == 'second'
    done(easysif, 'rollback', 'toy')
    assert packed(toy) == {'user-software.squashfs': second}
    (toy.overlay / 'notes').write_text('mine')
    out = done(easysif, 'remove', 'toy', '--yes')
    assert out == ''.join('removed %s\n' % (toy.overlay / name)
                          for name in ('overlay.json', 'user-software', 'user-software.squashfs'))
    assert os.listdir(toy.overlay) == ['notes']
    assert 'error: easysif overlay remove: there is nothing to remove\n' in refused(easysif, toy, 'remove', 'toy')


@pytest.mark.parametrize('after', [['unpack', 'toy'], ['unpack', 'toy', '--replace'], ['pack', 'toy', '--replace']])
def test_what_a_rollback_put_aside_does_not_give_way_to_what_is_older(easysif, toy, after):
    """Who goes back to look, and goes on from there, can still have the newer packages."""
    write(toy, 'older')
    done(easysif, 'pack', 'toy')
    write(toy, 'newer')
    done(easysif, 'pack', 'toy', '--replace', '--remove')
    older, newer = packed(toy)['user-software.squashfs.1'], packed(toy)['user-software.squashfs']
    done(easysif, 'rollback', 'toy')
    if '--replace' in after:
        (toy.overlay / 'user-software' / 'venv' / 'toy').mkdir(parents=True)
        write(toy, 'else')
    would = json.loads(done(easysif, *after, '--json', '--dry-run'))
    told = json.loads(done(easysif, *after, '--json'))
    assert packed(toy)['user-software.squashfs.2'] == newer
    assert told['pruned'] == would['pruned'] == (['%s.4' % (toy.overlay / 'user-software.squashfs')] if (
        after[0] == 'unpack' and '--replace' in after) else [])
    assert after[-1] == '--replace' or packed(toy)['user-software.squashfs.3'] == older
    # it gives way like others when what came after it does
    write(toy, 'last')
    for command in (['pack', 'toy', *(['--replace'] if after[0] == 'pack' else [])], ['unpack', 'toy']):
        done(easysif, *command)
    assert newer not in packed(toy).values() and len(packed(toy)) == 1


def rolled_back(easysif, toy):
    """Go back, and see that a dry run says it before, and changes nothing; return what is told (str)."""
    before = toys.snapshot(toy.overlay)
    told = json.loads(done(easysif, 'rollback', 'toy', '--json', '--dry-run'))
    text = done(easysif, 'rollback', 'toy', '--dry-run')
    assert toys.snapshot(toy.overlay) == before and told['dry_run'] is True
    assert text.startswith('would use %s as ' % told['was'] if told['was'] else 'the squashfs file would be kept as ')
    return done(easysif, 'rollback', 'toy')


@pytest.mark.parametrize('state', ['directory', 'squashfs', 'both', 'neither', 'damaged'])
def test_rollback_uses_what_was_used_before_and_twice_is_as_before(easysif, toy, state):
    """With an older squashfs file kept besides, which is not taken by mistake; and no file is ever lost."""
    directory, used = toy.overlay / 'user-software', toy.overlay / 'user-software.squashfs'
    done(easysif, 'pack', 'toy')
    write(toy, 'newer')
    done(easysif, 'pack', 'toy', '--replace')
    os.rename('%s.1' % used, '%s.10' % used)  # nothing is recorded of it under that name, so it stays
    done(easysif, 'unpack', 'toy')
    if state in ('squashfs', 'both', 'damaged'):
        write(toy, 'newest')
        done(easysif, 'pack', 'toy')
    if state in ('squashfs', 'neither'):
        shutil.rmtree(directory)
    if state == 'damaged':
        os.truncate(used, 200)
    before, there = packed(toy), toys.snapshot(directory) if directory.exists() else None
    told = rolled_back(easysif, toy)
    first = packed(toy)
    assert told.startswith('using {0}.11 as {0}\n'.format(used)) and first[used.name] == before[used.name + '.11']
    stays = 'the directory %s stays, and is not used; to use it: easysif overlay unpack toy/1 --use-directory\n'
    assert (stays % directory in told) is (there is not None)
    told = rolled_back(easysif, toy)
    second = packed(toy)
    assert sorted(first.values()) == sorted(second.values()) == sorted(before.values())
    if state in ('squashfs', 'both'):
        assert second[used.name] == before[used.name]
    else:
        assert used.name not in second and 'the squashfs file is kept as %s.1' % used in told
        assert ('the directory %s is used again\n' % directory if there else
                'nothing is packed, and there is no directory, as before\n') in told
    assert (toys.snapshot(directory) if directory.exists() else None) == there
    assert rolled_back(easysif, toy).startswith('using ') and packed(toy)[used.name] == first[used.name]


def test_what_a_squashfs_was_made_for_goes_and_comes_with_it(easysif, toy):
    """So that packages for another Python are never mixed in by going back."""
    path = toy.overlay / 'made-for'
    kept = toy.overlay / 'user-software.squashfs'

    def make(text):
        path.write_text('python %s\n' % text)
        write(toy, text)

    def says():
        return path.read_text().split()[1] if path.exists() else None
    make('3.9')
    done(easysif, 'pack', 'toy')
    make('3.10')
    done(easysif, 'pack', 'toy', '--replace')
    done(easysif, 'rollback', 'toy')
    assert says() == '3.9'
    done(easysif, 'rollback', 'toy')
    assert says() == '3.10'
    done(easysif, 'unpack', 'toy')  # the directory is of 3.10 as well
    make('3.11')
    for end, left in ((['rollback', 'toy'], '3.11'), (['unpack', 'toy', '--use-directory'], '3.11')):
        done(easysif, 'rollback', 'toy')
        assert says() == '3.10'
        done(easysif, *end)
        assert says() == left
    done(easysif, 'rollback', 'toy')
    done(easysif, 'unpack', 'toy', '--replace')
    assert says() == '3.10' and (toy.overlay / 'user-software' / 'venv' / 'toy' / 'package').read_text() == '3.10'
    done(easysif, 'rollback', 'toy')
    assert says() == '3.11' and not list(toy.overlay.glob('made-for?*')) and kept.exists()
    assert schema.problems('overlay', library.record(str(toy.overlay))) == []
    path.unlink()
    done(easysif, 'pack', 'toy', '--replace')  # the user wants to hear no more of it
    done(easysif, 'rollback', 'toy')
    assert says() == '3.11'
    done(easysif, 'rollback', 'toy')
    assert says() is None


def test_rollback_without_anything_kept_names_what_there_is(easysif, toy):
    nothing = 'error: easysif overlay rollback: no squashfs file of toy/1 is kept\n  directory  %s\nhint: %s\n'
    place = str(toy.overlay)
    assert refused(easysif, toy, 'rollback', 'toy') == nothing % (place, 'ls -la %s' % shlex.quote(place))
    done(easysif, 'pack', 'toy')
    assert refused(easysif, toy, 'rollback', 'toy') == nothing % (
        place + '/user-software', 'to use the directory: easysif overlay unpack toy/1 --use-directory')


def test_the_state_is_told_with_what_to_type_next(easysif, toy):
    name, directory = toy.overlay / 'user-software', '%s/user-software' % toy.overlay
    status = 'status', 'toy'
    assert done(easysif, *status) == ('toy/1: a directory, packages can be added\n  directory  %s, 1 file, 8 bytes\n'
                                      '  next       easysif overlay pack toy/1  # makes one file of it\n' % name)
    done(easysif, 'pack', 'toy')
    out = done(easysif, *status)
    assert out.startswith('toy/1: packed, and there is a directory that is not used\n')
    assert '\n  squashfs   %s.squashfs, 4.0 KiB, 20' % directory in out
    assert out.endswith('  next       easysif overlay pack toy/1 --remove  # removes the directory, which is in the '
                        'squashfs as well\n')
    write(toy, 'other')
    assert ['pack', 'unpack'] == [line.split()[3] for line in done(easysif, *status).splitlines() if 'next' in line]
    shutil.rmtree(name)
    out = done(easysif, *status)
    assert out.startswith('toy/1: packed into one file, read-only\n') and ' overlay unpack toy/1  # makes' in out
    os.truncate('%s.squashfs' % name, 200)
    out = done(easysif, *status)
    assert out.startswith('toy/1: the squashfs file is damaged and not used\n') and 'it is cut off: 200 of' in out
    (toy.overlay / 'user-software.squashfs').unlink()
    assert done(easysif, *status) == ('toy/1: nothing in it\n  next       module load toy/1; pip install PACKAGE\n')
    os.rename(shutil.copy(toy.sif, toy.overlay), '%s.squashfs.1' % name)
    assert ' overlay rollback toy/1  # uses the squashfs file that was kept last\n' in done(easysif, *status)


def test_what_it_was_made_for_who_uses_it_and_what_was_asked_for_is_told(easysif, toy):
    library.update_record(str(toy.overlay), packages={'asked': ['a', 'b'], 'resolved': [{'name': 'a', 'version': '1'}]})
    (toy.overlay / 'made-for').write_text('python 3.10\nimage sha256:%s\n' % ('a' * 64))
    with Sleeper(toy.overlay / 'user-software' / 'log', 'w') as process:
        out = done(easysif, 'status', 'toy')
        found = json.loads(done(easysif, 'status', 'toy', '--json'))
    assert '\n  made for   Python 3.10, image sha256:%s\n             which is not the Python of the module\n' \
        '             which is not the image of the module\n  packages   2 asked for, 1 recorded\n' % ('a' * 64) in out
    assert '\n  used by    process %d: ' % process.pid in out
    assert (found['state'], found['directory']['files'], found['squashfs'], found['kept'], found['same']) == (
        'directory', 2, None, [], False)
    assert [user['pid'] for user in found['used_by']] == [process.pid]
    record = json.loads((toy.root / 'easysif.json').read_text())
    (toy.overlay / 'made-for').write_text('python 3.11\nimage sha256:%s\n' % record['image']['sha256'])
    assert json.loads(done(easysif, 'status', 'toy', '--json'))['made_for']['differs'] == []


def test_what_is_printed_as_json_is_what_the_manual_says(easysif, toy):
    """Each key that a command prints, and only those that change something take --dry-run."""
    manual = (harness.CLONE / 'docs' / 'overlays.md').read_text()
    rows = manual.partition('| `--json` of |')[2].partition('\n\n')[0]
    table = dict(re.findall(r'^\| `(\w+)` \| (.*) \|$', rows, re.M))
    assert set(table) >= {'status', 'pack', 'check', 'unpack', 'rollback', 'remove'}
    for command, options in (('status', []), ('pack', []), ('check', []), ('unpack', []), ('rollback', []),
                             ('remove', ['--yes'])):
        printed = json.loads(done(easysif, command, 'toy', '--json', *options))
        words = set(re.findall('`([a-z_]+)`', re.sub(r'\(.*?\)', '', table[command])))
        if command == 'check':
            assert words == {*printed, *printed['files'][0]}
        else:
            assert words == set(printed), command
        assert ('dry_run' in printed) is (command not in ('status', 'check'))
    for command in ('status', 'check'):
        assert easysif('overlay', command, 'toy', '--dry-run')[0] == 2


def test_the_loaded_module_is_meant_where_none_is_named(easysif, toy, prefix, monkeypatch):
    MadeUp(prefix, 'toy/2')
    code, _, err = easysif('overlay', 'status')
    assert code == 1 and err == ('error: easysif overlay: no module is loaded that has an overlay\n'
                                 'hint: module load MODULE, or name it: easysif overlay status MODULE\n')
    monkeypatch.setenv('RUNSCRIPTS', str(toy.root / 'runscripts'))
    monkeypatch.setenv('EASYBUILD_PREFIX', '/nonexistent')
    out = done(easysif, 'status')
    assert out.startswith('toy/1: a directory') and 'overlay pack toy/1 --prefix %s  #' % prefix in out


def test_a_module_without_overlay_says_so(easysif, prefix):
    MadeUp(prefix, 'tool/1', python_env=None)
    code, _, err = easysif('overlay', 'status', 'tool')
    assert code == 1 and err == ('error: tool/1: has no overlay\n'
                                 'hint: its recipe gives no python_env: easysif show tool/1\n')


def test_damage_is_found_and_the_way_back_leads_round_it(easysif, toy, monkeypatch):
    (toy.overlay / 'user-software' / 'big').write_bytes(os.urandom(100000))
    done(easysif, 'pack', 'toy')
    write(toy, 'second')
    done(easysif, 'pack', 'toy', '--replace')
    whole = packed(toy)
    path = toy.overlay / 'user-software.squashfs'
    damaged = bytearray(whole[path.name])
    damaged[5000] ^= 1
    path.write_bytes(damaged)
    code, out, _ = easysif('overlay', 'check', 'toy')
    assert code == 1 and out == ('DAMAGED  {0}: its content is not what was packed\nok       {0}.1, 4 entries\n'
                                 .format(path))
    out = done(easysif, 'rollback', 'toy')
    assert 'the former squashfs file is damaged and is now %s.damaged\n' % path in out
    assert packed(toy) == {path.name: whole[path.name + '.1'], path.name + '.damaged': bytes(damaged)}
    assert done(easysif, 'check', 'toy') == 'ok       %s, 4 entries\n' % path
    which = shutil.which
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    assert done(easysif, 'check', 'toy') == 'ok       %s, not listed: there is no unsquashfs\n' % path
    monkeypatch.setattr(shutil, 'which', which)
    (toy.overlay / 'overlay.json').unlink()
    assert done(easysif, 'check', 'toy') == 'ok       %s, 4 entries; nothing is recorded of it\n' % path
    os.rename(path, '%s.7' % path)
    os.truncate('%s.7' % path, 5000)
    err = refused(easysif, toy, 'rollback', 'toy')
    assert 'the squashfs file that was kept is damaged: it is cut off: 5000 of' in err
    assert 'hint: mv -- {0}.7 {0}.damaged-2, then the same command takes the one before\n'.format(path) in err
    path.write_bytes(whole[path.name][:96] + os.urandom(len(whole[path.name]) - 96))
    code, out, _ = easysif('overlay', 'check', 'toy')
    assert code == 1 and 'DAMAGED  %s: unsquashfs cannot read it (' % path in out


def test_nothing_packed_is_nothing_to_check(easysif, toy):
    assert done(easysif, 'check', 'toy') == 'toy/1: nothing is packed\n'


def test_removing_asks(easysif, toy):
    err = refused(easysif, toy, 'remove', 'toy')
    assert 'what you added is removed after a question only, and there is no terminal' in err
    assert 'hint: easysif overlay remove toy/1 --yes\n' in err
    assert done(easysif, 'remove', 'toy', '--dry-run') == 'would remove %s/user-software\n' % toy.overlay
    assert json.loads(done(easysif, 'remove', 'toy', '--dry-run', '--json')) == {
        'dry_run': True, 'module': 'toy/1', 'removed': ['%s/user-software' % toy.overlay]}
    argv = [sys.executable, '-m', 'easysif.cli', 'overlay', 'remove', 'toy']
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    for answer, code in (('n', 1), ('y', 0)):
        status, shown = on_terminal(argv, env, [('[y/N] ', answer + '\n')])
        assert status == code and 'remove %s/user-software? [y/N] ' % toy.overlay in shown
        assert toy.overlay.joinpath('user-software').exists() is bool(code)


def test_what_cannot_be_moved_stays_with_all_else_and_what_is_read_only_goes(easysif, toy, monkeypatch):
    (toy.overlay / 'user-software').chmod(0o555)
    (toy.overlay / 'user-software.squashfs.1').write_text('x')
    rename = os.rename

    def refuse(path, other):
        if str(path).endswith('user-software.squashfs.1'):
            raise PermissionError(1, 'Operation not permitted', path)
        rename(path, other)
    before = toys.snapshot(toy.overlay)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'rename', refuse)
        code, out, err = easysif('overlay', 'remove', 'toy', '--yes')
    assert (code, out) == (3, '') and toys.snapshot(toy.overlay) == before
    assert 'error: easysif overlay remove: %s/user-software.squashfs.1 (Operation not permitted)' % toy.overlay in err
    done(easysif, 'remove', 'toy', '--yes')
    assert not list(toy.overlay.glob('user-software*'))


def test_an_overlay_of_others_is_not_removed(easysif, toy, tmp_path):
    shutil.move(toy.overlay, tmp_path / 'elsewhere')
    toy.overlay.symlink_to(tmp_path / 'elsewhere')
    code, _, err = easysif('overlay', 'remove', 'toy', '--yes')
    assert code == 1 and 'error: toy/1: the overlay is a link, which is not followed\n' in err
    assert 'hint: easysif overlay status toy/1; then: rm -r -- ' in err


def test_wrong_usage_is_said(easysif, toy):
    code, _, err = easysif('overlay', 'unpack', 'toy', '--replace', '--use-directory')
    assert code == 2 and 'not allowed with argument' in err
    assert run_easysif('overlay', 'pack', 'toy', '--verify=half').status == 2


def test_what_is_no_file_is_not_replaced_by_a_list_of_packages(easysif, tmp_path):
    (tmp_path / 'dangling').symlink_to('nowhere')
    for path in ('/dev/null', str(tmp_path), str(tmp_path / 'dangling')):
        assert easysif('overlay', 'export', 'toy', '--output', path) == (
            1, '', 'error: %s: is no file, and is not replaced\nhint: leave --output out to print it\n' % path)
