# SPDX-License-Identifier: GPL-2.0-only
"""Hostile images: whatever their files, their environment, their shell and their Python are like, eb finds out what is
true or says clearly what is wrong, in a time that is known before, and nothing of them runs on the host."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from easysif.errors import TOOL
from easysif.images import inspect
from image_trees import Image

pytestmark = pytest.mark.e2e

ANSWER = {'version': '3.12.1', 'prefix': '/p', 'base_prefix': '/p', 'has_pip': True, 'has_venv': True,
          'has_ensurepip': False, 'site_packages': ['/p/site-packages'], 'scripts': []}

#: a shell that says or does something, and then becomes the real one
SHELL = '#!/bin/busybox sh\n%s\nexec /bin/busybox sh "$@"\n'


@pytest.fixture
def image(tmp_path):
    """An image with a shell and little else (Image)."""
    return Image(tmp_path / 'image')


@pytest.fixture
def impatient(monkeypatch):
    """A second is enough for any image."""
    monkeypatch.setattr(inspect, 'TIMEOUT', 1)


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
        python(image, 'easysif look-inside %s\n' % answer)
        err = image.error(python_env='jax')
        assert str(err).startswith("jax-24.10.eb: the image's Python does not answer as Python does: /usr/bin/")
        assert len(str(err)) < 8000 and err.exit_code == TOOL
    assert image.look(['ls']).python is None


def test_a_python_that_prints_megabytes_before_it_answers(image):
    python(image, 'noise\x1b[31m ' * 10 ** 6 + '\neasysif look-inside %s\n' % json.dumps(ANSWER))
    assert image.look(python_env='jax').python.version == '3.12.1'


def test_a_python_that_hangs_is_ended_and_that_is_said(image, impatient):
    image.file('/usr/bin/python3', '#!/bin/busybox sh\nexec /bin/busybox sleep 987654\n')
    begin = time.monotonic()
    text = str(image.error(python_env='jax'))
    assert time.monotonic() - begin < 10
    assert text.startswith("jax-24.10.eb: the image's Python does not start: /usr/bin/python3\n")
    assert '\n  stopped    after 1 seconds without an answer\nhint: try it by hand: ' in text
    assert left_behind('sleep 987654') == []


@pytest.mark.parametrize('how', ['exec /bin/busybox sleep 987655', 'exec /bin/busybox yes >/dev/null'])
def test_a_shell_that_never_comes_back_is_ended_and_that_is_said(image, impatient, how):
    shell(image, '#!/bin/busybox sh\n%s\n' % how)
    text = str(image.error())
    assert text.startswith('jax-24.10.eb: the image does not start, or its shell does not work\n')
    assert '\n  stopped    after 1 seconds without an answer\nhint: try it by hand: ' in text
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
