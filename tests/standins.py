# SPDX-License-Identifier: GPL-2.0-only
"""Stand-in images installed as modules by the library, without EasyBuild: in seconds, with any parameters."""

import dataclasses
import os
import pty
import select
import shutil
import subprocess
import time

import harness
from easysif import recipe, site
from easysif.install import Install
from easysif.obtain import Obtained
from easysif.standing import Standing

#: what the recipes for the stand-in images say; the names are those of tests/images
RECIPES = {
    'jax': dict(python_env='jax', needs=['nvidia-gpu'], commands=['python', 'python3', 'pip', 'tqdm', 'sh', 'env']),
    'conda': dict(python_env='science', commands=['python', 'pip', 'tqdm']),
    'conda-active': dict(python_env='science', commands=['python', 'pip']),
    'venv': dict(python_env='tools', commands=['python', 'pip', 'tqdm']),
    'python': dict(python_env='py', commands=['python3']),
    'busybox': dict(),
    'samtools': dict(commands=['samtools']),
    'static': dict(commands=['echo']),
}


class Module:
    """An installed stand-in: ``name`` (as ``jax/1``), ``prefix``, ``root``, ``sif``, ``bin`` (Path).

    :param overlays: where overlays of this test are (Path); the prefix belongs to others as far as the test goes
    """

    def __init__(self, install, overlays=None):
        self.name, self.variable = install.module, install.recipe.env_suffix
        self.prefix, self.root = harness.Path(install.prefix), harness.Path(install.root)
        self.sif, self.bin = self.root / install.installation.sif_name, self.root / 'bin'
        self.overlays = overlays or self.prefix / 'overlays'
        self.overlay = self.overlays / self.name
        self.home = self.overlays.parent / 'home'

    def env(self, **changes):
        """Return the environment of a user of this module, without the module loaded (dict); None takes away."""
        env = dict(harness.user_environment(self.home), EASYSIF_OVERLAYS=self.overlays)
        env.update(changes)
        return {name: str(value) for name, value in env.items() if value is not None}

    def run(self, command, *args, env=None, **options):
        """Run one of its wrappers and return the Result."""
        return harness.run([self.bin / command, *args], env=env or self.env(), **options)

    def shell(self, script, env=None, **options):
        """Run a script in a shell with the module loaded and return the Result."""
        return harness.run_shell('module load %s\n%s' % (self.name, script), self.prefix, self.home,
                                 env=env or {'EASYSIF_OVERLAYS': self.overlays}, **options)

    def installed_for(self, directory):
        """Return the same module, as it is for a user who has an overlay of their own in a directory (Module)."""
        other = Module.__new__(Module)
        overlays = directory / 'overlays'
        overlays.mkdir()
        other.__dict__.update(self.__dict__, overlays=overlays, overlay=overlays / self.name, home=directory / 'home')
        return other


def install(sif, name, prefix, version='1', settings=None, **parameters):
    """Install a SIF file by the library and write its module (Module).

    :param settings: settings of the site (dict)
    :param parameters: those of a recipe
    """
    values = dict(easyblock='ContainerImage', name=name, version=version, homepage='https://example.org',
                  description='a stand-in', toolchain={'name': 'system', 'version': 'system'}, moduleclass='tools',
                  image='%s.sif' % name, **parameters)
    here = dataclasses.replace(site.resolve({}).site, **dict(certificates(), **(settings or {})))
    module = '%s/%s' % (name, version)
    root = str(prefix / 'software' / module)
    work = Install(recipe.validate(values, '%s-%s.eb' % (name, version)), here, str(prefix), root, module)
    work.check()
    work.obtained = Obtained(str(sif), origin={'reference': values['image'], 'digest': None})
    work.inspect()
    standing = Standing(root, module, str(prefix / 'modules' / 'all' / (module + '.lua')), [])
    with standing.alone('a test'):
        work.put(standing.make(), [])
        work.make_overlay()
        text = 'local root = "%s"\nprepend_path("PATH", root .. "/bin")\n%s' % (work.root, work.module_text('toy.lua'))
        standing.publish(work.complete(standing, text, []))
        work.root = root
        assert work.finish(root) is None
    return Module(work)


def certificates():
    """Return the site's setting of certificates by which a package index is reached from here (dict)."""
    own = os.environ.get('PIP_CERT', harness.CA_BUNDLE)
    return {'ca_certificates': own} if own != harness.CA_BUNDLE else {}


def package(directory, name, version, command=None, requires=()):
    """Write a wheel that pip installs without any index, and return it (Path).

    :param command: name of a console script, which prints name and version (str)
    :param requires: what it needs (sequence of str)
    """
    source, info = directory / ('%s-%s' % (name, version)), '%s-%s.dist-info' % (name, version)
    files = {
        name + '/__init__.py': "__version__ = '%s'\n" % version,
        name + '/cli.py': "def main():\n    print('%s %s')\n" % (name, version),
        info + '/METADATA': 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' % (name, version) + ''.join(
            'Requires-Dist: %s\n' % one for one in requires),
        info + '/WHEEL': 'Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        info + '/RECORD': '',
    }
    if command:
        files[info + '/entry_points.txt'] = '[console_scripts]\n%s = %s.cli:main\n' % (command, name)
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(content)
    archive = shutil.make_archive(str(source), 'zip', source)
    return harness.Path(archive).rename(directory / ('%s-%s-py3-none-any.whl' % (name, version)))


def on_terminal(argv, env, keys, timeout=120, cwd=None):
    """Run a command on a terminal of its own, type a text and return exit status and what was shown (int, str).

    :param keys: pairs (text that must be shown first, what is typed then) of str
    """
    main, terminal = pty.openpty()
    process = subprocess.Popen(['setsid', '--ctty', *map(str, argv)], env=env, cwd=cwd, stdin=terminal,
                               stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown, seen, end, keys = b'', 0, time.monotonic() + timeout, list(keys)
    try:
        while time.monotonic() < end:
            if keys and keys[0][0].encode() in shown[seen:]:
                seen = len(shown)
                os.write(main, keys.pop(0)[1].encode())
            if select.select([main], [], [], 0.2)[0]:
                try:
                    shown += os.read(main, 4096)
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                break
        if process.poll() is None and time.monotonic() > end:
            raise AssertionError('still running, having shown: %r' % shown)
        return process.wait(timeout=60), shown.decode('utf-8', 'replace')
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(main)
