# SPDX-License-Identifier: GPL-2.0-only
"""What the text of `image` means."""

import pytest

from easysif.errors import INPUT, EasySIFError
from easysif.images.reference import (ARCHIVE, DEFINITION, DOCKER, FILE, LIBRARY, ORAS, SUPPORTED, URL,
                                      check_no_login, is_digest, parse)

DIGEST = 'sha256:' + '5f0c' * 16


@pytest.mark.parametrize('text, registry, repository, tag, digest', [
    ('docker://nvcr.io/nvidia/jax:24.10-py3', 'nvcr.io', 'nvidia/jax', '24.10-py3', ''),
    ('docker://debian', 'docker.io', 'library/debian', 'latest', ''),
    ('docker://debian:12', 'docker.io', 'library/debian', '12', ''),
    ('docker://user/tool', 'docker.io', 'user/tool', 'latest', ''),
    ('docker://docker.io/debian', 'docker.io', 'library/debian', 'latest', ''),
    ('docker://index.docker.io/user/tool:1', 'docker.io', 'user/tool', '1', ''),
    ('docker://localhost/tool', 'localhost', 'tool', 'latest', ''),
    ('docker://localhost:5000/tool:1', 'localhost:5000', 'tool', '1', ''),
    ('docker://host:5000/a/b/c:1', 'host:5000', 'a/b/c', '1', ''),
    ('docker://[::1]:5000/tool', '[::1]:5000', 'tool', 'latest', ''),
    ('docker://HOST/tool', 'HOST', 'tool', 'latest', ''),
    ('docker://quay.io/biocontainers/samtools:1.21--h50ea8bc_0', 'quay.io', 'biocontainers/samtools',
     '1.21--h50ea8bc_0', ''),
    ('docker://a.b/c__d/e-f.g_h:_x', 'a.b', 'c__d/e-f.g_h', '_x', ''),
    ('docker://debian@' + DIGEST, 'docker.io', 'library/debian', '', DIGEST),
    ('docker://nvcr.io/nvidia/jax:24.10@' + DIGEST, 'nvcr.io', 'nvidia/jax', '24.10', DIGEST),
])
def test_a_docker_reference_means_what_it_means_to_docker(text, registry, repository, tag, digest):
    found = parse(text, 'x.eb')
    assert (found.kind, found.text) == (DOCKER, text)
    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)


@pytest.mark.parametrize('text, kind', [
    ('jax.sif', FILE), ('sub/jax.sif', FILE), ('/images/j a x.sif', FILE), ('/images/é:x.sif', FILE),
    ('jax.def', DEFINITION), ('/defs/jax.def', DEFINITION),
])
def test_a_file_is_told_by_its_suffix(text, kind):
    found = parse(text, 'x.eb')
    assert (found.kind, found.path, found.name()) == (kind, text, text)


@pytest.mark.parametrize('text, name', [
    ('docker://debian', 'docker.io/library/debian:latest'),
    ('docker://a.b/c:1@' + DIGEST, 'a.b/c:1'),
    ('docker://a.b/c@' + DIGEST, 'a.b/c'),
])
def test_the_name_for_people_has_the_tag_and_no_digest(text, name):
    assert parse(text, 'x.eb').name() == name


@pytest.mark.parametrize('text, reason', [
    ('docker://nvcr.io/Nvidia/jax', 'the name must be in lower case'),
    ('docker://nvcr.io/nvidia/jax:', "tag '' is not up to 128 letters, digits and _ . -"),
    ('docker://nvcr.io/nvidia/jax:-1', "tag '-1' is not up to 128 letters, digits and _ . -"),
    ('docker://nvcr.io/nvidia/jax:' + 'x' * 129, "tag '%s' is not up to 128 letters, digits and _ . -" % ('x' * 129)),
    ('docker://nvcr.io/nvidia/jax@sha256:12', "digest 'sha256:12' is not sha256: and 64 hexadecimal digits"),
    ('docker://nvcr.io/nvidia/jax@', "digest '' is not sha256: and 64 hexadecimal digits"),
    ('docker://-bad.io/x', "'-bad.io' is not a host name"),
    ('docker://', "'' is not a name: letters, digits and single . _ - between them"),
    ('docker://nvcr.io/', "'' is not a name: letters, digits and single . _ - between them"),
    ('docker://nvcr.io/a//b', "'a//b' is not a name: letters, digits and single . _ - between them"),
    ('docker:///x', "'/x' is not a name: letters, digits and single . _ - between them"),
    ('docker://a.b/c d', "'c d' is not a name: letters, digits and single . _ - between them"),
    ('docker://a.b/' + 'x' * 255, 'the name is longer than 255 characters'),
])
def test_a_malformed_docker_reference_is_refused_with_its_reason(text, reason):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ("x.eb: image '%s' is not a docker reference\n  reason  %s\n"
                                 "hint: write it as docker pull takes it: image = 'docker://HOST/NAME:TAG'"
                                 % (text, reason))
    assert caught.value.exit_code == INPUT


@pytest.mark.parametrize('text, kind, registry, path, name', [
    ('oras://ghcr.io/a/b:1', ORAS, 'ghcr.io', '', 'ghcr.io/a/b:1'),
    ('oras://localhost:5000/b@' + DIGEST, ORAS, 'localhost:5000', '', 'localhost:5000/b'),
    ('library://a/b/c:1', LIBRARY, '', '', 'library://a/b/c:1'),
    ('https://a.b/d/x.sif', URL, 'a.b', 'd/x.sif', 'd/x.sif'),
    ('http://[::1]:80/x?download=1', URL, '[::1]:80', 'x?download=1', 'x?download=1'),
    ('docker-archive:x.tar', ARCHIVE, '', 'x.tar', 'x.tar'),
    ('oci-archive:/a b/x', ARCHIVE, '', '/a b/x', '/a b/x'),
])
def test_every_other_kind_has_its_parts(text, kind, registry, path, name):
    found = parse(text, 'x.eb')
    assert (found.kind, found.registry, found.path, found.name()) == (kind, registry, path, name)


@pytest.mark.parametrize('text, reason', [
    ('oras://a/b:1', "'a' is not a host name"), ('oras://a.b/X', 'the name must be in lower case'),
])
def test_an_oras_reference_has_a_host(text, reason):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ("x.eb: image '%s' is not an oras reference\n  reason  %s\n"
                                 "hint: write it as apptainer pull takes it: image = 'oras://HOST/NAME:TAG'"
                                 % (text, reason))


@pytest.mark.parametrize('text', ['https://', 'https://a.b', 'https://a.b/', 'https://-a/x', 'https://a:b/x',
                                  'https://a.b/x#y', 'http://[x/y'])
def test_an_address_is_that_of_a_file(text):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ("x.eb: image '%s' is not the address of a file\n"
                                 "hint: write image = 'https://HOST/PATH/NAME.sif'" % text)


@pytest.mark.parametrize('kind', ['docker', 'oras', 'library'])
def test_a_login_of_a_registry_is_refused_and_not_shown(kind):
    with pytest.raises(EasySIFError) as caught:
        parse(kind + '://me:secret@a.b:5000/c:1', 'x.eb')
    assert str(caught.value) == ('x.eb: image holds a login, which a recipe must not\n  host  a.b:5000\n'
                                 'hint: apptainer registry login --username NAME %s://a.b:5000' % kind)
    for text in ('docker://c:1@sha256:' + 'a' * 64, 'docker://a.b:5000/c@sha256:' + 'a' * 64):
        assert parse(text, 'x.eb').digest == 'sha256:' + 'a' * 64


@pytest.mark.parametrize('text', [
    'docker://me:sec/ret@a.b/c', 'docker://me:sec@ret@a.b/c', 'docker://me:sec ret@a.b/c', 'docker://secret@a.b/c',
    'DOCKER://me:secret@a.b/c', 'docker:me:secret@a.b/c', 'docker:/me:secret@a.b/c', 'me:secret@a.b/c',
    'ftp://me:secret@a.b/c', 'docker://me:secret@a.b/c@sha256:' + 'a' * 64])
def test_a_login_is_seen_however_it_is_spelled(text):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ('x.eb: image holds a login, which a recipe must not\n  host  a.b\n'
                                 'hint: apptainer registry login --username NAME docker://a.b')


def test_what_only_looks_like_a_login_is_none():
    for text in ('https://a.b/x@y/z.sif', 'https://a.b:80/x:1@y/z.sif', 'a@b/x.sif', 'docker-archive:a@b/x.tar'):
        assert parse(text, 'x.eb').text == text
    for text in ('/home/me@a.b/x.sif', 'me@a.b/x.def', '/a:b@c/x.sif'):
        check_no_login(text, 'x.eb')
        assert parse(text, 'x.eb').path == text
    with pytest.raises(EasySIFError, match="digest 'd' is not sha256"):
        parse('docker://a.b:5000/c@d', 'x.eb')


@pytest.mark.parametrize('text', ['https://me:hunter2@a.b/x.sif', 'https://me:hun/ter2@a.b/x.sif',
                                  'https://hunter2@a.b/x.sif', 'http:me:hunter2@a.b/x.sif'])
def test_a_login_in_an_address_is_refused_and_not_shown(text):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ('x.eb: image holds a login, which a recipe must not\n  host  a.b\n'
                                 'hint: write it into ~/.netrc: machine a.b login NAME password PASSWORD')


@pytest.mark.parametrize('text, message, hint', [
    ('docker:debian', "image 'docker:debian' is not a docker reference", "write image = 'docker://debian'"),
    ('docker:/debian', "image 'docker:/debian' is not a docker reference", "write image = 'docker://debian'"),
    ('https:/a.b/x.sif', "image 'https:/a.b/x.sif' is not a reference", "write image = 'https://a.b/x.sif'"),
    ('library:a/b', "image 'library:a/b' is not a reference", "write image = 'library://a/b'"),
    ('docker-archive:', "image 'docker-archive:' names no archive", "write image = 'docker-archive:NAME.tar'"),
    ('localhost:5000/a:1', "image 'localhost:5000/a:1' has no scheme", "write image = 'docker://localhost:5000/a:1'"),
    ('ftp://a.b/x.sif', "image 'ftp://a.b/x.sif': ftp: is not a kind of image",
     "write image = 'docker://…', or the name of a .sif or .def file"),
    ('nvcr.io/nvidia/jax', "image 'nvcr.io/nvidia/jax' is neither a reference nor a .sif or .def file",
     "write image = 'docker://nvcr.io/nvidia/jax', if it is in a registry"),
    ('.sif', "image '.sif' is neither a reference nor a .sif or .def file",
     "write image = 'docker://.sif', if it is in a registry"),
])
def test_what_is_no_image_gets_the_likely_spelling(text, message, hint):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == 'x.eb: %s\n  supported  %s\nhint: %s' % (
        message, SUPPORTED, hint)


@pytest.mark.parametrize('text', ['../../etc/x.sif', 'oci-archive:../x.tar'])
def test_a_path_does_not_climb_out_of_the_directories_that_are_searched(text):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == ("x.eb: image '%s' leaves the directories that are searched for images\n"
                                 "hint: write the file's name alone or its absolute path" % text)


@pytest.mark.parametrize('text', ['', ' ', 'x.sif ', ' docker://debian', 'docker://debian\n', 'a\tb.sif', 'a\x1bb.sif'])
def test_blanks_and_control_characters_are_refused(text):
    with pytest.raises(EasySIFError) as caught:
        parse(text, 'x.eb')
    assert str(caught.value) == (
        'x.eb: image %r is empty, or holds blanks at its ends or control characters\n'
        "  supported  %s\nhint: write image = 'docker://…'" % (text, SUPPORTED))


def test_a_value_of_another_type_is_refused():
    with pytest.raises(EasySIFError) as caught:
        parse(['docker://debian'], 'x.eb')
    assert str(caught.value) == ("x.eb: image must be a text, not ['docker://debian']\n"
                                 "hint: write image = 'docker://…'")


@pytest.mark.parametrize('text, good', [(DIGEST, True), (DIGEST.upper(), False), (DIGEST + '0', False),
                                        (DIGEST + '\n', False), ('5f0c' * 16, False), (None, False)])
def test_a_digest_is_sha256_and_64_digits(text, good):
    assert is_digest(text) is good
