# SPDX-License-Identifier: GPL-2.0-only
"""What the shell of the user brings along that is known to break containers. By name: a value may be secret."""

import os
import re

from easysif.node.finding import NOTE, OK, Finding

#: names that are known to break what runs inside, why, and what helps
KNOWN = (
    (re.compile('LD_PRELOAD$|LD_AUDIT$'), 'libraries of the host are loaded into every command of the image'),
    (re.compile('LD_LIBRARY_PATH$'), 'libraries of the host may be found by the container runtime'),
    (re.compile('PYTHONPATH$|PYTHONHOME$|PYTHONSTARTUP$|PYTHONUSERBASE$'), 'Python finds packages of the host'),
    (re.compile('XALT_'), 'XALT loads itself into every command'),
)

#: settings of the runtimes, and variables for the inside, that are not of a module of ours
RUNTIMES = re.compile('(APPTAINER|SINGULARITY)(ENV)?_')


def check():
    """Yield what is set that is known to break containers, by name."""
    found = False
    for pattern, why in KNOWN:
        names = sorted(name for name in os.environ if pattern.match(name))
        if names:
            found = True
            yield Finding(NOTE, 'variables', '%s: %s' % (', '.join(names), why),
                          'commands of modules keep it out; by hand: env %s singularity exec …'
                          % ' '.join('-u %s' % name for name in names))
    names = sorted(name for name in os.environ if RUNTIMES.match(name) and name not in ours())
    if names:
        found = True
        yield Finding(NOTE, 'variables', '%s: set by another module or by hand, and the container runtime obeys them'
                      % ', '.join(names), 'unset those that you did not mean: unset %s' % names[0])
    if not found:
        yield Finding(OK, 'variables', 'nothing is set that is known to break containers')


def ours():
    """Return the names that a loaded module of ours has set (set of str)."""
    return {pair.partition('=')[0] for pair in os.environ.get('EASYSIF_SET', '').split(';')}
