# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -E -s venv_packages.py DIRECTORY

Says in one line of JSON which packages are in the virtual environment DIRECTORY itself, for whatever version of Python
it was made, and which pip there is. Runs under every Python that has venv, so it uses old syntax only.
"""

import glob
import json
import os
import sys

try:
    from importlib.metadata import distributions
except ImportError:  # Python 3.7 and older have only what setuptools brings
    distributions = None


def found(paths):
    """Return the packages in some directories, or of this Python where that is None: name, version, a reader of files.

    :param paths: the directories (list of str or None)
    """
    if distributions is None:
        import pkg_resources
        return [(item.project_name, item.version, lambda name, item=item: item.get_metadata(name)
                 if item.has_metadata(name) else None) for item in pkg_resources.WorkingSet(paths)]
    items = distributions() if paths is None else distributions(path=paths)
    return [(item.metadata['Name'], item.version, item.read_text) for item in items if item.metadata['Name']]


def origin(text):
    """Return from where a package was installed that did not come from an index: URL and sha256 (str or None).

    :param text: what the installer has noted, ``direct_url.json`` (str or None)
    """
    try:
        known = json.loads(text or '{}')
        archive, vcs = known.get('archive_info') or {}, known.get('vcs_info')
        url = '%s+%s@%s' % (vcs['vcs'], known['url'], vcs['commit_id']) if vcs else known.get('url')
        sha256 = (archive.get('hashes') or {}).get('sha256') or (archive.get('hash') or '').partition('sha256=')[2]
        return url, sha256 or None
    except (ValueError, KeyError, AttributeError):
        return None, None


def main(venv):
    """Print what is in the virtual environment ``venv`` (str)."""
    packages, pip = {}, None
    for name, version, read in found(glob.glob(os.path.join(venv, 'lib', 'python*', 'site-packages'))):
        url, sha256 = origin(read('direct_url.json'))
        packages.setdefault(name.lower(), {'name': name, 'version': version, 'url': url, 'sha256': sha256,
                                           'direct': url is not None})
    for name, version, _ in found(None):
        pip = version if name == 'pip' and pip is None else pip
    pip = packages.get('pip', {'version': pip})['version']
    sys.stdout.write('\neasysif venv-packages %s\n' % json.dumps({
        'python': '%d.%d.%d' % sys.version_info[:3], 'pip': pip, 'exists': os.path.exists(os.path.join(venv, 'bin')),
        'packages': [packages[name] for name in sorted(packages)]}))


if __name__ == '__main__':
    main(sys.argv[1])
