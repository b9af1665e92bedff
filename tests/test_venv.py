# SPDX-License-Identifier: GPL-2.0-only
"""The virtual environments that are made inside images: the order of what is imported."""

import importlib.util
import subprocess
import sys

import pytest

from easysif.data import helper

OVERLAY, SHARED, LAYER = 'user-software', 'shared-software', 'layer'


def load(name):
    """Return a Python file of runscripts/lib as a module."""
    spec = importlib.util.spec_from_file_location(name, helper('runscripts/lib/%s.py' % name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environments(tmp_path, monkeypatch):
    """A function that makes the environments of one name in some places; each has ``who``, and its own package."""
    make_venv = load('make_venv')
    monkeypatch.setattr(make_venv, 'PLACES', tuple(str(tmp_path / name) for name in (OVERLAY, SHARED, LAYER)))

    def make(*places):
        for place in places:
            directory = tmp_path / place / 'venv' / 'x'
            make_venv.main(str(directory))
            packages, = (directory / 'lib').glob('python*/site-packages')
            (packages / 'who.py').write_text('name = %r\n' % place)
            (packages / ('of_%s.py' % place.replace('-', '_'))).touch()
        return tmp_path
    return make


def python(directory, code, **options):
    argv = [directory / 'venv' / 'x' / 'bin' / 'python', '-E', '-s', '-c', code]
    return subprocess.run(argv, capture_output=True, text=True, **options).stdout


def test_what_is_above_hides_what_is_below_and_both_are_seen(environments):
    top = environments(LAYER, SHARED, OVERLAY)
    code = 'import who, of_layer, of_shared_software, pip; print(who.name, pip.__file__)'
    assert python(top / SHARED, code).split()[0] == SHARED
    who, pip = python(top / OVERLAY, code).split()
    assert who == OVERLAY and not pip.startswith(str(top))
    order = [line for line in python(top / OVERLAY, 'import sys; print("\\n".join(sys.path))').splitlines()
             if line.endswith('-packages')]
    tail = 'venv/x/lib/python%d.%d/site-packages' % sys.version_info[:2]
    assert order[:3] == [str(top / place / tail) for place in (OVERLAY, SHARED, LAYER)] and len(order) > 3
    assert python(top / LAYER, 'import who; print(who.name)') == 'layer\n'
    assert python(top / LAYER, 'import of_user_software') == ''


def test_what_comes_and_goes_below_is_seen_when_it_is_there(environments):
    top = environments(OVERLAY)
    code = 'import of_layer; print("there")'
    assert python(top / OVERLAY, code) == ''
    environments(LAYER)
    assert python(top / OVERLAY, code) == 'there\n'
    (top / LAYER).rename(top / 'gone')
    assert python(top / OVERLAY, code) == ''


def test_an_environment_elsewhere_sees_none_of_them(environments, tmp_path):
    assert load('make_venv').places_below(str(tmp_path / 'x')) == []
    top = environments(LAYER, 'other')
    assert python(top / 'other', 'import of_layer; print("there")') == ''
