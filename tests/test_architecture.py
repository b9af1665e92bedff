# SPDX-License-Identifier: GPL-2.0-only
"""What holds for the whole tree: who may import whom, who starts processes, the size of modules, lint."""

import ast
import re
import subprocess
import sys

import pytest

from harness import CLONE, run

#: the only module that starts processes, with the process that does it, and how a module could do so otherwise
STARTER, SUPERVISOR = 'easysif.run', 'easysif.supervisor'
PROCESSES = ('subprocess', 'pty', 'multiprocessing', 'popen2', 'commands')
PROCESS_CALLS = re.compile(r'^(system|popen|fork|forkpty|posix_spawnp?|exec[lv]p?e?|spawn[lv]p?e?|run_cmd)$')

#: what shows that a text of some lines is a script, not something to type or a piece that a renderer puts together
SHELL = re.compile(r'\A#!|\bset -[eux]+\b|^\s*(fi|done|esac)\b|\b(then|do)$|\$\(|"\$@"', re.M)


def tracked_files():
    """Return the files of the tree, committed or about to be, in a clone or in a copy of one (list of Path)."""
    if (CLONE / '.git').exists():
        listing = run(['git', '-c', 'safe.directory=%s' % CLONE, '-C', CLONE, 'ls-files', '-z', '--cached', '--others',
                       '--exclude-standard']).stdout
        paths = [CLONE / name for name in listing.split('\0') if name]
    else:
        ignored = ('.easysif', '.git', '__pycache__', 'build', 'dist')
        paths = [path for path in CLONE.rglob('*') if not set(path.relative_to(CLONE).parts) & set(ignored)]
    return sorted(path for path in set(paths) if path.is_file() and not path.is_symlink()
                  and CLONE / 'easybuild' not in path.parents)


FILES = tracked_files()
PYTHON = [path for path in FILES if path.suffix == '.py']
SHELLS = ('sh', 'bash', 'dash')


def shell_of(path):
    """Return the shell that a file is for by its first line, name or shellcheck directive (str), None for others."""
    with open(path, 'rb') as handle:
        head = handle.read(400).decode('utf-8', 'replace')
    first = re.match(r'#!\s*\S*?(?:/env\s+)?(\w+)\s', head[:head.find('\n') + 1])
    if first:
        name = re.match(r'#!.*?(\w+)\s*(?:-\w+)?\s*\n', head).group(1)
        return name if name in SHELLS else None
    directive = re.search(r'# shellcheck .*?shell=(\w+)', head)
    return directive.group(1) if directive else None


def module_name(path):
    """Return the dotted name of a module of ours (str)."""
    tree = CLONE / 'tools' if CLONE / 'tools' in path.parents else CLONE
    parts = path.relative_to(tree).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


LIBRARY = {module_name(path): path for path in PYTHON
           if CLONE / 'tools' / 'easysif' in path.parents and 'helpers' not in path.parts}
EASYBLOCKS = {module_name(path): path for path in PYTHON if path.parent == CLONE / 'easyblocks'}
OURS = dict(LIBRARY, **EASYBLOCKS)


def imports(path):
    """Return what a module imports, as dotted names; of our packages the module that is really meant (set of str)."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, '%s: a relative import hides where the arrow points' % path
            below = ['%s.%s' % (node.module, alias.name) for alias in node.names]
            found.update(name if name in LIBRARY else node.module for name in below)
    return found


def of_package(names, package):
    """Return those of the names that are a package or lie in it (set)."""
    return {name for name in names if name == package or name.startswith(package + '.')}


def docstrings(tree):
    """Return the nodes that are docstrings (set of ast.Constant)."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.body[0].value for node in ast.walk(tree) if isinstance(node, holders)
            and node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)}


def test_there_is_something_to_look_at():
    assert 'easysif.run' in LIBRARY and 'easyblocks.containerimage' in EASYBLOCKS
    assert any(shell_of(path) == 'bash' for path in FILES) and any(shell_of(path) == 'sh' for path in FILES)


@pytest.mark.parametrize('name', sorted(LIBRARY))
def test_the_library_never_imports_easybuild_or_easyblocks(name):
    found = imports(LIBRARY[name])
    assert not of_package(found, 'easybuild') | of_package(found, 'easyblocks')


@pytest.mark.parametrize('name', sorted(OURS))
def test_what_is_imported_is_ours_the_standard_library_or_a_dependency(name):
    allowed = {'easysif', 'yaml', 'jsonschema', 'requests'} | ({'easybuild'} if name in EASYBLOCKS else set())
    allowed |= {'argcomplete'} if name == 'easysif.cli.completion' else set()
    allowed |= {'jinja2', 'markupsafe'} if name.startswith('easysif.catalogue.') else set()
    standard = getattr(sys, 'stdlib_module_names', None)
    tops = {found.split('.')[0] for found in imports(OURS[name])}
    assert tops <= allowed | (standard if standard else tops)


@pytest.mark.parametrize('name', sorted(OURS))
def test_nothing_imports_the_command_line(name):
    if not of_package([name], 'easysif.cli'):
        assert not of_package(imports(OURS[name]), 'easysif.cli')


def test_imports_go_downwards_only():
    """No module reaches itself by its imports, however far the way."""
    below = {name: imports(path) & set(LIBRARY) - {name} for name, path in LIBRARY.items()}
    order, left = [], dict(below)
    while left:
        free = [name for name, needs in left.items() if not needs & set(left)]
        assert free, 'imports in a circle among: %s' % ', '.join(sorted(left))
        order += free
        for name in free:
            del left[name]
    assert order.index('easysif.errors') < order.index('easysif.run') < order.index('easysif.cli')


def test_errors_imports_nothing_of_ours():
    assert not of_package(imports(LIBRARY['easysif.errors']), 'easysif')


@pytest.mark.parametrize('name', sorted(OURS))
def test_one_module_starts_processes(name):
    tree = ast.parse(OURS[name].read_text())
    calls = {node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
             for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if name == STARTER:
        assert 'subprocess' in imports(OURS[name])
    elif name != SUPERVISOR:
        assert not imports(OURS[name]) & {*PROCESSES, SUPERVISOR}
        assert not [call for call in calls if PROCESS_CALLS.match(call)]
    assert not [keyword for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
                if keyword.arg == 'shell' and getattr(keyword.value, 'value', None) is True]


@pytest.mark.parametrize('name', sorted(OURS))
def test_no_shell_lives_in_python(name):
    tree = ast.parse(OURS[name].read_text())
    ours = docstrings(tree)
    texts = [node.value for node in ast.walk(tree)
             if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in ours]
    assert not [text for text in texts if text.startswith('#!') or text.count('\n') > 1 and SHELL.search(text)]


@pytest.mark.parametrize('name', sorted(OURS))
def test_no_module_is_above_300_lines(name):
    assert len(OURS[name].read_text().splitlines()) <= 300


@pytest.mark.parametrize('path', [path for path in FILES if path.suffix == '.eb'], ids=lambda path: path.stem)
def test_a_recipe_is_data_of_25_lines_at_most(path):
    text = path.read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    for statement in ast.parse(text).body:
        assert isinstance(statement, ast.Assign), 'line %d is no assignment' % statement.lineno
        assert not [node for node in ast.walk(statement.value)
                    if isinstance(node, (ast.Call, ast.JoinedStr, ast.BinOp))]


def test_no_recipe_knows_a_site():
    sites = [path.stem for path in FILES if path.parent == CLONE / 'tools' / 'easysif' / 'sites'
             and path.stem != 'default']
    for path in FILES:
        if path.suffix == '.eb':
            # how a site has named its image, and the module of it, is a fact that users look for
            text = re.sub('^(image|versionsuffix) = .*', '', path.read_text(), flags=re.M)
            assert not [site for site in sites if re.search(r'\b%s\b' % re.escape(site), text, re.I)]


@pytest.mark.parametrize('path', [path for path in FILES if path.suffix == '.py' or shell_of(path)],
                         ids=lambda path: str(path.relative_to(CLONE)))
def test_the_licence_is_named_at_the_top(path):
    assert 'SPDX-License-Identifier: GPL-2.0-only' in ''.join(path.read_text().splitlines(True)[:3])


@pytest.mark.parametrize('path', [path for path in FILES if shell_of(path) and path.suffix != '.image'],
                         ids=lambda path: str(path.relative_to(CLONE)))
def test_a_shell_file_says_how_it_is_used(path):
    assert '# Usage: ' in path.read_text()


@pytest.mark.parametrize('path', [path for path in FILES if CLONE / 'tools' / 'easysif' / 'helpers' in path.parents],
                         ids=lambda path: path.name)
def test_shell_that_runs_at_users_places_is_posix(path):
    assert shell_of(path) in (None, 'sh')


def test_flake8_is_content():
    run([sys.executable, '-m', 'flake8', *[path.relative_to(CLONE) for path in PYTHON]], cwd=CLONE)


def test_shellcheck_is_content():
    scripts = [path.relative_to(CLONE) for path in FILES if shell_of(path)]
    run(['shellcheck', *scripts], cwd=CLONE)


def test_luac_reads_every_lua_file():
    files = [path for path in FILES if path.suffix == '.lua']
    assert files
    subprocess.run(['luac5.3', '-p', *files], check=True)
