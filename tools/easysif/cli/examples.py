# SPDX-License-Identifier: GPL-2.0-only
"""Examples of every sub-command, which its --help ends with: what it is for, and what to type."""

import argparse

from easysif.text import examples

_JAX = 'jax/24.10-singularity'

EXAMPLES = {
    'list': [('what is installed, with sizes and overlays', 'easysif list'),
             ('in another prefix, for a program', 'easysif list --prefix /project/software --json')],
    'show': [('all of an installed module', 'easysif show %s' % _JAX),
             ('what a recipe would install here', 'easysif show jax-24.10-singularity.eb')],
    'verify': [('hold all modules against what was recorded', 'easysif verify'),
               ('one of them', 'easysif verify %s' % _JAX)],
    'refresh': [('make module file and wrappers of a module anew', 'easysif refresh %s' % _JAX),
                ('after an update of EasySIF', 'easysif refresh --all')],
    'upgrade': [('what is newer', 'easysif upgrade'),
                ('bring your packages to another version, and make it the default',
                 'easysif upgrade %s jax/25.1-singularity --yes --default' % _JAX)],
    'overlay status': [('of the loaded module', 'easysif overlay status'),
                       ('of any', 'easysif overlay status %s' % _JAX)],
    'overlay pack': [('what make-squashfs does', 'easysif overlay pack %s' % _JAX),
                     ('see what it would do', 'easysif overlay pack %s --dry-run' % _JAX)],
    'overlay unpack': [('what unmake-squashfs does', 'easysif overlay unpack %s' % _JAX)],
    'overlay rollback': [('back to what was packed before', 'easysif overlay rollback %s' % _JAX)],
    'overlay check': [('look for flipped bits', 'easysif overlay check %s' % _JAX)],
    'overlay remove': [('your packages of a module, after a question', 'easysif overlay remove %s' % _JAX)],
    'overlay install': [('packages for the loaded module', 'easysif overlay install flax optax'),
                        ('for another one, from a file',
                         'easysif overlay install %s -r requirements.txt' % _JAX)],
    'overlay export': [('what you added, so that it can be had again',
                        'easysif overlay export %s --output mine.txt' % _JAX)],
    'overlay rebuild': [('all packages anew, as for another Python', 'easysif overlay rebuild %s' % _JAX),
                        ('from what was exported', 'easysif overlay rebuild %s --from mine.txt' % _JAX)],
    'image restore': [('an image that is gone or damaged', 'easysif image restore %s' % _JAX)],
    'command add': [('a command of an image', 'easysif command add docker://staphb/samtools:1.21 samtools'),
                    ('two of a SIF file, elsewhere', 'easysif command add --to ~/tools bio.sif samtools bcftools'),
                    ('a command of an installed module', 'easysif command add SAMtools samtools')],
    'command list': [('what you have', 'easysif command list')],
    'command remove': [('a command, and its image with the last one', 'easysif command remove samtools')],
    'job': [('see the script for a program on one GPU', 'easysif job jax --time 2:00:00 -- python train.py'),
            ('submit training over four whole nodes',
             'easysif job PyTorch --nodes 4 --account project_1 --submit -- conda-python-distributed -u train.py')],
    'node-exec': [('what each rank of srun runs, in an image that is mounted once a node',
                   'easysif node-exec jax -- python train.py'),
                  ('the same with an image that is no module', 'easysif node-exec ./my.sif -- ./solver input')],
    'node-hold': [('in a batch script, before several lines with srun', 'easysif node-hold jax'),
                  ('the same with an image that is no module', 'easysif node-hold ./my.sif')],
    'kernel add': [('work in a module from JupyterLab', 'easysif kernel add %s --display-name "JAX 24.10"' % _JAX)],
    'kernel list': [('what Jupyter can start', 'easysif kernel list')],
    'kernel remove': [('a kernel', 'easysif kernel remove %s' % _JAX)],
    'remove': [('a module, but not your packages', 'easysif remove %s' % _JAX),
               ('both, without a question', 'easysif remove %s --overlay --yes' % _JAX)],
    'new': [('a recipe for an image', 'easysif new samtools 1.21 --image docker://staphb/samtools:1.21 --tool'),
            ('in a tree of recipes, with a test',
             'easysif new toy 1.0 --image toy.sif --test "toy --self-test" --output easyconfigs')],
    'bump': [('the recipe of another version', 'easysif bump jax-24.10-singularity.eb 25.1')],
    'import shpc': [('a recipe from one of Singularity HPC',
                     'easysif import shpc container.yaml --output easyconfigs')],
    'check': [('all recipes that are found', 'easysif check'), ('one', 'easysif check mine-1.0.eb')],
    'catalogue': [('a site of all recipes', 'easysif catalogue --output public')],
    'pin': [('write the digests that are missing', 'easysif pin jax-24.10-singularity.eb'),
            ('see whether tags were pushed again', 'easysif pin --check')],
    'store add': [('a file', 'easysif store add lumi-pytorch.sif'),
                  ('the image of a recipe', 'easysif store add jax-24.10-singularity.eb')],
    'store list': [('what is there, and who needs it', 'easysif store list --prefix /project/software')],
    'store verify': [('read all of it', 'easysif store verify')],
    'store gc': [('see what no module needs', 'easysif store gc'), ('remove it', 'easysif store gc --yes')],
    'config': [('every setting, and where it came from', 'easysif config')],
    'site list': [('the profiles that are shipped', 'easysif site list')],
    'site show': [('what one of them says', 'easysif site show lumi')],
    'site check': [('hold the site against this machine', 'easysif site check'),
                   ('and against an image that needs its MPI', 'easysif site check --image app.sif --need mpi')],
    'site new': [('a profile for this machine', 'easysif site new ourcluster.yaml')],
    'site apply': [('after a change of the site or of the system', 'easysif site apply --prefix /project/software')],
    'doctor': [('what is wrong with this machine', 'easysif doctor')],
    'test': [('the tests of a recipe again', 'easysif test %s' % _JAX)],
    'completion': [('in ~/.bashrc: eval "$(easysif completion bash)"', 'easysif completion bash'),
                   ('in ~/.config/fish/config.fish: easysif completion fish | source', 'easysif completion fish'),
                   ('for a program', 'easysif completion zsh --json')],
}

HEAD = examples([])


class Formatter(argparse.HelpFormatter):
    """Leaves the lines of examples as they are."""

    def _fill_text(self, text, width, indent):
        return text if text.startswith(HEAD) else super()._fill_text(text, width, indent)


def add_to(parser, path=()):
    """Have the help of a parser end with its examples, that of a group with the first one of each of its commands.

    :param parser: the parser of easysif (Parser), or of one of its commands
    :param path: the words by which it is called (tuple of str)
    :returns: the examples (list of (str, str))
    """
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    found = [one for group in groups for name, below in group.choices.items()
             for one in add_to(below, (*path, name))[:1]] or EXAMPLES.get(' '.join(path), [])
    parser.formatter_class = Formatter
    if path and found:
        parser.epilog = examples(found)
    return found
