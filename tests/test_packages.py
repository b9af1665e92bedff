# SPDX-License-Identifier: GPL-2.0-only
"""Lists of packages: what is asked for, what pip reports, lock files, and why an installer failed."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

import toys
from easysif import index
from easysif.cli import overlay_packages
from easysif.errors import EasySIFError
from easysif.overlay.recorded import record
from easysif.packages import asked, installers, pins, target
from easysif.packages.pins import Pin
from easysif.run import Result
from made_up import MadeUp

HASH, OTHER = 'a' * 64, 'b' * 64


def message(action, *args):
    """Return what an error says (str)."""
    with pytest.raises(EasySIFError) as raised:
        action(*args)
    return str(raised.value)


# --- what is asked for --------------------------------------------------------------------------------------------


def test_requirements_files_are_read_with_those_that_they_name(tmp_path):
    (tmp_path / 'more').mkdir()
    (tmp_path / 'a.txt').write_text('\ufeffflax >=0.8  # the one\n\n# comment\n-r more/b.txt\n--pre\n'
                                    'exact==1 \\\n    --hash=sha256:1 \\\n    --hash=sha256:2\n')
    (tmp_path / 'more' / 'b.txt').write_text("--constraint='my c.txt'\nhttps://example.org/x-1.whl#sha256=1\n-e ./mine")
    lines = asked.read(str(tmp_path / 'a.txt'))
    assert [' '.join(line.split()) for line in lines] == [
        'flax >=0.8', "--constraint '%s'" % (tmp_path / 'more' / 'my c.txt'), 'https://example.org/x-1.whl#sha256=1',
        '-e ./mine', '--pre', 'exact==1 --hash=sha256:1 --hash=sha256:2']
    assert asked.requirements(lines) == ['flax >=0.8', 'https://example.org/x-1.whl#sha256=1', '-e ./mine', 'exact==1']


def test_a_requirements_file_that_cannot_be_read_is_told(tmp_path):
    path = tmp_path / 'r.txt'
    assert message(asked.read, str(path)) == (
        '%s: cannot be read (No such file or directory)\nhint: ls -l %s' % (path, path))
    path.write_text('-r r.txt\n')
    assert message(asked.read, str(path)).endswith(
        'names a file that is not read\n  line  -r r.txt\nhint: copy what it says into %s' % path)
    path.write_text('-r https://example.org/r.txt\n')
    assert 'names a file that is not read' in message(asked.read, str(path))


def test_a_new_request_takes_the_place_of_one_for_the_same_package():
    assert asked.merged(['Flax>=0.8', 'b[x]', 'https://e/x.whl'], ['flax[all]==1', 'b @ https://e', 'c', 'c']) == [
        'https://e/x.whl', 'flax[all]==1', 'b @ https://e', 'c']


# --- reports and records ------------------------------------------------------------------------------------------


def test_what_pip_reports_is_understood_from_its_first_form_on():
    def item(name, url, **info):
        direct = info.pop('direct', False)
        return {'metadata': {'name': name, 'version': '1'}, 'download_info': dict(info, url=url), 'is_direct': direct}
    report = json.dumps({'version': '1', 'install': [
        item('a', 'https://e/a.whl', archive_info={'hashes': {'sha256': HASH}}),
        item('b', 'https://e/b.whl', archive_info={'hash': 'sha256=' + OTHER}),
        item('c', 'file:///c', dir_info={}, direct=True),
        item('d', 'https://e/d', vcs_info={'vcs': 'git', 'commit_id': 'f00'}, direct=True)]})
    assert pins.of_report(report) == [
        Pin('a', '1', 'https://e/a.whl', HASH), Pin('b', '1', 'https://e/b.whl', OTHER),
        Pin('c', '1', 'file:///c', None, True), Pin('d', '1', 'git+https://e/d@f00', None, True)]
    assert pins.of_report('no report') is None and pins.of_report('{"install": [{}]}') is None


def test_what_was_recorded_is_read_again_and_nonsense_is_left_out():
    known = [Pin('a', '1', 'https://e/a.whl', HASH), Pin('d', '1', 'git+https://e/d@f00', None, True)]
    assert pins.of_record([pin.recorded() for pin in known]) == known
    assert pins.of_record([{'name': 'a'}, 3, {'name': 'b', 'version': '2', 'url': 3}]) == [Pin('b', '2')]
    assert pins.of_record('x') == []


def test_hashes_are_those_of_the_same_version_only():
    there = [Pin('A', '1'), Pin('b', '2'), Pin('c', '3', 'file:///c', None, True)]
    others = [Pin('a', '1', 'v', OTHER), Pin('b', '1', 'w', HASH), Pin('c', '3', 'x', HASH)]
    assert target.known(there, [Pin('a', '1', 'u', HASH)], others) == [
        Pin('a', '1', 'u', HASH), Pin('b', '2'), Pin('c', '3', 'file:///c', None, True)]


# --- lock files ---------------------------------------------------------------------------------------------------


def test_a_lock_file_is_read_as_it_was_written(tmp_path):
    known = [Pin('a', '1', None, HASH), Pin('B', '2+cu12', None, OTHER), Pin('c', '3'),
             Pin('d', None, 'https://e/d.whl', HASH, True)]
    text = pins.lock_file(known, {'module': 'toy/1', 'image': 'docker://x\nevil==1', 'python': '3.11.2'})
    path = tmp_path / 'toy.lock'
    path.write_text(text)
    assert text == pins.HEAD + """\
# module: toy/1
# image: docker://x evil==1
# python: 3.11.2
a==1 \\
    --hash=sha256:%s
B==2+cu12 \\
    --hash=sha256:%s
# without hash: c==3
d @ https://e/d.whl \\
    --hash=sha256:%s
""" % (HASH, OTHER, HASH)
    assert pins.read_lock_file(str(path)) == known


def test_lock_files_of_others_and_overlay_json_are_read_as_well(tmp_path):
    path = tmp_path / 'lock'
    path.write_text('--index-url https://e\na[x]==1 ; python_version > "3" \\\n --hash=sha256:%s \\\n --hash=sha256:%s'
                    '  # via b\n    # via c\n' % (HASH, OTHER))
    pin, = pins.read_lock_file(str(path))
    assert pin == Pin('a', '1', None, HASH, False, (OTHER,))
    assert pin.line == 'a==1 --hash=sha256:%s --hash=sha256:%s' % (HASH, OTHER)
    path.write_text(json.dumps({'schema': 1, 'packages': {'resolved': [pin.recorded()]}}))
    assert pins.read_lock_file(str(path)) == [Pin('a', '1', None, HASH)]


def test_what_is_no_lock_file_is_told(tmp_path):
    path = tmp_path / 'lock'
    hint = 'hint: easysif overlay export --output FILE writes '
    assert message(pins.read_lock_file, str(path)) == (
        '%s: cannot be read (No such file or directory)\n%sone' % (path, hint))
    path.write_text('{"schema": 1}')
    assert message(pins.read_lock_file, str(path)) == (
        '%s: is no overlay.json that lists packages\n%sa lock file' % (path, hint))
    path.write_text('a==1\n\nb>=2\n')
    assert message(pins.read_lock_file, str(path)) == (
        '%s:3: names no version of a package\n  line      b>=2\n  expected  NAME==VERSION --hash=sha256:…\n'
        'hint: easysif overlay install -r %s, which lets pip choose the versions' % (path, path))


# --- installers ---------------------------------------------------------------------------------------------------


def test_a_program_that_needs_nothing_is_told_from_one_that_does(tmp_path):
    assert installers.is_static(shutil.which('busybox')) and not installers.is_static(sys.executable)
    (tmp_path / 'script').write_text('#!/bin/sh\n')
    assert not installers.is_static(str(tmp_path / 'script'))


class Toy:
    """A module as far as messages need one."""

    name = 'toy/1'

    @staticmethod
    def typed(command, *words):
        """Return what to type."""
        return ' '.join(['easysif overlay', command, 'toy/1', *words])


def failed(stderr, *names, status=1):
    return str(installers.failed(Toy, Result(('pip',), status, '', stderr), 'pip', list(names)))


def test_why_pip_failed_is_told_in_its_own_words():
    assert failed('warning: x\nERROR: No matching distribution found for b==2.10\n', 'a', 'b==2.10', 'b-c') == (
        'toy/1: pip could not install b==2.10\n  pip  ERROR: No matching distribution found for b==2.10\n'
        'hint: module load toy/1, then see all that it says: pip install b==2.10')
    assert failed('', 'a', status=-9) == (
        'toy/1: pip could not install the packages\n  pip        exit code -9\n  command    pip\n'
        '  exit code  killed by SIGKILL\nhint: module load toy/1, then see all that it says: pip install a')
    assert 'uv could not' not in failed('error: No solution\n  cause: Because\n', 'a')
    assert installers.reason(Result((), 1, '', 'error: No solution\n  cause: Because x\n')) == (
        'error: No solution cause: Because x')


def test_an_index_that_cannot_be_reached_is_told_by_either_installer():
    text = ('ERROR: No matching distribution found for a\nerror: pip: the package index cannot be reached\n'
            '  address  http://i/a/\n  reason   refused\nhint: x\n')
    assert failed(text, 'a') == (
        'toy/1: pip cannot reach the package index\n  address  http://i/a/\n  reason   refused\n'
        'hint: look at PIP_INDEX_URL, https_proxy and pip.conf: pip inside the image uses yours')
    text = 'x\nERROR: Could not install packages due to an OSError: HTTPConnectionPool: Max retries exceeded with\ny\n'
    assert installers.unreachable(Result((), 1, '', text)) == [('reason', text.splitlines()[1])]
    assert installers.unreachable(Result((), 1, '', 'WARNING: Retrying: Max retries exceeded\nERROR: no such\n')) == []


def test_a_place_that_pip_did_not_look_into_is_told(tmp_path):
    page = "WARNING: Location 'file://%s/b/' is ignored: it is neither a file nor a directory.\nERROR: a\n"
    assert 'ignored' not in failed(page % tmp_path, 'b') and 'simple/b/' in failed(page % (tmp_path / 'simple'), 'b')
    text = "WARNING: Location '/w' is ignored: it is none.\n" * 2 + "WARNING: Url '/v' is ignored. It is none\n"
    assert failed(text + 'ERROR: a\n', 'b').splitlines()[1:4] == [
        '  pip  ERROR: a', "  pip  Location '/w' is ignored: it is none.", "  pip  Url '/v' is ignored. It is none"]


def test_what_the_image_brings_is_told_with_what_to_type():
    assert failed('ERROR: Cannot install jax==0.5 because\n'
                  'error: pip: jax is of the image, and protected: x\n  the image brings  jax==0.4\n  more  y\n'
                  'hint: pip install\n', 'jax==0.5') == (
        'toy/1: pip could not install jax==0.5\n  pip            ERROR: Cannot install jax==0.5 because\n'
        '  because        jax is of the image, and protected: x\n  the image has  jax==0.4\n'
        'hint: to have another one nevertheless: PIP_CONSTRAINT=/dev/null easysif overlay install toy/1 jax==0.5')


def test_a_module_without_pip_is_told():
    assert message(installers.Pip, Toy, None) == (
        'toy/1: has no pip\n'
        'hint: easysif overlay install toy/1 --with uv PACKAGE, where there is a uv; or add pip to the image')


# --- what lies on this host ---------------------------------------------------------------------------------------


def test_what_pip_is_told_of_this_host_is_found(tmp_path, monkeypatch):
    for name in ('a b/simple', 'c', 'x:y'):
        (tmp_path / name).mkdir(parents=True)
    path = tmp_path / 'pip.conf'
    path.write_text('[global]\nfind_links =\n  %s/c\n  /no/such\ntimeout = 3\n' % tmp_path)
    told = index.settings({'PIP_INDEX_URL': 'file://localhost%s/a%%20b/simple/' % tmp_path, 'NETRC': 'n'}, [str(path)])
    assert ('find-links', '\n%s/c\n/no/such' % tmp_path) in told and ('netrc', 'n') in told
    assert index.here(told) == ['%s/%s' % (tmp_path, name) for name in ('a b', 'a b/simple', 'c')]
    assert index.here(told, [str(tmp_path / 'a b' / 'mine'), str(tmp_path / 'c')]) == ['%s/a b/simple' % tmp_path]
    assert index.here([('index-url', 'file:///usr/share')]) == ['/usr/share']  # not what the image has its own of
    assert index.here([('index-url', 'file:///opt'), ('find-links', '/dev/shm %s/x:y' % tmp_path)]) in ([], ['/opt'])
    monkeypatch.setenv('XDG_CONFIG_HOME', '/x')
    assert index.users_configuration()[-1] == '/x/pip/pip.conf'


@pytest.mark.parametrize('line, shown, bound', [
    ('flax>=1', 'flax>=1', []), ('./p[x] ; python_version > "3"', '{0}/p[x] ; python_version > "3"', ['p']),
    ('-e ./p', '-e {0}/p', ['p']), ('.', '{0}', ['']), ('a @ file://{0}/p/a.whl#sha256=1', None, ['p/a.whl']),
    ("--constraint '{0}/p/a.whl'", None, ['p/a.whl']), ('--find-links={0}/p', None, ['p']), ('p', 'p', [])])
def test_what_a_requirement_names_of_this_host_is_seen_inside(tmp_path, line, shown, bound):
    (tmp_path / 'p').mkdir()
    (tmp_path / 'p' / 'a.whl').touch()
    here = target.Target.__new__(target.Target)
    here.binds, line = [], line.format(tmp_path)
    assert here.show(line) == (shown or line).format(tmp_path)
    assert here.binds == ['{0}:{0}'.format(str(tmp_path / path).rstrip('/')) for path in bound]


# --- modules without a container ----------------------------------------------------------------------------------


def answers(module, does='exit 0', **values):
    """Let a module say what is in its virtual environment, and pip inside do what a shell script says."""
    told = dict({'python': '3.11.2', 'pip': '23', 'exists': True, 'packages': []}, **values)
    (module.overlay / 'user-software' / 'venv' / 'toy').mkdir(parents=True, exist_ok=True)
    path = module.root / 'bin' / 'start-shell'
    path.unlink()
    path.write_text("#!/bin/sh\ncase \"$*\" in\n*make_venv.py*) exit 1 ;;\n*venv_packages.py*) cat <<'X'\n"
                    'noise\neasysif venv-packages %s\nX\n;;\n*) %s ;;\nesac\n' % (json.dumps(told), does))
    path.chmod(0o755)


@pytest.fixture
def toy(prefix, monkeypatch):
    """A made-up module in the prefix of EasyBuild's variables, whose pip does nothing (MadeUp)."""
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    module = MadeUp(prefix)
    answers(module)
    return module


def told(easysif, *argv):
    code, out, err = easysif('overlay', *argv)
    return code, out + err


def test_what_cannot_be_done_is_told_with_what_to_type(easysif, toy, prefix, tmp_path, monkeypatch):
    monkeypatch.delenv('RUNSCRIPTS', raising=False)
    place = toy.overlay
    assert told(easysif, 'install', '--upgrade') == (
        2, 'error: easysif overlay install: no package is named\n'
           'hint: easysif overlay install MODULE PACKAGE, or -r FILE\n')
    assert told(easysif, 'export', 'toy/1') == (
        1, 'error: toy/1: there are no packages in the overlay\n  directory  %s\n'
           'hint: easysif overlay install toy/1 PACKAGE\n' % place)
    assert told(easysif, 'rebuild', 'toy/1') == (
        1, 'error: toy/1: nothing is known of packages that were in the overlay\n  directory  %s\n'
           'hint: easysif overlay rebuild toy/1 --from FILE, where FILE is a lock file or an overlay.json\n' % place)
    (tmp_path / 'lock').write_text('a==1\n')
    code, said = told(easysif, 'rebuild', 'toy/1', '--from', str(tmp_path / 'lock'))
    assert code == 3 and said.startswith('error: toy/1: a new virtual environment could not be made\n  command ')
    assert said.endswith('hint: df -h %s/user-software\n' % place)
    assert toys.files(place) == set()
    answers(toy, exists=False)
    assert told(easysif, 'install', 'toy/1', 'a') == (
        1, 'error: toy/1: the virtual environment of the overlay could not be made\n'
           '  directory  %s/user-software/venv/toy\n'
           'hint: module load toy/1; python --version, which says why\n' % place)
    answers(toy, 'echo /usr/bin/uv', pip='20.3')
    assert told(easysif, 'install', 'toy/1', '--with', 'uv', 'a') == (
        1, 'error: toy/1: this pip cannot tell uv what to install\n  pip  20.3\n'
           'hint: easysif overlay install toy/1 --with pip …\n')
    assert told(easysif, 'install', 'toy/1', '--dry-run', 'a') == (
        1, 'error: toy/1: this pip cannot tell what it would install\n  pip  20.3\n'
           'hint: easysif overlay install toy/1 --upgrade pip\n')
    (toy.root / 'bin' / 'start-shell').write_text('#!/bin/sh\nexit 1\n')
    code, said = told(easysif, 'export', 'toy/1')
    assert code == 3 and said.startswith('error: toy/1: does not tell which packages its overlay has\n  command ')
    assert said.endswith('hint: easysif verify toy/1\n')
    (toy.root / 'runscripts' / 'lib' / 'venv_packages.py').unlink()
    assert told(easysif, 'export', 'toy/1') == (
        1, 'error: toy/1: was installed by an EasySIF that did not know lists of packages yet\n'
           '  installation  %s\nhint: easysif refresh toy/1\n' % toy.root)
    toy.record(inside=dict(toy.inside, python=None))
    assert told(easysif, 'export', 'toy/1') == (
        1, 'error: toy/1: has no overlay\nhint: its recipe gives no python_env: easysif show toy/1\n')


def test_an_old_pip_records_versions_and_the_module_may_be_the_loaded_one(easysif, toy, monkeypatch):
    monkeypatch.setenv('RUNSCRIPTS', str(toy.root / 'runscripts'))
    answers(toy, 'case $* in *--report*) exit 1; esac', pip='20.3', packages=[{'name': 'A', 'version': '1'}])
    assert easysif('overlay', 'install', 'a') == (0, 'toy/1 has all of it already\n', '')
    assert record(str(toy.overlay))['packages'] == {
        'asked': ['a'], 'resolved': [{'name': 'A', 'version': '1', 'url': None, 'sha256': None}]}
    assert json.loads(easysif('overlay', 'rebuild', '--dry-run', '--json')[1]) == {
        'module': 'toy/1', 'dry_run': True, 'from': str(toy.overlay / 'user-software' / 'venv' / 'toy'), 'packages': [
            {'name': 'A', 'version': '1', 'url': None, 'sha256': None}]}


@pytest.mark.parametrize('options, told, expected', [
    ((), ["global.index-url='https://g/simple'", "install.index-url='https://i/simple'",
          ":env:.index-url='https://me:secret@e/simple'"], {'UV_DEFAULT_INDEX': 'https://me:secret@e/simple'}),
    (('--index-url=https://mine',), ["global.index-url='https://g/simple'"], {}),
    ((), ["global.extra-index-url='\\nhttps://a\\nhttps://b'", "global.timeout='5'", "freeze.index-url='https://f'"],
     {'UV_INDEX': 'https://a https://b'}),
    ((), ["global.find-links='/ /no/such https://l'"], {'UV_FIND_LINKS': '/,https://l'}),
])
def test_uv_is_told_of_indexes_where_nobody_else_reads_it(monkeypatch, options, told, expected):
    monkeypatch.setattr(installers.Pip, 'run', lambda self, *argv: SimpleNamespace(stdout='\n'.join([*told, ''])))
    assert installers.Pip(None, '24.0', options).index() == expected


def test_an_address_with_a_login_is_told_by_a_variable_and_not_as_an_option(monkeypatch, tmp_path):
    for name, value in (('PIP_INDEX_URL', 'https://old/simple'), ('PIP_EXTRA_INDEX_URL', 'https://d/simple')):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('PIP_FIND_LINKS', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setattr('easysif.index.CONFIGURATION', [str(tmp_path / 'pip.conf')])
    (tmp_path / 'pip.conf').write_text('[global]\nfind-links = /of/the/site\n')
    args = SimpleNamespace(index_url=['https://me:secret@a/simple'], find_links=['https://tok@e/'],
                           extra_index_url=['https://b/simple', 'https://tok@c/simple'])
    target = SimpleNamespace(where='x', show_places=lambda pairs: None)
    try:
        assert overlay_packages._options(args, target) == ['--extra-index-url=https://b/simple']
        assert [os.environ['PIP_' + name] for name in ('INDEX_URL', 'EXTRA_INDEX_URL', 'FIND_LINKS')] == [
            'https://me:secret@a/simple', 'https://d/simple https://tok@c/simple', '/of/the/site https://tok@e/']
    finally:
        os.environ.pop('PIP_FIND_LINKS', None)


def test_a_login_is_not_recorded():
    assert target.to_record(['a @ https://me:secret@host/a.whl', 'b @ git+ssh://git@host/b'], [
        Pin('a', '1', 'https://token@host/a.whl', '0' * 64)]) == {
        'asked': ['a @ https://host/a.whl', 'b @ git+ssh://git@host/b'],
        'resolved': [{'name': 'a', 'version': '1', 'url': 'https://host/a.whl', 'sha256': '0' * 64}]}
