# SPDX-License-Identifier: GPL-2.0-only
"""Compiles what pip left as source, as a packed overlay is read-only: each import would compile it again."""

import os
from contextlib import suppress

from easysif.errors import EasySIFError
from easysif.resources import processors
from easysif.run import run

#: what the wrapper that called us has set for its own container; each wrapper sets it anew
OURS = ('SINGULARITYENV_', 'APPTAINERENV_', 'SINGULARITY_BIND', 'APPTAINER_BIND', 'CONTAINERROOT', 'USER_SOFTWARE',
        'EASYSIF_SET', 'EASYSIF_KEPT', 'EASYSIF_ADDED')
TIME = 600  #: seconds after which it is left


def missing(content):
    """Return the sources below a ``site-packages`` that are not compiled, as they are called in a container (list).

    :param content: what is in the directory (Content)
    """
    compiled, sources = set(), []
    for name, *_ in content.entries:
        directory, _, last = name.rpartition(b'/')
        if last.endswith(b'.pyc') and directory.endswith(b'/__pycache__'):
            compiled.add((directory[:-len(b'/__pycache__')], last.split(b'.cpython-')[0].split(b'.pypy')[0]))
        elif last.endswith(b'.py') and b'/site-packages/' in name and b'\n' not in name:
            sources.append((directory, last))
    left = [b'/'.join(one) for one in sources if (one[0], one[1][:-len(b'.py')]) not in compiled]
    return [os.fsdecode(b'/user-software/' + name) for name in left]


def compile_missing(overlay, content):
    """Compile what is missing, by the module's own Python. Where that fails, it is slower and nothing else.

    :param overlay: the overlay (Overlay)
    :param content: what is in the directory (Content)
    :returns: whether something may have been compiled (bool)
    """
    sources, python = missing(content), _python(overlay)
    if not sources or not python or os.path.lexists(overlay.squashfs):  # it would be what is seen in the container
        return False
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with suppress(EasySIFError, UnicodeError):
        run([*python, '-m', 'compileall', '-q', '-j', processors(), '-i', '-'], env=env, check=False, timeout=TIME,
            stdin='\n'.join(sources) + '\n')
    return True


def _python(overlay):
    """Return the words that start the Python of the module (list of str), None where it has none."""
    commands = os.path.join(overlay.installation or '', 'bin')
    for name in ('python3', 'python'):
        if os.path.lexists(os.path.join(commands, name)):
            return [os.path.join(commands, name)]
    shell = os.path.join(commands, 'start-shell')
    return [shell, '-c', 'exec python3 "$@"', 'python3'] if os.path.lexists(shell) else None
