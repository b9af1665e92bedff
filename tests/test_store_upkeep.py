# SPDX-License-Identifier: GPL-2.0-only
"""What easysif store gc removes while others are at work, what killed ones left, stores that anybody may write to."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import toys
from easysif.errors import EasySIFError
from easysif.images.kept import Kept
from easysif.obtain import Places, obtain
from easysif.recipe import load
from easysif.site import resolve
from easysif.store import leftovers, upkeep
from easysif.store.contents import Store
from easysif.store.usage import usage
from helpers_registry import stub
from made_up import MadeUp, image
from test_images_fetch import served, sif_file

pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def source(tmp_path):
    """A SIF file of a few bytes (Path)."""
    image(tmp_path / 'source.sif')
    return tmp_path / 'source.sif'


def add(easysif, source, *names):
    for name in names:
        assert easysif('store', 'add', '--name', name, str(source))[0] == 0


def test_what_a_module_needs_since_gc_looked_stays(easysif, store, source, prefix):
    add(easysif, source, 'a.sif', 'b.sif', 'c.sif')
    MadeUp(prefix)
    known = Store(str(store))

    def look():
        return usage(known, [str(prefix)])
    done = upkeep.look_for_waste(known, look())
    assert [entry.name for entry in done.going] == ['a.sif', 'b.sif', 'c.sif']
    new = MadeUp(prefix, 'new/1')
    new.sif.unlink()
    new.sif.symlink_to(store / 'b.sif')
    upkeep.clear_out(known, done, look, 'gc')
    assert done.removed == ['a.sif', 'c.sif'] and [(entry.name, why) for entry, why in done.staying] == [
        ('b.sif', 'run by new/1')]
    (new.root / 'easysif.json').write_text('{')
    done = upkeep.Clearance(going=[known.entry('b.sif')])
    upkeep.clear_out(known, done, look, 'gc')
    assert (store / 'b.sif').exists() and 'what it needs of the image store is not known' in str(done.problems[0])


def test_a_file_that_another_process_is_at_work_on_is_named_and_the_others_go(easysif, store, source, prefix):
    add(easysif, source, 'a.sif', 'b.sif', 'c.sif')
    MadeUp(prefix)
    with Store(str(store)).lock('b.sif', 'easysif store add b.sif'):
        code, out, err = easysif('store', 'gc', '--yes')
        found = json.loads(easysif('store', 'gc', '--yes', '--json')[1])
    assert code == 1 and out == (
        'removed  {0}/a.sif, 761 bytes\nremoved  {0}/c.sif, 761 bytes\n'
        'keeps  {0}/b.sif, another process is at work here\nfreed 8.0 KiB\n'.format(store)), out
    assert err.startswith('error: easysif store gc b.sif: another process is at work here\n  holder  process %d of '
                          % os.getpid()) and '(easysif store add b.sif)' in err, err
    assert (found['removed'], found['freed'], len(found['problems'])) == ([], 0, 1)
    assert easysif('store', 'gc', '--yes')[1] == 'removed  %s/b.sif, 761 bytes\nfreed 4.0 KiB\n' % store


def test_a_file_of_the_size_that_a_link_has_not_is_not_run_and_what_is_loaded_instead_stays(
        easysif, store, source, prefix):
    add(easysif, source, 'toy.sif', 'other.sif')
    toy = MadeUp(prefix)
    toy.sif.unlink()
    toy.sif.symlink_to(store / 'linked.sif')
    (store / 'linked.sif').write_bytes(b'of another size')
    out = easysif('store', 'gc')[1]
    assert 'keeps  %s/toy.sif, run by toy/1\n' % store in out and 'would remove  %s/other.sif' % store in out, out
    assert ('error: %s/linked.sif: is of another size, and modules run it\n  modules  toy/1\n'
            'hint: easysif image restore toy/1\n' % store) in easysif('store', 'verify')[2]
    other = MadeUp(prefix.parent / 'else where', 'x/1')
    other.sif.unlink()
    other.sif.symlink_to(store / 'gone.sif')
    assert "hint: easysif image restore x/1 --prefix '%s'\n" % other.prefix in easysif(
        'store', 'verify', '--prefix', str(other.prefix))[2]


def test_what_a_killed_add_left_goes_with_gc_and_what_is_at_work_stays(easysif, store, tmp_path, prefix):
    data, going_on, asked = sif_file(tmp_path / 'upstream.sif').read_bytes(), threading.Event(), threading.Event()

    def slow(handler):
        asked.set()
        going_on.wait(60)
        return served(data)(handler)
    MadeUp(prefix)
    hidden = store / '.easysif'
    with stub({'/x.sif': slow}) as server:
        argv = [sys.executable, '-m', 'easysif.cli', 'store', 'add', 'http://%s/x.sif' % server.host]
        process = subprocess.Popen(argv, env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
        assert asked.wait(60)
        (hidden / 'fetched').mkdir(exist_ok=True)  # as others make it who fetch at the same time
        before = sorted(os.listdir(hidden))
        assert len(before) == 3 and easysif('store', 'gc', '--yes')[1] == 'freed 0 bytes\n'
        assert sorted(os.listdir(hidden)) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        going_on.set()
    work = next(hidden.glob('work-*'))
    (work / 'waste').write_bytes(b'x' * 4096)
    (hidden / 'log-0123456789abcdef').write_text('of one that failed')
    kept = Kept(str(hidden / 'fetched'), 'x.eb', {})

    def make(part):
        (tmp_path / 'upstream.sif').rename(part)
        return {}
    kept.make('sha256:' + '1' * 64, lambda record: False, make)
    used = next((hidden / 'fetched').glob('*.used-*'))
    code, out, _ = easysif('store', 'gc')
    lines = ['would remove  %s, left by a command that was killed or failed' % path
             for path in (hidden / 'fetched', hidden / 'log-0123456789abcdef', work)]
    assert code == 0 and out.splitlines()[:3] == lines and out.endswith('to remove it: the same with --yes\n'), out
    found = json.loads(easysif('store', 'gc', '--yes', '--json')[1])
    assert found['left'] == [line.split('  ')[1].split(',')[0] for line in lines]
    assert [path.name for path in hidden.iterdir()] == ['fetched'] and used.exists()  # as it is being installed
    assert found['problems'] == ['easysif store gc: what was left in the image store cannot be removed\n  path  %s\n'
                                 "hint: ls -laR -- '%s'" % ((hidden / 'fetched',) * 2)]
    used.unlink()
    assert easysif('store', 'gc', '--yes')[0] == 0 and list(hidden.iterdir()) == []


def test_the_next_add_removes_what_a_killed_one_of_another_image_left_but_its_log(easysif, store, source):
    add(easysif, source, 'a.sif')
    other = Store(str(store))
    for kind in ('new', 'log'):
        with open(leftovers.of(other, kind, 'other.sif'), 'w') as handle:
            handle.write('x')
    os.makedirs(os.path.join(leftovers.of(other, 'work', 'other.sif'), 'easysif-build-x', 'deep'))
    add(easysif, source, 'b.sif')
    assert sorted(os.listdir(other.hidden)) == ['a.sif.json', 'b.sif.json', os.path.basename(
        leftovers.of(other, 'log', 'other.sif'))]


@pytest.mark.parametrize('open_one, mode, absolute', [
    ('', 'copy', False), ('.easysif', 'copy', False), ('toy.sif', 'copy', False), ('toy.sif', 'link', False),
    ('toy.sif', 'copy', True)])
def test_a_store_that_everybody_may_write_to_is_not_believed(easysif, store, source, tmp_path, open_one, mode,
                                                             absolute):
    add(easysif, source, 'toy.sif')
    path = store / open_one
    path.chmod(path.stat().st_mode | 0o002)
    recipe = load(toys.recipe(tmp_path, image=str(store / 'toy.sif') if absolute else 'toy.sif', image_mode=mode))
    places = Places(find_file=lambda name: None, searched=[], downloads=str(tmp_path),
                    work=str(tmp_path), log=str(tmp_path / 'log'))
    with pytest.raises(EasySIFError) as caught:
        obtain(recipe, resolve().site, None, places)
    kind = ('file', 'a file of the image store') if open_one == 'toy.sif' else ('directory', 'the image store')
    head = 'toy-1.0.eb: %s can be written by everybody, so it is not believed\n  %s' % (kind[1], kind[0])
    assert str(caught.value).startswith(head) and "hint: chmod o-w '%s" % store in str(caught.value)
    path.chmod(path.stat().st_mode & ~0o002)
    assert obtain(recipe, resolve().site, None, places).path == str(store / 'toy.sif')
