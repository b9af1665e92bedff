# SPDX-License-Identifier: GPL-2.0-only
"""The wheel: what is in it, that EasyBuild finds it, and that EasyBuild survives its coming and going."""

import hashlib
import os
import shutil
import stat
import sys
import zipfile

import pytest

import easysif
from harness import CLONE, run, user_environment

pytestmark = pytest.mark.long


def python_environment(home):
    """Return an environment in which pip reaches the package index of this machine (dict)."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(('PIP_', 'SSL_', 'REQUESTS_'))}
    return dict(user_environment(home), **kept)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A copy of the clone: building writes into the tree (Path)."""
    copy = tmp_path_factory.mktemp('a tree') / 'clone'
    shutil.copytree(CLONE, copy, symlinks=True,
                    ignore=shutil.ignore_patterns('.git', '.easysif', '__pycache__', 'build', 'dist'))
    return copy


@pytest.fixture(scope='module')
def wheel(tree):
    """The wheel (Path), built without network from what the test environment has."""
    run([sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', tree / 'dist', tree], cwd=tree)
    return next((tree / 'dist').glob('*.whl'))


def contents(archive):
    """Return the members of a wheel without its metadata (set of str)."""
    with zipfile.ZipFile(archive) as opened:
        return {name for name in opened.namelist() if '.dist-info/' not in name}


def shipped(directory, below):
    """Return the files below a directory of the clone, as the wheel must name them (set of str)."""
    return {'%s/%s' % (below, path.relative_to(directory)) for path in directory.rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


def test_the_wheel_holds_our_two_trees_and_the_manual_and_nothing_else(wheel):
    assert contents(wheel) == (
        shipped(CLONE / 'tools' / 'easysif', 'easysif')
        | shipped(CLONE / 'docs', 'easysif/manual')
        | shipped(CLONE / 'easyblocks', 'easybuild/easyblocks/generic')
        | shipped(CLONE / 'easyconfigs', 'easybuild/easyconfigs'))


def test_the_wheel_makes_the_catalogue_with_templates_and_manual(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path / 'wheel')
    run([sys.executable, '-m', 'easysif.cli', 'catalogue', 'jax-24.10-singularity', '--output', 'site'], cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(tmp_path / 'wheel')))
    assert (tmp_path / 'site' / 'software' / 'jax' / 'jax-24.10-singularity.html').exists()
    assert len(list((tmp_path / 'site' / 'manual').glob('*.html'))) == len(list((CLONE / 'docs').glob('*.md')))


def test_no_file_of_the_wheel_could_be_one_of_easybuild(wheel):
    assert not [name for name in contents(wheel) if name.startswith('easybuild/') and name.endswith('__init__.py')]


def test_helpers_stay_executable(wheel):
    helpers = CLONE / 'tools' / 'easysif' / 'helpers'
    executable = {'easysif/helpers/%s' % path.relative_to(helpers) for path in helpers.rglob('*')
                  if path.is_file() and path.stat().st_mode & stat.S_IXUSR}
    with zipfile.ZipFile(wheel) as opened:
        modes = {info.filename: info.external_attr >> 16 for info in opened.infolist()}
    assert executable
    assert {name for name in modes if name.startswith('easysif/helpers/') and modes[name] & 0o111} == executable


def test_the_metadata_tell_version_licence_and_what_is_needed(wheel):
    with zipfile.ZipFile(wheel) as opened:
        text = opened.read('easysif-%s.dist-info/METADATA' % easysif.__version__).decode()
    for line in ('Version: %s' % easysif.__version__, 'Requires-Python: >=3.9',
                 'Requires-Dist: easybuild-framework>=5.0'):
        assert line in text.splitlines()
    assert 'GPL-2.0-only' in text and 'Requires-Dist: easybuild-easyblocks' not in text


def test_a_source_distribution_makes_the_same_wheel(tree, wheel, tmp_path):
    run([sys.executable, '-m', 'build', '--sdist', '--no-isolation', '--outdir', tmp_path, tree], cwd=tree)
    source = next(tmp_path.glob('*.tar.gz'))
    shutil.unpack_archive(source, tmp_path / 'unpacked')
    unpacked = next((tmp_path / 'unpacked').iterdir())
    run([sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir', tmp_path, unpacked], cwd=tmp_path)
    assert contents(next(tmp_path.glob('*.whl'))) == contents(wheel)


class Venv:
    """A Python environment of the test's own, without pip: that of the tests installs into it, which is quicker."""

    def __init__(self, directory, home):
        self.directory, self.home = directory, home
        run([sys.executable, '-m', 'venv', '--without-pip', directory])

    def pip(self, *args):
        run([sys.executable, '-m', 'pip', '--quiet', '--python', self.directory / 'bin' / 'python', *args],
            env=python_environment(self.home))

    def command(self, name, *args, **options):
        """Return what a command of this environment prints (str)."""
        env = dict(user_environment(self.home), EASYBUILD_PREFIX=str(self.home / 'prefix'),
                   EASYBUILD_MODULES_TOOL='Lmod', LMOD_CMD='/usr/share/lmod/lmod/libexec/lmod')
        env['PATH'] = '%s:%s' % (self.directory / 'bin', env['PATH'])
        return run([name, *args], env=env, **options).stdout

    def easybuild(self):
        """Return the path and checksum of every file of EasyBuild in it, without pip's own notes (dict)."""
        site = next(self.directory.glob('lib/python3*/site-packages'))
        files = [path for top in (site, self.directory / 'bin', self.directory / 'easybuild')
                 for path in top.rglob('*') if path.is_file() and path.suffix != '.pyc'
                 and ('easybuild' in str(path.relative_to(self.directory)) or path.name == 'eb')]
        return {str(path.relative_to(self.directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
                if path.name not in ('RECORD', 'REQUESTED', 'direct_url.json')}


@pytest.fixture
def venv(tmp_path):
    """An empty Python environment (Venv)."""
    return Venv(tmp_path / 'venv', tmp_path / 'home')


def assert_ours_are_found(venv):
    """Everything of ours is on EasyBuild's search paths without a flag, and our command runs."""
    found = venv.command('eb', '--search', 'jax-24.10-singularity')
    assert 'easybuild/easyconfigs/j/jax/jax-24.10-singularity.eb' in found
    assert 'ContainerImage' in venv.command('eb', '--list-easyblocks')
    assert 'ContainerImage' in venv.command('eb', '--list-easyblocks=detailed')
    assert 'usage: easysif' in venv.command('easysif', '--help')


@pytest.mark.e2e
def test_the_wheel_works_with_the_framework_alone_and_leaves_it_as_it_was(venv, wheel):
    venv.pip('install', 'easybuild-framework')
    before = venv.easybuild()
    venv.pip('install', wheel)
    assert_ours_are_found(venv)
    assert set(before.items()) <= set(venv.easybuild().items())
    venv.pip('uninstall', '--yes', 'easysif')
    assert venv.easybuild() == before
    assert 'jax-24.10' not in venv.command('eb', '--search', 'jax-24.10-singularity', check=False)


@pytest.mark.e2e
def test_the_wheel_works_beside_easybuild_easyblocks_in_either_order(venv, wheel, tmp_path):
    venv.pip('install', 'easybuild-framework', 'easybuild-easyblocks')
    before = venv.easybuild()
    venv.pip('install', wheel)
    assert_ours_are_found(venv)
    assert 'MakeCp' in venv.command('eb', '--list-easyblocks')
    venv.pip('uninstall', '--yes', 'easysif')
    assert venv.easybuild() == before

    other = Venv(tmp_path / 'other', tmp_path / 'home')
    other.pip('install', wheel)
    other.pip('install', 'easybuild-framework', 'easybuild-easyblocks')
    assert_ours_are_found(other)
    other.pip('uninstall', '--yes', 'easysif')
    assert other.easybuild() == before
    assert 'MakeCp' in other.command('eb', '--list-easyblocks')


@pytest.mark.e2e
def test_the_wheel_works_with_the_oldest_framework_that_it_allows(venv, wheel):
    venv.pip('install', 'easybuild-framework==5.0.0')
    venv.pip('install', wheel)
    assert_ours_are_found(venv)


def test_a_clone_is_found_from_any_directory(eb_search, clone):
    assert str(clone / 'easybuild/easyconfigs/j/jax/jax-24.10-singularity.eb') in eb_search(clone)


def test_a_clone_may_lie_below_a_path_with_spaces_and_unicode(eb_search, tree, tmp_path):
    moved = tmp_path / 'ein Täst' / 'clone'
    shutil.copytree(tree, moved, symlinks=True)
    assert str(moved / 'easybuild/easyconfigs/j/jax/jax-24.10-singularity.eb') in eb_search(moved)


@pytest.fixture
def eb_search(tmp_path):
    """A function that returns what ``eb --search jax`` of a clone prints, started in another directory (str)."""
    def search(clone):
        env = dict(user_environment(tmp_path / 'home'), PYTHONPATH='%s:%s' % (clone, clone / 'tools'),
                   EB_PYTHON=sys.executable, EASYBUILD_PREFIX=str(tmp_path / 'prefix'),
                   EASYBUILD_MODULES_TOOL='Lmod', LMOD_CMD='/usr/share/lmod/lmod/libexec/lmod')
        env['PATH'] = '%s:%s' % (clone / 'tools' / 'bin', env['PATH'])
        return run(['eb', '--search', 'jax'], env=env, cwd=tmp_path).stdout
    return search
