# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python /runscripts/lib/pip_main.py ARG..., or runpy.run_path of it with run_name '__main__'

What pip in the virtual environment of the overlay is: pip itself, in this process, with what only we can say. Where
the overlay cannot be written that is said before pip starts, instead of an error of the file system; where pip fails
because of a package that the image brings, what that is and how to have another one nevertheless; where it could not
reach an index, that, which pip takes for an index that has nothing. Runs under every Python that has venv, so it uses
old syntax only.
"""

import logging
import os
import re
import runpy
import shutil
import stat
import sys

VENVS = '/user-software/'
OF_OTHERS = ('/shared-software/', '/layer/')
CONSTRAINTS = '/runscripts/lib/constraints.txt'
NEVER = '/runscripts/lib/constraints-new.txt'  #: which no version at all fulfils

#: options by which pip writes to another place, or nowhere
ELSEWHERE = re.compile('(--dry-run|--help|-h|--target|-t|--prefix|--root)(=|$)')

#: options by which pip installs anew what is there already: another build of the same version would be let through
ANEW = ('--force-reinstall', '--ignore-installed', '-I')

UNWRITABLE = {
    'packed': ('the overlay is packed, packages cannot be %s',
               'unmake-squashfs && module reload, then the same again (on the host: exit first if you are inside)'),
    'read-only': ('the overlay is on a read-only file system, packages cannot be %s',
                  'export EASYSIF_OVERLAYS=<a directory of yours> && module reload'),
    'of others': ('this environment is not yours, packages cannot be %s',
                  'export EASYSIF_OVERLAYS=<a directory of yours> && module reload'),
    'missing': ('there is no overlay, packages cannot be %s',
                'module load the module of this image first; it binds your overlay at /user-software'),
}

HINT = '''\
error: pip: %s is of the image, and protected: another one would hide it from all that was built for it
  the image brings  %s
  constraint file   %s
hint: %s
'''


def unwritable(venv):
    """Return why the overlay cannot be written, one of the keys of UNWRITABLE (str), None where it can."""
    if not venv.startswith(VENVS):
        others = venv.startswith(OF_OTHERS) and os.statvfs(venv).f_flag & os.ST_RDONLY
        return 'of others' if others else None
    while not os.path.isdir(venv):
        venv = os.path.dirname(venv)
    if not venv.startswith(VENVS[:-1]):
        return 'missing'
    if not os.statvfs(venv).f_flag & os.ST_RDONLY:
        return None
    with open('/proc/self/mounts', 'rb') as handle:
        kinds = [line.split()[2] for line in handle if line.split()[1:2] == [VENVS[:-1].encode()]]
    return 'packed' if kinds and b'squash' in kinds[-1] else 'read-only'


UNREACHABLE = '''\
error: pip: the package index cannot be reached
  address  %s
  reason   %s
hint: look at PIP_INDEX_URL, https_proxy and pip.conf, as pip uses yours
'''


class Watch(logging.Handler):
    """Looks on while pip tells why it fails, and remembers what of it is for us.

    ``names`` is which constraints it names (list of str), ``unreachable`` the pages of an index that it could not get
    and why, those left out that are not there (list of pairs of str).
    """

    def __init__(self):
        logging.Handler.__init__(self)
        self.names, self.unreachable = [], []
        for name in ('pip._internal.resolution', 'pip._internal.index'):
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.setLevel(logging.DEBUG)  # what pip shows of it depends on its own handlers

    def emit(self, record):
        """Take what pip logs."""
        if record.name.startswith('pip._internal.resolution'):
            self.names += re.findall(r'\(constraint\) ([A-Za-z0-9._-]+)', record.getMessage())
        elif str(record.msg).startswith('Could not fetch URL') and len(record.args) > 1:
            address, why = [re.sub(r'//[^/@\s]*@', '//', str(arg)) for arg in record.args[:2]]
            if not re.match('(404|410) ', why):
                self.unreachable.append((address, why))


def constraints():
    """Return what the image brings and is protected: name as the index compares it -> the line of it (dict of str)."""
    if CONSTRAINTS not in os.environ.get('PIP_CONSTRAINT', '').split() or not os.path.exists(CONSTRAINTS):
        return {}
    with open(CONSTRAINTS) as handle:
        return dict((key(line.split('==')[0]), line.strip()) for line in handle if '==' in line)


def key(name):
    """Return a name as the package index compares it (str)."""
    return re.sub('[-_.]+', '-', name.strip()).lower()


def quoted(words):
    """Return words as they can be typed (str)."""
    return ' '.join(word if re.match(r'[A-Za-z0-9@%+=:,./_-]+$', word) else "'%s'" % word.replace("'", "'\\''")
                    for word in words)


def tell(watch, known, args):
    """Say what the image brings, or that an index cannot be reached, where that is why pip failed.

    :param watch: what looked on (Watch)
    :param known: what `constraints` returned (dict)
    :param args: those of pip (list of str)
    """
    names = sorted(set(key(name) for name in watch.names) & set(known))
    if names:
        again = 'to have another one nevertheless: PIP_CONSTRAINT=/dev/null pip %s' % quoted(args)
        sys.stderr.write(HINT % (', '.join(names), ', '.join(known[name] for name in names), CONSTRAINTS, again))
    elif watch.unreachable:
        sys.stderr.write(UNREACHABLE % watch.unreachable[0])


def run(args, venv):
    """Run pip with these arguments (list of str) and return its exit status (int)."""
    command = next((word for word in args if not word.startswith('-')), '')
    changes = command in ('install', 'uninstall')
    why = unwritable(venv) if changes and not any(ELSEWHERE.match(word) for word in args) else None
    if why:
        what, hint = UNWRITABLE[why]
        sys.stderr.write('error: pip: %s\nhint: %s\n' % (what % (command + 'ed'), hint))
        return 1
    mode = os.stat(venv).st_mode if changes and os.path.isdir(venv) else 0
    if mode & stat.S_IWOTH:  # as directories for temporary files are, which are no group's
        mode &= ~(stat.S_IWGRP | stat.S_IWOTH)
    if mode & 0o077:  # what is made is as open as the overlay, which others may read, or a group may share
        os.umask(0o077 & ~mode)
    known = constraints()
    if known and any(word in ANEW for word in args):
        os.environ['PIP_CONSTRAINT'] = os.environ['PIP_CONSTRAINT'].replace(CONSTRAINTS, NEVER)
    watch = Watch()
    own = scripts(venv) if changes else {}
    if own:
        add_hook(venv)
    try:
        status = pip_itself(args)
    finally:
        restore(own)
    if status:
        tell(watch, known, args)
    return status


def pip_itself(args):
    """Run what `python -m pip` is in whatever version of pip, and return its exit status (int)."""
    sys.argv[:] = [os.path.join(sys.prefix, 'bin', 'pip')] + args  # the first is how pip says that it is called
    try:
        runpy.run_module('pip', run_name='__main__')
    except SystemExit as err:
        return err.code if isinstance(err.code, int) else int(err.code is not None)
    return 0


def scripts(venv):
    """Return those scripts of pip in the virtual environment that lead here: path -> text and mode (dict)."""
    found = {}
    for path in (os.path.join(venv, 'bin', name) for name in ('pip', 'pip3')):
        if os.path.isfile(path):
            with open(path, 'rb') as handle:
                text = handle.read()
            if os.path.basename(__file__).encode() in text:
                found[path] = text, stat.S_IMODE(os.stat(path).st_mode)
    return found


def add_hook(venv):
    """Have `python -m pip` be the same as the scripts, in an environment of before there was that."""
    place = os.path.join(venv, 'lib', 'python%d.%d' % sys.version_info[:2], 'site-packages')
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'easysif.pth')
    if os.access(place, os.W_OK) and not os.path.exists(os.path.join(place, 'easysif.pth')):
        shutil.copyfile(source, os.path.join(place, 'easysif.pth'))


def restore(own):
    """Bring back the scripts that a new version of pip has replaced, or taken away with an old one."""
    for path, (text, mode) in own.items():
        if not os.path.isfile(path) or open(path, 'rb').read() != text:
            if os.path.lexists(path):
                os.unlink(path)  # it may be one file with another, of a cache
            with open(path, 'wb') as handle:
                handle.write(text)
            os.chmod(path, mode)


if __name__ == '__main__':
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
        del sys.path[0]
    sys.exit(run(sys.argv[1:], sys.prefix))
