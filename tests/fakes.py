# SPDX-License-Identifier: GPL-2.0-only
"""Installations without a container: what modules and wrappers do to the environment, through Lmod and sh."""

import dataclasses
import functools
import os
import shutil
import struct
import subprocess

import harness
from easysif import render, site_files
from easysif.data import helper
from easysif.module import Command, Installation, module_plan
from easysif.site import resolve
from easysif.wrappers import module_shell

PYTHON = {'python': {'path': '/usr/bin/python3'}}

# The ways to load a module: what defines `module`, and where a Fake has its module files for it. Lmod cannot load one
# in Tcl from a directory with a space.
TOOLS = {'Lmod with Lua': (harness.LMOD_INIT, 'modules/all'), 'Lmod with Tcl': (harness.LMOD_INIT, '../tcl'),
         'Environment Modules': (harness.MODULES_INIT, '../tcl')}

# What these tools keep for themselves.
BOOKKEEPING = ('__LMOD', '_ModuleTable', '__MODULES', 'LOADEDMODULES', '_LMFILES_')


@functools.lru_cache(maxsize=None)
def default_site():
    """The site of a machine that is none in particular (Site)."""
    return resolve({}).site


class Fake:
    """An installation without a container: the files that modules and wrappers read, and an image of four bytes."""

    def __init__(self, prefix, **changes):
        self.prefix = prefix
        values = dict(module='jax/24.10', variable='JAX', sif_name='jax.sif', sif_size=4, environment=True,
                      eb_python='/opt/eb/python', python_env='jax', shell='/bin/sh',
                      commands={'python': Command(('python',))})
        values.update(changes)
        self.root = prefix / 'software' / values['module']
        self.overlay = prefix / 'overlays' / values['module']
        self.inst = Installation(prefix=str(prefix), root=str(self.root), **values)
        (self.root / 'easysif').mkdir(parents=True)
        (self.root / 'runscripts').mkdir()
        self.sif = self.root / self.inst.sif_name
        self.sif.write_text('1234')
        shutil.copy(helper('wrapper'), self.root / 'easysif' / 'wrapper')
        (self.root / 'easysif' / 'module.sh').write_text(module_shell(self.inst, PYTHON))
        self.site()
        for text, name in ((render.lua, 'modules/all/%s.lua'), (render.tcl, '../tcl/%s')):
            module = prefix / (name % self.inst.module)
            module.parent.mkdir(parents=True, exist_ok=True)
            head = '#%Module\n' if text is render.tcl else ''
            module.write_text(head + text(module_plan(self.inst), str(self.root), str(prefix)))

    def site(self, refused=(), **settings):
        site = dataclasses.replace(default_site(), **dict({'ca_certificates': ''}, **settings))
        site_files.apply(str(self.prefix), site, refused)
        site_files.write(str(self.root / 'easysif'), site, refused)

    def give_away(self):
        """Let the prefix be of somebody else: what says whose it is becomes a file of root's."""
        marker = self.prefix / 'easysif' / 'prefix.json'
        marker.unlink()
        marker.symlink_to('/etc/passwd')

    def binds(self, *more):
        return ','.join(['%s/runscripts:/runscripts' % self.root,
                         '%s/user-software:/user-software' % self.overlay, *map(str, more)])

    def _environment(self, home, env):
        base = {'HOME': str(home), 'PATH': harness.SYSTEM_PATH, 'USER': 'u', 'LANG': 'C.UTF-8', **env}
        return {name: str(value) for name, value in base.items() if value is not None}

    def by_module(self, home, env, script='module load %(module)s', tool='Lmod with Lua'):
        init, modules = TOOLS[tool]
        text = '%s; module use "$1"; %s; env -0' % (init, script % {'module': self.inst.module})
        out = subprocess.run(['bash', '--norc', '-c', text, 'bash', os.path.normpath(self.prefix / modules)],
                             env=self._environment(home, env), capture_output=True)
        return _parse(out.stdout), out.stderr.decode()

    def by_wrapper(self, home, env):
        out = subprocess.run([str(self.root / 'easysif' / 'wrapper'), 'print-environment'], capture_output=True,
                             env=self._environment(home, env))
        return _parse(out.stdout.replace(b'\n', b'\0')), out.stderr.decode()


def _parse(data):
    return dict(line.split('=', 1) for line in data.decode('utf-8', 'surrogateescape').split('\0') if '=' in line)


def both(env, name):
    assert env.get('SINGULARITY' + name) == env.get('APPTAINER' + name)
    return env.get('APPTAINER' + name)


def users(env):
    """Return an environment without what the module tools keep for themselves (dict)."""
    return {name: value for name, value in env.items() if not name.startswith(BOOKKEEPING)}


def squashfs(path, size=200, used=200, compressor=6):
    """Write what begins like a squashfs file of ``used`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack('<4s16xH18xQ', b'hsqs', compressor, used).ljust(size, b'\0')[:size])
