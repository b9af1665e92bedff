# SPDX-License-Identifier: GPL-2.0-only
"""Modules without an image, for users who bring their own: what loading one does, and how it is installed and kept."""

import json
import os
import shlex

import pytest
import yaml

import harness
import toys
from easysif import bindings, check, installed, manifest, recipe, render, site_files
from easysif.errors import EasySIFError
from easysif.module import Installation, module_plan
from easysif.site import Need
from fakes import Fake, both, default_site, users

RECIPES = ('singularity-bindings-system.eb', 'singularity-AI-bindings-24.03.eb')


class Bound:
    """A module without an image in a prefix, as far as Lmod looks at it.

    :param prefix: the prefix (Path)
    :param more: parameters of Installation
    """

    def __init__(self, prefix, name='singularity-bindings/system', **more):
        self.prefix, self.name, self.root = prefix, name, prefix / 'software' / name
        (self.root / 'easysif').mkdir(parents=True)
        self.inst = Installation(module=name, prefix=str(prefix), root=str(self.root), variable='X', sif_name='',
                                 sif_size=0, environment=False, eb_python='/opt/eb/python', **more)
        module = prefix / 'modules' / 'all' / (name + '.lua')
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(render.lua(module_plan(self.inst), str(self.root), str(prefix)))

    def load(self, home, script='module load %(module)s', **env):
        """Return what an environment is after a script (dict), and what was said (str)."""
        done = harness.run_shell(script % {'module': self.name} + '; env -0', self.prefix, home, env=env)
        return dict(line.split('=', 1) for line in done.stdout.split('\0') if '=' in line), done.stderr


@pytest.fixture
def site(tmp_path):
    """Directories of a host, and the settings of a site that provides them (dict)."""
    for name in ('scratch', 'cray/lib', 'slurmd', 'own'):
        (tmp_path / name).mkdir(parents=True)
    return {'binds': (str(tmp_path / 'scratch'), str(tmp_path / 'gone')), 'ca_certificates': '', 'provides': {
        'interconnect': Need((str(tmp_path / 'cray'),), {'NCCL_SOCKET_IFNAME': 'hsn'}),
        'mpi': Need((), {}, library_path=(str(tmp_path / 'cray' / 'lib'),), requires=('interconnect',)),
        'slurm': Need((str(tmp_path / 'slurmd'),), {}), 'amd-gpu': Need((), {})}}


def apply(prefix, settings):
    """Write what a site says into a prefix."""
    import dataclasses
    site_files.apply(str(prefix), dataclasses.replace(default_site(), **settings))


def test_loading_gives_any_image_what_the_site_provides(site, tmp_path):
    bound = Bound(tmp_path / 'p', needs=('mpi', 'amd-gpu', 'slurm', 'absent'),
                  binds=('%s:/own:ro' % (tmp_path / 'own'),), container_env={'OWN': '$x'})
    apply(bound.prefix, site)
    env, told = bound.load(tmp_path / 'home', TMPDIR=None)
    assert told == ''
    assert both(env, '_BINDPATH') == ','.join([
        '%s/own:/own:ro' % tmp_path, *('%s/%s' % (tmp_path, name) for name in ('cray', 'slurmd', 'scratch'))])
    assert both(env, 'ENV_NCCL_SOCKET_IFNAME') == 'hsn' and both(env, 'ENV_OWN') == '\\$x' and both(env, '_ROCM') == '1'
    assert both(env, 'ENV_LD_LIBRARY_PATH') == '%s/cray/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}' % tmp_path
    # nothing of what only an image of ours has
    assert not {'SIF', 'CONTAINERROOT', 'RUNSCRIPTS', 'USER_SOFTWARE', 'EB_PYTHON', 'WITH_CONDA',
                'APPTAINERENV_PREPEND_PATH', 'APPTAINERENV_PYTHONNOUSERSITE'}.intersection(env)


def test_unloading_leaves_what_the_user_had(site, tmp_path):
    bound = Bound(tmp_path / 'p', needs=('mpi',))
    apply(bound.prefix, site)
    mine = {'SINGULARITY_BINDPATH': '/etc', 'APPTAINERENV_LD_LIBRARY_PATH': '/mine', 'SINGULARITY_BIND': '/usr:/u'}
    env, _ = bound.load(tmp_path / 'home', **mine)
    assert both(env, '_BINDPATH').startswith('/etc,%s/cray' % tmp_path) and env['SINGULARITY_BIND'] == '/usr:/u'
    assert both(env, 'ENV_LD_LIBRARY_PATH').startswith('/mine:%s/cray/lib${' % tmp_path)
    before, _ = bound.load(tmp_path / 'home', 'true', **mine)
    after, _ = bound.load(tmp_path / 'home', 'module load %(module)s; module unload %(module)s', **mine)
    assert users(after) == users(before)
    again, _ = bound.load(tmp_path / 'home', 'module load %(module)s; module reload', **mine)
    assert users(again) == users(env)


def test_what_the_site_forces_comes_first(site, tmp_path):
    (tmp_path / 'forced').mkdir()
    bound = Bound(tmp_path / 'p', container_env={'A': 'of the recipe'})
    apply(bound.prefix, dict(site, isolation=('cleanenv',), force={
        'binds': ['%s/forced:/data' % tmp_path], 'container_env': {'A': 'of the site'}}))
    env, _ = bound.load(tmp_path / 'home', SINGULARITY_BINDPATH='/etc:/data', TMPDIR=None)
    assert both(env, '_BINDPATH') == '%s/forced:/data,%s/scratch' % (tmp_path, tmp_path)
    assert both(env, 'ENV_A') == 'of the site' and both(env, '_CLEANENV') == '1'


@pytest.mark.parametrize('second, other', [('singularity-AI-bindings/24.03', {}), ('jax/24.10', None)])
def test_one_is_loaded_at_a_time_and_nothing_is_bound_twice(site, tmp_path, second, other):
    first = Bound(tmp_path / 'p', needs=('mpi', 'slurm'))
    if other is None:
        fake = Fake(first.prefix, needs=('interconnect',))
    else:
        Bound(first.prefix, second, needs=('interconnect',))
    apply(first.prefix, site)
    alone, _ = first.load(tmp_path / 'home', 'module load %s' % second)
    one, told = first.load(tmp_path / 'home', 'module load %%(module)s; module load %s' % second)
    assert 'singularity-bindings/system' in told and second in told  # Lmod says which took whose place
    keep = ('SINGULARITY', 'APPTAINER', 'SIF', 'EASYSIF', 'LOADEDMODULES', 'CONTAINERROOT')
    assert {name: value for name, value in one.items() if name.startswith(keep)} == {
        name: value for name, value in alone.items() if name.startswith(keep)}
    binds = both(one, '_BINDPATH').split(',')
    assert len(binds) == len(set(binds)) and one['LOADEDMODULES'].split(':') == [second]
    there, _ = first.load(tmp_path / 'home', 'module load %s; module load %%(module)s' % second)
    back, _ = first.load(tmp_path / 'home')
    assert {name: value for name, value in there.items() if name.startswith(keep)} == {
        name: value for name, value in back.items() if name.startswith(keep)}
    if other is None:  # and a wrapper gives what it gives without any module
        ran, plain = (fake.by_wrapper(tmp_path / 'home', env)[0] for env in (dict(there, TMPDIR=None), {}))
        assert both(ran, '_BINDPATH') == both(plain, '_BINDPATH') and both(ran, 'ENV_LD_LIBRARY_PATH') is None


def test_a_tool_module_can_be_loaded_beside_it(site, tmp_path):
    bound = Bound(tmp_path / 'p', needs=('mpi',))
    Fake(bound.prefix, module='SAMtools/1', variable='SAMTOOLS', environment=False, python_env=None)
    apply(bound.prefix, site)
    env, told = bound.load(tmp_path / 'home', 'module load %(module)s SAMtools')
    assert env['LOADEDMODULES'] == 'singularity-bindings/system:SAMtools/1' and told == ''
    assert both(env, '_BINDPATH') == both(bound.load(tmp_path / 'home')[0], '_BINDPATH')


@pytest.mark.parametrize('name', RECIPES)
def test_our_recipes_are_fine_and_name_no_path(name):
    path, = check.find([name])
    assert check.check([path]) == []
    values = recipe.load(path)
    assert values.image is None and not values.binds and not values.container_env and values.needs


@pytest.mark.parametrize('key, value, words', [
    ('image', 'toy.sif', "image must be left out, as users of ContainerBindings bring an image of their own, not the "
     "text 'toy.sif'"),
    ('commands', ['python'], "commands must be left out, as users of ContainerBindings bring an image of their own, "
     "not the list ['python']"),
    ('python_env', 'x', "python_env must be left out, as users of ContainerBindings bring an image of their own, not "
     "the text 'x'")])
def test_what_belongs_to_an_image_is_refused(tmp_path, key, value, words):
    path = toys.recipe(tmp_path, **dict({'easyblock': 'ContainerBindings', 'image': None}, **{key: value}))
    with pytest.raises(EasySIFError) as raised:
        recipe.load(str(path))
    assert str(raised.value) == 'toy-1.0.eb:%d: %s' % (7 if key == 'image' else 8, words)


def test_other_recipes_need_an_image_as_before(tmp_path):
    with pytest.raises(EasySIFError) as raised:
        recipe.load(str(toys.recipe(tmp_path, image=None)))
    assert str(raised.value) == ("toy-1.0.eb: image is missing\nhint: write "
                                 "image = 'docker://nvcr.io/nvidia/jax:24.10-maxtext-py3'")


def test_commands_that_are_about_an_image_say_that_there_is_none(easysif, tmp_path, monkeypatch):
    path = toys.recipe(tmp_path, easyblock='ContainerBindings', image=None)
    code, out, _ = easysif('pin', str(path))
    assert code == 0 and out.strip().endswith('toy-1.0.eb: has no image')
    assert 'digest' not in easysif('check', str(path))[1]
    code, _, err = easysif('store', 'add', '--store', str(tmp_path / 'store'), str(path))
    assert code == 1 and err == (
        'error: %s: has no image: its users bring their own\n'
        'hint: easysif store add FILE.sif, docker://HOST/NAME:TAG or RECIPE.eb\n' % path)


@pytest.fixture(scope='module')
def bound(tmp_path_factory, toy):
    """Both recipes installed by one eb at a site that provides what they need: directory of all (Path)."""
    top = tmp_path_factory.mktemp('bound')
    for name in ('cray/lib', 'slurmd', 'scratch'):
        (top / name).mkdir(parents=True)
    (top / 'cray' / 'lib' / 'libmpi.so.12').write_text('the MPI of the host')
    write_site(top, '*')
    done = harness.run_eb(RECIPES, top / 'prefix', top / 'home', top / 'site.yaml')
    assert done.output.count('COMPLETED: Installation ended successfully') == 2
    assert 'does without' not in done.output and 'docker://' not in done.output
    return top


def write_site(top, pattern):
    """Write the profile of a site; the pattern says which libraries of its MPI there are."""
    (top / 'site.yaml').write_text(yaml.safe_dump({'binds': ['%s/scratch' % top], 'provides': {
        'mpi': {'binds': ['%s/cray/lib/libmpi.so.%s:/host/lib' % (top, pattern)], 'library_path': ['/host/lib'],
                'requires': ['interconnect']},
        'interconnect': {'container_env': {'NCCL_SOCKET_IFNAME': 'hsn'}}, 'slurm': {'binds': ['%s/slurmd' % top]}}}))


def inside(top, toy, script, module='singularity-bindings', before=''):
    """Return what a command of a user's own image prints with a module loaded (str)."""
    return harness.run_shell('%s\nmodule load %s\napptainer exec %s sh -c %s' % (
        before, module, toy, shlex.quote(script)), top / 'prefix', top / 'home').stdout


@pytest.mark.e2e
def test_an_image_of_a_user_gets_what_the_module_says(bound, toy, tmp_path):
    said = inside(bound, toy, 'cat /host/lib/*; echo; echo $LD_LIBRARY_PATH $NCCL_SOCKET_IFNAME; ls -d %s/s*/' % bound)
    first, second, *binds = said.splitlines()
    assert first == 'the MPI of the host' and binds == ['%s/scratch/' % bound, '%s/slurmd/' % bound]
    assert second == '/host/lib:/.singularity.d/libs:/.singularity.d/libs hsn'
    own = 'export APPTAINERENV_LD_LIBRARY_PATH=/mine'
    assert inside(bound, toy, 'echo $LD_LIBRARY_PATH', before=own).startswith('/mine:/host/lib:')


@pytest.mark.e2e
def test_the_image_keeps_its_own_library_path(bound, tmp_path):
    root = toys.make_root(tmp_path)
    (root / '.singularity.d' / 'env').mkdir(parents=True)
    (root / '.singularity.d' / 'env' / '90-environment.sh').write_text('export LD_LIBRARY_PATH=/its/own\n')
    image = tmp_path / 'own.sif'
    harness.run(['apptainer', 'build', '--disable-cache', image, root], env=harness.user_environment(tmp_path / 'h'))
    assert inside(bound, image, 'echo $LD_LIBRARY_PATH').startswith('/host/lib:/its/own:')


@pytest.mark.e2e
def test_what_is_installed_is_recorded_listed_shown_and_verified(bound, easysif):
    prefix = str(bound / 'prefix')
    root, record = toys.installation(prefix, 'singularity-bindings/system')
    assert record['image'] is None and record['inside'] == bindings.INSIDE and record['layer'] is None
    assert [test['result'] for test in record['tests']] == ['passed']
    assert set(record['files']) == {'easysif/modulefile', 'easysif/module.lua', 'easysif/module.tcl', *(
        'easysif/site.%s' % kind for kind in ('lua', 'sh', 'tcl'))}
    assert list(installed.modules(prefix)) == ['singularity-AI-bindings/24.03', 'singularity-bindings/system']
    _, out, _ = easysif('list', '--prefix', prefix, '--json')
    assert [(one['module'], one['image'], one['file'], one['overlay'], one['problem']) for one in json.loads(out)] == [
        (name, None, None, None, None) for name in ('singularity-AI-bindings/24.03', 'singularity-bindings/system')]
    assert easysif('list', '--prefix', prefix)[0] == 0
    code, out, _ = easysif('show', 'singularity-bindings', '--prefix', prefix)
    lines = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith(' '))
    assert code == 0 and lines['image'] == 'none: for an image of your own'
    assert lines['kind'] == 'bindings, without an image' and lines['overlay'] == 'has none'
    code, out, _ = easysif('show', check.find([RECIPES[0]])[0], '--prefix', prefix)
    assert code == 0 and 'none: for an image of your own' in out and 'digest' not in out
    code, out, err = easysif('verify', '--prefix', prefix)
    assert (code, err) == (0, ''), out
    code, _, err = easysif('image', 'restore', 'singularity-bindings', '--prefix', prefix)
    assert code == 1 and 'singularity-bindings/system: has no image: it is for images of its users' in err
    assert err.endswith(
        'hint: module load singularity-bindings/system && singularity exec <image of yours> <command>\n')
    code, _, err = easysif('overlay', 'list', 'singularity-bindings', '--prefix', prefix)
    assert code != 0 and 'Traceback' not in err


@pytest.mark.e2e
def test_a_change_of_the_site_reaches_it_by_site_apply_and_by_refresh(bound, toy, easysif, monkeypatch):
    prefix, module = str(bound / 'prefix'), bound / 'prefix' / 'modules' / 'all' / 'singularity-bindings' / 'system.lua'
    before = module.read_bytes()
    (bound / 'cray' / 'lib' / 'libmpi.so.12').rename(bound / 'cray' / 'lib' / 'libmpi.so.40')
    monkeypatch.setenv('EASYSIF_SITE', str(bound / 'site.yaml'))
    assert easysif('site', 'apply', '--prefix', prefix)[0] == 0
    assert inside(bound, toy, 'ls /host/lib').split() == ['libmpi.so.40'] and module.read_bytes() == before
    module.write_text('broken(')
    assert easysif('verify', 'singularity-bindings', '--prefix', prefix)[0] == 1
    code, out, err = easysif('refresh', 'singularity-bindings', '--prefix', prefix)
    assert (code, err) == (0, ''), out
    assert module.read_bytes() == before and easysif('verify', '--prefix', prefix)[0] == 0


@pytest.mark.e2e
def test_eb_tells_its_parameters_and_installs_again_and_nothing_where_a_need_is_lacking(bound, tmp_path):
    told = harness.run_eb(['-a', '-e', 'ContainerBindings'], bound / 'prefix', bound / 'home').output
    assert all(word in told for word in ('needs', 'container_env', 'binds')) and 'python_env' not in told
    before = toys.snapshot(bound / 'prefix', 'software/singularity-bindings/system/easybuild', 'ebfiles_repo')
    for args in (['--rebuild'], ['--module-only', '--rebuild'], ['-x'], ['--sanity-check-only']):
        harness.run_eb([RECIPES[0], *args], bound / 'prefix', bound / 'home', bound / 'site.yaml')
        after = toys.snapshot(bound / 'prefix', 'software/singularity-bindings/system/easybuild', 'ebfiles_repo')
        assert not [path for path in after if after[path] != before.get(path) and '.bak_' not in path], args
    done = harness.run_eb([RECIPES[0]], tmp_path / 'prefix', tmp_path / 'home', check=False)
    assert done.status != 0 and "needs 'mpi', which site 'default' does not provide" in done.output
    assert toys.files(tmp_path / 'prefix') == set()


@pytest.mark.e2e
def test_removing_it_leaves_nothing_of_it(bound, easysif, tmp_path):
    prefix = tmp_path / 'prefix'
    harness.run_eb([RECIPES[1]], prefix, tmp_path / 'home', bound / 'site.yaml')
    assert toys.files(prefix / 'software') and not (prefix / 'overlays').exists()
    code, out, err = easysif('remove', 'singularity-AI-bindings', '--prefix', str(prefix), '--yes')
    assert (code, err) == (0, ''), out
    assert toys.files(prefix / 'software') == toys.files(prefix / 'modules') == set()
    assert manifest.NAME not in os.listdir(prefix)
