# SPDX-License-Identifier: GPL-2.0-only
"""Jobs of users on a real Slurm of four nodes, in containers: training over all ranks, masks, ends of all kinds."""

import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

import harness

pytest_plugins = ['standin_fixtures']
pytestmark = pytest.mark.e2e

#: fits y = 3 x by gradients that are the mean over all ranks, each of which has data of its own
TRAIN = '''
import os
import jax
import jax.numpy as jnp
from jax.experimental.multihost_utils import process_allgather
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize()
rank = jax.process_index()
x = jnp.arange(1.0, 4.0) + rank
loss = jax.jit(jax.grad(lambda w: jnp.mean((w * x - 3.0 * x) ** 2)))
w = 0.0
for _ in range(30):
    w -= 0.02 * float(process_allgather(loss(w)).mean())
print('rank %d of %d on %s: %.3f' % (rank, jax.process_count(), os.environ['SLURMD_NODENAME'], w), flush=True)
'''

JOB = '''#!/bin/bash
#SBATCH --nodes=4 --ntasks=4 --output=out
srun %ssingularity exec "$SIF" conda-python-distributed -u %s
'''


@pytest.fixture
def job(standin, slurm, tmp_path, monkeypatch):
    """A function that submits a job by a user who has loaded the module, and waits for its end (Result).

    Nothing of it is left: no process, no mount, and no directory of a rank that was not killed.
    """
    monkeypatch.chdir(tmp_path)
    module, local = standin('jax'), tmp_path / 'local disk'
    local.mkdir()
    hosts = Path(slurm['SLURM_CONF']).with_name('hosts')
    env = dict(slurm, EASYSIF_OVERLAYS=str(module.overlays), TMPDIR=str(local), APPTAINER_BIND='%s:/etc/hosts' % hosts)

    def submit(program, options='', then='sbatch --wait job', text=JOB):
        (tmp_path / 'program.py').write_text(program)
        (tmp_path / 'job').write_text(text % (options, 'program.py'))
        return module.shell('cd %r\n%s' % (str(tmp_path), then), env=env, check=False, timeout=240)
    submit.is_killed, submit.prefix = False, module.prefix
    yield submit
    for _ in range(50):  # the last of them may still be on its way out
        left = [line for where, line in processes() if str(module.sif) in line or where == str(tmp_path)]
        if not left:
            break
        time.sleep(0.2)
    mounts = Path('/proc/self/mounts').read_text()
    assert (left, str(module.sif) in mounts) == ([], False)
    # a rank that the scheduler kills may not come to that; the next one on the node then does it
    kept = [path.name for path in local.iterdir()]
    assert kept == [] or submit.is_killed and all(name.startswith('easysif-%d-' % os.getuid()) for name in kept)


def processes():
    """Return where each process of ours but this works, and its command line (list of str, str)."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):  # of another user, or it has ended
            if path.name != str(os.getpid()):
                found.append((os.readlink(path / 'cwd'), (path / 'cmdline').read_text(errors='replace')))
    return found


def test_jax_trains_over_four_nodes(job, tmp_path):
    result = job(TRAIN)
    out = (tmp_path / 'out').read_text()
    assert result.status == 0, out
    assert sorted(re.findall('rank .*', out)) == ['rank %d of 4 on n%d: 3.000' % (rank, rank + 1) for rank in range(4)]


#: two steps at once, of which the second ends while the first is at work
STEPS = '''#!/bin/bash
#SBATCH --nodes=2 --ntasks=4 --output=out
export EASYSIF_SHARE=node
srun%s --overlap --nodes=2 --ntasks=4 python %s long & long=$!
srun --overlap --nodes=2 --ntasks=2 python program.py short
touch end
wait $long
'''

SHARING = '''
import os, sys, time
def wait(condition):
    while not condition():
        time.sleep(0.1)
name, rank = sys.argv[1], os.environ['SLURM_PROCID']
print(name, os.environ['SLURMD_NODENAME'], os.readlink('/proc/self/ns/mnt'), flush=True)
open('up-%s-%s' % (name, rank), 'w').close()
wait(lambda: len([one for one in os.listdir() if one.startswith('up-long-')]) == 4)
if name == 'long':
    wait(lambda: os.path.exists('end'))
    import xmlrpc.server
    print('still there', flush=True)
'''


def test_ranks_share_their_image_on_each_node_in_each_step(job, tmp_path):
    result = job(SHARING, text=STEPS)
    out = (tmp_path / 'out').read_text()
    assert result.status == 0 and out.count('still there') == 4, out
    long, short = (set(re.findall('%s (n[0-9]) (mnt:.*)' % name, out)) for name in ('long', 'short'))
    assert out.count('long n') == 4 and len(long) == len({space for _, space in long}) == 2
    assert len(short) == 2 and not {space for _, space in long} & {space for _, space in short}


#: steps one after the other and two at once, the script itself, and an image that is no module; then it is ended
HELD = '''#!/bin/bash
#SBATCH --nodes=2 --ntasks=4 --output=out
export EASYSIF_SHARE=node
mask=%s program=%s
./easysif node-hold jax --json >held.json
srun --nodes=2 --ntasks=4 python $program held
srun --overlap --nodes=2 --ntasks=2 python $program held & one=$!
srun --overlap --nodes=2 --ntasks=2 python $program held
wait $one
python $program held
for holder in $(sed -n 's/.*"holder": //p' held.json); do echo "holder $(readlink /proc/$holder/ns/mnt)"; done
scancel --signal=TERM "$(sed -n 's/.*"step": "\\(.*\\)",/\\1/p' held.json)"
for keeper in $(sed -n 's/.*"keeper": \\(.*\\),/\\1/p' held.json); do
    while [ -e "/proc/$keeper" ]; do sleep 0.1; done
done
srun --nodes=2 --ntasks=2 python $program ended
./easysif node-hold "$SIF"
srun --nodes=2 --ntasks=2 ./easysif node-exec "$SIF" -- python $program file
srun --nodes=2 --ntasks=2 ./easysif node-exec "$SIF" -- python $program file
'''

PLACE = '''
import os, sys
print(sys.argv[1], os.environ['SLURMD_NODENAME'], os.readlink('/proc/self/ns/mnt'), flush=True)
'''


def test_all_steps_of_a_job_share_an_image_that_is_held_for_it(job, tmp_path):
    _easysif(tmp_path, job)
    result = job(PLACE, text=HELD)
    out = (tmp_path / 'out').read_text()
    assert result.status == 0, out
    held, ended, file = (re.findall('^%s (n[0-9]) (mnt:.*)' % name, out, re.M) for name in ('held', 'ended', 'file'))
    assert (len(held), len(ended), len(file)) == (9, 2, 4)
    assert len(set(held)) == len(set(file)) == 2
    assert [space for _, space in sorted(set(held))] == re.findall('^holder (.*)', out, re.M)
    answer = json.loads((tmp_path / 'held.json').read_text())
    assert [node['node'] for node in answer['nodes']] == ['n1', 'n2'] and answer['image'].endswith('.sif')
    assert re.search(
        r'\.sif: mounted on 2 nodes until job \d+ ends; before that: scancel --signal=TERM \d+\.\d+\n', out)
    assert 'error' not in out


def test_an_image_that_cannot_be_held_is_told_and_leaves_no_step(job, tmp_path):
    _easysif(tmp_path, job)
    (tmp_path / 'broken.sif').write_text('nothing')
    result = job(PLACE, text='''#!/bin/bash
#SBATCH --nodes=2 --output=out
SLURM_STEP_NUM_TASKS=2 ./easysif node-hold jax
./easysif node-hold broken.sif
echo "ended with $?"
srun %ssingularity exec "$SIF" python %s alone
''')
    out = re.sub('INFO:.*\n', '', (tmp_path / 'out').read_text())
    assert result.status == 0 and out.startswith(
        'error: easysif node-hold: it is called once in a job, not by each rank\n  ranks  2\n'
        'hint: easysif node-hold jax, in the script before srun\n')
    assert re.search('error: .*/broken.sif: the image cannot be kept mounted for the job\n  reason  n[12]: .*\n'
                     'hint: leave out node-hold; each job step then mounts the image for itself\nended with 3\n'
                     '(alone n[12] .*\n){2}$', out)


#: a job of two parts, with a step of both and one of the second alone
PARTS = '''#!/bin/bash
#SBATCH --nodes=1 --ntasks=1 --output=out
#SBATCH hetjob
#SBATCH --nodes=2 --ntasks=2
export EASYSIF_SHARE=node
./easysif node-hold jax
srun --het-group=0,1%s python %s all
srun --het-group=1 python program.py second
'''


def test_an_image_is_held_on_the_nodes_of_all_parts_of_a_heterogeneous_job(job, tmp_path):
    _easysif(tmp_path, job)
    result = job(PLACE, text=PARTS)
    out = (tmp_path / 'out').read_text()
    assert result.status == 0 and 'mounted on 3 nodes until' in out, out
    spaces, second = (re.findall('^%s (n[0-9] mnt:.*)' % name, out, re.M) for name in ('all', 'second'))
    assert len(set(spaces)) == 3 and len(second) == 2 and set(second) < set(spaces)


#: the ranks of one node, each in a container of its own, and then in one that they share, as the manual and as easysif
#: job have it; they know a key
TWICE = '''#!/bin/bash
#SBATCH --nodes=1 --ntasks=2 --output=out
EASYSIF_RENDEZVOUS_KEY=$(od -An -N16 -tx8 /dev/urandom)
export EASYSIF_RENDEZVOUS_KEY
mask=%s program=%s
srun $mask singularity exec "$SIF" conda-python-distributed -u $program
srun $mask ./easysif node-exec jax -- conda-python-distributed -u $program
EASYSIF_SHARE=node srun $mask start-shell -c 'exec "$0" "$@"' conda-python-distributed -u $program
'''

EASYSIF = '''#!/bin/sh
PYTHONPATH={0}:{0}/tools EASYBUILD_PREFIX='{1}' exec {2} -m easysif.cli "$@"
'''

TELL = '''
import os
print(os.environ['RANK'], sorted(os.sched_getaffinity(0)), os.readlink('/proc/self/ns/mnt'), os.environ['MASTER_PORT'],
      os.environ.get('EASYSIF_RENDEZVOUS_KEY'), flush=True)
'''


def test_masks_of_the_scheduler_reach_the_program_also_where_ranks_share_their_image(job, tmp_path):
    _easysif(tmp_path, job)
    result = job(TELL, '--cpu-bind=mask_cpu:0x2,0x1', text=TWICE)
    out = (tmp_path / 'out').read_text()
    told = re.findall(r'(\d) (\[.*\]) (mnt:\S+) (\d+) None\n', out)
    assert (result.status, len(told)) == (0, 6), out
    for step, containers in ((told[:2], 2), (told[2:4], 1), (told[4:], 1)):
        assert sorted(words[:2] for words in step) == [('0', '[1]'), ('1', '[0]')]
        assert (len({space for _, _, space, _ in step}), len({port for *_, port in step})) == (containers, 1)


def test_a_rank_that_fails_ends_the_job(job, tmp_path):
    begin = time.monotonic()
    result = job('import os, time\nif os.environ["RANK"] == "2":\n    raise SystemExit(9)\ntime.sleep(120)')
    out = (tmp_path / 'out').read_text()
    assert result.status == 9 and time.monotonic() - begin < 60
    assert out.count('error: conda-python-distributed: ') == 1
    assert 'error: conda-python-distributed: rank 2 on n3 ended with exit code 9\n' in out


#: a program whose ranks say that they are at work, and the shell that waits for that, and for the end of the job
WORK = 'import os, time\nopen("up" + os.environ["RANK"], "w").close()\ntime.sleep(300)'
AT_WORK = ('number=$(sbatch --parsable job)\n'
           'for _ in $(seq 300); do ls up? 2>/dev/null | grep -c . | grep -qx 4 && break; sleep 0.2; done; ls up?\n')
AT_END = ('\nfor _ in $(seq 600); do squeue -h -j "$number" 2>/dev/null | grep -q . || break; sleep 0.2; done\n'
          'squeue -h -j "$number" 2>/dev/null; true')


#: as JOB, by a wrapper, with images that are shared
SHARED = JOB.replace('singularity exec "$SIF"', 'start-shell -c \'exec "$0" "$@"\'').replace(
    'srun', 'EASYSIF_SHARE=node srun')


@pytest.mark.parametrize('text', [JOB, SHARED])
def test_a_job_that_is_cancelled_ends_all_ranks(text, job, tmp_path):
    job.is_killed = True
    result = job(WORK, then=AT_WORK + 'scancel "$number"' + AT_END, text=text)
    assert (result.status, result.stdout.split()) == (0, ['up0', 'up1', 'up2', 'up3'])
    assert 'error: conda-python-distributed' not in (tmp_path / 'out').read_text()


def test_the_time_limit_ends_all_ranks(job, tmp_path):
    """Slurm counts it in minutes, and looks every 30 seconds; it may be made shorter while the job runs."""
    job.is_killed = True
    result = job(WORK, then=AT_WORK + 'scontrol update JobId="$number" TimeLimit=0' + AT_END)
    assert (result.status, result.stdout.split()) == (0, ['up0', 'up1', 'up2', 'up3'])
    assert 'DUE TO TIME LIMIT' in (tmp_path / 'out').read_text()


def _easysif(directory, job):
    """Put easysif into the directory of a job, for its script."""
    (directory / 'easysif').write_text(EASYSIF.format(harness.CLONE, job.prefix, sys.executable))
    (directory / 'easysif').chmod(0o755)
