# SPDX-License-Identifier: GPL-2.0-only
"""What recipes need and sites provide: what is missing, what conflicts, what comes with it, patterns in binds."""

import dataclasses
import os
import types

import pytest

import harness
from easysif import host_paths, needs, site, site_files
from easysif.errors import EasySIFError
from easysif.site import Need
from fakes import Fake, both


def recipe(*words, optional=()):
    """Return as much of a recipe as is looked at."""
    return types.SimpleNamespace(where='PyTorch-2.7.1.eb', needs=words, optional_needs=optional)


@pytest.fixture
def lumi(tmp_path, monkeypatch):
    """A function that resolves a site file of the text given (Site)."""
    def resolved(text):
        (tmp_path / 'lumi.yaml').write_text(text)
        return site.resolve({'HOME': str(tmp_path / 'home'), 'EASYSIF_SITE': str(tmp_path / 'lumi.yaml')}).site
    monkeypatch.chdir(tmp_path)
    return resolved


def message(function, *args):
    """Return what a call says when it raises our error."""
    with pytest.raises(EasySIFError) as raised:
        function(*args)
    return str(raised.value)


def test_a_need_that_the_site_lacks_is_an_error_that_lists_what_it_provides(lumi, monkeypatch, tmp_path):
    here = lumi('provides: {interconnect: {}}')
    assert needs.check_recipe(recipe(), here) is None
    assert needs.check_recipe(recipe('amd-gpu', 'interconnect'), here) is None
    assert message(needs.check_recipe, recipe('amd-gpus', 'tape'), here) == """\
PyTorch-2.7.1.eb: needs 'amd-gpus', which site 'lumi' does not provide
  provided  amd-gpu, ca-certificates, interconnect, nvidia-gpu, x11
hint: did you mean 'amd-gpu'? a new feature goes into lumi.yaml
error: PyTorch-2.7.1.eb: needs 'tape', which site 'lumi' does not provide
  provided  amd-gpu, ca-certificates, interconnect, nvidia-gpu, x11
hint: a new feature goes into lumi.yaml"""
    monkeypatch.chdir(site.SITES)
    assert message(needs.check_recipe, recipe('tape'), here).endswith('goes into %s/lumi.yaml' % tmp_path)


def test_certificates_are_provided_where_the_site_has_them(lumi):
    assert needs.check_recipe(recipe('ca-certificates'), lumi('ca_certificates: /etc/hosts')) is None
    own = lumi('ca_certificates: ""\nprovides: {ca-certificates: {binds: [/etc/pki]}}')
    assert needs.check_recipe(recipe('ca-certificates'), own) is None
    none = lumi('ca_certificates: ""')
    assert message(needs.check_recipe, recipe('ca-certificates'), none) == """\
PyTorch-2.7.1.eb: needs 'ca-certificates', which site 'lumi' does not provide
  provided  amd-gpu, nvidia-gpu, x11
hint: ca_certificates in lumi.yaml names the bundle"""
    assert "does without 'ca-certificates'" in needs.check_recipe(
        recipe('ca-certificates', optional=('ca-certificates',)), none)


def test_an_optional_need_that_the_site_lacks_is_said(lumi):
    here = lumi('provides: {interconnect: {}}')
    words = ('interconnect', 'tape', 'vnc')
    assert needs.check_recipe(recipe(*words, optional=words), here) == """\
PyTorch-2.7.1.eb: does without 'tape', 'vnc', which site 'lumi' does not provide
hint: a new feature goes into lumi.yaml"""


def test_needs_that_conflict_are_an_error_of_the_recipe_that_has_both(lumi):
    here = lumi('provides: {mpi: {requires: [net]}, net: {conflicts: [host-modules]}, host-modules: }')
    assert needs.check_recipe(recipe('net', 'mpi'), here) is None
    assert message(needs.check_recipe, recipe('mpi', 'host-modules'), here) == """\
PyTorch-2.7.1.eb: needs 'host-modules' and 'net', which conflict at site 'lumi'
hint: take one of them out of the recipe, or conflicts out of lumi.yaml"""


@pytest.mark.parametrize('text, expected', [
    ('provides:\n  mpi: {requires: [net]}\n  net:\n    requires: [slurm]\n  slurm: {requires: [mpi]}',
     'FILE:2: provides.mpi.requires goes in a circle: mpi -> net -> slurm -> mpi\nhint: take one of them out'),
    ('provides:\n  mpi:\n    binds: [/x]\n    requires: [mpi]',
     'FILE:4: provides.mpi.requires goes in a circle: mpi -> mpi\nhint: take one of them out'),
    ('provides: {a: {requires: [b]}, b: {requires: [c]}, c: {requires: [b]}}',
     'FILE:1: provides.b.requires goes in a circle: b -> c -> b\nhint: take one of them out'),
    ('provides:\n  mpi:\n    requires: [nett, x]\n  net: {conflicts: [y]}',
     "FILE:3: provides.mpi.requires names 'nett', which this site does not provide\n"
     "  provided  amd-gpu, ca-certificates, mpi, net, nvidia-gpu, x11\nhint: did you mean 'net'?\n"
     "error: FILE:3: provides.mpi.requires names 'x', which this site does not provide\n"
     "  provided  amd-gpu, ca-certificates, mpi, net, nvidia-gpu, x11\n"
     "error: FILE:4: provides.net.conflicts names 'y', which this site does not provide\n"
     "  provided  amd-gpu, ca-certificates, mpi, net, nvidia-gpu, x11"),
    ('provides:\n  mpi: {requires: [net, x]}\n  net: {conflicts: [x]}\n  x:\n',
     'FILE:2: provides.mpi requires net and x, which conflict\n'
     'hint: take one of them out of requires or conflicts'),
    ('provides: {a: {requires: [nvidia-gpu]}}', "FILE:1: provides.a.requires names 'nvidia-gpu', which switches the "
     "runtime's GPU support on\nhint: let the recipe name it: needs = ['a', 'nvidia-gpu']"),
])
def test_needs_of_a_site_that_do_not_fit_together_are_named_with_their_line(lumi, tmp_path, text, expected):
    assert message(lumi, text) == expected.replace('FILE', str(tmp_path / 'lumi.yaml'))


def test_needs_that_do_not_fit_together_in_two_layers_are_named_in_the_last(lumi, tmp_path, monkeypatch):
    monkeypatch.setenv('EASYSIF_PROVIDES', '{net: {requires: [mpi]}}')
    (tmp_path / 'home/.config/easysif').mkdir(parents=True)
    own = tmp_path / 'home/.config/easysif/site.yaml'
    own.write_text('\nprovides:\n\n  net: {requires: [mpi]}')
    assert message(lumi, 'provides: {mpi: {requires: [net]}, net: }') == (
        '%s/lumi.yaml:1: provides.mpi.requires goes in a circle: mpi -> net -> mpi\nhint: take one of them out'
        % tmp_path)


def test_what_a_need_requires_comes_with_it(tmp_path):
    (tmp_path / 'lib').mkdir()
    provides = {'mpi': Need(('/opt/mpi',), {'A': 'mpi'}, requires=('net',)),
                'net': Need(('/opt/net', '/opt/mpi'), {'A': 'net', 'B': 'net'}, requires=('cxi',)),
                'cxi': Need(('/opt/cxi',), {'B': 'cxi', 'C': 'cxi'})}
    here = types.SimpleNamespace(provides=provides, binds=(), container_env={}, force={}, isolation=(), runtime='no',
                                 share='none', squashfs={'compressor': 'gzip'}, **dict.fromkeys(site_files.SETTINGS))
    site_files.write(str(tmp_path), here)
    found = harness.run(['sh', '-c', '. "$0"; printf "%s;" $es_need_binds_mpi $es_need_env_mpi $es_need_binds_cxi',
                         tmp_path / 'site.sh'], cwd=tmp_path).stdout
    assert found == '/opt/mpi;/opt/net;/opt/cxi;A=mpi;B=net;C=cxi;/opt/cxi;'


@pytest.fixture
def libraries(tmp_path):
    """A directory of libraries, with a link that leads nowhere."""
    lib = tmp_path / 'lib'
    lib.mkdir()
    for name in ('libcxi.so.1', 'libcxi.so.1.5', 'libfabric.so', 'lib[x].so'):
        (lib / name).touch()
    (lib / 'libcxi.so.2').symlink_to('gone')
    (lib / 'libcxi.so,3').touch()
    return str(lib)


@pytest.mark.parametrize('bind, expected', [
    ('%s/libcxi.so*', ['%s/libcxi.so.1', '%s/libcxi.so.1.5']),
    ('%s/libcxi.so*:/host/lib', ['%s/libcxi.so.1:/host/lib/libcxi.so.1', '%s/libcxi.so.1.5:/host/lib/libcxi.so.1.5']),
    ('%s/libcxi.so.?:/host/lib/:ro', ['%s/libcxi.so.1:/host/lib/libcxi.so.1:ro']),
    ('%s/lib[x].so', ['%s/lib[x].so']), ('%s/lib[[]x].so:/y', ['%s/lib[x].so:/y/lib[x].so']),
    ('%s/libfabric.so:/a*b', ['%s/libfabric.so:/a*b']),
    ('%s/libmpi*', []), ('%s/libmpi.so', []), ('%s/libcxi.so.2', []),
])
def test_a_pattern_is_what_is_there(libraries, bind, expected):
    bind, expected = bind % libraries, [one % libraries for one in expected]
    assert host_paths.matches(bind) == expected
    assert host_paths.expanded([bind, bind]) == tuple(expected or [bind])


def test_a_directory_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    for name in ('a[1]', 'a1'):
        (tmp_path / name).mkdir()
    assert host_paths.directories(['%s/a[1]' % tmp_path]) == ('%s/a[1]' % tmp_path,)
    assert host_paths.directories(['%s/a[1]' % tmp_path, '%s/a[2]' % tmp_path, '%s/a?' % tmp_path]) == (
        '%s/a[1]' % tmp_path, '%s/a1' % tmp_path)


def test_what_fits_a_pattern_and_nothing_can_carry_is_left_out(tmp_path):
    for name in (b'fine', b'a:b', b'a,b', b'a^b', b'a\nb', b'not UTF-8 \xff'):
        (tmp_path / 'of host' / os.fsdecode(name)).mkdir(parents=True)
    pattern, fine = '%s/of host/*' % tmp_path, '%s/of host/fine' % tmp_path
    assert host_paths.matches(pattern) == [fine] and host_paths.directories([pattern]) == (fine,)
    here = dataclasses.replace(site.resolve({}).site, provides={'net': Need((pattern,), {}, (pattern,), (pattern,))})
    assert site_files.write(str(tmp_path / 'p'), here)


def test_one_apply_mends_what_a_system_update_renamed(easysif, libraries, tmp_path, monkeypatch):
    (tmp_path / 'my.yaml').write_text('binds: ["%s/libcxi.so.?"]\nprovides: {net: {binds: ["%s/libf*"]}}\n' % (
        libraries, libraries))
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    assert '"%s/libcxi.so.1"' % libraries in (tmp_path / 'p/easysif/site.lua').read_text()
    (tmp_path / 'lib/libcxi.so.1').rename(tmp_path / 'lib/libcxi.so.7')
    (tmp_path / 'lib/libfabric.so').unlink()
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    lua, shell = ((tmp_path / 'p/easysif' / name).read_text() for name in ('site.lua', 'site.sh'))
    for text in (lua, shell):
        assert '%s/libcxi.so.7' % libraries in text and 'libcxi.so.1' not in text and 'libfabric' not in text


@pytest.fixture(params=['by_module', 'by_wrapper'])
def by(request, tmp_path):
    """The environment that a module, or a wrapper, makes: ``by(fake, **variables)``."""
    return lambda fake, **env: getattr(fake, request.param)(tmp_path / 'home', env)[0]


def test_directories_of_needs_are_searched_before_those_of_the_image(by, tmp_path):
    fake = Fake(tmp_path / 'p', needs=('mpi', 'slurm'), image_env={'LD_LIBRARY_PATH': '/cuda/$x'})
    assert both(by(fake), 'ENV_LD_LIBRARY_PATH') is None and both(by(fake), 'ENV_APPEND_PATH') is None
    fake.site(provides={'mpi': Need((), {}, library_path=('/a $b', '/net'), requires=('net',)),
                        'net': Need((), {}, library_path=('/net', '/cxi'), path=('/net/bin',)),
                        'slurm': Need((), {}, library_path=('/slurm',), path=('/slurm/bin',))})
    env = by(fake)
    assert both(env, 'ENV_LD_LIBRARY_PATH') == '/a \\$b:/net:/cxi:/slurm:/cuda/\\$x'
    assert both(env, 'ENV_APPEND_PATH') == '/net/bin:/slurm/bin'
    env = by(fake, SINGULARITYENV_LD_LIBRARY_PATH='/mine', APPTAINERENV_APPEND_PATH='/my/bin')
    assert both(env, 'ENV_LD_LIBRARY_PATH') == '/mine:/a \\$b:/net:/cxi:/slurm:/cuda/\\$x'
    assert both(env, 'ENV_APPEND_PATH') == '/my/bin:/net/bin:/slurm/bin'


@pytest.mark.long
def test_after_a_system_update_one_apply_mends_every_module(by, libraries, tmp_path, easysif, monkeypatch):
    """None is made anew: the module file and the wrapper stay as they are."""
    fakes = [Fake(tmp_path / 'p', module=name, needs=('net',)) for name in ('jax/1', 'torch/2')]
    (tmp_path / 'my.yaml').write_text('provides: {net: {binds: ["%s/libcxi.so.?", "%s"]}}\n' % (libraries, libraries))
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / 'p').rglob('*')
              if path.is_file() and path.name not in site_files.NAMES}
    assert all('%s/libcxi.so.1,' % libraries in both(by(fake), '_BINDPATH') for fake in fakes)
    (tmp_path / 'lib/libcxi.so.1').rename(tmp_path / 'lib/libcxi.so.7')
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    for fake in fakes:
        found = both(by(fake), '_BINDPATH').split(',')
        assert '%s/libcxi.so.7' % libraries in found and '%s/libcxi.so.1' % libraries not in found
    assert before == {path: path.read_bytes() for path in before}
