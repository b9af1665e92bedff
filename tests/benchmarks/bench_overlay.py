# SPDX-License-Identifier: GPL-2.0-only
"""What it costs to pack an overlay that holds JAX, and to import JAX from it."""

import os
import stat

import harness
from overlays import IMPORT, copy

pytest_plugins = ['standin_fixtures']

MEMORY = 300e6 / 2**20  # MiB


def regular_files(directory):
    """Return the regular files below a directory (list of str)."""
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names]
    return [path for path in paths if stat.S_ISREG(os.lstat(path).st_mode)]


def largest(argv, env):
    """Return how much memory that process of a command took which took most, in MiB, and its name (float, str)."""
    memory, name = max((memory, name) for name, memory in harness.peaks(argv, env).items())
    return memory, name.split(' ', 1)[1]


def test_packing(jax_overlay, tmp_path, measure, claim):
    """At least 10 times as fast as mksquashfs on one processor with its own defaults, no larger, with little memory."""
    module = copy(jax_overlay, tmp_path / 'user')
    directory, ours = (module.overlay / name for name in ('user-software', 'user-software.squashfs'))
    theirs = tmp_path / 'theirs'
    size = sum(os.path.getsize(path) for path in regular_files(directory))

    def fresh():
        for path in (ours, theirs):
            path.unlink(missing_ok=True)
        os.sync()

    def keep():
        ours.rename(kept)
        fresh()

    kept, env = tmp_path / 'kept', module.env()
    times = measure(3, ours=([module.bin / 'make-squashfs'], env, fresh),
                    theirs=(['mksquashfs', directory, theirs, '-processors', '1'], env, keep))
    claim('pack an overlay with JAX (%.0f MB, %d files)' % (size / 1e6, len(regular_files(directory))),
          '%.1f s' % times['ours'].seconds, 'mksquashfs -processors 1, %.1f s' % times['theirs'].seconds,
          times['theirs'].seconds / times['ours'].seconds, 10, most=False)
    sizes = [path.stat().st_size for path in (kept, theirs)]
    claim('its size', '%.0f MB' % (sizes[0] / 1e6), 'the same, %.0f MB' % (sizes[1] / 1e6), sizes[0] / sizes[1], 1)
    memory, name = largest([module.bin / 'make-squashfs', '--remove'], env)
    claim('its memory', '%.0f MiB (%s)' % (memory, name), '300 MB', memory / MEMORY, 1)
    left = len(regular_files(module.overlay))
    claim('files that are left after --remove', str(left), '3', left / 3, 1)
    module.run('python3', *IMPORT)
    memory, name = largest([module.bin / 'unmake-squashfs'], env)
    claim('memory of unpacking it', '%.0f MiB (%s)' % (memory, name), '300 MB', memory / MEMORY, 1)


def test_import(jax_overlay, tmp_path, measure, claim):
    """Importing JAX through the packed overlay takes at most 1.7 times what it takes from the directory."""
    users = {'directory': copy(jax_overlay, tmp_path / 'one'), 'packed': copy(jax_overlay, tmp_path / 'other')}
    harness.run([users['packed'].bin / 'make-squashfs', '--remove'], env=users['packed'].env())
    times = measure(10, **{name: ([user.bin / 'python3', *IMPORT], user.env(), lambda: None)
                           for name, user in users.items()})
    claim('import jax.numpy from the packed overlay', '%.2f s' % times['packed'].seconds,
          'from the directory, %.2f s' % times['directory'].seconds,
          times['packed'].seconds / times['directory'].seconds, 1.7)
