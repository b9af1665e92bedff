# SPDX-License-Identifier: GPL-2.0-only
"""How a new installation takes the place of the old one: whole, at one moment, or not at all."""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import toys
from easysif import files, manifest, relocate
from easysif.errors import EasySIFError
from easysif.standing import Standing

MODULE = 'toy/1.0-x'


class Place:
    """A prefix with an installation, its module file and a link to that."""

    def __init__(self, top):
        self.top, self.root = top, top / 'software' / MODULE
        self.module, self.link = top / 'modules' / 'all' / 'toy.lua', top / 'modules' / 'tools' / 'toy.lua'

    def fill(self):
        """Install version "old" by hand."""
        for path in (self.root / 'bin' / 'tool', self.module, self.link):
            path.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.root / 'bin' / 'tool', self.root / manifest.NAME, self.module):
            path.write_text('old')
        self.module.chmod(0o640)
        os.utime(self.module, (1, 1))
        self.link.symlink_to(self.module)
        return self

    def standing(self):
        """Return what a session has that begins now (Standing)."""
        return Standing(str(self.root), MODULE, str(self.module), [str(self.link)], [str(self.top / 'build' / 'toy')])

    def snapshot(self):
        """Return all that there is, but for the directory of locks (dict)."""
        return toys.snapshot(self.top, 'software/.locks')

    def make(self, standing):
        """Make version "new" beside."""
        new = Path(standing.make())
        (new / 'bin').mkdir()
        for path in (new / 'bin' / 'tool', new / manifest.NAME):
            path.write_text('new')
        return new

    def what(self):
        """Return which version stands in each of the three places (list of str)."""
        return [path.read_text() for path in (self.root / 'bin' / 'tool', self.module, self.link)]


@pytest.fixture
def top(tmp_path):
    """A directory with nothing in it (Path)."""
    (tmp_path / 'top').mkdir()
    return tmp_path / 'top'


@pytest.fixture
def place(top):
    return Place(top).fill()


@pytest.fixture(params=['exchange', 'two renames'])
def way(request, monkeypatch):
    """Both ways to put a directory into the place of another one."""
    if request.param != 'exchange':
        monkeypatch.setattr(files, 'exchange', lambda one, other: False)


def test_the_new_one_takes_the_place_of_the_old_one(place, way):
    standing = place.standing()
    with standing.alone('toy.eb') as meanwhile:
        assert not meanwhile
        place.make(standing)
        assert place.what() == ['old'] * 3
        standing.publish({str(place.module): 'new'})
        standing.clear()
    assert place.what() == ['new'] * 3 and os.listdir(place.root.parent) == ['1.0-x']
    assert place.link.is_symlink() and sorted(os.listdir(place.module.parent)) == ['toy.lua']


def test_where_nothing_stood_it_is_put(top):
    place = Place(top)
    standing = place.standing()
    with standing.alone('toy.eb'):
        place.make(standing)
        standing.publish({str(place.module): 'new'})
        standing.clear()
    standing.tidy()
    assert place.what() == ['new'] * 3 and os.listdir(place.root.parent) == ['1.0-x']


def test_what_fails_before_leaves_no_trace(place):
    before, standing = place.snapshot(), place.standing()
    with standing.alone('toy.eb'):
        place.make(standing)
        (place.top / 'build' / 'toy').mkdir(parents=True)
        standing.clear()
    standing.tidy()
    assert toys.snapshot(place.top) == before


def test_where_nothing_stood_nothing_is_left(top):
    place = Place(top)
    standing = place.standing()
    with standing.alone('toy.eb'):
        place.make(standing)
        (place.top / 'mine').touch()
        standing.clear()
    standing.tidy()
    assert os.listdir(top) == ['mine']


@pytest.mark.parametrize('rename', range(1, 6))
@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()], ids=['full', 'key'])
def test_what_fails_at_the_moment_itself_is_undone(place, way, monkeypatch, rename, error):
    """At each rename of it: what stood comes back with its module text, modes and times."""
    before, standing, real, count = place.snapshot(), place.standing(), os.rename, []
    times = place.module.stat().st_mtime_ns
    place.link.unlink()
    place.link.symlink_to('elsewhere')
    before = place.snapshot()

    def failing(source, target):
        count.append(target)
        if len(count) == rename:
            raise error
        real(source, target)

    with standing.alone('toy.eb'):
        place.make(standing)
        with monkeypatch.context() as patch:
            patch.setattr(os, 'rename', failing)
            try:
                standing.publish({str(place.module): 'new', str(place.top / 'extra'): 'new'})
            except (EasySIFError, KeyboardInterrupt) as err:
                assert type(err) is (EasySIFError if isinstance(error, OSError) else KeyboardInterrupt)
                if isinstance(error, OSError):
                    assert 'No space left on device' in str(err) and 'hint: ' in str(err)
        if len(count) < rename:  # an exchange is no rename
            assert len(count) == 3 and place.what() == ['new'] * 3
            return
        standing.clear()
    standing.tidy()
    assert place.snapshot() == before and place.module.stat().st_mtime_ns == times


@pytest.mark.parametrize('left', ['new', 'exchanged', 'between', 'between, then mkdir', 'removing', 'writing'])
def test_what_a_killed_session_left_is_put_in_order_by_the_next(place, left):
    before, root = place.snapshot(), place.root
    new, old = root.parent / '.1.0-x.new', root.parent / '.1.0-x.old'
    if left == 'new':
        new.mkdir()
        (new / 'half').touch()
        new.chmod(0o500)
    elif left == 'exchanged':
        new.mkdir()
        (new / manifest.NAME).write_text('older')
    elif left.startswith('between'):
        root.rename(old)
        new.mkdir()
        if 'mkdir' in left:
            root.mkdir()
    elif left == 'removing':
        old.mkdir()
        (old / 'half').touch()
    else:
        (place.module.parent / '.toy.lua.new-1').write_text('half')
        (place.link.parent / '.toy.lua.new-1').symlink_to('x')
        (root / '.easysif.json.new-77').touch()
    with place.standing().alone('toy.eb'):
        assert place.snapshot() == before


@pytest.mark.parametrize('ours', [True, False])
def test_the_module_file_of_an_installation_is_put_in_its_place_by_the_next_session(place, way, ours):
    """A session was killed after the installation was put in its place, and before its module file was."""
    def last(source, target):
        if target == str(place.module):
            os._exit(9)
        rename(source, target)

    rename, child = os.rename, os.fork()
    if not child:
        standing = place.standing()
        with standing.alone('toy.eb'):
            new = place.make(standing)
            digest = hashlib.sha256(b'new' if ours else b'newer').hexdigest()
            manifest.write(str(new), toys.record(modulefile={'path': standing.module, 'links': [], 'sha256': digest}))
            place.link.unlink()
            os.rename = last
            standing.publish({str(place.module): 'new'})
        os._exit(0)
    assert os.waitpid(child, 0)[1] >> 8 == 9
    assert (place.root / 'bin' / 'tool').read_text() == 'new' and place.module.read_text() == 'old'
    with place.standing().alone('toy.eb'):
        assert place.what() == (['new'] * 3 if ours else ['new', 'old', 'old'])
        assert os.listdir(place.root.parent) == ['1.0-x'] and os.listdir(place.module.parent) == ['toy.lua']


def test_who_waited_is_told_of_what_another_one_installed(place):
    first, second, told = place.standing(), place.standing(), []

    def install():
        with first.alone('toy.eb'):
            begun.set()
            place.make(first)
            asked.wait(60)
            first.publish({str(place.module): 'new'})
            first.clear()

    def tell(line):
        told.append(line)
        asked.set()

    begun, asked = threading.Event(), threading.Event()
    thread = threading.Thread(target=install)
    thread.start()
    begun.wait()
    with second.alone('toy.eb', wait=60, tell=tell) as meanwhile:
        assert meanwhile
    thread.join()
    assert place.what() == ['new'] * 3 and told[0].startswith('waiting for process %d' % os.getpid())


def test_who_does_not_get_the_lock_removes_nothing_of_who_has_it(top):
    place = Place(top)
    first, second, scratch = place.standing(), place.standing(), top / 'build' / 'toy'
    with first.alone('toy.eb'):
        scratch.mkdir(parents=True)
        with pytest.raises(EasySIFError), second.alone('toy.eb'):
            raise AssertionError
        second.tidy()
        assert scratch.is_dir()
    first.tidy()
    assert os.listdir(top) == []


def test_nothing_is_published_under_a_lost_lock(place):
    before, standing = place.snapshot(), place.standing()
    with standing.alone('toy.eb'):
        place.make(standing)
        os.unlink(os.path.join(standing.lock, 'holder'))
        with pytest.raises(EasySIFError) as caught:
            standing.publish({str(place.module): 'new'})
        assert 'the lock was lost' in str(caught.value)
        standing.clear()
    assert place.snapshot() == before


def test_what_cannot_be_removed_is_named(place, monkeypatch):
    standing, new = place.standing(), place.root.parent / '.1.0-x.new'
    new.mkdir()
    (new / 'half').touch()
    monkeypatch.setattr(files, 'remove_tree', lambda path: None)
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    with standing.alone('toy.eb'), pytest.raises(EasySIFError) as caught:
        standing.make()
    assert str(caught.value) == ('%s: what a killed session left cannot be removed\n  directory  %s\nhint: rm -r -- %s'
                                 % (place.root, new, new))


def test_what_a_dying_command_still_writes_is_removed_a_moment_later(place, monkeypatch):
    standing, new, real, calls = place.standing(), place.root.parent / '.1.0-x.new', files.remove_tree, []
    new.mkdir()
    monkeypatch.setattr(files, 'remove_tree', lambda path: calls.append(path) or len(calls) > 4 and real(path))
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    with standing.alone('toy.eb'):
        assert standing.make() == str(new) and os.listdir(new) == []


def test_a_long_prefix_has_a_lock_all_the_same(tmp_path):
    place = Place(tmp_path / ('x' * 120) / ('y' * 120))
    with place.standing().alone('toy.eb'):
        assert len(os.listdir(place.root.parents[1] / '.locks')) == 1


def test_what_is_there_but_was_not_made_by_us_is_never_published(place, monkeypatch):
    """As half an installation of another member of the group, which we may not remove."""
    new, standing = place.root.parent / '.1.0-x.new', place.standing()
    new.mkdir()
    monkeypatch.setattr(files, 'remove_tree', lambda path: None)
    with standing.alone('toy.eb'):
        standing.publish({str(place.module): 'new'})
        standing.clear()
    assert place.what() == ['old', 'new', 'new'] and os.listdir(new) == []


@pytest.mark.parametrize('then', ['back', 'stuck'])
def test_what_cannot_be_put_back_is_not_removed(place, monkeypatch, then):
    """Without an exchange: the new one cannot be put there, and the old one not back."""
    monkeypatch.setattr(files, 'exchange', lambda one, other: False)
    standing, real = place.standing(), os.rename

    def failing(source, target):
        if target == str(place.root) or then == 'stuck' and source == str(place.root) and standing.is_swapped:
            raise OSError(116, 'Stale file handle')
        real(source, target)

    with standing.alone('toy.eb'):
        place.make(standing)
        with monkeypatch.context() as patch:
            patch.setattr(os, 'rename', failing)
            with pytest.raises(EasySIFError, match='Stale file handle'):
                standing.publish({str(place.module): 'new'})
            standing.clear()
    standing.tidy()
    with place.standing().alone('toy.eb'):
        assert place.what() == ['old'] * 3


def test_what_users_put_into_the_old_one_is_in_the_new_one(place):
    (place.root / 'notes').mkdir()
    (place.root / 'notes' / 'mine').write_text('precious')
    (place.root / 'bin' / 'mine').symlink_to('tool')
    (place.root / 'old.sif').write_text('an image, as far as is known')
    (place.root / '.x.new-1').touch()
    standing = place.standing()
    with standing.alone('toy.eb'):
        new = place.make(standing)
        (new / 'bin').chmod(0o555)
        relocate.carry_over(standing.root, standing.new)
        standing.publish({str(place.module): 'new'})
        standing.clear()
    assert (place.root / 'notes' / 'mine').read_text() == 'precious'
    assert os.readlink(place.root / 'bin' / 'mine') == 'tool'
    assert place.what() == ['new'] * 3
    assert not (place.root / 'old.sif').exists() and not (place.root / '.x.new-1').exists()
    assert (place.root / 'bin').stat().st_mode & 0o777 == 0o555


def test_two_spellings_of_a_prefix_have_one_lock(place, tmp_path):
    (tmp_path / 'link').symlink_to(place.top)
    other = Place(tmp_path / 'link').standing()
    with place.standing().alone('toy.eb'), pytest.raises(EasySIFError, match='another process'):
        with other.alone('toy.eb'):
            pass


def test_it_names_its_final_place(place):
    standing = place.standing()
    with standing.alone('toy.eb'):
        new = place.make(standing)
        (new / 'bin' / 'tool').write_text('cd %s/bin; echo $PREFIX/toy/.1.0-x.new/x\n' % new)
        (new / 'bin' / 'tool').chmod(0o751)
        (new / 'absolute').symlink_to(new / 'bin')
        (new / 'relative').symlink_to('bin/tool')
        (new / 'empty').touch()
        (new / 'binary').write_bytes(b'\0\1')
        relocate.tree(str(new), standing.root)
        standing.publish({str(place.module): relocate.text_of('root = "%s"' % new, standing.new, standing.root)})
    tool = place.root / 'bin' / 'tool'
    assert tool.read_text() == 'cd %s/bin; echo $PREFIX/toy/1.0-x/x\n' % place.root
    assert tool.stat().st_mode & 0o777 == 0o751
    assert os.readlink(place.root / 'absolute') == str(place.root / 'bin')
    assert os.readlink(place.root / 'relative') == 'bin/tool' and (place.root / 'binary').read_bytes() == b'\0\1'
    assert place.module.read_text() == 'root = "%s"' % place.root


def test_a_binary_file_that_names_the_place_where_it_was_made_is_refused(place):
    standing = place.standing()
    with standing.alone('toy.eb'):
        new = place.make(standing)
        (new / 'program').write_bytes(b'\0' + os.fsencode(new / 'lib') + b'\0')
        with pytest.raises(EasySIFError) as caught:
            relocate.tree(str(new), standing.root)
    assert str(caught.value) == (
        '%s/program: names the directory in which it was made, which is only for a time\n  directory  %s\n'
        'hint: let postinstallcmds write paths relative to the installation' % (new, new))


def test_an_installation_that_was_moved_and_linked_is_replaced_and_what_was_moved_stays(place, tmp_path):
    place.root.rename(tmp_path / 'elsewhere')
    place.root.symlink_to(tmp_path / 'elsewhere')
    standing = place.standing()
    with standing.alone('toy.eb'):
        place.make(standing)
        standing.publish({str(place.module): 'new'})
        standing.clear()
    assert place.what() == ['new'] * 3 and not place.root.is_symlink()
    assert (tmp_path / 'elsewhere' / 'bin' / 'tool').read_text() == 'old'


def test_a_module_alone_is_published_into_a_read_only_installation(place):
    place.root.chmod(0o555)
    standing = place.standing()
    with standing.alone('toy.eb'):
        standing.publish({str(place.module): 'new', str(place.root / manifest.NAME): 'new'})
    assert place.module.read_text() == 'new' and (place.root / manifest.NAME).read_text() == 'new'
    assert place.root.stat().st_mode & 0o777 == 0o555 and sorted(os.listdir(place.root)) == ['bin', manifest.NAME]


def test_a_signal_waits_until_the_moment_is_over(monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append('signal'))
    try:
        with files.undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            seen.append('done')
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ['done', 'signal']


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_told_to_end_cleans_up_in_peace(place, number):
    before = place.snapshot()
    previous = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as caught, place.standing().alone('toy.eb'):
            try:
                place.make(place.standing())
                os.kill(os.getpid(), number)
                time.sleep(60)
            finally:
                os.kill(os.getpid(), number)
                place.standing().clear()
        assert (caught.value.code, signal.getsignal(number)) == (128 + number, signal.SIG_DFL)
    finally:
        signal.signal(number, previous)
    assert place.snapshot() == before


def test_a_signal_that_is_ignored_stays_so(place):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with place.standing().alone('toy.eb'):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_two_directories_are_exchanged(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert files.exchange(str(tmp_path / 'a'), str(tmp_path / 'b'))
    assert os.listdir(tmp_path / 'a') == ['b'] and os.listdir(tmp_path / 'b') == ['a']
    assert not files.exchange(str(tmp_path / 'a'), str(tmp_path / 'none'))


def test_a_tree_with_read_only_directories_is_removed_and_links_are_not_followed(top):
    (top / 'other').mkdir(mode=0o555)
    tree = top / 'tree'
    (tree / 'a' / 'b').mkdir(parents=True)
    (tree / 'a' / 'link').symlink_to(top / 'other')
    for path in (tree / 'a' / 'b', tree / 'a', tree):
        path.chmod(0o500)
    files.remove_tree(str(tree))
    files.remove_tree(str(tree))
    (top / 'link').symlink_to(top / 'other')
    files.remove_tree(str(top / 'link'))
    assert os.listdir(top) == ['other'] and (top / 'other').stat().st_mode & 0o777 == 0o555
