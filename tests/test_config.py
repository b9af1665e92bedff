# SPDX-License-Identifier: GPL-2.0-only
"""easysif config: every value with where it came from, whether it is forced, as a table and as JSON."""

import json

import pytest

from easysif import layers, schema, site

MY = """\
binds: [/é x]
image_store: /store
verify: none
provides: {mpi: {library_path: [/host/lib]}, tape: }
force: {verify: sif, binds: [/etc/pki], container_env: {SITE: "1"}}
"""


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A site, a user's own settings and variables."""
    monkeypatch.setattr(site, 'CA_BUNDLES', ())
    (tmp_path / 'my.yaml').write_text(MY)
    (tmp_path / 'home/.config/easysif').mkdir(parents=True)
    (tmp_path / 'home/.config/easysif/site.yaml').write_text('binds: [/mine]\ncontainer_env: {SITE: "2", USER: a}\n')
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    monkeypatch.setenv('EASYSIF_RUNTIME', 'singularity')
    monkeypatch.setenv('EASYSIF_VERIFY', 'none')
    monkeypatch.setenv('EASYSIF_OVERLAYS', '/mine')


def test_every_value_is_printed_with_its_origin(easysif, here, tmp_path):
    code, out, err = easysif('config')
    assert (code, err) == (0, '')
    lines = [line.split(None, 1) for line in out.splitlines()]
    assert [line for line in lines if line[0] in ('name', 'path', 'runtime', 'image_store', 'binds')] == [
        ['name', 'my  (EASYSIF_SITE)'], ['path', '%s/my.yaml  (EASYSIF_SITE)' % tmp_path],
        ['runtime', 'singularity  (EASYSIF_RUNTIME)'], ['image_store', '/store  (site my)'],
        ['binds', '/é x  (site my)'], ['binds', '/mine  (~/.config/easysif/site.yaml)'],
        ['binds', '/etc/pki  (site my, forced)']]
    assert [line for line in lines if '.' in line[0]][4:] == [
        ['container_env.SITE', '1  (site my, forced)'], ['container_env.USER', 'a  (~/.config/easysif/site.yaml)'],
        ['provides.nvidia-gpu', '{}  (default)'], ['provides.amd-gpu', '{}  (default)'],
        ['provides.ca-certificates', '{}  (default)'], ['provides.x11', '{}  (default)'],
        ['provides.mpi.library_path', '/host/lib  (site my)'], ['provides.tape', '{}  (site my)'],
        ['force.verify', 'sif  (site my)'], ['force.binds', '/etc/pki  (site my)'],
        ['force.container_env.SITE', '1  (site my)']]
    assert ['verify', 'sif  (site my, forced)'] in lines and ['isolation', '[]  (default)'] in lines
    assert ['overlays', '/mine  (EASYSIF_OVERLAYS, read at load)'] in lines and ['cache_dir', '-  (default)'] in lines
    assert ['ca_certificates', '-  (none on this machine)'] in lines
    assert {line[0].split('.')[0] for line in lines} == {'name', 'path', *schema.load('site')['properties']} - {'match'}


def test_as_json_values_and_origins_have_one_shape(easysif, here):
    code, out, err = easysif('config', '--json')
    found = json.loads(out)
    assert (code, err) == (0, '')
    assert list(found) == ['name', 'path', *list(schema.load('site')['properties'])[1:]]
    assert all(set(one) == {'value', 'from', 'forced'} for one in found.values())
    user = '~/.config/easysif/site.yaml'
    assert found['binds'] == {'value': ['/é x', '/mine', '/etc/pki'], 'from': ['site my', user, 'site my, forced'],
                              'forced': True}
    assert found['cache_dir'] == {'value': None, 'from': 'default', 'forced': False}
    assert found['container_env'] == {'value': {'SITE': '1', 'USER': 'a'},
                                      'from': {'SITE': 'site my, forced', 'USER': user}, 'forced': True}
    assert found['verify'] == {'value': 'sif', 'from': 'site my, forced', 'forced': True}
    mpi = {key: found['provides'][key]['mpi'] for key in ('value', 'from')}
    assert mpi['value'] == {'binds': [], 'container_env': {}, 'path': [], 'library_path': ['/host/lib'],
                            'requires': [], 'conflicts': [], 'libraries': []}
    assert mpi['from'] == dict(dict.fromkeys(mpi['value'], 'default'), library_path=['site my'])
    assert [key for key in found if found[key]['forced']] == ['binds', 'container_env', 'verify']


def test_a_site_that_is_not_valid_is_an_error(easysif, monkeypatch, tmp_path):
    (tmp_path / 'my.yaml').write_text('bind: [/x]\n')
    monkeypatch.setenv('EASYSIF_SITE', './my.yaml')
    assert easysif('config') == (1, '', "error: %s/my.yaml:1: unknown key 'bind'\n  allowed  %s\nhint: did you mean "
                                 "'binds'?\n" % (tmp_path, ', '.join(schema.load('site')['properties'])))


def test_a_layer_replaces_adds_and_merges():
    values, origins = layers.stack([
        ('low', {'verify': 'none', 'binds': ['/a'], 'registries': ['x', 'y'], 'container_env': {'A': '1'},
                 'isolation': []}),
        ('high', {'verify': 'all', 'binds': ['/b', '/a'], 'registries': ['z'], 'container_env': {'A': '2', 'B': '3'},
                  'isolation': None})])
    assert values == {'verify': 'all', 'binds': ['/a', '/b'], 'registries': ['z'],
                      'container_env': {'A': '2', 'B': '3'}, 'isolation': []}
    assert origins == {'verify': 'high', 'binds': ['low', 'high'], 'registries': ['high'],
                       'container_env': {'A': 'high', 'B': 'high'}, 'isolation': 'low'}
