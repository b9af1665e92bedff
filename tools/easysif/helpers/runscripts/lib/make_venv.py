# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python make_venv.py DIRECTORY

Makes a virtual environment that sees the packages of this Python, inside an image, as small as can be: links and no
copy of pip. Works where the image has no ensurepip, and where its Python is itself a virtual environment, whose
packages --system-site-packages alone would miss. Runs under every Python that has venv, so it uses old syntax only.

The order of import is overlay, overlay of those who installed the module, layer of the recipe, image: the environment
sees those of its name in the places below it, where they are there when Python starts.
"""

import glob
import os
import shutil
import site
import subprocess
import sys
import venv

#: where the environments of one name are, in the order in which Python looks into them
PLACES = ('/user-software', '/shared-software', '/layer')

#: read before image-packages.pth, as Python reads such files in the order of their names
BELOW = 'import os, site, sys; %r in sys.path or os.path.isdir(%r) and site.addsitedir(%r)\n'

#: has `python -m pip` be the same as this pip
HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'easysif.pth')

PIP = '''#!%s
import runpy
if __name__ == '__main__':
    runpy.run_path('/runscripts/lib/pip_main.py', run_name='__main__')
'''


def package_directories():
    """Return the directories in which this Python looks for packages (list of str)."""
    found = [path for path in site.getsitepackages() if os.path.isdir(path)]
    others = [path for path in sys.path if path.endswith('-packages') and path not in found]
    return found + [path for path in others if os.path.isdir(path)]


def seen_by(python):
    """Return the module search path of another Python (list of str)."""
    code = 'import sys; print("\\n".join(sys.path))'
    return subprocess.check_output([python, '-E', '-s', '-c', code]).decode().splitlines()


def places_below(directory):
    """Return the environments of the same name that lie below one (list of str)."""
    for number, place in enumerate(PLACES):
        if directory.startswith(place + '/'):
            return [other + directory[len(place):] for other in PLACES[number + 1:]]
    return []


def has(python, module):
    """Tell whether a Python finds a module (bool)."""
    return subprocess.call([python, '-E', '-s', '-c', 'import ' + module], stderr=subprocess.DEVNULL) == 0


def main(directory):
    """Make the virtual environment ``directory`` (str)."""
    venv.EnvBuilder(system_site_packages=True, symlinks=True, with_pip=False).create(directory)
    python = os.path.join(directory, 'bin', 'python')
    own = glob.glob(os.path.join(directory, 'lib', 'python*', 'site-packages'))[0]
    missing = [path for path in package_directories() if path not in seen_by(python)]
    if missing:
        with open(os.path.join(own, 'image-packages.pth'), 'w') as handle:
            for path in missing:
                handle.write('import site; site.addsitedir(%r)\n' % path)
    below = [place + own[len(directory):] for place in places_below(directory)]
    if below:
        with open(os.path.join(own, 'below.pth'), 'w') as handle:
            for path in below:
                handle.write(BELOW % (path, path, path))
    if not has(python, 'pip') and has(python, 'ensurepip'):
        subprocess.check_call([python, '-E', '-s', '-m', 'ensurepip'], stdout=sys.stderr)
    shutil.copyfile(HOOK, os.path.join(own, os.path.basename(HOOK)))
    if has(python, 'pip'):
        for name in ('pip', 'pip3'):
            script = os.path.join(directory, 'bin', name)
            with open(script, 'w') as handle:
                handle.write(PIP % python)
            os.chmod(script, 0o755)


if __name__ == '__main__':
    main(sys.argv[1])
