# SPDX-License-Identifier: GPL-2.0-only
"""What the image brings and packages of users must not hide: constraint files in the runscripts of an installation."""

import os

from easysif import files

#: what a version is called of which there is none in any index; uv shows it where it refuses
NEVER = 'brought.by.the.image'

#: the variables by which installers find constraints, and the file of ours that each is given
VARIABLES = {'PIP_CONSTRAINT': 'lib/constraints.txt', 'UV_CONSTRAINT': 'lib/constraints-new.txt'}


def write(runscripts, provides):
    """Write the constraint files.

    pip sees what the image brings and leaves it alone as long as the version fits. uv does not look outside the
    virtual environment, and pip is told to with --force-reinstall: both would bring another build of the same version,
    so for them there is no version at all.

    :param runscripts: the directory of the runscripts (str)
    :param provides: what the recipe names of the image: name -> version (dict of str)
    :raises EasySIFError: they cannot be written
    """
    lines = ['%s==%s\n' % pair for pair in sorted(provides.items())]
    never = ['%s==%s%s%s\n' % (name, version, '.' if '+' in version else '+', NEVER)
             for name, version in sorted(provides.items())]
    head = '# What the image brings, and what another build of would hide. Written by eb from the recipe.\n'
    for variable, text in zip(VARIABLES, (lines, never)):
        if provides:
            files.write(os.path.join(runscripts, VARIABLES[variable]), head + ''.join(text))
