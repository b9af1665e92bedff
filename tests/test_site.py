# SPDX-License-Identifier: GPL-2.0-only
"""Sites: which one is chosen, how layers make one, and every message about what does not fit."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostile
from easysif import schema, site
from easysif.errors import EasySIFError, escaped

#: what has a meaning in YAML
YAML = [': ', '\n', '\n  ', '\n    ', '- ', '[', ']', '{', '}', ', ', '&a ', '*a', '? ', '|\n', '>\n', '"', "'",
        '---\n', '...\n', '%YAML 1.1\n', '<<: ', '<<: *a', '!!set ', '!!omap ', '!!pairs ', '!!binary ', '!!timestamp ',
        '!!float ', '!x ', 'null', '~', '.nan', '.inf', '1e999', '0o7', '1:1:1', '2024-13-45', '2024-01-01', 'yes',
        '/x', 'mpi', '\t']

ALLOWED = ', '.join(schema.load('site')['properties'])
DEFAULT = os.path.join(site.SITES, 'default.yaml')


@pytest.fixture
def home(tmp_path):
    """Return a home directory without settings of its own."""
    return tmp_path / 'home'


@pytest.fixture
def resolve(home):
    """Resolve with an environment that has nothing but a home and the variables given."""
    return lambda **variables: site.resolve({'HOME': str(home), **variables})


@pytest.fixture
def write(tmp_path):
    """Write a site file and return its path."""
    def written(text, name='lumi.yaml'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return written


@pytest.fixture
def shipped(monkeypatch, tmp_path, write):
    """Ship the default and further profiles, and let the host have a name."""
    def ship(host, **profiles):
        monkeypatch.setattr(site, 'SITES', str(tmp_path / 'sites'))
        monkeypatch.setattr(site.socket, 'gethostname', lambda: host)
        with open(DEFAULT, 'rb') as handle:
            write(handle.read(), 'sites/default.yaml')
        for name, text in profiles.items():
            write(text, 'sites/%s.yaml' % name)
    return ship


def message(function, *args, **kwargs):
    """Return what a call says when it raises our error."""
    with pytest.raises(EasySIFError) as raised:
        function(*args, **kwargs)
    return str(raised.value)


def test_the_default_works_anywhere(resolve, monkeypatch):
    monkeypatch.setattr(site, 'CA_BUNDLES', ())
    nothing = site.Need((), {})
    assert resolve().site == site.Site(
        provides={'nvidia-gpu': nothing, 'amd-gpu': nothing, 'ca-certificates': nothing,
                  'x11': nothing},
        name='default', path=DEFAULT, runtime='auto', image_store=None, image_mode='copy',
        squashfs={'compressor': 'zstd', 'level': 5, 'block': '128K', 'keep': 1}, binds=(), container_env={},
        isolation=(), registries=None, registry_mirrors={}, base_images={}, cache_dir=None, tmp_dir=None,
        ca_certificates=None, verify='none', keyring=None, overlays=None, module_dependency=None,
        login_host=None, share='none',
        job={}, force={})


def test_the_default_names_and_explains_every_setting():
    with open(DEFAULT, encoding='utf-8') as handle:
        lines = handle.read().splitlines()
    for key in schema.load('site')['properties']:
        at = next(at for at, line in enumerate(lines) if line.startswith((key + ':', '# %s:' % key)))
        assert lines[at - 1].startswith('# ') or key == 'tmp_dir', key


LUMI = """
match: {hostname: "uan0*|nid*"}
runtime: singularity
image_store: /appl/local/containers/easybuild-sif-images
squashfs: {level: 5}
binds: [/pfs, "/a b/é"]
provides:
  amd-gpu:
  interconnect:
    binds: [/var/spool/slurmd, "/x.squashfs:/opt/x:image-src=/,ro"]
    container_env: {NCCL_SOCKET_IFNAME: hsn}
registry_mirrors: {"nvcr.io": ["http://localhost:5000/nvidia", "https://[::1]:5000"]}
base_images: {"docker://debian:12": /opt/debian 12.sif}
overlays: /project/$USER/${PROJECT}/overlays
"""


def test_layers_make_one_site(resolve, home, write):
    path = write(LUMI)
    write("""
runtime: auto
binds: [/pfs, /mine]
squashfs: {block: 1M}
provides: {interconnect: {binds: [/more], container_env: {NCCL_DEBUG: INFO}}}
registry_mirrors: {nvcr.io: ["http://other"]}
image_store:
""", 'home/.config/easysif/site.yaml')
    found = resolve(EASYSIF_SITE=path, EASYSIF_BINDS='[/env]', EASYSIF_RUNTIME='/opt/app tainer', EASYSIF_TMP_DIR='',
                    EASYSIF_CONTAINER_ENV='{A: "1"}', EASYSIF_CA_CERTIFICATES='')
    assert found.site == site.Site(
        name='lumi', path=path, runtime='/opt/app tainer', image_store=None, image_mode='copy',
        squashfs={'compressor': 'zstd', 'level': 5, 'block': '1M', 'keep': 1},
        binds=('/pfs', '/a b/é', '/mine', '/env'),
        container_env={'A': '1'}, isolation=(), registries=None, provides={
            **site.profile(DEFAULT).site.provides,
            'interconnect': site.Need(('/var/spool/slurmd', '/x.squashfs:/opt/x:image-src=/,ro', '/more'),
                                      {'NCCL_SOCKET_IFNAME': 'hsn', 'NCCL_DEBUG': 'INFO'})},
        registry_mirrors={'nvcr.io': ('http://localhost:5000/nvidia', 'https://[::1]:5000', 'http://other')},
        base_images={'docker://debian:12': '/opt/debian 12.sif'}, cache_dir=None, tmp_dir=None, ca_certificates='',
        verify='none', keyring=None, overlays='/project/$USER/${PROJECT}/overlays', module_dependency=None,
        login_host=None, share='none',
        job={}, force={})
    user = '~/.config/easysif/site.yaml'
    nothing, lumi = dict.fromkeys(site.Need.__dataclass_fields__, 'default'), 'site lumi'
    assert {key: value for key, value in found.origins.items() if value != 'default'} == {
        'name': 'EASYSIF_SITE', 'path': 'EASYSIF_SITE', 'runtime': 'EASYSIF_RUNTIME', 'image_store': user,
        'squashfs': {'compressor': 'default', 'level': lumi, 'block': user, 'keep': 'default'},
        'binds': [lumi, lumi, user, 'EASYSIF_BINDS'], 'container_env': {'A': 'EASYSIF_CONTAINER_ENV'},
        'provides': {**site.profile(DEFAULT).origins['provides'], 'interconnect': dict(
            nothing, binds=[lumi, lumi, user], container_env={'NCCL_SOCKET_IFNAME': lumi, 'NCCL_DEBUG': user})},
        'registry_mirrors': {'nvcr.io': [lumi, lumi, user]}, 'base_images': {'docker://debian:12': lumi},
        'ca_certificates': 'EASYSIF_CA_CERTIFICATES', 'overlays': lumi}


def test_variables_that_are_no_settings_change_nothing(resolve):
    assert resolve(EASYSIF_SET='x', EASYSIF_KEPT='y', EASYSIF_PREFIX='/p', EASYSIF_OVERLAYS='/o', EASYSIF_MATCH='m',
                   EASYSIF_NAME='n', EASYSIF_NOSUCH='z', EASYSIF_SITE='') == resolve()


def test_certificates_are_looked_for_on_the_host(resolve, monkeypatch, tmp_path):
    bundle = tmp_path / 'ca.pem'
    monkeypatch.setattr(site, 'CA_BUNDLES', ('/nonexistent', str(bundle), '/etc'))
    bundle.write_text('')
    found = resolve()
    assert (found.site.ca_certificates, found.origins['ca_certificates']) == (str(bundle), 'found on this machine')
    monkeypatch.setattr(site, 'CA_BUNDLES', ())
    assert resolve().origins['ca_certificates'] == 'none on this machine'


@pytest.mark.parametrize('host, name, why', [
    ('uan01', 'lumi', 'match of host uan01'),
    ('nid001.lumi.csc.fi', 'lumi', 'match of host nid001.lumi.csc.fi'),
    ('login', 'default', 'default'),
])
def test_a_site_is_chosen_by_the_name_of_the_host(shipped, resolve, host, name, why):
    shipped(host, lumi=LUMI)
    found = resolve()
    assert (found.site.name, found.origins['name']) == (name, why)


def test_a_site_is_chosen_by_name(shipped, resolve):
    shipped('uan01', lumi=LUMI, uva='runtime: apptainer')
    assert resolve(EASYSIF_SITE='uva').site.runtime == 'apptainer'
    assert resolve(EASYSIF_SITE='default').site.runtime == 'auto'


def test_two_sites_that_match_are_an_error(shipped, resolve):
    shipped('uan01', lumi=LUMI, other='match: {hostname: "*01"}')
    assert message(resolve) == """\
sites: several match this host: lumi, other
  host  uan01
hint: export EASYSIF_SITE=lumi"""


@pytest.mark.parametrize('wanted, hint', [
    ('lum', "did you mean 'lumi'?"), ('q', 'export EASYSIF_SITE=/path/to/site.yaml'),
])
def test_a_site_that_is_not_there_is_an_error(shipped, resolve, wanted, hint):
    shipped('x', lumi=LUMI)
    assert message(resolve, EASYSIF_SITE=wanted) == """\
EASYSIF_SITE: there is no site '%s'
  sites  default, lumi
hint: %s""" % (wanted, hint)


def test_a_site_file_that_cannot_be_read_is_an_error(resolve, tmp_path, home):
    path = str(tmp_path / 'no.yaml')
    assert message(resolve, EASYSIF_SITE=path) == '%s: cannot be read (No such file or directory)' % path
    assert message(resolve, EASYSIF_SITE='%s/' % tmp_path) == '%s: cannot be read (Is a directory)' % tmp_path
    (home / '.config' / 'easysif').mkdir(parents=True)
    (home / '.config' / 'easysif' / 'site.yaml').symlink_to('/nonexistent')
    assert message(resolve) == '%s/.config/easysif/site.yaml: cannot be read (No such file or directory)' % home


def test_match_in_ones_own_settings_is_an_error(resolve, write):
    path = write('match: {hostname: x}', 'home/.config/easysif/site.yaml')
    assert message(resolve) == ('%s:1: match belongs into the profile of a site, not into your own settings\n'
                                'hint: export EASYSIF_SITE=/path/to/site.yaml' % path)


@pytest.mark.parametrize('text, expected', [
    ('a: [', ":1: not valid YAML: expected the node content, but found '<stream end>'"),
    ('runtime: auto\nx: "', ':2: not valid YAML: found unexpected end of stream'),
    ('runtime: @x', ":1: not valid YAML: found character '@' that cannot start any token"),
    ('runtime: *x', ":1: not valid YAML: found undefined alias 'x'"),
    ('runtime: !!python/object:x {}',
     ":1: not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:x'"),
    ('a: 1\n---\nb: 2', ':2: not valid YAML: but found another document'),
    ('? [a]\n: b', ':1: not valid YAML: found unhashable key'),
    ('runtime: auto\ntmp_dir: 2024-13-01', ":2: not valid YAML: 'tmp_dir' is no timestamp: '2024-13-01'"),
    ('squashfs: {level: !!bool x}', ":1: not valid YAML: 'squashfs.level' is no bool: 'x'"),
    ('tmp_dir: !!timestamp x', ":1: not valid YAML: 'tmp_dir' is no timestamp: 'x'"),
    ('tmp_dir: !!int', ":1: not valid YAML: 'tmp_dir' is no int: ''"),
    ('tmp_dir: 1%s.5' % (':59' * 40), ":1: 'tmp_dir' is a number of 123 characters\n"
     'hint: put it in quotes if it is a text'),
    ('squashfs:\n  level: 0x' + 'f' * 5000,
     ":2: 'squashfs.level' is a number of 5002 characters\nhint: put it in quotes if it is a text"),
    ('tmp_dir: "/\\U00110000"', ': not valid YAML: chr() arg not in range(0x110000)'),
    ('container_env: {<<: {A: x}, B: 1}', ':1: container_env.B must be text, not the number 1\nhint: put it in quotes'),
    ('binds: [%s]' % ', '.join(['/x'] * 10000),
     ': holds more than 10000 values, aliases counted as what they stand for'),
    ('a: &a [1, 2, 3]\n' + ''.join('%s: &%s [*%s, *%s, *%s]\n' % (two, two, one, one, one) for one, two in
                                   zip('abcdefghij', 'bcdefghijk')),
     ': holds more than 10000 values, aliases counted as what they stand for'),
    (b'runtime: \xff', ": not valid YAML: unacceptable character #x00ff: invalid start byte"),
    (b'runtime: \0', ': not valid YAML: unacceptable character #x0000: special characters are not allowed'),
    ('runtime: auto\nbinds: []\nruntime: auto',
     ":3: 'runtime' is there twice, first in line 1\nhint: keep one of the two"),
    ('squashfs:\n  level: 3\n  level: 4',
     ":3: 'squashfs.level' is there twice, first in line 2\nhint: keep one of the two"),
    ('just a text', ": the file must be a mapping of settings, not the text 'just a text'"),
    ('- runtime', ":1: the file must be a mapping of settings, not the list ['runtime']"),
    ('\nbind: [/x]', ":2: unknown key 'bind'\n  allowed  %s\nhint: did you mean 'binds'?" % ALLOWED),
    ('1: 2', ":1: unknown key '1'\n  allowed  %s" % ALLOWED),
    ('squashfs:\n  levl: 3', ":2: unknown key 'levl' in squashfs\n  allowed  compressor, level, block, keep\n"
     "hint: did you mean 'level'?"),
    ('squashfs:\n  x: 3', ":2: unknown key 'x' in squashfs\n  allowed  compressor, level, block, keep"),
    ('match:\n  host: x', ":1: match.hostname is missing\nhint: write match: {hostname: uan0*|nid*}\n"
     "error: FILE:2: unknown key 'host' in match\n  allowed  hostname, path"),
    ('match: x', ":1: match must be a mapping with hostname, not the text 'x'\n"
     "hint: write match: {hostname: uan0*|nid*}"),
    ('runtime: docker', ":1: runtime must be auto, apptainer, singularity or an absolute path, not the text 'docker'\n"
     "hint: write runtime: auto"),
    ('runtime:', ":1: runtime must be auto, apptainer, singularity or an absolute path, not nothing\n"
     "hint: write runtime: auto"),
    ('runtime: "/x\\ny"', ":1: runtime must be one line without control characters, not '/x\\ny'\n"
     "hint: write runtime: auto"),
    ('runtime: yes', ":1: runtime must be auto, apptainer, singularity or an absolute path, not true\n"
     "hint: put it in quotes"),
    ('image_store: images', ":1: image_store must be an absolute path, not 'images'"),
    ('cache_dir: ~/cache', ":1: cache_dir must be an absolute path, not '~/cache'"),
    ('tmp_dir: "/x\\ny"', ":1: tmp_dir must be one line without control characters, not '/x\\ny'"),
    ('tmp_dir: 3', ":1: tmp_dir must be an absolute path, not the number 3\nhint: put it in quotes"),
    ('squashfs:\n  compressor: bzip2',
     ":2: squashfs.compressor must be one of gzip, lzo, lz4, xz, zstd, not the text 'bzip2'"),
    ('squashfs:\n\n  level: 23',
     ":3: squashfs.level must be a number from 1 to 22 (gzip and lzo: to 9), not the number 23"),
    ('squashfs: {level: 3.0}',
     ":1: squashfs.level must be a number from 1 to 22 (gzip and lzo: to 9), not the number 3.0"),
    ('squashfs: {block: 100K}', ":1: squashfs.block must be a power of two from 4K to 1M, not the text '100K'"),
    ('squashfs: zstd', ":1: squashfs must be a mapping of compressor, level, block and keep, not the text 'zstd'\n"
     "hint: write squashfs: {compressor: zstd, level: 5, block: 128K, keep: 1}"),
    ('binds: /scratch', ":1: binds must be a list of absolute paths, source[:destination[:options]], not the text "
     "'/scratch'\nhint: write binds: [/scratch]"),
    ('binds:\n- /x\n- /', ":3: binds[1] must be below '/', not the root directory itself ('/')"),
    ('binds:\n- /x\n- y', ":3: binds[1] must be an absolute path, not 'y'"),
    ('binds: ["/a,b"]', ":1: binds[0] must not hold ',', which separates the parts of a bind: '/a,b'"),
    ('binds: ["/a:/b:ro:c"]', ":1: binds[0] must be source[:destination[:options]], not '/a:/b:ro:c'"),
    ('binds: ["/a^b"]', ":1: binds[0] must not hold '^', which the container runtimes take for a separator: '/a^b'"),
    ('binds: ["/a\\\\:/b"]', ":1: binds[0] must not end in a blank or a backslash, which the container runtimes take "
     "away: '/a\\'"),
    ('binds: ["/a:/b "]', ":1: binds[0] must not end in a blank or a backslash, which the container runtimes take "
     "away: '/b '"),
    ('binds: ["/a:/b:ro,exec"]',
     ":1: binds[0] must have options out of ro, rw, image-src=/path and id=number, not 'exec'"),
    ('binds: ["/a\\nb"]', ":1: binds[0] must be one line without control characters, not '/a\\nb'"),
    ('binds: [/a, /a]', ":1: binds names '/a' twice\nhint: write binds: [/scratch]"),
    ('container_env: {A: 3}', ":1: container_env.A must be text, not the number 3\nhint: put it in quotes"),
    ('container_env: {A B: x}', ":1: a key of container_env must be the name of a variable, not the text 'A B'"),
    ('container_env: {A: "%s"}' % ('x' * 4097), ':1: container_env.A must have 4096 bytes at the most, not 4097'),
    ('container_env: {A: "%s", B: "%s", C: "%s"}' % (('x' * 4000,) * 3),
     ':1: container_env must not hold more than 10000 bytes, as every process of the user gets them, not 12003\n'
     'hint: write container_env: {OMP_NUM_THREADS: 1}'),
    ('container_env: {%s: x}' % ('A' * 256),
     ':1: a key of container_env must have 255 characters at the most, not 256'),
    ('container_env: {A: "\\x9b"}', ":1: container_env.A must be one line without control characters, not '\\x9b'"),
    ('container_env: {A: "x\\ny"}', ":1: container_env.A must be one line without control characters, not 'x\\ny'"),
    ('provides: [amd-gpu]', ":1: provides must be a mapping of needs to what provides them, not the list ['amd-gpu']\n"
     "hint: write provides: {nvidia-gpu: {}}"),
    ('provides: {AMD GPU: {}}', ":1: a key of provides must be a word of small letters, digits and -, "
     "not the text 'AMD GPU'"),
    ('provides:\n  mpi: yes', ":2: provides.mpi must be a mapping of binds, container_env, path, library_path, "
     "libraries, requires and conflicts, not true"),
    ('provides:\n  mpi:\n    bind: [/x]', ":3: unknown key 'bind' in provides.mpi\n  allowed  "
     "binds, container_env, path, library_path, libraries, requires, conflicts\nhint: did you mean 'binds'?"),
    ('provides:\n  mpi:\n    binds:\n      - x', ":4: provides.mpi.binds[0] must be an absolute path, not 'x'"),
    ('registry_mirrors: {nvcr.io: localhost}',
     ":1: registry_mirrors.nvcr.io must be a list of http(s)://host[:port][/path], not the text 'localhost'"),
    ('registry_mirrors: {nvcr.io: {"https://me:hunter2@a.b": "https://me:hunter2@a.b"}}',
     ":1: registry_mirrors.nvcr.io must be a list of http(s)://host[:port][/path], not the mapping "
     "{'https://me:***@a.b': 'https://me:***@a.b'}"),
    ('registries: ["docker://me:hunter2@a.b"]', ":1: registries[0] must be a registry, host[:port], not the text "
     "'docker://me:***@a.b'"),
    ('base_images: {"docker://me:hunter2@a.b/c:1": /x.sif}',
     ":1: a key of base_images must be a reference as definition files write it, without a login, not the text "
     "'docker://me:***@a.b/c:1'"),
    ('registry_mirrors: {nvcr.io: ["localhost:5000"]}',
     ":1: registry_mirrors.nvcr.io[0] must be http(s)://host[:port][/path], not the text 'localhost:5000'"),
    ('registry_mirrors: {nvcr.io: ["http://user:pw@host"]}',
     ":1: registry_mirrors.nvcr.io[0] must be http(s)://host[:port][/path], not the text 'http://user:***@host'"),
    ('registry_mirrors: {"https://nvcr.io": []}',
     ":1: a key of registry_mirrors must be a registry, host[:port], not the text 'https://nvcr.io'"),
    ('base_images: {"docker://x": base}', ":1: base_images.docker://x must be an absolute path, not 'base'"),
    ('base_images: {"": /x}',
     ":1: a key of base_images must be a reference as definition files write it, without a login, "
     "not the text ''"),
    ('ca_certificates: ca.pem', ":1: ca_certificates must be an absolute path, not 'ca.pem'"),
    ('ca_certificates: "/a:b"', ":1: ca_certificates must not hold ':', which separates the parts of a bind: '/a:b'"),
    ('overlays: overlays', ":1: overlays must be an absolute path, or start with a variable as $HOME/overlays does, "
     "not 'overlays'\nhint: write overlays: /project/$USER/overlays"),
    ('overlays: /x/$(id)', ":1: overlays must use '$' only before the name of a variable: '/x/$(id)'\n"
     "hint: write overlays: /project/$USER/overlays"),
    ('overlays: "$HOME/a,b"', ":1: overlays must not hold ',', which separates the parts of a bind: '/x/a,b'\n"
     "hint: write overlays: /project/$USER/overlays"),
    ('module_dependency: a b', ":1: module_dependency must be the name of a module, not the text 'a b'\n"
     "hint: write module_dependency: apptainer/1.4.5"),
    ('runtime: docker\nbinds: x', ":1: runtime must be auto, apptainer, singularity or an absolute path, not the text "
     "'docker'\nhint: write runtime: auto\nerror: FILE:2: binds must be a list of absolute paths, "
     "source[:destination[:options]], not the text 'x'\nhint: write binds: [x]"),
])
def test_what_does_not_fit_is_named_with_its_line(write, text, expected):
    path = write(text)
    assert message(site.read, path) == (path + expected).replace('FILE', path)


@pytest.mark.parametrize('text', ['', '# nothing\n', 'binds:\nprovides: {mpi: }\ncontainer_env:\nimage_store:\n',
                                  'overlays: $HOME\nca_certificates: ""\nsquashfs:\nmodule_dependency: a/1.0\n',
                                  'binds: &a [/x]\nprovides: {mpi: {binds: *a}}'])
def test_what_is_left_empty_and_what_is_repeated_by_alias_fits(resolve, write, text):
    assert resolve(EASYSIF_SITE=write(text)).site.name == 'lumi'


def test_a_file_that_nests_without_end_is_an_error(write):
    path = write('[' * 5000)
    assert message(site.read, path) == '%s: not valid YAML: nested too deeply' % path


def test_a_file_without_end_is_an_error(resolve):
    assert message(resolve, EASYSIF_SITE='/dev/zero') == '/dev/zero: is larger than 4194304 bytes'


def test_a_named_pipe_is_an_error_and_nobody_waits(resolve, tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    assert message(resolve, EASYSIF_SITE=str(tmp_path / 'pipe.yaml')) == (
        '%s/pipe.yaml: cannot be read (it is a named pipe)' % tmp_path)


@settings(max_examples=5 * settings.default.max_examples)
@given(text=st.lists(st.one_of(st.sampled_from([*YAML, *schema.load('site')['properties'], *site.Need.__annotations__]),
                               hostile.texts(2)), max_size=16).map(''.join))
def test_whatever_a_file_holds_is_read_or_refused_in_our_words(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / 'any.yaml'
    path.write_bytes(text.encode('utf-8', 'surrogatepass'))
    try:
        assert isinstance(site.read(str(path)), dict) and site.profile(str(path)).site.name == 'any'
    except EasySIFError as err:
        assert str(err).startswith(str(path))
        assert [line for line in str(err).split('\n') if line != escaped(line)] == []  # nothing that a terminal obeys


def test_an_alias_inside_itself_is_an_error(write):
    path = write('binds: &a [*a]')
    assert message(site.read, path).startswith(
        '%s:1: binds[0] must be a path, source[:destination[:options]], not the list [[' % path)


@pytest.mark.parametrize('variable, value, expected', [
    ('EASYSIF_RUNTIME', 'docker', "runtime must be auto, apptainer, singularity or an absolute path, not the text "
     "'docker'\nhint: write runtime: auto"),
    ('EASYSIF_BINDS', '/x',
     "binds must be a list of absolute paths, source[:destination[:options]], not the text '/x'\n"
     "hint: write binds: [/x]"),
    ('EASYSIF_TMP_DIR', 'tmp', "tmp_dir must be an absolute path, not 'tmp'"),
    ('EASYSIF_IMAGE_STORE', '/x\udcff', "image_store must be one line without control characters, not '/x\\udcff'"),
])
def test_a_variable_that_does_not_fit_is_an_error(resolve, variable, value, expected):
    assert message(resolve, **{variable: value}) == '%s: %s' % (variable, expected)


def test_a_variable_that_is_no_yaml_is_an_error(resolve):
    assert message(resolve, EASYSIF_BINDS='[') == (
        "EASYSIF_BINDS:1: not valid YAML: expected the node content, but found '<stream end>'")


def test_a_level_that_the_compressor_has_not_is_an_error(resolve, write):
    path = write('squashfs: {compressor: gzip, level: 10}')
    assert message(resolve, EASYSIF_SITE=path) == (
        '%s:1: squashfs.level of gzip must be a number from 1 to 9, not 10' % path)
