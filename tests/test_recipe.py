# SPDX-License-Identifier: GPL-2.0-only
"""Recipes: what they may say, what they become, and every message about what they may not."""

import json
import os
import re
import subprocess
import sys

import pytest
from easybuild.framework.easyconfig import templates as theirs
from easybuild.framework.easyconfig.constants import EASYCONFIG_CONSTANTS
from easybuild.framework.easyconfig.default import DEFAULT_CONFIG
from easybuild.tools.filetools import convert_name

from easysif import recipe, schema, templates
from easysif.errors import EasySIFError

JAX = """\
easyblock = 'ContainerImage'

name = 'jax'
version = '24.10'
versionsuffix = '-singularity'

homepage = 'https://docs.jax.dev'
description = "Composable transformations of NumPy programs"

toolchain = SYSTEM

image = 'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'
needs = ['nvidia-gpu']
python_env = 'jax'
commands = ['python', 'pip']

sanity_check_commands = ['python -c "import jax"']

moduleclass = 'ai'
"""


@pytest.fixture
def write(tmp_path):
    """Write a recipe: JAX with lines put in the place of others, and more lines at its end."""
    def written(change=None, more=''):
        text = JAX
        for old, new in (change or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / 'jax-24.10-singularity.eb'
        path.write_text(text + more, encoding='utf-8', errors='surrogatepass')
        return str(path)
    return written


def message(path):
    """Return what load says of a recipe that is not right."""
    with pytest.raises(EasySIFError) as raised:
        recipe.load(path)
    return str(raised.value)


def test_a_recipe_becomes_what_it_says(write):
    path = write(more="""
container_env = {'XLA_FLAGS': '--v=%(version_major)s'}
binds = ['/opt/data', '/a b/é.squashfs:/c:image-src=/,ro']
provides = ['jax/%(version)s', 'jaxlib']
python_packages = ['flax[all]>=0.8,<%(version_major)s', 'x @ https://h/x.whl']
conda_env = '%(namelower)s'
digest = 'sha256:DIGEST'
""".replace('DIGEST', '0' * 64))
    found = recipe.load(path)
    assert found == recipe.Recipe(
        name='jax', version='24.10', versionsuffix='-singularity', where='jax-24.10-singularity.eb', path=path,
        image='docker://nvcr.io/nvidia/jax:24.10-maxtext-py3', digest='sha256:' + '0' * 64,
        image_mode=None, verify=False,
        build_args={}, needs=('nvidia-gpu',),
        python_env='jax', conda_env='jax', commands={'python': ('python',), 'pip': ('pip',)},
        provides={'jax': '24.10', 'jaxlib': None}, python_packages=('flax[all]>=0.8,<24', 'x @ https://h/x.whl'),
        container_env={'XLA_FLAGS': '--v=24'}, binds=('/opt/data', '/a b/é.squashfs:/c:image-src=/,ro'),
        description='Composable transformations of NumPy programs', homepage='https://docs.jax.dev',
        sanity_check_commands=('python -c "import jax"',))
    assert found.full_version == '24.10-singularity'


def test_the_values_that_easybuild_gives_make_the_same_recipe(write):
    path = write()
    values, lines = recipe.read(path)
    default = {'digest': None, 'conda_env': '', 'binds': [], 'container_env': {}, 'sources': [], 'versionprefix': '',
               'easybuild_version': None, 'skip': False,
               'toolchain': {'name': 'system', 'version': 'system', 'hidden': True},
               'image': 'docker://nvcr.io/nvidia/jax:24.10-maxtext-py3', 'needs': ('nvidia-gpu',)}
    assert recipe.validate({**values, **default}, 'jax-24.10-singularity.eb', lines, path) == recipe.load(path)


def test_commands_may_be_renamed(write):
    found = recipe.load(write({"['python', 'pip']": "{'jpy': 'python -u', 'my tool': '/opt/a\\\\ b/tool \"x y\"'}"}))
    assert found.commands == {'jpy': ('python', '-u'), 'my tool': ('/opt/a b/tool', 'x y')}


@pytest.mark.parametrize('python_env, commands, expected', [
    ("'jax'", "['python']", True),
    ("''", "['python']", False),
    ("None", "[]", True),
])
def test_a_tool_module_is_one_with_commands_and_without_python_env(write, python_env, commands, expected):
    path = write({"python_env = 'jax'": 'python_env = %s' % python_env, "['python', 'pip']": commands})
    assert recipe.load(path).is_environment is expected


@pytest.mark.parametrize('name, suffix', [
    ('jax', 'JAX'), ('scikit-learn', 'SCIKITMINLEARN'), ('g++', 'GPLUSPLUS'), ('Node.js', 'NODEJS'), ('a_b', 'A_B'),
])
def test_names_of_variables_are_easybuilds(write, name, suffix):
    assert recipe.load(write({"name = 'jax'": "name = '%s'" % name})).env_suffix == suffix
    assert convert_name(name, upper=True) == suffix


def test_lines_of_keys_are_known(write):
    assert recipe.read(write())[1] == {
        'easyblock': 1, 'name': 3, 'version': 4, 'versionsuffix': 5, 'homepage': 7, 'description': 8, 'toolchain': 10,
        'image': 12, 'needs': 13, 'python_env': 14, 'commands': 15, 'sanity_check_commands': 17, 'moduleclass': 19}


@pytest.mark.parametrize('text, expected', [
    ('%(name)s %(namelower)s %(nameletter)s %(nameletterlower)s', 'SAMtools samtools S s'),
    ('%(version)s%(versionsuffix)s', '1.21.3-x'),
    ('%(version_major)s|%(version_minor)s|%(version_patch)s', '1|21|3'),
    ('%(version_major_minor)s|%(version_minor_patch)s|%(version_major_minor_patch)s', '1.21|21.3|1.21.3'),
    ('100% %d %%(name)s %(name)', '100% %d %(name)s %(name)'),
    ('%%%(name)s %%%%(name)s %%%%%(x)d %%(nosuch)s', '%SAMtools %%(name)s %%%%%(x)d %(nosuch)s'),
])
def test_templates_are_easybuilds(text, expected):
    values = {'name': 'SAMtools', 'version': '1.21.3', 'versionsuffix': '-x'}
    assert templates.resolve(text, values) == expected


_THEIR_TEMPLATES = """
import json
from easybuild.framework.easyconfig.templates import template_constant_dict
from easybuild.tools.options import set_up_configuration
set_up_configuration(args=['--allow-use-as-root-and-accept-consequences'], silent=True)
print(json.dumps(template_constant_dict(%r)))
"""


def test_templates_give_what_easybuild_gives(tmp_path):
    values = {'name': 'SAMtools', 'version': '1.21.3', 'versionsuffix': '-x'}
    code = _THEIR_TEMPLATES % dict(values, toolchain=None, dependencies=[])
    # in a process of its own, as EasyBuild's configuration is one for the whole process
    done = subprocess.run([sys.executable, '-c', code], env=dict(os.environ, TMPDIR=str(tmp_path)),
                          stdout=subprocess.PIPE, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert templates.templates(values) == {key: theirs[key] for key in templates.templates(values)}


def test_an_unknown_template_is_an_error():
    with pytest.raises(EasySIFError) as raised:
        templates.resolve('jax:%(versoin)s', {'name': 'jax', 'version': '24'})
    assert str(raised.value) == """\
'jax:%(versoin)s': has the unknown template '%(versoin)s'
  known  name, namelower, nameletter, nameletterlower, version, versionsuffix, version_major
hint: did you mean '%(version)s'?"""


def test_templates_that_easybuild_knows_later_are_known():
    documented = {name for names in (theirs.TEMPLATE_NAMES_EASYCONFIG, theirs.TEMPLATE_NAMES_CONFIG,
                                     theirs.TEMPLATE_NAMES_EASYBLOCK_RUN_STEP, theirs.TEMPLATE_NAMES_DYNAMIC,
                                     theirs.ALTERNATIVE_EASYCONFIG_TEMPLATES) for name in names}
    documented |= {prefix + kind for prefix in theirs.TEMPLATE_SOFTWARE_VERSIONS.values()
                   for kind in ('ver', 'majver', 'minver', 'shortver')}
    values = {'name': 'x', 'version': '1.2.3'}
    for name in documented:
        templates.resolved(['%%(%s)s' % name], values, later=True)
    with pytest.raises(templates.Unknown):
        templates.resolved(['%(nosuch)s'], values, later=True)


@pytest.mark.parametrize('change, expected', [
    ({'of NumPy': 'of %(NumPy)s'}, ":8: description has the unknown template '%(NumPy)s'"),
    ({'import jax': 'import %(nme)s'}, ":17: sanity_check_commands has the unknown template '%(nme)s'"),
    ({"moduleclass = 'ai'": "modextravars = {'A': {'value': '%(nosuch)s'}}"},
     ":19: modextravars has the unknown template '%(nosuch)s'"),
    ({"'python', 'pip'": "'%(py)s'"}, ":15: commands has the unknown template '%(py)s'"),
])
def test_a_template_that_nobody_knows_is_an_error_wherever_it_stands(write, change, expected):
    assert message(write(change)).startswith(WHERE + expected + '\n  known  name, namelower, ')


def test_templates_in_the_keys_of_a_mapping_are_resolved_too(write):
    path = write({"['python', 'pip']": "{'%(name)s-run': 'python'}"})
    assert recipe.load(path).commands == {'jax-run': ('python',)}


def test_a_long_version_is_not_multiplied(write):
    path = write({"'24.10'": "'%s'" % ('9' * 10 ** 6), 'jax:%(version)s': 'jax:' + '%(version)s' * 10 ** 5})
    assert message(path).startswith(WHERE + ':4: version must have 64 characters at the most, not 1000000\n'
                                    'error: %s:12: image must have 4096 bytes at the most, not 25600' % WHERE)


def test_templates_of_the_installation_stay_in_easybuilds_parameters(write):
    found = recipe.load(write({'python -c "import jax"': 'test -d %(installdir)s/%(name)s'}))
    assert found.sanity_check_commands == ('test -d %(installdir)s/jax',)


WHERE = 'jax-24.10-singularity.eb'


@pytest.mark.parametrize('change, expected', [
    ({"['nvidia-gpu']": "'nvidia-gpu'"},
     ":13: needs must be a list of words, not the text 'nvidia-gpu'\nhint: write needs = ['nvidia-gpu']"),
    ({"['nvidia-gpu']": "None"},
     ":13: needs must be a list of words, not nothing\nhint: write needs = ['nvidia-gpu']"),
    ({"['python', 'pip']": "''"},
     ":15: commands must be a list of commands, or {name: command inside}, not the text ''\n"
     "hint: write commands = ['']"),
    ({"['nvidia-gpu']": "['nvidia-gpu', 3]"},
     ":13: needs[1] must be a word of small letters, digits and -, not the number 3\nhint: put it in quotes"),
    ({"['nvidia-gpu']": "['Nvidia GPU']"},
     ":13: needs[0] must be a word of small letters, digits and -, not the text 'Nvidia GPU'"),
    ({"['nvidia-gpu']": "['amd-gpu', 'amd-gpu']"},
     ":13: needs names 'amd-gpu' twice\nhint: write needs = ['nvidia-gpu']"),
    ({"needs =": "need ="}, ":13: unknown key 'need'\nhint: did you mean 'needs'?"),
    ({"needs =": "xyzzy ="},
     ":13: unknown key 'xyzzy'\n"
     "  ours  image, digest, image_mode, verify, build_args, needs, python_env, conda_env, commands, python_packages, "
     "container_env, binds, provides, runscripts"),
    ({"needs = ['nvidia-gpu']": "python_packages = ['--index-url=http://x', 'flax 0.8']"},
     ":13: python_packages[0] must be a requirement of pip, name==version, not the text '--index-url=http://x'\n"
     "error: jax-24.10-singularity.eb:13: python_packages[1] must be a requirement of pip, name==version, not the text "
     "'flax 0.8'"),
    ({"needs = ['nvidia-gpu']": "provides = ['jax 1']"},
     ":13: provides[0] must be name or name/version of a Python package, not the text 'jax 1'"),
    ({"'24.10'": "24.10"},
     ":4: version must be text of letters, digits and . _ + -, not the number 24.1\nhint: put it in quotes"),
    ({"'-singularity'": "'-x\\n'"},
     ":5: versionsuffix must be text of letters, digits and . _ + -, not the text '-x\\n'\n"
     "hint: write versionsuffix = '-singularity'"),
    ({"'24.10'": "'../24'"}, ":4: version must be text of letters, digits and . _ + -, not the text '../24'"),
    ({"toolchain = SYSTEM": "toolchain = 'system'"}, ":10: toolchain must be SYSTEM, not the text 'system'"),
    ({"SYSTEM": "{'name': 'foss', 'version': '2024a'}"},
     ":10: toolchain.name must be system, as in toolchain = SYSTEM, not the text 'foss'"),
    ({"toolchain = SYSTEM": "versionprefix = 'x'"},
     ": toolchain is missing\n"
     "error: jax-24.10-singularity.eb:10: versionprefix must be left empty (a container module is called version and"
     " versionsuffix), not the text 'x'"),
    ({"'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'": "''"},
     ": image is missing\nhint: write image = 'docker://nvcr.io/nvidia/jax:24.10-maxtext-py3'"),
    ({"'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'": "'jax'"},
     ":12: image must be a reference (docker://, oras://, library://, https://), a .sif or .def file, or an archive, "
     "not the text 'jax'\n"
     "hint: write image = 'docker://nvcr.io/nvidia/jax:24.10-maxtext-py3'"),
    ({"%(version)s-maxtext": "%(vers)s"}, """:12: image has the unknown template '%(vers)s'
  known  name, namelower, nameletter, nameletterlower, version, versionsuffix, version_major, version_minor, \
version_major_minor
hint: did you mean '%(version)s'?"""),
    ({"'jax'\ncommands": "'../jax'\ncommands"},
     ":14: python_env must be a name of letters, digits and . _ + -, not the text "
     "'../jax'\nhint: write python_env = 'jax'"),
    ({"'jax'\ncommands": "'-jax'\ncommands"},
     ":14: python_env must be a name of letters, digits and . _ + -, not the text "
     "'-jax'\nhint: write python_env = 'jax'"),
    ({"python_env = 'jax'": "conda_env = '.x'"}, ":14: conda_env must be the name of a conda environment, of letters, "
     "digits and . _ + -, not the text '.x'\nhint: write conda_env = 'jax'"),
    ({"['python', 'pip']": "'python'"},
     ":15: commands must be a list of commands, or {name: command inside}, not the text 'python'\n"
     "hint: write commands = ['python']"),
    ({"['python', 'pip']": "['bin/python']"},
     ":15: commands[0] must be the name of a command without a path, not 'bin/python'"),
    ({"['python', 'pip']": "['']"}, ":15: commands[0] must be the name of a command without a path, not ''"),
    ({"['python', 'pip']": "['-x']"}, ":15: commands[0] must be the name of a command without a path, not '-x'"),
    ({"['python', 'pip']": "['a\\nb']"},
     ":15: commands[0] must be one line without control characters, not 'a\\nb'"),
    ({"['python', 'pip']": "{'a/b': 'python'}"},
     ":15: a key of commands must be the name of a command without a path, not 'a/b'"),
    ({"['python', 'pip']": "{'python': None}"},
     ":15: commands.python must be a command inside the image, not nothing"),
    ({"['python', 'pip']": "{'python': ' '}"},
     ":15: commands.python must be a command inside the image, not ' '"),
    ({"['python', 'pip']": "{'python': 'python \"'}"},
     ":15: commands.python must be a command inside the image, not \"python \"\" (no closing quotation)"),
    ({"['python', 'pip']": "['a]==b']"},
     ":15: commands[0] must not hold ']==', which EasyBuild's modules cannot carry: 'a]==b'"),
    ({"['python', 'pip']": "['%%(name)s']"},
     ":15: commands[0] must not hold '%(', which EasyBuild's modules cannot carry: '%(name)s'"),
    ({"['python', 'pip']": "['%s']" % ('ü' * 128)}, ":15: commands[0] must have 255 bytes at the most, not 256"),
    ({"['python', 'pip']": "['make-squashfs']"},
     ":15: commands[0] must not be 'make-squashfs', which every module has of its own"),
    ({"['python -c \"import jax\"']": "'pip list'"},
     ":17: sanity_check_commands must be a list of commands, not the text 'pip list'\n"
     "hint: write sanity_check_commands = ['pip list']"),
    ({"https://docs.jax.dev": "jax"}, ":7: homepage must be a web address, not the text 'jax'"),
    ({"https://docs.jax.dev": "https://a b"}, ":7: homepage must be a web address, not the text 'https://a b'"),
    ({"https://docs.jax.dev": "https://a]=="},
     ":7: homepage must not hold ']==', which EasyBuild's modules cannot carry: 'https://a]=='"),
    ({"of NumPy": "]==] of"}, ":8: description must not hold ']==', which EasyBuild's modules cannot carry: "
     "'Composable transformations ]==] of programs'"),
    ({"of NumPy": "[==["}, ":8: description must not hold '[==[', which EasyBuild's modules cannot carry: "
     "'Composable transformations [==[ programs'"),
    ({"of NumPy": "\\x1b[31m"}, ":8: description must be without control characters, not "
     "'Composable transformations \\x1b[31m programs'"),
    ({"of NumPy": "x" * 16384}, ":8: description must have 16384 bytes at the most, not 16420"),
    ({"'ContainerImage'": "'../Image'"}, ":1: easyblock must be the name of an easyblock, not the text '../Image'\n"
     "hint: write easyblock = 'ContainerImage'"),
    ({"SYSTEM": "{'name': 'system', 'version': '../..'}"},
     ":10: toolchain.version must be text of letters and digits, not the text '../..'"),
])
def test_what_does_not_fit_is_named_with_its_line(write, change, expected):
    assert message(write(change)) == WHERE + expected


@pytest.mark.parametrize('line, expected', [
    ("binds = '/opt'", "binds must be a list of absolute paths, source[:destination[:options]], not the text '/opt'\n"
     "hint: write binds = ['/opt']"),
    ("binds = ['/']", "binds[0] must be below '/', not the root directory itself ('/')"),
    ("binds = ['/a/..']", "binds[0] must be below '/', not the root directory itself ('/a/..')"),
    ("binds = ['/a://']", "binds[0] must be below '/', not the root directory itself ('//')"),
    ("binds = ['a']", "binds[0] must be an absolute path, not 'a'"),
    ("binds = ['/a:b']", "binds[0] must be an absolute path, not 'b'"),
    ("binds = ['/a,b']", "binds[0] must not hold ',', which separates the parts of a bind: '/a,b'"),
    ("binds = ['/a:/b:ro:x']", "binds[0] must be source[:destination[:options]], not '/a:/b:ro:x'"),
    ("binds = ['/a:']", "binds[0] must be source[:destination[:options]], not '/a:'"),
    ("binds = ['/a\\nb']", "binds[0] must be one line without control characters, not '/a\\nb'"),
    ("binds = ['/a\\ud800']", "binds[0] must be one line without control characters, not '/a\\ud800'"),
    ("dependencies = [('Python', '%s')]", "dependencies[0][1] must be text in which % is doubled or begins a template "
     "such as %(version)s, not the text '%s'"),
    ("binds = [5]",
     "binds[0] must be a path, source[:destination[:options]], not the number 5\nhint: put it in quotes"),
    ("container_env = ['A=1']", "container_env must be a mapping of variables to texts, not the list ['A=1']\n"
     "hint: write container_env = {'OMP_NUM_THREADS': '1'}"),
    ("container_env = {'A-B': '1'}", "a key of container_env must be the name of a variable, not the text 'A-B'"),
    ("container_env = {1: '1'}", "a key of container_env must be the name of a variable, not the number 1\n"
     "hint: put it in quotes"),
    ("container_env = {'A': 1}", "container_env.A must be text, not the number 1\nhint: put it in quotes"),
    ("container_env = {'A': 'x\\ny'}", "container_env.A must be one line without control characters, not 'x\\ny'"),
    ("container_env = {'A': '%s'}" % ('x' * 5000), 'container_env.A must have 4096 bytes at the most, not 5000'),
    ("modextravars = {'X': 'a\\\\nb'}",
     "modextravars.X must not hold '\\', which EasyBuild's modules cannot carry: 'a\\nb'"),
    ("modextravars = {'X': 'a\\nb'}", "modextravars.X must be one line without control characters, not 'a\\nb'"),
    ("modextravars = {'X': {'value': 'os.getenv(\"HOME\")'}}", "modextravars.X.value must not hold 'os.getenv(\"', "
     "which EasyBuild's modules cannot carry: 'os.getenv(\"HOME\")'"),
    ("modextravars = {'X': 'a .. b'}",
     "modextravars.X must not hold ' .. ', which EasyBuild's modules cannot carry: 'a .. b'"),
    ("modextravars = {'X': './a'}",
     "modextravars.X must not begin or end in a blank or a full stop, which EasyBuild takes away: './a'"),
    ("modextravars = {'X': 'it\\'s \"x\"'}", "modextravars.X must not have quotes of both kinds, which EasyBuild's "
     "modules cannot carry: it's \"x\""),
    ("modextravars = {'X\", \"1\") f(\"': '1'}",
     "a key of modextravars must be the name of a variable, not the text 'X\", \"1\") f(\"'"),
    ("modextravars = {'X'}", "modextravars must be a mapping of variables to texts, not the value {'X'}\n"
     "hint: write modextravars = {'JAX_ENABLE_X64': '1'}"),
    ("modextravars = {'X': {'pushenv': True}}", "modextravars.X.value is missing"),
    ("modextrapaths = {'X': {'paths': ['a\\\\'], 'delimiter': '\"'}}",
     "modextrapaths.X.paths[0] must not hold '\\', which EasyBuild's modules cannot carry: 'a\\'\n"
     "error: jax-24.10-singularity.eb:20: modextrapaths.X.delimiter must be one character, not the text '\"'"),
    ("modextrapaths = {'X': ['a', 'b\\\\']}",
     "modextrapaths.X[1] must not hold '\\', which EasyBuild's modules cannot carry: 'b\\'"),
    ("modaliases = {'a b': 'x'}", "a key of modaliases must be the name of a command, not the text 'a b'"),
    ("modaltsoftname = '../x'", "modaltsoftname must be text of letters, digits and . _ + -, not the text '../x'"),
    ("moddependpaths = 'a\\\\'", "moddependpaths must not hold '\\', which EasyBuild's modules cannot carry: 'a\\'"),
    ("group = ('x', 'no \"entry\"')", "group[1] must be text without quotes, not the text 'no \"entry\"'"),
    ("usage = ']==]'", "usage must not hold ']==', which EasyBuild's modules cannot carry: ']==]'"),
    ("whatis = ['x', ']==]']", "whatis[1] must not hold ']==', which EasyBuild's modules cannot carry: ']==]'"),
    ("site_contacts = 'x\\x00'", "site_contacts must be without control characters, not 'x\\x00'"),
    ("digest = 'sha256:1'", "digest must be sha256: and 64 hexadecimal digits, not the text 'sha256:1'"),
    ("digest = b'1'", "digest must be sha256: and 64 hexadecimal digits, not the value b'1'"),
])
def test_what_does_not_fit_in_further_parameters(write, line, expected):
    assert message(write(more=line + '\n')) == '%s:20: %s' % (WHERE, expected)


@pytest.mark.parametrize('change, expected', [
    ({"'jax'\ncommands": "f'jax'\ncommands"}, ":14: python_env must be written out, not computed by an f-string\n"
     "hint: templates such as '%(version)s' are allowed in texts"),
    ({"%(version)s-maxtext-py3'": "%s' % version"}, ":12: image must be written out, not computed by an operator\n"
     "hint: templates such as '%(version)s' are allowed in texts"),
    ({"['nvidia-gpu']": "list('x')"}, ":13: needs must be written out, not computed by a call\n"
     "hint: templates such as '%(version)s' are allowed in texts"),
    ({"['nvidia-gpu']": "[x for x in 'ab']"},
     ":13: needs must be written out, not computed by Python code (ListComp)\n"
     "hint: templates such as '%(version)s' are allowed in texts"),
    ({"['nvidia-gpu']": "[gpu]"}, ":13: needs uses the name 'gpu', which is no constant\n"
     "hint: write 'gpu' in quotes if it is a text"),
    ({"SYSTEM": "SYSTM"}, ":10: toolchain uses the name 'SYSTM', which is no constant\nhint: did you mean SYSTEM?"),
    ({"['nvidia-gpu']": "{[]: 1}"}, ":13: needs has a key that is the list []\nhint: use a text as key"),
    ({"needs = ['nvidia-gpu']": "local_x = 'x'"}, ":13: a recipe has no variables of its own, such as 'local_x'\n"
     "hint: write its value where it is used"),
    ({"needs = ['nvidia-gpu']": "import os"}, ":13: a recipe is data: an import does not belong into it\n"
     "hint: write only lines of the form key = value"),
    ({"needs = ['nvidia-gpu']": "needs += ['x']"},
     ":13: a recipe is data: an assignment with an operator does not belong into it\n"
     "hint: write only lines of the form key = value"),
    ({"needs = ['nvidia-gpu']": "needs = binds = []"},
     ":13: a recipe is data: an assignment to several names does not belong into it\n"
     "hint: write only lines of the form key = value"),
    ({"needs = ['nvidia-gpu']": "name = 'JAX'"},
     ":13: name is set twice, first in line 3"),
    ({"needs = ['nvidia-gpu']": "usage = '''\n  easyblock = \"x\"\n'''"},
     ":14: EasyBuild takes this line of a text or a list for the parameter easyblock\n"
     "hint: begin the line with something else"),
    ({"needs = ['nvidia-gpu']": "usage = '''\n[DEFAULT]\n'''"},
     ":14: EasyBuild takes this line of a text or a list for a section\nhint: begin the line with something else"),
    ({"'24.10'": "{'x': [-0x%s]}" % ('f' * 5000)},
     ":4: version has a number of more than 256 bits\nhint: put it in quotes if it is a text"),
])
def test_a_recipe_is_data(write, change, expected):
    assert message(write(change)) == WHERE + expected


@pytest.mark.parametrize('change', [
    {"needs = ['nvidia-gpu']": "needs = ["}, {"'nvidia-gpu'": "'nvidia\\-gpu'"}, {"'nvidia-gpu'": "'nvidia\0gpu'"},
])
def test_what_python_cannot_read_is_an_error_in_its_words(write, change):
    assert re.match(re.escape(WHERE) + r'(:\d+)?: not a valid recipe: \S', message(write(change)))


def test_a_recipe_that_nests_without_end_is_an_error(write):
    assert re.match(re.escape(WHERE) + r'(:1|:20)?: not a valid recipe: ', message(write(more='x = ' + '-' * 99999)))


@pytest.mark.parametrize('value', ['[%s]' % ', '.join(["'x', 1"] * 50000), "'%s'" % ('x' * 10 ** 6)])
@pytest.mark.parametrize('key', ['needs', 'nosuch'])
def test_what_is_very_large_is_told_at_once_and_in_few_words(write, key, value):
    text = message(write({"needs = ['nvidia-gpu']": '%s = %s' % (key, value)}))
    assert text.startswith('%s:13: ' % WHERE) and key in text and len(text) < 20000


def test_a_recipe_without_end_is_an_error(tmp_path):
    path = tmp_path / 'x.eb'
    path.symlink_to('/dev/zero')
    assert message(str(path)) == 'x.eb: is no recipe: it is larger than 4194304 bytes'
    path.unlink()
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)  # who may write something one day
    assert message(str(path)) == 'x.eb: is no recipe: it is a named pipe'
    os.close(writer)


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    path = tmp_path / 'x.eb'
    path.write_bytes(b"name = '\xff'\n")
    assert message(str(path)).startswith("x.eb: not a valid recipe: 'utf-8' codec can't decode")


def test_a_recipe_that_is_not_there_is_an_error(tmp_path):
    assert message(str(tmp_path / 'x.eb')) == '%s/x.eb: cannot be read (No such file or directory)' % tmp_path


def test_only_a_definition_file_has_build_arguments(write):
    path = write({'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3': 'jax.def'},
                 more="build_args = {'cuda': '%(version)s'}\n")
    assert recipe.load(path).build_args == {'cuda': '24.10'}
    assert message(write({}, more="build_args = {'cuda': '12'}\n")) == WHERE + (
        ":20: build_args go with a definition file only\nhint: write image = 'NAME.def'")


def test_a_definition_file_has_no_digest(write):
    path = write({'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3': 'jax.def'},
                 more="digest = 'sha256:%s'\n" % ('0' * 64))
    assert message(path) == WHERE + (
        ':20: digest does not go with a definition file, whose images differ from build to build\n'
        'hint: remove digest; the sha256 of jax.def belongs into checksums')


def test_all_problems_are_told_in_the_order_of_lines(write):
    path = write({"['nvidia-gpu']": "'nvidia-gpu'", "'24.10'": "24.10"}, more="comands = []\ncontainer_env = 3\n")
    assert re.findall(r'eb:(\d+): (\w+)', message(path)) == [
        ('4', 'version'), ('13', 'needs'), ('20', 'unknown'), ('21', 'container_env')]


def test_the_schema_knows_every_word_of_easybuild():
    assert set(DEFAULT_CONFIG) <= set(schema.load('recipe')['properties'])


def test_constants_are_easybuilds():
    assert recipe.CONSTANTS == {name: EASYCONFIG_CONSTANTS[name][0] for name in recipe.CONSTANTS}


@pytest.mark.parametrize('name', ['recipe', 'site'])
def test_every_rule_of_a_schema_says_in_words_what_it_wants(name):
    def rules(node, place):
        if isinstance(node, dict):
            if place and place[-1] not in ('properties', 'if', 'then', '$defs') and '$ref' not in node:
                yield place, node
            for key, item in node.items():
                if key != 'examples':
                    yield from rules(item, place + (key,))
    assert [place for place, node in rules(schema.load(name), ()) if 'description' not in node] == []
