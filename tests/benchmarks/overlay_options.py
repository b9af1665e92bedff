# SPDX-License-Identifier: GPL-2.0-only
"""How an overlay that holds JAX is best packed: compressors, blocks and layouts, for docs/measurements.md.

    tools/run-tests tests/benchmarks/overlay_options.py -s

prints the table. It decides nothing, so it is no benchmark, and takes a quarter of an hour. All take turns, and each
time is the least of some: what else the machine does only adds to it.
"""

import os

import harness
from overlays import IMPORT, facts, forget
from easysif.resources import mksquashfs_options

pytest_plugins = ['standin_fixtures']

#: compressor, level, block, more options of mksquashfs
KINDS = [('zstd', 5, '128K', ('-no-fragments',)), ('zstd', 5, '128K', ()), ('zstd', 3, '256K', ())]
KINDS += [('zstd', level, '256K', ()) for level in (1, 6, 9, 19)]
KINDS += [('lz4', None, '256K', ()), ('gzip', 6, '256K', ()), ('gzip', 9, '128K', ())]
KINDS += [('zstd', 3, block, ()) for block in ('64K', '128K', '512K', '1M')]
KINDS += [('zstd', 3, '256K', ('-no-fragments',)), ('zstd', 3, '256K', ('-sort', 'SORT')),
          ('zstd', 3, '256K', ('-wildcards', '-e', '... __pycache__'))]


def sorted_for_import(directory, path):
    """Write a file for -sort that lays what Python reads to import something before what it does not."""
    with open(path, 'w', encoding='utf-8') as handle:
        for parent, _, names in os.walk(directory):
            for name in names:
                priority = 2 if name.endswith('.pyc') else 1 if '.so' in name else 0
                if priority and ' ' not in name:
                    handle.write('%s %d\n' % (os.path.relpath(os.path.join(parent, name), directory), priority))


def test_options(jax_overlay, tmp_path, measure):
    """Print the table."""
    users, packing = {'directory': jax_overlay}, {}
    directory, sort = jax_overlay.overlay / 'user-software', tmp_path / 'sort'
    sorted_for_import(directory, sort)
    lines = ['| compressor | block | more | packing | size | import | cold |', '|---|---|---|---|---|---|---|']
    for number, (compressor, level, block, more) in enumerate(KINDS):
        user = users[str(number)] = jax_overlay.installed_for(_made(tmp_path / str(number)))
        user.overlay.mkdir(parents=True)
        options = mksquashfs_options({'compressor': compressor, 'level': level, 'block': block})
        argv = ['mksquashfs', directory, user.overlay / 'user-software.squashfs', '-noappend', '-no-recovery',
                '-no-xattrs', '-no-progress', *options, *(str(sort) if word == 'SORT' else word for word in more)]
        packing[str(number)] = argv
    os.sync()
    packed = measure(1, **{name: (argv, jax_overlay.env(), os.sync) for name, argv in packing.items()})
    quick = [name for name in packing if packed[name].seconds < 20]
    packed.update(measure(3, **{name: (packing[name], jax_overlay.env(), os.sync) for name in quick}))
    imports = {name: [user.bin / 'python3', *IMPORT] for name, user in users.items()}
    warm = measure(7, **{name: (imports[name], user.env(), lambda: None) for name, user in users.items()})
    cold = measure(3, **{name: (imports[name], user.env(), lambda user=user: _forget_all(user.overlay))
                         for name, user in users.items()})
    size = int(harness.run(['du', '-sb', directory]).stdout.split()[0])
    lines.append('| none: the directory | | | | %.0f MB | %.2f s | %.2f s |' % (
        size / 1e6, warm['directory'].least, cold['directory'].least))
    for number, (compressor, level, block, more) in enumerate(KINDS):
        name = str(number)
        lines.append('| %s | %s | %s | %.1f s | %.0f MB | %.2f s | %.2f s |' % (
            compressor if level is None else '%s %d' % (compressor, level), block,
            '`%s`' % ' '.join(word for word in more if word != 'SORT') if more else '', packed[name].least,
            os.path.getsize(packing[name][2]) / 1e6, warm[name].least, cold[name].least))
    print('\n%s\n\n%s\n' % (facts(), '\n'.join(lines)))


def _made(directory):
    directory.mkdir()
    return directory


def _forget_all(overlay):
    for parent, _, names in os.walk(overlay):
        for path in (os.path.join(parent, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path):
                forget(path)
