# SPDX-License-Identifier: GPL-2.0-only
"""What a user asks for in a batch job: options of our own and others of sbatch, held against what they may be."""

import re
from dataclasses import dataclass, field, replace

from easysif.errors import USAGE, EasySIFError

WORD = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.@:+-]*')
#: what is taken for each option, and what a message says of it
FORMS = {
    'time': (re.compile(r'\d+(:\d\d(:\d\d)?)?|\d+-\d+(:\d\d(:\d\d)?)?'),
             'a time: minutes, hours:minutes:seconds or days-hours', '1:00:00'),
    'mem': (re.compile(r'\d+[KMGT]?'), 'an amount of memory, such as 16G', '16G'),
    'account': (WORD, 'an account of Slurm', 'project_1'),
    'partition': (re.compile('%s(,%s)*' % (WORD.pattern, WORD.pattern)), 'a partition, or several as a,b', 'standard'),
    'job-name': (WORD, 'a name without blanks', 'train'),
    'output': (re.compile(r'[^\x00-\x20\x7f"\'#\\]+'), 'a file name without blanks, quotes, # and \\', '%x-%j.out'),
    'option': (re.compile(r'--[a-z][a-z-]*(=[ -~]+)?'), 'a long option of sbatch', '--exclusive'),
}
NUMBERS = ('nodes', 'gpus', 'gpus_per_node', 'ntasks', 'ntasks_per_node', 'cpus_per_task')


@dataclass(frozen=True)
class Wanted:
    """What a user asks for; None where the site or the module says it.

    ``gpus`` and ``ntasks`` are of the whole job, as srun counts them. ``texts`` are those of FORMS (dict of str),
    ``options`` more options of sbatch (list of str).
    """

    nodes: int = None
    gpus: int = None
    gpus_per_node: int = None
    ntasks: int = None
    ntasks_per_node: int = None
    cpus_per_task: int = None
    texts: dict = field(default_factory=dict)
    options: tuple = ()

    def settled(self):
        """Return what is asked for, of one node unless told otherwise (Wanted).

        What was given as another option of sbatch, and has one of our own, counts as if that had been given.

        :raises EasySIFError: something is not what it may be
        """
        texts, numbers, options = {}, {}, []
        for one in self.options:
            _check_text('option', one)
            word, _, value = one[2:].partition('=')
            if word in FORMS and word != 'option':
                texts[word] = value
            elif word.replace('-', '_') in NUMBERS:
                numbers[word.replace('-', '_')] = _number(word, value)
            else:
                options.append(one)
        texts.update(self.texts)
        for name, text in texts.items():
            _check_text(name, text)
        numbers.update((name, getattr(self, name)) for name in NUMBERS if getattr(self, name) is not None)
        for name, value in numbers.items():
            option, least = '--' + name.replace('_', '-'), 0 if name.startswith('gpus') else 1
            if value < least:
                raise EasySIFError('easysif job', '%s must be a number from %d' % (option, least),
                                   facts=[('given', value)], hint='%s 1' % option, exit_code=USAGE)
        return replace(self, texts=texts, options=tuple(options), **{'nodes': 1, **numbers})


def _check_text(name, text):
    """Raise what is wrong with a word of the user, before it stands in a script."""
    form, what, example = FORMS[name]
    if not form.fullmatch(text):
        raise EasySIFError('easysif job', '--%s must be %s' % (name, what), facts=[('given', ascii(text))],
                           hint='--%s%s%s' % (name, '=' if name == 'option' else ' ', example), exit_code=USAGE)


def _number(word, value):
    if not re.fullmatch('[0-9]{1,9}', value):
        raise EasySIFError('easysif job', '--%s must be a number' % word, facts=[('given', ascii(value))],
                           hint='--%s 1' % word, exit_code=USAGE)
    return int(value)


def share(total, per_node, nodes, name):
    """Return what each node gets of a number for the job (int), None where neither is given.

    :param total: the number for the job (int or None)
    :param per_node: that for each node (int or None)
    :param nodes: how many nodes there are (int)
    :param name: of the option, for messages (str)
    :raises EasySIFError: they do not fit together
    """
    if total is None or per_node is not None:
        if total is not None and total != per_node * nodes:
            raise EasySIFError('easysif job', '--%s and --%s-per-node do not fit together' % (name, name),
                               facts=[('--%s' % name, total), ('on all nodes', per_node * nodes)],
                               hint='--%s %d; or leave out one of them' % (name, per_node * nodes), exit_code=USAGE)
        return per_node
    if total % nodes:
        raise EasySIFError('easysif job', '--%s cannot be shared evenly among the nodes' % name,
                           facts=[('--%s' % name, total), ('--nodes', nodes)],
                           hint='--%s-per-node %d' % (name, -(-total // nodes)), exit_code=USAGE)
    return total // nodes
