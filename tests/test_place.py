# SPDX-License-Identifier: GPL-2.0-only
"""images/place.py and images/onepass.py: an image comes to its place whole, verified, or not at all."""

import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from easysif import files
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.images import onepass, place

MB = 1 << 20
WHERE = 'jax-24.10.eb'


@pytest.fixture
def source(tmp_path):
    """A file of 21 MB and some bytes, no multiple of anything (Path)."""
    path = tmp_path / 'from/x y.sif'
    path.parent.mkdir()
    path.write_bytes(os.urandom(21 * MB + 12345))
    return path


@pytest.fixture
def target(tmp_path):
    """Where the image belongs, in a directory that holds nothing else (Path)."""
    path = tmp_path / 'to/jax $1.sif'
    path.parent.mkdir()
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def error(source, target, **kwargs):
    with pytest.raises(EasySIFError) as err:
        place.place(str(source), str(target), where=WHERE, **kwargs)
    return err.value


def fail(number):
    def raiser(*args, **kwargs):
        raise OSError(number, os.strerror(number))
    return raiser


@pytest.fixture
def other_filesystem(source, monkeypatch):
    """The source is on another file system, as far as a rename or link can tell."""
    monkeypatch.setattr(os, 'rename', _between(os.rename, str(source)))
    monkeypatch.setattr(os, 'link', _between(os.link, str(source)))


def _between(function, source):
    def checked(first, second):
        if first == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        function(first, second)
    return checked


@pytest.mark.parametrize('size', [0, 1, MB - 1, MB, MB + 1, 8 * MB, 9 * MB, 80 * MB + 7])
def test_a_copy_has_the_same_bytes_and_their_sha256(tmp_path, target, size):
    source = tmp_path / 'x.sif'
    source.write_bytes(os.urandom(size))
    source.chmod(0o600)
    placed = place.place(str(source), str(target))
    assert target.read_bytes() == source.read_bytes()
    assert placed == place.Placed(sha256(source), 'copy')
    assert place.sha256_of(str(target)) == placed.sha256
    assert stat.S_IMODE(target.stat().st_mode) == 0o444
    assert stat.S_IMODE(source.stat().st_mode) == 0o600
    assert os.listdir(target.parent) == [target.name]


def test_holes_stay_holes(tmp_path, target):
    source = tmp_path / 'x.sif'
    with open(source, 'wb') as handle:
        handle.truncate(200 * MB)
        for offset in (0, 50 * MB - 3, 120 * MB):
            handle.seek(offset)
            handle.write(os.urandom(2 * MB))
    placed = place.place(str(source), str(target))
    assert placed.sha256 == sha256(source) == sha256(target)
    assert target.stat().st_size == 200 * MB
    assert target.stat().st_blocks <= source.stat().st_blocks + 16  # also where data begins and ends within a chunk


def test_a_file_system_that_cannot_tell_holes_is_copied_whole(source, target, monkeypatch):
    monkeypatch.setattr(os, 'lseek', fail(errno.EINVAL))
    assert place.place(str(source), str(target)).sha256 == sha256(target) == sha256(source)


def test_short_reads_and_writes_lose_nothing(source, target, monkeypatch):
    pread, pwrite = os.preadv, os.pwrite
    monkeypatch.setattr(os, 'preadv', lambda fd, buffers, offset: pread(fd, [memoryview(buffers[0])[:70001]], offset))
    monkeypatch.setattr(os, 'pwrite', lambda fd, view, offset: pwrite(fd, view[:30011], offset))
    assert place.place(str(source), str(target)).sha256 == sha256(target) == sha256(source)


def test_a_link_onto_a_real_other_file_system_is_a_copy(source):
    shared = '/dev/shm'
    assert os.stat(shared).st_dev != source.stat().st_dev, 'TMPDIR must lie elsewhere than %s' % shared
    target = os.path.join(shared, 'easysif-test-%d.sif' % os.getpid())
    digest = sha256(source)
    try:
        assert place.place(str(source), target, link=True) == place.Placed(digest, 'copy')
        assert place.sha256_of(target) == digest and source.exists()
    finally:
        os.unlink(target)


def test_a_link_shares_the_file(source, target):
    assert place.place(str(source), str(target), link=True) == place.Placed(sha256(source), 'link')
    assert os.path.samefile(source, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o444


def test_a_link_between_file_systems_is_a_copy(source, target, other_filesystem):
    assert place.place(str(source), str(target), link=True).how == 'copy'
    assert sha256(target) == sha256(source)


def test_a_reflink_is_hashed_and_published_as_a_copy_is(source, target, monkeypatch):
    def clone(part_fd, request, source_fd):
        assert request == 0x40049409
        os.pwrite(part_fd, os.pread(source_fd, 100 * MB, 0), 0)
    monkeypatch.setattr(place.fcntl, 'ioctl', clone)
    monkeypatch.setattr(onepass, 'copy', None)
    assert place.place(str(source), str(target)) == place.Placed(sha256(source), 'reflink')
    assert stat.S_IMODE(target.stat().st_mode) == 0o444


def test_what_was_there_is_replaced_and_a_link_there_is_not_followed(source, target, tmp_path):
    precious = tmp_path / 'precious'
    precious.write_text('precious')
    target.symlink_to(precious)
    place.place(str(source), str(target))
    assert not target.is_symlink() and precious.read_text() == 'precious'
    source.write_bytes(b'new')
    place.place(str(source), str(target))
    assert target.read_bytes() == b'new'


def test_a_target_that_links_to_the_source_becomes_a_file_of_its_own(source, target):
    digest = sha256(source)
    target.symlink_to(source)
    place.place(str(source), str(target))
    assert not target.is_symlink()
    assert sha256(source) == sha256(target) == digest


def test_an_image_is_never_put_over_itself(source, target):
    os.link(source, target)
    digest = sha256(source)
    for where in (source, target):
        for link in (False, True):
            assert str(error(source, where, link=link)) == (
                'jax-24.10.eb: image would be put over itself: %s\n  source  %s' % (where, source))
    assert sha256(source) == sha256(target) == digest


def test_a_stale_part_of_the_same_process_number_is_in_nobodys_way(source, target):
    part = target.with_name('%s.part-%d' % (target.name, os.getpid()))
    part.write_text('half')
    part.chmod(0o444)
    place.place(str(source), str(target))
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize('kwargs', [{}, {'link': True}])
def test_a_wrong_digest_changes_nothing(source, target, kwargs):
    target.write_text('the image before')
    digest, mode = sha256(source), source.stat().st_mode
    err = error(source, target, expected='sha256:' + 64 * 'a', **kwargs)
    assert str(err) == ("jax-24.10.eb: digest does not match the image\n"
                        '  recipe  sha256:%s\n'
                        '  found   sha256:%s  (%s)\n'
                        "hint: fetch the file again; if it is the right one, write digest = 'sha256:%s'"
                        % (64 * 'a', digest, source, digest))
    assert err.exit_code == INPUT
    assert (sha256(source), target.read_text()) == (digest, 'the image before')
    assert 'link' in kwargs or source.stat().st_mode == mode
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize('write', ['sha256:%s', '%s'])
def test_the_right_digest_passes_however_it_is_written(source, target, write):
    place.place(str(source), str(target), expected=write % sha256(source).upper())
    assert target.exists()


def test_a_source_that_cannot_be_read(tmp_path, target):
    assert str(error('/is/not/there.sif', target)) == (
        'jax-24.10.eb: image file cannot be read: /is/not/there.sif (No such file or directory)')
    assert str(error(tmp_path, target)) == 'jax-24.10.eb: image is not a file: %s' % tmp_path


def test_a_directory_that_is_not_there(source, target):
    shutil.rmtree(target.parent)
    err = error(source, target)
    assert str(err) == ('jax-24.10.eb: image cannot be put into %s (No such file or directory)\n'
                        '  source  %s\n'
                        '  target  %s\n'
                        'hint: ls -ld %s' % (target.parent, source, target, target.parent))


def test_a_directory_that_may_not_be_written(source, target):
    target.parent.chmod(0o555)
    try:
        assert 'image cannot be put into %s (Permission denied)' % target.parent in str(error(source, target))
    finally:
        target.parent.chmod(0o755)
    assert os.listdir(target.parent) == [] and source.exists()


def test_a_link_to_what_is_known_is_not_read(source, target, monkeypatch):
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    read = []
    monkeypatch.setattr(onepass, 'sha256', lambda fd: read.append(fd) or sha256)
    for verified in (files.identity(source), files.identity(__file__)):  # another file may have taken its place
        assert place.place(str(source), str(target), link=True, expected='sha256:' + sha256, verified=verified) == \
            place.Placed(sha256, 'link')
        assert len(read) == (verified != files.identity(source))
        target.unlink()
    place.place(str(source), str(target), link=True)
    assert target.stat().st_ino == source.stat().st_ino
    assert stat.S_IMODE(target.stat().st_mode) == 0o444


def test_what_takes_the_name_of_the_image_meanwhile_is_not_published(source, target, monkeypatch):
    before, link, read = sha256(source), os.link, onepass.sha256

    def exchanged(function):
        def call(*args):
            source.with_suffix('.new').write_bytes(b'another image')
            os.rename(source.with_suffix('.new'), source)
            return function(*args)
        return call
    monkeypatch.setattr(os, 'link', exchanged(link))
    assert place.place(str(source), str(target), link=True) == place.Placed(before, 'copy') and sha256(target) == before
    target.unlink()
    for call in (exchanged(read), lambda fd: (source.unlink(), read(fd))[1]):
        monkeypatch.setattr(onepass, 'sha256', call)
        with pytest.raises(EasySIFError) as caught:
            place.refer(str(source), str(target), where=WHERE)
        assert not os.listdir(target.parent)
        assert ('image changed while it was read: %s\n  file  another one has that name now\n' % source in str(
            caught.value)) is source.exists()


def test_too_little_space_is_known_before_the_first_byte(source, target, monkeypatch):
    class Disk:
        f_bavail, f_frsize = 5, 1000 * 1000

    monkeypatch.setattr(os, 'statvfs', lambda path: Disk)
    monkeypatch.setattr(onepass, 'copy', None)
    err = error(source, target)
    assert str(err) == ('jax-24.10.eb: not enough space for the image in %s\n'
                        '  needed  21.0 MiB  (%s)\n'
                        '  free    4.8 MiB\n'
                        'hint: free some space there (or quota), or install elsewhere: eb --prefix DIR'
                        % (target.parent, source))
    assert err.exit_code == TOOL
    assert os.listdir(target.parent) == []


def test_a_sparse_source_needs_no_more_space_than_it_has_data(tmp_path, target, monkeypatch):
    class Disk:
        f_bavail, f_frsize = 5, 1000 * 1000

    monkeypatch.setattr(os, 'statvfs', lambda path: Disk)
    source = tmp_path / 'x.sif'
    with open(source, 'wb') as handle:
        handle.truncate(30 * MB)
    place.place(str(source), str(target))
    assert target.stat().st_size == 30 * MB


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_meanwhile_leaves_what_was_there(source, target, monkeypatch, number):
    target.write_text('the image before')
    writes = []

    def pwrite(fd, view, offset, real=os.pwrite):
        writes.append(offset)
        return real(fd, view, offset) if len(writes) < 10 else fail(number)()
    monkeypatch.setattr(os, 'pwrite', pwrite)
    text = str(error(source, target))
    assert text.startswith('jax-24.10.eb: not enough space for the image in %s\n  needed  21.0 MiB  ' % target.parent)
    assert target.read_text() == 'the image before'
    assert os.listdir(target.parent) == [target.name]


def test_a_source_that_someone_still_writes(source, target, monkeypatch):
    copy = onepass.copy

    def appended(source_fd, part_fd):
        digest = copy(source_fd, part_fd)
        with open(source, 'ab') as handle:
            handle.write(b'more')
        return digest
    monkeypatch.setattr(onepass, 'copy', appended)
    size = source.stat().st_size
    assert str(error(source, target)) == (
        'jax-24.10.eb: image changed while it was read: %s\n'
        '  size  %d bytes, then %d\n'
        'hint: wait until whoever writes it is done, then try again' % (source, size, size + 4))
    assert os.listdir(target.parent) == []


def test_an_interrupt_leaves_nothing_behind(source, target):
    code = ('import os, sys, time\n'
            'from easysif.images import place\n'
            'real = os.pwrite\n'
            'os.pwrite = lambda *args: (real(*args), time.sleep(60))[0]\n'
            'place.place(*sys.argv[1:])\n')
    process = subprocess.Popen([sys.executable, '-c', code, str(source), str(target)], stderr=subprocess.PIPE,
                               env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    deadline = time.monotonic() + 60
    while not [path for path in target.parent.iterdir() if path.stat().st_size] and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert b'KeyboardInterrupt' in process.communicate(timeout=50)[1]
    assert os.listdir(target.parent) == []


def test_no_thread_stays_behind_whatever_happens(source, target, monkeypatch):
    before = set(threading.enumerate())
    monkeypatch.setattr(os, 'pwrite', fail(errno.EIO))
    assert 'Input/output error' in str(error(source, target))
    assert set(threading.enumerate()) == before


@pytest.mark.long
def test_memory_stays_small_whatever_the_size(tmp_path, target):
    source = tmp_path / 'x.sif'
    with open(source, 'wb') as handle:
        for _ in range(10):
            handle.write(os.urandom(30 * MB))
    code = ('import re, sys\n'
            'from easysif.images import place\n'
            'place.place(*sys.argv[1:])\n'
            'print(re.search("VmHWM:\\\\s*(.*) kB", open("/proc/self/status").read()).group(1))\n')
    out = subprocess.run([sys.executable, '-c', code, str(source), str(target)], stdout=subprocess.PIPE, check=True,
                         env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)))
    assert int(out.stdout) < 60 * 1024
