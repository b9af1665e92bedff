# SPDX-License-Identifier: GPL-2.0-only
"""Whether a test of a recipe does what the software is for, or only finds it, starts it or asks it what it is.

Nothing is run: the command is read as a shell would read it, and its Python as Python would.
"""

import ast
import posixpath
import re
import shlex
from dataclasses import dataclass, field

#: words that make a command say what it is instead of doing what it is for
_QUESTIONS = {'--version', '-version', '-V', '-v', 'version', '--help', '-help', '-h', '-?', 'help', '--usage', 'list'}

#: what commands of every system do, none of which is the work of a software
_LOOKING = frozenset('[ [[ command file find hash ldd locate ls readlink realpath stat test type whereis which'.split())
_SAYING = frozenset(': . cd date echo exit export false for hostname id printf pwd return set sleep source true '
                    'uname unset'.split())
_HANDLING = frozenset('awk cat chmod cmp cp cut diff egrep fgrep grep head ln md5sum mkdir mktemp mv od rm sed '
                      'sha256sum sort tail tee touch tr uniq wc zcat'.split())
_ASKING = frozenset('conda list-packages mamba ml module nvidia-smi pip pip3 rocm-smi'.split())

#: words of a shell before a command, and commands that start another one
_BEFORE = frozenset('! do done elif else exec fi if nice nohup then time until while { }'.split())
_LAUNCHING = frozenset('env mpiexec mpirun srun timeout xargs'.split())

_SHELLS = re.compile(r'(ba|da|a|k|z)?sh|start-shell')
_PYTHON = re.compile(r'(python|pypy|ipython)[0-9.]*')
_LANGUAGES = re.compile(r'R|Rscript|julia|lua|node|octave|perl|ruby')

_ONLY_LOADING = r'\b(library|require|requireNamespace|print|cat|using|import|use)\b[\s("\']*[\w.:]*[)"\'\s;]*'

#: functions that tell of Python software without using it
_TELLING = frozenset('__import__ callable dir exit getattr hasattr help import_module is_available isinstance len '
                     'print quit repr split startswith str type vars version'.split())


#: what is imported of a software of another name
_MODULES = {'pytorch': 'torch', 'scikit-learn': 'sklearn'}


@dataclass
class _Step:
    """One command of a line: its words (list of str), and whether it is given something to read (bool)."""

    words: list = field(default_factory=list)
    is_fed: bool = False


_SAYS, _HANDLES = 'runs nothing of the software', 'only handles text and files'


def shortcoming(command):
    """Return what keeps a command of ``sanity_check_commands`` from doing the software's work (str), None for nothing.

    :param command: a line for a shell (str); anything else does no work
    """
    if not isinstance(command, str) or not command.strip():
        return 'is no command'
    command, inner = _apart(command)
    try:
        found = [_of_step(step) for step in _steps(command) if step.words] + [shortcoming(one) for one in inner]
    except (ValueError, RecursionError):
        return None  # no business of this rule; the shell will tell
    if None in found:
        return None
    return next((one for one in found if one not in (_SAYS, _HANDLES)), (*found, _SAYS)[0])


def example(name, is_bindings, is_python):
    """Return the beginning of a test that does work (str), as the author of a recipe would write it.

    :param name: of the software (str)
    :param is_bindings: whether the recipe has no image (bool)
    :param is_python: whether its module is one to work in with Python (bool)
    """
    if is_bindings:
        return 'test -n "$APPTAINER_BINDPATH"'
    name = re.sub(r'[^\w.+-]', '', name).lower() or 'NAME'
    if is_python:
        return 'python -c "import %s; assert … == …"' % _MODULES.get(name, name.replace('-', '_'))
    return 'printf "…" | %s … | grep -x "…"' % name


def _apart(command):
    """Return a line without the commands whose output it takes, and these (str, list of str)."""
    inner = []
    while '$(' in command:
        begin = command.index('$(')
        end, depth = begin + 2, 1
        while end < len(command) and depth:
            depth += {'(': 1, ')': -1}.get(command[end], 0)
            end += 1
        inner.append(command[begin + 2:end - (not depth)])
        command = '%s_%s' % (command[:begin], command[end:])
    inner += re.findall('`([^`]+)`', command)
    return re.sub('`[^`]+`', '_', command), inner


def _steps(command):
    """Return the commands of a line (list of _Step), without where their output goes.

    :raises ValueError: a quotation mark has no partner
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars='();<>|&\n')
    lexer.whitespace_split, lexer.whitespace, lexer.commenters = True, ' \t\r', ''
    steps, redirection = [_Step()], ''
    for word in lexer:
        if not set(word) <= set('();<>|&\n'):
            if not redirection:
                steps[-1].words.append(word)
            elif '<' in redirection and word != '/dev/null':
                steps[-1].is_fed = True
            redirection = ''
        elif '(' not in word and ('<' in word or '>' in word):  # and no <(…)
            redirection = word
            if steps[-1].words[-1:] in (['0'], ['1'], ['2']):  # of 2>&1
                steps[-1].words.pop()
        else:
            before = steps[-1]
            before.is_fed = before.is_fed or '<(' in word
            steps.append(_Step(is_fed=word.strip('&\n') == '|' or before.is_fed and not before.words))  # a | (b)
            redirection = ''
    return steps


def _of_step(step):
    """Return what keeps one command from doing work (str), None for nothing."""
    words = _bare(step.words)
    if not words:
        return _SAYS
    name, rest = posixpath.basename(words[0]), words[1:]
    if name in _LOOKING:
        return 'only looks whether it is there'
    if name in _SAYING:
        return _SAYS
    if name in _HANDLING:
        return _HANDLES
    if name in _ASKING and rest[:1] != ['run']:  # of conda, which starts a command
        return 'only asks what is there'
    code = _code(name, rest)
    if code is not None:
        return shortcoming(code) if _SHELLS.fullmatch(name) else \
            _of_python(code) if _PYTHON.fullmatch(name) else _of_language(code)
    if _PYTHON.fullmatch(name) and '-m' in rest[:-1]:
        return _of_step(_Step(rest[rest.index('-m') + 1:], step.is_fed))
    if rest and (_QUESTIONS.issuperset(rest) or _QUESTIONS.intersection(rest, ('--version', '--help'))):
        return 'only asks for version or help'
    is_ring = {'mpiexec', 'mpirun', 'srun'}.intersection(step.words)  # ranks need no argument to do something together
    return None if rest or is_ring or step.is_fed and not _SHELLS.fullmatch(name) else 'only starts %s' % name


def _bare(words):
    """Return the words of a command from its name on (list of str)."""
    words = list(words)
    while words:
        name = posixpath.basename(words[0])
        if name in _BEFORE or re.match(r'\w+=', words[0]) or name == 'command' and words[1:] \
                and not words[1].startswith('-'):
            words.pop(0)
        elif name in _LAUNCHING:
            words.pop(0)
            while words and re.match(r'-|[0-9.]+[smhd]?\Z', words[0]):
                words.pop(0)
        else:
            break
    return words


def _code(name, rest):
    """Return the program in the arguments of an interpreter (str), None where there is none."""
    option = '-[a-zA-Z]*c' if _SHELLS.fullmatch(name) or _PYTHON.fullmatch(name) else \
        '-e|-E|--eval' if _LANGUAGES.fullmatch(name) else None
    codes, words = [], list(rest) if option else []
    while words[1:] and words[0] != '-m' and words[0].startswith('-'):
        if re.fullmatch(option, words.pop(0)):
            codes.append(words.pop(0))
            if option.endswith('c'):  # what follows are its arguments; of other languages there may be several programs
                break
    return '\n'.join(codes) if codes else None


def _of_python(code):
    """Return what keeps a program in Python from doing work (str), None for nothing: it calls what it imports."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # that it cannot be run is told where it is run
    called = {getattr(one.func, 'attr', getattr(one.func, 'id', '')) for one in nodes if isinstance(one, ast.Call)}
    imports = {'__import__', 'import_module'}.intersection(called) or any(
        isinstance(one, (ast.Import, ast.ImportFrom)) for one in nodes)
    computes = any(isinstance(one, ast.BinOp) and not isinstance(one.op, ast.Mod) for one in nodes)
    if imports:
        return None if called - _TELLING or computes else 'only imports'
    return 'imports nothing of the software'


def _of_language(code):
    """The same for other languages: nothing is left where packages are only loaded and texts printed."""
    left = re.sub(_ONLY_LOADING, '', code)
    return None if re.search(r'\w\s*\(|[-+*/@%^=]', left) else 'only imports'
