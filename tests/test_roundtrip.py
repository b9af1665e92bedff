# SPDX-License-Identifier: GPL-2.0-only
"""Hostile texts in every field of recipes and site files: refused in words that name file and field, or carried letter
by letter through EasyBuild, Lmod, bash, the wrapper and into the container; nothing of them is ever executed.

hypothesis makes them: the same 40 in every run, 10,000 others with tools/run-tests --nightly.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import harness
import hostile
from easysif import recipe, site, site_files
from easysif.errors import EasySIFError, SeveralErrors
from easysif.images.inspect import Conda
from easysif.module import Command
from easysif.site import Need
from easysif.site_plan import literal
from fakes import TOOLS, Fake, both, users


@pytest.fixture(scope='module')
def easybuild(tmp_path_factory):
    """EasyBuild's own reading of recipes (EasyBuildReader)."""
    reader = hostile.EasyBuildReader(tmp_path_factory.mktemp('easybuild'))
    yield reader
    reader.close()


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A directory for all examples (Path); each has one of its own below it."""
    return tmp_path_factory.mktemp('work')


def each(err):
    """Return the errors of which an error consists (list)."""
    return err.errors if isinstance(err, SeveralErrors) else [err]


def assert_told(err, where, fields):
    """The message is one that can be printed, and each part of it names the file, and a field that is to blame."""
    assert not re.search('[\0-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]', str(err))
    for one in each(err):
        text = str(one)
        assert text.startswith(where) and len(text) < 9000
        assert 'Traceback' not in text and 'Error' not in re.sub('not a valid recipe: .*', '', text)
        assert not fields or any(field in text for field in fields) or 'not a valid' in text


def plain(value):
    """Return a value as JSON would give it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@given(values=hostile.some(hostile.RECIPE, hostile.GOOD_RECIPE), raw=st.booleans())
@example(values={'description': 'two\n[DEFAULT]\nlines'}, raw=True)
@example(values={'description': 'x\neasyblock = "EB_Toy"\n'}, raw=True)
@example(values={'container_env': {'A': '%%%(name)s %%%%(name)s %(version_major)s'}}, raw=False)
@example(values={'commands': {'%(name)s-x': '%(version)s'}}, raw=False)
def test_a_recipe_is_refused_with_its_field_or_read_as_easybuild_reads_it(work, easybuild, values, raw):
    path = hostile.write_recipe(work / 'toy-1.2.eb', dict(hostile.SANE, **values), raw)
    try:
        found = recipe.load(path)
    except EasySIFError as err:
        assert_told(err, 'toy-1.2.eb', [*values, 'name', 'line of a text'])
        return
    theirs = easybuild.read(path)
    if isinstance(theirs, str) and 'moduleclass' in values and 'moduleclass provided' in theirs:
        return  # which words are known is a matter of how EasyBuild is configured
    if isinstance(theirs, str) and 'dependencies' in values:
        return  # what other modules are called is EasyBuild's business alone
    assert isinstance(theirs, dict), theirs
    commands = theirs['commands'] or ()
    for name in ('name', 'version', 'image', 'digest', 'python_env', 'conda_env', 'homepage', 'description'):
        assert getattr(found, name) == (theirs[name] or None), name
    assert found.versionsuffix == (theirs['versionsuffix'] or '')
    assert (list(found.needs), list(found.binds)) == (theirs['needs'] or [], theirs['binds'] or [])
    assert found.container_env == (theirs['container_env'] or {})
    assert list(found.commands) == list(commands)
    assert theirs['sanity_check_commands'] in ([*found.sanity_check_commands], ['EasyBuildError'])
    assert theirs['modextravars'] != ['EasyBuildError'] and theirs['usage'] != ['EasyBuildError']


@pytest.mark.long
@given(values=hostile.some(hostile.SITE, hostile.GOOD_SITE), flow=st.sampled_from([None, True, False]))
def test_a_site_file_is_refused_with_its_setting_or_read_as_it_was_written(work, values, flow):
    path = hostile.write_site(work / 'site.yaml', values, flow)
    try:
        found = site.read(path)
    except EasySIFError as err:
        assert_told(err, path, [*values, 'aliases counted'])
        return
    assert plain(found) == plain(values)
    try:
        resolved = site.resolve({'EASYSIF_SITE': path, 'HOME': str(work)}).site
    except EasySIFError as err:  # needs that name one another have to fit together
        assert_told(err, path, ['requires', 'conflicts'])
        return
    for key in set(values) - {'match', 'provides', 'squashfs'} - set(values.get('force') or ()):
        assert values[key] is None or plain(getattr(resolved, key)) == plain(values[key])
    lua, shell = work / 'site.lua', work / 'site.sh'
    lua.write_text(site_files.lua_text(resolved), encoding='utf-8')
    shell.write_text(site_files.shell_text(resolved), encoding='utf-8')
    harness.run(['luac5.3', '-p', lua])
    harness.run(['sh', '-n', shell])
    printed = subprocess.run(['sh', '-c', '. "$0"; printf "%s\\0" "$es_site_image_store" "$es_site_overlays" '
                              '"$es_site_ca_certificates" "$es_site_binds" "$es_site_runtime"', str(shell)], cwd=work,
                             stdout=subprocess.PIPE, check=True).stdout.decode().split('\0')
    assert printed[:5] == [resolved.image_store or '', resolved.overlays or '', resolved.ca_certificates or '',
                           '\n'.join(resolved.binds), resolved.runtime]
    assert hostile.traces(work) == []


class Story:
    """One installation with texts in all of its fields, from the text of the recipe on.

    :param values: fields of a recipe (dict)
    """

    def __init__(self, work, values, **changes):
        self.directory = Path(tempfile.mkdtemp(dir=work))
        path = hostile.write_recipe(self.directory / 'toy-1.2.eb', dict(hostile.SANE, **values))
        self.recipe = found = recipe.load(path)
        self.fake = Fake(self.directory / 'p', **dict(dict(
            module='toy/1.2', variable=found.env_suffix, environment=found.is_environment, python_env=found.python_env,
            needs=found.needs, binds=found.binds, container_env=found.container_env,
            commands={name: Command(words) for name, words in found.commands.items()}), **changes))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        shutil.rmtree(self.directory)


def bound(directory, name):
    """Make what a bind needs, and return its path (str)."""
    path = directory / name
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


SCRIPT = '''
%s
module use "$M"
env -0; printf '@@before\\0'
module load toy/1.2 && env -0 && printf '@@loaded\\0'
"$W" print-environment | tr '\\n' '\\0'; printf '@@wrapper\\0'
module unload toy/1.2 && env -0 && printf '@@unloaded\\0'
'''


def stages(story, env, tool):
    """Return the environment before loading, after it, that of the wrapper, after unloading, and what was said."""
    env = dict({'HOME': str(story.directory / 'home'), 'PATH': harness.SYSTEM_PATH, 'USER': 'u', 'LANG': 'C.UTF-8',
                'M': os.path.normpath(story.fake.prefix / TOOLS[tool][1]),
                'W': story.fake.root / 'easysif' / 'wrapper'}, **env)
    done = subprocess.run(['bash', '--norc', '-c', SCRIPT % TOOLS[tool][0]], cwd=story.directory,
                          env={name: str(value) for name, value in env.items()}, capture_output=True)
    parts = re.split('@@[a-z]+\0', done.stdout.decode('utf-8', 'surrogateescape'))
    found = [dict(pair.split('=', 1) for pair in part.split('\0') if '=' in pair) for part in parts]
    return found, done.stderr.decode()


# What a tool would change: Environment Modules lets bash put a home directory for a tilde.
NOT_CARRIED = {'Lmod with Lua': '', 'Lmod with Tcl': '|[\r\t\U00010000-\U0010ffff]| $',
               'Environment Modules': '|(^|:)~'}

LINES = [hostile.CONTROL.sub('', piece) for piece in hostile.PIECES]
ALL = {'P%d' % number: text for number, text in enumerate(LINES)}


@pytest.mark.long
@hostile.share(1)
@example(tool='Lmod with Lua', container_env=ALL, site_env={}, need_env={}, names=['*', 'a', 'x', '?'], targets=[],
         with_conda="'\\\"$(id)", conda='*', users_texts=['a;b%3B', '$(touch evil)', '\ntouch<evil'])
@example(tool='Lmod with Lua', container_env={}, site_env=ALL, need_env={}, names=['a b', '*', 'a', "'"],
         targets=['*', '$(id)'], with_conda='a\ntouch<evil', conda="'", users_texts=['\ntouch<evil', '"', '\\'])
@example(tool='Lmod with Lua', container_env={'A': 'recipe'}, site_env={'A': 'site', 'B': 'site'},
         need_env=dict(ALL, B='need'), names=[], targets=[], with_conda='', conda='x', users_texts=['x', 'x', 'x'])
@example(tool='Environment Modules', container_env=ALL, site_env={'B': '}'}, need_env={'C': '{'}, names=['a b', '{'],
         targets=['$a', '['], with_conda='[exec touch evil]', conda='[exec touch evil]',
         users_texts=['a;b%3B', '[exec touch evil]', '\ntouch<evil'])
@example(tool='Environment Modules', container_env={'A': 'recipe'}, site_env=ALL, need_env={'A': 'need', 'B': '"'},
         names=['*', '"'], targets=[], with_conda='a\ntouch<evil', conda='{', users_texts=['\ntouch<evil', '{', '}'])
@example(tool='Lmod with Tcl', container_env={'A': 'recipe\U0001f600'}, site_env={'A': 'site', 'B': ']===]'},
         need_env=ALL, names=['a b', '{'], targets=['$a', '}'],
         with_conda='a\rtouch<evil', conda='}', users_texts=['\ttouch<evil', '{', '"'])
@given(tool=st.sampled_from(list(TOOLS)), container_env=hostile.variables(hostile.lines()),
       site_env=hostile.variables(hostile.lines()), need_env=hostile.variables(hostile.lines()),
       names=st.lists(hostile.file_names(), max_size=4, unique=True),
       targets=st.lists(hostile.file_names(), max_size=4), with_conda=hostile.texts(), conda=hostile.file_names(),
       users_texts=st.lists(hostile.texts(), min_size=3, max_size=3))
def test_what_a_recipe_and_a_site_say_reaches_the_module_tool_bash_and_the_wrapper(
        work, tool, container_env, site_env, need_env, names, targets, with_conda, conda, users_texts):
    with_conda = with_conda.replace('\0', '').encode('utf-8', 'replace').decode()
    # Lmod 8.6 gives back neither an empty text nor letters beyond ASCII, which its base64.lua decodes wrongly
    users_texts = [text.replace('\0', '').encode('ascii', 'ignore').decode() or 'x' for text in users_texts]
    with tempfile.TemporaryDirectory(dir=work) as place:
        sources = [bound(Path(place), name) for name in names]
        binds = ['%s:/%s' % (source, target) for source, target in zip(sources, targets)]
        binds += sources[len(targets):] + ['/gone/%s' % name for name in names[:1]]
        values = {'python_env': 'toy', 'needs': ['a-b'],
                  'container_env': {name: hostile.escaped(text) for name, text in container_env.items()}}
        changes = dict(image_env={'WITH_CONDA': with_conda}, conda=Conda('/opt/' + conda, conda, '/opt'))
        with Story(work, values, **changes) as story:
            assert story.recipe.container_env == container_env
            story.fake.site(container_env=site_env, binds=tuple(binds[1:]), provides={
                'a-b': Need(tuple(binds[:1]), need_env), 'a': Need(('/opt',), {'NO': 'no'})})
            env = dict(zip(('APPTAINERENV_V', 'WITH_VENV', 'EB_PYTHON'), users_texts))
            (before, loaded, wrapper, after, *_), said = stages(story, env, tool)
            expected = dict(site_env, **need_env)
            expected.update(container_env)
            for found in (loaded, wrapper):
                for name in set(expected) - {'V' if re.search('\n' + NOT_CARRIED[tool], users_texts[0]) else ''}:
                    assert both(found, 'ENV_' + name) == carried(tool, found is loaded, literal(expected[name]))
                assert both(found, 'ENV_CONDA_PREFIX') == carried(tool, found is loaded, literal('/opt/' + conda))
                assert both(found, '_BINDPATH') == carried(tool, found is loaded, expected_binds(story, binds))
                usable = '\n' not in with_conda
                assert found.get('WITH_CONDA') == (carried(tool, found is loaded, with_conda) if usable else None)
                assert both(found, 'ENV_WITH_CONDA') == (
                    carried(tool, found is loaded, literal(with_conda)) if usable else None)
                assert both(found, 'ENV_NO') is None
            assert users(after) == users(before) and said == ''
            for path in (story.fake.prefix / 'modules/all/toy/1.2.lua', story.fake.prefix / 'easysif/site.lua'):
                harness.run(['luac5.3', '-p', path])
            harness.run(['sh', '-n', story.fake.root / 'easysif' / 'module.sh'])
            assert hostile.traces(story.directory) == []


def carried(tool, is_loaded, value):
    """Return what a variable has (str), None where the module tool cannot set it."""
    return None if is_loaded and re.search('\n' + NOT_CARRIED[tool], value) else value


def expected_binds(story, binds):
    """Return the bind list of a module: what is there, each target once (str)."""
    entries, taken = [], set()
    for entry in story.fake.binds().split(',') + binds:
        source, _, target = entry.partition(':')
        target = (target or source).rstrip('/')
        if os.path.exists(source) and target not in taken:
            taken.add(target)
            entries.append(entry)
    return ','.join(entries)


@hostile.share(0.5)
@example(commands={'*': LINES[:20], "it's": ['$(touch evil)', '']}, arguments=LINES[20:])
@given(commands=hostile.commands(), arguments=st.lists(hostile.texts(), max_size=3))
def test_a_wrapper_hands_on_every_word_as_it_is(work, commands, arguments):
    arguments = [text.replace('\0', '').encode('utf-8', 'replace').decode() for text in arguments]
    written = {name: hostile.escaped(shlex.join(words)) for name, words in commands.items()}
    with Story(work, {'commands': written}) as story:
        assert {name: list(words) for name, words in story.recipe.commands.items()} == commands
        runtime = story.directory / 'runtime'
        runtime.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
        runtime.chmod(0o755)
        story.fake.site(runtime=str(runtime))
        for name, words in commands.items():
            link = story.fake.root / 'bin' / name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to('../easysif/wrapper')
            done = subprocess.run([str(link), *arguments], env={'PATH': harness.SYSTEM_PATH}, cwd=story.directory,
                                  capture_output=True, check=True)
            assert done.stderr == b''
            expected = ['--silent', 'exec', str(story.fake.sif), *words, *arguments]
            assert done.stdout.decode().split('\0')[:-1] == expected
        assert hostile.traces(story.directory) == []


@pytest.mark.e2e
@hostile.share(0.1)
@example(texts=LINES, words=[piece for piece in LINES if piece], names=['*', 'a', "it's $(touch evil)", '"'])
@given(texts=st.lists(hostile.lines(), min_size=1, max_size=20), words=st.lists(hostile.texts(), max_size=4),
       names=st.lists(hostile.file_names(), max_size=3, unique=True))
def test_what_a_recipe_says_arrives_in_the_container_as_it_is(work, toy, texts, words, names):
    """Environment, arguments and binds, read by a command inside."""
    variables = {'T%d' % number: text for number, text in enumerate(texts)}
    words = [text.replace('\0', '').encode('utf-8', 'replace').decode() for text in words]
    with tempfile.TemporaryDirectory(dir=work) as place:
        for name in names:
            bound(Path(place), name)
            Path(place, name, 'here').write_text(name)
        values = {'commands': {'shell': 'sh', 'env': 'env'}, 'needs': ['n'],
                  'container_env': {name: hostile.escaped(text) for name, text in list(variables.items())[::2]},
                  'binds': [hostile.escaped('%s/%s:/t/%s' % (place, name, name)) for name in names]}
        with Story(work, values, sif_size=toy.stat().st_size) as story:
            story.fake.site(provides={'n': Need((), dict(list(variables.items())[1::2]))})
            story.fake.sif.unlink()
            story.fake.sif.symlink_to(toy)
            (story.fake.root / 'bin').mkdir()
            for name in values['commands']:
                (story.fake.root / 'bin' / name).symlink_to('../easysif/wrapper')
            script = 'for name; do printf "%s\\0" "$name"; done; env -0'
            script += ''.join("; cat -- %s; printf '\\0'" % shlex.quote('/t/%s/here' % name) for name in names)
            done = subprocess.run([str(story.fake.root / 'bin' / 'shell'), '-c', script, 'sh', *words],
                                  cwd=story.directory, env=harness.user_environment(story.directory / 'home'),
                                  capture_output=True)
            assert done.stderr == b'' and done.returncode == 0
            found = done.stdout.decode().split('\0')[:-1]
            assert found[:len(words)] == words
            inside = dict(pair.split('=', 1) for pair in found[len(words):len(found) - len(names)])
            assert {name: inside[name] for name in variables} == variables
            assert found[len(found) - len(names):] == names
            assert hostile.traces(story.directory) == []


MEGABYTE = 10 ** 6
HUGE = ['x' * MEGABYTE, ' ' * MEGABYTE, '\\' * MEGABYTE, '%(version)s' * (MEGABYTE // 11), '$(' * (MEGABYTE // 2),
        '\x1b[31m' * (MEGABYTE // 5), "'" * MEGABYTE, '/a:' * (MEGABYTE // 3), '\U0001f600' * (MEGABYTE // 4)]


def shapes(text):
    """Return values in which a text stands at every place that any field has (list)."""
    return [text, [text], {text: 'x'}, {'A': text}, {'A': {'value': text}}, {'A': {'binds': ['/' + text]}}]


def huge(fields):
    """Yield each field with huge texts: one of them, in the nightly runs all (str, str)."""
    for number, field in enumerate(sorted(fields)):
        for text in HUGE if settings.default.max_examples > 1000 else HUGE[number % len(HUGE):][:1]:
            yield field, text


@pytest.mark.long
def test_a_megabyte_in_any_field_of_a_recipe_is_refused_at_once(work):
    for key, text in huge(set(hostile.RECIPE) - {'dependencies'}):
        for value in shapes(text):
            path = hostile.write_recipe(work / 'toy-1.2.eb', dict(hostile.SANE, **{key: value}))
            begin = time.process_time()
            with pytest.raises(EasySIFError) as err:
                recipe.load(path)
            assert time.process_time() - begin < 2, key
            assert_told(err.value, 'toy-1.2.eb', [key])


@pytest.mark.long
def test_a_megabyte_in_any_setting_of_a_site_is_refused_at_once(work):
    path = work / 'site.yaml'
    for key, text in huge(hostile.SITE):
        value = {'match': {'hostname': text}, 'provides': {'mpi': {'container_env': {'A': text}}},
                 'force': {'container_env': {'A': text}}}.get(key, text)
        path.write_text(json.dumps({key: value}))  # JSON is YAML
        begin = time.process_time()
        with pytest.raises(EasySIFError) as err:
            site.read(str(path))
        assert time.process_time() - begin < 2, key
        assert_told(err.value, str(path), [key])
