# SPDX-License-Identifier: GPL-2.0-only
"""A private directory for the making of one image, which is gone afterwards, whatever happens."""

import glob
import os
import shlex
import shutil
import tempfile
from contextlib import contextmanager

from easysif import files, holder
from easysif.errors import EasySIFError
from easysif.run import run

PREFIX = 'easysif-build-'


@contextmanager
def workspace(tmp_dir, target, log, where):
    """Give a private directory for one build; it goes at the end, and a target that was not finished with it.

    :param tmp_dir: where it is made (str)
    :param target: the SIF file to be built, which must not exist (str)
    :param log: file that takes what there is to say of it (str)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: the target is there, or the directory cannot be made
    """
    if os.path.lexists(target):
        raise EasySIFError(where, 'the SIF file to be built is there already', facts=[('file', target)],
                           hint='rm -- %s' % shlex.quote(target))
    try:
        work = tempfile.mkdtemp(prefix=PREFIX, dir=os.path.abspath(tmp_dir))
    except OSError as err:
        raise EasySIFError(where, "no directory to build in can be made in '%s' (%s)" % (tmp_dir, err.strerror),
                           hint='set tmp_dir in the site file, or EASYSIF_TMP_DIR') from err
    try:
        sweep(tmp_dir, log)
        with open(os.path.join(work, holder.NAME), 'w', encoding='utf-8') as handle:
            handle.write(holder.write(where, ''))
        for name in ('runtime', 'cache', 'bin', 'inside/tmp/.easysif', 'inside/var/tmp'):
            os.makedirs(os.path.join(work, name))
        for name in ('tmp', 'var/tmp'):
            os.chmod(os.path.join(work, 'inside', name), 0o1777)
        yield work
    except BaseException:
        if os.path.lexists(target):
            os.unlink(target)
        raise
    finally:
        remove(work, log)


def clear(directory):
    """Remove what a killed build left, which EasyBuild cannot, and return what the user has to know (str or None).

    :param directory: where images are built, and which EasyBuild is going to make anew (str)
    """
    log = os.path.join(directory, 'build.log')
    left = sweep(directory, log, os.path.dirname(directory)) if os.path.isdir(directory) else ()
    return 'a build that was killed left files of other users: unshare --map-root-user --map-auto rm -rf %s' % (
        shlex.join(left)) if left else None


def sweep(tmp_dir, log, aside=None):
    """Remove what builds of ours left that were killed on this machine.

    :param tmp_dir: where their directories are (str)
    :param log: file that takes what there is to say of it (str)
    :param aside: where to move what cannot be removed, so that it is in nobody's way (str), None for nowhere
    :returns: what was moved there (list of str)
    """
    moved = []
    for path in glob.glob(os.path.join(glob.escape(tmp_dir), PREFIX + '*')):
        if not holder.is_dead_in(path):
            continue
        remove(path, log)
        if aside and os.path.lexists(path):
            moved.append(os.path.join(aside, os.path.basename(path)))
            os.rename(path, moved[-1])
    return moved


def remove(path, log):
    """Remove a directory of ours; what cannot be removed is named in the log, as the build itself is over."""
    try:
        files.remove_tree(path)
    except OSError:
        # a build that was killed leaves files of the users that it had inside, which only such a build may remove
        argv = ['unshare', '--map-root-user', '--map-auto', 'rm', '-rf', '--', path]
        if shutil.which(argv[0]):
            run(argv, log=log, check=False)
    if os.path.lexists(path):
        with open(log, 'a', encoding='utf-8') as handle:
            handle.write('easysif: this directory of the build could not be removed: %s\n' % path)
