# SPDX-License-Identifier: GPL-2.0-only
"""Questions to an image: a helper is read by its shell or its Python, and what it tells is taken apart here.

The container sees the image and nothing of the caller's machine or account.
"""

import json
import re
import shlex
import time

from easysif.data import helper_text
from easysif.errors import EasySIFError
from easysif.run import failure, run

#: neither the caller's environment nor their home, working directory or /tmp: ~/.local would become a fact;
#: and processes of its own, so that none of an image that starts some in the background outlives the question
FLAGS = ('--cleanenv', '--contain', '--no-home', '--pid', '--pwd', '/')
NO_SHELL = re.compile(r'stat /bin/sh: no such file|"sh": executable file not found')
TIMEOUT = 600  #: seconds; an image of 30 GB on a busy Lustre takes some to open


def ask_shell(sif, runtime, helper, arguments, where):
    """Return the pairs that a helper tells of an image (list of (str, str)), None where it has no shell.

    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param helper: a script of ours that tells KEY NUL VALUE NUL, first ``begin`` and its own name (str)
    :param arguments: of the script (list of str)
    :param where: the recipe, for messages (str)
    :raises EasySIFError: the image does not start, or its shell does not work
    """
    script = helper_text(helper)
    for shell in ('/bin/sh', 'sh'):
        result, late = _run(runtime.exec_argv(sif, [shell, '-s', '--', *arguments], flags=FLAGS), runtime, script)
        fields = result.stdout.rpartition('begin\0easysif %s\0' % helper)[2].split('\0')[:-1]
        pairs = list(zip(fields[::2], fields[1::2]))
        if result.status == 0 and pairs[-1:] == [('end', '')]:
            return pairs[:-1]
        if not NO_SHELL.search(result.stderr):
            break
    else:
        return None
    error = failure(result, what='the image does not start, or its shell does not work')
    raise EasySIFError(where, error.what, facts=error.facts + late, exit_code=error.exit_code,
                       hint='try it by hand: %s' %
                       shlex.join(runtime.exec_argv(sif, ['/bin/sh', '-c', 'echo it works'], flags=FLAGS)))


def ask_python(sif, runtime, python, helper, arguments):
    """Ask an image's Python, and return how that ended (Result), what there is to say of the time it took (tuple) and
    what a helper told, as JSON has it, None where it did not come to that.

    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param python: its path inside (str)
    :param helper: a script of ours that tells one line of JSON behind its own name (str)
    :param arguments: of the script (list of str)
    """
    argv = runtime.exec_argv(sif, [python, '-E', '-s', '-', *arguments], flags=FLAGS)
    result, late = _run(argv, runtime, helper_text(helper))
    line = re.search('^easysif %s (.*)$' % helper[:-len('.py')].replace('_', '-'), result.stdout, re.MULTILINE)
    try:
        return result, late, json.loads(line.group(1)) if result.status == 0 and line else None
    except (ValueError, RecursionError):
        return result, late, None


def _run(argv, runtime, script):
    """Return what a command left that reads a script (Result), and what there is to say of the time it took (tuple)."""
    begin = time.monotonic()
    result = run(argv, env=runtime.environment(), stdin=script, timeout=TIMEOUT, check=False)
    late = time.monotonic() - begin >= TIMEOUT
    return result, (('stopped', 'after %d seconds without an answer' % TIMEOUT),) if late else ()
