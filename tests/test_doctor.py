# SPDX-License-Identifier: GPL-2.0-only
"""easysif doctor: a report for support, which names what breaks containers and holds no secret."""

import json

import pytest

from easysif.node import environment
from easysif.node.finding import NOTE, OK
from made_up import MadeUp

SECRET = 'hunter2-S3CRET'


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """An environment that has nothing that is told."""
    for name in list(environment.os.environ):
        if any(pattern.match(name) for pattern, _ in environment.KNOWN):
            monkeypatch.delenv(name)


def test_a_clean_shell_is_told(easysif):
    assert [(one.state, one.what) for one in environment.check()] == [
        (OK, 'nothing is set that is known to break containers')]
    code, out, err = easysif('doctor')
    assert err == '' and out.startswith('easysif  ') and code == (1 if 'problem ' in out else 0)
    assert 'nothing is set that is known to break containers' in out
    assert 'note     installed' in out and 'hint: easysif doctor --prefix DIR' in out


def test_what_breaks_containers_is_named(monkeypatch):
    for name in ('LD_PRELOAD', 'LD_LIBRARY_PATH', 'PYTHONPATH', 'PYTHONHOME', 'XALT_DIR', 'SINGULARITY_BIND',
                 'APPTAINERENV_X', 'APPTAINER_NV'):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv('EASYSIF_SET', 'APPTAINER_NV=1;SIF=x')
    assert [(one.state, one.what.partition(':')[0]) for one in environment.check()] == [
        (NOTE, 'LD_PRELOAD'), (NOTE, 'LD_LIBRARY_PATH'), (NOTE, 'PYTHONHOME, PYTHONPATH'), (NOTE, 'XALT_DIR'),
        (NOTE, 'APPTAINERENV_X, SINGULARITY_BIND')]
    assert all(one.hint and SECRET not in one.what + one.hint for one in environment.check())


@pytest.mark.parametrize('args', [[], ['--json']])
def test_the_report_holds_no_secret(easysif, monkeypatch, tmp_path, args):
    for name in ('APPTAINER_DOCKER_PASSWORD', 'SINGULARITYENV_TOKEN', 'HF_TOKEN', 'XALT_KEY', 'EASYSIF_SET',
                 'PYTHONPATH', 'EASYSIF_KEPT'):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv('https_proxy', 'http://user:%s@proxy' % SECRET)
    (tmp_path / 'site.yaml').write_text('container_env: {TOKEN: %s}\nbinds: [/nosuch]\n'
                                        'force: {container_env: {T: %s}}\n' % (SECRET, SECRET))
    monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
    code, out, err = easysif('doctor', *args)
    assert code == 1 and SECRET not in out + err and 'SINGULARITYENV_TOKEN' in out and '/nosuch is not on' in out
    if args:
        found = json.loads(out)
        assert list(found) == ['easysif', 'python', 'system', 'site', 'prefix', 'host', 'problems', 'findings']
        assert all(list(one) == ['state', 'topic', 'what', 'hint'] for one in found['findings'])
        assert found['site'] == 'site  (EASYSIF_SITE)' and found['problems'] >= 1


def test_a_site_file_that_is_not_valid_is_a_problem_of_the_report(easysif, monkeypatch, tmp_path):
    (tmp_path / 'site.yaml').write_text('bind: [/x]')
    monkeypatch.setenv('EASYSIF_SITE', str(tmp_path / 'site.yaml'))
    code, out, _ = easysif('doctor')
    assert code == 1 and "problem  site  %s/site.yaml:1: unknown key 'bind'" % tmp_path in out


def test_modules_that_cannot_work_are_named(easysif, prefix):
    made = MadeUp(prefix, 'x/1')
    code, out, _ = easysif('doctor', '--prefix', str(prefix))
    assert 'ok       installed   1 modules, of which 0 cannot work' in out
    made.sif.unlink()
    code, out, _ = easysif('doctor', '--prefix', str(prefix))
    assert code == 1 and 'problem  installed   x/1: ' in out and '1 modules, of which 1 cannot work' in out
