# SPDX-License-Identifier: GPL-2.0-only
"""Where Jupyter has its kernels, as it finds out itself, and what it takes for the name of one."""

import os
import re
import shlex

from easysif.errors import EasySIFError

NAME = re.compile(r'[a-z0-9._-]+')  #: Jupyter makes small letters of others
REPLACED = re.compile(r'\{(connection_file|prefix|resource_dir)\}')  #: what it puts something in for

#: where all users' kernels are, in the order in which Jupyter looks
SYSTEM = ('/usr/local/share/jupyter', '/usr/share/jupyter')


def user_directory(environ=None):
    """Return where Jupyter has what is the user's own (str)."""
    environ = os.environ if environ is None else environ
    home = os.path.expanduser('~')
    data = environ.get('XDG_DATA_HOME') or os.path.join(home, '.local', 'share')
    return os.path.abspath(environ.get('JUPYTER_DATA_DIR') or os.path.join(data, 'jupyter'))


def environment_directory(environ=None):
    """Return where the Python environment that is active in this shell has what is for its Jupyter (str).

    :raises EasySIFError: none is active
    """
    environ = os.environ if environ is None else environ
    prefix = environ.get('VIRTUAL_ENV') or environ.get('CONDA_PREFIX')
    if not prefix:
        raise EasySIFError('easysif kernel', 'no Python environment is active in this shell',
                           facts=[('looked at', 'VIRTUAL_ENV, CONDA_PREFIX')],
                           hint='. DIR/bin/activate; or name what Jupyter is installed in: --jupyter-prefix DIR')
    return below(prefix)


def below(prefix):
    """Return where a Jupyter that is installed in a prefix has what is for all its users (str)."""
    return os.path.join(os.path.abspath(prefix), 'share', 'jupyter')


def option(directory):
    """Return what ``easysif kernel`` has to be given for a kernel that is not in the user's own place (str).

    :param directory: that of the kernel (str)
    """
    place = os.path.dirname(os.path.dirname(directory))
    if place == user_directory():
        return ''
    prefix = os.path.dirname(os.path.dirname(place))
    return ' --jupyter-prefix %s' % shlex.quote(prefix) if below(prefix) == place else ''


def directories(environ=None):
    """Return all places with kernels, in the order in which Jupyter looks, as far as is known here (list of str)."""
    environ = os.environ if environ is None else environ
    found = [path for path in environ.get('JUPYTER_PATH', '').split(os.pathsep) if path]
    found.append(user_directory(environ))
    found += [below(environ[name]) for name in ('VIRTUAL_ENV', 'CONDA_PREFIX') if environ.get(name)]
    return list(dict.fromkeys([*map(os.path.abspath, found), *SYSTEM]))


def name_of(module):
    """Return what the kernel of a module is called unless told otherwise (str)."""
    return re.sub('[^a-z0-9._-]+', '-', module.lower())


def check_name(name):
    """See that Jupyter takes a text for the name of a kernel.

    :raises EasySIFError: it does not
    """
    if not NAME.fullmatch(name) or not name.strip('.'):
        raise EasySIFError('easysif kernel', 'Jupyter does not take this for the name of a kernel',
                           facts=[('name', name), ('may hold', 'small letters, digits, and . _ -')],
                           hint='--name %s' % (name_of(name).strip('.-') or 'my-kernel'))


def check_path(path, hint):
    """See that Jupyter hands on a path as it is.

    :param hint: what helps where it does not (str)
    :raises EasySIFError: it would put something else into it
    """
    if REPLACED.search(path):
        raise EasySIFError(path, 'Jupyter would replace a part of this path',
                           facts=[('part', REPLACED.search(path).group())], hint=hint)
