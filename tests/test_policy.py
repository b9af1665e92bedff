# SPDX-License-Identifier: GPL-2.0-only
"""What a site forces holds over recipes, users' settings and users' environments; what it isolates is isolated."""

from types import SimpleNamespace

import pytest

import standins
from easysif import site
from easysif.errors import EasySIFError
from easysif.images import definition
from easysif.images.reference import parse
from easysif.images.sources import check_allowed
from easysif.site_plan import literal
from fakes import Fake, both
from made_up import MadeUp


@pytest.fixture(params=['by_module', 'by_wrapper'])
def by(request, tmp_path):
    """The environment that a module, or a wrapper, makes: ``by(fake, **variables)``."""
    return lambda fake, **env: getattr(fake, request.param)(tmp_path / 'home', env)[0]


@pytest.fixture
def there(tmp_path):
    """A directory to be bound."""
    (tmp_path / 'there').mkdir()
    return str(tmp_path / 'there')


def test_forced_binds_win_over_recipe_and_user(by, tmp_path, there):
    fake = Fake(tmp_path / 'p', binds=('/usr:/etc/pki',))
    fake.site(force={'binds': ['%s:/etc/pki' % there, '/nosuch:/opt/x', '/usr:/etc/pki']}, binds=('/usr:/data',))
    env = by(fake, APPTAINER_BINDPATH='/mine:/etc/pki/,/opt:/opt/x', SINGULARITY_BINDPATH='/mine:/data')
    assert both(env, '_BINDPATH') == ','.join(
        ['/mine:/data', '/opt:/opt/x', '%s:/etc/pki' % there, fake.binds()])


def test_a_forced_variable_wins_over_recipe_and_user(by, tmp_path):
    fake = Fake(tmp_path / 'p', container_env={'A': 'recipe', 'B': 'recipe'})
    fake.site(force={'container_env': {'A': 'site;$HOME', 'C': ''}}, container_env={'D': 'site'})
    env = by(fake, APPTAINERENV_A='user', SINGULARITYENV_C='user', A='user', EASYSIF_SET='APPTAINERENV_A=other')
    assert both(env, 'ENV_A') == 'site;\\$HOME' and both(env, 'ENV_B') == 'recipe' and both(env, 'ENV_C') == ''
    assert both(env, 'ENV_D') == 'site'


def test_what_isolates_is_switched_on(by, tmp_path):
    fake = Fake(tmp_path / 'p')
    fake.site(isolation=('cleanenv', 'no-home'))
    env = by(fake, APPTAINER_CLEANENV='0')
    assert both(env, '_CLEANENV') == both(env, '_NO_HOME') == '1' and both(env, '_CONTAIN') is None


def test_what_a_scheduler_tells_a_process_is_let_in(tmp_path):
    """As it is, and not over what user or site set inside; what only looks like it in another value does not count."""
    fake = Fake(tmp_path / 'p')
    told = {'CUDA_VISIBLE_DEVICES': '0,1', 'ROCR_VISIBLE_DEVICES': '', 'HIP_VISIBLE_DEVICES': '2', 'SLURM_PROCID': '3',
            'EASYSIF_RENDEZVOUS_KEY': ' 0a 1b', 'EASYSIF_GPUS': 'all', 'PMI_FD': '7', 'PMIX_RANK': '1',
            'OMPI_COMM_WORLD_RANK': '1', 'SLURM_JOB_NAME': 'a $(id) `id` \\ "\'$'}
    others = {'OTHER': 'x\nexport SLURM_NOT=1', 'MY_SLURM_X': '1', 'SLURM_CLUSTER': 'host', 'PMI_SIZE': '2',
              'APPTAINERENV_SLURM_CLUSTER': 'users', 'SINGULARITYENV_PMI_SIZE': '4'}
    assert not [name for name in fake.by_wrapper(tmp_path, told)[0] if 'ENV_SLURM' in name or 'ENV_CUDA' in name]
    fake.site(isolation=('no-home', 'cleanenv'), force={'container_env': {'SLURM_DEBUG': '1'}})
    env, said = fake.by_wrapper(tmp_path, {**told, **others, 'SLURM_DEBUG': '5'})
    assert said == '' and both(env, 'ENV_SLURM_DEBUG') == '1'
    for name, value in told.items():
        assert both(env, 'ENV_' + name) == literal(value), name
    assert env['APPTAINERENV_SLURM_CLUSTER'] == 'users' and 'SINGULARITYENV_SLURM_CLUSTER' not in env
    assert env['SINGULARITYENV_PMI_SIZE'] == '4' and 'APPTAINERENV_PMI_SIZE' not in env
    assert not [name for name in env if name.endswith(('ENV_SLURM_NOT', 'ENV_MY_SLURM_X', 'ENV_OTHER'))]


@pytest.mark.parametrize('policy, variables, key, expected', [
    ('verify: all', {'EASYSIF_VERIFY': 'none'}, 'verify', 'all'),
    ('runtime: /usr/bin/true', {'EASYSIF_RUNTIME': 'singularity'}, 'runtime', '/usr/bin/true'),
    ('registries: [nvcr.io]', {'EASYSIF_REGISTRIES': '[evil.org]'}, 'registries', ('nvcr.io',)),
    ('isolation: [cleanenv]', {'EASYSIF_ISOLATION': '[pid]'}, 'isolation', ('pid', 'cleanenv')),
    ('container_env: {A: "1"}', {'EASYSIF_CONTAINER_ENV': '{A: "2", B: "2"}'}, 'container_env', {'A': '1', 'B': '2'}),
    ('registry_mirrors: {a: ["http://b"]}', {}, 'registry_mirrors', {'a': ('http://b',)}),
    ('ca_certificates: ""', {'EASYSIF_CA_CERTIFICATES': '/x'}, 'ca_certificates', ''),
    ('keyring: /keys', {'EASYSIF_KEYRING': '/mine', 'EASYSIF_FORCE': '{keyring: /mine}'}, 'keyring', '/keys'),
])
def test_a_forced_setting_wins_over_the_users(tmp_path, policy, variables, key, expected):
    (tmp_path / 's.yaml').write_text('force: {%s}' % policy)
    found = site.resolve(dict(variables, EASYSIF_SITE=str(tmp_path / 's.yaml'), HOME=str(tmp_path)))
    assert getattr(found.site, key) == expected


@pytest.mark.parametrize('text, expected', [
    ('force:\n  verify:', ":2: force.verify must be one of none, sif, all, not nothing"),
    ('force:\n  overlays: /x', ":2: unknown key 'overlays' in force\n  allowed  runtime, binds, container_env, "
     "isolation, registries, registry_mirrors, ca_certificates, verify, keyring"),
    ('force: all', ":1: force must be a mapping of settings that nobody else can change, not the text 'all'\n"
     "hint: write force: {verify: all}"),
    ('isolation: [cleanEnv]', ":1: isolation[0] must be one of cleanenv, contain, no-home, ipc, pid, not the text "
     "'cleanEnv'"),
    ('registries: nvcr.io', ":1: registries must be a list of registries and web servers, host[:port], not the text "
     "'nvcr.io'\nhint: write registries: [nvcr.io]"),
    ('registries: ["https://nvcr.io"]',
     ":1: registries[0] must be a registry, host[:port], not the text 'https://nvcr.io'"),
])
def test_a_policy_that_does_not_fit_is_named_with_its_line(tmp_path, text, expected):
    (tmp_path / 's.yaml').write_text(text)
    with pytest.raises(EasySIFError) as raised:
        site.read(str(tmp_path / 's.yaml'))
    assert str(raised.value) == '%s/s.yaml%s' % (tmp_path, expected)


def test_a_policy_in_ones_own_settings_is_an_error(tmp_path):
    own = tmp_path / '.config' / 'easysif' / 'site.yaml'
    own.parent.mkdir(parents=True)
    own.write_text('binds: [/x]\nforce: {verify: none}')
    with pytest.raises(EasySIFError) as raised:
        site.resolve({'HOME': str(tmp_path)})
    assert str(raised.value) == ('%s:2: force belongs into the profile of a site, not into your own settings\n'
                                 'hint: export EASYSIF_SITE=/path/to/site.yaml' % own)


ALLOWED = SimpleNamespace(registries=('nvcr.io', 'localhost:5000'), base_images={'yum://centos': '/'})


@pytest.mark.parametrize('image', ['docker://nvcr.io/nvidia/jax:1', 'oras://localhost:5000/x:1', 'x.sif', 'x.def',
                                   'https://nvcr.io/x.sif', 'docker-archive:x.tar'])
def test_an_image_of_an_allowed_registry_and_a_file_are_allowed(image):
    check_allowed(parse(image, 'x.eb'), ALLOWED, 'x.eb')
    check_allowed(parse('docker://debian:12', 'x.eb'), SimpleNamespace(registries=None), 'x.eb')


@pytest.mark.parametrize('image, host', [
    ('docker://debian:12', 'docker.io'), ('oras://localhost/x:1', 'localhost'), ('https://x.org/x.sif', 'x.org'),
    ('library://x/y/z:1', 'cloud.sylabs.io')])
def test_an_image_of_another_registry_is_refused(image, host):
    for allowed, named in ((('nvcr.io', 'localhost:5000'), 'nvcr.io, localhost:5000'), ((), 'none')):
        with pytest.raises(EasySIFError) as raised:
            check_allowed(parse(image, 'x.eb'), SimpleNamespace(registries=allowed), 'x.eb')
        assert str(raised.value) == (
            "x.eb: image is from '%s', which this site does not allow\n  image    %s\n  allowed  %s\nhint: ask for it "
            'to be put under registries in the site file, or the image into the store' % (host, image, named))


@pytest.mark.parametrize('header, what', [
    ('Bootstrap: docker\nFrom: debian:12', "image is from 'docker.io', which this site does not allow"),
    ('Bootstrap: library\nFrom: x/y', "image is from 'cloud.sylabs.io', which this site does not allow"),
    ('Bootstrap: debootstrap\nMirrorURL: http://x', "definition 'FILE' has a base of which it is not known where it "
     'comes from, and this site does not allow all\n  base     debootstrap\n  allowed  nvcr.io, localhost:5000\n'
     "hint: write Bootstrap: docker, or name it in the site file: base_images: {'debootstrap': /…}"),
    ('Bootstrap: shub\nFrom: x/y', "definition 'FILE' has a base of which it is not known where it comes from"),
])
def test_a_base_of_a_definition_from_elsewhere_is_refused(tmp_path, header, what):
    (tmp_path / 'x.def').write_text(header + '\n')
    with pytest.raises(EasySIFError) as raised:
        definition.derive(str(tmp_path / 'x.def'), {}, ALLOWED, 'x.eb')
    assert str(raised.value).startswith('x.eb: ' + what.replace('FILE', str(tmp_path / 'x.def')))
    for header in ('Bootstrap: scratch', 'Bootstrap: yum\nFrom: centos', 'Bootstrap: localimage\nFrom: /'):
        (tmp_path / 'x.def').write_text(header + '\n')
        assert definition.derive(str(tmp_path / 'x.def'), {}, ALLOWED, 'x.eb')


@pytest.mark.e2e
def test_a_site_that_isolates_and_forces_does_so_in_real_containers(images, tmp_path):
    """With cleanenv only what a module sets for the inside goes in, and what a scheduler says."""
    library = tmp_path / 'libs'
    library.mkdir()
    settings = {'isolation': ('cleanenv', 'no-home'), 'container_env': {'SITE': 'user may'},
                'provides': {'net': site.Need(('%s:/host/net' % library,), {'NET': 'up'}, path=('/host/net/bin',),
                                              library_path=('/host/net',))},
                'force': {'container_env': {'FORCED': 'it\'s "$HOME" `id`'}, 'binds': ['%s:/etc/site' % library]}}
    made = standins.install(images.sif('busybox'), 'busybox', tmp_path / 'p', settings=settings, needs=['net'],
                            commands=['env', 'ls'])
    users = {'OUTSIDE': 'x', 'APPTAINERENV_FORCED': 'user', 'APPTAINERENV_SITE': 'user',
             'APPTAINER_BINDPATH': '/usr:/etc/site', 'LD_PRELOAD': '/nosuch.so', 'XALT_DIR': '/x',
             'SLURM_JOB_NAME': 'a $HOME `id` \\ "\'', 'CUDA_VISIBLE_DEVICES': '1'}
    by_wrapper = made.run('env', env=made.env(**users)).stdout
    for line in ('FORCED=it\'s "$HOME" `id`',
                 'SLURM_JOB_NAME=a $HOME `id` \\ "\'', 'CUDA_VISIBLE_DEVICES=1',
                 'SITE=user may', 'NET=up', 'LD_LIBRARY_PATH=/host/net:/.singularity.d/libs'):
        assert line in by_wrapper.splitlines(), line
    assert 'OUTSIDE' not in by_wrapper and 'XALT' not in by_wrapper and '/nosuch.so' not in by_wrapper
    assert ':/host/net/bin' in next(line for line in by_wrapper.splitlines() if line.startswith('PATH='))
    assert made.run('ls', '/etc/site', env=made.env(**users)).stdout == ''


def test_no_command_fetches_what_is_not_allowed(easysif, prefix, tmp_path, monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', str(prefix))
    monkeypatch.setenv('EASYSIF_REGISTRIES', '[nvcr.io]')
    toy = MadeUp(prefix)
    toy.sif.unlink()
    told = "image is from 'example.org', which this site does not allow"
    assert told in easysif('store', 'add', '--store', str(tmp_path / 'store'), 'docker://example.org/toy:1')[2]
    assert not list((tmp_path / 'store').glob('*.sif'))
    assert 'tried   docker://example.org/toy:1: %s\n' % told in easysif('image', 'restore', 'toy')[2]
