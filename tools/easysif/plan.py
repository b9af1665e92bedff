# SPDX-License-Identifier: GPL-2.0-only
"""What loading a module does, decided once, as data.

A plan is a list of statements with guards. The renderers (``render.py``) turn it into Lua for modules and into shell
for wrappers and decide nothing; ``module.py`` writes the plan of an installation with the words defined here.

A text is a tuple of parts: literal strings and references to a `Local`, an `Env` or a `Site` value.
Each guard and each statement is a call of the function named like its class in ``helpers/module.lua`` and in
``helpers/wrapper``, with its fields as arguments; a field ``guard`` says when.
"""

import re
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Local:
    """A value that a `Choose` statement made; ``root`` and ``prefix`` are always there, and ``needed_path`` and
    ``needed_libraries``, the directories of the needs that `InsideEach` has gone through."""

    name: str


@dataclass(frozen=True)
class Env:
    """An environment variable as the user has it, empty where it is not set."""

    name: str


@dataclass(frozen=True)
class Site:
    """A setting of the site file that is one text, empty where the site does not set it."""

    name: str


def text(*parts):
    """Return the parts, which may be texts themselves, as one text (tuple)."""
    flat = []
    for part in parts:
        for piece in part if isinstance(part, tuple) else (part,):
            if flat and isinstance(flat[-1], str) and isinstance(piece, str):
                flat[-1] += piece
            else:
                flat.append(piece)
    return tuple(flat)


def message(where, what, facts, hint):
    """Return the lines of a message in the form of all messages of EasySIF (tuple of texts).

    :param where: the module concerned (str)
    :param what: what is wrong (str)
    :param facts: pairs of label (str) and text
    :param hint: what to type (text)
    """
    width = max([len(label) for label, _ in facts], default=0)
    return (text('%s: %s' % (where, what)),
            *[text('  %-*s  ' % (width, label), value) for label, value in facts],
            text('hint: ', hint))


def function_name(node):
    """Return the name of the function that carries out a guard or a statement (str): ``is_directory``."""
    return re.sub(r'(?<!^)(?=[A-Z])', '_', type(node).__name__).lower()


# Guards: what is asked of the node and of the environment, at load and at each call of a wrapper.

@dataclass(frozen=True)
class PathGuard:
    """Something is asked of a path."""

    path: tuple


@dataclass(frozen=True)
class Exists(PathGuard):
    """There is a file, directory or device of that path."""


@dataclass(frozen=True)
class IsDirectory(PathGuard):
    """There is a directory of that path."""


@dataclass(frozen=True)
class Readable(PathGuard):
    """There is a file, or a directory and what is in it, that the user may read."""


@dataclass(frozen=True)
class HasImage(PathGuard):
    """There is a file of that path, of exactly that many bytes; not everybody may write to it or to its directory."""

    size: int


@dataclass(frozen=True)
class Mine(PathGuard):
    """The user owns the file or, but for root, is of its group, which may write it; be it read-only at this moment."""


@dataclass(frozen=True)
class Writable(PathGuard):
    """The user may write the file now: neither its permissions nor its file system are against it."""


@dataclass(frozen=True)
class Filled:
    """The text is not empty."""

    value: tuple


@dataclass(frozen=True)
class Bindable(PathGuard):
    """The path is not empty and holds nothing that a bind list cannot carry: as ``formats.bind_path`` says."""


@dataclass(frozen=True)
class IsAbsolute(PathGuard):
    """The path begins at the root directory, so it means the same wherever one is."""


@dataclass(frozen=True)
class IsSame:
    """Both texts are equal."""

    first: tuple
    second: tuple


@dataclass(frozen=True)
class IsUnset:
    """No environment variable of that name is set."""

    name: str


@dataclass(frozen=True)
class IsLoading:
    """A module is loaded: what a wrapper would have to say each time it runs is said once."""


@dataclass(frozen=True)
class Not:
    """The guard does not hold."""

    inner: object


@dataclass(frozen=True)
class All:
    """All guards hold."""

    inner: tuple


# Statements.

@dataclass(frozen=True)
class Note:
    """What the next statements are for; a comment in what is rendered."""

    words: str


@dataclass(frozen=True)
class Choose:
    """Give a local value the text of the first case whose guard holds, else the default."""

    name: str
    cases: tuple  # of (guard, text)
    default: tuple = ()


class Value:
    """Statements that give a local value, their field ``name``, what the function of their name returns."""


@dataclass(frozen=True)
class LookAtSquashfs(Value):
    """``whole``, ``damaged``, or the name of the compressor that the runtime cannot mount; empty where no file is."""

    name: str
    path: tuple


@dataclass(frozen=True)
class ReadWord(Value):
    """What follows a word and a blank on a line of a file; empty where there is no such line or no file."""

    name: str
    path: tuple
    word: str


@dataclass(frozen=True)
class Fail:
    """Refuse to load, or to run, with this message."""

    lines: tuple  # of texts
    guard: object


@dataclass(frozen=True)
class Warn:
    """Say this at load, and on standard error at each run."""

    lines: tuple  # of texts
    guard: object


@dataclass(frozen=True)
class Tell:
    """Say this at load, and on standard error at a run: nothing is wrong."""

    lines: tuple  # of texts
    guard: object


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory with its parents; never fails."""

    path: tuple
    like: tuple  # a directory as open as they are to be where they begin in none of a group's; else for the user alone
    guard: object


@dataclass(frozen=True)
class Bind:
    """Bind ``source`` at ``target`` with ``options`` where it exists and nothing else is bound there."""

    source: tuple
    target: str = ''
    options: str = ''
    guard: Optional[object] = None


@dataclass(frozen=True)
class BindEach:
    """Bind the entries ``source[:target[:options]]`` of a need in the site file ('': its own, FORCE: what it forces)"""

    need: str = ''


@dataclass(frozen=True)
class Inside:
    """Set a variable inside the image, through both prefixes of the runtimes."""

    name: str
    value: tuple
    guard: Optional[object] = None


@dataclass(frozen=True)
class InsideEach:
    """Set the variables of a need in the site file ('': its own, and how it isolates; FORCE) inside."""

    need: str = ''


@dataclass(frozen=True)
class Push:
    """Set a variable; unloading gives back what was there."""

    name: str
    value: tuple


@dataclass(frozen=True)
class Set:
    """Set a variable that belongs to this module alone."""

    name: str
    value: tuple


@dataclass(frozen=True)
class PushBinds:
    """Give both bind variables one value: what the user had in them, then the binds of this plan."""


@dataclass(frozen=True)
class DependOn:
    """Load another module first, and unload it again with this one; wrappers need none."""

    module: tuple
    guard: object


@dataclass(frozen=True)
class Family:
    """Of the modules of this family one is loaded at a time."""

    name: str
