# SPDX-License-Identifier: GPL-2.0-only
"""What a module and its wrappers cost."""

import dataclasses
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

import harness
from easysif import site_files
from easysif.site import Need
from made_up import MadeUp


def test_module_load(installed, tmp_path, measure, claim):
    """Loading a module takes at most 1.1 times what an empty one takes."""
    (tmp_path / 'modules' / 'empty').mkdir(parents=True)
    (tmp_path / 'modules' / 'empty' / '1.lua').write_text('whatis("nothing")\n')
    env = dict(harness.user_environment(tmp_path / 'home'),
               MODULEPATH='%s:%s' % (installed / 'modules' / 'all', tmp_path / 'modules'))
    lmod = harness.LMOD / 'libexec' / 'lmod'
    times = measure(80, **{name: ([lmod, 'bash', 'load', name], env, lambda: None)
                           for name in ('empty', 'jax', 'SAMtools')})
    for name in ('jax', 'SAMtools'):
        claim('module load %s' % name, '%.1f ms' % (1e3 * times[name].seconds),
              'an empty module, %.1f ms' % (1e3 * times['empty'].seconds),
              times[name].seconds / times['empty'].seconds, 1.1)


@pytest.fixture
def cluster():
    """A directory whose path is as long as those that clusters have, /usr/lib64 or /project/shared (Path)."""
    with tempfile.TemporaryDirectory(prefix='', dir='/tmp') as directory:
        yield Path(directory)


def test_module_load_of_a_large_site(cluster, tmp_path, measure, claim):
    """With a profile of 60 binds and 40 patterns, of two libraries each, loading takes at most 1.15 times what an empty
    module takes.
    """
    library = cluster / 'lib64'
    library.mkdir()
    for number in range(60):
        (cluster / ('fs%d' % number)).mkdir()
        for version in '01':
            (library / ('lib%d.so.%s' % (number, version))).touch()
    made = MadeUp(tmp_path / 'p', 'jax/1', 'jax', needs=('net',))
    site_files.apply(str(made.prefix), dataclasses.replace(
        made.site, binds=tuple('%s/fs%d' % (cluster, number) for number in range(60)), provides={
            'net': Need(tuple('%s/lib%d.so.*' % (library, number) for number in range(40)), {'NET': 'x'})}))
    (tmp_path / 'modules' / 'empty').mkdir(parents=True)
    (tmp_path / 'modules' / 'empty' / '1.lua').write_text('whatis("nothing")\n')
    env = dict(harness.user_environment(tmp_path / 'home'),
               MODULEPATH='%s:%s' % (made.prefix / 'modules' / 'all', tmp_path / 'modules'))
    lmod = harness.LMOD / 'libexec' / 'lmod'
    bound = subprocess.run([lmod, 'bash', 'load', 'jax'], env=env, capture_output=True, check=True, text=True).stdout
    assert re.search('^APPTAINER_BINDPATH=(.*);$', bound, re.M).group(1).count(str(cluster)) == 60 + 80
    times = measure(80, **{name: ([lmod, 'bash', 'load', name], env, lambda: None) for name in ('empty', 'jax')})
    claim('module load, a site of 60 binds and 40 patterns', '%.1f ms' % (1e3 * times['jax'].seconds),
          'an empty module, %.1f ms' % (1e3 * times['empty'].seconds),
          times['jax'].seconds / times['empty'].seconds, 1.15)


def test_module_spider(tmp_path, measure, claim):
    """Looking through 500 installed modules takes at most 1.5 times what 500 empty ones take; there is no cache."""
    made = MadeUp(tmp_path / 'p', 'made00/0', needs=('net',))
    for number in range(1, 500):
        made.copy('made%02d/%d' % divmod(number, 10))
    for path in (tmp_path / 'p' / 'modules' / 'all').glob('*/*.lua'):
        empty = tmp_path / 'empty' / path.parent.name / path.name
        empty.parent.mkdir(parents=True, exist_ok=True)
        empty.write_text('whatis("nothing")\n')
    home = harness.user_environment(tmp_path / 'home')
    lmod = harness.LMOD / 'libexec' / 'lmod'
    times = measure(10, **{kind: ([lmod, 'bash', '--ignore_cache', 'spider'], dict(
        home, MODULEPATH=str(path)), lambda: None) for kind, path in {
            'empty': tmp_path / 'empty', 'ours': tmp_path / 'p' / 'modules' / 'all'}.items()})
    claim('module spider over 500 modules', '%.2f s' % times['ours'].seconds,
          '500 empty modules, %.2f s' % times['empty'].seconds, times['ours'].seconds / times['empty'].seconds, 1.5)


def test_wrapper(installed_jax, tmp_path, measure, claim):
    """A wrapper takes at most 1.05 times what the runtime itself takes for the same command with the same binds."""
    root = installed_jax / 'software' / 'jax' / '24.10-singularity'
    home = harness.user_environment(tmp_path / 'home')
    output = subprocess.run([root / 'easysif' / 'wrapper', 'print-environment'], env=home, capture_output=True,
                            check=True, text=True).stdout
    env = dict(line.split('=', 1) for line in output.splitlines())
    command = ['-c', 'pass']
    times = measure(30, wrapper=([root / 'bin' / 'python', *command], home, lambda: None),
                    plain=(['apptainer', '--quiet', 'exec', env['SIF'], 'python', *command], env, lambda: None))
    claim('wrapper: python -c pass', '%.0f ms' % (1e3 * times['wrapper'].seconds),
          'apptainer exec, %.0f ms' % (1e3 * times['plain'].seconds),
          times['wrapper'].seconds / times['plain'].seconds, 1.05)
