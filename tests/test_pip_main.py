# SPDX-License-Identifier: GPL-2.0-only
"""pip in the virtual environment of an overlay: pip as it is, and what it says where we know more than it does."""

import http.server
import os
import re
import subprocess
import sys
import threading
from functools import partial

import pytest

import harness
import standins
from easysif.data import helper
from easysif.packages import protected
from test_venv import load

pytestmark = pytest.mark.long

PIP_MAIN = helper('runscripts/lib/pip_main.py')

#: runs it with other places than those inside of an image
RUN = '''
import importlib.util, sys
spec = importlib.util.spec_from_file_location('pip_main', sys.argv[1])
module = importlib.util.module_from_spec(spec)
module.__file__ = spec.origin
spec.loader.exec_module(module)
module.VENVS, module.CONSTRAINTS, module.NEVER = sys.argv[2:5]
if sys.argv[5]:
    module.unwritable = lambda venv: sys.argv[5]
sys.exit(module.run(sys.argv[6:], sys.prefix))
'''


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A virtual environment, wheels, and constraint files of an image that brings `bright` 1.0 (Path)."""
    top = tmp_path_factory.mktemp('pip')
    subprocess.run([sys.executable, '-m', 'venv', '--system-site-packages', '--without-pip', top / 'venv'], check=True)
    for version in ('1.0', '2.0'):
        standins.package(top, 'bright', version)
    standins.package(top, 'wants', '1', requires=['bright'])
    standins.package(top, 'plain', '1')
    (top / 'lib').mkdir()
    protected.write(str(top), {'bright': '1.0'})
    return top


@pytest.fixture
def pip(place):
    """A function that runs pip_main: ``pip(*args, why=…, **variables)`` (CompletedProcess)."""
    def call(*args, why='', **variables):
        files = [str(place / path) for path in protected.VARIABLES.values()]
        env = {**os.environ, 'PIP_CONSTRAINT': files[0], 'PIP_FIND_LINKS': str(place), 'PIP_NO_INDEX': '1',
               'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PYTHONPATH': os.pathsep.join(sys.path), **variables}
        argv = [place / 'venv' / 'bin' / 'python', '-c', RUN, PIP_MAIN, str(place) + '/', *files, why, *args]
        return subprocess.run(argv, env=env, capture_output=True, text=True)
    return call


def test_the_constraint_files_are_what_installers_read(place):
    assert [(place / path).read_text().splitlines()[1:] for path in protected.VARIABLES.values()] == [
        ['bright==1.0'], ['bright==1.0+brought.by.the.image']]
    protected.write(str(place / 'other'), {'a': '1+cuda12'})
    assert '\na==1+cuda12.brought.by.the.image\n' in (place / 'other' / 'lib' / 'constraints-new.txt').read_text()
    protected.write(str(place / 'none'), {})
    assert not (place / 'none').exists()


def test_what_the_image_brings_is_not_replaced_and_that_is_explained(pip, place):
    found = pip('install', 'bright==2.0', 'Wants')
    assert found.returncode == 1
    assert found.stderr.endswith('''\
error: pip: bright is of the image, and protected: another one would hide it from all that was built for it
  the image brings  bright==1.0
  constraint file   %s
hint: to have another one nevertheless: PIP_CONSTRAINT=/dev/null pip install bright==2.0 Wants
''' % (place / 'lib' / 'constraints.txt'))
    quiet = pip('install', '--quiet', 'bright>1')
    assert quiet.returncode == 1 and quiet.stderr.endswith("pip install --quiet 'bright>1'\n")
    assert 'The conflict is caused by' not in quiet.stdout + quiet.stderr


def test_another_build_of_the_same_version_is_refused_too(pip):
    assert pip('install', 'wants').returncode == 0
    again = pip('install', '--force-reinstall', 'wants')
    assert again.returncode == 1 and 'hint: to have another one nevertheless: ' in again.stderr
    assert pip('install', '--force-reinstall', 'plain').returncode == 0
    assert pip('uninstall', '--yes', 'wants', 'bright', 'plain').returncode == 0


def test_who_asks_for_it_gets_another_one_and_other_failures_are_pips_alone(pip):
    other = pip('install', 'there-is-no-such-package')
    assert other.returncode == 1 and 'hint: to have' not in other.stderr and 'ERROR' in other.stderr
    assert pip('install', 'bright==2.0', PIP_CONSTRAINT=os.devnull).returncode == 0
    assert pip('uninstall', '--yes', 'bright').returncode == 0


def test_an_index_that_cannot_be_reached_is_told_and_one_without_the_package_is_none(pip, place):
    away = {'PIP_NO_INDEX': '', 'PIP_RETRIES': '0', 'PIP_INDEX_URL': 'http://me:secret@127.0.0.1:9/simple'}
    found = pip('install', 'nowhere', **away)
    assert found.returncode == 1 and 'secret' not in found.stderr
    assert re.search('\nerror: pip: the package index cannot be reached\n'
                     '  address  http://127.0.0.1:9/simple/nowhere/\n  reason   connection error: .*\n'
                     'hint: look at PIP_INDEX_URL, https_proxy and pip.conf, as pip uses yours\n$', found.stderr)
    pages = partial(http.server.SimpleHTTPRequestHandler, directory=place)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = pip('install', 'nowhere', **dict(away, PIP_INDEX_URL='http://127.0.0.1:%d/simple' % server.server_port))
        server.shutdown()
    assert found.returncode == 1 and 'No matching distribution' in found.stderr and 'error: pip' not in found.stderr


@pytest.mark.parametrize('why, args, told', [
    ('packed', ['install', 'plain'], 'the overlay is packed, packages cannot be installed\n'
     'hint: unmake-squashfs && module reload, then the same again (on the host: exit first if you are inside)\n'),
    ('read-only', ['-v', 'uninstall', 'plain'], 'the overlay is on a read-only file system, packages cannot be '
     'uninstalled\nhint: export EASYSIF_OVERLAYS=<a directory of yours> && module reload\n'),
    ('of others', ['install', 'plain'], 'this environment is not yours, packages cannot be installed\n'
     'hint: export EASYSIF_OVERLAYS=<a directory of yours> && module reload\n'),
    ('missing', ['install', 'plain'], 'there is no overlay, packages cannot be installed\n'
     'hint: module load the module of this image first; it binds your overlay at /user-software\n')])
def test_an_overlay_that_cannot_be_written_is_told_before_pip_starts(pip, why, args, told):
    found = pip(*args, why=why)
    assert (found.returncode, found.stdout, found.stderr) == (1, '', 'error: pip: ' + told)


def test_what_is_written_elsewhere_or_nowhere_works_all_the_same(pip, tmp_path):
    assert pip('install', '--target=%s' % tmp_path, 'plain', why='packed').returncode == 0
    assert (tmp_path / 'plain').is_dir()
    assert pip('install', '--dry-run', 'plain', why='packed').returncode == 0
    assert pip('list', why='packed').returncode == 0


def test_a_new_pip_does_not_take_our_script_away(pip, place):
    script = place / 'venv' / 'bin' / 'pip'
    script.write_text('#!/bin/sh\n# pip_main.py\n')
    script.chmod(0o750)
    standins.package(place, 'other', '1', command='pip')
    assert pip('install', 'other').returncode == 0
    assert script.read_text() == '#!/bin/sh\n# pip_main.py\n' and script.stat().st_mode & 0o777 == 0o750
    assert pip('uninstall', '--yes', 'other').returncode == 0 and script.exists()


@pytest.mark.parametrize('words, expected', [
    ('-m pip install x', True), ('-mpip', True), ('-Im pip', True), ('-W ignore -m pip', True), ('-Wi -smpip', True),
    ('--check-hash-based-pycs never -X dev -m pip', True), ('', False), ('-', False), ('-c pip', False),
    ('-m pipx', False), ('-m venv -m pip', False), ('script.py -m pip', False), ('-Ec -m pip', False)])
def test_python_m_pip_is_told_from_all_else(words, expected):
    assert load('python_m_pip').is_for_pip(['/usr/bin/python', *words.split()]) is expected
    assert load('python_m_pip').command_line() == sys.orig_argv


def test_an_environment_of_before_gets_what_makes_python_m_pip_the_same(place, tmp_path):
    packages = tmp_path / 'lib' / ('python%d.%d' % sys.version_info[:2]) / 'site-packages'
    packages.mkdir(parents=True)
    load('pip_main').add_hook(str(tmp_path))
    (packages / 'easysif.pth').write_text('mine')
    load('pip_main').add_hook(str(tmp_path))
    assert (packages / 'easysif.pth').read_text() == 'mine'
    text = (harness.CLONE / 'tools/easysif/helpers/runscripts/lib/easysif.pth').read_text()
    assert text.startswith('import ') and text.count('\n') == 1  # or Python would not run it
