# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of all tests. Every test runs in a directory of its own, with a home of its own and a clean environment."""

import importlib
import os
import pkgutil
import signal
import sys
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import HealthCheck, Phase, settings

import harness
import toys
from slurm import Slurm

# The framework's `eb` runs from the clone by PYTHONPATH; tests that call the library do likewise.
sys.path[:0] = [str(harness.CLONE), str(harness.CLONE / 'tools')]

# Hypothesis takes words from the project's modules that are loaded: all are, so that it tries the same texts whichever
# tests run before, in whichever process. What is no part of the package is imported where a test file begins.
for found in pkgutil.walk_packages(importlib.import_module('easysif').__path__, 'easysif.'):
    importlib.import_module(found.name)

# How often properties are tried: the same texts in every run, or others each time with tools/run-tests --nightly, which
# looks for the shortest text that fails, for minutes.
EXAMPLES = dict(deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.register_profile('fast', max_examples=40, derandomize=True, phases=[Phase.explicit, Phase.generate],
                          **EXAMPLES)
settings.register_profile('nightly', max_examples=10000, derandomize=False, **EXAMPLES)
settings.load_profile('fast')

# Started in the background or under nohup, we inherit signals that are ignored, and so would what the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def safe_directory(tmp_path, monkeypatch):
    """Protect the caller: a directory of the test's own, an empty home, no settings from outside."""
    home = tmp_path / 'home'
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(('EASYSIF_', 'EASYBUILD_', 'APPTAINER', 'SINGULARITY', 'XDG_')):
            monkeypatch.delenv(name)
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def its_prefix(prefix, monkeypatch):
    """The prefix is the one of EasyBuild's variables, as it is for a user."""
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))


@pytest.fixture
def easysif(capsys):
    """Run the command ``easysif`` in this process and return its exit code, output and error output."""
    from easysif import cli  # sys.path has its place by now

    def run(*argv):
        code = cli.main(list(argv))
        return (code, *capsys.readouterr())
    return run


@pytest.fixture(scope='session')
def clone():
    """The repository under test (Path)."""
    return harness.CLONE


@pytest.fixture(scope='session')
def registry():
    """A registry on the loopback address that holds the stand-in images (Registry: address, url, manifest())."""
    with harness.Registry() as running:
        yield running


@pytest.fixture(scope='session')
def images(registry):
    """The stand-in images (Images: upstream(), local(), digest(), sif() of a name of tests/images)."""
    return harness.Images(registry)


@pytest.fixture(scope='session')
def toy(tmp_path_factory):
    """A SIF file of 1 MB with the commands of toys.SCRIPTS (Path)."""
    return toys.make_image(tmp_path_factory.mktemp('toy'))


@pytest.fixture
def site_file(tmp_path, registry):
    """A function that writes a site profile whose mirror is our registry: ``site_file(**more_settings)`` (Path)."""
    def write(**settings):
        path = tmp_path / 'site.yaml'
        path.write_text(yaml.safe_dump(dict(harness.site_settings(registry), **settings)))
        return path
    return write


@pytest.fixture
def prefix(tmp_path):
    """A fresh prefix of EasyBuild, which is not there yet (Path)."""
    return tmp_path / 'prefix'


@pytest.fixture
def eb(prefix, tmp_path, site_file):
    """A function that runs the real eb: ``eb(*args, prefix=…, site=…, env={…}, check=True)`` (harness.Result).

    By default the prefix is the fixture's, the site has our registry as mirror, and a failure fails the test.
    """
    def call(*args, prefix=prefix, site=None, **options):
        return harness.run_eb(args, prefix, tmp_path / 'home', site or site_file(), **options)
    return call


@pytest.fixture
def shell(prefix, tmp_path):
    """A function that runs a script in a fresh shell with Lmod: ``shell(script, prefix=…, env={…}, check=True)``."""
    def call(script, prefix=prefix, **options):
        return harness.run_shell(script, prefix, tmp_path / 'home', **options)
    return call


@pytest.fixture(scope='session')
def shared(tmp_path_factory, registry):
    """A prefix for the whole session, with a function that installs a recipe there once (prefix, install())."""
    directory = tmp_path_factory.mktemp('shared')
    site = directory / 'site.yaml'
    site.write_text(yaml.safe_dump(harness.site_settings(registry)))
    prefix, results = directory / 'prefix', {}

    def install(recipe):
        if recipe not in results:
            results[recipe] = harness.run_eb([harness.unpinned(recipe, directory)], prefix, directory / 'home', site)
        return results[recipe]
    return SimpleNamespace(prefix=prefix, install=install, site=site)


@pytest.fixture(scope='session')
def installed_jax(shared):
    """JAX installed once by eb: its prefix (Path). Tests leave it as it is; EASYSIF_OVERLAYS gives them an overlay."""
    shared.install('jax-24.10-singularity.eb')
    return shared.prefix


@pytest.fixture(scope='session')
def installed_samtools(shared):
    """SAMtools installed once by eb, in the same prefix (Path)."""
    shared.install('SAMtools-1.21-singularity.eb')
    return shared.prefix


@pytest.fixture(scope='session')
def installed(installed_jax, installed_samtools):
    """Both installed, in one prefix (Path)."""
    return installed_jax


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The image store of the site, which is not there yet (Path)."""
    monkeypatch.setenv('EASYSIF_IMAGE_STORE', str(tmp_path / 'the store'))
    return tmp_path / 'the store'


@pytest.fixture(scope='session')
def slurm():
    """A Slurm cluster of this user's own on this machine: the environment by which srun finds it (dict)."""
    with Slurm() as cluster:
        yield cluster.env


@pytest.fixture(scope='session')
def catalogue(tmp_path_factory):
    """A catalogue of our recipes and of those of catalogue_scene.py (``output``, ``recipes``, ``prefix``)."""
    import catalogue_scene
    return catalogue_scene.make(tmp_path_factory.mktemp('catalogue'))
