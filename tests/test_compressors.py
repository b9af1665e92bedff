# SPDX-License-Identifier: GPL-2.0-only
"""Which squashfs files the container runtime can mount: found out once, kept for as long as the runtime is the same."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import pytest

import harness
import toys
from easysif import compressors, holder, runtime
from made_up import MadeUp

#: a runtime that counts its starts, and mounts no lzo and no xz; a test may let it start nothing at all
RUNTIME = '''#!/bin/sh
[ "$1" = --version ] && echo "apptainer version 1.2.3" && exit
echo "$*" >>"%(log)s"
[ ! -e "%(broken)s" ] || exit 255
case "$*" in *lzo.squashfs*|*xz.squashfs*) echo "FATAL: no such compressor" >&2; exit 255 ;; esac
'''


@pytest.fixture
def place(tmp_path, prefix):
    """A prefix with an image, and a runtime that mounts not all: ``refused()``, ``starts()``, ``site``, ``path``."""
    place = SimpleNamespace(runtime=tmp_path / 'apptainer', broken=tmp_path / 'broken', log=tmp_path / 'log')
    place.runtime.write_text(RUNTIME % {'log': place.log, 'broken': place.broken})
    place.runtime.chmod(0o755)
    image = prefix / 'software' / 'toy' / '1' / 'toy.sif'
    image.parent.mkdir(parents=True)
    image.touch()
    place.site, place.path = SimpleNamespace(runtime=str(place.runtime)), prefix / 'easysif' / 'compressors.json'
    place.refused = lambda: compressors.refused(str(prefix), place.site)
    place.starts = lambda: place.log.read_text().count('exec') if place.log.exists() else 0
    return place


def test_it_is_found_out_once(place):
    assert place.refused() == ('lzo', 'xz', 'lzma')
    assert place.starts() == 10  # all at once, none, each alone, none, and once more those that were refused
    assert place.refused() == ('lzo', 'xz', 'lzma') and place.starts() == 10
    known = json.loads(place.path.read_text())
    assert known == {'schema': 1, 'runtime': str(place.runtime), 'version': '1.2.3', 'refused': ['lzo', 'xz', 'lzma'],
                     'changed': place.runtime.stat().st_mtime_ns}


def test_what_fails_once_is_not_refused(place, tmp_path):
    place.runtime.write_text(place.runtime.read_text() + 'case "$*" in *zstd.squashfs*)\n'
                             '  [ -e "%s" ] || { touch "%s"; exit 255; } ;;\nesac\n' % ((tmp_path / 'once',) * 2))
    (place.path.parents[1] / 'software' / 'toy' / '1' / 'toy.sif').touch()
    assert place.refused() == ('lzo', 'xz', 'lzma') and (tmp_path / 'once').exists()


def test_another_runtime_is_asked_anew(place):
    place.refused()
    place.runtime.write_text(place.runtime.read_text().replace('*lzo.squashfs*|', ''))
    os.utime(place.runtime, (1, 1))
    assert place.refused() == ('xz', 'lzma')
    place.path.write_text('{')
    assert place.refused() == ('xz', 'lzma')


def test_where_nothing_can_be_found_out_nothing_is_refused(place, prefix, monkeypatch, tmp_path):
    place.broken.touch()
    assert place.refused() == () and not place.path.exists()  # a container that never starts says nothing
    place.broken.unlink()
    monkeypatch.setenv('PATH', str(tmp_path))
    assert place.refused() == () and not place.path.exists()  # there is no mksquashfs
    place.site.runtime = 'no-such-runtime'
    assert place.refused() == ()


def test_a_prefix_that_is_read_only_is_no_error(place):
    place.path.parent.mkdir()
    place.path.parent.chmod(0o555)
    try:
        assert place.refused() == ('lzo', 'xz', 'lzma') and not place.path.exists()
    finally:
        place.path.parent.chmod(0o755)


def test_of_one_it_is_found_out_with_an_image_that_is_not_installed_yet(place, tmp_path):
    found, image = runtime.find(place.site), str(tmp_path / 'x.sif')
    assert [compressors.refused_of(name, image, found) for name in ('xz', 'zstd', 'gzip')] == [('xz',), (), ()]
    assert place.starts() == 3  # xz, none, zstd
    place.broken.touch()
    assert compressors.refused_of('xz', image, found) == ()


#: is killed while a container starts
KILLED = '''
import os, sys
from types import SimpleNamespace
from easysif import compressors, runtime
os.environ['VICTIM'] = str(os.getpid())
compressors.refused_of('xz', 'x.sif', runtime.find(SimpleNamespace(runtime=sys.argv[1])))
'''


def test_what_a_killed_call_left_goes_with_the_next_and_what_is_in_use_stays(place, tmp_path, monkeypatch):
    temporary, text = tmp_path / 'tmp [x]', place.runtime.read_text()
    for name in ('used', 'unknown'):
        (temporary / (compressors.PREFIX + name)).mkdir(parents=True)
    (temporary / (compressors.PREFIX + 'used') / holder.NAME).write_text(holder.write('x', ''))
    place.runtime.write_text(text.replace('echo "$*"', 'kill -9 "$VICTIM"; echo "$*"'))
    done = subprocess.run([sys.executable, '-c', KILLED, place.runtime],
                          env=dict(os.environ, TMPDIR=str(temporary), PYTHONPATH=os.pathsep.join(sys.path)))
    assert done.returncode == -signal.SIGKILL and len(os.listdir(temporary)) == 3
    place.runtime.write_text(text)
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    assert place.refused() == ('lzo', 'xz', 'lzma')
    assert set(os.listdir(temporary)) == {compressors.PREFIX + 'used', compressors.PREFIX + 'unknown'}


def compressor(path):
    """The number of the compressor of a squashfs file (int): gzip is 1, zstd 6."""
    return path.read_bytes()[20]


def test_users_pack_with_what_the_runtime_can_mount(tmp_path, easysif, monkeypatch):
    """Where the site wants zstd, as by default, and has a runtime without it, as SingularityCE 4.1 is."""
    toy, fake = MadeUp(tmp_path / 'p'), tmp_path / 'apptainer'
    fake.write_text(RUNTIME.replace('xz.squashfs', 'zstd.squashfs') % dict.fromkeys(('log', 'broken'), tmp_path / 'x'))
    fake.chmod(0o755)
    (tmp_path / 'x').touch()
    fake.write_text(fake.read_text().replace('[ ! -e', '[ -e'))
    monkeypatch.setenv('EASYSIF_RUNTIME', str(fake))
    toy.add_package()
    assert easysif('site', 'apply', '--prefix', str(toy.prefix))[0] == 0
    known = (toy.prefix / 'easysif' / 'site.sh').read_text()
    assert "es_site_squashfs_compressor='gzip'\nes_site_squashfs_keep='1'\nes_site_squashfs_level='5'\n" in known
    packed = toy.overlay / 'user-software.squashfs'
    harness.run([toy.root / 'bin' / 'make-squashfs'], env=harness.user_environment(tmp_path / 'home'))
    assert compressor(packed) == 1
    packed.unlink()
    assert easysif('overlay', 'pack', 'toy', '--prefix', str(toy.prefix))[0] == 0 and compressor(packed) == 1
    monkeypatch.setenv('EASYSIF_SQUASHFS', '{compressor: xz}')
    packed.unlink()
    assert easysif('overlay', 'pack', 'toy', '--prefix', str(toy.prefix))[0] == 0 and compressor(packed) == 4


@pytest.mark.e2e
def test_what_the_real_runtime_mounts_is_written_for_modules_and_wrappers(eb, prefix, tmp_path, toy):
    eb(toys.recipe(tmp_path, commands=['fine']), '--sourcepath=%s' % toy.parent)
    refused = json.loads((prefix / 'easysif' / 'compressors.json').read_text())['refused']
    assert 'lzma' in refused and not {'gzip', 'zstd'} & set(refused)
    assert "es_site_refused_compressors='%s'\n" % ' '.join(refused) in (prefix / 'easysif' / 'site.sh').read_text()
    sif, squashfs = prefix / 'software' / 'toy' / '1.0' / 'toy.sif', tmp_path / 'x.squashfs'
    for name in compressors.NAMES + compressors.NEVER:
        if harness.run(['mksquashfs', __file__, squashfs, '-comp', name, '-noappend'], check=False).status == 0:
            result = harness.run(['apptainer', 'exec', '--bind', '%s:/mnt:image-src=/,ro' % squashfs, sif, 'true'],
                                 env=harness.user_environment(tmp_path / 'home'), check=False)
            assert (result.status != 0) is (name in refused), name
