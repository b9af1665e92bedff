# SPDX-License-Identifier: GPL-2.0-only
"""easysif site list, show, check and new: what a node has of what a site binds, and what an image sees of it."""

import json
import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

import harness
from easysif import compressors, site
from easysif.node import draft, host, inside, mpi
from easysif.node.finding import NOTE, OK, PROBLEM, Finding


@pytest.fixture
def my(tmp_path, monkeypatch):
    """A function that writes a site file of the text given, and has it hold here (path as str)."""
    def write(text, name='my.yaml'):
        (tmp_path / name).write_text(text)
        monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / name))
        return str(tmp_path / name)
    return write


def test_list_names_the_profiles_and_which_holds(easysif, monkeypatch, my):
    monkeypatch.setattr(site.socket, 'gethostname', lambda: 'somewhere')
    code, out, err = easysif('site', 'list')
    lines = out.splitlines()
    assert (code, err) == (0, '') and [line[3:13].strip() for line in lines[1:-1]] == list(site.shipped())
    assert [line[0] for line in lines[1:-1]] == ['*', ' ', ' ', ' ', ' '] and 'uan0*|nid*' in out
    assert lines[-1] == '* holds here (default)'
    path = my('runtime: auto')
    rows = json.loads(easysif('site', 'list', '--json')[1])
    assert rows[-1] == {'name': 'my', 'here': True, 'hosts': None, 'path': path} and not rows[0]['here']
    assert rows[0] == {'name': 'default', 'here': False, 'hosts': None, 'path': site.shipped()['default']}


def test_show_tells_what_a_profile_says_without_ones_own_settings(easysif, monkeypatch, my):
    monkeypatch.setenv('EASYSIF_BINDS', '[/mine]')
    monkeypatch.setenv('EASYSIF_OVERLAYS', '/mine')
    code, out, err = easysif('site', 'show', 'lumi')
    assert (code, err) == (0, '') and '/mine' not in out
    assert 'provides.interconnect.container_env.NCCL_SOCKET_IFNAME  hsn  (site lumi)\n' in out
    found = json.loads(easysif('site', 'show', my('binds: [/x]'), '--json')[1])
    assert found['name']['value'] == 'my' and found['binds'] == {'value': ['/x'], 'from': ['site my'], 'forced': False}
    assert easysif('site', 'show', 'lumu')[2] == (
        "error: site: there is no site 'lumu'\n  sites  default, jureca, lumi, perlmutter, uva\n"
        "hint: did you mean 'lumi'?\n")


def test_check_says_of_every_bind_whether_it_is_there(easysif, my, tmp_path):
    (tmp_path / 'lib').mkdir()
    (tmp_path / 'lib' / 'libcxi.so.1').touch()
    my('binds: [/usr, /nosuch]\nprovides:\n  net: {binds: ["%s/lib/libcxi.so*"], library_path: ["/no*such"]}\n'
       '  mpi: {binds: ["/opt/nosuch*", /nosuch2]}\nforce: {binds: [/etc/hosts]}' % tmp_path)
    code, out, err = easysif('site', 'check', '--json')
    found = json.loads(out)
    told = [(one['state'], one['topic'], one['what']) for one in found['findings']]
    assert (code, err) == (1, '') and found['site'] == 'my' and found['host'] == socket.gethostname()
    ours = ('binds', 'force', 'provides.net', 'provides.mpi')
    assert [one for one in told if one[1].startswith(ours)] == [
        ('problem', 'binds', '/nosuch is not on this node'),
        ('ok', 'force.binds', '1 of 1 on this node'), ('ok', 'provides.net', '1 of 1 on this node'),
        ('problem', 'provides.mpi', '/opt/nosuch* is not on this node'),
        ('problem', 'provides.mpi', '/nosuch2 is not on this node'),
        ('note', 'provides.net', 'library_path: nothing fits /no*such here')]
    assert {'runtime', 'fuse', '/dev/shm', 'squashfs', 'modules', 'scheduler', 'gpu'} <= {one[1] for one in told}
    assert found['problems'] == len([one for one in told if one[0] == 'problem'])
    code, out, _ = easysif('site', 'check', '--need', 'net')
    assert '/nosuch2' not in out and '/nosuch is not' in out and 'provides.net  1 of 1' in out and code == 1
    assert 'hint: correct binds in the site file' in out and out.endswith('\n1 problem\n')


def test_check_of_what_is_not_there_is_an_error(easysif, my):
    my('provides: {net: }')
    assert easysif('site', 'check', '--need', 'nets')[2] == (
        "error: nets: is no need that site 'my' provides\n"
        '  provided  amd-gpu, ca-certificates, net, nvidia-gpu, x11\nhint: easysif site check --need net\n')
    assert easysif('site', 'check', '--image', 'no.sif')[2] == (
        'error: no.sif: there is no such image\nhint: easysif site check --image FILE.sif\n')


@pytest.mark.parametrize('version, state', [('7.8.1', PROBLEM), ('8.7.49', OK)])
def test_the_module_system_is_told(monkeypatch, version, state):
    monkeypatch.setenv('LMOD_VERSION', version)
    monkeypatch.setenv('LMOD_DIR', '/lmod')
    assert [(one.state, one.what) for one in host.modules()] == [(state, 'Lmod %s  /lmod' % version)]
    monkeypatch.delenv('LMOD_VERSION')
    monkeypatch.setenv('MODULESHOME', '/em')
    assert next(host.modules()) == Finding(NOTE, 'modules', 'Environment Modules, not Lmod  /em')
    monkeypatch.delenv('MODULESHOME')
    assert next(host.modules()).what == 'this shell has no command module'


@pytest.mark.parametrize('name, script, what', [
    ('srun', 'echo slurm 22.05.8', 'Slurm  BIN/srun  (slurm 22.05.8)'),
    ('bsub', 'echo LSF 10 >&2', 'LSF  BIN/bsub  (LSF 10)'),
    ('qstat', 'exit 1', 'PBS  BIN/qstat  (does not tell its version)'),
    (None, '', 'none on PATH: no srun, qstat, bsub')])
def test_the_scheduler_is_told(monkeypatch, tmp_path, name, script, what):
    monkeypatch.setenv('PATH', str(tmp_path))
    if name:
        (tmp_path / name).write_text('#!/bin/sh\n%s\n' % script)
        (tmp_path / name).chmod(0o755)
    found, = host.scheduler()
    assert found.what == what.replace('BIN', str(tmp_path)) and (found.state == NOTE) == (name in ('qstat', None))


def test_what_a_machine_lacks_is_a_problem_with_a_hint(monkeypatch, tmp_path):
    here = site.resolve({'HOME': str(tmp_path)}).site
    monkeypatch.setenv('PATH', str(tmp_path))
    assert [(one.state, one.what) for one in host.container_runtime(here)] == [
        (PROBLEM, 'no container runtime: neither apptainer nor singularity is on PATH')]
    assert [(one.state, one.hint) for one in host.squashfs(here)] == [(PROBLEM, 'ask for the package squashfs-tools')]
    monkeypatch.undo()
    monkeypatch.setattr(compressors, 'packable', lambda: ['gzip'])
    assert [(one.state, one.hint) for one in host.squashfs(here)] == [
        (PROBLEM, 'squashfs: {compressor: gzip} in the site file')]
    monkeypatch.setattr(host.files, 'free_space', lambda path: 1 << 20)
    assert next(host.shared_memory()).what == '1.0 MiB free' and next(host.shared_memory()).state == NOTE
    monkeypatch.setattr(host.tempfile, 'TemporaryFile', lambda dir: open('/nosuch/x'))
    assert next(host.shared_memory()).what == 'nothing can be written there (No such file or directory)'


def test_what_cannot_be_read_or_started_is_left_out(monkeypatch, tmp_path):
    for name, path in (('srun', tmp_path / 'srun'), ('apptainer', tmp_path / 'bin' / 'apptainer')):
        path.parent.mkdir(exist_ok=True)
        path.write_text('#!/nowhere/sh\n')
        path.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert [(one.state, one.what) for one in host.scheduler()] == [
        (NOTE, 'Slurm  %s/srun  (does not tell its version)' % tmp_path)]
    starter = tmp_path / 'libexec' / 'apptainer' / 'bin' / 'starter-suid'
    starter.parent.mkdir(parents=True)
    starter.symlink_to('gone')
    found = SimpleNamespace(name='apptainer', version=(1, 4), path=str(tmp_path / 'bin' / 'apptainer'))
    monkeypatch.setattr(host.runtime, 'find', lambda site: found)
    assert [one.topic for one in host.container_runtime(None)] == ['runtime', 'namespaces']
    closed = tmp_path / 'closed'
    closed.mkdir(0)
    assert list(inside._libraries({'/host': '%s:/host' % closed}, ['/host'])) == []


def test_devices_of_gpus_that_cannot_be_opened_are_a_problem(monkeypatch, tmp_path):
    device, driver = tmp_path / 'nvidia0', tmp_path / 'version'
    monkeypatch.setattr(host, 'GPUS', {'nvidia-gpu': ('NVIDIA', (str(tmp_path / 'nvidia[0-9]'),), str(driver))})
    driver.write_text('NVRM version: 550.1\nmore')
    assert next(host.gpus()) == Finding(NOTE, 'gpu', 'no NVIDIA GPU on this node, though its driver is there')
    device.touch()
    assert next(host.gpus()) == Finding(OK, 'gpu', 'NVIDIA: %s  NVRM version: 550.1' % device)
    monkeypatch.setattr(host.os, 'access', lambda path, mode: False)
    assert (next(host.gpus()).state, next(host.gpus()).hint) == (PROBLEM, 'ask for access to %s' % device)


SAID = """\
easysif-check library /host/libmpi.so.12
\tlinux-vdso.so.1 (0x0)
\tlibcxi.so.1 => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)
/host/libmpi.so.12: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /host/libmpi.so.12)
/host/libmpi.so.12: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by /host/libmpi.so.12)
symbol lookup error: /host/libmpi.so.12: undefined symbol: stat (/host/libmpi.so.12)
easysif-check library /host/libx.so
undefined symbol: cxil_open_device\t(/host/libx.so)
symbol lookup error: /host/libx.so: undefined symbol: foo, version V1 (/host/libx.so)
undefined symbol: lua_gettop\t(/host/libx.so)
easysif-check mpi /usr/lib/libmpi.so.40
easysif-check mpi /usr/lib/libmpi.so.40.30.4
easysif-check mpi /host/libmpi.so.12
easysif-check shm yes
easysif-check done
"""


def test_what_the_loader_says_of_a_library_is_named(monkeypatch):
    monkeypatch.setattr(inside.host_libraries, 'unresolved', lambda path: {'/lib/libx.so': {'lua_gettop'}}[path])
    libraries = {'/host/libmpi.so.12': '/lib/libmpi.so.12', '/host/libx.so': '/lib/libx.so'}
    seen = inside.Look(SAID, [], libraries, ['/host'])
    assert [(one.what, one.hint) for one in inside._of_libraries(SAID, seen.wrong(), 2)] == [
        ('/host/libmpi.so.12 needs libcxi.so.1, which is not inside', 'bind what it needs as well'),
        ('/host/libmpi.so.12 needs GLIBC_2.34, GLIBC_2.38, which the image does not have',
         'use an image whose C library is not older than that of the host'),
        ('/host/libx.so has unresolved symbols: cxil_open_device, foo', 'bind what it needs as well')]
    assert seen.own_mpi() == ['libmpi.so.40']
    assert [one.state for one in inside._of_libraries('easysif-check library /x\neasysif-check done', [], 1)] == [OK]


@pytest.mark.parametrize('loader, expected', [
    ('none', Finding(NOTE, 'libraries', 'the image has no ldd and no loader that is known, so that libraries of the '
                     'host cannot be tried')),
    ('musl', Finding(PROBLEM, 'libraries', 'the C library of the image is musl, which loads no library of the host',
                     'use an image with the GNU C library'))])
def test_an_image_whose_loader_cannot_be_asked_is_told(loader, expected):
    text = 'easysif-check loader %s\neasysif-check done\n' % loader
    assert list(inside._of_libraries(text, [], 2)) == [expected]


def test_the_mpi_of_the_host_is_held_against_that_of_the_image():
    def told(own, brought):
        return [(one.state, one.what, one.hint) for one in mpi.check(own.split(), brought.split())]
    assert told('libmpi.so.40', '') == []
    assert told('', 'libmpi.so.12 libmpi_abi.so.0') == [
        (NOTE, 'no MPI library in the usual places of the image; the host brings libmpi.so.12 (MPICH), libmpi_abi.so.0 '
         '(the standard interface)', None)]
    assert told('libmpi.so.40', 'libmpi.so.12') == [
        (PROBLEM, 'the image has libmpi.so.40 (Open MPI), the host brings libmpi.so.12 (MPICH)',
         'use an image with MPICH')]
    same = 'give it that name, too, in the site file: libraries: [/path/to/libmpi.so.12:libmpich.so.12]'
    assert told('libmpich.so.12', 'libmpi.so.12') == [
        (PROBLEM, 'the image has libmpich.so.12 (MPICH), the host brings libmpi.so.12 (MPICH)', same)]
    assert told('libmpi.so.12 libmpi.so.40 libmpich.so.12', 'libmpi.so.12') == [
        (OK, "the host's libmpi.so.12 (MPICH) takes the place of the image's", None),
        (NOTE, "programs that ask for libmpi.so.40 get the image's own", 'use an image with MPICH'),
        (NOTE, "programs that ask for libmpich.so.12 get the image's own", same)]
    assert mpi.names(['/x/libmpi.so', '/x/libmpi.so.12.1.1', '/x/libmpi_mpifh.so.40', '/x/libmpi.so.12']) == [
        'libmpi.so.12']


def test_links_that_lead_out_of_what_is_bound_are_named(easysif, my, tmp_path):
    """As Debian's Lua has them; those within it, to what is bound elsewhere and to nowhere are well."""
    lua, lib = tmp_path / 'lua' / '5.3', tmp_path / 'lib'
    lua.mkdir(parents=True)
    lib.mkdir()
    for name in ('posix.so.1', 'lfs.so.1'):
        (lib / name).touch()
    for link, target in (('posix.so', '../../lib/posix.so.1'), ('lfs.so', '../../lib/lfs.so.1'), ('p.so', 'posix.so'),
                         ('gone.so', 'nowhere'), ('abs.so', str(lib / 'posix.so.1'))):
        (lua / link).symlink_to(target)

    def told(*binds):
        my('provides: {host-modules: {binds: [%s]}}' % ', '.join('"%s/%s"' % (tmp_path, bind) for bind in binds))
        found = json.loads(easysif('site', 'check', '--need', 'host-modules', '--json')[1])['findings']
        return sorted((one['what'].replace(str(tmp_path), ''), one['hint'].replace(str(tmp_path), ''))
                      for one in found if 'leads to' in one['what'])
    hint = 'add /lib/%s.so.1 to provides.host-modules.binds, unless the image has it'
    assert told('lua', 'lib/lfs*') == [
        ('/lua/5.3/abs.so leads to /lib/posix.so.1, which is not bound', hint % 'posix'),
        ('/lua/5.3/posix.so leads to /lib/posix.so.1, which is not bound', hint % 'posix')]
    assert told('lua', 'lib') == [] and told('lua/5.3/posix.so') == []


def test_gpus_that_are_not_seen_inside_are_a_problem(monkeypatch):
    monkeypatch.setattr(inside, 'host_devices', lambda need: ['/dev/nvidia0', '/dev/nvidiactl'])
    seen = ''.join('easysif-check device %s\n' % path for path in ('/dev/nvidia0', '/dev/nvidiactl'))
    library = 'easysif-check device /.singularity.d/libs/libcuda.so.1\n'

    def told(text):
        return [(one.state, one.topic, one.what) for one in inside._of_devices(text, ['nvidia-gpu', 'mpi'])]
    assert told('') == [(PROBLEM, 'gpu inside', '/dev/nvidia0, /dev/nvidiactl are not seen inside'),
                        (PROBLEM, '/dev/shm inside', 'cannot be written')]
    assert told(seen)[0] == (PROBLEM, 'gpu inside', 'NVIDIA: no libcuda.so.1 inside')
    assert told(seen + library + 'easysif-check shm yes') == [
        (OK, 'gpu inside', 'NVIDIA: /dev/nvidia0, /dev/nvidiactl, /.singularity.d/libs/libcuda.so.1'),
        (OK, '/dev/shm inside', 'can be written')]
    monkeypatch.setattr(inside, 'host_devices', lambda need: [])
    assert told('')[0] == (NOTE, 'gpu inside', 'no NVIDIA GPU on this node to be seen')


def test_gpus_of_a_node_that_a_job_may_not_use_are_told(monkeypatch, tmp_path):
    """A scheduler keeps devices from a job although their permissions are for all; only opening them tells."""
    monkeypatch.setattr(host, 'GPUS', {
        'nvidia-gpu': ('NVIDIA', ('%s/nvidia[0-9]*' % tmp_path, '%s/nvidiactl' % tmp_path), '/nosuch'),
        'amd-gpu': ('AMD', ('%s/kfd' % tmp_path, '%s/render*' % tmp_path), '/nosuch')})
    for name in host.VISIBLE:
        monkeypatch.delenv(name, raising=False)

    def told():
        return [(one.state, one.what.replace(str(tmp_path), '/dev')) for one in host.gpus()]
    for name in ('nvidiactl', 'renderD128'):  # without the driver's GPU, and of a GPU of somebody else
        (tmp_path / name).touch()
    none = [(NOTE, 'no NVIDIA GPU on this node'), (NOTE, 'no AMD GPU on this node')]
    assert told() == none and not host.devices('amd-gpu') and not host.can_use('nvidia-gpu')
    for name in ('nvidia0', 'nvidia1'):
        (tmp_path / name).touch()
    assert told() == [(OK, 'NVIDIA: /dev/nvidia0, /dev/nvidia1, /dev/nvidiactl  no driver told'), none[1]]
    kept, real = [str(tmp_path / 'nvidia0')], os.open

    def keeping(path, *args, **options):
        if path in kept:
            raise PermissionError(1, 'Operation not permitted', path)
        return real(path, *args, **options)
    monkeypatch.setattr(host.os, 'open', keeping)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    assert told()[0] == (OK, 'NVIDIA: /dev/nvidia0, /dev/nvidia1, /dev/nvidiactl  no driver told  not for this job: '
                         '/dev/nvidia0  CUDA_VISIBLE_DEVICES=0')
    assert host.can_use('nvidia-gpu')
    kept.append(str(tmp_path / 'nvidia1'))
    assert not host.can_use('nvidia-gpu') and not host.can_use('amd-gpu')
    (tmp_path / 'kfd').touch()  # one file for all GPUs of AMD, and another one for each
    assert host.can_use('amd-gpu')
    kept.append(str(tmp_path / 'renderD128'))
    assert not host.can_use('amd-gpu')


@pytest.mark.parametrize('shell', ['sh', 'bash', 'busybox sh'])
def test_looking_inside_makes_no_file_that_could_stay(tmp_path, shell):
    """/dev/shm is that of the host: the last change to it is older than the look, which cannot leave anything."""
    place, helper = tmp_path / 'shm', tmp_path / 'helper'
    helper.write_text(Path(inside.HELPER).read_text().replace('/dev/shm', str(place)))
    for mode, said in ((0o755, True), (0o555, False), (None, False)):
        if mode is None:
            place.rmdir()
        else:
            place.mkdir(exist_ok=True)
            place.chmod(mode)
            os.utime(place, ns=(1, 1))
        told = harness.run([*shell.split(), helper]).stdout
        assert told.endswith('\neasysif-check done\n') and ('easysif-check shm yes\n' in told) == said
        assert mode is None or place.stat().st_mtime_ns == 1


def test_a_new_profile_is_valid_and_has_what_is_found(easysif, tmp_path, monkeypatch):
    code, out, err = easysif('site', 'new', 'our "$x\n.yaml')
    path = tmp_path / 'our "$x\n.yaml'
    assert json.loads(easysif('site', 'new', 'other.yaml', '--json')[1]) == {'written': str(tmp_path / 'other.yaml')}
    assert (code, err) == (0, '') and 'easysif site check' in out and out.count('\n') == 2
    assert site.profile(str(path)).site.provides['scratch'] == site.Need((), {})
    assert site.read(str(path))['match']['hostname']
    assert easysif('site', 'new', str(path))[2].endswith(
        ': is there already\nhint: easysif site new OTHER.yaml; or edit it\n')
    assert 'cannot be written (No such file or directory)' in easysif('site', 'new', 'no/such.yaml')[2]
    monkeypatch.setattr(draft, '_mounts', lambda: {'/scratch', '/a b"'})
    monkeypatch.setattr(draft, 'GPUS', {'amd-gpu': ('AMD', ('/dev/null',), '/nosuch'),
                                        'nvidia-gpu': ('NVIDIA', ('/nosuch', '/dev/null'), '/nosuch')})
    monkeypatch.setattr(draft, 'NEEDS', {'slurm': ['/usr/bin/env', '/usr/bin/no*such', '/usr/b*']})
    monkeypatch.setattr(draft, 'MPI', ('/nosuch/libmpi.so.12', str(tmp_path / 'libmpi.so.?'), '/usr/bin/env'))
    (tmp_path / 'libmpi.so.40').touch()
    (tmp_path / 'libmpi.so.4').touch()
    (tmp_path / 'x.yaml').write_text(draft.profile('x'))
    found = site.profile(str(tmp_path / 'x.yaml')).site
    assert found.binds == ('/a b"', '/scratch') and found.provides['slurm'].binds == ('/usr/bin/env', '/usr/b*')
    assert {'amd-gpu', 'nvidia-gpu'} & set(site.read(str(tmp_path / 'x.yaml'))['provides']) == {'amd-gpu'}
    assert found.provides['mpi'].libraries == (str(tmp_path / 'libmpi.so.?'),)
    monkeypatch.setattr(draft, 'MPI', ())
    assert 'mpi' not in draft.profile('x')


@pytest.mark.e2e
def test_libraries_of_the_host_are_tried_inside_an_image(easysif, my, images):
    """Slurm's plugin for munge, without the library of munge and with it."""
    image, libraries = str(images.sif('venv')), '/usr/lib/x86_64-linux-gnu'
    plugin = '"%s/slurm-wlm/auth_mun[g]e.so:/host"' % libraries

    def told(*entries):
        my('provides: {slurm: {binds: [%s], library_path: [/host]}}' % ', '.join(entries))
        code, out, err = easysif('site', 'check', '--image', image, '--need', 'slurm', '--json')
        found = json.loads(out)['findings']
        assert err == '' and {'/dev/shm inside'} <= {one['topic'] for one in found if one['state'] == OK}
        return [(one['state'], one['what']) for one in found if one['topic'] == 'libraries']
    alone = told(plugin)
    assert alone[0] == (PROBLEM, '/host/auth_munge.so needs libmunge.so.2, which is not inside')
    assert re.fullmatch('/host/auth_munge.so has unresolved symbols: (munge_[a-z_]+(, )?)+', alone[1][1]), alone
    assert len(alone) == 2, 'those that only slurmd has do not count'
    assert told(plugin, '"%s/libmunge.so.2*:/host"' % libraries) == [
        (OK, '3 of the host, all that they need is found inside')]
