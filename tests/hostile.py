# SPDX-License-Identifier: GPL-2.0-only
"""Hostile texts for every field of recipes and site files, by hypothesis.

Whatever would execute one of them makes a file called EVIL in the directory where it runs.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml
from hypothesis import settings
from hypothesis import strategies as st

import harness

EVIL = 'evil'


def share(part):
    """Return settings for a test that is slower than others: a part of the examples of the profile."""
    return settings(max_examples=max(4, int(settings.default.max_examples * part)))


#: what has a meaning to Lua, Tcl, a shell, Python, YAML, EasyBuild, Lmod, a runtime, a terminal, and may be in the way
PIECES = [
    '"', "'", '`', '\\', '$', '\\"', "'\\''", '"""', "'''", '$(touch evil)', '`touch evil`', '${IFS}', '$HOME',
    '${HOME}', '$((1+1))', "$'\\n'", ';touch evil;', '|touch evil', '&', '&&touch evil', '>evil', '<', '<(touch evil)',
    '\ntouch evil\n', '" .. os.execute("touch evil") .. "', "' .. io.open('evil', 'w') .. '", ' .. ',
    'os.getenv("HOME")', '") setenv("E", "', ']]', ']==]', '[==[', ']=', '[[', '--[[', '--', ']]--', '\\n', '\\0',
    '\\u{7f}', '\\x41', '\\65', '%(version)s', '%(name)s', '%(nosuch)s', '%%(name)s', '%%%(name)s', '%(', '%', '%%',
    '[exec touch evil]', ']; exec touch evil; [', '}; exec touch evil; {', '$::env(HOME)', '\\u0041', ']===]',
    '%s', '%n', '%d', '{{ x }}', '{x}', '$USER', '${USER}', '~', '~root', '*', '?', '[a-z]', '{a,b}', '!', '!!', '#',
    '@', '^', '=', '+', ':', ',', ';', '%3B', '%25', '%3', ' ', '  ', '-', '--help', '-n', '.', '..', '/', '//',
    '../../evil', '/etc/passwd', 'null', 'yes', '0x10', '1:1', '&a', '*a', '!!python/object:x', '<<', '- ', '? ', ': ',
    ' #', '---', '[DEFAULT]', 'name = 1', 'easyblock = "x"', 'true', 'EOF', 'é', 'ß', '容器', '\U0001f600', '\U0010ffff',
    '\u202e', '\u200f', '\u2028', '\u2029', '\u0301', '\u200b', '\ufeff', '\uffff', '\xa0', '\u3000', '\xad', '\t',
    '\n', '\r', '\r\n', '\0', '\x01', '\x07', '\x08', '\x0c', '\x1b[31m', '\x1b]0;evil\x07', '\x7f', '\x85', '\x9b31m',
    '\ud800', '\udcff', '\udfff', 'A' * 300]

WORDS = ['a', 'x1', 'lib', 'python', 'two words']
CONTROL = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
IDENTIFIER = st.from_regex(r'[A-Za-z_][A-Za-z0-9_]{0,12}', fullmatch=True)

#: variables inside that the module itself sets, whose values a recipe may shadow or not
OWN_VARIABLES = ('PREPEND_PATH', 'PYTHONNOUSERSITE', 'VIRTUAL_ENV', 'CONDA_PREFIX', 'CONDA_DEFAULT_ENV', 'PIP_CERT',
                 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'WITH_CONDA', 'WITH_VENV', 'WITH_CONDA_VENV',
                 'PIP_CONSTRAINT', 'UV_CONSTRAINT', 'UV_CACHE_DIR')


def texts(most=4):
    """Texts of anything at all, half surrogate pairs included (strategy of str)."""
    piece = st.one_of(st.sampled_from(PIECES), st.sampled_from(WORDS), st.text(st.characters(), max_size=4))
    return st.lists(piece, max_size=most).map(''.join)


def lines(most=4):
    """Texts that every field for a line has to carry (strategy of str)."""
    return texts(most).map(lambda text: CONTROL.sub('', text)[:300])


def file_names():
    """Names of files that binds can carry (strategy of str)."""
    return lines().map(lambda text: re.sub('[/:,^]', '', text)[:60].rstrip().rstrip('\\').rstrip()).filter(
        lambda text: text not in ('', '.', '..'))


def variables(values):
    """Mappings of names of variables, some of which look like ours (strategy of dict)."""
    names = st.one_of(IDENTIFIER, st.sampled_from(['X_BINDPATH', 'SET', 'IFS', 'ENV', 'PS4', '_', 'es_sif', 'V']))
    return st.dictionaries(names.filter(lambda name: name not in OWN_VARIABLES), values, max_size=4)


def literals():
    """What a recipe or a site file may hold where something else belongs (strategy)."""
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.just(1 << 1000), st.floats(), texts(2))
    return st.recursive(scalars, lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(texts(1), st.integers(), st.none()), inner, max_size=3)),
        max_leaves=6)


def _lists(inner):
    return st.lists(inner, min_size=1, max_size=3)


def _paths():
    return st.one_of(texts(), texts().map('/{}'.format), st.tuples(texts(2), texts(2)).map('/{0[0]}:/{0[1]}'.format),
                     st.tuples(texts(1), texts(1)).map('/a:/{0[0]}:{0[1]}'.format))


def _mappings():
    return st.one_of(st.dictionaries(texts(2), texts(), max_size=2), variables(texts()))


#: the fields of a recipe, with values of the right type and of any text
RECIPE = {
    'name': texts(), 'version': texts(), 'versionsuffix': texts(), 'homepage': texts().map('https://{}'.format),
    'description': texts(8), 'digest': texts(), 'image_mode': texts(), 'verify': literals(),
    'build_args': _mappings(),
    'image': st.one_of(texts(), texts().map('{}.sif'.format), texts().map('docker://{}'.format)),
    'needs': _lists(texts()), 'python_env': texts(), 'conda_env': texts(),
    'commands': st.one_of(_lists(texts()), st.dictionaries(texts(), texts(), min_size=1, max_size=3)),
    'python_packages': _lists(texts()), 'container_env': _mappings(), 'binds': _lists(_paths()),
    'sanity_check_commands': _lists(texts()),
    'moduleclass': texts(), 'usage': texts(8), 'modextravars': _mappings(), 'modaltsoftname': texts(),
    'modaliases': _mappings(), 'docurls': _lists(texts()), 'site_contacts': st.one_of(texts(), _lists(texts())),
    'dependencies': _lists(st.tuples(texts(), texts())),
}

ISOLATION = ('cleanenv', 'contain', 'no-home', 'ipc', 'pid')
REGISTRIES = ('nvcr.io', 'docker.io:443', 'localhost:5000')
FORCED = ('runtime', 'binds', 'container_env', 'isolation', 'registries', 'registry_mirrors', 'ca_certificates',
          'verify', 'keyring', 'image_store')

#: the settings of a site, likewise
SITE = {
    'match': st.dictionaries(st.one_of(st.just('hostname'), texts(1)), texts(), min_size=1, max_size=1),
    'runtime': st.one_of(texts(), texts().map('/{}'.format)), 'image_store': texts().map('/{}'.format),
    'squashfs': st.dictionaries(st.sampled_from(['compressor', 'level', 'block', 'keep', 'x']), literals(), max_size=2),
    'binds': _lists(_paths()), 'container_env': _mappings(),
    'provides': st.dictionaries(st.one_of(texts(2), st.sampled_from(['mpi', 'amd-gpu', 'a-b'])), st.one_of(
        st.none(), st.fixed_dictionaries({}, optional=dict(
            {key: _lists(_paths()) for key in ('binds', 'path', 'library_path', 'libraries')},
            container_env=_mappings(), **{key: _lists(st.one_of(texts(2), st.just('mpi')))
                                          for key in ('requires', 'conflicts')}))), max_size=2),
    'isolation': _lists(st.one_of(texts(2), st.sampled_from(ISOLATION))),
    'registries': _lists(st.one_of(texts(), st.sampled_from(REGISTRIES))),
    'force': st.dictionaries(st.one_of(texts(1), st.sampled_from(FORCED)), st.one_of(
        texts(), texts().map('/{}'.format), _lists(_paths()), _mappings(), literals()), max_size=2),
    'registry_mirrors': st.dictionaries(st.one_of(texts(2), st.just('nvcr.io')), _lists(st.one_of(
        texts(), texts().map('http://{}'.format), st.just('https://localhost:5000/x'))), max_size=2),
    'base_images': st.dictionaries(texts(), texts().map('/{}'.format), max_size=2),
    'image_mode': texts(), 'share': texts(), 'verify': texts(), 'keyring': texts().map('/{}'.format),
    'cache_dir': texts().map('/{}'.format), 'tmp_dir': texts().map('/{}'.format),
    'ca_certificates': texts().map('/{}'.format), 'overlays': texts().map('/{}'.format), 'module_dependency': texts(),
    'login_host': texts(),
    'job': st.dictionaries(st.one_of(texts(1), st.sampled_from(['account', 'cpu', 'gpu'])), st.one_of(
        texts(2), st.dictionaries(st.sampled_from(['partition', 'options', 'gpus', 'whole']), literals(), max_size=2)),
        max_size=2),
}

NAME = st.from_regex(r'[A-Za-z0-9_][A-Za-z0-9._+-]{0,12}', fullmatch=True)
NEED = st.from_regex(r'[a-z][a-z0-9-]{0,8}', fullmatch=True)


def escaped(text):
    """Return a text as a recipe writes it that means no template (str)."""
    return re.sub(r'(%+)(?=\(\w+\)s)', r'\1\1', text)


def _good_lines():
    return lines().map(escaped)


def _good_help():
    return texts(8).map(lambda text: escaped(re.sub(r'([][])=+', r'\1=', re.sub(
        r'[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]', '', text))))


def _good_binds():
    paths = file_names().map('/d/{}'.format)  # a pattern that begins at the root directory is refused
    options = st.sampled_from(['', ':ro', ':image-src=/a b,ro', ':rw,id=1'])
    return st.lists(st.one_of(paths, st.tuples(paths, paths, options).map('{0[0]}:{0[1]}{0[2]}'.format)), min_size=1,
                    max_size=3, unique=True)


def commands():
    """Commands that a recipe can give to any name that a file can have (strategy of dict of list of str)."""
    names = file_names().map(lambda name: re.sub(r'\]==|\[==\[|%\(|^-+', 'x', name))
    first = lines().map(lambda word: re.sub('^-|/', 'x', word)).filter(len)  # an option or a path is refused
    words = st.tuples(first, st.lists(lines(), max_size=2)).map(lambda pair: [pair[0], *pair[1]])
    return st.dictionaries(names.filter(lambda name: name not in ('.', '..')), words, min_size=1, max_size=3)


#: what has to be taken, as hostile as that can be
GOOD_RECIPE = {
    'name': NAME, 'version': NAME, 'versionsuffix': NAME, 'homepage': NAME.map('https://{}'.format),
    'description': _good_help(), 'image': lines().map(lambda text: 'a%s.sif' % escaped(text).replace('/', '')),
    'digest': st.just('sha256:' + '0' * 64), 'needs': st.lists(NEED, max_size=3, unique=True),
    'python_env': NAME, 'conda_env': NAME, 'commands': st.one_of(
        commands().map(lambda found: {name: escaped(shlex.join(words)) for name, words in found.items()}),
        commands().map(list)),
    'container_env': variables(_good_lines()), 'sanity_check_commands': _lists(_good_lines()),
    'binds': _good_binds().map(lambda found: list(map(escaped, found))),
    'moduleclass': st.just('tools'), 'usage': _good_help(), 'modaltsoftname': NAME, 'docurls': _lists(_good_help()),
    'modextravars': variables(_good_lines().map(
        lambda text: re.sub('[\\\\"]|os.getenv| \\.\\. ', '', text).strip(' .'))),
    'modaliases': variables(_good_lines().map(lambda text: re.sub('[\\\\"]', '', text))),
    'site_contacts': _good_help(), 'dependencies': _lists(st.tuples(NAME, NAME)), 'verify': st.booleans(),
    'image_mode': st.sampled_from(['copy', 'link']),
    'build_args': st.just({}),  # others go with definition files only
    'python_packages': st.lists(st.sampled_from(['a', 'b==1.0', 'c[d,e] >= 2, < 3', 'f @ https://example.org/f.whl']),
                                max_size=3, unique=True),
}

_GOOD_PATH = st.lists(file_names(), min_size=1, max_size=3).map(lambda names: '/' + '/'.join(names))

_GOOD_PATHS = st.lists(_GOOD_PATH.map(lambda path: path.replace('$', '')), max_size=2, unique=True)
_NEEDED = st.fixed_dictionaries({}, optional={
    'binds': _good_binds(), 'container_env': variables(lines()), 'path': _GOOD_PATHS, 'library_path': _GOOD_PATHS})
_GOOD_MIRRORS = st.just({'nvcr.io': ['http://localhost:5000/x', 'https://[::1]:5000']})
_GOOD_ISOLATION = st.lists(st.sampled_from(ISOLATION), max_size=3, unique=True)
_GOOD_REGISTRIES = st.lists(st.sampled_from(REGISTRIES), max_size=3, unique=True)

#: likewise
GOOD_SITE = {
    'match': lines().filter(len).map(lambda text: {'hostname': text}), 'runtime': _GOOD_PATH,
    'image_store': _GOOD_PATH, 'image_mode': st.just('link'), 'share': st.just('node'),
    'squashfs': st.fixed_dictionaries({'compressor': st.sampled_from(['gzip', 'zstd']), 'level': st.integers(1, 9)}),
    'binds': _good_binds(), 'container_env': variables(lines()),
    'provides': st.dictionaries(NEED, st.one_of(st.none(), _NEEDED), max_size=3),
    'isolation': _GOOD_ISOLATION, 'registries': _GOOD_REGISTRIES, 'registry_mirrors': _GOOD_MIRRORS,
    'force': st.fixed_dictionaries({}, optional={
        'runtime': _GOOD_PATH, 'binds': _good_binds(), 'container_env': variables(lines()),
        'isolation': _GOOD_ISOLATION, 'registries': _GOOD_REGISTRIES, 'registry_mirrors': _GOOD_MIRRORS,
        'ca_certificates': _GOOD_PATH, 'verify': st.just('all'), 'keyring': _GOOD_PATH}),
    'base_images': st.dictionaries(lines().filter(len), _GOOD_PATH, max_size=2), 'cache_dir': _GOOD_PATH,
    'tmp_dir': _GOOD_PATH, 'ca_certificates': _GOOD_PATH, 'keyring': _GOOD_PATH, 'verify': st.just('sif'),
    'module_dependency': NAME, 'login_host': st.just('login.example.org'),
    'overlays': _GOOD_PATH.map(lambda path: path.replace('$', '') + '/$USER/${HOME}'),
    'job': st.fixed_dictionaries({}, optional={
        'account': NAME, 'gpu': st.fixed_dictionaries({'gpus': st.integers(1, 8), 'partition': NAME})}),
}

SANE = {'easyblock': 'ContainerImage', 'name': 'toy', 'version': '1.2', 'homepage': 'https://example.org',
        'description': 'A toy of the tests', 'toolchain': {'name': 'system', 'version': 'system'}, 'image': 'toy.sif',
        'moduleclass': 'tools'}


def some(fields, good, most=4):
    """Values for a few of the fields: what has to be taken, and at most one of another kind (strategy of dict)."""
    def values(names):
        first = st.one_of(fields[names[0]], fields[names[0]], good[names[0]], literals())
        return st.fixed_dictionaries(dict({name: good[name] for name in names}, **{names[0]: first}))
    return st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=most, unique=True).flatmap(values)


def write_recipe(path, values, raw=False):
    """Write a recipe and return its path (str).

    :param raw: texts between triple quotes as they are, where Python would read the same (bool)
    """
    def written(value):
        if isinstance(value, str) and raw and not re.search(r'["\\\0\r\ud800-\udfff]', value):
            return '"""%s"""' % value
        if isinstance(value, dict):
            return '{%s}' % ', '.join('%s: %s' % (written(key), written(item)) for key, item in value.items())
        if isinstance(value, list):
            return '[%s]' % ', '.join(map(written, value))
        return hex(value) if isinstance(value, int) and not isinstance(value, bool) else repr(value)
    Path(path).write_text(''.join('%s = %s\n' % (key, written(value)) for key, value in values.items()),
                          encoding='utf-8')
    return str(path)


def write_site(path, values, flow=None):
    """Write a site file and return its path (str)."""
    Path(path).write_text(yaml.safe_dump(values, default_flow_style=flow), encoding='utf-8')
    return str(path)


def traces(directory):
    """Return what was made by something that was executed (list of Path)."""
    return [path for path in Path(directory).rglob(EVIL)] + [path for path in Path.cwd().glob(EVIL)]


class EasyBuildReader:
    """EasyBuild itself reading recipes, in one process for all of them.

    :param directory: for its temporary files (path)
    """

    def __init__(self, directory):
        env = dict(harness.eb_environment(directory / 'prefix', directory / 'home'), TMPDIR=str(directory))
        self.process = subprocess.Popen([sys.executable, str(Path(__file__).with_name('easybuild_reader.py'))], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, cwd=str(directory))

    def read(self, path):
        """Return the parameters of a recipe (dict), or what EasyBuild says is wrong with it (str)."""
        self.process.stdin.write(json.dumps(os.fspath(path)) + '\n')
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait(timeout=30)
