# SPDX-License-Identifier: GPL-2.0-only
"""Hostile site files and variables through easysif config and easysif site apply: refused in words that name file and
setting, or carried as they are; nothing executed, nothing printed that a terminal obeys, nothing outside the prefix."""

import json
import os
import re
import shutil

import pytest

import harness
import hostile
import toys
from easysif import schema, site
from easysif.cli import main

TEXT = 'it\'s $(touch evil) `touch evil` ${HOME} "q" ]==] --[[ %3B; \\ \\n * ~ é 容器 \U0001f600'

#: what must not be taken: a site file -> the message, after file and line
REFUSED = {
    'command': ('runtime: "$(touch evil)"', "runtime must be auto, apptainer, singularity or an absolute path, not the "
                "text '$(touch evil)'"),
    'relative': ('image_store: ../../evil', "image_store must be an absolute path, not '../../evil'"),
    'home': ('cache_dir: ~/evil', "cache_dir must be an absolute path, not '~/evil'"),
    'line': ('tmp_dir: "/x\\ntouch evil"',
             "tmp_dir must be one line without control characters, not '/x\\ntouch evil'"),
    'null': ('tmp_dir: "/x\\0"', "tmp_dir must be one line without control characters, not '/x\\x00'"),
    'terminal': ('tmp_dir: "/\\e]0;evil\\a"',
                 "tmp_dir must be one line without control characters, not '/\\x1b]0;evil\\x07'"),
    'key': ('"\\e[2J": 1', "unknown key '\\x1b[2J'"),
    'python': ('binds: !!python/object/apply:os.system ["touch evil"]', 'not valid YAML: could not determine a '
               "constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
    'tag': ('squashfs: {level: !!int "touch evil"}', "not valid YAML: 'squashfs.level' is no int: 'touch evil'"),
    'need': ('provides: {"x; touch evil": {}}', 'a key of provides must be a word of small letters, digits and -, not '
             "the text 'x; touch evil'"),
    'variable': ('provides: {mpi: {container_env: {"A B": x}}}',
                 "a key of provides.mpi.container_env must be the name of a variable, not the text 'A B'"),
    'value': ('container_env: {A: "x\\ry"}',
              "container_env.A must be one line without control characters, not 'x\\ry'"),
    'bind': ('binds: ["/tmp:/a:ro,/etc/shadow"]',
             "binds[0] must have options out of ro, rw, image-src=/path and id=number, not '/etc/shadow'"),
    'overlays': ('overlays: /x/$(touch evil)', "overlays must use '$' only before the name of a variable: '/x/$(touch "
                 "evil)'"),
    'mirror': ('registry_mirrors: {nvcr.io: ["http://x/$(touch evil)"]}', 'registry_mirrors.nvcr.io[0] must be '
               "http(s)://host[:port][/path], not the text 'http://x/$(touch evil)'"),
    'module': ('module_dependency: "x\\") os.execute(\\"touch evil"', 'module_dependency must be the name of a module, '
               'not the text \'x") os.execute("touch evil\''),
    'certificates': ('ca_certificates: /a:/etc/shadow',
                     "ca_certificates must not hold ':', which separates the parts of a bind: '/a:/etc/shadow'"),
    'bomb': ('a: &a [x, x, x, x]\n' + ''.join('%s: &%s [*%s, *%s, *%s, *%s]\n' % (two, two, one, one, one, one)
                                              for one, two in zip('abcdefghijklm', 'bcdefghijklmn')),
             'holds more than 10000 values, aliases counted as what they stand for'),
    'isolation': ('isolation: ["cleanenv; touch evil"]', 'isolation[0] must be one of cleanenv, contain, no-home, '
                  "ipc, pid, not the text 'cleanenv; touch evil'"),
    'share': ('share: "node; touch evil"', "share must be one of none, node, not the text 'node; touch evil'"),
    'registries': ('registries: ["x/$(touch evil)"]', "registries[0] must be a registry, host[:port], not the text "
                   "'x/$(touch evil)'"),
    'forced': ('force: {container_env: {A: "x\\ntouch evil"}}',
               "force.container_env.A must be one line without control characters, not 'x\\ntouch evil'"),
    'forced bind': ('force: {binds: [/]}', "force.binds[0] must be below '/', not the root directory itself ('/')"),
    'nobody forces': ('force: {image_store: /x}', "unknown key 'image_store' in force\n  allowed  runtime, binds, "
                      'container_env, isolation, registries, registry_mirrors, ca_certificates, verify, keyring'),
    'search path': ('provides: {mpi: {library_path: ["/a:/b"]}}', 'provides.mpi.library_path[0] must not hold '),
    'root': ('binds: [/]', "binds[0] must be below '/', not the root directory itself ('/')"),
    'circle': ('provides: {mpi: {requires: [net]}, net: {requires: [mpi]}}',
               'provides.mpi.requires goes in a circle: mpi -> net -> mpi'),
    'need of nobody': ('provides: {mpi: {requires: [nett]}}',
                       "provides.mpi.requires names 'nett', which this site does not provide"),
    'two keys': ('runtime: auto\nruntime: auto', "'runtime' "),
    'megabyte': ('container_env: {A: %s}' % ('x' * 10 ** 6), 'container_env must not hold more than 10000 bytes, as '),
}

#: what has to arrive as it is; binds and paths are made for it
CARRIED = {
    'image_store': '/store/' + TEXT.replace('/', ''), 'container_env': {'A': TEXT, 'EMPTY': '', 'X_BINDPATH': '-n'},
    'provides': {'mpi': {'container_env': {'B': TEXT[::-1]}}, 'a-b': None},
    'base_images': {'docker://$(touch evil)': '/base/' + TEXT}, 'overlays': '/ü/$USER/${HOME}x}/`touch evil`',
    'match': {'hostname': '*$(touch evil)*|[' + TEXT},
}


@pytest.fixture
def command(tmp_path, capfd, monkeypatch):
    """A function that runs easysif with a site file, and returns the Result; it may write below prefix/ only."""
    (tmp_path / 'prefix').mkdir()

    def call(*args, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        before = toys.snapshot(tmp_path, 'prefix')
        status = main(list(args))
        assert toys.snapshot(tmp_path, 'prefix') == before and hostile.traces(tmp_path) == []
        return harness.Result(status, *capfd.readouterr())
    return call


@pytest.mark.parametrize('name', REFUSED)
def test_a_hostile_site_file_is_refused_with_file_and_setting(command, tmp_path, name):
    path = tmp_path / 'site.yaml'
    path.write_text(REFUSED[name][0] + '\n')
    for args in (['config'], ['site', 'apply', '--prefix', str(tmp_path / 'prefix')]):
        done = command(*args, EASYSIF_SITE=str(path))
        assert done.status == 1 and done.stdout == ''
        assert re.match(r'error: %s(:\d+)?: %s' % (re.escape(str(path)), re.escape(REFUSED[name][1])), done.stderr)
        assert not re.search('[\0-\x09\x0b-\x1f\x7f-\x9f]', done.stderr) and len(done.stderr) < 20000
        assert toys.files(tmp_path / 'prefix') == set()


def test_every_setting_and_every_key_of_a_need_has_hostile_texts():
    settings = schema.load('site')['properties']
    assert set(hostile.SITE) == set(hostile.GOOD_SITE) == set(settings)
    assert set(hostile.FORCED) == {*settings['force']['properties'], 'image_store'}
    assert set(hostile.ISOLATION) == set(settings['isolation']['items']['enum'])


def test_a_site_file_that_cannot_be_read_and_two_that_match_write_nothing(command, tmp_path, monkeypatch):
    path = tmp_path / 'prefix' / 'closed' / 'site.yaml'  # which the snapshots leave alone
    path.parent.mkdir()
    path.write_text('{}')
    path.chmod(0)
    apply = ['site', 'apply', '--prefix', str(tmp_path / 'prefix')]
    if os.geteuid():
        done = command(*apply, EASYSIF_SITE=str(path))
        assert done.status == 1 and done.stderr == 'error: %s: cannot be read (Permission denied)\n' % path
    done = command(*apply, EASYSIF_SITE=str(tmp_path / 'none.yaml'))
    assert done.status == 1
    assert done.stderr == 'error: %s/none.yaml: cannot be read (No such file or directory)\n' % tmp_path
    (tmp_path / 'sites').mkdir()
    shutil.copy(site.shipped()['default'], tmp_path / 'sites')
    for name in 'ab':
        (tmp_path / 'sites' / ('%s.yaml' % name)).write_text('match: {hostname: "*"}\n')
    monkeypatch.setattr(site, 'SITES', str(tmp_path / 'sites'))
    monkeypatch.delenv('EASYSIF_SITE')
    done = command(*apply)
    assert done.status == 1 and done.stderr.startswith('error: sites: several match this host: a, b\n  host  ')
    assert toys.files(tmp_path / 'prefix') == {'closed/site.yaml'}


@pytest.mark.parametrize('variable, value, message', [
    ('EASYSIF_SITE', '/x/\x1b[2J.yaml', '/x/\\x1b[2J.yaml: cannot be read (No such file or directory)'),
    ('EASYSIF_SITE', '$(touch evil)', "EASYSIF_SITE: there is no site '$(touch evil)'"),
    ('EASYSIF_SITE', '../../../evil.yaml', '/evil.yaml: cannot be read (No such file or directory)'),
    ('EASYSIF_BINDS', '[!!python/name:os.system x]', 'EASYSIF_BINDS:1: not valid YAML: '),
    ('EASYSIF_RUNTIME', ';touch evil', 'EASYSIF_RUNTIME: runtime must be auto, apptainer, singularity or an absolute '),
    ('EASYSIF_CACHE_DIR', '/\udcff', "EASYSIF_CACHE_DIR: cache_dir must be one line without control characters, not "
     "'/\\udcff'"),
])
def test_a_hostile_variable_is_refused_with_its_name(command, variable, value, message):
    done = command('config', **{variable: value})
    assert done.status == 1 and message in done.stderr and '\x1b' not in done.stderr and 'Traceback' not in done.stderr


def test_a_site_arrives_as_it_is(command, tmp_path):
    path, prefix = tmp_path / 'site $(touch evil).yaml', tmp_path / 'prefix'
    settings = dict(CARRIED, binds=[hostile_directory(tmp_path)])
    hostile.write_site(path, settings)
    found = json.loads(command('config', '--json', EASYSIF_SITE=str(path)).stdout)
    for key, value in settings.items():
        if key not in ('match', 'provides'):
            assert found[key]['value'] == value
    assert found['provides']['value']['mpi']['container_env'] == CARRIED['provides']['mpi']['container_env']
    done = command('site', 'apply', '--prefix', str(prefix), EASYSIF_SITE=str(path))
    assert done.stdout.count('written  ') == 4 and done.stderr == ''
    harness.run(['luac5.3', '-p', prefix / 'easysif' / 'site.lua'])
    argv = ['tclsh', '/dev/stdin', prefix / 'easysif' / 'site.tcl']
    read = harness.run(argv, env=dict(os.environ, LANG='C'), stdin='''
set values [read [open [lindex $argv 0]]]
puts [dict get $values settings image_store]
puts [lindex [dict get $values binds] end]
puts [lsort [dict keys [dict get $values container_env]]]''').stdout.splitlines()
    assert read == [CARRIED['image_store'], settings['binds'][0], ' '.join(sorted(CARRIED['container_env']))]
    read = harness.run(['sh', '-c', '. "$0"; printf "%s\\n" "$es_site_image_store" "$es_site_env" "$es_site_binds"',
                        prefix / 'easysif' / 'site.sh'], cwd=tmp_path).stdout.splitlines()
    assert read[0] == CARRIED['image_store'] and read[-1] == settings['binds'][0]
    assert hostile.traces(tmp_path) == []


def hostile_directory(directory):
    """Make a directory with an odd name, and return its path (str)."""
    path = directory / 'it\'s $(touch evil) "é"'
    path.mkdir()
    return str(path)


def test_settings_are_printed_without_what_a_terminal_obeys(command, tmp_path):
    path = tmp_path / 'site\x1b[2J.yaml'
    hostile.write_site(path, {'container_env': {'A': 'gpj.\u202esif'}, 'image_store': '/\u202e'})
    done = command('config', EASYSIF_SITE=str(path), EASYSIF_OVERLAYS=os.fsdecode(b'/\xff\x1b]0;evil\x07\n'))
    assert done.status == 0 and not re.search('[\0-\x09\x0b-\x1f\x7f-\x9f\u202e]', done.stdout)
    assert 'site\\x1b[2J' in done.stdout and '/\\udcff\\x1b]0;evil\\x07\\n' in done.stdout and '\\u202e' in done.stdout
    prefix = tmp_path / 'prefix' / 'a\x1b[2J'
    done = command('site', 'apply', '--prefix', str(prefix))
    assert 'written  %s' % str(prefix).replace('\x1b', '\\x1b') in done.stdout and '\x1b' not in done.stdout
