# SPDX-License-Identifier: GPL-2.0-only
"""easysif image restore: the image of a module is back as it was recorded, or what was tried is said."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import toys
from easysif import manifest
from easysif.images import sources
from easysif.images.kept import Obtained
from easysif.site import resolve
from easysif.site_files import apply
from harness import long
from helpers_registry import stub
from made_up import MadeUp
from test_images_fetch import served
from test_store import flip

pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def toy(prefix):
    """A module of which the image comes from a file of that name (MadeUp)."""
    toy = MadeUp(prefix)
    reference(toy, 'toy.sif')
    return toy


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The image store of the site, with nothing in it (Path)."""
    monkeypatch.setenv('EASYSIF_IMAGE_STORE', str(tmp_path / 'store'))
    (tmp_path / 'store').mkdir()
    return tmp_path / 'store'


def image_of(toy):
    return json.loads((toy.root / 'easysif.json').read_text())['image']


def reference(toy, name, **more):
    """Let the record of a module name another image."""
    image = dict(image_of(toy), reference=name, digest='sha256:' + toys.sha256(toy.sif), **more)
    image.pop('manifest_digest', None)
    toy.record(image=image)


def restored(easysif, toy):
    """Bring it back, see that it is what it was, and return from where it came (str)."""
    digest = image_of(toy)['sha256']
    found = json.loads(easysif('image', 'restore', 'toy', '--json')[1])
    assert {name: found[name] for name in ('module', 'file', 'sha256', 'size', 'is_new', 'note')} == {
        'module': 'toy/1', 'file': str(toy.sif), 'sha256': digest, 'size': 761, 'is_new': False, 'note': None}
    assert toys.sha256(toy.sif) == digest and easysif('verify', 'toy')[0] == 0
    assert sorted(path.name for path in toy.root.parent.iterdir()) == ['1']
    return found['source']


def test_nothing_is_done_to_an_image_that_is_whole(easysif, toy):
    before = toys.snapshot(toy.prefix)
    assert easysif('image', 'restore', 'toy') == (0, 'toy/1: the image is whole, nothing to do\n', '')
    assert toys.snapshot(toy.prefix) == before


@pytest.mark.parametrize('harm', ['gone', 'flipped', 'cut'])
def test_it_comes_from_the_store_by_name_or_by_digest(easysif, toy, store, harm):
    good = toy.sif.read_bytes()
    (store / 'toy.sif').write_bytes(good[:-1] + b'x')
    (store / 'kept.sif').write_bytes(good)
    assert easysif('store', 'add', str(store / 'kept.sif'))[0] == 0
    if harm == 'gone':
        toy.sif.unlink()
        toy.root.chmod(0o555)  # as eb --read-only-installdir leaves it
    elif harm == 'flipped':
        flip(toy.sif)
    else:
        toy.sif.chmod(0o644)
        toy.sif.write_bytes(good[:100])
    assert restored(easysif, toy) == str(store / 'kept.sif')
    assert stat.S_IMODE(toy.sif.stat().st_mode) == 0o444
    flip(toy.sif)
    (store / 'toy.sif').write_bytes(good)
    assert restored(easysif, toy) == str(store / 'toy.sif')
    assert toy.sif.stat().st_nlink == 1


def test_it_comes_from_another_module_of_the_same_image(easysif, toy, prefix):
    other = MadeUp(prefix, 'other/1')
    toy.sif.unlink()
    assert restored(easysif, toy) == str(other.sif) and os.path.samefile(other.sif, toy.sif)


def test_it_comes_from_where_easybuild_looks_for_sources(easysif, toy, tmp_path, monkeypatch):
    monkeypatch.setenv('EASYBUILD_SOURCEPATH', '/nowhere:%s' % tmp_path)
    toy.sif.rename(tmp_path / 'toy.sif')
    assert restored(easysif, toy) == str(tmp_path / 'toy.sif')


def test_it_comes_from_a_web_server_by_its_digest(easysif, toy, monkeypatch):
    monkeypatch.setattr(sources, 'WAITS', ())
    with stub({'/x.sif': served(toy.sif.read_bytes())}) as server:
        reference(toy, 'http://%s/x.sif' % server.host)
        toy.sif.unlink()
        assert restored(easysif, toy) == 'http://%s/x.sif' % server.host
        toy.sif.unlink()
        server.answers['/x.sif'] = served(b'another')
        code, out, err = easysif('image', 'restore', 'toy')
    assert (code, out) == (1, '') and 'digest does not match the image' in err and not toy.sif.exists()


def test_what_was_tried_is_told_where_it_is_not_to_be_had(easysif, toy, store, tmp_path):
    (store / 'toy.sif').write_bytes(b'other')
    digest = toys.sha256(toy.sif)
    toy.sif.unlink()
    code, out, err = easysif('image', 'restore', 'toy')
    assert (code, out) == (1, '') and err == (
        'error: toy/1: the image cannot be brought back\n  wanted  sha256:%s\n'
        '  tried   %s/toy.sif: 5 bytes, not 761\n          %s/sources/toy.sif: No such file or directory\n'
        '          toy.sif: is in none of these places\nhint: eb --rebuild toy-1.eb\n'
        % (digest, store, toy.prefix)), err
    reference_of = dict(image_of(toy), reference='toy.def', digest=None)
    (toy.sif).write_bytes(b'')
    toy.record(image=reference_of)
    assert 'toy.def: makes another image each time' in easysif('image', 'restore', 'toy')[2]
    toy.record(image=dict(reference_of, reference='docker://localhost:9/x/y:1'))
    assert 'docker://localhost:9/x/y:1: has no digest on record' in easysif('image', 'restore', 'toy')[2]
    assert 'nothing: is not installed here' in easysif('image', 'restore', 'nothing')[2]


def test_who_may_not_change_the_installation_is_told_whose_it_is(easysif, toy, monkeypatch):
    toy.sif.unlink()
    toy.root.chmod(0o555)
    monkeypatch.setattr(os, 'geteuid', lambda: os.stat(toy.root).st_uid + 1)
    code, _, err = easysif('image', 'restore', 'toy')
    toy.root.chmod(0o755)
    assert code == 1 and err.startswith('error: toy/1: is not yours to restore\n  not writable  %s\n  owner' % toy.root)
    assert err.endswith(': easysif image restore toy/1\n')


# Modules that run the file of the store

@pytest.fixture
def linked(easysif, toy, store, prefix):
    """The same where the module runs the file of the store (MadeUp)."""
    toy.sif.rename(store / 'toy.sif')
    toy.sif.symlink_to(store / 'toy.sif')
    reference(toy, 'toy.sif', link=str(store / 'toy.sif'))
    apply(str(prefix), resolve().site)
    toy.inst = replace(toy.inst, sif_link=str(store / 'toy.sif'))
    assert easysif('refresh', 'toy')[0] == 0
    return toy


def runs(toy):
    """Run a wrapper as far as the image is looked for; return what it says of the image (str)."""
    done = subprocess.run(['sh', toy.root / 'easysif' / 'wrapper', 'print-environment'], capture_output=True, text=True)
    found = [line[4:] for line in done.stdout.splitlines() if line.startswith('SIF=')]
    return found[0] if found else done.stderr


def test_a_module_that_runs_from_the_store_is_well_and_says_so(easysif, linked, store):
    assert runs(linked) == str(linked.sif)
    assert 'runs the file of the image store: %s/toy.sif' % store in easysif('verify', 'toy')[1]
    assert '%s/toy.sif' % store in easysif('show', 'toy')[1]
    before = toys.snapshot(store), (store / 'toy.sif').stat().st_mtime_ns
    assert easysif('list')[0] == easysif('refresh', 'toy')[0] == 0
    linked.sif.unlink()
    (linked.prefix / 'other.sif').write_bytes((store / 'toy.sif').read_bytes())
    linked.sif.symlink_to(linked.prefix / 'other.sif')
    assert 'the link to the image leads elsewhere\n' in easysif('verify', 'toy')[2]
    for harm in ('elsewhere', 'gone'):
        if harm == 'gone':
            linked.sif.unlink()
        assert restored(easysif, linked) == '%s/toy.sif' % store and os.readlink(linked.sif) == '%s/toy.sif' % store
    assert easysif('remove', 'toy')[0] == 0
    assert (toys.snapshot(store), (store / 'toy.sif').stat().st_mtime_ns) == before


@pytest.mark.parametrize('harm', ['gone', *map(long, ('of another size', 'open', 'in an open store'))])
def test_a_file_of_the_store_that_is_gone_or_another_is_not_run_and_the_image_comes_back(
        easysif, linked, store, tmp_path, monkeypatch, harm):
    good = (store / 'toy.sif').read_bytes()
    if 'open' in harm:
        (store if 'store' in harm else store / 'toy.sif').chmod(0o777)
    else:
        (store / 'toy.sif').unlink()
    if harm == 'of another size':
        (store / 'toy.sif').write_bytes(good + b'more')
    said = runs(linked)
    assert said == (
        'error: toy/1: the image is gone\n  looked for  {0}/toy.sif (761 bytes, not open to everybody)\n'
        '  and for     {0}/toy.sif (761 bytes, not open to everybody)\n'
        'hint: easysif image restore toy/1 --prefix {1}\n'.format(store, linked.prefix)), said
    code, _, err = easysif('verify', 'toy')
    assert code == 1 and ('can be written by everybody' in err) is ('open' in harm), err
    store.chmod(0o755)
    (store / 'again.sif').write_bytes(good)
    easysif('store', 'add', str(store / 'again.sif'))
    if 'open' in harm:
        (store / 'toy.sif').unlink()
    assert restored(easysif, linked) == str(store / 'again.sif') == os.readlink(linked.sif)
    assert runs(linked) == str(linked.sif) and image_of(linked)['link'] == str(store / 'again.sif')
    (store / 'again.sif').unlink()
    monkeypatch.setenv('EASYBUILD_SOURCEPATH', str(tmp_path))
    (tmp_path / 'toy.sif').write_bytes(good)
    assert restored(easysif, linked) == str(tmp_path / 'toy.sif') and not linked.sif.is_symlink()
    assert runs(linked) == str(linked.sif) and 'link' not in image_of(linked)


# Faults

@pytest.mark.long
def test_a_restore_that_is_killed_leaves_the_old_or_the_new_and_the_next_one_needs_no_help(easysif, toy, store):
    toy.sif.chmod(0o644)
    with open(toy.sif, 'ab') as handle:
        for _ in range(24):
            handle.write(os.urandom(1 << 20))
    toy.sif.chmod(0o444)
    reference(toy, 'toy.sif', sha256=toys.sha256(toy.sif), size=toy.sif.stat().st_size)
    (store / 'toy.sif').write_bytes(toy.sif.read_bytes())
    digest, env = toys.sha256(toy.sif), dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    argv = [sys.executable, '-m', 'easysif.cli', 'image', 'restore', 'toy']
    names = sorted(os.listdir(toy.root))
    toy.sif.unlink()
    began = time.monotonic()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
    length = time.monotonic() - began
    for number in range(12):
        toy.sif.unlink()
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
        time.sleep(length * (0.5 + number / 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not toy.sif.exists() or toys.sha256(toy.sif) == digest
        assert sorted([*os.listdir(toy.root), *([] if toy.sif.exists() else ['toy.sif'])]) == names
        code, _, err = easysif('image', 'restore', 'toy')
        assert code == 0 and toys.sha256(toy.sif) == digest, err
        assert os.listdir(toy.root.parent) == ['1'] and manifest.read(str(toy.root))['image']['sha256'] == digest


#: what changes something on the disk
CALLS = ('rename', 'unlink', 'symlink', 'link', 'mkdir', 'rmdir', 'chmod', 'fsync', 'utime')


@pytest.mark.long
def test_a_restore_that_is_killed_at_a_change_leaves_a_module_that_the_next_one_makes_whole(
        easysif, toy, tmp_path, monkeypatch):
    """What a registry has is made into other bytes: image, record, wrappers and module file change together."""
    toy.record()
    made = tmp_path / 'made.sif'
    data, origin = toy.sif.read_bytes(), {'source': 'a.mirror', 'manifest_digest': 'sha256:' + 'e' * 64}
    monkeypatch.setattr('easysif.restore.obtain', lambda *_: Obtained(str(made), origin=origin))

    def restore(number):
        made.write_bytes(data + b'x' * (number + 1))
        toy.sif.unlink()
        return killed_at(number, lambda: easysif('image', 'restore', 'toy'), tmp_path / 'calls')
    assert restore(0) == 0
    calls = (tmp_path / 'calls').read_text().split()
    renames = [number for number, name in enumerate(calls, 1) if name in ('rename', 'replace')]
    image = renames[1]  # the first one is of the lock
    for number in sorted({*renames, *range(image, len(calls), 8)}):
        old = image_of(toy)['sha256']
        assert restore(number) == -signal.SIGKILL
        new, recorded = toys.sha256(made), image_of(toy)['sha256']
        now = toys.sha256(toy.sif) if toy.sif.exists() else None
        assert recorded in (old, new) and (now == new if recorded == new else now in (None, new)), number
        code, _, err = easysif('image', 'restore', 'toy')
        assert code == 0, (number, err)
        code, _, err = easysif('verify', 'toy')
        assert (code, toys.sha256(toy.sif), image_of(toy)['sha256']) == (0, new, new), (number, err)
        assert "es_image='sha256:%s'" % new in (toy.root / 'easysif' / 'module.sh').read_text(), number
        assert str(toy.sif.stat().st_size) in (toy.root / 'easysif' / 'module.lua').read_text(), number
        assert os.listdir(toy.root.parent) == ['1'] and os.listdir(toy.modulefile.parent) == ['1.lua'], number


def killed_at(number, function, calls):
    """Call a function in a process that is killed when it is about to make a change; return its status (int).

    :param number: of the change, 0 for none (int)
    :param calls: file that takes the names of all changes (Path)
    """
    process = os.fork()
    if not process:
        seen = []

        def counted(name, real):
            def call(*args, **kwargs):
                seen.append(name)
                if len(seen) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)
            return call
        for name in CALLS:
            setattr(os, name, counted(name, getattr(os, name)))
        try:
            code = function()[0]
            calls.write_text(' '.join(seen))
            os._exit(code)
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_what_is_written_while_the_disk_is_full_is_told(easysif, toy, store, monkeypatch):
    (store / 'toy.sif').write_bytes(toy.sif.read_bytes())
    toy.sif.unlink()

    class Disk:
        f_bavail, f_bfree, f_frsize = 0, 0, 512
    monkeypatch.setattr(os, 'statvfs', lambda path: Disk)
    monkeypatch.setattr('easysif.images.place._reflink', lambda *_: False)
    code, _, err = easysif('image', 'restore', 'toy')
    assert code == 1 and '%s/toy.sif: not enough space for the image in ' % store in err and not toy.sif.exists()
