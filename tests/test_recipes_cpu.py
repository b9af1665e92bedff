# SPDX-License-Identifier: GPL-2.0-only
"""The recipes for CPUs are built with the real packages and compute. (That of JAX: tests/test_definition_install.py.)

The built images are kept in the cache of the tests, as eb --fetch keeps them, and used as long as eb takes them for
what it would build.
"""

import functools
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

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
        links = os.environ.get('EASYSIF_TEST_FIND_LINKS', '').split() + ['https://download.pytorch.org/whl/cpu/torch/']
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


@pytest.mark.parametrize('module', [PYTORCH, SKLEARN])
def test_a_recipe_for_cpus_is_built_with_the_real_packages_and_computes(
        module, index, eb, shell, site_file, images, prefix, tmp_path):
    recipe = module.replace('/', '-')
    kept, cache = harness.CACHE / 'recipes' / recipe, tmp_path / 'cache'
    if kept.is_dir():
        shutil.copytree(kept, cache)
    site = site_file(base_images={BASE: str(images.sif('python'))}, cache_dir=str(cache))
    env = {'PIP_EXTRA_INDEX_URL': ' '.join([*os.environ.get('PIP_EXTRA_INDEX_URL', '').split(), index])}
    eb('%s.eb' % recipe, '--fetch', site=site, env=env)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(cache, kept)
    eb('%s.eb' % recipe, site=site, env=env)
    assert [test['result'] for test in toys.installation(prefix, module)[1]['tests']] == ['passed']
    (tmp_path / 'compute.py').write_text(COMPUTE[module])
    assert shell('module load %s; python compute.py' % module, prefix=prefix, cwd=tmp_path).stdout == PRINTS[module]
