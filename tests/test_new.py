# SPDX-License-Identifier: GPL-2.0-only
"""easysif new: what an image tells of a software becomes a recipe, and what it does not tell is said.

The images are directories, which real containers look into; one test goes all the way from a registry to a module.
"""

import json
import os
import shutil
import sysconfig
import tempfile
from types import SimpleNamespace

import pytest

import harness
import toys
from easysif import check
from easysif.authoring import software
from easysif.obtain import Obtained

pytestmark = pytest.mark.e2e
pytest_plugins = ['image_trees']

DIGEST = 'sha256:' + 'd' * 64
SAMTOOLS = ['new', 'SAMtools', '1.21', '--image', 'docker://quay.io/biocontainers/samtools:1.21--h50ea8bc_0']
TEST = ['--test', 'samtools view -c x.sam']
TO_DO = ('note: {0}: homepage: the image names none; write one, or give --homepage\n'
         'note: {0}: description: the image says nothing; write it, or give --description\n')


@pytest.fixture
def looked(image, monkeypatch):
    """Every image is the directory that the test fills; what is asked for is noted (list)."""
    asked = []

    def obtain(wanted, site, runtime, places):
        asked.append(wanted.image)
        return Obtained(str(image.path), origin={'digest': None if wanted.image.endswith(('def', 'sif')) else DIGEST})

    monkeypatch.setattr('easysif.authoring.new.obtain', obtain)
    monkeypatch.setattr('easysif.authoring.new.sha256_of', lambda path: 'e' * 64)
    return asked


def record(name, version, commands, licence='MIT', **more):
    """Return what conda notes of a package that it installs (dict), of which the half does not matter here."""
    files = ['bin/%s' % command for command in commands] + ['lib/lib%s.so' % name, 'share/man/man1/%s.1' % name]
    return dict({
        'build': 'h50ea8bc_0', 'build_number': 0, 'channel': 'https://conda.anaconda.org/bioconda/linux-64',
        'constrains': [], 'depends': ['libgcc-ng >=12', 'zlib'], 'extracted_package_dir': '/opt/conda/pkgs/' + name,
        'files': files, 'fn': '%s-%s-h50ea8bc_0.tar.bz2' % (name, version), 'license': licence,
        'link': {'source': '/opt/conda/pkgs/' + name, 'type': 1}, 'md5': '0' * 32, 'name': name,
        'paths_data': {'paths': [{'_path': path, 'path_type': 'hardlink', 'size_in_bytes': 5} for path in files],
                       'paths_version': 1},
        'requested_spec': '%s=%s' % (name, version), 'size': 1, 'subdir': 'linux-64', 'timestamp': 1,
        'url': 'https://conda.anaconda.org/bioconda/linux-64/x.tar.bz2', 'version': version}, **more)


@pytest.mark.parametrize('indent', [2, 4, None])  # of conda, of mamba, and of who writes no lines
def test_commands_are_those_of_the_package_in_condas_records(easysif, image, looked, tmp_path, indent):
    image.file('/usr/local/conda-meta/history', '')
    for package in (record('samtools', '1.21', ['samtools', 'plot-bamstats', 'sort', 'gone']),
                    record('htslib', '1.21', ['bgzip']), record('samtools-extra', '2.0', ['extra'], 'none')):
        image.file('/usr/local/conda-meta/%(name)s-%(version)s-%(build)s.json' % package,
                   json.dumps(package, indent=indent, sort_keys=True), 0o644)
    for name in ('samtools', 'plot-bamstats', 'sort', 'bgzip', 'extra', 'samtools-more'):
        image.file('/usr/local/bin/' + name)
    code, out, err = easysif(*SAMTOOLS, *TEST)
    path = 'SAMtools-1.21-singularity.eb'
    assert (code, out, err) == (0, '%s: written, pinned to %s\n' % (path, DIGEST), TO_DO.format(path))
    assert (tmp_path / path).read_text() == """\
easyblock = 'ContainerImage'

name = 'SAMtools'  # licence, as the image says: MIT
version = '1.21'
versionsuffix = '-singularity'

homepage = 'https://example.org'
description = 'SAMtools'

toolchain = SYSTEM

image = 'docker://quay.io/biocontainers/samtools:%%(version)s--h50ea8bc_0'
digest = '%s'
commands = ['plot-bamstats', 'samtools']

sanity_check_commands = ['samtools view -c x.sam']

moduleclass = 'tools'
""" % DIGEST
    # what is left to its author the rules know as well
    assert [one.rule for one in check.check([path])] == ['described', 'has_a_homepage']
    assert easysif(*SAMTOOLS, *TEST, '--force', '--homepage', 'https://www.htslib.org', '--description',
                   'A reader of alignments.') == (0, '%s: written, pinned to %s\n' % (path, DIGEST), '')
    assert easysif('check', path)[0] == 0
    assert 'description = "Reader of alignments"' in (tmp_path / path).read_text()


@pytest.mark.parametrize('name', ['samtools.list', 'samtools:amd64.list'])
def test_commands_are_those_of_debians_package(easysif, image, looked, name):
    image.file('/var/lib/dpkg/info/' + name, '/.\n/usr\n/usr/bin\n/usr/bin/samtools\n/usr/share/samtools/bin/x\n'
               '/usr/bin/ace2sam\n/usr/games/fun\n/sbin/gone\n', 0o644)
    for command in ('samtools', 'ace2sam', 'other'):
        image.file('/usr/bin/' + command)
    code, out, err = easysif(*SAMTOOLS, *TEST, '--dry-run')
    assert (code, err) == (0, TO_DO.format('SAMtools-1.21-singularity.eb'))
    assert "\ncommands = ['ace2sam', 'samtools']\n" in out and 'licence' not in out


def test_a_python_package_makes_a_module_to_work_in(easysif, python_image, looked):
    packages = python_image.look().python.site_packages[0]
    python_image.package(packages, 'jax', '24.10', 'Summary: The differentiable\tNumPy.\nLicense: Apache-2.0\n more\n'
                         'Home-page: UNKNOWN\nProject-URL: homepage, https://docs.jax.dev\n')
    for name in ('jaxlib', 'jax-metal', 'jaxtyping', 'notjax', 'jax2'):
        python_image.package(packages, name, '1.0')
    python_image.env('export LD_LIBRARY_PATH=/usr/libraries CUDA_VERSION=12.4\n')
    python_image.file('/usr/bin/ed')
    code, out, err = easysif('new', 'jax', '24.10', '--image', 'jax.sif', '--dry-run')
    assert (code, err) == (0, 'note: jax-24.10-singularity.eb: sanity_check_commands: write a test that does the work '
                              'of jax, or give --test\n')
    assert out == """\
easyblock = 'ContainerImage'

name = 'jax'  # licence, as the image says: Apache-2.0
version = '24.10'
versionsuffix = '-singularity'

homepage = 'https://docs.jax.dev'
description = "Differentiable NumPy"

toolchain = SYSTEM

image = 'jax.sif'
digest = 'sha256:%s'
needs = ['nvidia-gpu']
python_env = 'jax'
commands = ['python', 'python3']
provides = ['jax/%%(version)s', 'jax-metal', 'jaxlib', 'jaxtyping']

moduleclass = 'ai'
""" % ('e' * 64)
    out, err = easysif('new', 'jax', '0.5', '--image', 'jax.sif', '--dry-run')[1:]
    assert 'version: the image says that it has jax 24.10' in err and "provides = ['jax', 'jax-metal'" in out
    out = easysif('new', 'jax', '24.10', '--image', 'jax.sif', '--dry-run', '--tool', '--commands', 'ed,python3')[1]
    assert "commands = ['ed', 'python3']" in out and 'python_env' not in out and 'provides' not in out


def test_a_python_package_with_a_command_of_its_name_is_a_tool_unless_one_wants_to_work_in_it(
        easysif, python_image, looked):
    packages = python_image.look().python.site_packages[0]
    python_image.package(packages, 'toy', '1.0', 'Classifier: License :: OSI Approved :: MIT License\n'
                         'Home-page: https://toy.invalid\nSummary: Toys\n', ['toy', 'toy-more'])
    python_image.file('/opt/rocm/x')
    python_image.file('/usr/lib/python%s/ensurepip/__init__.py' % sysconfig.get_python_version(), '')
    out = easysif('new', 'toy', '1.0', '--image', 'toy.sif', '--dry-run')[1]
    assert "commands = ['toy', 'toy-more']" in out and 'python_env' not in out and 'MIT License' in out
    assert "needs = ['amd-gpu']" in out and "moduleclass = 'tools'" in out
    out = easysif('new', 'toy', '1.0', '--image', 'toy.sif', '--dry-run', '--environment', '--moduleclass', 'bio')[1]
    assert "commands = ['python', 'python3', 'pip', 'toy', 'toy-more']" in out and "python_env = 'toy'" in out
    assert "provides = ['toy/%(version)s']" in out and "moduleclass = 'bio'" in out


def test_pytorch_is_called_torch_by_those_who_package_it(easysif, python_image, looked):
    packages = python_image.look().python.site_packages[0]
    python_image.package(packages, 'torch', '2.7.1', commands=['torchrun'])
    python_image.package(packages, 'torchvision', '0.22.1')
    python_image.conda('/opt/conda', 'pytorch')
    shutil.copytree(python_image.path / 'usr/bin', python_image.path / 'opt/conda/envs/pytorch/bin', symlinks=True,
                    dirs_exist_ok=True)
    out = easysif('new', 'PyTorch', '2.7.1', '--image', 'lumi-pytorch-v2.7.1.sif', '--dry-run')[1]
    assert "image = 'lumi-pytorch-v%(version)s.sif'" in out and "python_env = 'PyTorch'" in out
    assert "conda_env = 'pytorch'" in out and "commands = ['python', 'python3', 'torchrun']" in out
    assert "provides = ['torch', 'torchvision']" in out and "moduleclass = 'ai'" in out


def test_labels_that_name_the_software_tell_of_it_and_those_of_a_base_image_do_not(easysif, image, looked):
    image.file('/usr/bin/samtools')
    base = dict(org__opencontainers__image__title='ubuntu', org__opencontainers__image__version='22.04',
                org__opencontainers__image__description='The base of all', license='EULA', name='ubi9')
    image.labels(**base)
    out = easysif(*SAMTOOLS, *TEST, '--dry-run')[1]
    assert "description = 'SAMtools'" in out and 'EULA' not in out
    image.labels(**dict(base, org__opencontainers__image__source='https://github.com/samtools/samtools',
                        org__opencontainers__image__description='A reader.\nOf alignments.', license='MIT/Expat'))
    code, out, err = easysif(*SAMTOOLS, *TEST, '--dry-run')
    assert "homepage = 'https://github.com/samtools/samtools'\ndescription = \"Reader. Of alignments\"\n" in out
    assert "name = 'SAMtools'  # licence, as the image says: MIT/Expat\n" in out
    assert 'note: SAMtools-1.21-singularity.eb: version: the image says that it has SAMtools 22.04\n' in err


def test_whatever_an_image_says_of_itself_a_recipe_comes_out(easysif, image, looked, tmp_path):
    image.file('/usr/bin/samtools')
    hostile = '\x1b[31m"\'$(touch evil)`touch evil`]==] %(version)s\\' + 'x' * 5000
    for address, text in (('javascript:alert(1)', hostile), (hostile, '...'), ('https://x.invalid/]==]', 'SAMtools'),
                          ('https://x.invalid/%(name)s', '[==['), ('https://a b', '')):
        image.labels(name='samtools', org__opencontainers__image__url=address, license=text,
                     org__opencontainers__image__description=text, version=text)
        code, out, err = easysif(*SAMTOOLS, *TEST, '--dry-run')
        assert code == 0, err
        assert '\x1b' not in out + err and max(map(len, out.splitlines())) < 600
        (tmp_path / 'SAMtools-1.21-singularity.eb').write_text(out)
        assert {one.rule for one in check.check(['SAMtools-1.21-singularity.eb'])} <= {'described', 'has_a_homepage'}


def test_where_no_package_bears_the_name_commands_do(easysif, image, looked):
    for name in ('samtools', 'samtools2-x', 'samtoolsy', 'other'):
        image.file('/usr/bin/' + name)
    image.file('/usr/bin/samtools.pl', '#!/usr/bin/perl\n')
    code, out, err = easysif(*SAMTOOLS, *TEST, '--dry-run')
    assert "commands = ['samtools', 'samtools2-x']" in out
    assert ('note: SAMtools-1.21-singularity.eb: commands: left out, as they do not start inside the image: '
            'samtools.pl\n') in err
    assert ('note: SAMtools-1.21-singularity.eb: commands: taken by their names, as no package of the image is called '
            'SAMtools; look at them\n') in err


def test_else_what_lies_outside_the_directories_of_the_system_and_is_not_too_much(easysif, image, looked):
    image.env('export PATH=/opt/x/bin:$PATH\n')
    image.file('/usr/bin/samtool')
    image.file('/opt/x/bin/grep')
    assert easysif(*SAMTOOLS, '--dry-run') == (
        1, '', 'error: SAMtools-1.21-singularity.eb: nobody knows which commands of the image are worth a wrapper\n'
               '  there  busybox, cat, ls, sed, sh, sort, samtool, grep\n'
               'hint: name them: easysif new SAMtools 1.21 --image %s --commands NAME,NAME\n' % SAMTOOLS[-1])
    image.file('/opt/x/bin/tool')
    code, out, err = easysif(*SAMTOOLS, '--dry-run')
    assert "commands = ['tool']" in out and 'commands: taken from outside the system\'s directories, as no' in err
    for number in range(60):
        image.file('/opt/x/bin/tool-%d' % number)
    assert easysif(*SAMTOOLS, '--dry-run')[0] == 1


def test_an_image_without_a_shell_has_its_commands_named(easysif, image, looked):
    shutil.rmtree(image.path / 'bin')
    code, out, err = easysif(*SAMTOOLS, '--dry-run')
    assert code == 1 and '\n  there  no shell, so nothing was seen\nhint: name them: easysif new SAMtools' in err
    code, out, err = easysif(*SAMTOOLS, '--dry-run', '--commands', 'samtools,bgzip')
    assert code == 0 and "commands = ['samtools', 'bgzip']" in out


def test_commands_that_are_named_have_to_be_there(easysif, image, looked):
    code, out, err = easysif(*SAMTOOLS, '--commands', 'cat,sortt')
    assert (code, out) == (1, '')
    assert err.startswith("error: SAMtools-1.21-singularity.eb: command 'sortt' is not in the image\n  closest  sort\n")
    code, out, err = easysif(*SAMTOOLS, '--commands', 'sed')
    assert (code, err) == (
        1, "error: SAMtools-1.21-singularity.eb:14: commands has 'sed', which would hide that of the host\n"
           "hint: give it a name of its own: commands = {'samtools-sed': 'sed'}\n")


def test_to_work_in_an_image_it_needs_a_python(easysif, image, looked):
    image.file('/usr/bin/samtools')
    text = ('error: SAMtools-1.21-singularity.eb: the image has no Python 3 with venv to work in\n  python  %s\n'
            'hint: leave out --environment\n')
    assert easysif(*SAMTOOLS, '--environment') == (1, '', text % 'none')
    answer = dict(version='2.7.18', prefix='/usr', base_prefix='/usr', has_pip=False, has_venv=True,
                  has_ensurepip=False, site_packages=[], scripts=[], distributions={})
    image.file('/usr/bin/python', "#!/bin/sh\nprintf '\\neasysif look-inside-python %%s\\n' '%s'\n"
               % json.dumps(answer))
    assert easysif(*SAMTOOLS, '--environment')[2] in (text % '/usr/bin/python  (2.7.18)', text % 'none')


def test_it_goes_into_a_tree_by_letter_and_name_and_over_nothing(easysif, image, looked, tmp_path):
    image.file('/usr/bin/samtools')
    os.makedirs('easyconfigs')
    path = 'easyconfigs/s/SAMtools/SAMtools-1.21-singularity.eb'
    told = easysif(*SAMTOOLS, *TEST, '--output', 'easyconfigs', '--json')
    found = json.loads(told[1])
    assert found == {'recipe': path, 'written': True, 'digest': DIGEST, 'notes': [
        line.partition('singularity.eb: ')[2] for line in TO_DO.format('singularity.eb').splitlines()] + [
            'commands: taken by their names, as no package of the image is called SAMtools; look at them'],
        'text': (tmp_path / path).read_text()}
    del looked[:]
    os.chdir('easyconfigs')
    for options in ([], ['--json'], ['--output', 's/SAMtools'], ['--output', str(tmp_path / 'easyconfigs')]):
        code, out, err = easysif(*SAMTOOLS, *TEST, *options)
        assert (code, out) == (1, '') and err.endswith('%s: there is a file already\nhint: look at it, or write over '
                                                       'it with --force\n' % path.split('/', 1)[1])
    assert looked == []  # nothing was fetched for it
    assert easysif(*SAMTOOLS, '--dry-run')[1] == found['text'].replace(
        "sanity_check_commands = ['samtools view -c x.sam']\n\n", '')
    assert (tmp_path / path).read_text() == found['text']
    assert easysif(*SAMTOOLS, '--force')[0] == 0 and 'sanity' not in (tmp_path / path).read_text()
    assert json.loads(easysif(*SAMTOOLS, '--dry-run', '--json')[1])['written'] is False


@pytest.mark.parametrize('words, message', [
    (['../x', '1', '--image', 'x.sif'], "x-1-singularity.eb: name must be text of letters, digits and . _ + -"),
    (['x', '1/2', '--image', 'x.sif'], "2-singularity.eb: version must be text of letters, digits and . _ + -"),
    (['x', '1', '--image', 'x'], 'x-1-singularity.eb: image must be a reference (docker://'),
    (['x', '1', '--image', 'docker://me:s3cret@h.invalid/x'],
     'x-1-singularity.eb: image holds a login, which a recipe must not\n  host  h.invalid\n'),
    (['x', '1', '--image', 'x.sif', '--commands', 'a,start-shell'],
     "x-1-singularity.eb: commands[1] must not be 'start-shell', which every module has of its own"),
    (['x', '1', '--image', 'x.sif', '--homepage', 'x'], "x-1-singularity.eb: homepage must be a web address, not"),
])
def test_what_cannot_be_a_recipe_is_said_before_anything_is_fetched(easysif, looked, tmp_path, words, message):
    code, out, err = easysif('new', *words)
    assert (code, out, looked) == (1, '', []) and err.startswith('error: ' + message), err
    assert 's3cret' not in err and set(os.listdir(tmp_path)) == {'home', 'image'}


@pytest.mark.parametrize('error, code', [(KeyboardInterrupt(), 130), (OSError(28, 'No space left on device'), 3)])
def test_what_is_interrupted_leaves_nothing(easysif, monkeypatch, tmp_path, error, code):
    temporary = tmp_path / 'tmp'
    temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(temporary))
    monkeypatch.setenv('EASYBUILD_PREFIX', str(tmp_path / 'prefix'))

    def obtain(*_):
        raise error
    monkeypatch.setattr('easysif.authoring.new.obtain', obtain)
    assert easysif(*SAMTOOLS)[0] == code
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == []
    monkeypatch.setenv('EASYSIF_CACHE_DIR', '/proc/nowhere')
    code, out, err = easysif(*SAMTOOLS)
    assert code == 3 and err.startswith('error: SAMtools-1.21-singularity.eb: /proc/nowhere (No such file or direct')


def test_killed_at_any_moment_it_leaves_a_whole_recipe_or_none(easysif, image, looked, tmp_path):
    image.file('/usr/bin/samtools')
    words, made = [*SAMTOOLS, *TEST, '--output', 'easyconfigs'], tmp_path / 'easyconfigs' / 's' / 'SAMtools'
    for call in ('fsync', 'link'):
        assert harness.killed(call, 1, lambda: easysif(*words))
        assert list(made.glob('*.eb')) == []
        harness.age(made)
    assert easysif(*words)[0] == 0 and os.listdir(made) == ['SAMtools-1.21-singularity.eb']


def test_a_test_that_does_no_work_is_said(easysif, image, looked):
    image.file('/usr/bin/samtools')
    notes = [json.loads(easysif(*SAMTOOLS, '--dry-run', '--json', *words)[1])['notes'] for words in (
        TEST, ['--test', 'which samtools'], ['--test', 'which samtools', *TEST])]
    told = ("sanity_check_commands: 'which samtools' only looks whether it is there; write a test that does the work "
            'of SAMtools')
    assert [told in one for one in notes] == [False, True, False]
    assert not any(line.startswith('sanity') for one in (notes[0], notes[2]) for line in one)


def test_a_command_that_waits_is_not_waited_for_and_each_is_shown(monkeypatch):
    limits, shown = [], []

    def run(argv, env, timeout, check):
        limits.append(timeout)
        return SimpleNamespace(status={'b': 127, 'c': 255}.get(argv[0], 124), stderr='FATAL' if argv[0] == 'c' else '')
    monkeypatch.setattr(software, 'run', run)
    runtime = SimpleNamespace(exec_argv=lambda sif, argv, flags: argv, environment=dict)
    assert software._starting({name: name for name in 'abc'}, 'x.sif', runtime, shown.append) == {
        'a': True, 'b': False, 'c': False}
    assert limits == [20, 2, 2]
    assert shown == ['starting command %d of 3: %s' % pair for pair in ((1, 'a'), (2, 'b'), (3, 'c'))]


def test_where_there_is_no_network_that_is_said(easysif, monkeypatch, tmp_path):
    monkeypatch.setattr('easysif.images.sources.WAITS', ())
    monkeypatch.setenv('EASYBUILD_PREFIX', str(tmp_path / 'prefix'))
    code, out, err = easysif('new', 'x', '1', '--image', 'docker://up.invalid/x:1')
    assert (code, out) == (3, '') and err.startswith(
        "error: x-1-singularity.eb: image 'docker://up.invalid/x:1' is not to be had\n")
    # the directory stays, as another process may be about to write into it
    assert toys.files(tmp_path / 'prefix') == set() and not list(tmp_path.glob('*.eb'))


def test_what_lies_on_this_machine_alone_is_said(easysif, image, looked, tmp_path):
    image.file('/usr/bin/samtools')
    one, other = (json.loads(easysif(*SAMTOOLS[:-1], *words, '--dry-run', '--json')[1])['notes'] for words in (
        ['/data/samtools.sif'], ['samtools.def', '--output', 'elsewhere']))
    assert 'image: a path of this machine; put the file into the image store, and write its name alone' in one
    assert 'image: put samtools.def beside the recipe' in other


def test_from_an_image_in_a_registry_to_a_module_that_works(eb, easysif, shell, prefix, site_file, images, tmp_path,
                                                            monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    monkeypatch.setenv('EASYSIF_SITE', str(site_file()))
    reads = ['--test', 'printf "@SQ\\tSN:a\\tLN:9\\n" | samtools view -c | grep -x 0']
    code, out, err = easysif('new', 'SAMtools', '1.21', '--image', images.upstream('samtools'), *reads, '--homepage',
                             'https://www.htslib.org', '--description', 'Reads alignments')
    path = tmp_path / 'SAMtools-1.21-singularity.eb'
    assert (code, out) == (0, '%s: written, pinned to %s\n' % (path.name, images.digest('samtools'))), err
    assert easysif('check', path.name)[0] == 0
    # what was looked at is what is installed, although nobody can be asked any more
    offline = site_file(registry_mirrors={'quay.io': ['http://127.0.0.1:9']})
    assert 'the image that is here already is taken' in eb(path, site=offline).output
    assert shell('module load SAMtools; samtools --version').stdout.startswith('samtools 1.')
    # this process, which looked at it, is not at its end
    assert [name for name in os.listdir(prefix / 'sources' / 'easysif') if '.used-' not in name] == []
