# SPDX-License-Identifier: GPL-2.0-only
"""The stand-in images are what they say, and like what they stand in for where tests rely on it."""

import json
import os

import pytest

import harness

pytestmark = pytest.mark.e2e

NAMES = sorted(path.stem for path in harness.IMAGES.glob('*.image'))
#: those with no program to look at a file with
MUTE = ('static',)


@pytest.fixture
def inside(images, tmp_path):
    """A function that runs a command in an image of the name given, without any module (Result)."""
    def call(name, *command, **options):
        return harness.run(['apptainer', '--silent', 'exec', '--containall', images.sif(name), *command],
                           env=harness.user_environment(tmp_path / 'home'), **options)
    return call


@pytest.mark.parametrize('name', NAMES)
def test_an_image_is_labelled_as_a_stand_in(images, registry, name):
    sif = images.sif(name)
    labels = json.loads(harness.run(['apptainer', 'inspect', '--json', '--labels', sif]).stdout)
    assert labels['data']['attributes']['labels']['org.easysif.stand-in']
    assert not os.access(sif, os.W_OK)


@pytest.mark.parametrize('name', [name for name in NAMES if name not in MUTE])
def test_an_image_says_inside_that_it_is_a_stand_in(inside, name):
    said = inside(name, 'sh', '-c', 'read -r said </STAND-IN; echo "$said"').stdout  # not each of them has a cat
    assert said.startswith('This image is a stand-in, made by the tests of EasySIF')


def test_jax_computes_and_its_python_has_no_ensurepip(inside):
    assert inside('jax', 'python', '-c', 'import jax; print(jax.grad(lambda x: x * x)(3.0))').stdout == '6.0\n'
    assert inside('jax', 'python3', '-m', 'venv', '/tmp/venv', check=False).status == 1
    assert inside('jax', 'pip', '--version').stdout.startswith('pip ')


@pytest.mark.parametrize('name, python', [
    ('jax', '/usr/bin/python3'),
    ('venv', '/opt/venv/bin/python'),
    ('conda', '/opt/miniconda3/envs/science/bin/python'),
])
def test_a_script_of_the_image_names_its_python_in_the_first_line(inside, name, python):
    script = {'jax': '/usr/local/bin/tqdm'}.get(name, python.replace('/bin/python', '/bin/tqdm'))
    assert inside(name, 'head', '-n', '1', script).stdout.startswith('#!%s' % python)
    assert inside(name, script, '--version').stdout == '4.66.1\n'


def test_samtools_is_the_real_one_without_bash_and_python(inside):
    sam = '@SQ\tSN:a\tLN:9\nr\t0\ta\t1\t9\t3M\t*\t0\t0\tACG\t*\n'
    assert '1 + 0 mapped' in inside('samtools', '/usr/local/bin/samtools', 'flagstat', '-', stdin=sam).stdout
    for program in ('bash', 'python3'):
        assert inside('samtools', 'sh', '-c', 'command -v %s' % program, check=False).status == 127


def test_python_has_pip_venv_and_no_external_manager(inside):
    assert inside('python', 'sh', '-c', 'command -v python3').stdout == '/usr/local/bin/python3\n'
    inside('python', 'python3', '-m', 'venv', '/tmp/venv')


def test_busybox_has_a_shell_and_no_bash(inside):
    assert inside('busybox', 'sh', '-c', 'echo a | tr a b').stdout == 'b\n'
    assert inside('busybox', 'bash', check=False).status != 0


def test_static_has_one_program_and_no_shell(inside):
    assert inside('static', 'echo', 'a  b').stdout == 'a  b\n'
    assert inside('static', 'sh', '-c', 'true', check=False).status != 0


@pytest.mark.parametrize('name, shell, activate', [
    ('conda', 'sh', '. /opt/miniconda3/etc/profile.d/conda.sh && conda activate science'),
    ('conda', 'bash', '. /opt/miniconda3/bin/activate science'),  # arguments of `.`: as with conda's own, not in sh
    ('conda-active', 'bash', '$WITH_CONDA'),
])
def test_conda_activates_its_environment(inside, name, shell, activate):
    script = activate + ' && python -c "import sys; print(sys.prefix)" && echo $CONDA_DEFAULT_ENV $SCIENCE_ACTIVATED'
    assert inside(name, shell, '-c', script).stdout == '/opt/miniconda3/envs/science\nscience 1\n'


def test_venvs_python_is_a_virtual_environment(inside):
    assert inside('venv', 'python', '-c', 'import sys; print(sys.prefix, sys.base_prefix)').stdout == '/opt/venv /usr\n'


def test_slurm_runs_a_job_of_two_ranks(slurm, tmp_path):
    env = dict(harness.user_environment(tmp_path / 'home'), **slurm)
    printed = harness.run(['srun', '-n2', 'sh', '-c', 'echo $SLURM_PROCID'], env=env).stdout
    assert sorted(printed.split()) == ['0', '1']
