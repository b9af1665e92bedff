# SPDX-License-Identifier: GPL-2.0-only
"""Usage: PYTHON -E -s - [FILE…] < look_inside_python.py

Runs inside an image, by the image's Python, of whatever version, and says in one line of JSON what that one is
and which of the FILEs are scripts of it.
"""

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # not what lies in the working directory

import json  # noqa: E402
import os  # noqa: E402

try:
    from importlib.util import find_spec
except ImportError:  # Python 2
    from pkgutil import find_loader as find_spec


def is_script(path):
    """Tell whether a file is a script that this Python runs (bool)."""
    try:
        with open(path, 'rb') as handle:
            lines = handle.read(4096).decode('latin-1').split('\n')
    except EnvironmentError:  # may be run but not read
        return False
    if not lines[0].startswith('#!'):
        return False
    words = lines[0][2:].split()
    if len(lines) > 1 and lines[1].startswith("'''exec' "):
        # what pip writes where the path of its Python is too long for a first line, or holds a space
        words = [lines[1][len("'''exec' "):].rsplit(' "$0"', 1)[0].strip('"')]
    if words and os.path.basename(words[0]) == 'env':
        return any(word.startswith(('python', 'pypy')) for word in words[1:])
    return bool(words) and _identity(words[0]) == _identity(sys.executable)


def _identity(python):
    # the directory counts too: a venv's python is a link to another one, whose packages it does not have
    return os.path.realpath(os.path.dirname(python)), os.path.realpath(python)


def distributions():
    """Return the packages that this Python finds, name -> version (dict)."""
    try:
        from importlib.metadata import distributions
        pairs = [(item.metadata['Name'], item.version) for item in distributions()]
    except ImportError:  # Python 3.7 and older have only what setuptools brings
        try:
            from pkg_resources import working_set
        except ImportError:
            return {}
        pairs = [(item.project_name, item.version) for item in working_set]
    found = {}
    for name, version in pairs:
        if name and version:
            found.setdefault(str(name), str(version))
    return found


base_prefix = getattr(sys, 'real_prefix', getattr(sys, 'base_prefix', sys.prefix))
sys.stdout.write('\neasysif look-inside-python %s\n' % json.dumps({
    'version': '%d.%d.%d' % sys.version_info[:3],
    'prefix': sys.prefix,
    'base_prefix': base_prefix,
    'has_pip': find_spec('pip') is not None,
    'has_venv': find_spec('venv') is not None,
    'has_ensurepip': find_spec('ensurepip') is not None,
    'site_packages': [entry for entry in sys.path if os.path.basename(entry) in ('site-packages', 'dist-packages')],
    'distributions': distributions(),
    'scripts': [path for path in sys.argv[1:] if is_script(path)],
}))
