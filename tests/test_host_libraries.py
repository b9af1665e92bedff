# SPDX-License-Identifier: GPL-2.0-only
"""The libraries of this host that a need brings: which, under which names, and what of an update they live through."""

import dataclasses

import pytest

import harness
from easysif import host_libraries, site
from easysif.site import Need
from fakes import Fake, both


@pytest.fixture
def host(tmp_path):
    """A host with libouter.so.1, a link, which needs libinner.so.2, and a program that needs both (Path)."""
    lib = tmp_path / 'lib'
    lib.mkdir()
    code = {'inner.c': 'int inner(void) { return 1; }',
            'outer.c': 'int inner(void); int outer(void) { return inner(); }',
            'program.c': 'int outer(void); int main(void) { return outer(); }'}
    for name, text in code.items():
        (tmp_path / name).write_text(text)
    shared = ['cc', '-shared', '-fPIC', '-Wl,-rpath,%s' % lib, '-L%s' % lib]
    for argv in ([*shared, '-o', lib / 'libinner.so.2', '-Wl,-soname,libinner.so.2', 'inner.c'],
                 [*shared, '-o', lib / 'libouter.so.1.5', '-Wl,-soname,libouter.so.1', 'outer.c', '-l:libinner.so.2'],
                 ['cc', '-o', 'program', 'program.c', lib / 'libouter.so.1.5', '-Wl,-rpath,%s' % lib, '-lm']):
        harness.run(argv, cwd=tmp_path)
    (lib / 'libouter.so.1').symlink_to('libouter.so.1.5')
    return tmp_path


def bound(host, *entries):
    """Return what is bound for entries below the host, without the name of that directory (list of str)."""
    found = host_libraries.bound('/host/mpi', ['%s/%s' % (host, entry) for entry in entries])
    return [bind.replace(str(host) + '/', '') for bind in found]


def test_a_library_comes_with_all_that_it_needs_but_the_c_library(host):
    inner, outer = 'lib/libinner.so.2:/host/mpi/libinner.so.2', 'lib/libouter.so.1:/host/mpi/libouter.so.1'
    assert bound(host, 'lib/libouter.so.1') == [outer, inner]
    assert bound(host, 'program') == [outer, inner], 'of a program what it needs, not itself'
    assert bound(host, 'lib/libinner.so.2', 'lib/libouter.so.1') == [inner, outer], 'each once'
    assert bound(host, 'lib/libouter.so*') == [outer, 'lib/libouter.so.1.5:/host/mpi/libouter.so.1.5', inner]
    assert bound(host, 'lib/libouter.so.1:libmpi.so.12') == ['lib/libouter.so.1:/host/mpi/libmpi.so.12', inner]
    assert bound(host, 'lib/libmpi.so.12', 'inner.c') == [], 'what is not there, and what is no library'


def test_what_the_callers_shell_has_loaded_does_not_come_along(host, monkeypatch):
    other = host / 'other'
    other.mkdir()
    (other / 'libinner.so.2').write_bytes((host / 'lib/libinner.so.2').read_bytes())
    monkeypatch.setenv('LD_LIBRARY_PATH', str(other))
    assert bound(host, 'lib/libouter.so.1')[1] == 'lib/libinner.so.2:/host/mpi/libinner.so.2'


@pytest.mark.parametrize('name, own', [
    ('libc.so.6', True), ('ld-linux-x86-64.so.2', True), ('libm.so.6', True), ('libnss_files.so.2', True),
    ('libstdc++.so.6', True), ('libgfortran.so.5', True), ('libcrypt.so.1', False), ('libmpi.so.12', False),
    ('libcxi.so.1', False), ('libmunge.so.2', False), ('librdmacm.so.1', False)])
def test_the_c_library_and_those_of_compilers_are_the_images(name, own):
    assert bool(host_libraries.OWN.match(name)) == own


def test_without_ldd_the_named_ones_come_alone(host, monkeypatch):
    monkeypatch.setenv('PATH', str(host))
    assert bound(host, 'lib/libouter.so.1') == ['lib/libouter.so.1:/host/mpi/libouter.so.1']


def test_their_directory_is_searched_first_and_only_where_there_is_one(host):
    here = site.resolve({}).site
    assert host_libraries.resolved(here) is here
    need = Need(('/x',), {}, library_path=('/mine',), libraries=('%s/lib/libinner.so.2' % host,))
    bare = Need((), {}, library_path=('/mine',), libraries=('/nosuch/libmpi.so.12',))
    found = host_libraries.resolved(dataclasses.replace(here, provides={'mpi': need, 'none': bare})).provides
    assert found['mpi'].binds == ('/x', '%s/lib/libinner.so.2:/host/mpi/libinner.so.2' % host)
    assert found['mpi'].library_path == ('/host/mpi', '/mine') and found['none'].library_path == ('/mine',)


@pytest.mark.parametrize('by', ['by_module', 'by_wrapper'])
def test_one_apply_mends_every_module_after_a_library_was_renamed(host, easysif, tmp_path, monkeypatch, by):
    fake = Fake(tmp_path / 'p', needs=('mpi',))
    (tmp_path / 'my.yaml').write_text('provides: {mpi: {libraries: ["%s/lib/libouter.so.?"]}}\n' % host)
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    env, _ = getattr(fake, by)(tmp_path / 'home', {})
    assert {'%s/lib/%s:/host/mpi/%s' % (host, name, name) for name in ('libouter.so.1', 'libinner.so.2')} <= set(
        both(env, '_BINDPATH').split(','))
    assert both(env, 'ENV_LD_LIBRARY_PATH') == '/host/mpi'
    (host / 'lib/libouter.so.1').rename(host / 'lib/libouter.so.7')
    assert easysif('site', 'apply', '--prefix', 'p')[0] == 0
    env, _ = getattr(fake, by)(tmp_path / 'home', {})
    assert '%s/lib/libouter.so.7:/host/mpi/libouter.so.7' % host in both(env, '_BINDPATH').split(',')
    assert 'libouter.so.1' not in both(env, '_BINDPATH')


@pytest.mark.parametrize('text, what', [
    ('[lib.so]', "provides.mpi.libraries[0] must be an absolute path, not 'lib.so'"),
    ('["/x/lib.so:/y"]', "provides.mpi.libraries[0] must be file[:name], with the name of a file inside, "
     "not '/x/lib.so:/y'"),
    ('["/x/lib.so:a:b"]', "provides.mpi.libraries[0] must be file[:name], with the name of a file inside, "
     "not '/x/lib.so:a:b'"),
    ('["/x/lib*:a"]', "provides.mpi.libraries[0] must not have a name for all that fits a pattern: '/x/lib*:a'"),
    ('["/*/lib.so"]', "provides.mpi.libraries[0] must name a directory of the root, not all of them ('/*/lib.so')"),
    ('/x', "provides.mpi.libraries must be a list of absolute paths, file[:name], not the text '/x'"),
])
def test_what_is_no_library_of_the_host_is_an_error(easysif, tmp_path, monkeypatch, text, what):
    (tmp_path / 'my.yaml').write_text('provides:\n  mpi:\n    libraries: %s\n' % text)
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    code, _, err = easysif('config')
    assert code == 1 and err.startswith('error: %s/my.yaml:3: %s\n' % (tmp_path, what))
