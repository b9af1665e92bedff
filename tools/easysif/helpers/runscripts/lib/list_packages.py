# SPDX-License-Identifier: GPL-2.0-only
"""Usage: list-packages [--json] [NAME...]

Lists the Python packages that a program sees inside the image, and where each comes from: the image, the layer of the
recipe, the overlay of those who installed the module (shared) or one's own (overlay). What comes from a later one hides
a package of the same name in those before it. Exits with 1 if a NAME is not there.
"""

import argparse
import json
import re
import sys

try:
    from importlib.metadata import distributions
except ImportError:  # Python 3.7 and older have only what setuptools brings
    distributions = None

#: where packages come from, by the place where they are
ORIGINS = {'user-software': 'overlay', 'shared-software': 'shared', 'layer': 'layer'}


def packages():
    """Return the packages as ``(name, version, origin)``, sorted by name (list)."""
    found = {}
    for name, version, location in _all():
        origin = ORIGINS.get((location + '/').split('/')[1], 'image') if location.startswith('/') else 'image'
        found.setdefault(_key(name), (name, version, origin))
    return [found[key] for key in sorted(found)]


def _key(name):
    """Return a name as the package index compares it (str)."""
    return re.sub(r'[-_.]+', '-', name).lower()


def _all():
    if distributions is None:
        import pkg_resources
        return [(item.project_name, item.version, item.location) for item in pkg_resources.working_set]
    return [(item.metadata['Name'], item.version or '?', str(item.locate_file(''))) for item in distributions()
            if item.metadata['Name']]


def _shown(text):
    """Return a text as it stands in the table: short, and without what a terminal would obey (str)."""
    text = ''.join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= 60 else text[:59] + '\u2026'


def main():
    """Print the table, or with ``--json`` a list of objects; return the exit code (int)."""
    parser = argparse.ArgumentParser(
        prog='list-packages', description='Lists Python packages, and where they come from.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='examples:\n  # which numpy it is, and whether that of the image\n  list-packages numpy')
    parser.add_argument('--json', action='store_true', help='print a list of objects')
    parser.add_argument('names', nargs='*', metavar='NAME', help='only these packages')
    options = parser.parse_args()
    wanted = {_key(name): name for name in options.names}
    rows = [row for row in packages() if not wanted or _key(row[0]) in wanted]
    if options.json:
        print(json.dumps([dict(zip(('name', 'version', 'from'), row)) for row in rows], indent=2))
    else:
        rows = [tuple(map(_shown, row)) for row in rows]
        width = [max([len(row[i]) for row in rows] + [7]) for i in range(2)]
        for row in [('Package', 'Version', 'From')] * bool(rows) + rows:
            print('%-*s  %-*s  %s' % (width[0], row[0], width[1], row[1], row[2]))
    missing = sorted(wanted[key] for key in set(wanted) - {_key(row[0]) for row in rows})
    if missing:
        sys.stderr.write('error: list-packages: not installed: %s\nhint: pip install %s\n'
                         % (', '.join(missing), ' '.join(missing)))
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
