# SPDX-License-Identifier: GPL-2.0-only
"""easysif store: images are added whole or not at all, each known by its digest; what modules need stays."""

import json
import multiprocessing
import os
import shlex
import signal
import stat
import subprocess
import sys
import time

import pytest

import toys
from easysif.errors import EasySIFError
from easysif.site import resolve
from easysif.store import add as module
from easysif.store.contents import Store
from faults.small_disk import on_small_disk, read_only
from helpers_registry import stub
from made_up import MadeUp, image
from test_images_fetch import served, sif_file

pytestmark = pytest.mark.usefixtures('its_prefix')

ODD = "a b'ü $x.sif"


@pytest.fixture
def source(tmp_path):
    """A SIF file of a few bytes with an odd name (Path)."""
    path = tmp_path / 'from' / ODD
    path.parent.mkdir()
    image(path)
    return path


def listed(easysif, *more):
    return {one['name']: one for one in json.loads(easysif('store', 'list', '--json', *more)[1])['images']}


def adding(store):
    return module.Adding(Store(str(store)), resolve().site, None)


def test_a_file_is_added_once_for_all_to_read_and_is_known_by_its_digest(easysif, store, source):
    digest = toys.sha256(source)
    line = '%s: %%s, 761 bytes, sha256:%s\n' % (ODD, digest)
    assert easysif('store', 'add', str(source)) == (0, line % 'added', '')
    assert easysif('store', 'add', str(source)) == (0, line % 'is there already', '')
    assert [stat.S_IMODE(path.stat().st_mode) for path in (store, store / ODD, store / '.easysif')] == [
        0o755, 0o444, 0o755]
    assert sorted(os.listdir(store / '.easysif')) == [ODD + '.json']
    assert listed(easysif)[ODD] == {'name': ODD, 'file': str(store / ODD), 'size': 761, 'state': 'recorded',
                                    'sha256': digest, 'reference': ODD, 'digest': None, 'modules': []}
    out = json.loads(easysif('store', 'add', '--json', '--name', 'other.sif', str(source))[1])
    assert out == [{'image': str(source), 'name': 'other.sif', 'file': str(store / 'other.sif'), 'sha256': digest,
                    'size': 761, 'how': 'copy', 'note': None}] or out[0]['how'] == 'reflink'
    assert easysif('store', 'list')[1].splitlines()[1].split('  ')[0] == ODD


def test_a_store_is_as_open_as_its_directory_whatever_the_umask(easysif, store, source):
    store.mkdir()
    store.chmod(0o2770)
    before = os.umask(0o077)
    try:
        easysif('store', 'add', str(source))
    finally:
        os.umask(before)
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in (
        store / ODD, store / '.easysif', store / '.easysif' / (ODD + '.json'))] == ['0o440', '0o2770', '0o660']


def test_what_was_put_there_by_hand_is_listed_recorded_when_it_is_added_and_not_removed(easysif, store, source):
    store.mkdir()
    by_hand = store / 'by hand.sif'
    by_hand.write_bytes(source.read_bytes())
    (store / 'NOTES').write_text('not an image')
    easysif('store', 'add', str(source))
    MadeUp(store.parent / 'prefix', 'tool/2')
    assert [one['state'] for one in listed(easysif).values()] == ['by hand', 'recorded', 'by hand']
    code, out, _ = easysif('store', 'gc', '--yes')
    assert code == 0 and 'keeps  %s, put there by hand\n' % by_hand in out
    assert sorted(path.name for path in store.iterdir()) == ['.easysif', 'NOTES', 'by hand.sif']
    assert 'was there, and is recorded now' in easysif('store', 'add', str(by_hand))[1]
    assert listed(easysif)['by hand.sif']['sha256'] == toys.sha256(source)
    assert stat.S_IMODE(by_hand.stat().st_mode) == 0o444
    by_hand.unlink()
    by_hand.write_bytes(source.read_bytes()[:-1] + b'x')  # as cp does
    assert listed(easysif)['by hand.sif']['state'] == 'changed'
    assert easysif('store', 'gc', 'NOTES', '--yes')[0] == 0 and not (store / 'NOTES').exists() and by_hand.exists()


def test_what_cannot_be_added_says_why_and_leaves_nothing(easysif, store, source, tmp_path):
    easysif('store', 'add', str(source))
    before = toys.snapshot(store)
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other' / ODD
    other.write_bytes(source.read_bytes() + b'more')
    broken, text = tmp_path / 'broken.sif', tmp_path / 'image.simg'
    broken.write_bytes(source.read_bytes()[:-20])
    text.write_text('nothing')
    for argv, told in (
            ([str(other)], '%s: the image store has another image of that name\n  file  %s\nhint: easysif store add '
             '--name OTHER.sif ' % (other, store / ODD)),
            ([str(broken)], '%s: image is not complete: %s\n' % (broken, broken)),
            ([str(text)], "%s: no recipe could name a file of the image store 'image.simg'\n  allowed  NAME.sif on one "
             'line, not hidden, at most 200 bytes\nhint: easysif store add --name NAME.sif %s\n' % (text, text)),
            (['--name', '.x.sif', str(source)], "could name a file of the image store '.x.sif'"),
            (['--name', 'x' * 200 + '.sif', str(source)], 'no recipe could name'),
            (['nothing.sif'], 'nothing.sif: is no file, no reference and no recipe\nhint: easysif store add FILE.sif, '
             'docker://HOST/NAME:TAG or RECIPE.eb\n'),
            (['nothing.eb'], 'nothing.eb: there is no such recipe\nhint: eb --search nothing\n'),
            (['--name', 'x y.sif', 'a', 'b'], 'easysif store add: --name is for one image\nhint: easysif store add '
             "--name 'x y.sif' a\n")):
        code, out, err = easysif('store', 'add', *argv)
        assert code in (1, 2) and not out and err.startswith('error: ') and told in err, err
    assert toys.snapshot(store) == before


def test_a_record_that_makes_no_sense_is_none(easysif, store, source):
    easysif('store', 'add', str(source))
    path = store / '.easysif' / (ODD + '.json')
    good = json.loads(path.read_text())
    path.chmod(0o644)
    for text in ('[]', '{', *(json.dumps(dict(good, **bad)) for bad in (
            {'recipe': 5}, {'reference': ['x']}, {'size': '761'}, {'sha256': 'x'}, {'mtime_ns': None}))):
        path.write_text(text)
        assert listed(easysif)[ODD]['state'] == 'by hand' and 'not known: ' in easysif('store', 'verify')[1]
    path.write_text(json.dumps(good))
    assert listed(easysif)[ODD]['state'] == 'recorded'


def test_a_name_that_something_else_has_is_refused(easysif, store, source):
    (store / 'x.sif').mkdir(parents=True)
    assert 'something else has that name in the image store\n  file  %s\n' % (store / 'x.sif') in easysif(
        'store', 'add', '--name', 'x.sif', str(source))[2]


def test_a_damaged_file_of_that_name_is_not_taken_for_the_image(easysif, store, source):
    easysif('store', 'add', str(source))
    flip(store / ODD)
    assert 'the image store has a damaged file of that name\n  file  %s\nhint: mv -- ' % (store / ODD) in easysif(
        'store', 'add', str(source))[2]


def test_a_file_of_the_store_gets_another_name_only_while_it_is_what_was_put_there(easysif, store, source, tmp_path):
    easysif('store', 'add', str(source))
    assert json.loads(easysif('store', 'add', '--json', '--name', 'same.sif', str(store / ODD))[1])[0]['how'] == 'link'
    flip(store / ODD, 0)
    code, _, err = easysif('store', 'add', '--name', 'other.sif', str(store / ODD))
    assert code == 1 and ': the file of the image store is not what was put there\n  file      %s\n' % (
        store / ODD) in err and not (store / 'other.sif').exists(), err
    elsewhere = tmp_path / 'elsewhere.sif'
    image(elsewhere)
    (store / 'link.sif').symlink_to(elsewhere)
    for name, path in (('link.sif', 'link.sif'), ('of link.sif', 'link.sif')):
        easysif('store', 'add', '--name', name, str(store / path))
    info = elsewhere.stat()  # is not the store's: no link to it is made, and its mode stays
    assert (store / 'of link.sif').exists() and info.st_nlink == 1 and stat.S_IMODE(info.st_mode) != 0o444


def test_what_may_not_be_read_is_told_where_the_store_has_that_name(easysif, store, source):
    easysif('store', 'add', str(source))
    source.chmod(0)
    code, _, err = easysif('store', 'add', str(source))
    assert code == 3 and err == 'error: %s: %s (Permission denied)\nhint: df -h; ls -ld %s\n' % (
        source, source, shlex.quote(str(source))), err


def flip(path, position=-1):
    """Change one bit and nothing that stat tells."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def test_without_a_store_one_is_told_what_to_set(easysif, source):
    assert easysif('store', 'list')[2] == ("error: easysif store list: site 'default' has no image store\nhint: set "
                                           'image_store in the site file, or: easysif store list --store DIR\n')
    assert easysif('store', 'add', '--store', 'new', str(source))[0] == 0
    assert easysif('store', 'list', '--store', 'gone')[2].endswith(
        'gone: the image store cannot be read (No such file or directory)\nhint: ls -ld -- %s\n'
        % os.path.abspath('gone'))


def test_who_may_not_write_to_the_store_is_told_whose_it_is(easysif, store, source, tmp_path):
    store.mkdir()
    store.chmod(0o555)
    code, _, err = easysif('store', 'add', str(source))
    assert code == 1 and '%s: you may not write to the image store\n  store  %s\n  owner  ' % (source, store) in err
    assert '  mode   dr-xr-xr-x\nhint: ask ' in err and err.endswith(', or use another one: --store DIR\n')
    assert os.listdir(store) == []
    (tmp_path / 'file').touch()
    assert 'the image store cannot be made (Not a directory)' in easysif(
        'store', 'add', '--store', str(tmp_path / 'file' / 'x'), str(source))[2]


# What modules need

def test_gc_removes_what_was_added_and_no_module_runs(easysif, store, source, prefix):
    toy, gone = MadeUp(prefix), MadeUp(prefix, 'gone/1')
    for name in ('toy.sif', 'waste.sif', 'linked.sif'):
        easysif('store', 'add', '--name', name, str(source))
    linked = MadeUp(prefix, 'linked/1')
    linked.sif.unlink()
    linked.sif.symlink_to(store / 'linked.sif')
    gone.sif.unlink()
    toy.sif.chmod(0o644)
    toy.sif.write_bytes(b'other')
    toy.record()
    code, out, _ = easysif('store', 'gc')
    assert code == 0 and out == (
        'would remove  %s/waste.sif, 761 bytes\nkeeps  %s/linked.sif, run by linked/1\n'
        'keeps  %s/toy.sif, run by gone/1\nwould free 4.0 KiB\nto remove it: the same with --yes\n'
        % (store, store, store)), out
    assert (store / 'waste.sif').exists()
    assert easysif('store', 'gc', 'linked.sif', '--yes')[1].endswith('freed 0 bytes\n')
    found = json.loads(easysif('store', 'gc', '--yes', '--json')[1])
    assert (found['removed'], [one['name'] for one in found['staying']], found['freed']) == (
        ['waste.sif'], ['linked.sif', 'toy.sif'], 4096)
    assert sorted(path.name for path in store.iterdir()) == ['.easysif', 'linked.sif', 'toy.sif']
    assert sorted(os.listdir(store / '.easysif')) == ['linked.sif.json', 'toy.sif.json']
    assert 'nosuch.sif: is not in the image store\n' in easysif('store', 'gc', 'nosuch.sif')[2]


def test_gc_keeps_what_an_installation_links_to_that_is_being_made(easysif, store, source, prefix):
    MadeUp(prefix)
    easysif('store', 'add', '--name', 'new.sif', str(source))
    half = prefix / 'software' / 'toy' / '.2.new'
    half.mkdir()
    (half / 'new.sif').symlink_to(store / 'new.sif')
    assert 'keeps  %s/new.sif, run by toy/2\n' % store in easysif('store', 'gc', '--yes')[1]


def test_gc_removes_nothing_where_it_is_not_known_what_a_module_needs(easysif, store, source, prefix, monkeypatch):
    easysif('store', 'add', str(source))
    (MadeUp(prefix).root / 'easysif.json').write_text('{')
    code, _, err = easysif('store', 'gc', '--yes')
    assert code == 1 and 'toy/1: what it needs of the image store is not known: is damaged' in err
    assert err.endswith('hint: easysif verify toy/1\n') and (store / ODD).exists()
    monkeypatch.setenv('EASYBUILD_PREFIX', '/nowhere')
    assert 'there are no installed modules\nhint: name the prefix with --prefix DIR\n' in easysif('store', 'gc')[2]
    assert '/nowhere: there is no such directory' in easysif('store', 'gc', '--prefix', '/nowhere')[2]


def test_gc_removes_nothing_where_it_may_not_look_at_a_prefix(easysif, store, source, prefix, tmp_path):
    easysif('store', 'add', str(source))
    linked = MadeUp(prefix)
    linked.sif.unlink()
    linked.sif.symlink_to(store / ODD)
    half = prefix / 'software' / 'toy' / '.2.new'
    half.mkdir()
    for closed in (half, prefix / 'software', prefix / 'modules' / 'all'):
        closed.chmod(0)
        code, _, err = easysif('store', 'gc', '--yes')
        closed.chmod(0o755)
        assert code == 1 and err.startswith(
            'error: %s: what its modules need of the image store is not known: a directory may not be read\n'
            '  directory  %s\nhint: ls -ld -- %s\n' % (prefix, closed, closed)), err
    both = [prefix / 'software' / 'toy', prefix / 'modules' / 'all' / 'toy']
    for path in both:
        path.chmod(0)
    err = easysif('store', 'gc', '--yes')[2]
    both[1].chmod(0o755)  # whose files tell by themselves which modules are ours
    more = easysif('store', 'gc', '--yes')[2]
    both[0].chmod(0o755)
    assert 'error: %s: what its modules need' % prefix in err and 'error: toy/1: what it needs of' in more, (err, more)
    assert easysif('store', 'gc', '--yes', '--prefix', str(tmp_path))[2] == (
        'error: %s: nothing is installed there, to hold the image store against\n'
        'hint: name the prefix with --prefix DIR\n' % tmp_path)
    assert (store / ODD).exists()


def test_gc_of_several_prefixes_and_what_is_another_file_by_now(easysif, store, source, prefix, tmp_path):
    MadeUp(prefix)
    other = MadeUp(tmp_path / 'other', 'x/1')
    easysif('store', 'add', '--name', 'toy.sif', str(source))
    other.sif.unlink()
    both = ['--prefix', str(prefix), '--prefix', str(tmp_path / 'other')]
    assert 'run by x/1' in easysif('store', 'gc', '--yes', *both)[1]
    assert [use['how'] for use in listed(easysif, *both)['toy.sif']['modules']] == ['copied', 'runs']
    from easysif.store import upkeep
    from easysif.store.usage import usage
    known = Store(str(store))
    done = upkeep.look_for_waste(known, usage(known, [str(prefix)]))
    (store / 'toy.sif').unlink()
    (store / 'toy.sif').write_bytes(b'of an admin')
    upkeep.clear_out(known, done, lambda: usage(known, [str(prefix)]), 'gc')
    assert done.removed == done.going == [] and (store / 'toy.sif').read_bytes() == b'of an admin'
    assert [why for _, why in done.staying] == ['another file by now']


def test_verify_finds_every_flipped_bit_and_names_the_modules(easysif, store, source, prefix):
    easysif('store', 'add', '--name', 'toy.sif', str(source))
    toy = MadeUp(prefix)
    toy.sif.unlink()
    assert easysif('store', 'verify') == (0, 'toy.sif: ok\n', '')
    digest = toys.sha256(source)
    for position in (0, 40, 400, 760):
        flip(store / 'toy.sif', position)
        code, out, err = easysif('store', 'verify')
        assert (code, out) == (1, '') and err == (
            'error: {0}: is not what was put there\n  recorded  sha256:{1}\n  found     sha256:{2}\n  modules   toy/1\n'
            "hint: mv -- '{0}' '{0}.damaged' && easysif store add {3}\n".format(
                store / 'toy.sif', digest, toys.sha256(store / 'toy.sif'), shlex.quote(ODD))), err
        flip(store / 'toy.sif', position)
    found = json.loads(easysif('store', 'verify', '--json')[1])
    assert found == {'store': str(store), 'images': [{'file': str(store / 'toy.sif'), 'problem': None, 'known': True,
                                                      'facts': {}, 'hint': None, 'modules': ['toy/1']}], 'problems': []}


def test_verify_holds_what_was_put_there_by_hand_against_what_modules_recorded(easysif, store, source, prefix):
    toy = MadeUp(prefix)
    store.mkdir()
    (store / 'toy.sif').write_bytes(source.read_bytes())
    (store / 'x.sif').write_bytes(source.read_bytes())
    assert easysif('store', 'verify')[:2] == (
        0, "toy.sif: ok\nx.sif: not known: nothing is recorded of it; easysif store add '%s/x.sif'\n" % store)
    toy.sif.unlink()
    flip(store / 'toy.sif')
    (store / 'x.sif').chmod(0o666)
    store.chmod(0o777)
    code, _, err = easysif('store', 'verify')
    assert code == 1 and '  modules   toy/1\n' in err
    assert ("error: {0}: the image store can be written by everybody, so it is not believed\n  directory  {0}\n"
            "  mode       drwxrwxrwx\n  owner      ".format(store)) in err and "hint: chmod o-w '%s'\n" % store in err
    assert 'x.sif: a file of the image store can be written by everybody, so it is not believed\n' in err
    store.chmod(0o755)
    (store / 'toy.sif').unlink()
    (store / 'toy.sif').write_bytes(b'nothing' * 200)
    (store / 'x.sif').chmod(0)
    toy.sif.symlink_to(store / 'away.sif')
    err = easysif('store', 'verify')[2]
    assert 'x.sif: cannot be read (Permission denied)\nhint: ls -l ' in err
    assert ('%s/away.sif: is gone, and modules run it\n  modules  toy/1\nhint: easysif image restore toy/1\n'
            % store) in err


# From elsewhere

def test_the_image_of_a_recipe_is_fetched_once_and_called_as_its_module_will_look_for_it(
        easysif, store, tmp_path, monkeypatch):
    data = sif_file(tmp_path / 'upstream.sif').read_bytes()
    with stub({'/x.sif': served(data, ETag='"one"')}) as server:
        reference = 'http://%s/x.sif' % server.host
        for version in '12':
            toys.recipe(tmp_path, version=version, image=reference, checksums=[toys.sha256(tmp_path / 'upstream.sif')])
        code, out, err = easysif('store', 'add', 'toy-1.eb', 'toy-2.eb', reference)
        assert code == 0, err
        assert [line.split(':')[0] for line in out.splitlines()] == ['toy-1.sif', 'toy-2.sif', 'x.sif']
        assert len([path for path, _ in server.seen]) <= 4  # looked at three times, fetched once
        assert (store / 'toy-1.sif').stat().st_nlink == 3
        toys.recipe(tmp_path, version='3', image=reference, checksums=['0' * 64])
        assert 'checksums do not match' in easysif('store', 'add', 'toy-3.eb')[2]
        (tmp_path / 'sources').mkdir()
        (tmp_path / 'sources' / 'file.sif').write_bytes(data)
        toys.recipe(tmp_path, version='4', image='file.sif', digest='sha256:' + '1' * 64)
        assert "image file not found: file.sif\n  searched  " in easysif('store', 'add', 'toy-4.eb')[2]
        assert 'digest does not match the image' in easysif(
            'store', 'add', 'toy-4.eb', '--sourcepath', str(tmp_path / 'sources'))[2]
    known = listed(easysif)['toy-1.sif']
    assert (known['reference'], known['digest']) == (reference, 'sha256:' + toys.sha256(tmp_path / 'upstream.sif'))
    assert sorted(os.listdir(store / '.easysif')) == ['toy-1.sif.json', 'toy-2.sif.json', 'x.sif.json']


# Faults

def big(tmp_path, size=32 << 20):
    path = tmp_path / 'big.sif'
    image(path)
    with open(path, 'ab') as handle:
        handle.truncate(size)
        handle.seek(0, 2)
        handle.write(os.urandom(1 << 20))
    return path


@pytest.mark.long
def test_an_add_that_is_killed_leaves_nothing_half_and_the_next_one_needs_no_help(easysif, store, tmp_path):
    source = tmp_path / 'big.sif'
    image(source)
    with open(source, 'ab') as handle:
        for _ in range(24):
            handle.write(os.urandom(1 << 20))
    digest, env = toys.sha256(source), dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    argv = [sys.executable, '-m', 'easysif.cli', 'store', 'add', str(source)]
    began = time.monotonic()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    length = time.monotonic() - began
    start = 0.6 * length  # before, Python starts
    for number in range(12):
        for path in (store / 'big.sif', store / '.easysif' / 'big.sif.json'):
            path.unlink(missing_ok=True)
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
        time.sleep(start + number * (length - start) / 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = store / 'big.sif'
        assert not there.exists() or toys.sha256(there) == digest
        assert all(name.startswith('.') or name == 'big.sif' for name in os.listdir(store))
        code, _, err = easysif('store', 'add', str(source))
        assert code == 0, err
        assert listed(easysif)['big.sif']['sha256'] == digest == toys.sha256(there)
        assert sorted(os.listdir(store / '.easysif')) == ['big.sif.json']


def test_of_several_that_add_the_same_at_once_one_does_it(store, source):
    def work(queue):
        queue.put(adding(store).add(str(source)).how)

    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    processes = [context.Process(target=work, args=(queue,)) for _ in range(4)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found[:3] == ['already'] * 3 and found[3] in ('copy', 'reflink')
    assert sorted(os.listdir(store / '.easysif')) == [ODD + '.json']


def test_a_full_disk_and_one_that_may_not_be_written_leave_the_store_as_it_was(tmp_path, source):
    disk = tmp_path / 'disk'
    disk.mkdir()
    large = big(tmp_path, 1 << 20)
    with open(large, 'ab') as handle:
        handle.write(os.urandom(8 << 20))

    def fill(_):
        adding(disk / 'store').add(str(source))
        with pytest.raises(EasySIFError, match='not enough space for the image in') as caught:
            adding(disk / 'store').add(str(large))
        assert caught.value.hint == ('free some space there (or quota); what could go: easysif store gc; '
                                     'or use another one: --store DIR')
        assert sorted(os.listdir(disk / 'store')) == ['.easysif', ODD]
        assert os.listdir(disk / 'store' / '.easysif') == [ODD + '.json']

    def close(_):
        read_only(disk, True)
        with pytest.raises(EasySIFError, match='you may not write to the image store\n(.*\n)*  file system  read-only'):
            adding(disk / 'store').add(str(large))
        read_only(disk, False)
        assert [entry.state for entry in Store(str(disk / 'store')).entries()] == ['recorded']
    assert on_small_disk(disk, 4 << 20, [lambda: None, fill, close]) == [None, None]


def test_a_source_that_changes_while_it_is_read_is_not_added(store, source, monkeypatch):
    from easysif.images import onepass
    real = onepass.copy

    def changed(first, second):
        found = real(first, second)
        with open(source, 'ab') as handle:
            handle.write(b'more')
        return found
    monkeypatch.setattr(onepass, 'copy', changed)
    monkeypatch.setattr('easysif.images.place._reflink', lambda *_: False)
    with pytest.raises(EasySIFError, match='image changed while it was read'):
        adding(store).add(str(source))
    assert os.listdir(store) == ['.easysif'] and os.listdir(store / '.easysif') == []
