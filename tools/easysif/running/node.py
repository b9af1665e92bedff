# SPDX-License-Identifier: GPL-2.0-only
"""A command in an image that all processes of a job on a node share: what is meant, and what runs it.

helpers/node does the rest, from the installation of a module or from here.
"""

import os
import shlex
import sys

from easysif import installed, runtime
from easysif.data import helper
from easysif.errors import EasySIFError
from easysif.running.words import REFERENCE, is_image

SHELL = '/bin/sh'  #: of images that are no modules, by which they are held


def argv(word, command, site, prefix, as_json=False):
    """Return the program that becomes a command in a shared image, with its arguments (list of str).

    :param word: a module or a SIF file (str)
    :param command: the command inside (list of str)
    :param site: the resolved site (Site)
    :param prefix: EasyBuild's install path (callable that returns a str)
    :param as_json: tell in JSON what is done (bool)
    :raises EasySIFError: there is no such module or file; there is no runtime
    """
    json = ['--json'] if as_json else []
    if not is_image(word, prefix):
        top = prefix()
        name, root = installed.find(top, word)
        if not os.path.exists(os.path.join(root, 'easysif', 'node')):
            raise EasySIFError(name, 'its wrappers cannot share the image yet, they were made by an older EasySIF',
                               hint='easysif refresh %s%s' % (name, installed.option(top)))
        return [os.path.join(root, 'easysif', 'wrapper'), 'node-exec', *json, *command]
    if REFERENCE.match(word):
        raise EasySIFError(word, 'is no file yet', hint='apptainer pull image.sif %s' % shlex.quote(word))
    if not os.path.isfile(word):
        raise EasySIFError(word, 'there is no such image', hint='ls -l -- %s' % shlex.quote(word))
    return [sys.executable, '-I', '-S', '-B', helper('node'), 'join', '--only', *json, '--shell', SHELL,
            runtime.find(site, 'easysif node-exec').path, os.path.abspath(word), *command]
