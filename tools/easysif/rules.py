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
from easysif.images.reference import parse
from easysif.real_test import example, shortcoming
from easysif.text import sentence

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
    'wc which xargs zsh'.split())

RULES = []


@dataclass(frozen=True)
class Draft:
    """A recipe as it was read, valid or not.

    :param values: what could be read, and ``lines`` where (dict), as ``recipe.parse`` gives them
    :param unreadable: keys that have a line and no value (set)
    :param length: number of lines that are not blank (int)
    :param provided: the needs that any site of ours provides (set)
    :param not_pinned: why the recipe has no digest, as a comment ``# not pinned: …`` of it says, '' for none (str)
    :param not_tested: why no test of it does work, as a comment ``# not tested: …`` says, '' for none (str)
    """

    path: str
    values: dict
    lines: dict
    unreadable: set
    length: int
    provided: set
    not_pinned: str = ''
    not_tested: str = ''

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

    @property
    def image(self):
        """What ``image`` says with its templates put in, '' where that cannot be known (str)."""
        if self.unreadable.intersection({'name', 'version', 'versionsuffix'}):
            return ''
        try:
            return templates.resolve(self.text('image'), self.values)
        except EasySIFError:
            return ''  # the schema's rule tells of it

    def place(self, key):
        """Return where a key is, for messages (str)."""
        return '%s:%d' % (self.where, self.lines[key]) if key in self.lines else self.where

    def error(self, key, what, hint=None):
        """Return a problem that has to do with a key, or with the whole where that is None (EasySIFError)."""
        return EasySIFError(self.place(key), what, hint=hint)


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
                          % (draft.length, MAX_LINES),
                          hint='fill the lines of lists up to 120 columns, and let comments say only why')


@rule
def tested(draft):
    """A recipe has a test that does the software's work, or says in a comment why there is none that does.

    To find it, to start it, to import it or to ask it for version or help is no work. A recipe without an image has
    done its work where a variable is set.
    """
    commands = draft.values.get('sanity_check_commands') or ()
    if not draft.ours or 'sanity_check_commands' in draft.unreadable:
        return
    commands = list(commands) if isinstance(commands, (list, tuple)) else [commands]
    found = {}
    for one in commands:
        found.setdefault(shortcoming(one), []).append(schema.quote(str(one)))
    is_bindings = draft.text('easyblock') == 'ContainerBindings'
    is_done = None in found or is_bindings and any(re.search(r'\$\{?\w', str(one)) for one in commands)
    if not found or not is_done and not draft.not_tested:
        what = 'does no work of the software' if found else 'is missing'
        yield EasySIFError(
            draft.place('sanity_check_commands'), 'sanity_check_commands %s' % what,
            facts=[(short, ', '.join(told)) for short, told in found.items()],
            hint="write what it is for, and compare: sanity_check_commands = ['%s']"
            % example(draft.text('name'), is_bindings, bool(draft.values.get('python_env'))))


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
    """A description is one line that says more than the name, starts with no article and ends with no full stop."""
    text, name = draft.text('description'), draft.text('name')
    article = re.match(r'\s*(an?|the)\s', text, re.IGNORECASE)
    wrong = ['must be one line'] if len(text.splitlines()) > 1 else []
    wrong += ['must not end with a full stop'] if text.rstrip().endswith('.') else []
    wrong += ["must not start with the article '%s'" % article.group(1)] if article else []
    if sentence(text).lower() == name.lower() != '':
        yield draft.error('description', 'description says no more than the name',
                          hint='write description = "…": what %s does, in a few words' % name)
    elif wrong:
        yield draft.error('description', 'description %s' % ', and '.join(wrong),
                          hint='write description = %r' % sentence(text))


@rule
def has_a_homepage(draft):
    """A homepage is where users read about the software, not an address of examples."""
    if re.match(r'https?://([^/:]*\.)?(example\.(com|net|org)|localhost)([/:]|\Z)', draft.text('homepage')):
        yield draft.error('homepage', 'homepage is only an example',
                          hint="write homepage = 'https://…': where users read about %s" % draft.text('name'))


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
def gives_something(draft):
    """A recipe without an image is there for what it gives to images of its users."""
    if draft.text('easyblock') == 'ContainerBindings' and not draft.unreadable.intersection(recipe.OURS) and not any(
            draft.values.get(key) for key in ('needs', 'binds', 'container_env')):
        yield draft.error(None, 'gives nothing to the images of its users',
                          hint="write what they need of the host: needs = ['mpi']")


@rule
def image_is_understood(draft):
    """An image is named as registries and web servers want it."""
    if draft.ours and re.search(schema.load('recipe')['properties']['image']['pattern'], draft.image):
        try:
            parse(draft.image, draft.place('image'))
        except EasySIFError as err:
            if not err.what.startswith('image holds a login'):  # of which `valid` tells
                yield err


@rule
def definition_is_there(draft):
    """A definition file that image names lies beside the recipe."""
    if draft.ours and draft.image.endswith('.def') and '/' not in draft.image:
        path = os.path.join(os.path.dirname(draft.path), draft.image)
        if not os.path.isfile(path):
            yield draft.error('image', "definition file '%s' is not beside the recipe" % draft.image,
                              hint='git add %s' % shlex.quote(path))


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
    """Return whether the image of a recipe of ours could be another one tomorrow (bool): it has one without a digest.

    :param values: the recipe as it was read (dict)
    """
    image = str(values.get('image') or '')
    digests = values.get('digest') or recipe.checksums_of_image(values) not in (None, [], (), [None], (None,))
    return bool(image) and not digests and not image.endswith('.def') and '@sha256:' not in image
