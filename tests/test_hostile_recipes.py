# SPDX-License-Identifier: GPL-2.0-only
"""Hostile recipes through the real eb and easysif check: each is refused in words that name file and field, or all of
it arrives as it is; nothing of it is executed, nothing is written outside of the prefix."""

import os
import re
import shlex

import pytest
import yaml

import harness
import hostile
import toys

pytestmark = pytest.mark.e2e

#: Lua that would run where a text ends a text of the module file
LUA = ']==]) os.execute("touch evil") help([==['

#: what must not be taken: parameters of a recipe -> the message, after file and line
REFUSED = {
    'name-slash': (dict(name='a/evil'), "name must be text of letters, digits and . _ + -, not the text 'a/evil'"),
    'name-dots': (dict(name='..'), "name must be text of letters, digits and . _ + -, not the text '..'"),
    'name-shell': (dict(name='$(touch evil)'), "name must be text of letters, digits and . _ + -, not the text "
                   "'$(touch evil)'"),
    'suffix-up': (dict(versionsuffix='/../../evil'),
                  "versionsuffix must be text of letters, digits and . _ + -, not the text '/../../evil'"),
    'other-name': (dict(modaltsoftname='../../evil'),
                   "modaltsoftname must be text of letters, digits and . _ + -, not the text '../../evil'"),
    'toolchain-up': (dict(toolchain="{'name': 'system', 'version': '/../../evil'}"),
                     "toolchain.version must be text of letters and digits, not the text '/../../evil'"),
    'env-up': (dict(python_env='../../evil'),
               "python_env must be a name of letters, digits and . _ + -, not the text '../../evil'"),
    'conda-shell': (dict(conda_env='`touch evil`'),
                    "conda_env must be the name of a conda environment, of letters, digits and . _ + -, not the text "),
    'command-up': (dict(commands=['../../evil']), 'commands[0] must be the name of a command without a path, not '),
    'command-key': (dict(commands={'/tmp/evil': 'sh'}), 'a key of commands must be the name of a command without a '),
    'command-lua': (dict(commands=[LUA]), "commands[0] must not hold ']==', which EasyBuild's modules cannot carry"),
    'command-long': (dict(commands=['x' * 256]), 'commands[0] must have 255 bytes at the most, not 256'),
    'command-line': (dict(commands={'x': "sh -c 'open"}), 'commands.x must be a command inside the image, not "sh -c '),
    'command-option': (dict(commands={'x': '-rf /'}), 'commands.x must begin with the name of a command or its path '
                       "inside the image, not with '-rf'"),
    'command-relative': (dict(commands={'x': '../../bin/sh'}), 'commands.x must begin with the name of a command or '
                         "its path inside the image, not with '../../bin/sh'"),
    'command-none': (dict(commands=None), 'commands must be a list of commands, or {name: command inside}, not '),
    'need-shell': (dict(needs=['$(touch evil)']), 'needs[0] must be a word of small letters, digits and -, not the '),
    'variable-name': (dict(container_env={'A; touch evil': 'x'}),
                      "a key of container_env must be the name of a variable, not the text 'A; touch evil'"),
    'variable-line': (dict(container_env={'A': 'x\ntouch evil'}),
                      "container_env.A must be one line without control characters, not 'x\\ntouch evil'"),
    'variable-null': (dict(container_env={'A': 'x\0'}),
                      "container_env.A must be one line without control characters, not 'x\\x00'"),
    'variable-half': (dict(container_env={'A': '\ud800'}),
                      "container_env.A must be one line without control characters, not '\\ud800'"),
    'variable-long': (dict(container_env={'A': 'x' * 10 ** 6}), 'container_env must not hold more than 10000 bytes'),
    'template': (dict(container_env={'A': '%(nosuch)s'}), "container_env has the unknown template '%(nosuch)s'"),
    'bind-comma': (dict(binds=['/tmp:/a,/etc']), "binds[0] must not hold ',', which separates the parts of a bind"),
    'bind-option': (dict(binds=['/tmp:/a:ro,/etc']),
                    "binds[0] must have options out of ro, rw, image-src=/path and id=number, not '/etc'"),
    'bind-root': (dict(binds=['/tmp/../..:/a']), "binds[0] must be below '/', not the root directory itself"),
    'image-up': (dict(image='../evil.sif'),
                 "image must be a reference (docker://, oras://, library://, https://), a .sif or .def file, or an "
                 "archive, not the text '../evil.sif'"),
    'image-line': (dict(image='a\ntouch evil.sif'),
                   "image must be one line without control characters, not 'a\\ntouch evil.sif'"),
    'image-shell': (dict(image='docker://$(touch evil)/x:1'),
                    "image 'docker://$(touch evil)/x:1' is not a docker reference\n  reason  '$(touch evil)/x' is "),
    'help-lua': (dict(description=LUA), "description must not hold ']==', which EasyBuild's modules cannot carry"),
    'help-end': (dict(homepage='https://a]=='), "homepage must not hold ']==', which EasyBuild's modules cannot carry"),
    'help-usage': (dict(usage=LUA), "usage must not hold ']==', which EasyBuild's modules cannot carry"),
    'help-load': (dict(modloadmsg=LUA), "modloadmsg must not hold ']==', which EasyBuild's modules cannot carry"),
    'help-escape': (dict(description='\x1b]0;evil\x07'),
                    "description must be without control characters, not '\\x1b]0;evil\\x07'"),
    'help-template': (dict(description='100 %(percent)s'), "description has the unknown template '%(percent)s'"),
    'module-line': (dict(modextravars={'A': 'x\n$(touch evil)'}),
                    "modextravars.A must be one line without control characters, not 'x\\n$(touch evil)'"),
    'module-escape': (dict(modextravars={'A': 'x\\n$(touch evil)'}),
                      "modextravars.A must not hold '\\', which EasyBuild's modules cannot carry"),
    'module-name': (dict(modextravars={'A", "1") os.execute("touch evil") setenv("B': '1'}),
                    "a key of modextravars must be the name of a variable, not the text 'A\", \"1\") os.execute("),
    'module-code': (dict(modextravars={'A': 'os.getenv("HOME")) os.execute("touch evil'}),
                    "modextravars.A must not hold 'os.getenv(\"', which EasyBuild's modules cannot carry"),
    'test-line': (dict(sanity_check_commands=['true\ntouch evil']),
                  "sanity_check_commands[0] must be one line without control characters, not 'true\\ntouch evil'"),
    'section': (dict(moduleclass='tools'), 'EasyBuild takes this line of a text or a list for the parameter easyblock'),
}

#: those of which eb is asked as well, who waits a second before each
BY_EB = ('name-slash', 'suffix-up', 'other-name', 'toolchain-up', 'command-lua', 'command-line', 'variable-name',
         'variable-null', 'variable-long', 'bind-option', 'image-shell', 'help-lua', 'module-name', 'section')

#: what EasyBuild itself stumbles over before it asks us: parameters -> what easysif check says of it
THEIRS = {
    'name-up': (dict(name='../../evil'), "name must be text of letters, digits and . _ + -, not the text '../../evil'"),
    'version-up': (dict(version='../../evil'), 'version must be text of letters, digits and . _ + -, not the text '),
    'class-up': (dict(moduleclass='../../evil', needs=''), "needs must be a list of words, not the text ''"),
    'group-lua': (dict(group='x") os.execute("touch evil'), 'group must be the name of a group, or a list of it '),
    'block-up': (dict(easyblock='../evil'), "easyblock must be the name of an easyblock, not the text '../evil'"),
    'name-root': (dict(name='/tmp/evil'), "name must be text of letters, digits and . _ + -, not the text '/tmp/evil'"),
    'name-escape': (dict(name='a\x1b[2J'), 'name must be text of letters, digits and . _ + -, not the text '
                    "'a\\x1b[2J'"),
    'name-long': (dict(name='x' * 300), 'name must have 64 characters at the most, not 300'),
    'suffix-long': (dict(versionsuffix='-' + 'x' * 300), 'versionsuffix must have 64 characters at the most, not 301'),
}

TEXT = 'it\'s $(touch evil) `touch evil` ${HOME} ]] --[[ %3B; \\ \\n * ~ é 容器 \U0001f600 \u202e'

#: what has to arrive as it is
CARRIED = {
    'texts': dict(
        description='Two\n\tlines: %s %%%%(nosuch)s' % TEXT, usage='%s ]=]' % TEXT, commands=['fine', 'sh'],
        container_env={'A': '"q" ' + TEXT, 'EMPTY': '', 'X_BINDPATH': '-n', 'B': '100 %% %(version)s %%(name)s'},
        modextravars={'TOY_TEXT': "it's $(touch evil) [[ %% é", 'TOY_QUOTES': '"q" `touch evil`'},
        sanity_check_commands=['sh -c \'test "$X_BINDPATH" = -n\'', 'test "$TOY_QUOTES" = "\\"q\\" \\`touch evil\\`"']),
    'commands': dict(commands={
        "it's $(touch evil)": 'fine \'a b\' "$(touch evil)" \'*\' \\\\', '`touch evil`': 'fine one', '*': 'fine',
        '"q" ü': "fine ''", ';touch evil;': 'fine', '$HOME': 'fine', '{a,b}': 'fine'}),
    'image': dict(image="it's $(touch evil) `touch evil` é.sif", commands=['fine']),
    'C++-x.y_z': dict(version='1.0+a_b-c', versionsuffix='-..x', commands=['fine']),
}


class Run:
    """What one eb and one easysif check said of all recipes, and what that did to the machine."""

    def __init__(self, directory, toy, registry):
        self.directory, self.prefix = directory, directory / 'prefix'
        for name in ('recipes', 'images', 'home', 'tmp', 'cwd'):
            (directory / name).mkdir()
        for name in ('toy.sif', CARRIED['image']['image']):
            (directory / 'images' / name).symlink_to(toy)
        (directory / 'site.yaml').write_text(yaml.safe_dump(harness.site_settings(registry)))
        self.recipes = {}
        for name, (values, _) in {**REFUSED, **THEIRS}.items():
            self.recipes[name] = self.recipe(name, values)
        with open(self.recipes['section'], 'a') as handle:
            handle.write('usage = """\neasyblock = \'EB_evil\'\n"""\n')
        for name, values in CARRIED.items():
            self.recipes[name] = self.recipe(name, dict({'name': name}, **values))
        before = toys.snapshot(directory, 'prefix', 'tmp')
        env = dict(harness.eb_environment(self.prefix, directory / 'home', directory / 'site.yaml'),
                   TMPDIR=str(directory / 'tmp'))
        options = ['--sourcepath=%s:%s' % (directory / 'sources', directory / 'images'),
                   '--dump-test-report=%s' % (directory / 'tmp' / 'report')]

        def run(*argv):
            return harness.run(argv, env=env, check=False, cwd=directory / 'cwd')
        parts = run('eb', *[self.recipes[name] for name in (*BY_EB, *CARRIED)],
                    *options).stdout.split('== processing EasyBuild easyconfig ')[1:]
        self.printed = {os.path.basename(part.split('\n', 1)[0]): part for part in parts}
        self.theirs = {name: run('eb', self.recipes[name], *options) for name in list(THEIRS)[:4]}
        self.checked = run('easysif', 'check', *self.recipes.values()).stderr
        after = toys.snapshot(directory, 'prefix', 'tmp')
        self.changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}

    def recipe(self, name, values):
        """Write a recipe whose file name does not depend on its content, and return it (Path)."""
        values = dict(toys_values(name), **values)
        path = self.directory / 'recipes' / (name + '.eb')
        path.write_text(''.join('%s = %s\n' % (key, value if key == 'toolchain' else repr(value))
                                for key, value in values.items()))
        return path


def toys_values(name):
    """Return the parameters that a recipe has where it does not say anything else (dict)."""
    return {'easyblock': 'ContainerImage', 'name': 'toy-' + name, 'version': '1.0', 'homepage': 'https://example.com',
            'description': 'A toy of the tests', 'toolchain': 'SYSTEM', 'image': 'toy.sif', 'moduleclass': 'tools'}


@pytest.fixture(scope='module')
def ran(tmp_path_factory, toy, registry):
    """All of it run once (Run)."""
    return Run(tmp_path_factory.mktemp('hostile'), toy, registry)


@pytest.mark.parametrize('name', BY_EB)
def test_a_hostile_recipe_is_refused_by_eb_with_file_and_field(ran, name):
    text = ran.printed[name + '.eb']
    told = re.search('Installation ended unsuccessfully: (.*?)\n== ', text, re.DOTALL).group(1)
    assert re.match(re.escape(name) + r'\.eb(:\d+)?: ' + re.escape(REFUSED[name][1]), told), told
    assert 'Traceback' not in text and len(text) < 9000 and '== installing' not in text


@pytest.mark.parametrize('name', {**REFUSED, **THEIRS})
def test_a_hostile_recipe_is_told_by_easysif_check_with_file_and_line(ran, name):
    expected = {**REFUSED, **THEIRS}[name][1]
    if name != 'image-shell':  # which is a reference as far as the recipe goes
        assert re.search('^error: %s.eb:[0-9]+: %s' % (re.escape(name), re.escape(expected)), ran.checked, re.MULTILINE)


def test_easysif_check_prints_nothing_that_a_terminal_obeys(ran):
    assert not re.search('[\0-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]', ran.checked)
    assert 'Traceback' not in ran.checked and 'not yours' not in ran.checked


@pytest.mark.parametrize('name', list(THEIRS)[:4])
def test_what_easybuild_itself_cannot_read_is_not_installed(ran, name):
    assert ran.theirs[name].status not in (0, None)
    assert '== installing' not in ran.theirs[name].stdout


def test_nothing_was_executed_and_nothing_written_outside_of_the_prefix(ran):
    assert hostile.traces(ran.directory) == [] and not os.path.exists('/tmp/evil')
    assert ran.changed <= {'home/.apptainer'}  # a directory of the runtime's own
    assert {path.parent.name for path in (ran.prefix / 'modules' / 'all').rglob('*.lua')} == set(CARRIED)
    assert {path.name for path in (ran.prefix / 'software').iterdir() if path.name[0] != '.'} == set(CARRIED)


@pytest.fixture(scope='module')
def load(ran):
    """A function that runs a script with the module of one of CARRIED loaded, and returns the Result."""
    def call(module, script):
        return harness.run_shell('module load %s\n%s' % (module, script), ran.prefix, ran.directory / 'home',
                                 cwd=ran.directory / 'cwd')
    return call


def test_texts_arrive_as_they_are(ran, load):
    done = load('texts/1.0', 'printf "%s\\n" "$TOY_TEXT" "$TOY_QUOTES"; sh -c \'printf "%s\\n" "$A" "[$EMPTY]" '
                '"$X_BINDPATH" "$B"\'')
    assert done.stderr == '' and done.stdout.splitlines() == [
        "it's $(touch evil) [[ %% é", '"q" `touch evil`', '"q" ' + TEXT, '[]', '-n', '100 %% 1.0 %(name)s']
    shown = load('texts/1.0', 'module help texts/1.0 2>&1; module whatis texts/1.0 2>&1').stdout
    assert 'Two\n\tlines: %s %%(nosuch)s' % TEXT in shown and '%s ]=]' % TEXT in shown


def test_commands_of_any_name_run_with_their_words_as_they_are(load):
    names = CARRIED['commands']['commands']
    done = load('commands/1.0', '\n'.join("%s '$(id)' '  x'" % shlex.quote(name) for name in names))
    words = ['a b $(touch evil) * \\ ', 'one ', '', ' ', '', '', '']
    assert done.stderr == '' and done.stdout.splitlines() == ['%s$(id)   x' % word for word in words]


def test_an_image_of_any_name_is_installed_and_run(ran, load):
    done = load('image/1.0', 'printf "%s\\n" "$SIFIMAGE"; fine inside')
    sif = ran.prefix / 'software/image/1.0' / CARRIED['image']['image']
    assert done.stdout == '%s\ninside\n' % sif and sif.is_file()


def test_the_module_files_are_lua_and_the_wrappers_are_shell(ran):
    for path in (ran.prefix / 'modules' / 'all').rglob('*.lua'):
        harness.run(['luac5.3', '-p', path])
    for path in (ran.prefix / 'software').rglob('*.sh'):
        harness.run(['sh', '-n', path])
