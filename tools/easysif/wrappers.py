# SPDX-License-Identifier: GPL-2.0-only
"""Writes the wrappers and runscripts of an installation, and what they read."""

import os
import shutil

from easysif import deferred, files, overlay, render, site_files
from easysif.data import DIRECTORY, HELPERS, helper
from easysif.images.inspect import Conda
from easysif.module import wrapper_plan
from easysif.packages import protected
from easysif.running import desktop

#: what stands in bin/ of every module, and of those with an overlay
COMMANDS = ('start-shell', 'list-packages')
OVERLAY_COMMANDS = ('make-squashfs', 'unmake-squashfs')


def write(inst, inside, site, directory=None):
    """Fill ``bin``, ``runscripts`` and ``easysif`` of an installation directory; without an image the last alone.

    :param inst: what is installed (Installation)
    :param inside: what the image holds, as in the manifest (dict)
    :param site: the resolved site (Site), whose values serve where those of the prefix cannot be read
    :param directory: where to write it, if that is not the installation itself (str)
    """
    directory = directory or inst.root
    for name, text in deferred.texts(inst).items():
        files.write(os.path.join(directory, name), text)
    site_files.write(os.path.join(directory, 'easysif'), site)
    if not inst.sif_name:
        return
    _copy_runscripts(inst, directory)
    protected.write(os.path.join(directory, 'runscripts'), inst.provides)
    own = os.path.join(directory, 'easysif')
    library = os.path.join(own, 'lib', 'easysif')
    for name in (*overlay.MODULES, *(desktop.MODULES if inst.runscripts else ())):
        os.makedirs(os.path.dirname(os.path.join(library, name)), exist_ok=True)
        shutil.copyfile(os.path.join(DIRECTORY, name + '.py'), os.path.join(library, name + '.py'))
    shutil.copyfile(helper('overlay_main.py'), os.path.join(own, 'lib', '__main__.py'))
    shutil.copyfile(helper('wrapper'), os.path.join(own, 'wrapper'))
    os.chmod(os.path.join(own, 'wrapper'), 0o755)
    shutil.copytree(helper('node'), os.path.join(own, 'node'), dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__'))
    files.write(os.path.join(own, 'module.sh'), module_shell(inst, inside))
    os.makedirs(os.path.join(directory, 'bin'), exist_ok=True)
    for name in [*inst.commands, *inst.runscripts, *COMMANDS, *(OVERLAY_COMMANDS if inst.python_env else ())]:
        link = os.path.join(directory, 'bin', name)
        if not os.path.islink(link):
            os.symlink('../easysif/wrapper', link)


def module_shell(inst, inside):
    """Return ``module.sh``, which the wrappers of an installation read (str).

    :param inst: what is installed (Installation)
    :param inside: what the image holds, as in the manifest (dict)
    """
    python = (inside['python'] or {}).get('path', '')
    values = {'root': inst.root, 'prefix': inst.prefix, 'module': inst.module, 'shell': inst.shell or '',
              'python_env': inst.python_env or '', 'python': python, 'python_command': os.path.basename(python),
              'python_version': inst.python_version, 'image': inst.image, 'eb_python': inst.eb_python}
    lines = ['# shellcheck shell=sh disable=SC2016,SC2034,SC2154',
             '# What the wrappers of this module do. Written by eb.', '']
    lines += ['es_%s=%s' % (name, render.shell_quote(value)) for name, value in sorted(values.items())]
    lines += ['', render.shell(wrapper_plan(inst)), 'es_command() {', '    es_name=$1', '    shift',
              '    case $es_name in']
    for name, command in sorted(inst.commands.items()):
        words = list(command.words)
        if command.python_script and inst.venv:
            words[:1] = ['/runscripts/lib/run-python-script', os.path.basename(python), command.python_script]
        lines.append('        %s) es_run %s "$@" ;;' % (render.shell_quote(name),
                                                        ' '.join(render.shell_quote(word) for word in words)))
    lines += ['        %s) es_desktop_tool %s "$@" ;;' % (name, name) for name in inst.runscripts]
    return '\n'.join(lines + ['    esac', '}', ''])


def _copy_runscripts(inst, directory):
    target = os.path.join(directory, 'runscripts')
    shutil.copytree(os.path.join(HELPERS, 'runscripts'), target, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__'))
    conda = inst.conda or Conda('', '', '')
    values = {'conda_prefix': conda.prefix, 'conda_root': conda.root,
              'python': inst.python_version, 'venv': inst.venv or ''}
    files.write(os.path.join(target, 'lib', 'settings'), '# shellcheck shell=sh disable=SC2016,SC2034\n' + ''.join(
        'easysif_%s=%s\n' % (name, render.shell_quote(value)) for name, value in sorted(values.items())))
