# SPDX-License-Identifier: GPL-2.0-only
"""tools/run-tests: what a caller of it can rely on. It runs itself here, on one test that takes no time."""

import os
import pwd
import re

import pytest
from hypothesis import settings

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
    assert printed.startswith(
        'Usage: tools/run-tests [--fast] [--nightly] [--reliability] [--benchmarks] [-k NAME] [PYTEST-ARGUMENT…]\n')
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
def test_by_night_there_are_more_examples_and_a_seed_that_repeats_them(run_tests):
    one = ('tests/test_run_tests.py', '-k', 'test_the_profile_of_this_run', '-rP')
    assert 'profile: 40 examples, the same ones' in run_tests('--fast', *one).stdout
    printed = run_tests('--fast', '--nightly', *one).stdout
    assert 'profile: 10000 examples, others each time' in printed
    seed = re.search(r' s\] seed (\d+), unless another one was given; to repeat it: '
                     r'tools/run-tests --nightly --hypothesis-seed=(\d+)\n', printed)
    assert seed.group(1) == seed.group(2) and 'seed: %s\n' % seed.group(1) in printed
    assert 'seed: 5\n' in run_tests('--fast', '--nightly', '--hypothesis-seed=5', *one).stdout


def test_the_profile_of_this_run(request):
    """What the test before this one looks at."""
    kind = 'the same ones' if settings.default.derandomize else 'others each time'
    print('profile: %d examples, %s' % (settings.default.max_examples, kind))
    print('seed: %s' % request.config.getoption('--hypothesis-seed'))
    assert settings.default.deadline is None and settings.default.database is None


@pytest.mark.e2e
def test_it_tells_how_long_each_part_took(run_tests):
    printed = run_tests('--fast', *ONE).stdout
    for part in ('system parts', 'Python environment', 'container runtime', 'tests'):
        assert any(line.startswith('[') and ' s] %s' % part in line for line in printed.splitlines())
