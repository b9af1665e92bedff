# SPDX-License-Identifier: GPL-2.0-only
"""The recipes for CPUs are built with the real packages and compute, PyTorch over four nodes as well.

(That of JAX: tests/test_definition_install.py.)

The built images are kept in the cache of the tests, as eb --fetch keeps them, and used as long as eb takes them for
what it would build.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import harness
import toys

pytestmark = pytest.mark.e2e

BASE = 'docker://python:3.11-slim-bookworm'
PYTORCH, SKLEARN = 'PyTorch/2.13.0-cpu-singularity', 'scikit-learn/1.9.1-singularity'

#: more than the recipes' own tests: what users would do
COMPUTE = {
    PYTORCH: '''
import torch
torch.manual_seed(1)
x = torch.linspace(-1, 1, 64).reshape(-1, 1)
line = torch.nn.Linear(1, 1)
descent = torch.optim.SGD(line.parameters(), lr=0.5)
for _ in range(50):
    descent.zero_grad()
    torch.nn.functional.mse_loss(line(x), 3 * x - 1).backward()
    descent.step()
print(torch.__version__, round(line.weight.item(), 3), round(line.bias.item(), 3))
''',
    SKLEARN: '''
import sklearn
from sklearn.cluster import KMeans
print(sklearn.__version__, *sorted(KMeans(2, random_state=1).fit([[0], [1], [8], [9]]).cluster_centers_.flatten()))
'''}
PRINTS = {PYTORCH: '2.13.0+cpu 3.0 -1.0\n', SKLEARN: '1.9.1 0.5 8.5\n'}


@pytest.fixture(scope='module')
def index(tmp_path_factory):
    """A package index on the loopback address with the one package that the usual index has not (str)."""
    wheels = harness.CACHE / 'wheels'
    if not list(wheels.glob('torch-2.13.0+cpu-*.whl')):
        part = tmp_path_factory.mktemp('wheels')
        definition = (harness.CLONE / 'easyconfigs/p/PyTorch/pytorch-cpu.def').read_text()
        links = os.environ.get('EASYSIF_TEST_FIND_LINKS', '').split() + re.findall('--find-links ([^ ]+)', definition)
        subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', part,
                        *('--find-links=%s' % link for link in links), 'torch==2.13.0+cpu'], check=True)
        wheels.mkdir(exist_ok=True)
        for path in part.iterdir():
            shutil.move(path, wheels)
    pages = tmp_path_factory.mktemp('index')
    (pages / 'torch').symlink_to(wheels)
    with ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(_Quiet, directory=str(pages))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield 'http://127.0.0.1:%d' % server.server_port
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def built(index, images, registry, tmp_path_factory):
    """A function that installs the recipe of a module once, and returns its prefix (Path)."""
    directory, done = tmp_path_factory.mktemp('built'), {}

    def build(module):
        if module not in done:
            recipe = module.replace('/', '-')
            kept, cache, here = harness.CACHE / 'recipes' / recipe, directory / recipe / 'cache', directory / recipe
            here.mkdir()
            if kept.is_dir():
                shutil.copytree(kept, cache)
            site = here / 'site.yaml'
            site.write_text(yaml.safe_dump(dict(harness.site_settings(registry), cache_dir=str(cache),
                                                base_images={BASE: str(images.sif('python'))})))
            env = {'PIP_EXTRA_INDEX_URL': ' '.join([*os.environ.get('PIP_EXTRA_INDEX_URL', '').split(), index])}
            harness.run_eb(['%s.eb' % recipe, '--fetch'], here / 'prefix', here / 'home', site, env=env)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(cache, kept)
            harness.run_eb(['%s.eb' % recipe], here / 'prefix', here / 'home', site, env=env)
            done[module] = here / 'prefix'
        return done[module]
    return build


@pytest.mark.parametrize('module', [PYTORCH, SKLEARN])
def test_a_recipe_for_cpus_is_built_with_the_real_packages_and_computes(module, built, shell, tmp_path):
    prefix = built(module)
    assert [test['result'] for test in toys.installation(prefix, module)[1]['tests']] == ['passed']
    (tmp_path / 'compute.py').write_text(COMPUTE[module])
    assert shell('module load %s; python compute.py' % module, prefix=prefix, cwd=tmp_path).stdout == PRINTS[module]


#: fits y = 3 x - 1 by gradients that DDP takes the mean of; each rank has data of its own
TRAIN = '''
import os
import torch
torch.set_num_threads(1)
torch.distributed.init_process_group('gloo')
rank = torch.distributed.get_rank()
torch.manual_seed(rank)
line = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
descent = torch.optim.SGD(line.parameters(), lr=0.3)
x = torch.linspace(rank / 4, (rank + 1) / 4, 8).reshape(-1, 1) * 2 - 1
for _ in range(200):
    descent.zero_grad()
    torch.nn.functional.mse_loss(line(x), 3 * x - 1).backward()
    descent.step()
print('rank %d of %d on %s: %.2f %.2f' % (rank, torch.distributed.get_world_size(), os.environ['SLURMD_NODENAME'],
                                          line.module.weight.item(), line.module.bias.item()), flush=True)
torch.distributed.destroy_process_group()
'''

JOB = '''#!/bin/bash
#SBATCH --nodes=4 --ntasks=4 --output=out
srun singularity exec "$SIF" conda-python-distributed -u train.py
'''


def test_pytorch_trains_over_four_nodes_with_gloo(built, shell, slurm, tmp_path):
    prefix, hosts = built(PYTORCH), Path(slurm['SLURM_CONF']).with_name('hosts')
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'job').write_text(JOB)
    done = shell('module load %s; cd "$HERE"; sbatch --wait job' % PYTORCH, prefix=prefix, check=False, timeout=300,
                 env=dict(slurm, HERE=tmp_path, APPTAINER_BIND='%s:/etc/hosts' % hosts))
    out = (tmp_path / 'out').read_text()
    assert done.status == 0, out
    assert sorted(re.findall('rank .*', out)) == [
        'rank %d of 4 on n%d: 3.00 -1.00' % (rank, rank + 1) for rank in range(4)]
