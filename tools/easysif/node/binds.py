# SPDX-License-Identifier: GPL-2.0-only
"""What the site binds: whether this node has it."""

from easysif import host_paths
from easysif.node.finding import NOTE, OK, PROBLEM, Finding


def check(site, needs):
    """Yield of each bind of the site, and of the needs named, whether it is on this node.

    :param site: the resolved site (Site)
    :param needs: the needs whose binds count (sequence of str)
    """
    parts = [('binds', site.binds), ('force.binds', tuple(site.force.get('binds') or ()))]
    parts += [('provides.%s' % need, site.provides[need].binds) for need in needs]
    for name, entries in parts:
        missing = [entry for entry in entries if not host_paths.matches(entry)]
        for entry in missing:
            # a site binds what some of its nodes have; here it may be one of the others
            yield Finding(PROBLEM, name, '%s is not on this node' % entry.partition(':')[0],
                          'correct %s in the site file, or do without: what a node has not is not bound' % name)
        if entries and not missing:
            yield Finding(OK, name, '%d of %d on this node' % (len(entries), len(entries)))
        elif not entries and name.startswith('provides.'):
            yield Finding(OK, name, 'needs nothing of the host bound')
    for name in needs:
        for pattern in site.provides[name].library_path:
            if not host_paths.directories([pattern]):
                yield Finding(NOTE, 'provides.%s' % name, 'library_path: nothing fits %s here' % pattern)
