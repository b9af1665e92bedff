# SPDX-License-Identifier: GPL-2.0-only
"""The profiles that are shipped, each on a small copy of what its cluster has: what modules and wrappers then set."""

import os
from pathlib import Path

import pytest
import yaml

from easysif import host_paths, needs, site
from fakes import Fake, both

#: what the copy of each cluster has, below its root, and one directory that stands for what it has not
THERE = {
    'lumi': ['pfs/', 'scratch/', 'project/', 'appl/local/containers/easybuild-sif-images/', 'opt/cray/pe/lib64/',
             'opt/cray/pe/mpich/default/ofi/gnu/9.1/lib-abi-mpich/', 'opt/cray/libfabric/1.15.2.0/lib64/',
             'usr/lib64/libcxi.so.1', 'usr/lib64/libcxi.so.1.5.0', 'usr/lib64/libjansson.so.4', 'var/spool/slurmd/',
             'etc/slurm/', 'usr/bin/srun', 'usr/lib64/slurm/', 'usr/lib64/libmunge.so.2', 'run/munge/'],
    'jureca': ['p/software/jurecadc/lmod/8.7.49/libexec/', 'p/software/default/stages/', 'p/project1/', 'p/scratch/',
               'p/data1/', 'usr/bin/lua', 'usr/lib64/liblua-5.4.so', 'usr/lib64/lua/', 'usr/share/lua/',
               'usr/lib64/libcrypt.so.2'],
    'perlmutter': ['pscratch/', 'global/common/software/', 'opt/cray/pe/mpich/default/ofi/gnu/12.3/lib-abi-mpich/',
                   'usr/lib64/libcxi.so.1', 'usr/bin/srun'],
    'uva': ['etc/profile.d/rci.sh', 'scratch/', 'project/', 'usr/bin/sbatch'],
}

#: host names of each, with one that another cluster has as well
HOSTS = {'lumi': ['uan01', 'nid005000', 'uan04.lumi.csc.fi'], 'jureca': ['jrlogin03.jureca', 'jrc0450'],
         'perlmutter': ['login07', 'nid001234'], 'uva': ['udc-an28-1', 'udc-ba34-36']}


@pytest.fixture(params=sorted(THERE))
def name(request):
    """The name of a profile."""
    return request.param


@pytest.fixture
def root(name, tmp_path):
    """A directory with what the cluster of a profile has (Path)."""
    root = tmp_path / 'root'
    for path in THERE[name]:
        place = root / path
        (place if path.endswith('/') else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith('/'):
            place.touch()
    return root


@pytest.fixture
def here(name, root, tmp_path, monkeypatch):
    """The profile as it is where that directory is the root: its paths on the host lie there (Site)."""
    values = site.read(site.shipped()[name])
    parts = [values, *filter(None, values['provides'].values())]
    for part in parts:
        part['binds'] = [_moved(bind, root) for bind in part.get('binds', ())]
        if 'library_path' in part:
            part['library_path'] = [str(root) + path for path in part['library_path']]
    (tmp_path / ('%s.yaml' % name)).write_text(yaml.safe_dump(values))
    return site.profile(str(tmp_path / ('%s.yaml' % name))).site


def _moved(bind, root):
    """Return a bind with its source below a directory, and its destination where the source was (str)."""
    if ':' in bind:  # it names its destination
        return '%s%s' % (root, bind)
    is_pattern = host_paths.glob.has_magic(bind)
    return '%s%s:%s' % (root, bind, os.path.dirname(bind) if is_pattern else bind)


@pytest.fixture(params=['by_module', 'by_wrapper'])
def loaded(request, here, root, tmp_path):
    """What a module that needs all that the site provides sets, without the name of that directory (dict)."""
    fake = Fake(tmp_path / 'p', needs=tuple(here.provides))
    fake.site(**{key: getattr(here, key) for key in ('binds', 'provides', 'container_env')})
    env, _ = getattr(fake, request.param)(tmp_path / 'home', {})
    binds = [entry.split(':') for entry in both(env, '_BINDPATH').split(',')]
    return {'binds': {target: source[len(str(root)):] for source, target, *_ in binds if source.startswith(str(root))},
            'libraries': (both(env, 'ENV_LD_LIBRARY_PATH') or '').replace(str(root), '').split(':'), 'env': env}


def test_what_the_cluster_has_is_bound_in_its_place_and_nothing_else(name, loaded, here, root):
    binds = loaded['binds']
    assert binds and all(source == target for target, source in binds.items())
    assert all((root / source[1:]).exists() for source in binds.values())
    has = {'/' + path.rstrip('/') for path in THERE[name]} - {'/etc/profile.d/rci.sh'}
    assert [path for path in has if not any(path == bound or path.startswith(bound + '/') for bound in binds)] == []


EXPECTED = {
    'lumi': ({'NCCL_SOCKET_IFNAME': 'hsn', 'NCCL_NET_GDR_LEVEL': '3'}, '_ROCM', [
        '/opt/cray/pe/mpich/default/ofi/gnu/9.1/lib-abi-mpich', '/opt/cray/pe/pmi/default/lib',
        '/opt/cray/libfabric/1.15.2.0/lib64', '/opt/cray/xpmem/default/lib64', '/opt/cray/pe/lib64']),
    'perlmutter': ({'NCCL_SOCKET_IFNAME': 'hsn'}, '_NV', [
        '/opt/cray/pe/mpich/default/ofi/gnu/12.3/lib-abi-mpich', '/opt/cray/pe/pmi/default/lib',
        '/opt/cray/xpmem/default/lib64', '/opt/cray/pe/lib64']),
    'jureca': ({'LMOD_CMD': '/p/software/jurecadc/lmod/8.7.49/libexec/lmod',
                'LMOD_DIR': '/p/software/jurecadc/lmod/8.7.49/libexec',
                'APPEND_PATH': '/p/software/jurecadc/lmod/8.7.49/libexec'}, '_NV', ['/usr/lib64']),
    'uva': ({}, '_NV', ['']),
}


def test_variables_libraries_and_the_gpu_are_set(name, loaded):
    variables, switch, libraries = EXPECTED[name]
    assert {key: both(loaded['env'], 'ENV_' + key) for key in variables} == variables
    assert both(loaded['env'], switch) == '1'
    assert loaded['libraries'] == libraries
    path = both(loaded['env'], 'ENV_MODULEPATH')
    assert (path is None) == (name != 'jureca')
    assert path is None or ' ' not in path and len(path.split(':')) == 9


def test_a_profile_is_chosen_on_its_own_hosts_only(name, root, monkeypatch, tmp_path):
    """The path that only its cluster has decides where names are used by several."""
    real = os.path.exists
    for host in HOSTS[name]:
        monkeypatch.setattr(site.socket, 'gethostname', lambda: host)
        monkeypatch.setattr(site.os.path, 'exists',
                            lambda path: (root / str(path)[1:]).exists() if str(path)[1:5] in ('appl', 'glob', 'p/so')
                            or '/rci.sh' in str(path) else real(path))
        found = site.resolve({'HOME': str(tmp_path)})
        assert (found.site.name, found.origins['name']) == (name, 'match of host %s' % host)
        monkeypatch.setattr(site.os.path, 'exists', real)
        assert site.resolve({'HOME': str(tmp_path)}).site.name == 'default'


def test_every_profile_stands_for_itself(name):
    found = site.profile(site.shipped()[name]).site
    assert found.name == name and set(found.provides) >= {'scratch', 'slurm', 'x11', 'ca-certificates'}
    assert {'lumi': 'singularity', 'perlmutter': 'auto'}.get(name, 'apptainer') == found.runtime
    assert (found.module_dependency == 'apptainer') == (name == 'uva')
    text = Path(site.shipped()[name]).read_text()
    assert text.startswith('# ') and '\t' not in text and max(map(len, text.splitlines())) <= 120


def test_cray_mpich_brings_the_interconnect():
    for name in ('lumi', 'perlmutter'):
        provides = site.profile(site.shipped()[name]).site.provides
        assert needs.closure(['mpi'], provides) == ['mpi', 'interconnect']


def test_a_container_of_the_cray_environment_gets_slurm_and_its_stack_and_keeps_its_own_opt_cray():
    provides = site.profile(site.shipped()['lumi']).site.provides
    brought = needs.closure(['cray-pe-25-03', 'rocm-6-3'], provides)
    assert brought == ['cray-pe-25-03', 'cray-pe', 'slurm', 'rocm-6-3', 'rocm-6-2']
    binds = [bind for need in brought for bind in provides[need].binds]
    assert '/opt/cray' not in binds and '/opt/cray/libfabric' in binds and '/usr/bin/srun' in binds
    assert needs.conflicts(['cray-pe-25-03', 'interconnect'], provides) == [('cray-pe', 'interconnect')]
