# SPDX-License-Identifier: GPL-2.0-only
"""``easysif job``: a batch script that runs a command in a module, right for this site, printed or submitted."""

import json

from easysif import installed, lookup, manifest, site
from easysif.cli.common import add_prefix, prefix_of
from easysif.errors import EasySIFError
from easysif.running import jobs
from easysif.running.wanted import Wanted

NUMBERS = {'nodes': ('N', 'nodes (1)'), 'gpus': ('N', 'GPUs of the whole job'),
           'gpus-per-node': ('N', 'GPUs of each node'), 'ntasks': ('N', 'ranks of the whole job'),
           'ntasks-per-node': ('N', 'ranks of each node'), 'cpus-per-task': ('N', 'CPUs of each rank')}
TEXTS = {'time': ('TIME', 'limit, as for sbatch (1:00:00)'), 'mem': ('SIZE', 'memory of each node, such as 64G'),
         'account': ('NAME', 'who pays'), 'partition': ('NAME', 'where it runs'),
         'job-name': ('NAME', 'what it is called'), 'output': ('FILE', 'what it prints (%%x-%%j.out)')}


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('job', help='make or submit a batch script', description=(
        'Print a batch script that runs a command in a module with Slurm: partition, GPUs, binding of CPUs and srun as '
        'this site has them. A command of the module is its wrapper; any other one runs inside the image.'))
    parser.add_argument('module', metavar='MODULE', help='an installed module, or a recipe that is installed')
    parser.add_argument('command', metavar='COMMAND', nargs='+', help='what runs, with its arguments, after --')
    for name, (metavar, text) in NUMBERS.items():
        parser.add_argument('--%s' % name, metavar=metavar, type=int, help=text)
    for name, (metavar, text) in TEXTS.items():
        parser.add_argument('--%s' % name, metavar=metavar, help=text)
    parser.add_argument('--option', metavar='--NAME=VALUE', action='append', default=[],
                        help='another option of sbatch: --option=--exclusive; may be repeated')
    parser.add_argument('--submit', action='store_true', help='submit it with sbatch')
    parser.add_argument('--json', action='store_true', help='print what is asked for, and the script, as JSON')
    add_prefix(parser)
    parser.set_defaults(run=_run)
    parser.has_command = True


def _run(args):
    prefix = prefix_of(args)
    name, root = _module(args.module, prefix)
    top = installed.top_of(manifest.read(root), name, prefix)
    values = vars(args)
    numbers = {key: values[key] for key in (name.replace('-', '_') for name in NUMBERS) if values[key] is not None}
    texts = {name: values[name.replace('-', '_')] for name in TEXTS if values[name.replace('-', '_')] is not None}
    job = jobs.make(name, root, top, site.resolve().site,
                    Wanted(texts=texts, options=tuple(args.option), **numbers), args.command)
    if args.submit:
        job.job = jobs.submit(job)
    if args.json:
        print(json.dumps(jobs.as_dict(job), indent=2))
    elif args.submit:
        print('submitted as job %s' % job.job)
    else:
        print(job.script, end='')


def _module(word, prefix):
    """Return name and installation directory of a module, or of what a recipe has installed (str, str)."""
    name, root, path = lookup.module_or_recipe(word, prefix)
    if not path:
        return name, root
    known = lookup.describe_recipe(path, prefix)
    if not known['installed']:
        raise EasySIFError(word, 'is not installed yet', facts=[('module', known['module']), ('prefix', prefix)],
                           hint='%s; as a batch job: %s --job --job-backend=Slurm' % (
                               known['install'], known['install']))
    return known['module'], known['installed']['installation']
