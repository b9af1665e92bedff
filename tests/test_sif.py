# SPDX-License-Identifier: GPL-2.0-only
"""images/sif.py: real SIF files are read; whatever else comes along is named for what it is."""

import os
import shutil
import struct
from types import SimpleNamespace

import pytest

from easysif import runtime
from easysif.errors import EasySIFError
from easysif.images import sif
from easysif.run import run

WHERE = 'jax-24.10.eb'


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """A SIF of the real runtime (Path)."""
    directory = tmp_path_factory.mktemp('image')
    root = directory / 'root/bin'
    root.mkdir(parents=True)
    shutil.copy(shutil.which('busybox'), root)
    found = runtime.find(SimpleNamespace(runtime='auto'))
    run([found.path, 'build', str(directory / 'x.sif'), str(root.parent)], env=found.environment())
    return directory / 'x.sif'


@pytest.fixture
def broken(image, tmp_path):
    """A function that writes a copy of the SIF, changed by a function of its bytes (str)."""
    def write(change):
        data = bytearray(image.read_bytes())
        path = tmp_path / 'x.sif'
        path.write_bytes(change(data) or data)
        return str(path)
    return write


def error(path):
    with pytest.raises(EasySIFError) as err:
        sif.read(str(path), WHERE)
    return str(err.value).replace(os.path.dirname(str(path)), 'DIR')


def test_a_real_image_is_read(image):
    found = sif.read(str(image), WHERE)
    assert found.path == str(image)
    assert (found.size, found.filesystem) == (image.stat().st_size, 'squashfs')
    with open(image, 'rb') as handle:
        handle.seek(found.partition_offset)
        assert handle.read(4) == b'hsqs'
    assert found.partition_offset + found.partition_size <= found.size
    sif.check_architecture(found, WHERE)


def test_an_image_for_other_processors(image):
    found = sif.Sif('/x.sif', 1, 'arm64', 0, 1, 'squashfs')
    with pytest.raises(EasySIFError) as err:
        sif.check_architecture(found, WHERE, 'x86_64')
    assert str(err.value) == (
        'jax-24.10.eb: image is made for other processors than those of this machine\n'
        '  image    arm64  (/x.sif)\n'
        '  machine  amd64\n'
        'hint: name an image for amd64 in the recipe, or install on a machine with arm64')


@pytest.mark.parametrize('architecture, machine', [
    ('amd64', 'x86_64'), ('arm64', 'aarch64'), ('386', 'x86_64'), ('ppc64le', 'ppc64le'), ('unknown', 'x86_64')])
def test_images_that_this_machine_runs(architecture, machine):
    sif.check_architecture(sif.Sif('/x.sif', 1, architecture, 0, 1, 'squashfs'), WHERE, machine)


@pytest.mark.parametrize('code, architecture', [(b'04', 'arm64'), (b'12', 'riscv64'), (b'00', 'unknown')])
def test_the_architecture_is_that_of_the_root_file_system(broken, code, architecture):
    def change(data):
        at = data.index(b'\x01\0\0\0\x02\0\0\0', 4096)  # squashfs, primary system: the extra of the descriptor
        data[at + 8:at + 10] = code
    assert sif.read(broken(change), WHERE).architecture == architecture


def test_no_file_at_all(tmp_path):
    assert error(tmp_path / 'a b.sif') == (
        "jax-24.10.eb: image file cannot be read: DIR/a b.sif (No such file or directory)\nhint: ls -l 'DIR/a b.sif'")


@pytest.mark.parametrize('content, found, hint', [
    (b'', 'an empty file', 'fetch it again'),
    (b'\n<!DOCTYPE html><html>Log in', 'a web page', 'one that asks for a login'),
    (b'hsqs' + bytes(100), 'a bare squashfs file system', "apptainer build new.sif 'DIR/x y.sif'"),
    (b'\x1f\x8b\x08' + bytes(100), 'a gzip archive', "docker-archive:'DIR/x y.sif'"),
    (b'Bootstrap: docker\nFrom: alpine\n', 'a definition file', 'a name that ends in .def'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'a Git LFS pointer', 'git lfs pull'),
    (b'{"errors": []}', 'JSON text', "head -c 500 'DIR/x y.sif'"),
    (bytes(1000), 'something else', "file 'DIR/x y.sif'"),
    (b'#!/usr/bin/env run-singularity\n\0SIF_MAG', 'something else', 'look what it is'),
])
def test_a_file_that_is_no_sif(tmp_path, content, found, hint):
    path = tmp_path / 'x y.sif'
    path.write_bytes(content)
    text = error(path)
    assert text.startswith('jax-24.10.eb: image is no SIF file: DIR/x y.sif\n  found  %s, %d bytes\nhint: '
                           % (found, len(content)))
    assert hint in text


@pytest.mark.parametrize('left', [5000, 40000, -4096, -1])
def test_a_truncated_image(broken, image, left):
    size = image.stat().st_size
    kept = left if left > 0 else size + left
    text = error(broken(lambda data: data[:kept]))
    assert text.startswith('jax-24.10.eb: image is not complete: DIR/x.sif\n  size    %d bytes\n  needed  ' % kept)
    assert 'bytes, says its header\nhint: fetch it again, and compare its size or checksum' in text


def test_a_root_file_system_that_needs_more_than_there_is(broken, image):
    found = sif.read(str(image), WHERE)

    def change(data):
        struct.pack_into('<Q', data, found.partition_offset + 40, 10 ** 12)
    assert error(broken(change)) == (
        'jax-24.10.eb: image is damaged: DIR/x.sif\n'
        '  because  its root file system needs 1000000000000 bytes and has %d\n'
        'hint: fetch it again, and compare its size or checksum with what its publisher says' % found.partition_size)


def test_a_root_file_system_that_is_none(broken, image):
    start = sif.read(str(image), WHERE).partition_offset

    def change(data):
        data[start:start + 4] = b'\0\0\0\0'
    assert 'because  its root file system does not begin as a squashfs does' in error(broken(change))


@pytest.mark.parametrize('offset, value', [(88, 0), (88, -1), (88, 1 << 40), (96, -5)])
def test_a_header_that_makes_no_sense(broken, offset, value):
    def change(data):
        struct.pack_into('<q', data, offset, value)
    assert 'image is damaged: DIR/x.sif\n  because  its table of contents makes no sense' in error(broken(change))


def test_a_descriptor_that_makes_no_sense(broken):
    def change(data):
        struct.pack_into('<q', data, 4096 + 17, -7)
    assert 'its table of contents makes no sense' in error(broken(change))


def test_an_image_without_a_root_file_system(broken):
    def change(data):
        at = data.index(b'\x01\0\0\0\x02\0\0\0', 4096)
        data[at + 4] = 3  # a partition of data
    text = error(broken(change))
    assert text == ('jax-24.10.eb: image holds no root file system: DIR/x.sif\n'
                    'hint: make a SIF that can be run: apptainer build new.sif docker://…')
