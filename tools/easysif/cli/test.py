# SPDX-License-Identifier: GPL-2.0-only
"""``easysif test``: runs the recipe's tests again, where the hardware is there for instance."""

import json
import os

from easysif import installed, manifest
from easysif.data import helper
from easysif.run import run
from easysif.text import exit_code


def register(subparsers):
    """Add the command."""
    parser = subparsers.add_parser('test', help="run a module's tests again, in a job for instance",
                                   description="Load a module and run the tests of its recipe. Tests that were skipped "
                                               'at install, because the machine had no GPU, run here.')
    parser.add_argument('module', metavar='MODULE', help='name/version, or the name where one version is installed')
    parser.add_argument('--prefix', metavar='DIR', help="EasyBuild's install path (default: as EasyBuild's environment"
                                                        ' variables say, else ~/.local/easybuild)')
    parser.add_argument('--json', action='store_true', help='print the results as JSON')
    parser.set_defaults(run=_run)


def _run(args):
    prefix = os.path.abspath(args.prefix or installed.default_prefix())
    module, root = installed.find(prefix, args.module)
    record = manifest.read(root)
    results = []
    for test in record['tests']:
        outcome = run([helper('with-module'), installed.top_of(record, module, prefix), module, test['command']],
                      check=False)
        passed = outcome.status == 0
        results.append({'command': test['command'], 'result': 'passed' if passed else 'failed'})
        if not args.json:
            print('%s  %s' % ('passed' if passed else 'FAILED', test['command']))
            if not passed:
                print('        exit code %s: %s' % (exit_code(outcome.status), outcome.last_line()))
    if args.json:
        print(json.dumps({'module': module, 'tests': results}, indent=2))
    elif not results:
        print('the recipe of %s has no tests' % module)
    failed = [result for result in results if result['result'] == 'failed']
    if not failed and os.access(root, os.W_OK):
        record['tests'] = results
        manifest.write(root, record)
    return 1 if failed else 0
