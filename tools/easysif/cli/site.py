# SPDX-License-Identifier: GPL-2.0-only
"""``easysif site``: the profiles of sites, what one of them says, whether it fits this node, and applying it."""

import json
import os
import socket

from easysif import compressors, node, schema, site_files
from easysif.cli.common import add_prefix
from easysif.cli.config import show
from easysif.errors import INPUT, EasySIFError, escaped
from easysif.installed import default_prefix
from easysif.node import draft, finding
from easysif.site import named, profile, read, resolve, shipped
from easysif.text import table


def register(subparsers):
    """Add the commands."""
    parser = subparsers.add_parser('site', help='profiles of sites: list, show, check, new, apply')
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')

    def command(name, run, text):
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        one.set_defaults(run=run)
        return one

    command('list', _list, 'list the profiles of sites, and which one holds here').add_argument(
        '--json', action='store_true', help='print them as JSON')
    one = command('show', _show, 'show what a profile says, without your own settings')
    one.add_argument('site', metavar='SITE', help='the name of a profile, or a file')
    one.add_argument('--json', action='store_true', help='print it as JSON, as easysif config does')
    one = command('check', _check, 'check whether this node has what the site binds and containers need')
    one.add_argument('site', metavar='SITE', nargs='?',
                     help='the name of a profile, or a file (default: the settings that hold here)')
    one.add_argument('--image', metavar='SIF', help='look at it from inside of this image as well: libraries, GPUs')
    one.add_argument('--need', metavar='NEED', action='append', help='only this need (may be given several times)')
    one.add_argument('--json', action='store_true', help='print the findings as JSON')
    one = command('new', _new, 'write a profile for this cluster, with what is found on this node')
    one.add_argument('file', metavar='FILE', help='the file, which must not be there yet')
    one.add_argument('--json', action='store_true', help='print what was written as JSON')
    one = command('apply', _apply, 'write what the site provides to the files that modules and wrappers read')
    one.add_argument('--json', action='store_true', help='print what was written as JSON')
    add_prefix(one)


def _list(args):
    here = resolve()
    rows = [{'name': name, 'here': here.site.path == path, 'hosts': read(path).get('match', {}).get('hostname'),
             'path': path} for name, path in shipped().items()]
    if not any(row['here'] for row in rows):
        rows.append({'name': here.site.name, 'here': True, 'hosts': None, 'path': here.site.path})
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    cells = [{'': '*' if row['here'] else ' ', 'NAME': row['name'], 'HOSTS': row['hosts'] or '-', 'FILE': row['path']}
             for row in rows]
    for line in table([{name: name for name in cells[0]}, *cells], 'FILE'):
        print(line)
    print('* holds here (%s)' % escaped(here.origins['name']))


def _show(args):
    name, path = named(args.site)
    show(profile(path, name), args.json, own=False)


def _check(args):
    if args.image and not os.path.isfile(args.image):
        raise EasySIFError(args.image, 'there is no such image', hint='easysif site check --image FILE.sif')
    name, path = named(args.site) if args.site else (None, None)
    site = (profile(path, name) if path else resolve()).site
    unknown = [need for need in args.need or () if need not in site.provides]
    if unknown:
        raise EasySIFError(unknown[0], "is no need that site '%s' provides" % site.name,
                           facts=[('provided', ', '.join(sorted(site.provides)))],
                           hint='easysif site check --need %s' % (
                               schema.closest(unknown[0], site.provides) or next(iter(sorted(site.provides)), 'NEED')))
    found = list(node.of_site(site, args.need or list(site.provides), args.image))
    return tell(found, {'site': site.name, 'path': site.path}, args.json)


def tell(found, head, as_json):
    """Print a report and return its exit code (int): 1 where there is a problem.

    :param found: the findings (list of Finding)
    :param head: what the report begins with (dict of str)
    :param as_json: for programs (bool)
    """
    problems = [one for one in found if one.state == finding.PROBLEM]
    head = dict(head, host=socket.gethostname())
    if as_json:
        print(json.dumps(dict(head, problems=len(problems), findings=[vars(one) for one in found]), indent=2))
    else:
        for key, value in head.items():
            print(escaped('%-7s  %s' % (key, value)))
        print('\n'.join(['', *finding.lines(found), '']))
        print('no problems' if not problems else '%d problem%s' % (len(problems), 's' if len(problems) > 1 else ''))
    return INPUT if problems else 0


def _new(args):
    draft.write(args.file)
    if args.json:
        print(json.dumps({'written': os.path.abspath(args.file)}, indent=2))
        return
    print('written  %s\nhint: export EASYSIF_SITE=%s; easysif site check' % (
        escaped(args.file), escaped(os.path.abspath(args.file))))


def _apply(args):
    prefix, site = os.path.abspath(args.prefix or default_prefix()), resolve().site
    changed = site_files.apply(prefix, site, compressors.refused(prefix, site))
    if args.json:
        print(json.dumps({'prefix': prefix, 'site': site.name, 'written': changed}, indent=2))
        return
    for path in changed:
        print('written  %s' % escaped(path))
    if not changed:
        print('nothing to change')
