# SPDX-License-Identifier: GPL-2.0-only
"""``easysif new``, ``bump`` and ``import``: recipes for an image, of another version, from other projects."""

import json
import os
import sys
from contextlib import contextmanager

from easysif import check, site
from easysif.authoring import compose, shpc
from easysif.authoring.bump import bump
from easysif.authoring.new import new
from easysif.errors import EasySIFError, SeveralErrors, escaped
from easysif.terminal import Line


def register(subparsers):
    """Add the commands."""
    parser = subparsers.add_parser('new', help='write a recipe for an image', description=(
        'Fetch an image, look into it, and write a recipe for it: its commands, Python and conda, packages, digest.'))
    parser.add_argument('name', metavar='NAME', help='name of the software')
    parser.add_argument('version', metavar='VERSION')
    parser.add_argument('--image', required=True, metavar='REFERENCE', help='docker://…, NAME.sif, NAME.def, …')
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument('--environment', dest='kind', action='store_const', const='environment',
                      help='a module to work in, with an overlay for packages')
    kind.add_argument('--tool', dest='kind', action='store_const', const='tool',
                      help='a module that only puts commands on PATH')
    parser.add_argument('--commands', metavar='NAME,NAME', help='wrap these')
    parser.add_argument('--test', action='append', metavar='COMMAND', help='a test of what it is for; may be repeated')
    for word in ('homepage', 'description', 'moduleclass'):
        parser.add_argument('--%s' % word, metavar='TEXT')
    _add_suffix(parser)
    _add_sourcepath(parser)
    _add_writing(parser, 'where to write it; in a tree easyconfigs by letter and name (.)')
    parser.set_defaults(run=_new)

    parser = subparsers.add_parser('bump', help='make the recipe of another version', description=(
        'Make the recipe of another version beside one, with the digest that its image has now.'))
    parser.add_argument('recipe', metavar='RECIPE', help='a recipe file, or the name of one of ours')
    parser.add_argument('version', metavar='VERSION')
    parser.add_argument('--image', metavar='REFERENCE', help='the new image, where it does not follow from the version')
    parser.add_argument('--offline', action='store_true', help='ask nobody, and write no digest')
    _add_sourcepath(parser)
    _add_writing(parser)
    parser.set_defaults(run=_bump)

    parser = subparsers.add_parser('import', help='make recipes from those of other projects',
                                   description='Make recipes from those of other projects.')
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')
    parser = commands.add_parser('shpc', help="from SHPC's container.yaml", description=(
        "Make recipes from container.yaml files of Singularity HPC (SHPC), and say what could not be carried over."))
    parser.add_argument('files', nargs='+', metavar='FILE', help='a container.yaml')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--tag', help='this tag of the image (the latest)')
    which.add_argument('--all-tags', action='store_true', help='a recipe for each version, of its last build')
    _add_suffix(parser)
    _add_writing(parser, 'where to write them; in a tree easyconfigs by letter and name (.)')
    parser.set_defaults(run=_shpc)


def _add_suffix(parser):
    parser.add_argument('--versionsuffix', default='-singularity', metavar='TEXT', help='(-singularity)')


def _add_sourcepath(parser):
    parser.add_argument('--sourcepath', metavar='DIR:DIR', default='', help='where image files are looked for as well')


def _add_writing(parser, output=None):
    if output:
        parser.add_argument('--output', default='.', metavar='DIR', help=output)
    parser.add_argument('--force', action='store_true', help='write over a recipe that is there')
    parser.add_argument('--dry-run', action='store_true', help='show the recipe, write nothing')
    parser.add_argument('--json', action='store_true', help='print what was done as JSON')


def _new(args):
    values = {'name': args.name, 'version': args.version, 'versionsuffix': args.versionsuffix, 'image': args.image,
              'homepage': args.homepage, 'description': args.description, 'moduleclass': args.moduleclass,
              'commands': args.commands and args.commands.split(','), 'sanity_check_commands': args.test}
    with _at_work(args, 'looking at %s' % args.image) as line:
        made = new(values, site.resolve().site, args.output, args.kind, _directories(args), args.force, args.dry_run,
                   tell=lambda text: print(escaped(text), file=sys.stderr, flush=True),
                   show=lambda text: line.show(escaped(text)))
    _show(made, args)


def _bump(args):
    path = args.recipe if os.path.exists(args.recipe) else check.find([args.recipe])[0]
    with _at_work(args, 'asking for the image of %s %s' % (path, args.version)):
        made = bump(path, args.version, site.resolve().site, args.image, args.offline, _directories(args), args.force,
                    args.dry_run)
    _show(made, args)


def _shpc(args):
    done, errors = [], []
    for path in args.files:
        try:
            found = shpc.proposals(path, args.tag, args.all_tags, args.versionsuffix, args.output)
        except EasySIFError as err:
            errors.append(err)
            continue
        for proposal in found:
            try:
                if not args.dry_run:
                    compose.write(proposal, args.force)
                done.append(dict(_told(proposal, args), source=path))
                if not args.json:
                    _show(proposal, args)
            except EasySIFError as err:
                errors.append(err)
    if args.json:
        print(json.dumps(done, indent=2))
    if errors:
        raise SeveralErrors(errors)


@contextmanager
def _at_work(args, text):
    line = Line(quiet=args.json)
    line.show(escaped(text))
    try:
        yield line
    finally:
        line.clear()


def _directories(args):
    return list(filter(None, args.sourcepath.split(':')))


def _told(proposal, args):
    return {'recipe': proposal.path, 'written': not args.dry_run, 'digest': proposal.digest, 'notes': proposal.notes,
            'text': proposal.text}


def _show(proposal, args):
    if args.json:
        print(json.dumps(_told(proposal, args), indent=2))
        return
    if args.dry_run:
        print(proposal.text, end='')
    else:
        print(escaped('%s: written%s' % (proposal.path, ', pinned to %s' % proposal.digest if proposal.digest else '')))
    sys.stdout.flush()
    for line in proposal.notes:
        print(escaped('note: %s: %s' % (os.path.basename(proposal.path), line)), file=sys.stderr)
