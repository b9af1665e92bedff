# SPDX-License-Identifier: GPL-2.0-only
"""Software of the host inside images of other releases: MPI, Slurm, Lmod. With the profiles that the manual shows."""

import json
import re
import shutil

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e

#: what programs of the host have to have been linked with, to show that it is the image's
HELLO = '''#include <gnu/libc-version.h>
#include <math.h>
#include <stdio.h>
int main(int argc, char **argv) { printf("hello from the host, C library %s, %.0f\\n",
                                           gnu_get_libc_version(), cbrt(argc)); }
'''


def manuals(behind):
    """Return what a site provides in the example of the manual that comes behind a text (dict)."""
    text = (harness.CLONE / 'docs' / 'site-reference.md').read_text()
    return yaml.safe_load(re.search(re.escape(behind) + '.*?```yaml\n(.*?)```', text, re.S).group(1))['provides']


@pytest.fixture(scope='module')
def debian():
    """What a Debian host provides, with MPICH (dict)."""
    return manuals('of a Debian host\n')


@pytest.fixture(scope='module')
def openmpi(tmp_path_factory):
    """The site file of a Debian host that provides Open MPI instead (Path)."""
    site = tmp_path_factory.mktemp('openmpi') / 'openmpi.yaml'
    site.write_text(yaml.safe_dump({'provides': manuals('**Open MPI.**')}))
    return site


@pytest.fixture(scope='module')
def stack(tmp_path_factory):
    """A stack of software of the host: a module ``hello`` and its program (Path)."""
    stack = tmp_path_factory.mktemp('stack')
    (stack / 'hello/bin').mkdir(parents=True)
    (stack / 'modules/hello').mkdir(parents=True)
    (stack / 'modules/hello/1.0.lua').write_text('prepend_path("PATH", "%s/hello/bin")\n' % stack)
    (stack / 'hello.c').write_text(HELLO)
    harness.run(['cc', '-o', stack / 'hello/bin/hello', stack / 'hello.c', '-lm'])
    return stack


@pytest.fixture(scope='module')
def ring(tmp_path_factory, images, debian, stack):
    """Modules with an MPI program in an image of another Debian release (function that runs a script with them)."""
    directory = tmp_path_factory.mktemp('ring')
    debian['host-modules']['binds'] = [str(stack) if bind == '/opt/software' else bind
                                       for bind in debian['host-modules']['binds']]
    site = directory / 'debian.yaml'
    site.write_text(yaml.safe_dump({'provides': debian}))
    image = str(images.sif('mpich'))
    harness.run_eb([toys.recipe(directory, 'ring', image=image, commands=['ring'], needs=['mpi'],
                                sanity_check_commands=['ring']),
                    toys.recipe(directory, 'work', image=image, needs=['mpi', 'slurm', 'host-modules'])],
                   directory / 'p', directory / 'home', site)

    def run(script, **options):
        return harness.run_shell('module load ring work\n' + script, directory / 'p', directory / 'home', **options)
    run.prefix, run.site = directory / 'p', site
    return run


def ranks(text):
    """Return what the ring told: number of ranks, sum, version of the MPI, the library, of each job (list)."""
    found = re.findall(r'ranks: (\d+), sum: (\d+), (?:MPICH Version:\s+|Open MPI v)([^\s,]+).*?loaded: (\S+)', text,
                       re.S)
    return [(int(count), int(total), version, path) for count, total, version, path in found]


def hosts_version():
    """Return the version of the host's MPICH (str)."""
    return re.search(r'MPICH Version:\s+(\S+)', harness.run(['mpichversion']).stdout).group(1)


def test_two_ranks_in_images_are_one_job_by_the_mpi_of_the_host(ring, slurm):
    """Started by the host's mpirun, and by srun; the image has an MPICH of another version itself."""
    told = ring('''
singularity exec --env LD_LIBRARY_PATH= $SIF ring
timeout 60 mpirun.mpich -n 2 singularity exec $SIF ring
timeout 60 mpirun.mpich -n 2 ring
timeout 60 srun -n 2 --mpi=pmi2 ring''', env=slurm).stdout
    own, *hosts = ranks(told)
    assert own[:2] == (1, 1) and own[2] != hosts_version() and own[3].startswith('/usr/lib/'), told
    assert hosts == [(2, 3, hosts_version(), '/host/mpi/libmpich.so.12')] * 3, told


def test_the_open_mpi_of_the_host_does_the_same(eb, shell, easysif, images, openmpi, prefix, tmp_path, monkeypatch):
    """Which has other plugins than that of the image, and no leave to read the memory of another container. Also where
    the environment of the host stays outside: its launcher tells the ranks of each other by variables.
    """
    eb(toys.recipe(tmp_path, 'ring', image=str(images.sif('openmpi')), commands=['ring'], needs=['mpi'],
                   sanity_check_commands=['ring']), site=openmpi)
    two = 'module load ring; timeout 60 mpirun.openmpi --oversubscribe -n 2 ring'
    told = shell('%s; singularity exec $SIFRING ring' % two)
    version = re.search(r'\) (\S+)', harness.run(['mpirun.openmpi', '--version']).stdout).group(1)
    hosts, own = ranks(told.stdout)
    assert own[:2] == (1, 1) and own[2] != version and own[3].startswith('/usr/lib/'), told.output
    assert hosts == (2, 3, version, '/host/mpi/libmpi.so.40'), told.output
    assert not re.search('unable to open|help file', told.output), told.output
    monkeypatch.setenv('EASYSIF_SITE', str(openmpi))
    monkeypatch.setenv('EASYSIF_ISOLATION', '[cleanenv]')
    assert easysif('site', 'apply', '--prefix', str(prefix))[0] == 0
    told = shell(two)
    assert ranks(told.stdout) == [hosts], told.output


def test_the_clients_of_slurm_work_inside(ring, slurm):
    """munge included: who asks is known by it. A job that is submitted from inside runs on the host."""
    script = ring.prefix.parent / 'job'
    script.write_text('#!/bin/sh\n. /etc/os-release; echo "$SLURM_JOB_NAME on $VERSION_CODENAME"\n')
    told = ring('''
singularity exec $SIF bash -c '
    . /etc/os-release; echo "inside $VERSION_CODENAME"
    srun -n 2 sh -c ". /etc/os-release; echo rank \\$SLURM_PROCID on \\$VERSION_CODENAME"
    sbatch -W -J inside -o $1/out $1/job
    scontrol show job -o | grep -o "JobState=[A-Z]*" | sort -u
    squeue -h -t all -o %j:%u
' bash "$PWD"
cat out''', env=slurm, cwd=ring.prefix.parent).stdout
    host = harness.run(['sh', '-c', '. /etc/os-release; echo "$VERSION_CODENAME $(id -un)"']).stdout.split()
    assert 'inside trixie\n' in told and 'inside on %s\n' % host[0] in told, told
    assert sorted(re.findall('rank (.) on (.*)', told)) == [('0', host[0]), ('1', host[0])]
    assert 'JobState=COMPLETED' in told and 'inside:%s\n' % host[1] in told


def test_lmod_of_the_host_loads_modules_inside(ring, stack):
    """In a shell of the image, which has neither Lmod nor Lua, and in a wrapper's place; what is loaded runs there."""
    outside = harness.run([stack / 'hello/bin/hello']).stdout
    told = ring('''
module use %s/modules
echo 'type hello; module load hello; module -t list; hello x x x x x x x; module unload hello; type hello || true' |
    singularity shell $SIF
singularity exec $SIF bash -c 'module load hello/1.0 && hello; module load nosuch || echo "none: $?"'
''' % stack)
    inside = re.findall('hello from the host, C library (.*), (.*)', told.stdout)
    assert [result for _, result in inside] == ['2', '1'], told.output
    assert len({version for version, _ in inside}) == 1 and inside[0][0] not in outside
    assert told.stderr.count('type: hello: not found') == 2 and 'hello/1.0' in told.stderr
    assert 'none: 1' in told.stdout and '"nosuch"' in told.stderr


def test_an_image_that_does_not_go_with_the_hosts_mpi_is_refused(ring, openmpi, eb, images, easysif, tmp_path,
                                                                 monkeypatch):
    """One whose C library is too old, and one with another MPI; with what `easysif site check` says of them."""
    old, new = images.sif('bullseye'), images.sif('mpich')
    refused = eb(toys.recipe(tmp_path, image=str(old), needs=['mpi']), site=ring.site, check=False)
    assert refused.status and (
        "toy-1.0.eb: the image cannot load the MPI of site 'debian'\n"
        '  /host/mpi/libmpich.so.12  needs GLIBC_2.32, GLIBC_2.33, GLIBC_2.34, which the image does not have\n'
    ) in refused.output
    assert ('hint: use an image whose C library is not older than that of the host, or take the need out of the recipe'
            in refused.output)
    told = """\
toy-1.0.eb: the MPI of the image is not that of site '%s', so that each rank would be alone
  image  %s
  site   %s
hint: use an image with %s; with a ? behind the need the image runs with its own
"""
    mpich = told % ('openmpi', 'libmpi.so.12 (MPICH), libmpich.so.12 (MPICH)', 'libmpi.so.40 (Open MPI)', 'Open MPI')
    refused = eb(toys.recipe(tmp_path, image=str(new), needs=['mpi']), site=openmpi, check=False)
    assert refused.status and mpich in refused.output
    other = images.sif('openmpi')
    refused = eb(toys.recipe(tmp_path, image=str(other), needs=['mpi']), site=ring.site, check=False)
    assert refused.status and told % (
        'debian', 'libmpi.so.40 (Open MPI)', 'libmpich.so.12 (MPICH)', 'MPICH') in refused.output
    assert not list(tmp_path.glob('prefix/software/toy/*'))
    note = eb(toys.recipe(tmp_path, image=str(new), needs=['mpi?']), site=openmpi).output
    assert 'WARNING: ' + mpich in note

    def checked(site, image):
        monkeypatch.setenv('EASYSIF_SITE', str(site))
        found = json.loads(easysif('site', 'check', '--need', 'mpi', '--image', str(image), '--json')[1])['findings']
        return [(one['state'], one['what']) for one in found if one['topic'] in ('mpi', 'libraries')]
    assert ('problem', '/host/mpi/libmpich.so.12 needs GLIBC_2.32, GLIBC_2.33, GLIBC_2.34, which the image does '
            'not have') in checked(ring.site, old)
    assert checked(openmpi, new)[1:] == [
        ('problem', 'the image has libmpi.so.12 (MPICH), libmpich.so.12 (MPICH), the host brings libmpi.so.40 '
         '(Open MPI)')]
    fine = checked(ring.site, new)
    assert re.fullmatch('[0-9]+ of the host, all that they need is found inside', fine[0][1]) and fine[1:] == [
        ('ok', "the host's libmpich.so.12 (MPICH) takes the place of the image's"),
        ('note', "programs that ask for libmpi.so.12 get the image's own")]


def test_a_job_sees_those_gpus_that_its_scheduler_gives_it(eb, shell, slurm, tmp_path, toy):
    """Whatever the login node had where the module was loaded. Without a GPU on the node nothing is said of it."""
    shutil.copy(toy, tmp_path)
    eb(toys.recipe(tmp_path, commands=['env'], needs=['nvidia-gpu'], sanity_check_commands=['env']),
       toys.recipe(tmp_path, 'work', needs=['amd-gpu']))
    told = shell('''
export CUDA_VISIBLE_DEVICES=7 ROCR_VISIBLE_DEVICES=7
module load toy work
echo "$APPTAINER_ROCM $SINGULARITY_ROCM"
srun -n 2 --gpus-per-task=1 env | grep CUDA
srun -n 2 --gpus-per-task=1 singularity exec $SIF env | grep ROCR
srun -n 1 env | grep -c CUDA || true
''', env=slurm)
    first, *seen, none = told.stdout.splitlines()
    assert (first, none) == ('1 1', '0') and sorted(seen) == [
        '%s_VISIBLE_DEVICES=%d' % (kind, number) for kind in ('CUDA', 'ROCR') for number in (0, 1)]
    assert not re.search('gpu|nvidia|rocm|amd|nv files', told.stderr, re.I), told.stderr
