# SPDX-License-Identifier: GPL-2.0-only
"""What is really built for a definition file."""

import os
from types import SimpleNamespace

import pytest

from easysif.errors import INPUT, EasySIFError
from easysif.images.definition import Base, derive
from helpers_registry import LoopbackRegistry, tiny_layout, tiny_rootfs
from test_images_fetch import push

VALUES = {'name': 'jax', 'version': '0.10.2', 'versionsuffix': '-cpu'}
POST = "\n%post\n  # Bootstrap is no header here, nor is From: x\n  echo '%d' 100% %(version)s\n"


@pytest.fixture(scope='module')
def loopback(tmp_path_factory):
    """A registry with library/debian:12 and team/tool:1."""
    directory = tmp_path_factory.mktemp('registry')
    layout = tiny_layout(directory, tiny_rootfs(directory / 'rootfs', commands=('dash',)))
    with LoopbackRegistry(directory / 'registry') as running:
        running.push(layout, 'library/debian:12')
        running.push(layout, 'team/tool:1')
        yield running


@pytest.fixture
def site(loopback):
    return SimpleNamespace(base_images={}, ca_certificates=None, registries=None,
                           registry_mirrors={'docker.io': [loopback.url], 'up.invalid': [loopback.url]})


@pytest.fixture
def definition(tmp_path):
    """A function that writes a definition file and returns its path (str)."""
    def write(text):
        path = tmp_path / 'x.def'
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)
    return write


def refusal(path, site):
    with pytest.raises(EasySIFError) as caught:
        derive(path, VALUES, site, 'x.eb')
    assert caught.value.exit_code == INPUT
    return str(caught.value)


def test_a_docker_base_becomes_its_digest_at_the_mirror(definition, site, loopback):
    found = derive(definition('Bootstrap: docker\nFrom: debian:12\n' + POST), VALUES, site, 'x.eb')
    digest = loopback.digest('library/debian:12')
    source = '%s/library/debian@%s' % (loopback.host, digest)
    assert found.text == ('Bootstrap: docker\nFrom: %s\n' % source + POST).replace('%(version)s', '0.10.2')
    assert found.bases == (Base('docker://debian:12', 'docker://' + source, digest),)
    assert found.base.resolved.uri == 'docker://' + source
    assert found.with_bases({'docker://' + source: '/made/base-0'}, 'x.eb') == (
        '# docker://debian:12 is docker://%s\nBootstrap: oci\nFrom: /made/base-0\n' % source + POST
    ).replace('%(version)s', '0.10.2')


def test_templates_are_resolved_everywhere_and_nothing_else_is(definition, site):
    text = 'Bootstrap: debootstrap\nOSVersion: %(version)s\n%post\n%(name)s%(versionsuffix)s %(toolchain)s %s %% $(x)s'
    found = derive(definition(text), VALUES, site, 'x.eb')
    assert found.text == 'Bootstrap: debootstrap\nOSVersion: 0.10.2\n%post\njax-cpu %(toolchain)s %s %% $(x)s'
    assert found.base == Base('debootstrap', 'debootstrap')


def test_templates_in_the_header_choose_the_base(definition, site, tmp_path):
    site.base_images = {'docker://jax:0.10.2': str(tmp_path)}
    found = derive(definition('Bootstrap: docker\nFrom: %(name)s:%(version)s\n'), VALUES, site, 'x.eb')
    assert found.base.reference == 'docker://jax:0.10.2'


def test_a_base_that_the_site_has_is_used_instead_of_pulling(definition, site, tmp_path):
    site.base_images = {'docker://python:3.11-slim-bookworm': str(tmp_path)}
    site.registry_mirrors = {}
    found = derive(definition('BootStrap : no\nbootstrap:docker\n# a comment\n'
                              ' FROM:  python:3.11-slim-bookworm # here\nIncludeCmd: yes\n' + POST),
                   VALUES, site, 'x.eb')
    assert found.text.startswith('BootStrap : no\nBootstrap: localimage\n# a comment\nFrom: %s\nIncludeCmd: yes\n'
                                 % tmp_path)
    assert found.base == Base('docker://python:3.11-slim-bookworm', str(tmp_path))


def test_registry_and_namespace_of_the_header_belong_to_the_reference(definition, site, loopback):
    text = 'Bootstrap: docker\nRegistry: up.invalid\nNamespace: team\nFrom: tool:1\n%post\n  true\n'
    found = derive(definition(text), VALUES, site, 'x.eb')
    assert found.base.reference == 'docker://up.invalid/team/tool:1'
    assert found.text == 'Bootstrap: docker\nFrom: %s/team/tool@%s\n%%post\n  true\n' % (
        loopback.host, loopback.digest('team/tool:1'))


def test_a_pinned_base_stays_pinned(definition, site, loopback):
    digest = loopback.digest('team/tool:1')
    found = derive(definition('Bootstrap: docker\nFrom: up.invalid/team/tool@%s\n' % digest), VALUES, site,
                   'x.eb')
    assert (found.base.digest, found.base.source.rpartition('@')[2]) == (digest, digest)


def test_an_artifact_of_a_registry_is_a_base_too(definition, site, loopback):
    digest = push(loopback, 'team/sif:1', b'a SIF file')
    found = derive(definition('Bootstrap: oras\nFrom: up.invalid/team/sif:1\n'), VALUES, site, 'x.eb')
    source = '%s/team/sif@%s' % (loopback.host, digest)
    assert found.text == 'Bootstrap: oras\nFrom: %s\n' % source
    assert (found.base, found.base.is_sif) == (Base('oras://up.invalid/team/sif:1', 'oras://' + source, digest), True)
    assert found.with_bases({'oras://' + source: '/made/base-0'}, 'x.eb') == (
        '# oras://up.invalid/team/sif:1 is oras://%s\nBootstrap: localimage\nFrom: /made/base-0\n' % source)


def test_a_place_to_build_in_that_no_definition_can_hold_is_refused(definition, site):
    found = derive(definition('Bootstrap: docker\nFrom: debian:12\n'), VALUES, site, 'x.eb')
    with pytest.raises(EasySIFError) as caught:
        found.with_bases({found.base.source: '/wo#rk/base-0'}, 'x.eb')
    assert str(caught.value).startswith("x.eb: the base image for 'docker://debian:12' has a path that no definition")


def test_other_bases_are_left_to_the_runtime(definition, site):
    text = 'Bootstrap: library\nFrom: a/b/c\n%post\n'
    found = derive(definition(text), VALUES, site, 'x.eb')
    assert (found.text, found.with_bases({}, 'x.eb'), found.base) == (text, text, Base(*['library://a/b/c'] * 2))


@pytest.mark.parametrize('name', ['/no/such.sif', 'such.sif', 'base/1.0'])
def test_a_base_that_is_no_file_here_is_named(definition, site, name):
    assert refusal(definition('Bootstrap: localimage\nFrom: %s\n' % name), site) == (
        "x.eb: the base of definition 'x.def' is not there: %s\n"
        "hint: add its directory with --sourcepath; for the image of a module ('NAME/VERSION'): "
        "builddependencies = [('NAME', 'VERSION')]" % name)


def test_a_directory_is_a_base_too(definition, site, tmp_path):
    (tmp_path / 'root').mkdir()
    found = derive(definition('Bootstrap: localimage\nFrom: root\n'), VALUES, site, 'x.eb')
    assert (found.base, found.text) == (Base('root', str(tmp_path / 'root')),
                                        'Bootstrap: localimage\nFrom: %s/root\n' % tmp_path)


def test_every_stage_has_its_base_and_the_last_one_is_the_images(definition, site, loopback, tmp_path):
    site.base_images = {'docker://golang:1': str(tmp_path)}
    text = ('Bootstrap: docker\nFrom: golang:1\nStage: build\n%post\n  true\n'
            'bootstrap: docker\nFrom: debian:12\n%files from build\n  /a /b\n')
    found = derive(definition(text), VALUES, site, 'x.eb')
    assert found.text == ('Bootstrap: localimage\nFrom: %s\nStage: build\n%%post\n  true\n'
                          'Bootstrap: docker\nFrom: %s\n%%files from build\n  /a /b\n'
                          % (tmp_path, found.base.source[len('docker://'):])).replace(
                              'Bootstrap: docker', 'bootstrap: docker')
    assert [base.reference for base in found.bases] == ['docker://golang:1', 'docker://debian:12']
    assert found.base.digest == loopback.digest('library/debian:12')


def test_bytes_that_are_no_text_pass_through(definition, site):
    found = derive(definition(b'Bootstrap: scratch\r\n%post\r\n  echo \xff\xfe\n'), VALUES, site, 'x.eb')
    assert found.text.encode('utf-8', 'surrogateescape') == b'Bootstrap: scratch\r\n%post\r\n  echo \xff\xfe\n'


def test_a_missing_definition_is_said_so(site, tmp_path):
    assert refusal(str(tmp_path / 'no.def'), site) == (
        "x.eb: definition file '%s/no.def' cannot be read (No such file or directory)\n"
        'hint: put it beside the recipe, or add its directory with --sourcepath' % tmp_path)


@pytest.mark.parametrize('text, reason', [
    ('', 'it has no line that starts with Bootstrap:'),
    ('%post\n  true\n', 'it has no line that starts with Bootstrap:'),
    ('From: debian\n', 'it has no line that starts with Bootstrap:'),
    ('Bootstrap: docker\n%post\nFrom: debian\n', "its header names no base after 'Bootstrap: docker'"),
    ('Bootstrap: docker\nFrom: # later\n', "its header names no base after 'Bootstrap: docker'"),
    ('Bootstrap:\n', "its header names no base after 'Bootstrap: '"),
])
def test_a_header_that_cannot_be_used_is_explained(definition, site, text, reason):
    path = definition(text)
    assert refusal(path, site) == (
        "x.eb: definition '%s' has no usable header\n  reason  %s\n"
        "hint: let it begin with two lines: 'Bootstrap: docker' and 'From: debian:12'" % (path, reason))


def test_a_base_of_the_site_that_is_not_there_names_the_setting(definition, site):
    site.base_images = {'docker://debian:12': '/no/such/base'}
    assert refusal(definition('Bootstrap: docker\nFrom: debian:12\n'), site) == (
        "x.eb: the site's base image for 'docker://debian:12' is not there\n  path  /no/such/base\n"
        "hint: correct base_images in the site file: 'docker://debian:12': /path/to/sif-or-directory")


@pytest.mark.parametrize('name', ['a#b', 'a{{b', 'a\\', 'a\tb'])
def test_a_base_of_the_site_whose_path_no_definition_can_hold_is_refused(definition, site, tmp_path, name):
    base = tmp_path / name
    base.mkdir()
    site.base_images = {'docker://debian:12': str(base)}
    assert refusal(definition('Bootstrap: docker\nFrom: debian:12\n'), site) == (
        "x.eb: the base image for 'docker://debian:12' has a path that no definition can hold\n  path  %s\n"
        'hint: move it to a path without # {{ \\ and control characters' % str(base).replace('\t', '\\t'))


def test_a_base_that_is_nowhere_names_recipe_and_definition(definition, site):
    path = definition('Bootstrap: docker\nFrom: up.invalid/team/none:1\n')
    with pytest.raises(EasySIFError) as caught:
        derive(path, VALUES, site, 'x.eb')
    assert str(caught.value).startswith(
        "x.eb: %s: image 'docker://up.invalid/team/none:1' is not to be had\n" % os.path.basename(path))


def test_a_base_that_nobody_can_have_signed_is_refused_where_it_has_to_be(definition, site, tmp_path):
    """The runtime would not say a word."""
    (tmp_path / 'tree').mkdir()
    (tmp_path / 'base.sif').touch()
    site.base_images = {'docker://site': str(tmp_path / 'base.sif'), 'docker://tree': str(tmp_path / 'tree')}
    text = 'Bootstrap: %s\nFrom: %s\nFingerprints: ABCD, EF\n'
    for bootstrap, origin, named in (('docker', 'up.invalid/team/tool:1', 'docker://up.invalid/team/tool:1'),
                                     ('localimage', 'tree', 'tree'), ('docker', 'tree', 'docker://tree'),
                                     ('docker-archive', 'x.tar', 'docker-archive://x.tar')):
        path = definition(text % (bootstrap, origin))
        assert refusal(path, site) == (
            "x.eb: definition '%s' wants a base that is signed, and only SIF files are\n"
            '  base          %s\n  fingerprints  ABCD, EF\n'
            'hint: take Fingerprints out of its header, and name the base by its digest: From: NAME@sha256:…'
            % (path, named))
    for bootstrap, origin in (('localimage', 'base.sif'), ('docker', 'site'), ('library', 'a/b:1')):
        assert '\nFingerprints: ABCD, EF\n' in derive(definition(text % (bootstrap, origin)), VALUES, site, 'x.eb').text


@pytest.mark.parametrize('bootstrap', ['docker', 'oras', 'library'])
def test_a_base_with_a_login_is_refused_and_the_login_not_shown(definition, site, tmp_path, bootstrap):
    site.base_images = {bootstrap + '://me:hunter2@a.b/c:1': str(tmp_path)}
    assert refusal(definition('Bootstrap: %s\nFrom: me:hunter2@a.b/c:1\n' % bootstrap), site) == (
        'x.eb: image holds a login, which a recipe must not\n  host  a.b\n'
        'hint: apptainer registry login --username NAME %s://a.b' % bootstrap)


def test_a_base_that_is_no_reference_is_explained(definition, site):
    assert refusal(definition('Bootstrap: docker\nFrom: Debian:12\n'), site) == (
        "x.eb: image 'docker://Debian:12' is not a docker reference\n  reason  the name must be in lower case\n"
        "hint: write it as docker pull takes it: image = 'docker://HOST/NAME:TAG'")


# Build arguments, and bases that are SIF files

ARGUED = """Bootstrap: docker
From: {{ from }}:{{version}}
# {{ untouched }}
%arguments
    from=debian
    version=11
    unused = 1
%post
    echo {{ word }} {{ from }}
"""


def test_build_arguments_stand_in_header_and_sections_and_have_defaults(definition, site, tmp_path):
    site.base_images = {'docker://debian:12': str(tmp_path)}
    found = derive(definition(ARGUED), VALUES, site, 'x.eb', {'word': 'a {{ b }}', 'version': '12'})
    assert found.base.reference == 'docker://debian:12'
    assert '    echo a {{ b }} debian\n' in found.text and '# {{ untouched }}\n' in found.text


@pytest.mark.parametrize('given, message, hint', [
    ({}, "needs the build argument 'word'", "write build_args = {'word': '…'}"),
    ({'word': '1', 'unused': '2'}, "has no build argument 'unused'", "remove 'unused' from build_args"),
])
def test_a_build_argument_too_few_or_too_many_is_named(definition, site, given, message, hint):
    path = definition(ARGUED)
    with pytest.raises(EasySIFError) as caught:
        derive(path, VALUES, site, 'x.eb', given)
    assert str(caught.value).startswith("x.eb: definition '%s' %s\n  has  " % (path, message))
    assert str(caught.value).endswith('hint: ' + hint)


def test_a_base_that_is_a_sif_file_is_found_and_its_digest_known(definition, site, tmp_path):
    (tmp_path / 'base.sif').write_text('base')
    asked = []
    found = derive(definition('Bootstrap: localimage\nFrom: base/1.0\n'), VALUES, site, 'x.eb',
                   find_base=lambda name: asked.append(name) or str(tmp_path / 'base.sif'))
    assert (asked, found.text) == (['base/1.0'], 'Bootstrap: localimage\nFrom: %s/base.sif\n' % tmp_path)
    assert found.base == Base('base/1.0', '%s/base.sif' % tmp_path,
                              'sha256:cae662172fd450bb0cd710a769079c05bfc5d8e35efa6576edc7d0377afdd4a2')
    assert not found.base.resolved
