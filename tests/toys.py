# SPDX-License-Identifier: GPL-2.0-only
"""Recipes and images of the tests' own, as small as they can be, and what an installation leaves on disk."""

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import harness

#: commands of the toy image, besides those of busybox
SCRIPTS = {'fine': '#!/bin/sh\necho "$@"\n',
           'fails': '#!/bin/sh\nexit 3\n',
           'needs-gpu': '#!/bin/sh\ntest -n "$TOY_GPU" || { echo "no toy GPU here" >&2; exit 5; }\n',
           'orphan': '#!/bin/no-such-interpreter\n',
           'crashes': '#!/bin/sh\nkill -SEGV $$\n',
           'litters': '#!/bin/sh\ntouch litter\n'}


def recipe(directory, name='toy', version='1.0', **values):
    """Write a recipe and return it (Path).

    :param values: parameters; None leaves out one that would be there otherwise
    """
    values = dict({'easyblock': 'ContainerImage', 'name': name, 'version': version,
                   'homepage': 'https://example.com', 'description': 'A toy of the tests', 'toolchain': 'SYSTEM',
                   'image': 'toy.sif', 'moduleclass': 'tools'}, **values)
    path = Path(directory) / ('%s-%s%s.eb' % (name, version, values.get('versionsuffix', '')))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join('%s = %s\n' % (key, value if key == 'toolchain' else repr(value))
                            for key, value in values.items() if value is not None))
    return path


def make_root(directory):
    """Make a root file system of busybox and SCRIPTS in a directory, and return it (Path)."""
    root = Path(directory) / 'root'
    for name in ('bin', 'etc', 'tmp', 'proc', 'dev', 'sys'):
        (root / name).mkdir(parents=True)
    for name in ('passwd', 'group'):
        (root / 'etc' / name).touch()
    shutil.copy('/bin/busybox', root / 'bin')
    for name in ('sh', 'cat', 'ls', 'env', 'touch', 'test', 'true', 'sleep'):
        (root / 'bin' / name).symlink_to('busybox')
    for name, text in SCRIPTS.items():
        (root / 'bin' / name).write_text(text)
        (root / 'bin' / name).chmod(0o755)
    return root


def make_image(directory):
    """Make a SIF file of it in a directory, and return it (Path)."""
    root = make_root(directory)
    sif = Path(directory) / 'toy.sif'
    harness.run(['apptainer', 'build', '--disable-cache', sif, root],
                env=harness.user_environment(Path(directory) / 'home'))
    shutil.rmtree(root)
    return sif


def sha256(path):
    """Return the sha256 of a file (str)."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def installation(prefix, module='toy/1.0'):
    """Return the directory of an installation (Path) and its ``easysif.json`` (dict)."""
    root = Path(prefix) / 'software' / module
    return root, json.loads((root / 'easysif.json').read_text())


def record(**values):
    """Return what ``easysif.json`` of a made-up installation ``toy/1`` says (dict), but for the given values."""
    return dict({'schema': 2, 'module': 'toy/1', 'recipe': 'toy-1.eb', 'site': 'default',
                 'runtime': {'name': 'apptainer', 'version': '1.4.5'},
                 'image': {'reference': 'toy.sif', 'file': 'toy.sif', 'sha256': '0' * 64, 'size': 1,
                           'architecture': 'amd64'},
                 'inside': {'shell': None, 'env': {}, 'commands': {}, 'conda': None, 'python': None},
                 'tests': [{'command': 'toy', 'result': 'passed'}], 'files': {}, 'modulefile': None,
                 'parameters': None}, **values)


def snapshot(directory, *without):
    """Return all that is below a directory, links as they are: path -> mode, size, link or hash (dict).

    :param without: paths to leave out, with all below them (str)
    """
    found = {}
    for parent, directories, names in os.walk(directory):
        here = Path(parent).relative_to(directory)
        directories[:] = sorted(name for name in directories if str(here / name) not in without)
        for name in directories + names:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            what = os.readlink(path) if stat.S_ISLNK(mode) else sha256(path) if stat.S_ISREG(mode) else ''
            if str(here / name) not in without:
                found[str(here / name)] = (stat.filemode(mode), what)
    return found


def files(directory):
    """Return the paths of all files and links below a directory (set of str), none where it is not there."""
    return {str((Path(parent) / name).relative_to(directory)) for parent, _, names in os.walk(directory)
            for name in names}
