# SPDX-License-Identifier: GPL-2.0-only
"""easysif job: batch scripts that are right for a site, printed and submitted; eb --job with our easyblock."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import harness
import toys
from made_up import MadeUp

pytest_plugins = ['standin_fixtures']
pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def site_of(monkeypatch):
    """A function that chooses the site, on a machine with modules; without an account of the user's."""
    monkeypatch.setenv('LMOD_CMD', '/usr/share/lmod')
    for name in ('SBATCH_ACCOUNT', 'SBATCH_PARTITION'):
        monkeypatch.delenv(name, raising=False)
    return lambda name: monkeypatch.setenv('EASYSIF_SITE', str(name))


@pytest.fixture
def gpu(prefix):
    """A module for AMD GPUs whose one command is ``python`` (MadeUp)."""
    from easysif.module import Command
    return MadeUp(prefix, 'torch/2', python_env='torch', needs=('amd-gpu',), commands={'python': Command(('python',))})


def script(easysif, *argv):
    """Return the script that is printed (str); sh understands it."""
    code, out, err = easysif('job', *argv)
    assert (code, err) == (0, '')
    subprocess.run(['bash', '-n'], input=out, text=True, check=True)
    return out


def refusal(easysif, *argv, code=2):
    """Return what is said of options that do not fit (str)."""
    status, out, err = easysif('job', *argv)
    assert (status, out) == (code, '')
    return err


LUMI = '''\
#!/bin/bash
# conda-python-distributed -u train.py --gpu in torch/2, for site lumi
# 4 nodes, 8 ranks and 8 GPUs on each
#SBATCH --job-name=torch
#SBATCH --account=project_1
#SBATCH --partition=standard-g
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=0:10:00
#SBATCH --output=%x-%j.out
#SBATCH --mem=480G

set -e

# sets binds, GPUs and SIFTORCH on the node where it runs
command -v module >/dev/null || . "$MODULESHOME/init/bash" || :
module use {modules}
module load torch/2

# made by each job, for its ranks alone: they believe nobody else
EASYSIF_RENDEZVOUS_KEY=$(od -An -N16 -tx8 /dev/urandom)
export EASYSIF_RENDEZVOUS_KEY

# each rank is bound to the CPUs next to its GPU
srun --cpu-bind=mask_cpu:0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,\
0xfe,0xfe00,0xfe00000000,0xfe0000000000 singularity exec "$SIFTORCH" conda-python-distributed -u train.py --gpu
'''


def test_the_job_of_lumis_manual_is_one_line(easysif, prefix, gpu, site_of):
    """PyTorch over four nodes, with the masks that LUMI's training material gives."""
    site_of('lumi')
    assert script(easysif, 'torch', '--nodes', '4', '--time', '0:10:00', '--account', 'project_1', '--',
                  'conda-python-distributed', '-u', 'train.py', '--gpu') == LUMI.format(modules=prefix / 'modules/all')


def test_a_site_whose_jobs_share_images_has_wrappers_do_so(easysif, gpu, site_of, monkeypatch):
    site_of('lumi')
    monkeypatch.setenv('EASYSIF_SHARE', 'none')
    assert script(easysif, 'torch', '--', 'other', 'x').endswith(' singularity exec "$SIFTORCH" other x\n')
    monkeypatch.setenv('EASYSIF_SHARE', 'node')
    text = script(easysif, 'torch', '--ntasks', '2', '--', 'conda-python-distributed', '-u', 'train.py')
    assert text.endswith("\nsrun start-shell -c 'exec \"$0\" \"$@\"' conda-python-distributed -u train.py\n")
    assert script(easysif, 'torch', '--', 'python', 'x').endswith('\nsrun python x\n')


@pytest.mark.parametrize('name, lines', [
    ('lumi', ['--account=project_<number>', '--partition=small-g', '--gpus-per-node=1', '--cpus-per-gpu=7',
              '--mem-per-gpu=60G']),
    ('jureca', ['--account=<budget>', '--partition=dc-gpu', '--gpus-per-node=1']),
    ('perlmutter', ['--account=<project>', '--gpus-per-node=1', '--constraint=gpu', '--qos=regular']),
    ('uva', ['--account=<allocation>', '--partition=gpu', '--gpus-per-node=1']),
    ('default', ['--gpus-per-node=1']),
])
def test_one_program_gets_one_gpu_of_each_site_and_runs_by_its_wrapper(easysif, gpu, site_of, name, lines):
    site_of(name)
    text = script(easysif, 'torch', '--', 'python', 'a b.py', "it's", '$HOME')
    found = re.findall('^#SBATCH (.*)', text, re.M)
    usual = {'--job-name=torch', '--nodes=1', '--ntasks-per-node=1', '--time=1:00:00', '--output=%x-%j.out'}
    assert [line for line in found if line not in usual] == lines
    words = shlex.split(text.splitlines()[-1])
    assert words == ['srun', 'python', 'a b.py', "it's", '$HOME']
    assert ('# fill in --account; ~/.config/easysif/site.yaml can say it once: job: {account: NAME}\n' in text) == (
        name != 'default')


def test_without_gpus_it_is_a_partition_without(easysif, prefix, site_of):
    MadeUp(prefix, 'tool/2', python_env=None)
    site_of('lumi')
    assert '--partition=small\n' in script(easysif, 'tool', '--', 'fine') and '--gpus' not in script(
        easysif, 'tool', '--', 'fine')
    text = script(easysif, 'tool', '--nodes', '2', '--ntasks', '8', '--cpus-per-task', '3', '--', 'other', 'x')
    assert '--partition=standard\n' in text and '--ntasks-per-node=4\n' in text and '--cpus-per-task=3\n' in text
    assert text.endswith('\nsrun --cpus-per-task=3 singularity exec "$SIFTOOL" other x\n')
    for before in (('tool',), ('tool', '--nodes', '1'), ('--nodes', '1', 'tool', '--time', '5')):
        assert script(easysif, *before, '--', 'other', '--', '--nodes', '--').endswith(
            ' singularity exec "$SIFTOOL" other -- --nodes --\n')
    assert script(easysif, 'tool', '--', 'start-shell', '-c', 'true').endswith('\nsrun start-shell -c true\n')
    assert script(easysif, 'tool', '--', '/bin/other').endswith(' singularity exec "$SIFTOOL" /bin/other\n')
    assert script(easysif, 'tool', 'other', 'x').endswith(' singularity exec "$SIFTOOL" other x\n')
    assert 'arguments are required: COMMAND\n' in refusal(easysif, 'tool', '--')


def test_what_the_user_says_stands_in_the_place_of_what_the_site_says(easysif, gpu, site_of):
    site_of('lumi')
    text = script(easysif, 'torch', '--gpus', '8', '--ntasks', '8', '--mem', '60G', '--partition', 'dev-g',
                  '--job-name', 'mine', '--output', 'logs/%j', '--option=--exclusive', '--option=--qos=a', '--',
                  'python', 'x')
    found = re.findall('^#SBATCH (.*)', text, re.M)
    assert found == ['--job-name=mine', '--account=project_<number>', '--partition=dev-g', '--nodes=1',
                     '--ntasks-per-node=8', '--gpus-per-node=8', '--mem=60G', '--time=1:00:00', '--output=logs/%j',
                     '--exclusive', '--qos=a']
    assert '# for PyTorch DDP or jax.distributed: conda-python-distributed in the place of python\n' in text


def test_what_is_given_as_an_option_of_sbatch_counts_as_what_it_is(easysif, gpu, site_of):
    site_of('lumi')
    text = script(easysif, 'torch', '--partition', 'a,b', '--ntasks-per-node', '2', '--option=--account=other',
                  '--option=--account=mine', '--option=--partition=c', '--option=--nodes=2',
                  '--option=--gpus-per-node=8', '--option=--ntasks-per-node=8', '--', 'python', 'x')
    found = re.findall('^#SBATCH (.*)', text, re.M)
    assert found == ['--job-name=torch', '--account=mine', '--partition=a,b', '--nodes=2', '--ntasks-per-node=2',
                     '--gpus-per-node=8', '--time=1:00:00', '--output=%x-%j.out', '--mem=480G']
    assert 'fill in' not in text and '# 2 nodes, 2 ranks and 8 GPUs on each\n' in text


def test_the_account_of_the_environment_or_of_ones_own_settings_is_enough(easysif, gpu, site_of, monkeypatch):
    site_of('lumi')
    monkeypatch.setenv('EASYSIF_JOB', '{account: mine}')
    assert '--account=mine\n' in script(easysif, 'torch', '--', 'python')
    monkeypatch.setenv('SBATCH_ACCOUNT', 'other')
    monkeypatch.setenv('SBATCH_PARTITION', 'other')
    text = script(easysif, 'torch', '--', 'python')
    assert '--account' not in text and '--partition' not in text
    assert '--partition=mine\n' in script(easysif, 'torch', '--partition', 'mine', '--', 'python')


def test_where_there_are_no_modules_the_wrappers_are_used(easysif, gpu, site_of, monkeypatch):
    site_of('default')
    monkeypatch.delenv('LMOD_CMD')
    monkeypatch.delenv('MODULESHOME', raising=False)
    text = script(easysif, 'torch', '--nodes', '2', '--', 'conda-python-distributed', 'x')
    assert 'export PATH=%s/bin:"$PATH"\n' % gpu.root in text and 'module ' not in text.partition('set -e')[2].replace(
        'no module system', '').replace('the module need', '')
    assert text.endswith('''\nsrun start-shell -c 'exec "$0" "$@"' conda-python-distributed x\n''')


@pytest.mark.parametrize('options, expected', [
    (['--time', 'soon'], "--time must be a time: minutes, hours:minutes:seconds or days-hours\n  given  'soon'\n"
                         'hint: --time 1:00:00\n'),
    (['--account', 'a\nb'], "--account must be an account of Slurm\n  given  'a\\nb'\nhint: --account project_1\n"),
    (['--output', 'a b'], "--output must be a file name without blanks, quotes, # and \\\n  given  'a b'\n"
                          'hint: --output %x-%j.out\n'),
    (['--output', 'a#b'], "--output must be a file name without blanks, quotes, # and \\\n  given  'a#b'\n"
                          'hint: --output %x-%j.out\n'),
    (['--partition', 'a,'], "--partition must be a partition, or several as a,b\n  given  'a,'\n"
                            'hint: --partition standard\n'),
    (['--option=--nodes=2-4'], "--nodes must be a number\n  given  '2-4'\nhint: --nodes 1\n"),
    (['--option=--account'], "--account must be an account of Slurm\n  given  ''\nhint: --account project_1\n"),
    (['--option=xxaccount=y'], "--option must be a long option of sbatch\n  given  'xxaccount=y'\n"
                               'hint: --option=--exclusive\n'),
    (['--option=-x y'], "--option must be a long option of sbatch\n  given  '-x y'\nhint: --option=--exclusive\n"),
    (['--nodes', '0'], '--nodes must be a number from 1\n  given  0\nhint: --nodes 1\n'),
    (['--gpus-per-node', '-1'], '--gpus-per-node must be a number from 0\n  given  -1\nhint: --gpus-per-node 1\n'),
    (['--nodes', '2', '--gpus', '3'], '--gpus cannot be shared evenly among the nodes\n  --gpus   3\n  --nodes  2\n'
                                      'hint: --gpus-per-node 2\n'),
    (['--nodes', '2', '--ntasks', '3', '--ntasks-per-node', '2'],
     '--ntasks and --ntasks-per-node do not fit together\n  --ntasks      3\n  on all nodes  4\n'
     'hint: --ntasks 4; or leave out one of them\n'),
])
def test_what_does_not_fit_is_refused(easysif, gpu, site_of, options, expected):
    site_of('lumi')
    assert refusal(easysif, 'torch', *options, '--', 'python') == 'error: easysif job: ' + expected


def test_more_gpus_than_a_node_has_are_refused_with_the_nodes_that_are_needed(easysif, gpu, site_of):
    site_of('lumi')
    assert refusal(easysif, 'torch', '--gpus', '12', '--', 'python', code=1) == (
        "error: easysif job: a node of site 'lumi' has not so many GPUs\n  asked for  12\n  has        8\n"
        'hint: --nodes 2 --gpus-per-node 8\n')
    assert refusal(easysif, 'torch', '--', 'a\0b').startswith('error: easysif job: no command can hold a null byte')


def test_a_recipe_that_is_not_installed_is_named_with_the_ways_to_install_it(easysif, prefix, site_of, tmp_path):
    site_of('default')
    MadeUp(prefix, 'other/1')
    recipe = toys.recipe(tmp_path, image='toy.sif', commands=['fine'])
    told = 'eb %s' % recipe.name
    assert refusal(easysif, str(recipe), '--', 'fine', code=1) == (
        'error: %s: is not installed yet\n  module  toy/1.0\n  prefix  %s\nhint: %s; as a batch job: %s --job '
        '--job-backend=Slurm\n' % (recipe, prefix, told, told))
    MadeUp(prefix, 'toy/1.0', python_env=None)
    assert 'module load toy/1.0\n' in script(easysif, str(recipe), '--', 'fine')


def test_a_job_that_cannot_be_submitted_says_why(easysif, gpu, site_of, monkeypatch, tmp_path):
    site_of('lumi')
    assert refusal(easysif, 'torch', '--submit', '--', 'python', code=1) == (
        "error: easysif job: site 'lumi' wants to know an account\n  account  project_<number>\nhint: --account NAME; "
        'or write it down once in ~/.config/easysif/site.yaml: job: {account: NAME}\n')
    tools = tmp_path / 'tools'
    tools.mkdir()
    monkeypatch.setenv('PATH', str(tools))
    submit = ('torch', '--account', 'a', '--submit', '--', 'python')
    assert refusal(easysif, *submit, code=3) == (
        'error: easysif job: sbatch is not on PATH\n'
        'hint: leave out --submit, and submit what is printed where Slurm is\n')
    (tools / 'sbatch').write_text('#!/bin/sh\necho "no such partition" >&2\nexit 1\n')
    (tools / 'sbatch').chmod(0o755)
    assert refusal(easysif, *submit, code=3) == (
        'error: sbatch: the job was not accepted\n  command    sbatch --parsable --account=a '
        '--partition=small-g\n  exit code  1\n'
        '  last line  no such partition\nhint: the same without --submit shows the script\n')


def test_as_json_it_is_told_what_is_asked_for(easysif, gpu, site_of):
    site_of('lumi')
    code, out, err = easysif('job', 'torch', '--gpus-per-node', '8', '--ntasks', '8', '--json', '--', 'python', 'x')
    told = json.loads(out)
    masks = told.pop('cpu_bind')
    assert (code, err, masks.count('0xfe')) == (0, '', 8) and told.pop('script').startswith('#!/bin/bash\n')
    assert told == {'module': 'torch/2', 'site': 'lumi', 'command': ['python', 'x'], 'nodes': 1, 'ntasks_per_node': 8,
                    'gpus_per_node': 8, 'partition': 'standard-g', 'account': 'project_<number>', 'time': '1:00:00',
                    'job': None}


@pytest.mark.e2e
@pytest.mark.parametrize('way', ['modules', 'wrappers'])
def test_a_job_of_a_user_runs_in_its_module_on_real_nodes(standin, slurm, tmp_path, way):
    """Submitted by easysif as a user of a clone types it, by a shell that hands no functions on, such as ``module``;
    the words reach the program as they are."""
    module = standin('jax')
    say = ('import os, sys; print(os.environ["SLURM_PROCID"], os.environ["SLURMD_NODENAME"], sys.argv[1:], '
           'sys.prefix, flush=True)')
    words, comment = ['a  b', "it's", '$HOME', '*', '\\n"é\n'], 'a  b#c\'d"e\\f'
    command = ('export PYTHONPATH=%s EB_PYTHON=%s; %s/bin/easysif job jax --prefix %s --nodes 2 --output out '
               '--time 5 --option=--comment=%s --json --submit -- %s') % (
        harness.CLONE / 'tools', shlex.quote(os.sys.executable), harness.CLONE / 'tools',
        shlex.quote(str(module.prefix)), shlex.quote(comment), shlex.join(['python', '-c', say, *words]))
    env = dict(slurm, EASYSIF_OVERLAYS=str(module.overlays), EASYSIF_JOB='{gpu: {gpus: 1}}')
    done = subprocess.run(
        ['bash', '--noprofile', '--norc', '-c', 'cd "$0"; %s%s' % (
            harness.LMOD_INIT + '; ' if way == 'modules' else 'unset LMOD_CMD MODULESHOME; ', command), tmp_path],
        env=dict(harness.user_environment(module.home), **env), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told['nodes'], told['gpus_per_node'], told['module']) == (2, 1, 'jax/1')
    assert ('module load jax/1' in told['script']) == (way == 'modules')
    shown = subprocess.run(['scontrol', 'show', 'job', told['job']], env=dict(os.environ, **slurm), text=True,
                           stdout=subprocess.PIPE, check=True).stdout
    assert '   Comment=%s \n' % comment in shown
    wait_for_job(told['job'], slurm)
    shown = (tmp_path / 'out').read_text()
    assert sorted(shown.splitlines()) == [
        "%d n%d %r /user-software/venv/jax" % (rank, rank + 1, words) for rank in range(2)], shown


def wait_for_job(number, slurm):
    """Return when a job has left the queue."""
    script = 'while squeue -h -j "$0" 2>/dev/null | grep -q .; do sleep 0.2; done'
    subprocess.run(['sh', '-c', script, number], env=dict(os.environ, **slurm), timeout=240, check=True)


@pytest.mark.e2e
def test_an_image_is_installed_by_a_batch_job_of_easybuild(eb, prefix, slurm, toy, tmp_path, shell):
    """eb --job asks nobody for the image where it is typed, and leaves the recipe as it is."""
    recipe = toys.recipe(tmp_path, commands=['fine'], sanity_check_commands=['fine x'])
    written = recipe.read_text()
    done = eb(recipe, '--sourcepath=%s' % toy.parent, '--job', '--job-backend=Slurm', '--job-cores=1',
              '--job-max-walltime=1', '--job-output-dir=%s' % tmp_path, env=slurm, cwd=tmp_path)
    number = re.search(r'toy/1\.0\): (\d+)', done.stdout).group(1)
    assert recipe.read_text() == written
    wait_for_job(number, slurm)
    log = Path(tmp_path / ('toy-1.0-%s.out' % number)).read_text()
    assert 'COMPLETED: Installation ended successfully' in log, log
    assert shell('module load toy/1.0; fine "a  b"').stdout == 'a  b\n'
    assert recipe.read_text() == written
