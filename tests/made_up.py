# SPDX-License-Identifier: GPL-2.0-only
"""Installed modules made up without EasyBuild and without a container: whole as far as files and records go."""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import harness
from easysif import deferred, manifest, site_files, wrappers
from easysif.images import sif
from easysif.images.inspect import Conda
from easysif.module import Command, Installation
from easysif.site import resolve

PYTHON = {'path': '/usr/bin/python3', 'version': '3.11.2', 'prefix': '/usr', 'base_prefix': '/usr', 'has_pip': True,
          'has_venv': True, 'has_ensurepip': True, 'site_packages': []}


def image(path):
    """Write the smallest SIF file that passes for whole (Path)."""
    squashfs = b'hsqs'.ljust(40, b'\0') + (48).to_bytes(8, 'little')
    start = sif.HEADER.size + sif.DESCRIPTOR.size
    head = sif.HEADER.pack(b'', sif.MAGIC, b'01', b'02', b'', 0, 0, 0, 1, sif.HEADER.size, 0, 0, 0)
    extra = sif.PARTITION.pack(1, sif.KIND_SYSTEM, b'02')
    descriptor = sif.DESCRIPTOR.pack(sif.TYPE_PARTITION, True, 1, 1, 0, start, len(squashfs), 0, 0, 0, 0, 0, b'', extra)
    Path(path).write_bytes(head + descriptor + squashfs)


class MadeUp:
    """An installed module: ``name``, ``prefix``, ``root``, ``sif``, ``overlay`` (directory), ``modulefile``, ``link``.

    :param prefix: the prefix (Path)
    :param python_env: name of its virtual environment (str), None for a tool module
    :param ending: of the module file (str): none for one in Tcl
    :param more: parameters of Installation
    """

    def __init__(self, prefix, name='toy/1', python_env='toy', ending='.lua', **more):
        self.prefix, self.name, self.root = prefix, name, prefix / 'software' / name
        self.overlay = prefix / 'overlays' / name
        self.sif = self.root / 'toy.sif'
        self.modulefile = prefix / 'modules' / 'all' / (name + ending)
        self.link = prefix / 'modules' / 'tools' / (name + ending)
        self.root.mkdir(parents=True)
        image(self.sif)
        self.sif.chmod(0o444)
        values = dict(variable=name.split('/')[0].upper(), environment=python_env is not None, python_env=python_env,
                      eb_python='/opt/eb/python', commands={'fine': Command(('fine',))},
                      image='sha256:' + hashlib.sha256(self.sif.read_bytes()).hexdigest(),
                      python=PYTHON['path'] if python_env else '', python_version='3.11' if python_env else '')
        values.update(more)
        self.inst = Installation(module=name, prefix=str(prefix), root=str(self.root), sif_name='toy.sif',
                                 sif_size=self.sif.stat().st_size, shell='/bin/sh', **values)
        self.site = resolve({}).site
        self.inside = {'shell': '/bin/sh', 'env': {}, 'commands': {'fine': {'path': '/bin/fine'}},
                       'conda': asdict(Conda('/conda', 'base', '/conda')) if more.get('conda') else None,
                       'python': PYTHON if python_env else None, 'provides': dict(values.get('provides', {}))}
        wrappers.write(self.inst, self.inside, self.site)
        site_files.apply(str(prefix), self.site)
        self.modulefile.parent.mkdir(parents=True, exist_ok=True)
        block = deferred.block(self.inst, str(self.modulefile))
        head, end = ('help([==[A toy.]==])\n', '--') if ending else ('#%Module\nmodule-whatis {A toy.}\n', '#')
        self.block = [len(head), len(head) + len(block)]
        self.modulefile.write_text(head + block + end + ' the end\n')
        shutil.copyfile(self.modulefile, self.root / 'easysif' / 'modulefile')
        self.link.parent.mkdir(parents=True, exist_ok=True)
        self.link.symlink_to(self.modulefile)
        (self.root / 'easybuild').mkdir()
        (self.root / 'easybuild' / 'log').write_text('of EasyBuild')
        self.record()

    def record(self, **changes):
        """Write ``easysif.json`` of what is there now, but for some changes; return it (dict)."""
        digest = hashlib.sha256(self.sif.read_bytes()).hexdigest()
        inst = self.inst
        values = {
            'schema': 2, 'module': self.name, 'recipe': self.name.replace('/', '-') + '.eb', 'site': 'default',
            'runtime': {'name': 'apptainer', 'version': '1.4.5'},
            'image': {'reference': 'docker://example.org/toy:1', 'digest': 'sha256:' + 'd' * 64,
                      'manifest_digest': 'sha256:' + 'e' * 64, 'source': 'example.org', 'file': 'toy.sif',
                      'sha256': digest, 'size': self.sif.stat().st_size, 'architecture': 'amd64'},
            'inside': self.inside, 'tests': [{'command': 'fine x', 'result': 'passed'}],
            'files': manifest.contents(str(self.root), 'toy.sif'),
            'modulefile': {'path': str(self.modulefile), 'links': [str(self.link)],
                           'sha256': hashlib.sha256(self.modulefile.read_bytes()).hexdigest(), 'block': self.block},
            'parameters': {'variable': inst.variable, 'environment': inst.environment, 'python_env': inst.python_env,
                           'needs': inst.needs, 'binds': inst.binds, 'container_env': inst.container_env,
                           'commands': {name: asdict(command) for name, command in inst.commands.items()},
                           'eb_python': inst.eb_python}, **changes}
        manifest.write(str(self.root), values)
        return values

    def copy(self, name):
        """Make the same module under another name of the same length; what does not name it is shared by links."""
        assert len(name) == len(self.name)
        old, root = json.loads((self.root / 'easysif.json').read_text()), self.prefix / 'software' / name
        shared = ('runscripts', 'easysif/lib')
        shutil.copytree(self.root, root, symlinks=True, copy_function=os.link, ignore=lambda path, _: [
            os.path.basename(one) for one in shared if path == str((self.root / one).parent)])
        for one in shared:
            (root / one).symlink_to(self.root / one)
        made = {path: (root / path).read_text().replace(self.name, name) for path in (
            'easysif/module.sh', 'easysif/module.lua', 'easysif/module.tcl', 'easysif/modulefile')}
        for path, text in made.items():
            old['files'][path] = manifest.sha256(text)
        made['easysif.json'] = json.dumps(old).replace(json.dumps(old['modulefile']['sha256']), json.dumps(
            old['files']['easysif/modulefile'][len('sha256:'):])).replace(self.name, name)
        for path, text in made.items():
            (root / path).unlink()
            (root / path).write_text(text)
        module = self.prefix / 'modules' / 'all' / (name + self.modulefile.suffix)
        module.parent.mkdir(exist_ok=True)
        module.write_text(made['easysif/modulefile'])
        link = self.prefix / 'modules' / 'tools' / (name + self.modulefile.suffix)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(module)

    def files(self):
        """Return the files that are recorded (list of str)."""
        return list(json.loads((self.root / 'easysif.json').read_text())['files'])

    def form_1(self):
        """Turn ``easysif.json`` into what form 1 was, which knew paths only."""
        path = self.root / 'easysif.json'
        values = json.loads(path.read_text())
        del values['modulefile'], values['parameters']
        values.update(schema=1, files=sorted([*values['files'], 'easysif.json', 'toy.sif']))
        path.write_text(json.dumps(values))

    def add_package(self):
        """Put something into the overlay, as pip would."""
        path = self.overlay / 'user-software' / 'venv' / 'toy' / 'package'
        path.parent.mkdir(parents=True)
        path.write_text('precious')

    def pack(self, size=200, used=200):
        """Put a file into the place of the packed overlay that begins like a squashfs of so many bytes."""
        self.overlay.mkdir(parents=True, exist_ok=True)
        packed = self.overlay / 'user-software.squashfs'
        packed.write_bytes((b'hsqs'.ljust(40, b'\0') + used.to_bytes(8, 'little')).ljust(size, b'\0')[:size])
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        (self.overlay / 'overlay.json').write_text(json.dumps({'schema': 1, 'squashfs': {'sha256': digest}}))
        return packed


def run_easysif(*argv, **variables):
    """Run the command easysif in a process of its own and return its harness.Result.

    :param variables: added to the environment of the test
    """
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), **variables)
    return harness.run([sys.executable, '-m', 'easysif.cli', *argv], env=env, check=False)
