# SPDX-License-Identifier: GPL-2.0-only
"""Runs a test of a recipe at install, with its module loaded."""

import tempfile
from dataclasses import dataclass
from typing import Optional

from easysif.run import run


@dataclass(frozen=True)
class Tested:
    """How a test went.

    :param record: the command and its result, as the manifest has them (dict)
    :param output: what the command printed (str)
    :param note: what is to be said of it (str), None where it passed
    """

    record: dict
    output: str
    note: Optional[str] = None


def run_test(command, missing, module):
    """Run a test of a recipe in an empty directory. None of its processes outlives this one, however that ends.

    A test that fails where the machine lacks what the recipe needs is skipped: it runs all the same, as not every test
    needs a GPU.

    :param command: a command of bash (str)
    :param missing: the needs whose devices this machine has not (list of str)
    :param module: name of the module, for messages (str)
    :returns: Tested
    """
    with tempfile.TemporaryDirectory(prefix='easysif-test-') as directory:
        result = run(['bash', '-c', command], cwd=directory, check=False)
    output = result.stdout + result.stderr
    if not result.status:
        return Tested({'command': command, 'result': 'passed'}, output)
    if not missing:
        return Tested({'command': command, 'result': 'failed'}, output, 'sanity check command %s failed with exit code '
                      '%d (output: %s)' % (command, result.status, output))
    return Tested({'command': command, 'result': 'skipped', 'needs': missing[0]}, output,
                  'test skipped: it failed and this machine has no %s: %s\nrun it where there is one: easysif test %s'
                  % (missing[0], command, module))
