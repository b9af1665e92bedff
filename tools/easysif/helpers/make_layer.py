# SPDX-License-Identifier: GPL-2.0-only
"""Usage: PYTHON -E -s - DIRECTORY REQUIREMENT... < make_layer.py

Runs inside an image, by the image's Python, and makes the virtual environment DIRECTORY with packages: installed by the
image's pip, all with one time of change, compiled. Tells in one line of JSON what is in it. Whoever calls it has set
what pip is to use. Runs under every Python that has venv, so it uses old syntax only.
"""

import sys

sys.path[:] = ['/runscripts/lib'] + [entry for entry in sys.path if entry]  # not what lies in the working directory

import email  # noqa: E402
import glob  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402

import make_venv  # noqa: E402

TIME = 315619200  # 1980-01-02: what makes archives knows no earlier year, in no time zone
NO_PIP = 4        # exit status


def install(python, requirements, report):
    """Run pip, with a report of what it installs where it knows how to write one."""
    pip = [python, '-s', '-m', 'pip', 'install']
    if b'--report ' in subprocess.check_output(pip + ['--help']):
        pip += ['--report', report]
    status = subprocess.call(pip + requirements, stdout=sys.stderr)
    if status:
        sys.exit(status)


def reported(report):
    """Return where packages came from: name and version -> url and sha256 (dict)."""
    found = {}
    if os.path.exists(report):
        with io.open(report, encoding='utf-8') as handle:
            entries = json.load(handle)['install']
        for entry in entries:
            source = entry['download_info']
            archive = source.get('archive_info', {})
            digest = archive.get('hashes', {}).get('sha256') or archive.get('hash', '').partition('sha256=')[2]
            found[entry['metadata']['name'], entry['metadata']['version']] = source['url'], digest or None
        os.unlink(report)
    return found


def packages(site_packages, sources):
    """Return what is installed in a directory, in the order of names (list of dict)."""
    found = []
    for pattern in ('*.dist-info/METADATA', '*.egg-info/PKG-INFO'):
        for path in glob.glob(os.path.join(site_packages, pattern)):
            with io.open(path, encoding='utf-8', errors='replace') as handle:
                known = email.message_from_string(handle.read())
            url, digest = sources.get((known['Name'], known['Version']), (None, None))
            found.append({'name': known['Name'], 'version': known['Version'], 'url': url, 'sha256': digest})
    return sorted(found, key=lambda package: package['name'].lower())


def is_script(path, python):
    """Tell whether a file is a script of a Python (bool)."""
    with open(path, 'rb') as handle:
        return handle.readline().strip() == b'#!' + python.encode()


def main(directory, requirements):
    """Make the environment and tell what is in it."""
    make_venv.main(directory)
    python = os.path.join(directory, 'bin', 'python')
    if not make_venv.has(python, 'pip'):
        sys.exit(NO_PIP)
    report = os.path.join(os.environ['TMPDIR'], 'report.json')
    install(python, requirements, report)
    for parent, directories, names in os.walk(directory, topdown=False):
        for name in names:  # of what is compiled as well, as old versions of Python look at it
            if not os.path.islink(os.path.join(parent, name)):
                os.utime(os.path.join(parent, name), (TIME, TIME))
    site_packages = glob.glob(os.path.join(directory, 'lib', 'python*', 'site-packages'))[0]
    modes = ['--invalidation-mode', 'unchecked-hash'] if sys.version_info >= (3, 7) else []
    subprocess.call([python, '-s', '-m', 'compileall', '-qq'] + modes + [site_packages], stdout=sys.stderr)
    commands = sorted(os.listdir(os.path.join(directory, 'bin')))
    sys.stdout.write('\neasysif make-layer %s\n' % json.dumps({
        'packages': packages(site_packages, reported(report)), 'commands': commands,
        'scripts': [name for name in commands if is_script(os.path.join(directory, 'bin', name), python)]}))


main(sys.argv[1], sys.argv[2:])
