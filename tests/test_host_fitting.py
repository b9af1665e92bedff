# SPDX-License-Identifier: GPL-2.0-only
"""What an install says of libraries of the host that do not go with its image, without a container."""

import dataclasses
import types

import pytest

from easysif import site
from easysif.errors import EasySIFError
from easysif.node import fitting, inside
from easysif.site import Need

OLD = "version `GLIBC_2.38' not found (required by %s)"


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """A function that has the helper inside say something, and holds a recipe against it (str or None)."""
    for name in ('libmpi.so.12', 'libcxi.so.1'):
        (tmp_path / name).touch()
    provides = {'mpi': Need((), {}, requires=('net',), libraries=('%s/libmpi.so.12' % tmp_path,)),
                'net': Need((), {}, libraries=('%s/libcxi.so.1' % tmp_path,)), 'scratch': Need(('/scratch',), {})}
    here = dataclasses.replace(site.resolve({}).site, provides=provides, name='lumi')

    def say(text, *words, optional=()):
        def run(argv, **_):
            assert '/host/net/libcxi.so.1' in argv
            return types.SimpleNamespace(stdout=text, stderr='FATAL: no shell\n', status=255)
        monkeypatch.setattr(inside, 'run', run)
        runtime = types.SimpleNamespace(exec_argv=lambda image, argv, **_: argv, environment=lambda *_, **__: {},
                                        name='apptainer')
        recipe = types.SimpleNamespace(where='osu-7.5.eb', needs=words, optional_needs=optional)
        return fitting.check('osu.sif', here, recipe, runtime)
    return say


def library(name, line=''):
    """Return what the helper says of a library (str)."""
    return 'easysif-check library %s\n%s\n' % (name, line and '%s: %s' % (name, line % name))


DONE = 'easysif-check done\n'


def test_what_fits_and_what_brings_no_library_is_nothing_to_tell(fit):
    assert fit(library('/host/mpi/libmpi.so.12') + 'easysif-check mpi /usr/lib/libmpi.so.12\n' + DONE, 'mpi') is None
    assert fit(DONE, 'mpi') is None, 'an image without MPI in the usual places'
    assert fit('never asked', 'scratch') is None and fit('never asked') is None


def test_an_mpi_that_cannot_be_loaded_is_an_error_also_where_the_need_is_optional(fit):
    for optional in ((), ('mpi',)):
        with pytest.raises(EasySIFError) as raised:
            fit(library('/host/mpi/libmpi.so.12', OLD) + DONE, 'mpi', optional=optional)
        assert str(raised.value) == """\
osu-7.5.eb: the image cannot load the MPI of site 'lumi'
  /host/mpi/libmpi.so.12  needs GLIBC_2.38, which the image does not have
hint: use an image whose C library is not older than that of the host, or take the need out of the recipe"""


def test_another_mpi_is_an_error_or_a_note_where_all_that_bring_it_are_optional(fit):
    text = 'easysif-check mpi /usr/lib/libmpi.so.40\n' + DONE
    told = """\
osu-7.5.eb: the MPI of the image is not that of site 'lumi', so that each rank would be alone
  image  libmpi.so.40 (Open MPI)
  site   libmpi.so.12 (MPICH)
hint: use an image with MPICH; with a ? behind the need the image runs with its own"""
    with pytest.raises(EasySIFError) as raised:
        fit(text, 'net', 'mpi', optional=('net',))
    assert str(raised.value) == told
    assert fit(text, 'net', 'mpi', optional=('mpi',)) == told
    assert fit(text, 'net') is None


def test_other_libraries_that_cannot_be_loaded_are_a_note(fit):
    assert fit(library('/host/net/libcxi.so.1', OLD) + DONE, 'mpi') == """\
osu-7.5.eb: libraries of site 'lumi' cannot be loaded in the image
  /host/net/libcxi.so.1  needs GLIBC_2.38, which the image does not have
hint: use an image whose C library is not older than that of the host"""
    assert fit(library('/host/net/libcxi.so.1', 'undefined symbol: x\t(%s)') + DONE, 'net') is None


def test_an_image_that_cannot_be_asked_is_a_note(fit):
    assert fit('', 'net') == (
        'osu-7.5.eb: libraries of the host could not be tried in the image: no shell of the image could be started '
        '(FATAL: no shell)\nhint: apptainer exec osu.sif /bin/sh')
