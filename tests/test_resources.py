# SPDX-License-Identifier: GPL-2.0-only
"""How many processors we may use, and what mksquashfs is told."""

import os
import subprocess
import sys

import pytest

from easysif import resources

MANY = set(range(64))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 64 processors: a function that lays out its cgroup files and returns its /proc/self (str)."""
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: MANY)

    def write(cgroup, mountinfo, files):
        proc = tmp_path / 'proc'
        proc.mkdir()
        (proc / 'cgroup').write_text(cgroup)
        (proc / 'mountinfo').write_text(mountinfo.replace('MNT', str(tmp_path).replace(' ', '\\040')))
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(proc)
    return write


V2 = '30 23 0:26 / MNT/cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n'
V1 = ('32 31 0:29 / MNT/cg/cpuset rw - cgroup cgroup rw,cpuset\n'
      '33 31 0:30 / MNT/cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n')


@pytest.mark.parametrize('cgroup, mountinfo, files, count', [
    ('0::/job\n', V2, {'cg/job/cpu.max': '400000 100000\n'}, 4),
    ('0::/job\n', V2, {'cg/job/cpu.max': '150000 100000\n'}, 2),
    ('0::/job\n', V2, {'cg/job/cpu.max': 'max 100000\n'}, 64),
    ('0::/job/step\n', V2, {'cg/job/cpu.max': '300000 100000\n', 'cg/job/step/cpu.max': 'max 100000\n'}, 3),
    ('0::/job/step\n', V2, {'cg/job/cpu.max': '800000 100000\n', 'cg/job/step/cpu.max': '200000 100000\n'}, 2),
    ('0::/\n', V2, {'cg/cpu.max': '100000 100000\n'}, 1),
    ('0::/\n', V2, {}, 64),
    ('0::/\n', V2, {'cg/cpu.max': '1000 100000\n'}, 1),
    ('3:cpu,cpuacct:/job\n2:cpuset:/\n', V1,
     {'cg/cpu,cpuacct/job/cpu.cfs_quota_us': '500000\n', 'cg/cpu,cpuacct/job/cpu.cfs_period_us': '100000\n'}, 5),
    ('3:cpu,cpuacct:/job\n', V1,
     {'cg/cpu,cpuacct/job/cpu.cfs_quota_us': '-1\n', 'cg/cpu,cpuacct/job/cpu.cfs_period_us': '100000\n'}, 64),
    # inside a container the mount shows a part of the tree, whose path outside is in the fourth field
    ('0::/docker/abc\n', V2.replace(' / MNT', ' /docker/abc MNT'), {'cg/cpu.max': '200000 100000\n'}, 2),
    # and with no part of ours in it, its root counts
    ('0::/elsewhere\n', V2.replace(' / MNT', ' /docker/abc MNT'), {'cg/cpu.max': '200000 100000\n'}, 2),
    ('', '', {}, 64),
])
def test_a_quota_counts_like_processors(machine, cgroup, mountinfo, files, count):
    assert resources.processors(machine(cgroup, mountinfo, files)) == count


def test_a_mount_point_may_hold_blanks(machine, tmp_path):
    (tmp_path / 'a b').mkdir()
    others = ''.join('36 35 0:1 / /home/x/a%sb rw - fuse.sshfs x rw\n' % blank for blank in '\r\v\x85\u2028\u3000')
    proc = machine('0::/\n', others + V2.replace('MNT/cg', 'MNT/a\\040b'), {'a b/cpu.max': '200000 100000\n'})
    assert resources.processors(proc) == 2


def test_the_affinity_mask_counts():
    code = 'import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); ' \
           'from easysif.resources import processors; print(processors())'
    library = os.path.dirname(os.path.dirname(resources.__file__))
    found = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, check=True,
                           env=dict(os.environ, PYTHONPATH=library))
    assert found.stdout == '1\n'


@pytest.mark.parametrize('squashfs, options', [
    ({'compressor': 'zstd', 'level': 3, 'block': '256K'},
     '-comp zstd -Xcompression-level 3 -b 256K -mem 64M -processors 2'),
    ({'compressor': 'gzip', 'level': 9, 'block': '128K'},
     '-comp gzip -Xcompression-level 9 -b 128K -mem 64M -processors 2'),
    ({'compressor': 'lz4', 'level': 3, 'block': '1M'}, '-comp lz4 -b 1M -mem 64M -processors 2'),
    ({'compressor': 'xz', 'level': 3, 'block': '1M'}, '-comp xz -b 1M -mem 64M -processors 2'),
])
def test_mksquashfs_gets_the_level_where_the_compressor_has_one(monkeypatch, tmp_path, squashfs, options):
    monkeypatch.setattr(resources, 'processors', lambda: 2)
    assert resources.mksquashfs_options(squashfs) == options.split()
    subprocess.run(['mksquashfs', __file__, tmp_path / 'x', '-quiet', '-no-progress'] + options.split(), check=True)


@pytest.mark.parametrize('block, count', [('128K', '32'), ('256K', '32'), ('512K', '16'), ('1M', '8')])
def test_mksquashfs_gets_no_more_processors_than_its_memory_is_good_for(monkeypatch, block, count):
    monkeypatch.setattr(resources, 'processors', lambda: 256)
    assert resources.mksquashfs_options({'compressor': 'lz4', 'block': block})[-2:] == ['-processors', count]
