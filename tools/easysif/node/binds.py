# SPDX-License-Identifier: GPL-2.0-only
"""What the site binds: whether this node has it, and whether the links in it lead somewhere inside."""

import os

from easysif import host_paths
from easysif.node.finding import NOTE, OK, PROBLEM, Finding

MOST = 2000   #: entries of the directories of a need that are looked at
TOLD = 5      #: links of a need that are told


def check(site, needs):
    """Yield of each bind of the site, and of the needs named, whether it is on this node.

    :param site: the resolved site (Site)
    :param needs: the needs whose binds count (sequence of str)
    """
    parts = [('binds', site.binds), ('force.binds', tuple(site.force.get('binds') or ()))]
    parts += [('provides.%s' % need, _of_need(site.provides[need])) for need in needs]
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
    bound = {host_paths.target(bind) for _, entries in parts for bind in host_paths.expanded(entries)}
    for name in needs:
        for pattern in site.provides[name].library_path:
            if not host_paths.directories([pattern]):
                yield Finding(NOTE, 'provides.%s' % name, 'library_path: nothing fits %s here' % pattern)
        for link, target in _leading_out(host_paths.expanded(site.provides[name].binds), bound):
            yield Finding(NOTE, 'provides.%s' % name, '%s leads to %s, which is not bound' % (link, target),
                          'add %s to provides.%s.binds, unless the image has it' % (target, name))


def _of_need(need):
    """Return what a need has to find on the host (tuple of str)."""
    return (*need.binds, *(entry.partition(':')[0] for entry in need.libraries))


def _leading_out(binds, bound):
    """Return links in directories that lead to what this host has and no bind brings: pairs as seen inside (list).

    :param binds: the binds of a need (sequence of str)
    :param bound: all that is bound, as it is seen inside (set of str)
    """
    found, left = [], MOST
    for bind in binds:
        source, seen = bind.partition(':')[0], host_paths.target(bind)
        for directory, directories, names in os.walk(source):
            left -= len(directories) + len(names)
            if left < 0 or len(found) >= TOLD:
                return found
            for name in directories + names:
                link = os.path.join(directory, name)
                if os.path.islink(link) and os.path.exists(link):
                    inside = os.path.normpath(os.path.join(seen, os.path.relpath(link, source)))
                    target = os.path.normpath(os.path.join(os.path.dirname(inside), os.readlink(link)))
                    if not any(target == one or target.startswith(one.rstrip('/') + '/') for one in bound):
                        found.append((inside, target))
    return found[:TOLD]
