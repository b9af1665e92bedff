# SPDX-License-Identifier: GPL-2.0-only
"""A batch script for one module and one command, as the site's `job` says: what is asked of Slurm, and how it is run.

The text around it is helpers/job-script; here it is decided what stands in it.
"""

import os
import re
import shlex
import shutil
from dataclasses import asdict, dataclass

from easysif import manifest
from easysif.data import helper_text
from easysif.errors import INPUT, TOOL, USAGE, EasySIFError, escaped
from easysif.run import failure, run
from easysif.running.wanted import share

#: needs for which a job gets nodes with GPUs
GPU_NEEDS = ('nvidia-gpu', 'amd-gpu')

DISTRIBUTED = 'conda-python-distributed'  #: a program over all ranks: one rank for each GPU unless told otherwise


@dataclass
class Job:
    """A batch job.

    :param module: the module (str)
    :param site: the site (str)
    :param command: what runs (list of str)
    :param nodes: how many (int); ``ntasks_per_node`` and ``gpus_per_node`` of each
    :param partition: of Slurm (str), None where Slurm chooses; ``account`` likewise
    :param time: its limit (str)
    :param cpu_bind: how srun binds ranks to CPUs (str), None where Slurm decides
    :param script: the text for sbatch (str)
    :param job: its number once it is submitted (str)
    """

    module: str
    site: str
    command: list
    nodes: int
    ntasks_per_node: int
    gpus_per_node: int
    partition: str
    account: str
    time: str
    cpu_bind: str
    script: str = ''
    job: str = None


def make(module, root, top, site, wanted, command, environ=None):
    """Return the batch job that runs a command in a module (Job).

    :param module: its full name (str)
    :param root: its installation directory (str)
    :param top: the directory of module files below which it has that name (str)
    :param site: the resolved site (Site)
    :param wanted: what the user asks for (Wanted)
    :param command: the command and its arguments (list of str)
    :param environ: the environment (dict), the process's own where None
    :raises EasySIFError: an option does not fit, or not with the others
    """
    environ = os.environ if environ is None else environ
    record, wanted = manifest.read(root), wanted.settled()
    _check(command)
    gpus = _gpus(wanted, record, site, command)
    nodes = (site.job.get('gpu' if gpus else 'cpu') or {})
    is_whole = gpus == nodes.get('gpus') if gpus else wanted.nodes > 1
    more = nodes.get('whole' if is_whole else 'part') or {}
    tasks = _tasks(wanted, gpus if command[0] == DISTRIBUTED else 0)
    # where the user says nothing, Slurm takes these variables before what the script says
    account = wanted.texts.get('account') or not environ.get('SBATCH_ACCOUNT') and site.job.get('account') or None
    partition = wanted.texts.get('partition') or not environ.get('SBATCH_PARTITION') and (
        more.get('partition') or nodes.get('partition')) or None
    job = Job(module, site.name, list(command), wanted.nodes, tasks, gpus, partition, account,
              wanted.texts.get('time') or '1:00:00', more.get('cpu_bind') if tasks == gpus else None)
    options = [*(nodes.get('options') or ()), *(more.get('options') or ()), *wanted.options]
    job.script = _script(job, wanted, options, _Module(module, root, top, record, site, environ))
    return job


def submit(job):
    """Submit a job and return its number (str).

    :raises EasySIFError: something is left to be filled in, there is no Slurm here, or it refuses
    """
    if job.account and '<' in job.account:
        raise EasySIFError('easysif job', "site '%s' wants to know an account" % job.site,
                           facts=[('account', job.account)],
                           hint='--account NAME; or write it down once in ~/.config/easysif/site.yaml: '
                                'job: {account: NAME}')
    if not shutil.which('sbatch'):
        raise EasySIFError('easysif job', 'sbatch is not on PATH', exit_code=TOOL,
                           hint='leave out --submit, and submit what is printed where Slurm is')
    # once more as options, which count before variables of Slurm as lines of a script do not
    said = ['--%s=%s' % (name, getattr(job, name)) for name in ('account', 'partition') if getattr(job, name)]
    result = run(['sbatch', '--parsable', *said], stdin=job.script, check=False)
    if result.status:
        raise failure(result, what='the job was not accepted', hint='the same without --submit shows the script')
    return result.stdout.strip().partition(';')[0]


def _gpus(wanted, record, site, command):
    """Return how many GPUs each node gives to the job (int)."""
    has = (site.job.get('gpu') or {}).get('gpus')
    gpus = share(wanted.gpus, wanted.gpus_per_node, wanted.nodes, 'gpus')
    if gpus is None:
        needs = (record.get('parameters') or {}).get('needs') or ()
        if not any(need.rstrip('?') in GPU_NEEDS for need in needs):
            return 0
        return has or 1 if wanted.nodes > 1 or command[0] == DISTRIBUTED else 1
    if has and gpus > has:
        raise EasySIFError('easysif job', "a node of site '%s' has not so many GPUs" % site.name,
                           facts=[('asked for', gpus), ('has', has)],
                           hint='--nodes %d --gpus-per-node %d' % (-(-gpus * wanted.nodes // has), has),
                           exit_code=INPUT)
    return gpus


def _tasks(wanted, usual):
    return share(wanted.ntasks, wanted.ntasks_per_node, wanted.nodes, 'ntasks') or usual or 1


def _check(command):
    for text in command:
        if '\0' in text:
            raise EasySIFError('easysif job', 'no command can hold a null byte', hint='easysif job --help',
                               exit_code=USAGE)


@dataclass(frozen=True)
class _Module:
    """The module of a job, and how its commands are called from the script."""

    name: str
    root: str
    top: str
    record: dict
    site: object
    environ: dict

    def lines(self):
        """Return how the script comes to its commands (list of str)."""
        if not self.has_modules():
            return ['# there is no module system here; the wrappers of the module need none',
                    'export PATH=%s:"$PATH"' % shlex.quote(os.path.join(self.root, 'bin'))]
        return ['# sets binds, GPUs and %s on the node where it runs' % self._image(),
                'command -v module >/dev/null || . "$MODULESHOME/init/bash" || :',  # not all shells hand functions on
                'module use %s' % shlex.quote(self.top), 'module load %s' % shlex.quote(self.name)]

    def has_modules(self):
        """Tell whether there is a module system where this is called (bool)."""
        return bool(self.environ.get('LMOD_CMD') or self.environ.get('MODULESHOME'))

    def call(self, command):
        """Return the words by which a command runs inside the image, as the script has them (str)."""
        text = shlex.join(command)
        if '/' not in command[0] and os.path.lexists(os.path.join(self.root, 'bin', command[0])):
            return text  # its wrapper
        if not self.has_modules() or self.site.share == 'node':  # what the runtime itself is called for shares nothing
            # shell that is to run inside: it becomes its arguments
            return '''start-shell -c 'exec "$0" "$@"' %s''' % text
        runtime = self.site.runtime if self.site.runtime != 'auto' else self.record['runtime']['name']
        return '%s exec "$%s" %s' % (shlex.quote(runtime), self._image(), text)

    def _image(self):
        return 'SIF%s' % self.record['parameters']['variable']


def _script(job, wanted, options, module):
    words = {'job-name': wanted.texts.get('job-name') or job.module.split('/')[0], 'account': job.account,
             'partition': job.partition, 'nodes': job.nodes, 'ntasks-per-node': job.ntasks_per_node,
             'cpus-per-task': wanted.cpus_per_task, 'gpus-per-node': job.gpus_per_node or None,
             'mem': wanted.texts.get('mem'), 'time': job.time, 'output': wanted.texts.get('output') or '%x-%j.out'}
    named = {one.partition('=')[0][2:]: one for one in options}  # the last one of a name counts
    given = {name for name, value in wanted.texts.items() if value}
    lines = ['--%s=%s' % (name, value) for name, value in words.items()
             if value is not None and (name in given or name not in named)]
    lines += [one for name, one in named.items() if name not in given]
    step = 'srun %s%s%s' % ('--cpus-per-task=%d ' % wanted.cpus_per_task if wanted.cpus_per_task else '',
                            '--cpu-bind=%s ' % job.cpu_bind if job.cpu_bind else '', module.call(job.command))
    about = [_hash('%s in %s, for site %s' % (shlex.join(job.command), job.module, job.site)),
             _hash('%d node%s, %d rank%s%s on each' % (
                 job.nodes, 's' * (job.nodes > 1), job.ntasks_per_node, 's' * (job.ntasks_per_node > 1),
                 ' and %d GPU%s' % (job.gpus_per_node, 's' * (job.gpus_per_node > 1)) if job.gpus_per_node else ''))]
    if job.account and '<' in job.account:
        about.append(_hash('fill in --account; ~/.config/easysif/site.yaml can say it once: job: {account: NAME}'))
    if job.cpu_bind:
        step = '%s\n%s' % (_hash('each rank is bound to the CPUs next to its GPU'), step)
    if job.nodes * job.ntasks_per_node > 1 and job.command[0] in ('python', 'python3'):
        step = '%s\n%s' % (_hash('for PyTorch DDP or jax.distributed: %s in the place of %s' % (
            DISTRIBUTED, job.command[0])), step)
    parts = {'about': about, 'directives': ['#SBATCH %s' % _directive(one) for one in lines], 'module': module.lines(),
             'ranks': [''] * (job.command[0] == DISTRIBUTED), 'step': [step]}
    return ''.join(_filled(line, parts) for line in helper_text('job-script').splitlines(True))


def _filled(line, parts):
    """Return what stands in a script for a line of helpers/job-script (str)."""
    name = re.fullmatch(r'#@\{(\w+)\}(.*\n)', line)
    if name:
        return ''.join(one + name.group(2) for one in parts[name.group(1)])
    return line[2:] if line.startswith('#@') else ''


def _directive(option):
    """Return an option as sbatch reads it in a script, letter by letter (str): # begins a comment there."""
    name, is_pair, value = option.partition('=')
    if not re.search(r'[\s"\'#\\]', value):
        return option
    return '%s%s"%s"' % (name, is_pair, re.sub(r'(["\'#\\])', r'\\\1', value))


def _hash(text):
    return '# %s' % escaped(text)


def as_dict(job):
    """Return a job as it is told to programs (dict)."""
    return asdict(job)
