# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures of installed stand-ins. A test file that wants them says ``pytest_plugins = ['standin_fixtures']``."""

import pytest

import standins as library


@pytest.fixture(scope='session')
def standins(images, registry, tmp_path_factory):
    """A function that installs a stand-in once, into a prefix that belongs to others: ``standins('jax')`` (Module)."""
    directory = tmp_path_factory.mktemp('standins')
    done = {}

    def module(name):
        if name not in done:
            marker = directory / 'pre fix' / 'easysif' / 'prefix.json'
            if marker.exists():
                marker.chmod(0o644)
            done[name] = library.install(images.sif(name), name, directory / 'pre fix', **library.RECIPES[name])
            marker.chmod(0o444)
        return done[name]
    return module


@pytest.fixture
def standin(standins, tmp_path):
    """As `standins`, for a user with an empty overlay of their own in the test's directory."""
    return lambda name: standins(name).installed_for(tmp_path)
