# SPDX-License-Identifier: GPL-2.0-only
"""What a recipe of this repository has to keep, beyond being valid: each rule is a function, its docstring the rule.

A rule takes a Draft and yields errors. It opens nothing but the recipe.
"""

import os
import re
import shlex
from dataclasses import dataclass

from easysif import recipe, schema, site, templates
from easysif.errors import EasySIFError, SeveralErrors

#: every key that has a fixed place; EasyBuild's other parameters stand where they read best
ORDER = ('easyblock', 'name', 'version', 'versionsuffix', 'homepage', 'description', 'toolchain',
         *recipe.OURS, 'sanity_check_commands', 'moduleclass')

MAX_LINES = 25

#: commands of every system, of shells and of schedulers: scripts and module files would run the image's instead
NOT_TO_SHADOW = frozenset(
    'apptainer awk bash cat cd chmod chown command cp csh cut dash date dirname easysif eb echo env expr false find '
    'getopt git grep gzip head hostname id kill ksh ln ls lua mkdir mksquashfs mktemp ml module mount mpiexec mpirun '
    'mv ps pwd readlink realpath rm rmdir salloc sbatch scancel scontrol sed seq sh singularity sinfo sleep sort '
    'squeue srun ssh stat sudo tail tar tclsh tcsh tee test timeout touch tr true umask umount uname uniq unsquashfs '
    'wc which '
    'xargs zsh'.split())

#: words that make a command say what it is instead of doing what it is for
_NO_TEST = {'--version', '-version', '-V', '-v', 'version', '--help', '-help', '-h', 'help'}

RULES = []


@dataclass(frozen=True)
class Draft:
    """A recipe as it was read, valid or not.

    :param values: what could be read, and ``lines`` where (dict), as ``recipe.parse`` gives them
    :param unreadable: keys that have a line and no value (set)
    :param length: number of lines that are not blank (int)
    :param provided: the needs that any site of ours provides (set)
    :param not_pinned: why the recipe has no digest, as a comment ``# not pinned: …`` of it says, '' for none (str)
    """

    path: str
    values: dict
    lines: dict
    unreadable: set
    length: int
    provided: set
    not_pinned: str = ''

    @property
    def where(self):
        """File name for messages (str)."""
        return os.path.basename(self.path)

    @property
    def ours(self):
        """Whether an easyblock of ours installs it (bool)."""
        return self.values.get('easyblock') in schema.easyblocks()

    @property
    def tree(self):
        """The tree of recipes that it is in (str or None)."""
        return tree_of(self.path)

    def text(self, key):
        """Return a value that is a text, '' where it is not there or something else (str)."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ''

    def error(self, key, what, hint=None):
        """Return a problem that has to do with a key, or with the whole where that is None (EasySIFError)."""
        return EasySIFError('%s:%d' % (self.where, self.lines[key]) if key in self.lines else self.where, what,
                            hint=hint)


def rule(function):
    """Make a function one of the rules."""
    RULES.append(function)
    return function


@rule
def valid(draft):
    """A recipe fits the schema: known keys, right types, known templates."""
    if draft.ours or not draft.values.get('easyblock'):
        missing = {'%s is missing' % key for key in draft.unreadable}
        try:
            recipe.validate(draft.values, draft.where, draft.lines, draft.path)
        except SeveralErrors as err:
            yield from (one for one in err.errors if one.what not in missing)


@rule
def names_its_easyblock(draft):
    """A recipe says which easyblock installs it, as EasyBuild would otherwise guess one from the name."""
    if 'easyblock' not in draft.lines:
        yield draft.error(None, 'easyblock is missing', hint="write easyblock = 'ContainerImage'")
    elif 'easyblock' in draft.values and draft.values['easyblock'] and not draft.ours:
        # the schema is for recipes of ours, but this much holds for all
        for problem in schema.problems('recipe', draft.values):
            if problem.path == ('easyblock',):
                yield draft.error('easyblock', problem.what, hint=problem.hint)


@rule
def in_order(draft):
    """Keys stand in the order of DESIGN section 4, the same in every recipe."""
    placed = [key for key in draft.lines if key in ORDER]
    for before, key in zip(placed, placed[1:]):
        if ORDER.index(key) < ORDER.index(before):
            yield draft.error(key, '%s stands after %s, but belongs before it' % (key, before),
                              hint='the order is: %s' % ', '.join(ORDER))


@rule
def path_is_identity(draft):
    """A recipe lies where its content says: easyconfigs/LETTER/NAME/NAME-VERSION.eb."""
    name, version = draft.text('name'), draft.text('version') + draft.text('versionsuffix')
    if not name or not version or draft.unreadable.intersection({'name', 'version', 'versionsuffix'}):
        return
    identity = '%s-%s' % (name, version)
    folder = os.path.dirname(draft.path)
    if draft.tree:
        right = os.path.join(draft.tree, letter(name), name)
        if right != os.path.dirname(os.path.abspath(draft.path)):
            folder = right if os.path.isabs(draft.path) else os.path.relpath(right)
    target = os.path.join(folder, '%s.eb' % identity)
    if target != draft.path:
        what = 'file name' if os.path.basename(target) != draft.where else 'directory'
        yield draft.error(None, '%s does not match its content (%s)' % (what, identity),
                          hint='git mv %s %s' % (shlex.quote(draft.path), shlex.quote(target)))


@rule
def short(draft):
    """A recipe has at most 25 lines, blank ones not counted."""
    if draft.length > MAX_LINES:
        yield draft.error(None, 'has %d lines, and %d are allowed, blank ones not counted'
                          % (draft.length, MAX_LINES))


@rule
def tested(draft):
    """A recipe has a test that does the software's work; --version and --help alone do not count."""
    commands = draft.values.get('sanity_check_commands') or ()
    if not draft.ours or 'sanity_check_commands' in draft.unreadable:
        return
    if not any(_does_work(one) for one in (commands if isinstance(commands, (list, tuple)) else [commands])):
        yield draft.error('sanity_check_commands', 'sanity_check_commands %s'
                          % ('only ask for version or help' if commands else 'is missing'),
                          hint="""write what it is for: sanity_check_commands = ['python -c "import jax"']""")


@rule
def pinned(draft):
    """A recipe in a tree of recipes names the digest of its image, or says in a comment why it cannot.

    Definition files have none. One that is being written, elsewhere, is noted only.
    """
    if draft.tree and draft.ours and draft.text('image') and not draft.not_pinned and is_unpinned(draft.values) \
            and not {'image', 'digest', 'checksums'}.intersection(draft.unreadable):
        yield draft.error('image', 'names no digest, so its image may change',
                          hint='easysif pin %s, or say why not: # not pinned: REASON' % shlex.quote(draft.path))


@rule
def shadows_nothing(draft):
    """No command has the name of one that every script relies on, or that the cluster brings."""
    commands = draft.values.get('commands')
    for name in commands if isinstance(commands, (list, tuple, dict)) else ():
        if isinstance(name, str) and name in NOT_TO_SHADOW:
            yield draft.error('commands', "commands has '%s', which would hide that of the host" % name,
                              hint="give it a name of its own: commands = {'%s-%s': '%s'}"
                              % (draft.text('name').lower() or 'image', name, name))


@rule
def described(draft):
    """A description is one line, starts with no article and ends with no full stop."""
    text = draft.text('description')
    if len(text.splitlines()) > 1:
        yield draft.error('description', 'description must be one line')
    if text.rstrip().endswith('.'):
        yield draft.error('description', 'description must not end with a full stop')
    article = re.match(r'\s*(an?|the)\s', text, re.IGNORECASE)
    if article:
        yield draft.error('description', "description must not start with the article '%s'" % article.group(1))


@rule
def needs_are_provided(draft):
    """Every need is provided by at least one site that we ship."""
    needs = draft.values.get('needs')
    for need in needs if isinstance(needs, (list, tuple)) else ():
        if isinstance(need, str) and need.rstrip('?') not in draft.provided:
            near = schema.closest(need, draft.provided)
            yield draft.error('needs', "needs '%s', which no site provides (%s)"
                              % (need, ', '.join(sorted(draft.provided))),
                              hint="did you mean '%s'?" % near if near
                              else 'a new feature goes into a file in %s' % os.path.relpath(site.SITES))


@rule
def definition_is_there(draft):
    """A definition file that image names lies beside the recipe."""
    image = draft.text('image')
    if draft.ours and image.endswith('.def') and '/' not in image:
        try:
            image = templates.resolve(image, draft.values)
        except EasySIFError:
            return  # the schema's rule tells of it
        if not os.path.isfile(os.path.join(os.path.dirname(draft.path), image)):
            yield draft.error('image', "definition file '%s' is not beside the recipe" % image,
                              hint='git add %s' % shlex.quote(os.path.join(os.path.dirname(draft.path), image)))


def tree_of(path):
    """Return the directory ``easyconfigs`` that a recipe is in (str), None where it is not in a tree of recipes."""
    top = os.path.abspath(path)
    while os.path.basename(top) != 'easyconfigs' and top != os.path.dirname(top):
        top = os.path.dirname(top)
    return top if os.path.basename(top) == 'easyconfigs' else None


def letter(name):
    """Return the directory of a tree of recipes that a name belongs to: its first letter, else 0 (str)."""
    return name[0].lower() if re.match('[A-Za-z]', name) else '0'


def is_unpinned(values):
    """Return whether the image of a recipe of ours could be another one tomorrow (bool): it has no digest.

    :param values: the recipe as it was read (dict)
    """
    image, digests = str(values.get('image')), values.get('digest') or values.get('checksums')
    return not digests and not image.endswith('.def') and '@sha256:' not in image


def _does_work(command):
    """Return whether a sanity check command does more than name its version or its options (bool)."""
    if not isinstance(command, str):
        return False
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return True  # no business of this rule; the shell will tell
    steps, reading = [[]], True
    for word in words:
        if word in (';', '&', '&&', '||', '(', ')'):
            steps.append([])
            reading = True
        elif set(word) <= set('<>|&'):
            if reading and steps[-1][-1:] == ['2']:
                steps[-1].pop()  # of 2>&1
            reading = False  # what follows only looks at the answer
        elif reading and (steps[-1] or '=' not in word):
            steps[-1].append(word)
    return any(len(step) > 1 and not _NO_TEST.issuperset(step[1:]) and not {'--version', '--help'}.intersection(step)
               for step in steps)
