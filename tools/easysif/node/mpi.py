# SPDX-License-Identifier: GPL-2.0-only
"""Whether the MPI of the host takes the place of that of an image: it does where it has the name that programs ask for.

That name stands for the binary interface: ``libmpi.so.12`` is that of MPICH, Cray MPICH, Intel MPI and MVAPICH, which
Debian calls ``libmpich.so.12``; ``libmpi.so.40`` is that of Open MPI. A program that finds the image's own MPI runs all
the same, but each of its ranks is alone.
"""

import os
import re

from easysif.node.finding import NOTE, OK, PROBLEM, Finding

NAME = re.compile(r'libmpi(ch|_abi)?\.so\.(\d+)$')


def names(paths):
    """Return the names of MPI libraries among paths, without the versions that no program asks for (list of str)."""
    return sorted({name for name in map(os.path.basename, paths) if NAME.match(name)})


def kind(name):
    """Return which MPI has a library of that name (str)."""
    suffix, number = NAME.match(name).groups()
    return 'the standard interface' if suffix == '_abi' else 'MPICH' if suffix or number == '12' else 'Open MPI'


def described(found):
    """Return names with the MPI that each is of (str)."""
    return ', '.join('%s (%s)' % (name, kind(name)) for name in found)


def fits(own, brought):
    """Return whether programs of an image find what the host brings, or may do so (bool).

    :param own: the names of the image's own MPI libraries (list of str)
    :param brought: those of the host's (list of str)
    """
    return not (own and brought) or bool(set(own) & set(brought))


def remedy(own, brought):
    """Return what helps where they do not fit (str)."""
    for name in own:
        for other in brought:
            if kind(name) == kind(other):
                return 'give it that name, too, in the site file: libraries: [/path/to/%s:%s]' % (other, name)
    return 'use an image with %s' % kind(brought[0])


def check(own, brought):
    """Yield whether the host's MPI takes the place of the image's (Finding)."""
    if not brought:
        return
    if not own:
        yield Finding(NOTE, 'mpi', 'no MPI library in the usual places of the image; the host brings %s'
                      % described(brought))
    elif not fits(own, brought):
        yield Finding(PROBLEM, 'mpi', 'the image has %s, the host brings %s' % (described(own), described(brought)),
                      remedy(own, brought))
    else:
        yield Finding(OK, 'mpi', "the host's %s takes the place of the image's"
                      % described(sorted(set(own) & set(brought))))
        for name in sorted(set(own) - set(brought)):
            yield Finding(NOTE, 'mpi', "programs that ask for %s get the image's own" % name, remedy([name], brought))
