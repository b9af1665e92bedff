# SPDX-License-Identifier: GPL-2.0-only
"""Images that are directories, which the container runtime starts as it starts SIF files and to which tests add.

A test file that wants the fixtures says ``pytest_plugins = ['image_trees']``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from types import SimpleNamespace

import pytest

from easysif import runtime
from easysif.errors import EasySIFError
from easysif.images import inspect

APPLETS = ('sh', 'ls', 'cat', 'sort', 'sed')

SKIPPED = shutil.ignore_patterns('site-packages', 'dist-packages', '__pycache__', 'test', 'tests', 'idlelib', 'tkinter',
                                 'lib2to3', 'config-*', 'ensurepip', 'turtledemo')


class Image:
    """A root file system below a directory, to which tests add."""

    def __init__(self, path):
        self.path = path
        for name in ('bin', 'dev', 'proc', 'sys', 'tmp', 'var/tmp', 'etc', '.singularity.d/env'):
            (path / name).mkdir(parents=True)
        shutil.copy(shutil.which('busybox'), path / 'bin')
        for name in APPLETS:
            (path / 'bin' / name).symlink_to('busybox')

    def env(self, text):
        """Let the image set its environment by shell commands, as a definition's %environment does."""
        (self.path / '.singularity.d/env/90-environment.sh').write_text(text)

    def file(self, name, text='#!/bin/sh\n', mode=0o755):
        """Add a file."""
        path = self.path / name.lstrip('/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def labels(self, **labels):
        """Let the image have labels; ``__`` in a name stands for a full stop."""
        self.file('.singularity.d/labels.json', json.dumps({name.replace('__', '.'): value
                                                            for name, value in labels.items()}), 0o644)

    def package(self, directory, name, version, metadata='', commands=()):
        """Add the record of a Python package to a directory of packages."""
        info = '%s/%s-%s.dist-info/' % (directory, name.replace('-', '_'), version)
        self.file(info + 'METADATA', 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n%s' % (name, version, metadata),
                  0o644)
        self.file(info + 'entry_points.txt', '[console_scripts]\n%s' % ''.join(
            '%s = x:main\n' % command for command in commands), 0o644)
        for command in commands:
            self.file('/usr/bin/' + command)

    def conda(self, root, *names):
        """Add a conda with environments."""
        for prefix in (root, *('%s/envs/%s' % (root, name) for name in names)):
            self.file(prefix + '/conda-meta/history', '')
            self.file(prefix + '/bin/tool-of-conda')
        self.file(root + '/bin/activate', 'conda_activate\n', 0o644)

    def look(self, commands=(), python_env=None, conda_env=None, provides=(), python_packages=()):
        """Look inside (ImageFacts)."""
        recipe = SimpleNamespace(commands={word: (word,) for word in commands}, python_env=python_env,
                                 provides=dict.fromkeys(provides),
                                 conda_env=conda_env, python_packages=python_packages,
                                 venv=python_env or (python_packages and 'jax'))
        return inspect.look_inside(str(self.path), RUNTIME(), recipe, 'jax-24.10.eb')

    def error(self, *args, **kwargs):
        """Look inside, which must fail (EasySIFError)."""
        with pytest.raises(EasySIFError) as err:
            self.look(*args, **kwargs)
        return err.value


def RUNTIME():
    return runtime.find(SimpleNamespace(runtime='auto'))


@pytest.fixture
def image(tmp_path):
    """An image with a shell and little else (Image)."""
    return Image(tmp_path / 'image')


@pytest.fixture(scope='session')
def python_tree(tmp_path_factory):
    """The files of a Python in /usr of an image (Path): python3, its libraries and modules, without ensurepip."""
    tree = tmp_path_factory.mktemp('python')
    tree.chmod(0o755)  # becomes /usr, which in a SIF is another user's
    binary = os.path.realpath(sys.executable)
    version = sysconfig.get_python_version()
    (tree / 'bin').mkdir()
    shutil.copy(binary, tree / 'bin' / ('python' + version))
    (tree / 'bin/python3').symlink_to('python' + version)
    shutil.copytree(sysconfig.get_path('stdlib'), tree / 'lib' / ('python' + version), ignore=SKIPPED)
    (tree / 'lib' / ('python' + version) / 'site-packages').mkdir()
    (tree / 'lib' / ('python' + version) / 'dist-packages').mkdir()
    (tree / 'lib/python3/dist-packages').mkdir(parents=True)
    objects = [binary, *(tree / 'lib').glob('**/*.so')]
    listed = subprocess.run(['ldd', *map(str, objects)], stdout=subprocess.PIPE, universal_newlines=True).stdout
    (tree / 'libraries').mkdir()
    for path in set(re.findall(r'(/\S+) \(0x', listed)):
        shutil.copy(path, tree / 'libraries')
    return tree


@pytest.fixture
def python_image(image, python_tree):
    """An image with a real Python at /usr/bin/python3 (Image)."""
    shutil.copytree(python_tree, image.path / 'usr', symlinks=True, copy_function=os.link)
    for name in ('lib', 'lib64'):  # where the dynamic loader is looked for
        (image.path / name).symlink_to('usr/libraries')
    image.env('export LD_LIBRARY_PATH=/usr/libraries\n')
    return image
