# SPDX-License-Identifier: GPL-2.0-only
"""The rules for recipes of this repository: each message, and that all of them come at once."""

import time

import pytest

from easysif import check, real_test, rules, site
from easysif.errors import EasySIFError

GOOD = """\
easyblock = 'ContainerImage'

name = 'jax'
version = '24.10'
versionsuffix = '-singularity'

homepage = 'https://docs.jax.dev'
description = "Composable transformations of NumPy programs"

toolchain = SYSTEM

image = 'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example
needs = ['nvidia-gpu']
python_env = 'jax'
commands = ['python', 'pip']

sanity_check_commands = ['python -c "import jax; assert jax.numpy.ones(3).sum() == 3"']

moduleclass = 'ai'
"""
PATH = 'easyconfigs/j/jax/jax-24.10-singularity.eb'
#: its test, and what is told of one that does no work
TEST = repr(['python -c "import jax; assert jax.numpy.ones(3).sum() == 3"'])
WRITE = 'hint: write what it is for, and compare: sanity_check_commands = [\'%s\']'
WRITE_PYTHON = WRITE % 'python -c "import jax; assert … == …"'
#: what one or more of the sites that are shipped provide
PROVIDED = ', '.join(sorted({need for path in site.shipped().values() for need in site.read(path).get('provides', {})}))

ORDER = ('hint: the order is: easyblock, name, version, versionsuffix, homepage, description, toolchain, image, '
         'digest, image_mode, verify, build_args, needs, python_env, conda_env, commands, python_packages, '
         'container_env, binds, provides, runscripts, sanity_check_commands, moduleclass')


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Work in an empty directory, and write a recipe there: GOOD with some of its lines changed."""
    monkeypatch.chdir(tmp_path)

    def write(change=None, path=PATH):
        text = GOOD
        for old, new in (change or {}).items():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return path
    return write


def told(*paths):
    """Return what check says of recipes, as the command prints it."""
    return '\n'.join('%s: %s' % (finding.rule, finding.error) for finding in check.check(paths))


def test_a_good_recipe_has_no_problem(tree):
    assert told(tree()) == ''


def test_the_recipes_that_we_ship_have_no_problem():
    assert told(*check.find()) == ''


@pytest.mark.parametrize('change, expected', [
    ({"['nvidia-gpu']": "'nvidia-gpu'"}, "valid: jax-24.10-singularity.eb:13: needs must be a list of words, "
     "not the text 'nvidia-gpu'\nhint: write needs = ['nvidia-gpu']"),
    ({"'jax'\nversion": "f'jax'\nversion"}, "data_only: jax-24.10-singularity.eb:3: name must be written out, not "
     "computed by an f-string\nhint: templates such as '%(version)s' are allowed in texts"),
    ({"easyblock = 'ContainerImage'\n": ""}, "names_its_easyblock: jax-24.10-singularity.eb: easyblock is missing\n"
     "hint: write easyblock = 'ContainerImage'"),
    ({"python_env = 'jax'\n": "", "needs =": "python_env = 'jax'\nneeds ="},
     "in_order: jax-24.10-singularity.eb:14: needs stands after python_env, but belongs before it\n" + ORDER),
    ({"moduleclass = 'ai'\n": "\n".join("# %d" % at for at in range(15))},
     "short: jax-24.10-singularity.eb: has 27 lines, and 25 are allowed, blank ones not counted\n"
     "hint: fill the lines of lists up to 120 columns, and let comments say only why"),
    ({"sanity_check_commands = %s\n" % TEST: ""},
     "tested: jax-24.10-singularity.eb: sanity_check_commands is missing\n" + WRITE_PYTHON),
    ({TEST: "'python a.py'"},
     "valid: jax-24.10-singularity.eb:17: sanity_check_commands must be a list of commands, "
     "not the text 'python a.py'\nhint: write sanity_check_commands = ['python a.py']"),
    ({"programs\"": "programs.\""},
     "described: jax-24.10-singularity.eb:8: description must not end with a full stop\n"
     "hint: write description = 'Composable transformations of NumPy programs'"),
    ({"\"Composable": "\"A the library of composable"},
     "described: jax-24.10-singularity.eb:8: description must not start with the article 'A'\n"
     "hint: write description = 'Library of composable transformations of NumPy programs'"),
    ({"Composable": "An\\nexample. Composable", "programs\"": "programs.\""},
     "described: jax-24.10-singularity.eb:8: description must be one line, and must not end with a full stop, and "
     "must not start with the article 'An'\n"
     "hint: write description = 'Example. Composable transformations of NumPy programs'"),
    ({"Composable transformations of NumPy programs": "the JAX."},
     'described: jax-24.10-singularity.eb:8: description says no more than the name\n'
     'hint: write description = "…": what jax does, in a few words'),
    ({"https://docs.jax.dev": "https://www.example.org/jax"},
     "has_a_homepage: jax-24.10-singularity.eb:7: homepage is only an example\n"
     "hint: write homepage = 'https://…': where users read about jax"),
    ({"docker://nvcr.io/nvidia/jax": "docker://nvcr.io/NVIDIA/jax"},
     "image_is_understood: jax-24.10-singularity.eb:12: image 'docker://nvcr.io/NVIDIA/jax:24.10-maxtext-py3' is not a "
     "docker reference\n  reason  the name must be in lower case\n"
     "hint: write it as docker pull takes it: image = 'docker://HOST/NAME:TAG'"),
    ({"docker://nvcr.io": "docker://me:s3cret@nvcr.io"},
     "valid: jax-24.10-singularity.eb:12: image holds a login, which a recipe must not\n"
     "  host  nvcr.io\nhint: apptainer registry login --username NAME docker://nvcr.io"),
    ({"'ContainerImage'": "'ContainerBindings'", "needs = ['nvidia-gpu']\npython_env = 'jax'\n": "",
      "image = 'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example\n": "",
      "commands = ['python', 'pip']\n": ""},
     "gives_something: jax-24.10-singularity.eb: gives nothing to the images of its users\n"
     "hint: write what they need of the host: needs = ['mpi']"),
    ({"['nvidia-gpu']": "['nvidia-gpus']"}, "needs_are_provided: jax-24.10-singularity.eb:13: needs 'nvidia-gpus', "
     "which no site provides (%s)\nhint: did you mean 'nvidia-gpu'?" % PROVIDED),
    ({"docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3": "%(name)s.def"},
     "definition_is_there: jax-24.10-singularity.eb:12: definition file 'jax.def' is not beside the recipe\n"
     "hint: git add easyconfigs/j/jax/jax.def"),
])
def test_a_rule_that_is_broken_is_told_once(tree, change, expected):
    assert told(tree(change)) == expected
    assert '\nhint: ' in expected


def test_every_rule_has_a_recipe_here_that_breaks_it():
    with open(__file__) as handle:
        text = handle.read()
    assert len(rules.RULES) > 10
    assert [one.__name__ for one in rules.RULES if '%s: ' % one.__name__ not in text or not one.__doc__] == []


@pytest.mark.parametrize('change, good', [
    ({'  # not pinned: an example': ''}, False),
    ({'# not pinned: an example': '# not pinned:'}, False),
    ({'  # not pinned: an example': '', '%(version)s-maxtext-py3': '1@sha256:' + '0' * 64}, True),
    ({'  # not pinned: an example': "\ndigest = 'sha256:%s'" % ('0' * 64)}, True),
    ({"docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example":
      "x.sif'\nchecksums = ['%s']" % ('0' * 64)}, True),
    *[({"docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example":
        "x.sif'\nchecksums = ['%s']\n%s = ['x']" % ('0' * 64, others)}, False) for others in ('sources', 'patches')],
    ({"docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example":
      "x.sif'\nchecksums = [None]"}, False),
])
def test_an_image_is_pinned_or_it_is_said_why_not(tree, change, good):
    pinned = 'pinned: jax-24.10-singularity.eb:12: names no digest, so its image may change\n' \
             'hint: easysif pin %s, or say why not: # not pinned: REASON' % PATH
    assert told(tree(change)) == ('' if good else pinned)
    assert told(tree(change, 'jax-24.10-singularity.eb')) == ''  # being written: noted only


def test_a_command_that_every_script_relies_on_is_not_shadowed(tree):
    assert told(tree({"['python', 'pip']": "['python', 'srun']"})) == (
        "shadows_nothing: jax-24.10-singularity.eb:15: commands has 'srun', which would hide that of the host\n"
        "hint: give it a name of its own: commands = {'jax-srun': 'srun'}")


def test_commands_of_tool_modules_are_unique(tree):
    tool = {"python_env = 'jax'\n": '', "['python', 'pip']": "['view', 'sort-it']"}
    one = tree(tool)
    newer = tree(dict(tool, **{"'24.10'": "'24.11'"}), 'easyconfigs/j/jax/jax-24.11-singularity.eb')
    other = tree(dict(tool, **{"name = 'jax'": "name = 'yax'"}), 'easyconfigs/y/yax/yax-24.10-singularity.eb')
    environment = tree({"['python', 'pip']": "['view']", "name = 'jax'": "name = 'zax'"},
                       'easyconfigs/z/zax/zax-24.10-singularity.eb')
    assert told(one, newer, environment) == ''
    assert told(one, newer, other, environment) == '\n'.join(
        "commands_are_unique: yax-24.10-singularity.eb:14: commands has '%s', which is also that of "
        "jax-24.10-singularity.eb\nhint: give one of them a name of its own: commands = {'yax-%s': '%s'}"
        % (name, name, name) for name in ('view', 'sort-it'))


def test_a_need_unlike_any_other_goes_into_a_site_file(tree):
    path = tree({"['nvidia-gpu']": "['tape']"})
    assert told(path).splitlines()[0].endswith(
        ":13: needs 'tape', which no site provides (%s)" % PROVIDED)
    assert told(path).splitlines()[1].startswith('hint: a new feature goes into a file in ')


@pytest.mark.parametrize('path, what, target', [
    ('easyconfigs/j/jax/jax-24.9.eb', 'file name', 'easyconfigs/j/jax/jax-24.10-singularity.eb'),
    ('easyconfigs/j/JAX/jax-24.10-singularity.eb', 'directory', 'easyconfigs/j/jax/jax-24.10-singularity.eb'),
    ('easyconfigs/jax-24.10.eb', 'file name', 'easyconfigs/j/jax/jax-24.10-singularity.eb'),
    ('elsewhere/jax-24.9.eb', 'file name', 'elsewhere/jax-24.10-singularity.eb'),
    ("jax 24.10.eb", 'file name', 'jax-24.10-singularity.eb'),
])
def test_the_path_is_the_identity(tree, path, what, target):
    quoted = "'%s'" % path if ' ' in path else path
    assert told(tree(path=path)) == (
        'path_is_identity: %s: %s does not match its content (jax-24.10-singularity)\nhint: git mv %s %s'
        % (path.split('/')[-1], what, quoted, target))


def test_a_path_from_elsewhere_is_as_good(tree, tmp_path):
    tree()
    assert told(str(tmp_path / PATH), './' + PATH) == ''
    wrong = tmp_path / tree(path='easyconfigs/x/jax-24.10-singularity.eb')
    assert told(str(wrong)).endswith('hint: git mv %s %s' % (wrong, tmp_path / PATH))


VERSION, STARTS, LOOKS = 'only asks for version or help', 'only starts samtools', 'only looks whether it is there'
NOTHING, IMPORTS, TEXT = 'runs nothing of the software', 'only imports', 'only handles text and files'
NO_IMPORT, ASKS = 'imports nothing of the software', 'only asks what is there'


@pytest.mark.parametrize('command, short', [
    ('samtools --version', VERSION), ('samtools --help', VERSION), ('samtools -h', VERSION), ('samtools -?', VERSION),
    ('samtools view --help', VERSION), ('samtools version', VERSION), ('LC_ALL=C samtools --version', VERSION),
    ('samtools --version | grep 1.21', VERSION), ('samtools --version 2>&1 > x && (bcftools -h)', VERSION),
    ('samtools list', VERSION), ('python -m jax --help', VERSION), ('mpirun -n 2 samtools --version', VERSION),
    ("sh -c 'samtools --version'", VERSION), ('x=`samtools --version`', VERSION),
    ('samtools', STARTS), ('samtools >out 2>&1', STARTS), ('samtools | head', STARTS), ('! samtools', STARTS),
    ('timeout 60 samtools </dev/null >/dev/null 2>&1; test $? -lt 126', STARTS), ('env A=1 samtools', STARTS),
    ('python', 'only starts python'), ('echo samtools view | sh', 'only starts sh'),
    ('which samtools', LOOKS), ('command -v samtools', LOOKS), ('test -x /usr/bin/samtools', LOOKS),
    ('[ -e "$EBROOTJAX" ]', LOOKS), ('ls -l /opt', LOOKS), ('test "$(samtools --version)" = 1', LOOKS),
    ('true', NOTHING), ('echo ok', NOTHING), ('start-shell -c :', NOTHING), ('exit 0', NOTHING), ('A=1', NOTHING),
    ('printf "a\\n" >a; grep a a', NOTHING), ('for i in 1 2; do echo $i; done', NOTHING),
    ('cat /etc/os-release | wc -l', TEXT), ('pip list | grep jax', ASKS), ('nvidia-smi', ASKS),
    ('python -c "import jax"', IMPORTS), ('python3.12 -Ic "from jax import numpy"', IMPORTS),
    ('python -c "import jax; print(jax.__version__)"', IMPORTS), ('python -c "import jax" && echo ok', IMPORTS),
    ('python -c "import jax; assert jax.__version__.startswith(\'0.4\')"', IMPORTS),
    ('python -c "import importlib as i; i.import_module(\'jax\')"', IMPORTS),
    ('python -c "import torch; print(\'GPU: %s\' % torch.cuda.is_available())"', IMPORTS),
    ("Rscript -e 'library(DESeq2); print(\"ok\")'", IMPORTS), ("perl -e 'use Bio::Seq'", IMPORTS),
    ('python -c 1', NO_IMPORT), ('python -c "print(6 * 7)"', NO_IMPORT), ('', 'is no command'), (';;', NOTHING),
    ('samtools view -h x.sam', None), ('printf "@SQ" | samtools view -c - | grep -x 0', None),
    ('samtools <x.sam', None),
    ('samtools --version; samtools sort x.bam', None), ('samtools --version\nsamtools sort x.bam', None),
    ('samtools <<END\nx\nEND', None), ('printf x | samtools', None), ('diff <(samtools sort a) b', None),
    ('test "$(samtools view -c x.bam)" = 4', None), ('test `samtools view -c x.bam` = 4', None),
    ('timeout 60 samtools sort x.bam', None), ('for i in a b; do samtools sort $i; done', None),
    ('python -c "import jax; assert jax.grad(lambda x: x ** 3)(2.0) == 12"', None), ('python a.py', None),
    ('python -c "import numpy as n; a = n.e + 1"', None), ('python -m pytest -c a.ini', None),
    ('python a.py -c b', None),
    ('test "$(python -c "import jax; print(jax.grad(f)(2))")" = 4', None), ('sh test.sh', None),
    ("start-shell -lc 'cc a.c && ./a.out'", None), ('mpirun -np 2 ring', None),
    ("Rscript -e 'library(DESeq2); stopifnot(sum(1:3) == 6)'", None),
    ("echo 'unbalanced", None), ('python -c "import ("', None),
    ('env -u DISPLAY samtools view x', None), ('env -i PATH=/bin samtools view x', None), ('env -i', NOTHING),
    ('conda run -n base samtools view x', None), ('conda list', ASKS), ('bc <(echo 6*7)', None),
    ('printf x | (samtools)', None), ('printf x |\n samtools', None), ('printf x; (samtools)', STARTS),
    ("R -q -e 'library(DESeq2)' -e 'stopifnot(sum(1:3) == 6)'", None),
    ("Rscript -e 'library(DESeq2)' -e 'print(\"ok\")'", IMPORTS),
])
def test_a_test_does_the_softwares_work(tree, command, short):
    assert real_test.shortcoming(command) == short


@pytest.mark.parametrize('form, sign', [('%s', '$('), ("python -c '%s1'", '-')])
def test_a_test_that_is_nested_too_deeply_is_no_surprise(form, sign):
    assert real_test.shortcoming(form % (sign * 5000)) is None


def test_a_recipe_has_one_test_at_least_that_does_work_or_says_why_not(tree):
    weak = repr(['jax --version', 'which jax', 'x' * 300 + ' -h'])
    lines = told(tree({TEST: weak})).splitlines()
    assert lines[0] == 'tested: jax-24.10-singularity.eb:17: sanity_check_commands does no work of the software'
    assert lines[1].startswith("  only asks for version or help   'jax --version', 'xxxxx")
    assert lines[2:] == ["  only looks whether it is there  'which jax'", WRITE_PYTHON]
    assert max(map(len, lines)) < 280
    assert told(tree({TEST: weak.replace(']', ", 'python a.py']")})) == ''
    assert told(tree({TEST: weak + '  # not tested: it needs a licence server'})) == ''
    assert told(tree({TEST: weak + '  # not tested:'})) != ''
    # what only looks like a comment, in a text of the recipe
    text = {'"Composable': '"""# not tested: x\n# not pinned: x\nComposable', 'programs"': 'programs"""'}
    assert 'sanity_check_commands does no work of the software' in told(tree({**text, TEST: weak}))
    assert 'names no digest' in told(tree({**text, '  # not pinned: an example': ''}))
    assert 'is missing' in told(tree({"sanity_check_commands = %s" % TEST: '# not tested: it needs a licence server'}))
    tool = {"python_env = 'jax'\n": '', TEST: "['jax']"}
    assert told(tree(tool)).endswith(WRITE % 'printf "…" | jax … | grep -x "…"')
    torch = {"name = 'jax'": "name = 'PyTorch'", TEST: "['true']"}
    assert (WRITE % 'python -c "import torch; assert … == …"') in told(tree(torch))


def test_a_recipe_without_an_image_does_its_work_by_variables(tree):
    bindings = {"'ContainerImage'": "'ContainerBindings'", "python_env = 'jax'\n": '',
                "commands = ['python', 'pip']\n": '',
                "image = 'docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3'  # not pinned: an example\n": ''}
    assert told(tree(dict(bindings, **{TEST: "['test -n \"$SINGULARITY_BIND\"']"}))) == ''
    assert told(tree(dict(bindings, **{TEST: "['true']"}))).endswith(WRITE % 'test -n "$APPTAINER_BINDPATH"')


def test_values_of_any_type_are_no_surprise_to_a_rule(tree):
    path = tree({TEST: "5", "['nvidia-gpu']": "{1: 2}", "'https://docs.jax.dev'": "[]",
                 "'jax'\nversion": "3\nversion", "'24.10'": "None",
                 "\"Composable transformations of NumPy programs\"": "7"})
    assert {finding.rule for finding in check.check([path])} == {'valid', 'tested'}


def test_a_definition_file_beside_the_recipe_is_found(tree, tmp_path):
    path = tree({"docker://nvcr.io/nvidia/jax:%(version)s-maxtext-py3": "%(name)s-%(version)s.def"})
    (tmp_path / 'easyconfigs/j/jax/jax-24.10.def').write_text('')
    assert told(path) == ''


def test_recipes_of_other_easyblocks_keep_the_rules_for_all(tree):
    assert told(tree({"'ContainerImage'": "'Tarball'", "commands = ['python', 'pip']": "unpack = True",
                      "sanity_check_commands": "# "})) == ''


def test_a_recipe_that_cannot_be_read_does_not_hide_the_others(tree, tmp_path):
    broken, wrong = tree({"name = 'jax'": "name = ("}, 'x.eb'), tree({"needs": "need"})
    latin = tmp_path / 'latin.eb'
    latin.write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n")
    rules = [finding.rule for finding in check.check([broken, str(latin), 'nowhere.eb', wrong])]
    assert rules == ['readable', 'readable', 'readable', 'valid']


def test_all_problems_of_all_recipes_are_told(tree):
    tree({"['nvidia-gpu']": "'gpu'", "'24.10'": "str(24.10)", "programs": "programs."})
    tree({TEST: "['jax -h']", "name = 'jax'": "name = 'yax'"}, 'easyconfigs/y/yax/yax-1.eb')
    assert [(finding.path.split('/')[-1], finding.rule) for finding in check.check(check.find(['easyconfigs']))] == [
        ('jax-24.10-singularity.eb', 'data_only'), ('jax-24.10-singularity.eb', 'valid'),
        ('jax-24.10-singularity.eb', 'described'),
        ('yax-1.eb', 'path_is_identity'), ('yax-1.eb', 'tested')]


def test_recipes_are_found_by_path_directory_and_name(tree, monkeypatch):
    path = tree()
    tree({}, 'easyconfigs/a/other.eb')
    monkeypatch.setattr(check, 'recipe_directory', lambda: 'easyconfigs')
    assert check.find() == ['easyconfigs/a/other.eb', path]
    assert check.find(['jax-24.10-singularity.eb', 'easyconfigs/j', path, 'jax-24.10-singularity', 'other']) == [
        path, 'easyconfigs/a/other.eb']


def test_a_recipe_that_is_not_there_is_an_error(tree, monkeypatch, tmp_path):
    tree()
    (tmp_path / 'empty dir').mkdir()
    monkeypatch.setattr(check, 'recipe_directory', lambda: 'easyconfigs')
    for name, expected in [
            ('jax-24.10', "jax-24.10: there is no such recipe\nhint: did you mean 'jax-24.10-singularity.eb'?"),
            ('q.eb', 'q.eb: there is no such recipe\nhint: ls -R easyconfigs'),
            ('empty dir', 'empty dir: there is no recipe (.eb) in this directory')]:
        with pytest.raises(EasySIFError) as raised:
            check.find([name])
        assert str(raised.value) == expected


def test_our_recipes_are_beside_the_library(monkeypatch, tmp_path):
    wheel, clone = tmp_path / 'wheel', tmp_path / 'clone'
    (wheel / 'easybuild' / 'easyconfigs').mkdir(parents=True)
    (clone / 'easyconfigs').mkdir(parents=True)
    monkeypatch.chdir('/')
    monkeypatch.setattr(check, 'DIRECTORY', str(wheel / 'easysif'))
    assert check.recipe_directory() == str(wheel / 'easybuild' / 'easyconfigs')
    monkeypatch.setattr(check, 'DIRECTORY', str(clone / 'tools' / 'easysif'))
    assert check.recipe_directory() == str(clone / 'easyconfigs')
    monkeypatch.chdir(clone)
    assert check.recipe_directory() == 'easyconfigs'
    monkeypatch.setattr(check, 'DIRECTORY', str(tmp_path / 'x' / 'easysif'))
    with pytest.raises(EasySIFError) as raised:
        check.recipe_directory()
    assert str(raised.value) == ('easyconfigs: there are no recipes beside %s/x/easysif\nhint: easysif check RECIPE.eb'
                                 % tmp_path)


def test_a_thousand_recipes_are_checked_in_seconds(tree):
    start = time.process_time()
    assert told(*[tree()] * 1000) == ''
    assert time.process_time() - start < 5
