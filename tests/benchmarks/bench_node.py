# SPDX-License-Identifier: GPL-2.0-only
"""What it costs to start many processes of one image on a node."""

import json
import subprocess
import sys

import harness
from easysif.data import helper

#: starts a command 16 times at once, and then says how many processes served mounts while it was so
MANY = '''
import os, subprocess, sys
started = [subprocess.Popen(sys.argv[1:]) for _ in range(16)]
sys.exit(max(process.wait() for process in started))
'''

#: prints how many processes serve mounts of the image that this one is in
DAEMONS = '''
import os, sys, time
count = 0
for name in filter(str.isdigit, os.listdir("/proc")):
    try:
        if open("/proc/%s/comm" % name).read().startswith("squashfuse"):
            count += any(os.readlink("/proc/%s/fd/%s" % (name, fd)) == sys.argv[1]
                         for fd in os.listdir("/proc/%s/fd" % name))
    except OSError:
        pass
print(count)
'''


def test_sixteen_processes_at_once(images, tmp_path, measure, claim):
    """Sixteen that share take at most 0.75 times what sixteen separate ones do, with one FUSE process."""
    sif, home = images.sif('jax'), harness.user_environment(tmp_path / 'home')
    runtime = harness.run(['sh', '-c', 'command -v apptainer'], env=home).stdout.strip()
    shared = [sys.executable, '-I', '-S', '-B', helper('node'), 'join', '--only', '--shell', '/bin/sh', runtime, sif]
    command = ['python3', '-c', 'import jax.numpy']
    together = [sys.executable, '-c', MANY]
    times = measure(5, shared=([*together, *shared, *command], home, lambda: None),
                    plain=([*together, runtime, '--silent', 'exec', sif, *command], home, lambda: None))
    claim('import jax.numpy, 16 processes at once', '%.1f s' % times['shared'].seconds,
          '16 separate apptainer exec, %.1f s' % times['plain'].seconds,
          times['shared'].seconds / times['plain'].seconds, 0.75)
    waiting = [subprocess.Popen([*map(str, shared), 'sh', '-c', 'echo; read -r line'], env=home, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE) for _ in range(16)]
    for process in waiting:
        process.stdout.readline()
    count = json.loads(harness.run([sys.executable, '-c', DAEMONS, sif]).stdout)
    for process in waiting:
        process.communicate(b'\n')
    claim('FUSE processes of 16 that share', '%d' % count, '16 separate ones', float(count), 1)
