# SPDX-License-Identifier: GPL-2.0-only
"""From a registry or a definition to a SIF file, by the real runtime."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from easysif import holder, resources, run, runtime
from easysif.data import helper
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.images import build, define as definitions, registry, sif, workspace
from easysif.images.reference import parse
from helpers_registry import PASSWORD, USER, LoopbackRegistry, call, tiny_layout, tiny_rootfs

VALUES = {'name': 'tiny', 'version': '1', 'versionsuffix': ''}
SECRET = 'hunter2-planted'
HELPER = helper('mksquashfs')


@pytest.fixture(scope='module')
def layout(tmp_path_factory):
    directory = tmp_path_factory.mktemp('layout')
    return tiny_layout(directory, tiny_rootfs(directory / 'rootfs'))


@pytest.fixture(scope='module')
def loopback(tmp_path_factory, layout):
    """A registry with x/tiny:1."""
    with LoopbackRegistry(tmp_path_factory.mktemp('registry')) as running:
        running.push(layout, 'x/tiny:1')
        yield running


@pytest.fixture(autouse=True)
def as_anyone(monkeypatch):
    """Root, too, builds in a user namespace."""
    if os.geteuid() == 0:
        monkeypatch.setenv('APPTAINER_USERNS', '1')


@pytest.fixture
def site(loopback):
    return SimpleNamespace(runtime='apptainer', squashfs={'compressor': 'zstd', 'level': 3, 'block': '256K'},
                           registry_mirrors={'up.invalid': [loopback.url]}, base_images={}, ca_certificates=None,
                           registries=None)


@pytest.fixture
def apptainer(site):
    return runtime.find(site)


@pytest.fixture
def place(tmp_path):
    """Where a build happens: ``work`` (str), ``target`` and ``log`` beside it, and ``left()``, what is in work."""
    work = tmp_path / 'work é'
    work.mkdir()
    return SimpleNamespace(work=str(work), target=str(tmp_path / 'x y.sif'), log=str(tmp_path / 'build.log'),
                           left=lambda: sorted(os.listdir(work)))


@pytest.fixture
def fetch(loopback, site, apptainer, place):
    """A function that builds up.invalid/NAME."""
    def call(name='x/tiny:1', runtime=apptainer):
        found = registry.resolve(parse('docker://up.invalid/' + name, 'x.eb'), site.registry_mirrors, 'x.eb')
        build.from_registry(found, place.target, runtime, site, place.work, place.log, 'x.eb')
    return call


@pytest.fixture
def define(tmp_path, site, apptainer, place):
    """A function that builds a definition whose base is the tiny image."""
    def call(sections, runtime=apptainer, header='Bootstrap: docker\nFrom: up.invalid/x/tiny:1\n'):
        path = tmp_path / 'defs' / 'x.def'
        path.parent.mkdir(exist_ok=True)
        path.write_text(header + textwrap.dedent(sections))
        return definitions.from_definition(str(path), place.target, VALUES, runtime, site, place.work, place.log,
                                           'x.eb')
    return call


def inside(apptainer, target, *command):
    """Return what a command inside the image prints (str)."""
    argv = apptainer.exec_argv(target, command, flags=('--no-home', '--no-mount', 'tmp,cwd'))
    return run.run(argv, env=apptainer.environment()).stdout


def superblock(target):
    """Return what unsquashfs tells of the file system in a SIF (str)."""
    listing = subprocess.run(['apptainer', 'sif', 'list', target], stdout=subprocess.PIPE, text=True, check=True).stdout
    offset = re.search(r'\|(\d+)-\d+ +\|FS \(Squashfs', listing).group(1)
    return subprocess.run(['unsquashfs', '-s', '-o', offset, target], stdout=subprocess.PIPE, text=True,
                          check=True).stdout


def test_an_image_of_a_registry_becomes_a_sif_that_runs_packed_as_the_site_says(fetch, place, apptainer, site):
    site.squashfs = {'compressor': 'zstd', 'level': 3, 'block': '64K'}
    fetch()
    assert inside(apptainer, place.target, '/bin/sh', '-c', 'echo it runs') == 'it runs\n'
    assert 'Compression zstd\n\tcompression-level 3\nBlock size 65536\n' in superblock(place.target)
    assert 'Build complete' in open(place.log).read()


def test_it_holds_what_the_runtime_itself_would_make_of_it(tmp_path, loopback, site, fetch, apptainer, place):
    """Every file with its owner, mode, size and link, also in directories that nobody may write to."""
    rootfs = Path(tiny_rootfs(tmp_path / 'rootfs'))
    for name, mode in (('closed', 0o500), ('sticky', 0o1777), ('group', 0o2755)):
        (rootfs / name).mkdir()
        (rootfs / name / 'file with\ttab').write_text(name)
        os.link(rootfs / name / 'file with\ttab', rootfs / name / 'hard')
        (rootfs / name / 'link').symlink_to('../gone')
        os.chmod(rootfs / name, mode)
    os.chmod(rootfs / 'closed', 0o700)
    layout = tiny_layout(tmp_path / 'layout', str(rootfs), config=['--config.label', 'org.example.says=it is'])
    loopback.push(layout, 'x/modes:1')
    fetch('x/modes:1')
    theirs = str(tmp_path / 'theirs.sif')
    run.run([apptainer.path, 'build', '--disable-cache', '--no-https', theirs,
             'docker://%s/x/modes:1' % loopback.host], env=apptainer.environment())
    listings = []
    for path in (place.target, theirs):
        offset = str(sif.read(path, 'x.eb').partition_offset)
        lines = run.run(['unsquashfs', '-lln', '-o', offset, path]).stdout.splitlines()
        # without date and time, and what says when and whence it was made
        listings.append(sorted(re.sub(r' \d{4}-\d\d-\d\d \d\d:\d\d ', ' ', line) for line in lines
                               if not re.search(r'/\.singularity\.d/(labels\.json|Singularity)$', line)))
    assert listings[0] == listings[1] and any('/closed/hard' in line for line in listings[0])
    assert sif.read(place.target, 'x.eb').architecture == sif.read(theirs, 'x.eb').architecture == sif.architecture()
    shown = [run.run([apptainer.path, 'inspect', '--json', path], env=apptainer.environment()).stdout
             for path in (place.target, theirs)]
    labels = [json.loads(text)['data']['attributes']['labels'] for text in shown]
    assert labels[0].keys() == labels[1].keys() and labels[0]['org.example.says'] == 'it is'


@pytest.mark.parametrize('told, hint', [
    ('echo Write failed because No space left on device; echo FATAL ERROR: Failed to write; exit 1',
     'export EASYSIF_TMP_DIR=<a directory with more room>'),
    ('ulimit -f 16; trap "" XFSZ; exec "$@"', 'less %(log)s'),
])
def test_a_disk_that_is_full_while_an_image_is_packed_is_told(fetch, place, monkeypatch, told, hint):
    real = run.run

    def limited(argv, **options):
        return real(['sh', '-c', told, 'sh', *argv] if argv[0].endswith('mksquashfs') else argv, **options)

    monkeypatch.setattr(build, 'run', limited)
    with pytest.raises(EasySIFError) as caught:
        fetch()
    lines = str(caught.value).splitlines()
    assert lines[0] == "x.eb: image 'up.invalid/x/tiny:1' could not be made into a SIF file"
    assert lines[-1] == 'hint: ' + hint % {'log': place.log}
    assert place.left() == [] and not os.path.exists(place.target)


def test_nothing_is_left_behind_neither_beside_nor_in_the_home(fetch, place):
    fetch()
    assert place.left() == []
    home = os.environ['HOME']
    assert [name for _, _, names in os.walk(home) for name in names] == []


def test_what_a_killed_build_left_goes_with_the_next_one_and_what_others_do_stays(fetch, place):
    process = subprocess.Popen(['sleep', '0'])
    process.wait()
    dead = json.dumps(dict(json.loads(holder.write('x.eb', '')), pid=process.pid))
    for name, record in (('dead', dead), ('alive', holder.write('x.eb', '')), ('young', None)):
        left = Path(place.work, 'easysif-build-' + name)
        (left / 'tree').mkdir(parents=True)
        if record:
            (left / 'holder').write_text(record)
        (left / 'tree').chmod(0)
    fetch()
    assert place.left() == ['easysif-build-alive', 'easysif-build-young']
    for name in place.left():
        Path(place.work, name, 'tree').chmod(0o700)


def test_nothing_is_printed(fetch, define, place, capfd):
    fetch()
    os.unlink(place.target)
    define('%post\n  true\n')
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('squashfs', [
    {'compressor': 'zstd', 'level': 3, 'block': '256K'},
    {'compressor': 'gzip', 'level': 1, 'block': '1M'},
])
def test_packing_with_many_processors_works_and_needs_no_more_than_200_mb(tmp_path, squashfs):
    """As on a node with 64; a subprocess, as the system keeps one maximum for all children."""
    code = '''if True:
        import os, resource, subprocess
        from easysif import resources
        for number in range(200):
            with open(os.path.join('tree', str(number)), 'wb') as handle:
                # files that repeat in part make mksquashfs read back what it wrote
                handle.write(os.urandom(1 << 18) + bytes(1 << 19) + b'x' * (number & 7))
        resources.processors = lambda: 64
        options = resources.mksquashfs_options(%r)
        subprocess.run(['mksquashfs', 'tree', 'packed', '-quiet', '-no-progress'] + options, check=True)
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        ''' % squashfs
    (tmp_path / 'tree').mkdir()
    library = os.path.dirname(os.path.dirname(resources.__file__))
    kilobytes = subprocess.run([sys.executable, '-c', code], env=dict(os.environ, PYTHONPATH=library),
                               stdout=subprocess.PIPE, text=True, check=True).stdout
    shutil.rmtree(tmp_path / 'tree')
    assert int(kilobytes) < 200 * 1024


def test_a_layer_that_was_changed_on_the_way_is_refused(fetch, loopback, place, tmp_path):
    layer = tiny_layout(tmp_path, tiny_rootfs(tmp_path / 'rootfs', commands=('dash', 'cat')))
    loopback.push(layer, 'x/flipped:1')
    blob = loopback.blob(json.loads(loopback.manifest('x/flipped:1'))['layers'][0]['digest'])
    with open(blob, 'r+b') as handle:
        handle.seek(os.path.getsize(blob) // 2)
        byte = handle.read(1)
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte[0] ^ 1]))
    with pytest.raises(EasySIFError) as caught:
        fetch('x/flipped:1')
    assert str(caught.value).startswith('x.eb: digest does not match the image\n  expected  %s\n  found     sha256:'
                                        % json.loads(loopback.manifest('x/flipped:1'))['layers'][0]['digest'])
    assert place.left() == [] and not os.path.exists(place.target)


def test_settings_of_a_loaded_module_do_not_reach_the_build(define, place, apptainer, monkeypatch):
    monkeypatch.setenv('APPTAINER_BIND', '/no/such/directory')
    monkeypatch.setenv('SINGULARITY_BINDPATH', '/no/such/directory')
    monkeypatch.setenv('APPTAINERENV_PLANTED', 'x')
    monkeypatch.setenv('APPTAINER_SANDBOX', '1')
    define('%post\n  env > /seen\n')
    assert 'PLANTED' not in inside(apptainer, place.target, '/bin/cat', '/seen')


# Definitions

def test_a_definition_becomes_a_sif_and_its_base_is_known(define, place, apptainer, loopback):
    facts = define('''
        %post
          echo "made of %(name)s %(version)s" > /made
        %environment
          export GREETING=hello
        ''')
    assert inside(apptainer, place.target, '/bin/cat', '/made') == 'made of tiny 1\n'
    assert inside(apptainer, place.target, '/bin/sh', '-c', 'echo $GREETING') == 'hello\n'
    digest = loopback.digest('x/tiny:1')
    assert facts == {'base': 'docker://up.invalid/x/tiny:1', 'base_digest': digest,
                     'base_source': 'docker://%s/x/tiny@%s' % (loopback.host, digest),
                     'definition': facts['definition']}
    assert 'made of tiny 1' in facts['definition']
    assert place.left() == []


def test_a_definition_starts_from_a_directory_that_the_site_has(define, place, apptainer, site, tmp_path):
    site.base_images = {'docker://debian:12': tiny_rootfs(tmp_path / 'base with blank')}
    site.registry_mirrors = {}
    facts = define('%post\n  true\n', header='Bootstrap: docker\nFrom: debian:12\n')
    assert inside(apptainer, place.target, '/bin/sh', '-c', 'echo it runs') == 'it runs\n'
    assert (facts['base'], facts['base_digest']) == ('docker://debian:12', '')
    assert facts['base_source'] == site.base_images['docker://debian:12']


def test_files_of_a_definition_are_beside_it(define, place, apptainer, tmp_path):
    (tmp_path / 'defs').mkdir()
    (tmp_path / 'defs' / 'beside').write_text('found\n')
    define('%files\n  beside /copied\n')
    assert inside(apptainer, place.target, '/bin/cat', '/copied') == 'found\n'


def test_post_reaches_package_indexes_as_the_host_does(define, place, apptainer, site, tmp_path, monkeypatch):
    site.ca_certificates = str(tmp_path / 'my bundle.pem')
    (tmp_path / 'my bundle.pem').write_text('CERTIFICATES\n')
    given = {'PIP_INDEX_URL': 'http://index.invalid/simple', 'PIP_EXTRA_INDEX_URL': 'http://a.invalid http://b.invalid',
             'PIP_TRUSTED_HOST': 'index.invalid', 'https_proxy': 'http://p.invalid:1', 'NO_PROXY': 'a,b'}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('PLANTED', 'x')
    define('%post\n  env > /seen\n  for one in $PIP_CERT $SSL_CERT_FILE $REQUESTS_CA_BUNDLE $CURL_CA_BUNDLE; do\n'
           '    cat "$one" >> /certificates\n  done\n')
    seen = dict(line.partition('=')[::2] for line in inside(apptainer, place.target, '/bin/cat', '/seen').splitlines())
    assert {name: seen.get(name) for name in given} == given
    assert 'PLANTED' not in seen
    assert inside(apptainer, place.target, '/bin/cat', '/certificates') == 'CERTIFICATES\n' * 4


def test_the_certificates_are_not_left_in_the_image(define, place, apptainer, site):
    site.ca_certificates = '/etc/ssl/certs/ca-certificates.crt'
    define('%post\n  ls /etc > /seen\n')
    assert 'ssl' not in inside(apptainer, place.target, '/bin/cat', '/seen')
    assert inside(apptainer, place.target, '/bin/sh', '-c', 'ls -A /tmp /var/tmp') == '/tmp:\n\n/var/tmp:\n'


@pytest.mark.parametrize('directory', ['/tmp', '/var/tmp'])
def test_a_definition_neither_sees_nor_fills_the_hosts_temporary_files(define, directory):
    """As the runtime shows them by default, and many definitions end with ``rm -rf /tmp/*``."""
    with tempfile.NamedTemporaryFile(dir=directory) as host:
        define('''
            %%post
              if [ -e %s ]; then echo "it is there"; exit 1; fi
              touch %s.of-the-build
            ''' % (host.name, host.name))
        assert not os.path.exists(host.name + '.of-the-build')


def test_certificates_that_are_not_there_name_the_setting(define, site, place):
    site.ca_certificates = '/no/such.pem'
    with pytest.raises(EasySIFError) as caught:
        define('%post\n  true\n')
    assert str(caught.value).startswith('x.eb: the certificates of the site cannot be read\n  file  /no/such.pem\n')
    assert place.left() == []


def test_the_certificates_survive_a_definition_that_empties_tmp_for_its_cache(define, site):
    site.ca_certificates = '/etc/ssl/certs/ca-certificates.crt'
    define('%post\n  for one in /tmp/*; do case $one in *easysif*) exit 1; esac; done\n  cat "$PIP_CERT" > /copy\n')


def test_a_failing_definition_shows_reason_last_lines_and_log(define, place):
    with open(place.log, 'w') as handle:
        handle.write('FATAL:   of an earlier build\n')
    with pytest.raises(EasySIFError) as caught:
        define('''
            %post
              for number in 1 2 3 4 5 6 7; do fine=$number; done
              echo "ERROR: No matching distribution found for torchmetrics==99" >&2
              echo "[notice] A new release of pip is available" >&2
              exit 3
            ''')
    lines = str(caught.value).splitlines()
    assert lines[0] == "x.eb: definition 'x.def' could not be made into a SIF file"
    assert lines[1].startswith('  command     %s build --disable-cache ' % shutil.which('apptainer'))
    assert lines[2:] == [
        '  exit code   255',
        '  reason      While performing build: while running engine: while running %post section: exit status 3',
        '  last lines  + fine=4', *('              ' + line for line in (
            '+ fine=5', '+ fine=6', '+ fine=7', '+ echo ERROR: No matching distribution found for torchmetrics==99',
            'ERROR: No matching distribution found for torchmetrics==99',
            '+ echo [notice] A new release of pip is available', '+ exit 3')),
        '  log         %s' % place.log, 'hint: less %s' % place.log]
    assert caught.value.exit_code == TOOL
    assert place.left() == [] and not os.path.exists(place.target)


@pytest.mark.parametrize('words', ['tar: x: Cannot write: No space left on device', 'cp: x: Disk quota exceeded'])
def test_a_full_disk_names_the_setting(define, words):
    with pytest.raises(EasySIFError) as caught:
        define('%%post\n  echo "%s"\n  exit 1\n' % words)
    assert str(caught.value).endswith('\nhint: export EASYSIF_TMP_DIR=<a directory with more room>')


def test_a_failing_definition_leaves_nothing_although_it_closed_its_directories(define, place):
    with pytest.raises(EasySIFError):
        define('%post\n  mkdir -p /tmp/a/b /data/c\n  chmod 0 /tmp/a/b /tmp/a /data/c /data\n  exit 1\n')
    assert place.left() == []


def test_an_interrupt_ends_the_build_and_leaves_nothing(tmp_path, loopback, place):
    """Also not what other users of the build own, where this machine gives builds several."""
    script, definition = tmp_path / 'run.py', tmp_path / 'x.def'
    definition.write_text('Bootstrap: docker\nFrom: up.invalid/x/tiny:1\n%post\n  mkdir -p /data/deep\n'
                          '  touch /data/deep/file\n  chown 5:5 /data/deep /data || true\n  chmod 700 /data/deep\n'
                          '  echo REA""DY\n  sleep 987653\n')
    script.write_text(textwrap.dedent('''
        from types import SimpleNamespace
        from easysif import runtime
        from easysif.images import define
        site = SimpleNamespace(runtime='apptainer', squashfs={'compressor': 'zstd', 'level': 3, 'block': '256K'},
                               registry_mirrors={'up.invalid': [%r]}, base_images={}, ca_certificates=None,
                               registries=None)
        define.from_definition(%r, %r, {}, runtime.find(site), site, %r, %r, 'x.eb')
        ''' % (loopback.url, str(definition), place.target, place.work, place.log)))
    library = os.path.dirname(os.path.dirname(resources.__file__))
    process = subprocess.Popen([sys.executable, str(script)], env=dict(os.environ, PYTHONPATH=library),
                               stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if os.path.exists(place.log) and '\nREADY\n' in open(place.log).read():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert 'KeyboardInterrupt' in error
    assert place.left() == [] and not os.path.exists(place.target)
    assert 'sleep 987653' not in subprocess.run(['ps', '-ww', '-o', 'args=', '-u', str(os.geteuid())],
                                                stdout=subprocess.PIPE, text=True).stdout


def test_what_cannot_be_removed_does_not_stand_in_the_way_of_the_next_build(tmp_path, monkeypatch):
    """As where unshare is too old to have the numbers of /etc/subuid."""
    process = subprocess.Popen(['sleep', '0'])
    process.wait()
    dead = tmp_path / 'build' / 'easysif-build-dead'
    dead.mkdir(parents=True)
    (dead / 'holder').write_text(json.dumps(dict(json.loads(holder.write('x.eb', '')), pid=process.pid)))
    monkeypatch.setattr(workspace, 'remove', lambda path, log: None)
    assert workspace.clear(str(tmp_path / 'build')) == (
        'a build that was killed left files of other users: unshare --map-root-user --map-auto rm -rf %s/%s'
        % (tmp_path, dead.name))
    assert (tmp_path / dead.name / 'holder').exists() and os.listdir(tmp_path / 'build') == []
    assert workspace.clear(str(tmp_path / 'build')) is workspace.clear(str(tmp_path / 'none')) is None


def test_what_cannot_be_removed_is_named_in_the_log(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(1, 'Operation not permitted', path)

    monkeypatch.setattr(shutil, 'rmtree', refuse)
    monkeypatch.setattr(shutil, 'which', lambda _: None)
    (tmp_path / 'left').mkdir()
    workspace.remove(str(tmp_path / 'left'), str(tmp_path / 'log'))
    assert (tmp_path / 'log').read_text() == (
        'easysif: this directory of the build could not be removed: %s/left\n' % tmp_path)


def test_a_target_that_is_there_is_neither_overwritten_nor_removed(fetch, place):
    with open(place.target, 'w') as handle:
        handle.write('precious')
    with pytest.raises(EasySIFError) as caught:
        fetch()
    assert str(caught.value) == ("x.eb: the SIF file to be built is there already\n  file  %s\nhint: rm -- '%s'"
                                 % (place.target, place.target))
    assert open(place.target).read() == 'precious'


def test_a_place_to_build_in_that_is_not_there_names_the_setting(fetch, place):
    place.work = place.work + '/none'
    with pytest.raises(EasySIFError) as caught:
        fetch()
    assert str(caught.value) == (
        "x.eb: no directory to build in can be made in '%s' (No such file or directory)\n"
        'hint: set tmp_dir in the site file, or EASYSIF_TMP_DIR' % place.work)
    assert caught.value.exit_code == INPUT


def test_without_mksquashfs_it_is_said_before_anything_is_fetched(fetch, place, monkeypatch):
    found = shutil.which
    monkeypatch.setattr(shutil, 'which', lambda name, **how: None if name == 'mksquashfs' else found(name, **how))
    with pytest.raises(EasySIFError) as caught:
        fetch()
    assert str(caught.value) == ('x.eb: mksquashfs is not on PATH, and no SIF file is made without it\n'
                                 'hint: apt-get install squashfs-tools, or have your site install it')
    assert caught.value.exit_code == TOOL and place.left() == []


def test_without_a_recipe_the_image_is_named(loopback, site, apptainer, place):
    found = registry.resolve(parse('docker://up.invalid/x/tiny:1', 'x.eb'), site.registry_mirrors, 'x.eb')
    with pytest.raises(EasySIFError) as caught:
        build.from_registry(found, place.target, apptainer, site, '/no/such', place.log)
    assert str(caught.value).startswith('up.invalid/x/tiny:1: no directory to build in')


# Logins

@pytest.mark.long
@pytest.mark.parametrize('name', ['.apptainer/docker-config.json', '.singularity/docker-config.json',
                                  '.docker/config.json', 'elsewhere.json'])
def test_what_can_be_resolved_can_be_fetched(tmp_path, layout, site, fetch, define, place, name, monkeypatch):
    monkeypatch.setenv('APPTAINER_AUTHFILE', os.path.expanduser('~/elsewhere.json'))
    with LoopbackRegistry(tmp_path / 'locked', login=True) as locked:
        locked.push(layout, 'x/tiny:1')
        site.registry_mirrors = {'up.invalid': [locked.url]}
        path = os.path.expanduser('~/' + name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        auth = base64.b64encode(('%s:%s' % (USER, PASSWORD)).encode()).decode()
        with open(path, 'w') as handle:
            json.dump({'auths': {locked.host: {'auth': auth}}}, handle)
        fetch()
        os.unlink(place.target)
        define('%post\n  env > /seen\n')
    written = open(place.log).read() + open(place.target, errors='replace').read()
    assert PASSWORD not in written and auth not in written


def test_a_login_in_variables_is_not_given_to_the_runtime(apptainer, tmp_path, monkeypatch):
    for prefix in ('APPTAINER', 'SINGULARITY'):
        monkeypatch.setenv(prefix + '_DOCKER_USERNAME', 'user')
        monkeypatch.setenv(prefix + '_DOCKER_PASSWORD', SECRET)
    assert SECRET not in build.environment(apptainer, str(tmp_path)).values()
    assert build.environment(apptainer, str(tmp_path), ca_certificates='/x.pem')['SSL_CERT_FILE'] == '/x.pem'


# A runtime without --mksquashfs-args: SingularityCE, and Apptainer before 1.2

@pytest.fixture
def older(apptainer, tmp_path):
    """The real runtime, as if it knew no --mksquashfs-args."""
    path = tmp_path / 'old' / 'apptainer'
    path.parent.mkdir()
    path.write_text('#!/bin/sh\nif [ "$2" = --help ]; then exit 0; fi\nexec %s "$@"\n' % apptainer.path)
    path.chmod(0o755)
    return runtime.Runtime(str(path), apptainer.name, apptainer.version)


def test_an_older_runtime_packs_as_the_site_says_too(fetch, older, place, apptainer, site):
    site.squashfs = {'compressor': 'zstd', 'level': 5, 'block': '512K'}
    fetch(runtime=older)
    assert 'Compression zstd\n\tcompression-level 5\nBlock size 524288\n' in superblock(place.target)
    assert inside(apptainer, place.target, '/bin/sh', '-c', 'echo it runs') == 'it runs\n'


def test_the_stand_in_for_mksquashfs_keeps_what_the_runtime_wants_otherwise(tmp_path):
    real = tmp_path / 'real'
    real.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    real.chmod(0o755)
    source = tmp_path / 'a b'
    source.mkdir()
    more = ['-noappend', '-comp', 'gzip', '-all-root', '-processors', '4', '-mem', '1G', '-b', '128K',
            '-Xcompression-level', '9', '-e', '*']
    env = dict(os.environ, EASYSIF_MKSQUASHFS=str(real), EASYSIF_MKSQUASHFS_OPTIONS='-comp zstd -b 256K')

    def packed(source):
        return subprocess.run([HELPER, source, "/x'y", *more], stdout=subprocess.PIPE, text=True, check=True,
                              env=env).stdout
    assert packed(source) == "<%s></x'y><-noappend><-all-root><-e><*><-comp><zstd><-b><256K>" % source
    # a file: SingularityCE tries whether it gets gzip
    assert packed(real) == ''.join('<%s>' % word for word in (real, "/x'y", *more))


def test_the_stand_in_for_mksquashfs_hands_on_its_status():
    env = dict(os.environ, EASYSIF_MKSQUASHFS='false', EASYSIF_MKSQUASHFS_OPTIONS='')
    assert subprocess.run([HELPER], env=env).returncode == 1
    call('shellcheck', HELPER)
