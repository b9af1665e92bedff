# SPDX-License-Identifier: GPL-2.0-only
"""From a recipe and from the record of an installation to what its module is made from."""

import sys

from easysif.images.inspect import Conda
from easysif.module import Command, Installation


def parameters(recipe, inside):
    """Return what the module depends on beside the image, as the manifest has it (dict).

    :param recipe: the recipe (Recipe)
    :param inside: what the image holds (dict)
    """
    commands = {}
    for name, words in recipe.commands.items():
        found = inside['commands'].get(words[0], {})
        commands[name] = {'words': list(words),
                          'python_script': found['path'] if found.get('is_python_script') else None}
    return {'variable': recipe.env_suffix, 'environment': recipe.is_environment, 'python_env': recipe.python_env,
            'needs': list(recipe.needs), 'binds': list(recipe.binds), 'container_env': dict(recipe.container_env),
            'commands': commands, 'runscripts': list(recipe.runscripts), 'eb_python': sys.executable}


def describe(record, prefix, root):
    """Return what the plan of the module depends on (Installation).

    :param record: the manifest (dict)
    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    """
    inside, known = record['inside'], dict(record['parameters'])
    image = record['image'] or {'file': '', 'size': 0, 'sha256': ''}
    python = inside['python'] or {'path': '', 'version': ''}
    commands = {name: Command(tuple(command['words']), command['python_script'])
                for name, command in known.pop('commands').items()}
    return Installation(
        module=record['module'], prefix=prefix, root=root, sif_name=image['file'], sif_size=image['size'],
        conda=Conda(**inside['conda']) if inside['conda'] else None, shell=inside['shell'], image_env=inside['env'],
        layer=(record.get('layer') or {}).get('venv'), image=image['sha256'] and 'sha256:' + image['sha256'],
        commands=commands, provides=inside.get('provides') or {}, sif_link=image.get('link'),
        python=python['path'], python_version='.'.join(python['version'].split('.')[:2]), **known)
