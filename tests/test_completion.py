# SPDX-License-Identifier: GPL-2.0-only
"""easysif completion: what real shells make of a Tab."""

import json
import os
import subprocess
import sys

import pytest

from harness import CLONE, long
from made_up import MadeUp
from standins import on_terminal

#: how each shell is started without its user's files, and how completion is switched on there
SHELLS = {'bash': (['bash', '--norc', '-i'], 'eval "$(easysif completion bash)"'),
          'fish': (['fish', '--no-config', '-i', '-C', "function fish_prompt; printf '$ '; end"],
                   'easysif completion fish | source'),
          'zsh': (['zsh', '-f', '-i'], 'autoload -U compinit && compinit -D -u && eval "$(easysif completion zsh)"')}


@pytest.fixture
def env(tmp_path):
    """The environment of a user with a module toy/1.7 in a prefix, and a recipe in the working directory (dict)."""
    MadeUp(tmp_path / 'pre fix', 'toy/1.7')
    (tmp_path / 'mine-1.0.eb').write_text('')
    return dict(os.environ, EASYBUILD_PREFIX=str(tmp_path / 'pre fix'), EB_PYTHON=sys.executable, TERM='dumb', PS1='$ ',
                PATH='%s:%s' % (CLONE / 'tools' / 'bin', os.environ['PATH']), PYTHONPATH=os.pathsep.join(sys.path))


@pytest.mark.long
@pytest.mark.parametrize('shell', SHELLS)
def test_a_shell_completes_what_is_typed(shell, env, tmp_path):
    argv, switch = SHELLS[shell]
    status, shown = on_terminal(argv, env, [
        ('$ ', switch + '; echo re""ady\n'), ('ready\r', 'easysif over\t'), ('overlay ', 'sta\t'), ('status ', 'to\t'),
        ('toy/1.7', ' --js\t'), ('--json ', '; exit 7\n')], cwd=tmp_path, timeout=120)
    assert status == 7 and '"module": "toy/1.7"' in shown, shown


@pytest.mark.parametrize('line, words', [
    ('easysif ov', ['overlay ']),
    ('easysif verify to', ['toy/1.7 ']),
    ('easysif check mine', ['mine-1.0.eb ']),
    ('easysif command remove f', ['fine ']),
    ('easysif verify --js', ['--json ']),
    *map(long, (
        ('easysif verify --prefix /nowhere to', []),
        ('easysif check SAM', ['SAMtools-1.21-singularity.eb ']),
        ('easysif show to', ['toy/1.7 ']),
        ('easysif show SAM', ['SAMtools-1.21-singularity.eb ']),
        ('easysif store add mine', ['mine-1.0.eb ']),
        ('easysif completion z', ['zsh ']),
        ('easysif kernel add to', ['toy/1.7 ']),
        ('easysif job to', ['toy/1.7 ']),
        ('easysif command add to', ['toy/1.7 ']),
        ('easysif command add mine', ['mine-1.0.eb ']))),
])
def test_what_is_offered(line, words, env, tmp_path):
    env.update(_ARGCOMPLETE='1', _ARGCOMPLETE_IFS='\n', _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / 'out'),
               COMP_LINE=line, COMP_POINT=str(len(line)), COMP_TYPE='9')
    if 'command remove' in line:
        subprocess.run([sys.executable, '-m', 'easysif.cli', 'command', 'add', 'toy', 'fine'], cwd=tmp_path,
                       env={key: value for key, value in env.items() if not key.startswith('_ARG')}, check=True)
    assert subprocess.run([sys.executable, '-m', 'easysif.cli'], env=env, cwd=tmp_path).returncode == 0
    assert [word for word in (tmp_path / 'out').read_text().split('\n') if word] == words


@pytest.mark.parametrize('shell', SHELLS)
def test_the_script_is_said_as_json_too(shell, easysif):
    code, script, _ = easysif('completion', shell)
    told, out, err = easysif('completion', shell, '--json')
    assert (code, told, err) == (0, 0, '') and 'easysif' in script
    assert json.loads(out) == {'shell': shell, 'script': script[:-1]}
