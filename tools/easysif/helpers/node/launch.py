# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S -B DIRECTORY launch [--module NAME] [--image FILE] [--json] SRUN NODES COMMAND...

Starts a job step of its own in the background, in which one process on each node of the job keeps an image for all
other steps (join.py --stay), and ends when it is mounted everywhere: what one step has started ends with that step, so
none that computes can keep it for the next. The step ends with the job. NODES is how many the job has; for each of its
parts, with commas between them, where it is a heterogeneous one.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from json import dumps, loads

from join import LONGEST, TOOL, plain, tell

PATIENCE = 300  #: seconds in which the image has to be mounted on all nodes
KILLING = 40    #: seconds in which Slurm ends a step: its KillWait and a little more

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  #: what has the step ended before it is complete

#: one process a node, beside whatever else runs there; it takes nothing from other steps
OPTIONS = ('--overlap', '--mem=0', '--ntasks-per-node=1', '--cpu-bind=none', '--mpi=none', '--input=none',
           '--kill-on-bad-exit=0', '--wait=0', '--quiet', '--job-name=node-hold')

#: what srun takes for options of its own, but for what tells it which job is meant
CHOICES = re.compile('(SLURM|SRUN)_(?!(JOB_ID|JOB_ID_HET_GROUP_[0-9]+|HET_SIZE|CONF|CLUSTERS|WORKING_CLUSTER|JWT|'
                     'EXPORT_ENV)$)')

PART = re.compile('SLURM_JOB_ID_HET_GROUP_[0-9]+$')  #: the numbers of a heterogeneous job, one for each of its parts


class Failed(Exception):
    """Why the image is not kept, in words."""


def main(*argv):
    """Start the step, and tell how that went.

    :param argv: as in the usage (str)
    """
    argv, options = list(argv), {}
    while argv[0].startswith('--'):
        name = argv.pop(0)[2:]
        options[name] = argv.pop(0) if name in ('module', 'image') else True
    srun, counts, *command = argv
    counts = list(map(int, counts.split(',')))
    where = options.get('module') or options['image']
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it, or a script for what it puts behind &
            signal.signal(number, signal.default_int_handler)
    try:
        launch([srun, *parts(counts, command)], sum(counts), lambda nodes: show(nodes, where, **options))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except (Failed, OSError) as err:
        why = err.strerror if isinstance(err, OSError) and err.strerror else err
        tell('error: %s: the image cannot be kept mounted for the job' % where, '  reason  %s' % why,
             'hint: leave out node-hold; each job step then mounts the image for itself')
        sys.exit(TOOL)


def show(nodes, where, module=None, image=None, json=False):
    """Print what is done; ``where`` is the module or the image, and the others are as in the usage.

    :param nodes: what the processes of the step say (list of dict)
    """
    step, count = nodes[0]['step'], len(nodes)
    job, _, number = step.partition('.')
    jobs = [value for name, value in sorted(os.environ.items()) if PART.match(name)] or [job]
    if json:
        text = dumps({'module': module, 'image': image, 'step': step, 'nodes': [
            {name: node[name] for name in ('node', 'keeper', 'holder')} for node in nodes]}, indent=2)
    else:
        text = plain('%s: mounted on %d node%s until job %s ends; before that: scancel --signal=TERM %s' % (
            where, count, 's' * (count != 1), job, ' '.join('%s.%s' % (one, number) for one in jobs)))
    if sys.stdout:  # else who started us has closed it
        with open(sys.stdout.fileno(), 'w', errors='backslashreplace', closefd=False) as out:
            out.write(text + '\n')


def parts(counts, command):
    """Return the arguments of srun that run a command on all nodes (list of str).

    :param counts: how many nodes the job has, or each of its parts (list of int)
    :param command: what runs on each of them (list of str)
    """
    argv = []
    for number, count in enumerate(counts):
        part = ['--het-group=%d' % number] if len(counts) > 1 else []
        argv += [*([':'] if argv else []), *OPTIONS, *part, '--nodes=%d' % count, '--ntasks=%d' % count, *command]
    return argv


def launch(argv, count, tell_all):
    """Start the step, and call a function with what its processes say, sorted by node (list of dict).

    :param argv: srun and its arguments (list of str)
    :param count: how many processes there are (int)
    :raises Failed: one of them cannot keep the image, or the step does not come about
    :raises OSError: that cannot be told; then there is no step either
    """
    env = {name: value for name, value in os.environ.items() if not CHOICES.match(name)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until there is a step that can be ended
    with open(os.memfd_create('errors'), 'w+b') as errors:  # srun may write to it as long as it runs
        step = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                start_new_session=True,
                                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask))
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            tell_all(sorted(listen(step, count, errors), key=lambda node: node['node'] or ''))
        except BaseException:
            step.terminate()
            try:
                step.wait(KILLING)
            except subprocess.TimeoutExpired:
                step.kill()
            raise


def listen(step, count, errors):
    """Return what the processes of the step say (list of dict)."""
    said, rest, deadline = [], b'', time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(step.stdout, selectors.EVENT_READ)
        while len(said) < count:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise Failed('it is mounted on %d of %d nodes after %d seconds%s' % (
                    len(said), count, PATIENCE, last_words(errors, ' (%s)')))
            piece = os.read(step.stdout.fileno(), 1 << 16)
            if not piece:
                raise Failed(last_words(errors) or 'srun ended with exit code %d' % step.wait())
            *lines, rest = (rest + piece).split(b'\n')
            for word in filter(None, map(understood, lines)):
                if 'failed' in word:
                    raise Failed('%s: %s' % (word['node'], word['failed']))
                said.append(word)
    return said


def understood(line):
    """Return what a process says in a line (dict), None for what others print, such as a prologue of the site."""
    try:
        word = loads(line)
    except ValueError:
        return None
    return word if isinstance(word, dict) and word.get('easysif') == 'node-hold' else None


def last_words(errors, form='%s'):
    """Return what a file tells, in the words of a form, '' where there is nothing (str): an error, or its last line."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().decode('utf-8', 'replace').splitlines() if line.strip()]
    told = [line[len('error: '):] for line in lines if line.startswith('error: ')] or lines[-1:]
    return form % told[0][:LONGEST] if told else ''
