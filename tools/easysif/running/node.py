# SPDX-License-Identifier: GPL-2.0-only
"""A command in an image that all processes of a job on a node share: what is meant, and what runs it.

helpers/node does the rest, from the installation of a module or from here.
"""

import itertools
import os
import shlex
import shutil
import sys

from easysif import installed, manifest, runtime
from easysif.data import helper
from easysif.errors import TOOL, EasySIFError
from easysif.running.words import REFERENCE, is_image

SHELL = '/bin/sh'  #: of images that are no modules, by which they are held
WITHOUT_STEPS = ('PBS_JOBID', 'LSB_JOBID')  #: of schedulers whose jobs are one
WRAPPERS, HOLDING = 'node', 'node/launch.py'  #: what an installation has whose wrappers can do either


def argv(word, command, site, prefix, as_json=False):
    """Return the program that becomes a command in a shared image, with its arguments (list of str).

    :param word: a module or a SIF file (str)
    :param command: the command inside (list of str)
    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path (callable that returns a str)
    :param as_json: tell in JSON what is done (bool)
    :raises EasySIFError: there is no such module or file; there is no runtime
    """
    _, _, call = _meant(word, site, prefix, 'node-exec', WRAPPERS)
    return [*call('--only', 'node-exec', ['--json'] if as_json else []), *command]


def hold(word, site, prefix, environ, as_json=False):
    """Return the program that has an image mounted on all nodes of a job until it ends, with its arguments.

    :param environ: the environment (dict); see ``argv`` for the others
    :return: list of str
    :raises EasySIFError: this is no job of Slurm, or one of several processes in it; else as ``argv``
    """
    if not environ.get('SLURM_JOB_ID'):
        other = next((name for name in WITHOUT_STEPS if environ.get(name)), None)
        raise EasySIFError(
            'easysif node-hold', 'this is no job of Slurm', facts=[(other, environ[other])] if other else (), hint=(
                'leave it out: all processes of this job on a node share an image without it' if other
                else 'salloc --nodes=1'))
    if environ.get('SLURM_STEP_NUM_TASKS', '1') != '1':
        raise EasySIFError('easysif node-hold', 'it is called once in a job, not by each rank',
                           facts=[('ranks', environ['SLURM_STEP_NUM_TASKS'])],
                           hint='easysif node-hold %s, in the script before srun' % shlex.quote(word))
    counts = _nodes(environ)
    srun = shutil.which('srun', path=environ.get('PATH'))
    if not srun:
        raise EasySIFError('easysif node-hold', 'srun is not on PATH', exit_code=TOOL, hint='command -v srun')
    module, image, call = _meant(word, site, prefix, 'node-hold', HOLDING)
    said = [*(['--module', module] if module else []), *(['--image', image] if image else []),
            *(['--json'] if as_json else [])]
    return [sys.executable, '-I', '-S', '-B', helper('node'), 'launch', *said, srun, counts,
            *call('--stay', 'node-hold', [])]


def _nodes(environ):
    """Return how many nodes a job has, or each part of a heterogeneous one, with commas between them (str).

    :raises EasySIFError: one of them is no number
    """
    parts = ('SLURM_JOB_NUM_NODES_HET_GROUP_%d' % number for number in itertools.count())
    names = list(itertools.takewhile(environ.get, parts)) or ['SLURM_JOB_NUM_NODES']
    counts = [environ.get(name) or '1' for name in names]
    for name, count in zip(names, counts):
        if not (count.isascii() and count.isdecimal() and int(count)):
            raise EasySIFError('easysif node-hold', 'the job has no number of nodes', facts=[(name, count)],
                               hint='scontrol show job "$SLURM_JOB_ID"')
    return ','.join(counts)


def _meant(word, site, prefix, name, needed):
    """Return what a word means, and how it is called.

    :param name: of the sub-command, for messages (str)
    :param needed: what the installation of a module has to have (str)
    :return: the module (str, None for a file), its image (str, None where users bring their own), a function
    """
    if not is_image(word, prefix):
        top = prefix()
        module, root = installed.find(top, word)
        if not os.path.exists(os.path.join(root, 'easysif', needed)):
            raise EasySIFError(module, 'its wrappers cannot share the image yet, they were made by an older EasySIF',
                               hint='easysif refresh %s%s' % (module, installed.option(top)))
        file = manifest.image_file(manifest.read(root))
        return module, file and os.path.join(root, file), lambda _, verb, options: [
            os.path.join(root, 'easysif', 'wrapper'), verb, *options]
    if REFERENCE.match(word):
        raise EasySIFError(word, 'is no file yet', hint='apptainer pull image.sif %s' % shlex.quote(word))
    if not os.path.isfile(word):
        raise EasySIFError(word, 'there is no such image', hint='ls -l -- %s' % shlex.quote(word))
    found, image = runtime.find(site, 'easysif %s' % name).path, os.path.abspath(word)
    return None, image, lambda how, _, options: [
        sys.executable, '-I', '-S', '-B', helper('node'), 'join', how, *options, '--shell', SHELL, found, image]
