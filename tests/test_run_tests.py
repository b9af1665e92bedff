# SPDX-License-Identifier: GPL-2.0-only
"""tools/run-tests: what a caller of it can rely on. It runs itself here, on one test that takes no time."""

import os
import pwd

import pytest

import harness

ONE = ('tests/test_architecture.py', '-k', 'test_there_is_something_to_look_at')


@pytest.fixture
def run_tests(tmp_path):
    """A function that runs tools/run-tests with the cache of this session, as an ordinary user (Result)."""
    def call(*args, **options):
        env = {'EASYSIF_TEST_CACHE': str(harness.CACHE), 'PATH': harness.SYSTEM_PATH, 'HOME': str(tmp_path),
               'EASYBUILD_PREFIX': '/nonexistent', 'PYTHONPATH': '/nonexistent'}
        return harness.run([harness.CLONE / 'tools' / 'run-tests', *args], env=env, **options)
    return call


def test_help_says_what_it_does_and_does_nothing(run_tests):
    printed = run_tests('--help').stdout
    assert printed.startswith('Usage: tools/run-tests [--fast] [--benchmarks] [-k NAME] [PYTEST-ARGUMENT…]\n')
    assert 'seconds' not in printed and ' s] ' not in printed


def test_no_test_runs_as_root():
    assert os.getuid() and pwd.getpwuid(os.getuid()).pw_name != 'root'


@pytest.mark.e2e
def test_its_last_line_is_the_summary_of_pytest(run_tests):
    last = run_tests('--fast', *ONE).stdout.strip().splitlines()[-1]
    assert ' 1 passed' in last and 'failed' not in last


@pytest.mark.e2e
def test_its_exit_status_is_that_of_pytest(run_tests):
    assert run_tests('--fast', '-k', 'no_test_has_this_name', ONE[0], check=False).status == 5
    assert run_tests('--fast', '--no-such-option', check=False).status == 4


@pytest.mark.e2e
def test_it_tells_how_long_each_part_took(run_tests):
    printed = run_tests('--fast', *ONE).stdout
    for part in ('system parts', 'Python environment', 'container runtime', 'tests'):
        assert any(line.startswith('[') and ' s] %s' % part in line for line in printed.splitlines())
