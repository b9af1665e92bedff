# SPDX-License-Identifier: GPL-2.0-only
"""Usage: PYTHON -E -s - NAME < look_for_package.py

Runs inside an image, by the image's Python, of whatever version, and says in one line of JSON what that knows of its
package of that name: nothing where there is none.
"""

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # not what lies in the working directory

import json  # noqa: E402
import re  # noqa: E402


def package(name):
    """Return what is known of a package (dict), None where there is none or this Python is too old to tell."""
    try:
        from importlib.metadata import PackageNotFoundError, distribution, distributions
    except ImportError:
        return None
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    told = found.metadata
    classifiers = [line for line in told.get_all('Classifier') or () if line.startswith('License :: ')]
    licence = told.get('License-Expression') or told.get('License') or (classifiers or [''])[0]
    urls = dict(line.partition(', ')[::2] for line in told.get_all('Project-URL') or ())
    family = re.compile(re.escape(found.metadata['Name']) + '([-_.]?[a-z]+)?$', re.IGNORECASE)
    names = {str(one.metadata['Name']) for one in distributions()}
    return {'name': told['Name'], 'version': found.version, 'summary': told.get('Summary') or '',
            'homepage': told.get('Home-page') or urls.get('Homepage') or '',
            'licence': licence.split('\n')[0].rpartition(' :: ')[2],
            'family': sorted(filter(family.match, names)),
            'scripts': sorted({entry.name for entry in found.entry_points if entry.group == 'console_scripts'})}


sys.stdout.write('\neasysif look-for-package %s\n' % json.dumps(package(sys.argv[1])))
