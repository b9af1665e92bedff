# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python make_venv.py DIRECTORY

Makes a virtual environment that sees the packages of this Python, inside an image, as small as can be: links and no
copy of pip. Works where the image has no ensurepip, and where its Python is itself a virtual environment, whose
packages --system-site-packages alone would miss. Runs under every Python that has venv, so it uses old syntax only.
"""

import glob
import os
import site
import subprocess
import sys
import venv

PIP = '''#!%s
import os
import re
import stat
import sys
from pip._internal.cli.main import main
if __name__ == '__main__':
    mode = os.stat(sys.prefix).st_mode
    if mode & stat.S_IWGRP:  # a group shares the overlay
        os.umask(0o077 & ~mode | stat.S_IWOTH)
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
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
    if subprocess.call([python, '-E', '-s', '-c', 'import pip'], stderr=subprocess.DEVNULL) == 0:
        for name in ('pip', 'pip3'):
            script = os.path.join(directory, 'bin', name)
            with open(script, 'w') as handle:
                handle.write(PIP % python)
            os.chmod(script, 0o755)


if __name__ == '__main__':
    main(sys.argv[1])
