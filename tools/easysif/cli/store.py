# SPDX-License-Identifier: GPL-2.0-only
"""``easysif store``: the image store of a site: put images in, list, verify and clear out."""

import json
import os
import shlex
import shutil
import sys

from easysif import installed, layout, site
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import USAGE, EasySIFError, SeveralErrors, escaped
from easysif.store import upkeep
from easysif.store.add import ALREADY, RECORD, Adding
from easysif.store.contents import of_site
from easysif.store.usage import usage
from easysif.terminal import Line
from easysif.text import human, table

#: what was done, where it is not simply that an image was added
HOW = {RECORD: 'was there, and is recorded now', ALREADY: 'is there already'}


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('store', help="the site's image store: add, list, verify, clear out", description=(
        'The image store: a directory of SIF files that all may read, from which modules take their images or run '
        'them.'))
    commands = parser.add_subparsers(metavar='COMMAND', required=True, title='commands')

    def command(name, run, text, *words, **options):
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        for word in words:
            one.add_argument(word, **options)
        one.add_argument('--store', metavar='DIR', help='another store than that of the site')
        one.add_argument('--json', action='store_true', help='print the result as JSON')
        one.set_defaults(run=run)
        return one

    add = command('add', _add, 'put images into the store: SIF files, references, those of recipes', 'images',
                  nargs='+', metavar='FILE|REFERENCE|RECIPE')
    add_prefix(add)
    add.add_argument('--name', metavar='NAME.sif', help='how it is called there (default: as recipes name it)')
    add.add_argument('--sourcepath', metavar='DIR:DIR', help='where files of recipes are looked for')
    for one in (command('list', _list, 'list what is in the store, and which modules have to do with it'),
                command('verify', _verify, 'read all that is in the store and hold it against what was recorded')):
        _add_prefixes(one)
    clear = command('gc', _gc, 'show what was added and no module runs; with --yes remove it', 'names', nargs='*',
                    metavar='NAME.sif')
    _add_prefixes(clear)
    clear.add_argument('--yes', action='store_true', help='remove it')


def _add_prefixes(parser):
    parser.add_argument('--prefix', metavar='DIR', action='append', help=(
        "EasyBuild's install path whose modules count, may be given several times (default: as EasyBuild's environment "
        'variables say)'))


def _store(args, action):
    return of_site(site.resolve().site, args.store, 'easysif store %s' % action)


def _prefixes(args):
    """Return the prefixes whose modules count (list of str): what was named, else EasyBuild's if it is there."""
    for prefix in args.prefix or ():
        if not os.path.isdir(prefix):
            raise EasySIFError(prefix, 'there is no such directory', hint='easysif store list --prefix DIR')
    own = installed.easybuild_prefix()
    return [os.path.abspath(prefix) for prefix in args.prefix] if args.prefix else [own] if os.path.isdir(own) else []


def _add(args):
    if args.name and len(args.images) > 1:
        raise EasySIFError('easysif store add', '--name is for one image', exit_code=USAGE,
                           hint='easysif store add --name %s' % shlex.join([args.name, args.images[0]]))
    store, prefix, errors, done = _store(args, 'add'), prefix_of(args), [], []
    searched = args.sourcepath.split(os.pathsep) if args.sourcepath else installed.source_paths(prefix)
    progress = Line(quiet=args.json)
    adding = Adding(store, site.resolve().site, prefix, searched,
                    tell=lambda line: print(escaped(line), file=sys.stderr, flush=True))
    for what in args.images:
        progress.show('adding %s' % escaped(what))
        try:
            done.append((what, adding.add(what, args.name)))
        except EasySIFError as err:
            errors.append(err)
        progress.clear()
    adding.close()
    if args.json:
        print(json.dumps([{'image': what, 'name': one.name, 'file': one.path, 'sha256': one.sha256, 'size': one.size,
                           'how': one.how, 'note': one.note} for what, one in done], indent=2))
    else:
        for _, one in done:
            print(escaped('%s: %s, %s, sha256:%s' % (one.name, HOW.get(one.how, 'added'), human(one.size), one.sha256)))
            if one.note:
                print(one.note, file=sys.stderr)
    if errors:
        raise SeveralErrors(errors)


def _list(args):
    store = _store(args, 'list')
    found = usage(store, _prefixes(args))
    entries = store.entries()
    if args.json:
        print(json.dumps({'store': store.directory, 'images': [dict(
            _values(entry), modules=[{'module': use.module, 'prefix': use.prefix, 'how': use.how}
                                     for use in found.uses.get(entry.name, ())]) for entry in entries]}, indent=2))
    elif entries:
        heads = {name: name for name in ('NAME', 'SIZE', 'SHA256', 'IMAGE', 'MODULES')}
        rows = [{'NAME': entry.name, 'SIZE': human(entry.info.st_size), 'SHA256': (entry.sha256 or '-')[:12],
                 'IMAGE': entry.record.get('reference', '-') if entry.sha256 else entry.state,
                 'MODULES': ', '.join('%s (%s)' % (use.module, use.how) for use in found.uses.get(entry.name, ()))
                 or '-'} for entry in entries]
        limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print('\n'.join(table([heads, *rows], 'MODULES', limit, ('IMAGE', 'SHA256', 'SIZE'))))
    else:
        print('nothing is in the image store %s' % escaped(store.directory))


def _values(entry):
    return {'name': entry.name, 'file': entry.path, 'size': entry.info.st_size, 'state': entry.state,
            'sha256': entry.sha256, 'reference': entry.record.get('reference'), 'digest': entry.record.get('digest')}


def _verify(args):
    store = _store(args, 'verify')
    found = usage(store, _prefixes(args))
    progress, checked = Line(quiet=args.json), []
    progress.show('verifying %s' % escaped(store.directory))
    for one in upkeep.verify(store, found):
        progress.clear()
        checked.append(one)
        if not args.json:
            _tell(one, store.option)
    progress.clear()
    errors = upkeep.problems_of(store) + found.unknown
    if args.json:
        print(json.dumps({'store': store.directory, 'images': [
            {'file': one.path, 'problem': one.problem and one.problem.what, 'known': one.is_known,
             'facts': dict(one.problem.facts) if one.problem else {}, 'hint': one.problem and one.problem.hint,
             'modules': one.modules} for one in checked], 'problems': [str(err) for err in errors]}, indent=2))
    else:
        for err in errors:
            print('error: %s' % err, file=sys.stderr)
    return 1 if errors or any(one.problem for one in checked) else 0


def _tell(one, option):
    if one.problem:
        print('error: %s' % one.problem, file=sys.stderr, flush=True)
    else:
        what = 'ok' if one.is_known else 'not known: nothing is recorded of it; easysif store add %s%s' % (
            shlex.quote(one.path), option)
        print(escaped('%s: %s' % (os.path.basename(one.path), what)), flush=True)


def _gc(args):
    store, prefixes = _store(args, 'gc'), _prefixes(args)
    if not prefixes:
        installed.default_prefix()  # says that nothing is installed there to hold the store against
    for prefix in prefixes:
        # as where its file system is not mounted
        if not any(os.path.isdir(one.software) for one in layout.layouts(prefix)):
            raise EasySIFError(prefix, 'nothing is installed there, to hold the image store against',
                               hint='name the prefix with --prefix DIR')
    done = upkeep.look_for_waste(store, usage(store, prefixes), args.names)
    if args.yes:
        upkeep.clear_out(store, done, lambda: usage(store, prefixes), 'easysif store gc')
    if args.json:
        print(json.dumps({'store': store.directory, 'going': [_values(entry) for entry in done.going],
                          'staying': [dict(_values(entry), why=why) for entry, why in done.staying],
                          'left': done.left, 'freed': done.freed, 'removed': done.removed,
                          'problems': [str(err) for err in done.problems]}, indent=2))
    else:
        verb = 'removed' if args.yes else 'would remove'
        for entry in done.going:
            print(escaped('%s  %s, %s' % (verb, entry.path, human(entry.info.st_size))))
        for path in done.left:
            print(escaped('%s  %s, left by a command that was killed or failed' % (verb, path)))
        for entry, why in done.staying:
            print(escaped('keeps  %s, %s' % (entry.path, why)))
        print('%s %s' % ('freed' if args.yes else 'would free', human(done.freed)))
        if (done.going or done.left) and not args.yes:
            print('to remove it: the same with --yes')
    if done.problems:
        raise SeveralErrors(done.problems)
