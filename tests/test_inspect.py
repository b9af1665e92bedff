# SPDX-License-Identifier: GPL-2.0-only
"""images/inspect.py and the two helpers that run inside: what an image has is found with real containers.

The images are directories of a Debian busybox and of the Python that runs the tests, which the runtime starts as it
starts SIF files; one test makes a SIF of one.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import asdict

import pytest

from easysif.data import helper
from easysif.errors import TOOL
from easysif.images import asking, inspect
from easysif.run import run
from image_trees import APPLETS, RUNTIME

pytestmark = pytest.mark.e2e
pytest_plugins = ['image_trees']


def test_a_shell_and_its_commands(image):
    facts = image.look(['ls', 'sed', '/bin/cat'])
    assert facts.shell == '/bin/sh'
    assert facts.env == {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'}
    assert facts.commands == {'ls': inspect.Command('/bin/ls'), 'sed': inspect.Command('/bin/sed'),
                              '/bin/cat': inspect.Command('/bin/cat')}
    assert facts.available == dict.fromkeys(('busybox', *APPLETS), '/bin')
    assert (facts.conda, facts.python) == (None, None)
    json.dumps(asdict(facts))


def test_bash_is_preferred_to_sh(image):
    image.file('/usr/bin/bash')
    assert image.look().shell == '/usr/bin/bash'
    image.file('/bin/bash')
    assert image.look().shell == '/bin/bash'


def test_a_shell_that_is_only_on_path(image):
    image.path.joinpath('bin/sh').unlink()
    (image.path / 'opt').mkdir()
    image.path.joinpath('opt/sh').symlink_to('/bin/busybox')
    image.env('export PATH=/opt:/bin\n')
    assert image.look(['ls']).shell == '/opt/sh'


def test_an_image_without_any_shell(image):
    image.path.joinpath('bin/sh').unlink()
    assert image.look(['ls', 'nosuch']) == inspect.ImageFacts(
        None, {}, {'ls': inspect.Command(None), 'nosuch': inspect.Command(None)}, {}, None, None)
    assert str(image.error(python_env='jax')) == (
        'jax-24.10.eb: python_env needs a shell in the image, which has none\n'
        '  image  %s\n'
        'hint: remove python_env; the commands of such an image still work' % image.path)
    assert 'conda_env needs a shell in the image' in str(image.error(conda_env='jax'))


def test_nothing_of_the_caller_becomes_a_fact(image, tmp_path, monkeypatch):
    local = tmp_path / 'home/.local/bin'
    local.mkdir(parents=True)
    shutil.copy(shutil.which('busybox'), local / 'mine')
    for name in ('WITH_CONDA', 'CONDA_PREFIX', 'VIRTUAL_ENV', 'PIP_CERT', 'SSL_CERT_FILE', 'APPTAINERENV_PIP_CERT'):
        monkeypatch.setenv(name, '/from/the/host')
    monkeypatch.setenv('APPTAINERENV_PREPEND_PATH', str(local))
    monkeypatch.setenv('APPTAINER_BIND', str(tmp_path))
    facts = image.look()
    assert facts.env == {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'}
    assert 'mine' not in facts.available


def test_hostile_texts_are_facts_and_nothing_more(image):
    text = '$(touch /tmp/evil); `id`\n\nend\n\\0 "\' ü'
    image.env('echo noise; echo end\nexport WITH_CONDA="%s"\nexport PIP_CERT=\n' % re.sub(r'([$`"\\])', r'\\\1', text))
    image.file('/bin/two\nlines')
    image.file('/bin/*')
    image.file('/bin/-n')
    image.file("/bin/it's $HOME")
    facts = image.look(['ls', "it's $HOME"])
    assert facts.env['WITH_CONDA'] == text
    assert facts.env['PIP_CERT'] == ''
    assert {'two\nlines', '*', '-n', "it's $HOME"} < set(facts.available)
    assert facts.commands["it's $HOME"].path == "/bin/it's $HOME"


def test_commands_are_what_can_be_run(image):
    image.file('/bin/readme', mode=0o644)
    (image.path / 'bin/directory').mkdir()
    (image.path / 'bin/dangling').symlink_to('/nowhere')
    assert not {'readme', 'directory', 'dangling'} & set(image.look().available)


def test_the_first_on_path_wins_and_relative_entries_do_not_count(image):
    image.file('/opt/a/tool')
    image.file('/opt/b/tool')
    image.file('/relative/other')
    image.env("export PATH=':relative:/opt/a/:/nosuch:/opt/b::/bin'\n")
    assert image.look(['tool']).commands['tool'].path == '/opt/a/tool'
    assert 'other' not in image.look().available


def test_a_command_that_is_not_there(image):
    image.file('/usr/local/bin/samtools')
    err = image.error(['samtool'])
    assert str(err) == (
        "jax-24.10.eb: command 'samtool' is not in the image\n"
        '  closest  samtools\n'
        'hint: list what the image has: %s exec %s ls /usr/local/bin' % (RUNTIME().name, image.path))
    text = str(image.error(['samtool', '/opt/none', 'zzz', 'ls']))
    assert "command '/opt/none' is not in the image\n  closest  none\n" in text
    assert "error: jax-24.10.eb: command 'samtool' is not" in text and "command 'zzz' is not" in text


def test_an_image_that_does_not_start(image):
    shutil.rmtree(image.path)
    image.path.write_text('no image')
    err = image.error()
    text = str(err)
    assert text.startswith('jax-24.10.eb: the image does not start, or its shell does not work\n  command  ')
    assert '  exit code  255\n  last line  FATAL' in text
    assert text.endswith("%s /bin/sh -c 'echo it works'" % image.path)
    assert err.exit_code == TOOL


def test_a_shell_that_breaks_off(image):
    image.path.joinpath('bin/sh').unlink()
    image.file('/bin/sh', '#!/bin/busybox sh\nprintf "begin\\0easysif look-inside\\0env\\0A=B\\0"\n')
    assert 'the image does not start, or its shell does not work' in str(image.error())


def test_no_conda_where_there_is_none(image):
    image.file('/opt/condition/readme')
    image.file('/usr/local/conda-meta/history')  # images of BioContainers: conda's files in the system's directories
    assert image.look().conda is None
    assert str(image.error(conda_env='jax')) == (
        "jax-24.10.eb: conda_env 'jax' is not in the image\n"
        '  there  no conda environment at all\n'
        'hint: remove conda_env, or give its directory if it is in an unusual place')


@pytest.mark.parametrize('environment, python_env, conda_env, expected', [
    ('', None, 'other', '/opt/miniconda3/envs/other'),
    ('', None, 'base', '/opt/miniconda3'),
    ('', None, '/srv/pixi/envs/default/', '/srv/pixi/envs/default'),
    ('', None, '/opt/miniconda3/envs/jax', '/opt/miniconda3/envs/jax'),
    ('export CONDA_PREFIX=/opt/miniconda3/envs/other', 'jax', None, '/opt/miniconda3/envs/other'),
    ('export CONDA_PREFIX=/gone', 'jax', None, '/opt/miniconda3/envs/jax'),
    ('export WITH_CONDA="source /opt/miniconda3/bin/activate other"', 'jax', None, '/opt/miniconda3/envs/other'),
    ('export WITH_CONDA=". /opt/miniconda3/bin/activate"', 'jax', None, '/opt/miniconda3'),
    ('export WITH_CONDA="conda activate other"', None, None, '/opt/miniconda3/envs/other'),
    ('export WITH_CONDA=". /opt/miniconda3/bin/activate /opt/miniconda3/envs/jax"', None, None,
     '/opt/miniconda3/envs/jax'),
    ('export WITH_CONDA="source /elsewhere/it/bin/activate deep"', None, None, '/elsewhere/it/envs/deep'),
    ('export PATH=/opt/miniconda3/bin:$PATH', 'jax', None, '/opt/miniconda3/envs/jax'),
    ('export PATH=/opt/miniconda3/bin:$PATH', 'none', None, '/opt/miniconda3'),
    ('export PATH=/opt/miniconda3/envs/other/bin:$PATH', None, None, '/opt/miniconda3/envs/other'),
    ('export MAMBA_ROOT_PREFIX=/elsewhere/it', 'deep', None, '/elsewhere/it/envs/deep'),
    ('export CONDA_EXE=/elsewhere/it/bin/conda', 'deep', None, '/elsewhere/it/envs/deep'),
    ('', None, None, None),
])
def test_which_conda_environment_is_meant(image, environment, python_env, conda_env, expected):
    image.conda('/opt/miniconda3', 'jax', 'other')
    image.conda('/elsewhere/it', 'deep')
    image.file('/srv/pixi/envs/default/conda-meta/history')
    image.env(environment + '\n')
    image.file('/bin/python3', STAND_IN)
    found = image.look(python_env=python_env, conda_env=conda_env).conda
    assert (found and found.prefix) == expected


STAND_IN = '''#!/bin/sh
echo 'easysif look-inside-python {"version": "3.12.1", "prefix": "/p", "base_prefix": "/p", "has_pip": true,
 "has_venv": true,
 "has_ensurepip": false, "site_packages": ["/p/site-packages"], "scripts": [],
 "distributions": {}}' | /bin/sed ':a;N;s/\\n//;ta'
'''  # Python without Python, where only the choice of it is tested


def test_names_and_roots_of_conda(image):
    image.conda('/opt/miniconda3', 'jax')
    assert image.look(conda_env='jax').conda == inspect.Conda('/opt/miniconda3/envs/jax', 'jax', '/opt/miniconda3')
    assert image.look(conda_env='base').conda == inspect.Conda('/opt/miniconda3', 'base', '/opt/miniconda3')


def test_an_only_conda_is_found_by_looking(image):
    image.conda('/opt/conda')
    assert image.look().conda.prefix == '/opt/conda'
    image.file('/opt/conda/envs/jax/conda-meta/history')
    assert image.look().conda.prefix == '/opt/conda/envs/jax'
    (image.path / 'opt/miniconda3').symlink_to('conda')
    assert image.look().conda.prefix == '/opt/conda/envs/jax'


def test_a_conda_environment_that_is_not_there(image):
    image.conda('/opt/miniconda3', 'pytorch', 'vllm')
    assert str(image.error(conda_env='pytorsh')) == (
        "jax-24.10.eb: conda_env 'pytorsh' is not in the image\n"
        '  there  base (/opt/miniconda3), pytorch (/opt/miniconda3/envs/pytorch), vllm (/opt/miniconda3/envs/vllm)\n'
        "hint: did you mean 'pytorch'?")
    assert ('hint: name one of them, by its directory where it is in an unusual place'
            in str(image.error(conda_env='zzz')))


def test_commands_and_python_of_the_conda_environment_come_first(python_image):
    python_image.conda('/opt/conda', 'jax')
    python_image.file('/opt/conda/envs/jax/bin/ls')
    python_image.file('/opt/conda/envs/jax/bin/python3', STAND_IN)
    facts = python_image.look(['ls', 'cat', 'tool-of-conda'])
    assert facts.commands['ls'].path == '/opt/conda/envs/jax/bin/ls'
    assert facts.commands['cat'].path == '/bin/cat'
    assert 'tool-of-conda' in facts.available
    assert facts.python.path == '/opt/conda/envs/jax/bin/python3'
    assert facts.python.site_packages == ('/p/site-packages',)


def test_the_real_python_of_an_image(python_image):
    facts = python_image.look(['python3'], python_env='jax')
    python = facts.python
    assert python.path == '/usr/bin/python3'
    assert python.version == '%d.%d.%d' % sys.version_info[:3]
    assert (python.prefix, python.base_prefix, python.is_venv) == ('/usr', '/usr', False)
    assert (python.has_pip, python.has_venv, python.has_ensurepip) == (False, True, False)
    assert all(path.startswith('/usr/') and path.endswith('-packages') for path in python.site_packages)
    assert facts.commands['python3'] == inspect.Command('/usr/bin/python3', False)


def test_what_the_recipe_names_is_found_among_the_packages_of_python(python_image):
    where = python_image.look().python.site_packages[0]
    python_image.file(where + '/Toy_1-2.0.dist-info/METADATA', 'Name: Toy_1\nVersion: 2.0\n', 0o644)
    assert python_image.look(provides=['toy.1']).provides == {'toy.1': '2.0'}
    assert "provides names 'toy2', which is no" in str(python_image.error(provides=['toy2']))
    (python_image.path / 'bin/sh').unlink()
    assert "provides names 'toy.1'" in str(python_image.error(provides=['toy.1']))


def test_packages_in_the_home_of_the_caller_do_not_count(python_image, tmp_path, monkeypatch):
    version = 'python' + sysconfig.get_python_version()
    local = tmp_path / 'home/.local/lib' / version / 'site-packages/pip'
    local.mkdir(parents=True)
    (local / '__init__.py').write_text('')
    monkeypatch.setenv('PYTHONPATH', str(local.parent))
    python = python_image.look().python
    assert not python.has_pip
    assert not [path for path in python.site_packages if 'home' in path]


def test_modules_that_python_has(python_image):
    stdlib = next(path for path in python_image.path.glob('usr/lib/python3.*') if path.is_dir())
    (stdlib / 'ensurepip').mkdir()
    (stdlib / 'ensurepip/__init__.py').write_text('')
    python = python_image.look(['python', 'python3', 'pip', 'pip3'], python_env='jax').python
    assert python.has_ensurepip


def test_a_python_that_is_a_venv_itself(python_image):
    version = 'python' + sysconfig.get_python_version()
    python_image.file('/opt/venv/pyvenv.cfg', 'home = /usr/bin\ninclude-system-site-packages = false\n')
    python_image.file('/opt/venv/lib/%s/site-packages/pip/__init__.py' % version, '')
    (python_image.path / 'opt/venv/bin').mkdir()
    (python_image.path / 'opt/venv/bin/python3').symlink_to('/usr/bin/python3')
    python_image.env('export LD_LIBRARY_PATH=/usr/libraries VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:/usr/bin:/bin\n')
    python_image.file('/opt/venv/bin/mine', '#!/opt/venv/bin/python3\n')
    python_image.file('/opt/venv/bin/theirs', '#!/usr/bin/python3\n')
    facts = python_image.look(['mine', 'theirs'])
    assert facts.python.is_venv and facts.python.has_pip
    assert (facts.python.prefix, facts.python.base_prefix) == ('/opt/venv', '/usr')
    assert facts.python.site_packages == ('/opt/venv/lib/%s/site-packages' % version,)
    assert facts.env['VIRTUAL_ENV'] == '/opt/venv'
    assert facts.commands['mine'].is_python_script
    assert not facts.commands['theirs'].is_python_script  # it would not see its packages with the venv's Python


def test_scripts_of_the_images_python(python_image):
    ours = ['#!/usr/bin/python3\nprint()\n', '#!/usr/bin/python3 -sE\n', '#! /bin/../usr/bin/python3\n',
            '#!/usr/bin/env python3\n', '#!/usr/bin/env -S python3 -u\n',
            "#!/bin/sh\n'''exec' /usr/bin/python3 \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' \"/usr/bin/python3\" \"$0\" \"$@\"\n' '''\n"]
    others = ["#!/bin/sh\n'''exec' \"/opt/with a space/python3\" \"$0\" \"$@\"\n' '''\n",
              '#!/opt/other/bin/python3\n', '#!/bin/sh\npython3 "$@"\n', '#!/usr/bin/env bash\n', '#!\n',
              '\x7fELF\0\0python', '']
    for number, text in enumerate(ours + others):
        python_image.file('/bin/script-%02d' % number, text)
    commands = python_image.look(['script-%02d' % number for number in range(len(ours + others))]).commands
    assert [command.is_python_script for _, command in sorted(commands.items())] == (
        [True] * len(ours) + [False] * len(others))


def test_a_command_that_may_be_run_and_not_read(python_image):
    python_image.file('/bin/secret', mode=0o111)
    assert not python_image.look(['secret']).commands['secret'].is_python_script


def test_python_env_needs_a_python(image):
    image.conda('/opt/miniconda3', 'a', 'b')
    assert str(image.error(python_env='jax')) == (
        'jax-24.10.eb: python_env is given, but the image has no python\n'
        '  searched  /bin\n'
        'hint: name its conda environment in conda_env: base, a, b')
    shutil.rmtree(image.path / 'opt')
    assert str(image.error(python_env='jax')).endswith(
        '\nhint: remove python_env, or take an image that has Python 3')


def test_python_env_needs_a_python_that_starts(image):
    image.file('/usr/bin/python3', '#!/bin/sh\necho libpython is gone >&2\nexit 127\n')
    err = image.error(['ls'], python_env='jax')
    text = str(err)
    assert text.startswith("jax-24.10.eb: the image's Python does not start: /usr/bin/python3\n  command  ")
    assert '  exit code  127\n  last line  libpython is gone\nhint: try it by hand: ' in text
    assert text.endswith('%s /usr/bin/python3 --version' % image.path)
    assert err.exit_code == TOOL
    assert image.look(['ls']).python is None  # whoever only wants ls does not care


@pytest.mark.parametrize('change, wrong, version', [
    (('3.12.1', '2.7.18'), 'is older than Python 3', '2.7.18'),
    (('"has_venv": true', '"has_venv": false'), 'has no module venv', '3.12.1')])
def test_python_env_needs_a_python_that_makes_venvs(image, change, wrong, version):
    image.file('/usr/bin/python', STAND_IN.replace(*change))
    assert str(image.error(python_env='jax')) == (
        "jax-24.10.eb: python_env is given, but the image's python %s\n"
        '  python  /usr/bin/python  (%s)\n'
        'hint: remove python_env, or add a complete Python 3 to the image (Debian: python3-venv)' % (wrong, version))
    assert image.look().python.version == version


def test_commands_that_the_venv_brings(image):
    image.file('/usr/bin/python3', STAND_IN)
    brought = ['python', 'python3.12', 'pip', 'pip3', 'pip3.12']
    assert image.look(brought, 'jax').commands == dict.fromkeys(brought, inspect.Command(None))
    not_brought = ['python3.1', 'python3.11', 'python2', 'pip4', 'pipx']
    for words, python_env in ((not_brought, 'jax'), (brought, None)):
        text = str(image.error(words, python_env))
        assert re.findall("command '(.*)' is not in the image", text) == sorted(words)


def test_no_pip_in_the_venv_of_a_python_that_has_none(image):
    image.file('/usr/bin/python3', STAND_IN.replace('"has_pip": true', '"has_pip": false'))
    assert "command 'pip' is not in the image" in str(image.error(['pip'], 'jax'))


def test_two_container_starts_tell_all(python_image, monkeypatch):
    started = []
    monkeypatch.setattr(asking, 'run', lambda argv, **kwargs: started.append(argv) or run(argv, **kwargs))
    python_image.look(['ls', 'python3'], python_env='jax')
    assert len(started) == 2


def test_a_sif_file_is_seen_as_its_directory_was(python_image, tmp_path):
    python_image.conda('/opt/conda')
    python_image.file('/bin/script', '#!/usr/bin/python3\n')
    python_image.env('export LD_LIBRARY_PATH=/usr/libraries WITH_CONDA=". /opt/conda/bin/activate"\n')
    found = RUNTIME()
    sif = tmp_path / 'it is $x.sif'
    run([found.path, 'build', str(sif), str(python_image.path)], env=found.environment())
    expected = python_image.look(['script'])
    python_image.path = sif
    assert python_image.look(['script']) == expected


@pytest.mark.parametrize('shell', ['dash', 'bash', 'busybox sh', 'bash --posix'])
def test_every_posix_shell_tells_the_same(image, shell):
    image.conda('/opt/conda', 'jax')
    env = {'PATH': '%s/bin:/usr/bin' % image.path, 'CONDA_PREFIX': '%s/opt/conda' % image.path}
    outputs = []
    for words in (shell.split(), ['sh']):
        with open(helper('look-inside')) as script:
            outputs.append(subprocess.run([shutil.which(words[0]), *words[1:], '-s', '--', '/bin/bash'], stdin=script,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True, env=env).stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].endswith(b'end\0\0') and b'file\0/bin/bash\0' in outputs[0] and b'conda\0' in outputs[0]
