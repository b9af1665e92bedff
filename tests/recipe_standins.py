# SPDX-License-Identifier: GPL-2.0-only
"""Stand-ins for the images of recipes, made from what a recipe itself tells of its image.

One image serves many recipes: tests/images/recipes-*.image. For each recipe a directory /stand-in is added to it, with
Python packages of the names and versions that the recipe knows of, its commands, and the name of its conda
environment. A module of such a package answers for its version; those in tests/images/recipes do what the tests of
recipes ask of them, too.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import textwrap
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import harness

SOURCES = harness.IMAGES / 'recipes'

#: what a package is called when it is imported, where that is another name
MODULES = {'tensorflow-rocm': 'tensorflow', 'scikit-learn': 'sklearn'}

#: the version that is taken where a recipe leaves it open
ANY_VERSION = '1.0'

#: the packages that bring commands
BRING = {'torch': 'torchrun', 'jupyterlab': 'jupyter'}

#: the Python that every stand-in can have
DEBIAN = '3.11'

#: a command that is a Python script of the image
SCRIPT = '''#!/usr/bin/env python3
import sys
print('  python3    /stand-in/kernel' if sys.argv[1:] == ['kernelspec', 'list'] else 'a stand-in: %s' % sys.argv)
'''

METADATA = 'Metadata-Version: 2.1\nName: %s\nVersion: %s\nProvides-Extra: cuda12\n'

SYSTEM_PARTITION = ('--datatype', '4', '--parttype', '2', '--partfs', '1', '--partarch', '2', '--groupid', '1')

MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'


@dataclass
class Facts:
    """What recipes tell of an image: its base (of tests/images), what it is for others, packages, those that pip is to
    find, commands that the base has not, its conda environment, the minor version of its Python."""

    base: str
    title: str
    packages: dict = field(default_factory=dict)
    wheels: dict = field(default_factory=dict)
    commands: set = field(default_factory=set)
    conda: str = ''
    python: str = ''

    @property
    def is_pulled(self):
        """Whether a registry serves it, and not a file (bool)."""
        return self.title.startswith('docker://') and '@' not in self.title

    def join(self, other):
        """Add what another recipe tells of the same image."""
        for name, version in other.packages.items():
            if self.packages.get(name, ANY_VERSION) == ANY_VERSION:
                self.packages[name] = version
        self.wheels.update(other.wheels)
        self.commands |= other.commands


def facts(recipe):
    """Return what a recipe tells of its image, or of the base of its definition (Facts).

    :param recipe: the recipe (recipe.Recipe)
    """
    if recipe.image.endswith('.def'):
        definition = (Path(recipe.path).parent / recipe.image).read_text().replace('%(version)s', recipe.version)
        wheels = dict(re.findall(r'([\w.-]+)(?:\[\w+\])?==([\w.+]+)', definition))
        return Facts('recipes-python' if recipe.venv else 'recipes-tools', base_of(definition, recipe), wheels=wheels)
    if not recipe.venv:
        return Facts('recipes-tools', recipe.image)
    return Facts('recipes-conda' if recipe.image.endswith('.sif') else 'recipes-python', recipe.image,
                 {name: version or ANY_VERSION for name, version in recipe.provides.items()},
                 dict(one.split('==') for one in recipe.python_packages),
                 {words[0] for words in recipe.commands.values()} - {'python', 'python3', 'pip', 'pip3'},
                 recipe.conda_env or recipe.python_env, minor_of(recipe))


def minor_of(recipe):
    """Return the minor version of the image's Python that a recipe tells of: ``3.12`` (str), '' where it tells of none.
    """
    found = re.search(r'-python-(3\.\d+)-', recipe.versionsuffix + '-')
    return found[1] if found else ''


def had():
    """Return the minor versions of Python that the stand-ins have: Debian's, and those of this machine (set of str)."""
    return {DEBIAN, *(path.parent.name for path in (harness.CACHE / 'pythons').glob('3.*/version'))}


def python_of(found, pythons):
    """Return the minor version of the Python that the stand-in of Facts gets (str), and what its README says (str).

    :param pythons: those that are to be had (set of str)
    """
    if found.python in pythons - {DEBIAN} and found.base == 'recipes-conda':
        return found.python, 'is a %s of the machine that made it, as the image has' % found.python
    why = 'as the image has' if found.python == DEBIAN else \
        'as no %s was to be had here' % found.python if found.python else 'as no recipe tells which one the image has'
    return DEBIAN, "is Debian's %s, %s" % (DEBIAN, why)


def base_of(definition, recipe):
    """Return the base of a definition, as ``base_images`` of a site names it, or the name of its file (str)."""
    bootstrap, base = (re.search('^%s: (.*)$' % key, definition, re.M)[1] for key in ('Bootstrap', 'From'))
    for name, value in recipe.build_args.items():
        base = base.replace('{{ %s }}' % name, value)
    return base if bootstrap == 'localimage' else 'docker://%s' % base


def package(name, version):
    """Return the files of a Python package that answers for its version: path -> text (dict)."""
    module, info = MODULES.get(name, name).replace('-', '_'), '%s-%s.dist-info' % (name.replace('-', '_'), version)
    source = SOURCES / ('%s.py' % module)
    text = source.read_text() if source.exists() else '"""A stand-in, made by the tests of EasySIF."""\n'
    files = {module + '.py': "%s\n__version__ = '%s'\n" % (text, version),
             info + '/METADATA': METADATA % (name, version),
             info + '/WHEEL': 'Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
             info + '/RECORD': ''}
    if name in BRING:
        files['stand_in_%s.py' % module] = 'def main():\n' + textwrap.indent(SCRIPT, '    ')
        files[info + '/entry_points.txt'] = '[console_scripts]\n%s = stand_in_%s:main\n' % (BRING[name], module)
    return files


def make_tree(found, directory, pythons=frozenset({DEBIAN})):
    """Write what is added to the image of Facts below a directory, and return it (Path).

    :param pythons: the minor versions of Python that are to be had (set of str)
    """
    top = Path(directory) / 'stand-in'
    minor, says = python_of(found, pythons)
    texts = {'README': 'This stands in for %s, of which it has what a recipe tells.\n'
                       'Its Python, if it has one, %s.\n' % (found.title, says),
             'pip.conf': '[global]\nno-index = true\nfind-links = /stand-in/wheels\n'}
    for name, version in found.packages.items():
        texts.update({'site-packages/' + path: text for path, text in package(name, version).items()})
    texts.update({'bin/' + name: SCRIPT for name in found.commands if not name.startswith(('python', 'pip'))})
    for path, text in texts.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
        (top / path).chmod(0o755 if path.startswith('bin/') else 0o644)
    prefix = '/opt/miniconda3/pythons/%s' % minor
    python = prefix + '/bin' if found.base == 'recipes-conda' else '/usr/local/bin'
    for name in found.commands:
        if name.startswith(('python', 'pip')):  # of another version than the base has on its PATH
            (top / 'bin').mkdir(exist_ok=True)
            (top / 'bin' / name).symlink_to('%s/%s3' % (python, re.match('[a-z]+', name)[0]))
    if found.base == 'recipes-conda':
        (top / 'envs').mkdir()
        (top / 'envs' / found.conda).symlink_to(prefix)
    for name, version in found.wheels.items():
        make_wheel(name, version, top / 'wheels')
    return top


def make_wheel(name, version, directory):
    """Write a wheel of such a package into a directory."""
    source = directory / name
    for path, text in package(name, version).items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    archive = shutil.make_archive(str(source), 'zip', source)
    shutil.rmtree(source)
    os.rename(archive, directory / ('%s-%s-py3-none-any.whl' % (name.replace('-', '_'), version)))


class StandIns:
    """Makes stand-ins as recipes want them.

    :param images: the images of tests/images (harness.Images)
    :param directory: the image store of a site, in which SIF files are put (Path)
    """

    def __init__(self, images, directory):
        self.images, self.directory, self.squashfs = images, directory, {}
        directory.mkdir()

    def make(self, wanted):
        """Make those of recipes, and return what a site has to know of them: ``base_images`` (dict).

        :param wanted: the recipes (list of recipe.Recipe)
        """
        found, bases = {}, {}
        for one in map(facts, wanted):
            found.setdefault(one.title, one).join(one)
        for title, one in found.items():
            with tempfile.TemporaryDirectory(dir=self.directory) as work:
                tree = make_tree(one, work, had())
                if one.is_pulled:
                    self.push(one, tree)
                    continue
                name = title if title.endswith('.sif') else '%s.sif' % one.base
                self.pack(one.base, tree, self.directory / name)
                bases.update({} if name == title else {title: str(self.directory / name)})
        return bases

    def pack(self, base, tree, target):
        """Make a SIF file of a base with a directory added to it."""
        env = harness.user_environment(self.directory / 'home')
        if base not in self.squashfs:
            self.squashfs[base] = self.directory / ('base of %s' % base)
            listed = harness.run(['apptainer', 'sif', 'list', self.images.sif(base)], env=env).stdout
            number = re.search(r'^(\d+) .*FS \(Squashfs/\*System', listed, re.M)[1]
            dump = 'apptainer sif dump "$1" "$2" >"$3"'
            harness.run(['sh', '-c', dump, 'sh', number, self.images.sif(base), self.squashfs[base]], env=env)
        squashfs = target.with_suffix('.squashfs')
        shutil.copyfile(self.squashfs[base], squashfs)
        harness.run(['mksquashfs', tree, squashfs, '-keep-as-directory', '-no-progress', '-no-recovery', '-all-root'],
                    env=env)
        harness.run(['apptainer', 'sif', 'new', target], env=env)
        harness.run(['apptainer', 'sif', 'add', *SYSTEM_PARTITION, target, squashfs], env=env)
        squashfs.unlink()

    def push(self, found, tree):
        """Put an image of a base, with a directory as one more layer, into the registry under the name of Facts."""
        repository, tag = re.fullmatch('docker://[^/]+/(.+):([^:]+)', found.title).groups()
        origin, base_tag = self.images.path(found.base)
        _, manifest = self.images.registry.manifest(origin, base_tag)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode='w') as tar:
            tar.add(tree, 'stand-in', filter=_as_root)
        config = json.loads(self._get('%s/blobs/%s' % (origin, manifest['config']['digest'])))
        config['rootfs']['diff_ids'].append(_digest(packed.getvalue()))
        config['history'].append({'created_by': 'tests/recipe_standins.py'})
        layer = gzip.compress(packed.getvalue(), mtime=0)
        for other in manifest['layers']:
            self._send('POST', '%s/blobs/uploads/?mount=%s&from=%s' % (repository, other['digest'], origin))
        manifest['layers'].append(self._blob(repository, layer, LAYER))
        manifest['config'] = self._blob(repository, json.dumps(config).encode(), manifest['config']['mediaType'])
        self._send('PUT', '%s/manifests/%s' % (repository, tag), json.dumps(manifest).encode(), MANIFEST)

    def _blob(self, repository, data, kind):
        location = self._send('POST', '%s/blobs/uploads/' % repository)
        self._send('PUT', '%s%sdigest=%s' % (location, '&' if '?' in location else '?', _digest(data)), data,
                   'application/octet-stream')
        return {'mediaType': kind, 'digest': _digest(data), 'size': len(data)}

    def _get(self, path):
        with urllib.request.urlopen('%s/v2/%s' % (self.images.registry.url, path), timeout=30) as answer:
            return answer.read()

    def _send(self, method, path, data=b'', kind='application/octet-stream'):
        url = path if '://' in path else '%s/v2/%s' % (self.images.registry.url, path)
        request = urllib.request.Request(url, data=data, method=method, headers={'Content-Type': kind})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers.get('Location')


def _as_root(info):
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = 'root'
    return info


def _digest(data):
    return 'sha256:%s' % hashlib.sha256(data).hexdigest()
