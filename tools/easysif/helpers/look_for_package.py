# SPDX-License-Identifier: GPL-2.0-only
"""Usage: PYTHON -E -s - NAME… < look_for_package.py

Runs inside an image, by the image's Python, of whatever version, and says in one line of JSON what that knows of its
package of the first of these names that it has: nothing where there is none.
"""

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # not what lies in the working directory

import json  # noqa: E402
import re  # noqa: E402


def first(names):
    """Return the package of the first of some names that is there, None for none, or where this Python cannot tell."""
    try:
        from importlib.metadata import PackageNotFoundError, distribution
    except ImportError:
        return None
    for name in names:
        try:
            return distribution(name)
        except PackageNotFoundError:
            pass
    return None


def told(found):
    """Return what is known of a package (dict)."""
    from importlib.metadata import distributions

    def of(*keys):
        return next((found.metadata[key] for key in keys if found.metadata.get(key) not in (None, '', 'UNKNOWN')), '')

    licences = [line for line in found.metadata.get_all('Classifier') or () if line.startswith('License :: ')]
    urls = [line.partition(', ')[::2] for line in found.metadata.get_all('Project-URL') or ()]
    urls = dict((label.lower(), url) for label, url in urls)
    homepage = of('Home-page') or urls.get('homepage') or urls.get('repository') or urls.get('source') or ''
    licence = of('License-Expression', 'License') or (licences or [''])[0]
    family = re.compile(re.escape(of('Name')) + '([-_.]?[a-z]+)?$', re.IGNORECASE)
    return {'version': found.version, 'summary': of('Summary'), 'homepage': homepage,
            'licence': licence.split('\n')[0].rpartition(' :: ')[2],
            'family': sorted(set(filter(family.match, (str(one.metadata['Name']) for one in distributions())))),
            'scripts': sorted({entry.name for entry in found.entry_points if entry.group == 'console_scripts'})}


package = first(sys.argv[1:])
sys.stdout.write('\neasysif look-for-package %s\n' % json.dumps(package and told(package)))
