# SPDX-License-Identifier: GPL-2.0-only
"""Hostile images: whatever their files, their environment, their shell and their Python are like, eb finds out what is
true or says clearly what is wrong, in a time that is known before, and nothing of them runs on the host."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import yaml

import harness
import hostile
import toys
from easysif.errors import TOOL
from easysif.images import asking, inspect
from easysif.site_plan import literal
from helpers_registry import LoopbackRegistry, tiny_layout, tiny_rootfs
from image_trees import Image

pytestmark = pytest.mark.e2e

ANSWER = {'version': '3.12.1', 'prefix': '/p', 'base_prefix': '/p', 'has_pip': True, 'has_venv': True,
          'has_ensurepip': False, 'site_packages': ['/p/site-packages'], 'scripts': [],
          'distributions': {}}

#: a shell that says or does something, and then becomes the real one
SHELL = '#!/bin/busybox sh\n%s\nexec /bin/busybox sh "$@"\n'


@pytest.fixture
def image(tmp_path):
    """An image with a shell and little else (Image)."""
    return Image(tmp_path / 'image')


@pytest.fixture
def impatient(monkeypatch):
    """Two seconds are enough for any image."""
    monkeypatch.setattr(asking, 'TIMEOUT', 2)


def python(image, answer):
    """Give an image a Python that does not look at its input and prints a text."""
    image.file('/usr/bin/answer', answer)
    image.file('/usr/bin/python3', '#!/bin/busybox sh\nexec /bin/cat /usr/bin/answer\n')


def shell(image, text):
    """Replace the shell of an image."""
    (image.path / 'bin/sh').unlink()
    image.file('/bin/sh', text)


def left_behind(word):
    """Return the processes of ours whose command line has a word (list of str)."""
    lines = subprocess.run(['ps', '-ww', '-u', str(os.getuid()), '-o', 'args='], stdout=subprocess.PIPE, text=True,
                           check=True).stdout.splitlines()
    return [line for line in lines if word in line and 'ps -ww' not in line]


def test_a_python_that_answers_nonsense_is_as_good_as_none(image):
    answers = ['', '[]', '[' * 200000, json.dumps(dict(ANSWER, more=1)),
               json.dumps({key: ANSWER[key] for key in list(ANSWER)[1:]})]
    for change in (dict(version='three'), dict(version='9' * 5000 + '.1.2'), dict(has_venv='yes'), dict(scripts=[1])):
        answers.append(json.dumps(dict(ANSWER, **change)))
    for answer in answers:
        python(image, 'easysif look-inside-python %s\n' % answer)
        err = image.error(python_env='jax')
        assert str(err).startswith("jax-24.10.eb: the image's Python does not answer as Python does: /usr/bin/")
        assert len(str(err)) < 8000 and err.exit_code == TOOL
    assert image.look(['ls']).python is None


def test_a_python_that_prints_megabytes_before_it_answers(image):
    python(image, 'noise\x1b[31m ' * 10 ** 6 + '\neasysif look-inside-python %s\n' % json.dumps(ANSWER))
    assert image.look(python_env='jax').python.version == '3.12.1'


def test_a_python_that_hangs_is_ended_and_that_is_said(image, impatient):
    image.file('/usr/bin/python3', '#!/bin/busybox sh\nexec /bin/busybox sleep 987654\n')
    begin = time.monotonic()
    text = str(image.error(python_env='jax'))
    assert time.monotonic() - begin < 30
    assert text.startswith("jax-24.10.eb: the image's Python does not start: /usr/bin/python3\n")
    assert '\n  stopped    after 2 seconds without an answer\nhint: try it by hand: ' in text
    assert left_behind('sleep 987654') == []


@pytest.mark.parametrize('how', ['exec /bin/busybox sleep 987655', 'exec /bin/busybox yes >/dev/null'])
def test_a_shell_that_never_comes_back_is_ended_and_that_is_said(image, impatient, how):
    shell(image, '#!/bin/busybox sh\n%s\n' % how)
    text = str(image.error())
    assert text.startswith('jax-24.10.eb: the image does not start, or its shell does not work\n')
    assert '\n  stopped    after 2 seconds without an answer\nhint: try it by hand: ' in text
    assert left_behind(str(image.path)) == left_behind('sleep 987655') == []


def test_what_an_image_starts_in_the_background_neither_delays_nor_survives(image):
    shell(image, SHELL % '/bin/busybox setsid /bin/busybox sleep 987656 &')
    begin = time.monotonic()
    assert image.look(['ls']).shell == '/bin/sh'
    assert time.monotonic() - begin < 30 and left_behind('sleep 987656') == []


@pytest.mark.parametrize('banner', [
    'echo "Welcome to $(hostname) \033[31m"', 'printf "begin\\0easysif look-inside\\0file\\0/bin/evil\\0"',
    'printf "end\\0\\0"', 'trap "echo goodbye" EXIT', 'echo "a warning" >&2; printf "\\0\\0\\0"'])
def test_what_a_shell_prints_before_and_after_is_no_answer(image, banner):
    text = SHELL % banner if 'EXIT' not in banner else '#!/bin/busybox sh\n%s\n/bin/busybox sh "$@"\n' % banner
    shell(image, text)
    facts = image.look(['ls', '/bin/cat'])
    assert facts.shell == '/bin/sh' and facts.commands['ls'].path == '/bin/ls' and 'evil' not in facts.available


def test_a_shell_that_tells_of_impossible_things_is_believed_where_it_does_no_harm(image):
    records = ('name', 'x', 'conda', '', 'conda', 'relative', 'root', '', 'conda', '/', 'nosuch', 'x', 'env', '',
               'env', '=', 'dir', '', 'name', '', 'file', '', 'bin', '', 'name', '/../x', 'dir', '..', 'name', 'y')
    told = '\\0'.join(['begin', 'easysif look-inside', *records, 'end', '', ''])
    shell(image, '#!/bin/busybox sh\nprintf "%s"\n' % told)
    facts = image.look()
    assert facts.python is None and (facts.conda is None or facts.conda.prefix == '/')
    json.dumps(asdict(facts))


@pytest.mark.parametrize('banner', ['printf "odd\\0"; printf "begin\\0easysif look-inside\\0"; exit 0', 'exit 0', ':'])
def test_a_shell_that_answers_nothing_is_an_error(image, banner):
    shell(image, '#!/bin/busybox sh\n%s\n' % banner)
    assert str(image.error()).startswith('jax-24.10.eb: the image does not start, or its shell does not work\n')


@pytest.mark.parametrize('script', [
    'echo garbage; printf "\\033[31m" >&2; echo "begin easysif look-inside"\n',
    'export WITH_CONDA="$(cat /etc/shadow)"; sleep 1\n', 'no-such-command; false\n', 'exit_code() { return 3; }\n'])
def test_an_environment_script_that_prints_or_is_slow_changes_nothing(image, script):
    image.env(script)
    assert image.look(['ls']).commands['ls'].path == '/bin/ls'


def test_an_environment_script_that_breaks_off_is_told_without_what_a_terminal_obeys(image):
    image.env('echo "\033]0;owned\007\033[2J" >&2; exit 3\n')
    text = str(image.error())
    assert 'the image does not start, or its shell does not work\n' in text and '\\x1b[2J' in text
    assert not re.search('[\x00-\x09\x0b-\x1f\x7f]', text)


@pytest.mark.parametrize('name', ['a\ntouch<evil', 'a:b', 'a\x1b[31m', b'\xff\xfe'])
def test_a_conda_environment_that_no_variable_can_name_is_as_good_as_none(image, name, tmp_path):
    directory = os.path.join(os.fsencode(image.path), b'opt/conda/envs', os.fsencode(name), b'conda-meta')
    os.makedirs(directory)
    assert image.look().conda is None
    os.makedirs(image.path / 'opt/conda/envs/good/conda-meta')
    assert image.look().conda.prefix == '/opt/conda/envs/good'


@pytest.mark.parametrize('name', ["it's $(touch evil)", '`touch evil` "\\', '-n', ']==] %(name)s 容器 *'])
def test_a_conda_environment_of_any_other_name_is_found(image, name):
    os.makedirs(image.path / 'opt/conda/envs' / name / 'conda-meta')
    assert image.look().conda == inspect.Conda('/opt/conda/envs/' + name, name, '/opt/conda')


def test_links_that_go_in_circles_are_no_commands(image):
    for one, two in (('usr/bin/a', 'b'), ('usr/bin/b', 'a'), ('usr/bin/self', 'self'), ('loop', 'loop')):
        (image.path / one).parent.mkdir(parents=True, exist_ok=True)
        (image.path / one).symlink_to(two)
    (image.path / 'usr/bin/up').symlink_to('..')
    image.env('export PATH=/loop:/usr/bin/up/bin:/bin:/usr/bin/up/bin/up/bin\n')
    image.file('/usr/bin/tool')
    facts = image.look(['tool', 'ls'])
    assert facts.commands['tool'].path == '/usr/bin/up/bin/tool'
    assert not {'a', 'b', 'self', 'loop'} & set(facts.available)


def test_names_of_files_reach_no_terminal_as_they_are(image):
    image.file('/bin/samtools\x1b[2J\x07')
    image.file('/bin/samtools\nhint: x')
    text = str(image.error(['samtools']))
    assert 'samtools\\x1b[2J\\x07' in text and 'samtools\n' in text
    assert [line for line in text.splitlines() if line.startswith('hint: ')][0].startswith('hint: list what the image')


def test_a_very_long_variable_is_looked_at_in_no_time(image):
    image.env('export WITH_CONDA="%s"\n' % ('x/bin/' * 20000))
    begin = time.process_time()
    assert len(image.look().env['WITH_CONDA']) == 120000
    assert time.process_time() - begin < 2


def test_many_commands_are_compared_in_a_few_seconds(image):
    for number in range(1000):
        image.file('/opt/bin/command-%s-%d' % ('x' * 30, number))
    image.env('export PATH=/bin:/opt/bin\n')
    begin = time.process_time()
    assert 'closest  command-' in str(image.error(['command-%s-none' % ('x' * 30)]))
    assert time.process_time() - begin < 10


def test_the_list_of_packages_shows_names_of_any_kind_on_one_line_each(tmp_path, clone):
    for number, name in enumerate(['evil\x1b[2J', 'two\nlines', '$(touch evil)', 'x' * 5000, '']):
        info = tmp_path / 'site' / ('p%d-1.dist-info' % number)
        info.mkdir(parents=True)
        (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: %s\nVersion: 1\x1b[31m\n' % name)
    script = clone / 'tools/easysif/helpers/runscripts/lib/list_packages.py'
    done = subprocess.run([sys.executable, '-S', script], env={'PYTHONPATH': str(tmp_path / 'site')}, text=True,
                          stdout=subprocess.PIPE, check=True)
    assert '\x1b' not in done.stdout and 'evil\\x1b[2J' in done.stdout and '1\\x1b[31m' in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 300 and not (tmp_path / 'evil').exists()


# --- installed by eb ------------------------------------------------------------------------------------------------

#: without $ ` " \\, which Apptainer 1.4.5 escapes wrongly when it takes over the environment of such an image
OCI = "it's ;touch %(evil)s; | & > %(evil)s é * ~ #"

ODD = "it's $(touch evil) `touch evil` \"é"


class Installed:
    """Two hostile images installed by one eb: ``odd`` from a SIF file, ``oci`` from a registry."""

    def __init__(self, directory):
        self.directory, self.prefix = directory, directory / 'prefix'
        for name in ('home', 'cwd', 'tmp'):
            (directory / name).mkdir()
        self.sif(Image(directory / 'image'))
        with LoopbackRegistry(directory / 'registry') as running:
            running.push(self.layout(), 'x/oci:1')
            site = directory / 'site.yaml'
            site.write_text(yaml.safe_dump({'registry_mirrors': {'docker.io': [running.url]}, 'ca_certificates': ''}))
            env = dict(harness.eb_environment(self.prefix, directory / 'home', site), TMPDIR=str(directory / 'tmp'))
            recipes = [
                toys.recipe(directory, 'odd', image='odd.sif', commands={'odd': shlex.quote(ODD), 'sh': 'sh'},
                            needs=[], sanity_check_commands=['odd now']),
                toys.recipe(directory, 'env', image='odd.sif', conda_env=None, sanity_check_commands=['true']),
                toys.recipe(directory, 'oci', image='docker://docker.io/x/oci:1', commands=['env', 'sh'])]
            self.result = harness.run(['eb', *recipes], env=env, cwd=directory / 'cwd', check=False)

    def sif(self, image):
        """Make a SIF file of a tree with odd names and texts wherever there are any."""
        image.file('/bin/' + ODD, '#!/bin/sh\nprintf "%s|" odd "$@"\n')
        for name in ('-rf', '*', 'two\nlines', '\x1b[2J', '$(touch evil)', '~'):
            image.file('/bin/' + name)
        image.file('/opt/conda/envs/%s/conda-meta/history' % ODD, '')
        image.file('/opt/conda/envs/two\ntouch<evil/conda-meta/history', '')
        image.env('echo "\033[31mgarbage" >&2\nexport WITH_CONDA="%s" ODD="%s"\n' % (
            (re.sub(r'([$`"\\])', r'\\\1', ODD),) * 2))
        labels = {ODD: ODD, 'two\nlines': '\x1b[2J\ntouch evil', 'org.label-schema.name': '$(touch evil)' * 1000}
        image.file('/.singularity.d/labels.json', json.dumps(labels), 0o644)
        image.file('/.singularity.d/runscript', '#!/bin/sh\ntouch evil\n')
        (image.path / 'usr').mkdir(exist_ok=True)
        (image.path / 'usr/bin').symlink_to('bin')
        harness.run(['apptainer', 'build', '--disable-cache', self.directory / 'odd.sif', image.path],
                    env=harness.user_environment(self.directory / 'home'))

    def layout(self):
        """Make an OCI image whose configuration holds what nobody should evaluate, and return its name (str)."""
        evil = self.directory / 'evil'
        return tiny_layout(self.directory, tiny_rootfs(self.directory / 'rootfs'), config=[
            '--config.env=EVIL=%s' % (OCI % {'evil': evil}), '--config.env=A B=1', '--config.env=1X=1',
            '--config.env=EVIL;touch evil=1', '--config.label=%s=$(touch %s)' % (ODD, evil),
            '--config.label=two\nlines=\x1b[2J', '--config.entrypoint=sh', '--config.entrypoint=-c',
            '--config.entrypoint=touch %s' % evil, '--config.workingdir=/$(touch evil)',
            '--config.user=nobody;touch evil', '--author=\x1b[2J$(touch evil)'])


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The hostile images, installed (Installed)."""
    return Installed(tmp_path_factory.mktemp('hostile'))


def test_hostile_images_are_installed_and_nothing_of_them_runs_on_the_host(installed):
    output = installed.result.output
    assert installed.result.status == 0, output
    assert 'Build succeeded for 3 out of 3' in output
    assert '\x1b' not in output and hostile.traces(installed.directory) == []


def test_what_a_hostile_image_says_of_itself_arrives_as_it_is(installed):
    script = '''module load env
printf '%s\\0' "$WITH_CONDA" "$APPTAINERENV_CONDA_DEFAULT_ENV" "$SINGULARITYENV_CONDA_PREFIX"
start-shell -c 'printf "%s\\0" "$WITH_CONDA" "$CONDA_DEFAULT_ENV" "$CONDA_PREFIX" "$ODD"'
module unload env; env -0'''
    done = harness.run_shell(script, installed.prefix, installed.directory / 'home', cwd=installed.directory / 'cwd')
    found = done.stdout.split('\0')
    assert found[:3] == [ODD, literal(ODD), literal('/opt/conda/envs/' + ODD)]
    assert found[3:7] == [ODD, ODD, '/opt/conda/envs/' + ODD, ODD]
    assert not [line for line in found[7:] if line.startswith(('WITH_CONDA', 'APPTAINERENV'))]
    assert hostile.traces(installed.directory) == []


def test_a_command_with_any_name_inside_runs(installed):
    done = harness.run_shell("module load odd\nodd '$(touch evil)' 'a  b'", installed.prefix,
                             installed.directory / 'home', cwd=installed.directory / 'cwd')
    assert done.stdout == 'odd|$(touch evil)|a  b|' and hostile.traces(installed.directory) == []


def test_the_configuration_of_an_oci_image_is_never_evaluated(installed):
    done = harness.run_shell('module load oci\nsh -c \'printf "%s" "$EVIL"\'', installed.prefix,
                             installed.directory / 'home', cwd=installed.directory / 'cwd')
    assert done.stdout == OCI % {'evil': installed.directory / 'evil'} and 'error' not in done.stderr
    assert hostile.traces(installed.directory) == []
