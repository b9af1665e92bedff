# SPDX-License-Identifier: GPL-2.0-only
"""What a module and its wrappers cost."""

import subprocess

import harness


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
