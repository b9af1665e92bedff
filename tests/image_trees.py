# SPDX-License-Identifier: GPL-2.0-only
"""Images that are directories, which the container runtime starts as it starts SIF files and to which tests add."""

import shutil
from types import SimpleNamespace

import pytest

from easysif import runtime
from easysif.errors import EasySIFError
from easysif.images import inspect

APPLETS = ('sh', 'ls', 'cat', 'sort', 'sed')


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
