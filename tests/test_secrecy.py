# SPDX-License-Identifier: GPL-2.0-only
"""Logins in the environment are hidden in what EasyBuild writes."""

import io
import logging
import re

import pytest

import toys
from easysif import secrecy

ENVIRONMENT = {'http_proxy': 'http://me:pass%20word@proxy:1', 'NO_PROXY': 'localhost', 'https_proxy': 'http://proxy:1',
               'APPTAINER_DOCKER_PASSWORD': 'p', 'MY_TOKEN': 'token12', 'HOME': '/home/me',
               'PIP_EXTRA_INDEX_URL': 'https://a:first@b https://c:second@d/e@f',
               'UV_INDEX': 'https://glpat-1@git.example/simple ssh://gitlab@git.example'}


def test_what_is_hidden_are_passwords_and_not_what_surrounds_them():
    assert set(secrecy.logins(ENVIRONMENT)) == {'pass%20word', 'pass word', 'token12', 'first', 'second', 'glpat-1'}


@pytest.mark.parametrize('before, names', [
    (None, {'HOME', 'NO_LOGIN'}), (secrecy.NAMES, {'HOME', 'NO_LOGIN'}), (re.compile('^HOM'), {'NO_LOGIN'})])
def test_reports_leave_variables_with_logins_out_and_what_the_user_wants_left_out(before, names):
    options = {'test_report_env_filter': before}
    secrecy.hide(None, options.get, options.__setitem__)
    wanted = options['test_report_env_filter']
    assert {name for name in (*ENVIRONMENT, 'NO_LOGIN') if not wanted.search(name)} == names


def test_logs_have_stars_instead(monkeypatch):
    monkeypatch.setattr(secrecy.os, 'environ', ENVIRONMENT)
    stream, parent = io.StringIO(), logging.getLogger('parent of the toy')
    handler = logging.StreamHandler(stream)
    parent.addHandler(handler)
    logger = logging.getLogger('parent of the toy.toy')
    options = {'test_report_env_filter': None}
    for _ in range(2):
        secrecy.hide(logger, options.get, options.__setitem__)
    assert len(handler.filters) == 1
    logger.warning('Restoring %s, 100%%', {'a': 'http://me:pass%20word@proxy:1'})
    logger.warning('%s', 'fine')
    parent.removeHandler(handler)
    assert stream.getvalue() == "Restoring {'a': 'http://me:***@proxy:1'}, 100%\nfine\n"


def test_no_command_prints_the_login_that_somebody_wrote_into_a_recipe(easysif, its_prefix, tmp_path):
    image = 'docker://me:hunter2@up.invalid/x/y:1'
    toys.recipe(tmp_path, image=image)
    for words in (('check', 'toy-1.0.eb'), ('check', '--json', 'toy-1.0.eb'), ('show', 'toy-1.0.eb'),
                  ('pin', 'toy-1.0.eb'), ('bump', 'toy-1.0.eb', '2.0'), ('store', 'add', '--store', 's', 'toy-1.0.eb'),
                  ('store', 'add', '--store', 's', image), ('new', 'toy', '1.0', '--image', image)):
        code, out, err = easysif(*words)
        assert code == 1 and 'image holds a login, which a recipe must not' in out + err, (words, out, err)
        assert 'hunter2' not in out + err and (words[-1] != 'toy-1.0.eb' or 'toy-1.0.eb:7' in out + err), words
