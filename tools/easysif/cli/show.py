# SPDX-License-Identifier: GPL-2.0-only
"""``easysif show``: all that is known of an installed module, or what a recipe would install."""

import dataclasses
import json
import os
import shlex

from easysif import installed, inventory, lookup, manifest, modulefile
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import escaped, shortened
from easysif.text import human

#: what stands in the place of the image of a module that has none
OWN = 'none: for an image of your own'


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('show', help='tell all about a module or a recipe', description=(
        'Show what an installed module is made of, where it is, and what to type to load and to remove it; or what a '
        'recipe would install, and whether this site provides what it needs.'))
    parser.add_argument('name', metavar='MODULE|RECIPE', help=(
        'name/version of a module, or the name where one version is installed; or a recipe: a file, or the name of one '
        "on EasyBuild's search path"))
    add_prefix(parser)
    parser.add_argument('--json', action='store_true', help='print it as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = prefix_of(args)
    name, root, path = lookup.module_or_recipe(args.name, prefix)
    if root:
        module = inventory.look_at(name, root)
        values, rows = _module_values(module, prefix), _module_rows
    else:
        values, rows = lookup.describe_recipe(path, prefix), _recipe_rows
    if args.json:
        print(json.dumps(values, indent=2))
    else:
        _print(rows(values))


def _print(rows):
    """Print labels and values; a value is None (left out), a text, or a list of texts, one a line."""
    lines = [(label, value if isinstance(value, (list, tuple)) else [value]) for label, value in rows
             if value not in (None, [], ())]
    width = max(len(label) for label, _ in lines)
    for label, values in lines:
        for number, value in enumerate(values):
            print('%-*s  %s' % (width, '' if number else label, escaped(shortened(value))))


def _module_values(module, prefix):
    record = module.record
    top = installed.top_of(record, module.name, prefix)
    recorded = record and record['modulefile']
    there = next(filter(os.path.isfile, modulefile.paths(top, module.name)), None)
    words = module.name + installed.option(prefix)
    return {
        'module': module.name, 'installation': module.root, 'prefix': prefix,
        'problem': module.problem and {'what': module.problem.what, 'facts': dict(module.problem.facts),
                                       'hint': module.problem.hint},
        'image_in_use': module.image, 'size': module.size,
        'installed': module.installed and module.installed.isoformat(),
        'overlay': module.overlay and dataclasses.asdict(module.overlay),
        'modulefile': recorded['path'] if recorded else there,
        'load': 'module use %s; module load %s' % (shlex.quote(top), module.name),
        'verify': 'easysif verify %s' % words, 'remove': 'easysif remove %s' % words, manifest.NAME: record}


def _module_rows(values):
    record, problem, overlay = values[manifest.NAME], values['problem'], values['overlay']
    rows = [('module', values['module'])]
    if problem:
        rows += [('DAMAGED', [problem['what'], *('%s  %s' % pair for pair in problem['facts'].items()),
                              'hint: %s' % problem['hint']])]
    rows += _record_rows(record) if record else []
    rows.append(('overlay', 'has none' if not overlay else overlay['state'] if not overlay['path']
                 else '%s  %s' % (overlay['state'], overlay['path'])))
    links = record and record['modulefile'] and record['modulefile']['links']
    if values['image_in_use'] and os.path.dirname(values['image_in_use']) != values['installation']:
        rows.append(('image in use', values['image_in_use']))
    return rows + [
        ('installation', '%s  (%s)' % (values['installation'], human(values['size']))),
        ('installed', values['installed']),
        ('module file', [values['modulefile'] or 'not known', *(links or ())]),
        ('to load it', values['load']), ('to verify it', values['verify']),
        ('to remove it', values['remove'])]


def _record_rows(record):
    image, inside, parameters = record['image'], record['inside'], record['parameters'] or {}
    unknown = None if record['parameters'] else 'not known'
    rows = [('recipe', record['recipe'])] + (_image_rows(image) if image else [('image', OWN)]) + [
        ('runtime', '%(name)s %(version)s' % record['runtime']), ('site', record['site']),
        ('kind', unknown or _kind(image, parameters['environment'])),
        ('commands', _commands(parameters.get('commands')) if parameters else sorted(inside['commands'])),
        ('needs', unknown or list(parameters['needs']) or 'nothing'),
        ('binds', unknown or list(parameters['binds']) or 'none of its own'),
        ('environment', unknown or ['%s=%s' % pair for pair in sorted(parameters['container_env'].items())]
         or 'none of its own')]
    python, conda = inside['python'], inside['conda']
    rows += [('python', python and ' '.join(str(python.get(key) or '') for key in ('version', 'path'))),
             ('conda', conda and conda.get('prefix')),
             ('python_env', parameters.get('python_env')),
             ('layer', ['%(name)s %(version)s' % one for one in (record.get('layer') or {}).get('packages', ())]),
             ('tests', ['%s  %s' % (test['result'], test['command'])
                        + ('  (needs %s)' % test['needs'] if test.get('needs') else '') for test in record['tests']]
              or 'none')]
    return rows


def _image_rows(image):
    return [
        ('image', image['reference']), ('from', image.get('source')), ('digest', image.get('digest')),
        ('manifest', image.get('manifest_digest') if image.get('manifest_digest') != image.get('digest') else None),
        ('base', ' '.join(filter(None, (image.get('base'), image.get('base_digest')))) or None),
        ('file', '%s  (%s, %s)' % (image['file'], human(image['size']), image['architecture'])),
        ('link to', image.get('link')), ('sha256', image['sha256'])]


def _kind(image, is_environment):
    return '%s module' % ('environment' if is_environment else 'tool') if image else 'bindings, without an image'


def _commands(commands):
    """Return wrappers with what they run inside, where that has another name (list of str)."""
    return [name if list(command['words']) == [name] else '%s: %s' % (name, shlex.join(command['words']))
            for name, command in sorted(commands.items())]


def _recipe_rows(values):
    needs = ['%s  (%s)' % (need, 'provided by site %s' % values['site'] if provided
                           else 'NOT provided by site %s' % values['site'])
             for need, provided in values['needs'].items()]
    there = values['installed']
    return [
        ('recipe', values['recipe']), ('module', values['module']), ('description', values['description']),
        ('homepage', values['homepage']), ('image', values['image'] or OWN),
        ('digest', values['digest'] or ('not in the recipe; what is found is recorded' if values['image'] else None)),
        ('kind', _kind(values['image'], values['environment'])),
        ('commands', _commands({name: {'words': words} for name, words in values['commands'].items()}) or 'none'),
        ('needs', needs or 'nothing'), ('python_env', values['python_env']), ('conda_env', values['conda_env']),
        ('layer', values['python_packages']),
        ('binds', values['binds'] or 'none of its own'),
        ('environment', ['%s=%s' % pair for pair in sorted(values['container_env'].items())] or 'none of its own'),
        ('tests', values['tests'] or 'none'),
        ('installed', 'no' if not there else [
            there['installation'], *(['DAMAGED: %s' % there['problem']] if there['problem'] else []),
            *(['of another image: %s' % there['digest']] if there['same_image'] is False else [])]),
        ('to install it', values['install'])]
