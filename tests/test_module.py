# SPDX-License-Identifier: GPL-2.0-only
"""What loading a module does, in all renderings: Lua and Tcl under the real module tools, shell in the wrapper.

Nothing is started in a container here; ``easysif/wrapper print-environment`` prints what a wrapper would set.
"""

import dataclasses
import os
import re
import shlex
import shutil

import pytest

import harness
from easysif import render, site_files
from easysif.images.inspect import Conda
from easysif.module import Installation, activation, wrapper_plan
from easysif.site import Need, resolve
from easysif.site_plan import literal
from fakes import TOOLS, Fake, both, squashfs, users
from harness import long


@pytest.fixture
def prefix(tmp_path):
    return tmp_path / 'pre fix $(id)\'"'


@pytest.fixture
def foreign(tmp_path):
    """A prefix with letters beyond ASCII; unloading from one is left to luck by Lmod 8.6.19, whose decoder of its own
    table (base64.lua, ``% 192``) loses the upper bits of every third byte from 0xC0 on."""
    return tmp_path / 'préfixe 容器'


@pytest.fixture
def fake(prefix):
    return Fake(prefix)


@pytest.fixture(params=list(TOOLS))
def tool(request):
    """Lmod with Lua, Lmod with Tcl, Environment Modules (str)."""
    return request.param


@pytest.fixture(params=[*TOOLS, 'wrapper'])
def by(request, tmp_path):
    """The environment that a module, or a wrapper, makes: ``by(fake, **variables)``, and what was said."""
    def environment(fake, **env):
        if request.param == 'wrapper':
            return fake.by_wrapper(tmp_path / 'home', env)
        return fake.by_module(tmp_path / 'home', env, tool=request.param)
    environment.tool = request.param
    return environment


def test_every_row_of_the_table_is_set(by, fake):
    env, said = by(fake)
    assert said == ''
    assert env['SIF'] == env['SIFJAX'] == str(fake.sif)
    assert env['CONTAINERROOT'] == str(fake.overlay)
    assert env['RUNSCRIPTS'] == env['RUNSCRIPTSJAX'] == '%s/runscripts' % fake.root
    assert env['USER_SOFTWARE'] == '%s/user-software' % fake.overlay
    assert both(env, '_BINDPATH') == fake.binds()
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts:/user-software/venv/jax/bin'
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax'
    assert both(env, 'ENV_PYTHONNOUSERSITE') == '1'
    assert env['WITH_CONDA'] == both(env, 'ENV_WITH_CONDA') == 'true'
    assert env['WITH_VENV'] == both(env, 'ENV_WITH_VENV') == '. /runscripts/init-venv'
    assert env['WITH_CONDA_VENV'] == both(env, 'ENV_WITH_CONDA_VENV') == '. /runscripts/init-conda-venv'
    assert env['EB_PYTHON'] == '/opt/eb/python'
    assert both(env, '_NV') is None


def test_a_prefix_may_hold_letters_of_any_language(by, foreign):
    fake = Fake(foreign)
    env, said = by(fake)
    assert said == '' and env['SIF'] == str(fake.sif) and both(env, '_BINDPATH') == fake.binds()


def test_a_gpu_that_the_recipe_needs_is_asked_for(by, prefix):
    env, _ = by(Fake(prefix, needs=('nvidia-gpu',)))
    assert both(env, '_NV') == '1' and both(env, '_ROCM') is None
    env, _ = by(Fake(prefix.with_name('amd'), needs=('amd-gpu',)))
    assert both(env, '_ROCM') == '1' and both(env, '_NV') is None


def test_conda_is_on_the_path_behind_the_venv(by, prefix):
    env, _ = by(Fake(prefix, conda=Conda('/opt/conda/envs/x', 'x', '/opt/conda')))
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts:/user-software/venv/jax/bin:/opt/conda/envs/x/bin'
    assert both(env, 'ENV_CONDA_PREFIX') == '/opt/conda/envs/x' and both(env, 'ENV_CONDA_DEFAULT_ENV') == 'x'
    assert env['WITH_CONDA'] == '. /runscripts/init-conda'


def test_an_image_that_defines_with_conda_keeps_it(by, prefix):
    env, _ = by(Fake(prefix, image_env={'WITH_CONDA': 'source "$X"/activate y'}))
    assert env['WITH_CONDA'] == 'source "$X"/activate y'
    assert both(env, 'ENV_WITH_CONDA') == 'source "\\$X"/activate y'


def test_an_environment_module_without_python_has_no_overlay(by, prefix):
    env, _ = by(Fake(prefix, python_env=None, commands={}))
    assert env['USER_SOFTWARE'] == '' and env['CONTAINERROOT'].endswith('/overlays/jax/24.10')
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts' and env['WITH_VENV'] == env['WITH_CONDA_VENV'] == 'true'
    assert 'user-software' not in both(env, '_BINDPATH')


def test_a_packed_overlay_comes_before_the_directory(by, fake):
    squashfs(fake.overlay / 'user-software.squashfs')
    env, said = by(fake)
    assert said == ''
    assert '%s/user-software.squashfs:/user-software:image-src=/,ro' % fake.overlay in both(env, '_BINDPATH')
    assert not (fake.overlay / 'user-software').exists()


@pytest.mark.parametrize('size, used', [(199, 200), (0, 0), *map(long, ((4096, 1 << 40), (40, 200), (96, 95)))])
def test_a_damaged_squashfs_is_never_bound_and_said(by, fake, size, used):
    squashfs(fake.overlay / 'user-software.squashfs', size, used)
    (fake.overlay / 'user-software').mkdir()
    env, said = by(fake)
    assert both(env, '_BINDPATH') == fake.binds()
    damaged = '%s/user-software.squashfs' % fake.overlay
    assert 'jax/24.10: user-software.squashfs is damaged and not used\n  file  %s\n' % damaged in said
    assert 'hint: mv -- "%s" "%s.damaged"' % (damaged, damaged) in said


@pytest.mark.parametrize('number, name', [(2, 'lzma'), (6, 'zstd'), *map(long, (
    (1, 'gzip'), (3, 'lzo'), (4, 'xz'), (5, 'lz4')))])
def test_a_squashfs_that_the_runtime_cannot_mount_is_never_bound_and_said(by, fake, number, name):
    packed = fake.overlay / 'user-software.squashfs'
    squashfs(packed, compressor=number)
    (fake.overlay / 'user-software').mkdir()
    fake.site(refused=('zstd', name, 'xz'))
    env, said = by(fake)
    assert both(env, '_BINDPATH') == fake.binds()
    assert ('jax/24.10: user-software.squashfs cannot be mounted by the container runtime here and is not used\n'
            '  file        %s\n  compressor  %s\n' % (packed, name)) in said
    assert 'hint: unmake-squashfs && make-squashfs && module reload' in said
    fake.site(refused=tuple({'gzip', 'lzo', 'xz', 'lz4', 'zstd'} - {name}))
    env, said = by(fake)
    assert str(packed) in both(env, '_BINDPATH') and said == ''


@pytest.mark.parametrize('number', [0, 7, 0x606])
def test_an_unknown_compressor_is_left_to_the_runtime(by, fake, number):
    squashfs(fake.overlay / 'user-software.squashfs', compressor=number)
    fake.site(refused=('gzip', 'lzma'))
    env, said = by(fake)
    assert 'user-software.squashfs' in both(env, '_BINDPATH') and said == ''


IMAGE = 'sha256:' + 'a' * 64


@pytest.fixture
def made(prefix):
    """An installation that knows its image and Python 3.12, and a function that says what its overlay was made for."""
    fake = Fake(prefix, python='/usr/bin/python3', python_version='3.12', image=IMAGE)

    def for_(python, image=IMAGE, packed=False, at='/usr/bin/python3'):
        fake.overlay.mkdir(parents=True, exist_ok=True)
        (fake.overlay / 'made-for').write_text('python %s\nat %s\nimage %s\n' % (python, at, image))
        if packed:
            squashfs(fake.overlay / 'user-software.squashfs')
        else:
            (fake.overlay / 'user-software' / 'venv' / 'jax').mkdir(parents=True, exist_ok=True)
        return fake
    return for_


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('python, at', [('3.12', '/opt/my python'), *map(long, (
    ('3.11', '/usr/bin/python3'), ('3.9', '/opt/x')))])
def test_an_overlay_for_another_python_is_not_put_on_the_path_and_said(by, made, packed, python, at):
    fake = made(python, packed=packed, at=at)
    env, said = by(fake)
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts' and both(env, 'ENV_VIRTUAL_ENV') is None
    assert ('jax/24.10: your packages are for another Python and are not used\n  made for       Python %s %s\n'
            '  the image has  Python 3.12 /usr/bin/python3\n  directory      %s\n' % (python, at, fake.overlay)) in said
    assert 'hint: easysif overlay rebuild jax/24.10; or, to keep it as it is: rm -- "%s/made-for"\n' % (
        fake.overlay) in said
    assert 'with another image' not in said
    (fake.overlay / 'made-for').unlink()
    env, said = by(fake)
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax' and said == ''


def test_an_overlay_for_another_image_is_used_and_said_at_load(made, tmp_path, tool):
    fake = made('3.12', 'sha256:' + 'b' * 64)
    env, said = fake.by_module(tmp_path, {}, tool=tool)
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax'
    assert ('jax/24.10: your packages were made with another image\n  made with  sha256:%s\n  this one   %s\n'
            '  directory  %s\nhint: easysif overlay rebuild jax/24.10; or, to keep it as it is: rm -- "%s/made-for"\n'
            % ('b' * 64, IMAGE, fake.overlay, fake.overlay)) in said
    env, said = fake.by_wrapper(tmp_path, {})
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax' and said == ''


def test_what_an_overlay_without_packages_was_made_for_does_not_matter(by, made):
    fake = made('3.11')
    (fake.overlay / 'user-software' / 'venv' / 'jax').rmdir()
    env, said = by(fake)
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax' and said == ''
    made('3.12')
    assert by(fake)[1] == ''


def test_a_layer_lies_between_overlay_and_image(by, prefix):
    fake = Fake(prefix, layer='jax', conda=Conda('/opt/conda', 'base', '/opt/conda'))
    squashfs(fake.root / 'layer.squashfs')
    env, said = by(fake)
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts:/user-software/venv/jax/bin:/layer/venv/jax/bin:/opt/conda/bin'
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax' and said == ''
    assert both(env, '_BINDPATH') == fake.binds('%s/layer.squashfs:/layer:image-src=/,ro' % fake.root)


def test_a_layer_without_overlay_has_the_virtual_environment(by, prefix):
    fake = Fake(prefix, python_env=None, layer='jax', commands={})
    squashfs(fake.root / 'layer.squashfs')
    env, said = by(fake)
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts:/layer/venv/jax/bin' and said == ''
    assert both(env, 'ENV_VIRTUAL_ENV') == '/layer/venv/jax' and env['WITH_VENV'] == '. /runscripts/init-venv'


@pytest.mark.parametrize('library, fits', [('python3.12', True), ('python3.9', False), *map(long, (
    ('pypy3.12', True), ('python3.12t', True), ('python3.1', False)))])
def test_a_directory_that_was_copied_here_from_another_python_is_not_used(by, prefix, library, fits):
    """Whatever `made-for` says, which belongs to what was there before."""
    fake = Fake(prefix, python_version='3.12', python='/usr/bin/python3')
    venv = fake.overlay / 'user-software' / 'venv' / 'jax'
    (venv / 'lib' / library / 'site-packages').mkdir(parents=True)
    (venv / 'pyvenv.cfg').write_text('home = /usr/bin\n')
    (fake.overlay / 'made-for').write_text('python 3.12\nat /usr/bin/python3\n')
    env, said = by(fake)
    assert (both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax') is fits and (said == '') is fits
    if not fits:
        assert 'jax/24.10: your packages are for another Python and are not used\n' in said
        assert '  made for       Python other than 3.12\n  the image has  Python 3.12 /usr/bin/python3\n' in said
        assert 'hint: easysif overlay rebuild jax/24.10; or, to begin anew: mv -- "{0}" "{0}.other"\n'.format(
            fake.overlay / 'user-software') in said
    squashfs(fake.overlay / 'user-software.squashfs')  # of which `made-for` tells
    assert both(by(fake)[0], 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax'


def test_what_is_no_file_says_nothing_of_an_overlay(by, prefix):
    fake = Fake(prefix)
    (fake.overlay / 'user-software' / 'venv' / 'jax').mkdir(parents=True)
    os.mkfifo(fake.overlay / 'made-for')  # to open it would be to wait for ever
    env, said = by(fake)
    assert both(env, 'ENV_VIRTUAL_ENV') == '/user-software/venv/jax' and said == ''


def test_a_layer_serves_where_the_overlay_is_for_another_python(by, prefix):
    fake = Fake(prefix, layer='jax', python_version='3.12')
    squashfs(fake.root / 'layer.squashfs')
    (fake.overlay / 'user-software' / 'venv' / 'jax').mkdir(parents=True)
    (fake.overlay / 'made-for').write_text('python 3.9\n')
    env, _ = by(fake)
    assert both(env, 'ENV_PREPEND_PATH') == '/runscripts:/layer/venv/jax/bin'
    assert both(env, 'ENV_VIRTUAL_ENV') == '/layer/venv/jax'


def test_a_layer_that_is_gone_or_damaged_is_an_error(by, prefix):
    fake = Fake(prefix, layer='jax')
    file = fake.root / 'layer.squashfs'
    for change in (lambda: None, lambda: squashfs(file, size=199)):
        change()
        env, said = by(fake)
        said = ' '.join(said.split())  # Lmod folds errors
        assert 'jax/24.10: its layer of Python packages is gone or damaged file %s hint: ' % file in said
        assert 'hint: module unload jax/24.10; eb --rebuild jax-24.10.eb' in said and 'SIF' not in env


@pytest.fixture
def theirs(fake, tmp_path):
    """An installation of others, whose overlay in the prefix has a directory; ours is at ``mine``."""
    fake.give_away()
    (fake.overlay / 'user-software').mkdir(parents=True)
    fake.mine = tmp_path / 'mine' / 'jax' / '24.10'
    return fake


def beneath(env, fake):
    """Return the binds that lie beneath one's own overlay (list of str)."""
    return [entry for entry in both(env, '_BINDPATH').replace(',ro', ';ro').split(',') if ':/shared-software' in entry]


def test_the_overlay_of_those_who_installed_it_lies_beneath_ones_own(by, theirs, tmp_path):
    env, said = by(theirs, EASYSIF_OVERLAYS=tmp_path / 'mine')
    assert beneath(env, theirs) == ['%s/user-software:/shared-software:ro' % theirs.overlay] and said == ''
    assert both(env, 'ENV_PREPEND_PATH') == (
        '/runscripts:/user-software/venv/jax/bin:/shared-software/venv/jax/bin')
    squashfs(theirs.overlay / 'user-software.squashfs')
    env, _ = by(theirs, EASYSIF_OVERLAYS=tmp_path / 'mine')
    assert beneath(env, theirs) == ['%s/user-software.squashfs:/shared-software:image-src=/;ro' % theirs.overlay]
    squashfs(theirs.overlay / 'user-software.squashfs', size=199)
    assert beneath(by(theirs, EASYSIF_OVERLAYS=tmp_path / 'mine')[0], theirs) == [
        '%s/user-software:/shared-software:ro' % theirs.overlay]


def test_what_cannot_be_read_or_is_for_another_python_does_not_lie_beneath(by, theirs, tmp_path):
    mine = {'EASYSIF_OVERLAYS': tmp_path / 'mine'}
    (theirs.overlay / 'user-software').chmod(0)
    env, said = by(theirs, **mine)
    (theirs.overlay / 'user-software').chmod(0o755)
    assert said == '' and (os.geteuid() == 0 or beneath(env, theirs) == [])
    other = Fake(theirs.prefix, module='other/1', variable='OTHER', python_version='3.12')
    (other.overlay / 'user-software').mkdir(parents=True)
    for python, found in (('3.11', 0), ('3.12', 1)):
        (other.overlay / 'made-for').write_text('python %s\n' % python)
        env, said = by(other, **mine)
        assert len(beneath(env, other)) == found and said == ''
    shutil.rmtree(theirs.overlay)
    assert beneath(by(theirs, **mine)[0], theirs) == []


def test_ones_own_overlay_in_the_prefix_has_nothing_beneath(by, fake):
    (fake.overlay / 'user-software').mkdir(parents=True)
    assert both(by(fake)[0], '_BINDPATH') == fake.binds()


def test_an_overlay_below_the_home_is_told_of_when_it_is_made_and_never_again(by, theirs, tmp_path):
    own = tmp_path / 'home' / '.local' / 'share' / 'easysif' / 'overlays' / 'jax' / '24.10'
    _, said = by(theirs)
    assert said.lstrip('\n') == (
        'note: jax/24.10: the packages that you add go into your home directory, and count against its quota\n'
        '  directory  %s\n'
        'hint: to have them elsewhere: export EASYSIF_OVERLAYS=/<a directory> && module reload\n' % own)
    assert by(theirs)[1] == ''
    assert by(theirs, EASYSIF_OVERLAYS=tmp_path / 'mine')[1] == ''
    theirs.site(overlays='%s/of the site' % tmp_path)
    assert by(theirs)[1] == ''


def test_what_there_is_to_say_is_said_once_by_a_module_that_takes_the_place_of_another_one(theirs, tmp_path, tool):
    Fake(theirs.prefix, module='other/1', variable='OTHER')
    script = 'module load other 2>/dev/null; module swap other jax'
    assert theirs.by_module(tmp_path / 'home', {}, script, tool)[1].count('note: jax/24.10: ') == 1
    squashfs(tmp_path / 'mine' / 'jax' / '24.10' / 'user-software.squashfs', size=199)
    if 'Lmod' in tool:
        script = 'module load other 2>/dev/null; module load jax'
    _, said = theirs.by_module(tmp_path / 'home', {'EASYSIF_OVERLAYS': tmp_path / 'mine'}, script, tool)
    assert said.count('is damaged and not used') == 1


def test_where_no_overlay_can_be_made_below_the_home_nothing_is_told(by, theirs, tmp_path):
    (tmp_path / 'home').mkdir(exist_ok=True)
    (tmp_path / 'home' / '.local').write_text('in the way')
    assert by(theirs)[1] == ''


def test_neither_directory_nor_squashfs_makes_an_empty_directory(by, fake):
    env, _ = by(fake)
    assert list((fake.overlay / 'user-software').iterdir()) == []


def test_in_a_read_only_prefix_of_ones_own_the_overlay_stays_where_it_is(by, fake, tmp_path):
    """Whether its file system or its permissions say so: packages would be missed, and others fill the home."""
    (fake.overlay / 'user-software').mkdir(parents=True)
    (fake.prefix / 'easysif' / 'prefix.json').chmod(0o444)
    fake.site(overlays='%s/of the site' % tmp_path)
    env, said = by(fake)
    assert (env['CONTAINERROOT'], said) == (str(fake.overlay), '') and both(env, '_BINDPATH') == fake.binds()
    assert by(fake, EASYSIF_OVERLAYS=tmp_path / 'mine')[0]['CONTAINERROOT'] == '%s/mine/jax/24.10' % tmp_path


@pytest.fixture
def umask():
    """Give the umask back that a test changes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(directory):
    """Return the permissions of a user's directory for a module and of what is made in it (list of str)."""
    return [oct(path.stat().st_mode & 0o7777) for path in (directory, directory / 'user-software')]


@pytest.mark.long
@pytest.mark.parametrize('mask', [0o000, 0o022, 0o077])
def test_a_new_directory_is_as_open_as_that_in_which_it_is_made_whatever_the_umask(by, fake, tmp_path, umask, mask):
    """In the prefix as that, in CONTAINERROOT as that, in a directory of a group for that, else for its user alone."""
    for granted in (0o755, 0o750, 0o700, 0o711, 0o777):
        fake.prefix.chmod(granted)
        os.umask(mask)
        by(fake)
        expected = oct(granted & 0o755)
        assert modes(fake.overlay) == [expected] * 2
        (fake.overlay / 'user-software').rmdir()
        fake.overlay.chmod(0o750)
        by(fake)
        assert modes(fake.overlay) == [oct(0o750)] * 2
        shutil.rmtree(fake.overlay.parent.parent)
    fake.give_away()
    for name, granted, expected in (('plain', 0o755, 0o700), ('group', 0o2770, 0o2770), ('all', 0o1777, 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(granted)
        by(fake, EASYSIF_OVERLAYS=tmp_path / name)
        assert modes(tmp_path / name / 'jax' / '24.10') == [oct(expected)] * 2
    by(fake)
    own = tmp_path / 'home' / '.local' / 'share' / 'easysif' / 'overlays' / 'jax' / '24.10'
    assert modes(own) == [oct(0o700)] * 2 and oct(own.parent.stat().st_mode & 0o777) == oct(0o700)


def test_a_prefix_of_others_gives_an_overlay_of_ones_own(by, fake, tmp_path):
    fake.give_away()
    env, _ = by(fake)
    assert env['CONTAINERROOT'] == '%s/home/.local/share/easysif/overlays/jax/24.10' % tmp_path
    fake.site(overlays='%s/$USER/${PROJECT}/x' % tmp_path)
    assert by(fake)[0]['CONTAINERROOT'] == '%s/home/.local/share/easysif/overlays/jax/24.10' % tmp_path
    assert by(fake, PROJECT='')[0]['CONTAINERROOT'] == '%s/home/.local/share/easysif/overlays/jax/24.10' % tmp_path
    assert by(fake, PROJECT='p 1')[0]['CONTAINERROOT'] == '%s/u/p 1/x/jax/24.10' % tmp_path
    assert by(fake, EASYSIF_OVERLAYS=tmp_path / 'mine')[0]['CONTAINERROOT'] == '%s/mine/jax/24.10' % tmp_path


@pytest.mark.parametrize('place', ['%s/a:b', '%s/a,b', '%s/a^b', 'relative%.0s', './%.0s'])
def test_an_overlay_that_binds_cannot_carry_is_left_out_and_said(by, fake, tmp_path, monkeypatch, place):
    fake.give_away()
    before = sorted(os.listdir(tmp_path))
    env, said = by(fake, EASYSIF_OVERLAYS=place % tmp_path)
    assert both(env, '_BINDPATH') == '%s/runscripts:/runscripts' % fake.root
    assert env['CONTAINERROOT'] == env['USER_SOFTWARE'] == ''
    assert 'there is no place for an overlay, packages cannot be added\n  path  %s\n' % (place % tmp_path) in said
    assert 'hint: export EASYSIF_OVERLAYS=/<a directory>' in said and sorted(os.listdir(tmp_path)) == before


def test_only_what_this_node_has_is_bound(by, fake, tmp_path):
    (tmp_path / 'here').mkdir()
    fake.site(binds=('%s/here' % tmp_path, '%s/gone' % tmp_path, '%s/here:/there:ro' % tmp_path))
    env, _ = by(fake)
    assert both(env, '_BINDPATH') == fake.binds('%s/here' % tmp_path, '%s/here:/there:ro' % tmp_path)


def test_needs_bring_their_binds_and_environment(by, prefix, tmp_path):
    fake = Fake(prefix, needs=('amd-gpu',), binds=('%s:/data:ro' % tmp_path,), container_env={'B': 'recipe'})
    fake.site(provides={'amd-gpu': Need(('/usr/share',), {'A': 'need', 'B': 'need'}), 'x': Need(('/opt',), {'C': '1'})},
              container_env={'A': 'site', 'D': 'a;b%c$HOME`id`'})
    env, _ = by(fake)
    assert both(env, '_BINDPATH') == fake.binds('%s:/data:ro' % tmp_path, '/usr/share')
    assert both(env, 'ENV_A') == 'need' and both(env, 'ENV_B') == 'recipe' and both(env, 'ENV_C') is None
    assert both(env, 'ENV_D') == 'a;b%c\\$HOME\\`id\\`'


def test_the_users_binds_come_first_without_repeats(by, fake, tmp_path):
    (tmp_path / 'd').mkdir()
    fake.site(binds=('%s/d' % tmp_path,))
    env, _ = by(fake, SINGULARITY_BINDPATH='/opt:/x:ro,/y.squashfs:/data:image-src=/,ro', SINGULARITY_BIND='/mnt',
                APPTAINER_BINDPATH='/etc/hosts:/h,/opt:/x:ro,/usr:%s/d/' % tmp_path)
    assert both(env, '_BINDPATH') == ','.join(['/opt:/x:ro,/y.squashfs:/data:image-src=/,ro', '/etc/hosts:/h',
                                               '/usr:%s/d/' % tmp_path, fake.binds()])
    assert env['SINGULARITY_BIND'] == '/mnt' and 'APPTAINER_BIND' not in env


def test_the_users_path_inside_stays_in_front(by, fake):
    assert both(by(fake, SINGULARITYENV_PREPEND_PATH='/mine')[0],
                'ENV_PREPEND_PATH') == '/mine:/runscripts:/user-software/venv/jax/bin'


@pytest.mark.parametrize('ours, theirs, path', [('/a', '/b', '/a:/b'), ('/a', '/a', '/a'), ('/a', None, '/a')])
def test_the_users_paths_inside_are_joined_without_repeats(by, fake, ours, theirs, path):
    env, _ = by(fake, APPTAINERENV_PREPEND_PATH=ours, SINGULARITYENV_PREPEND_PATH=theirs)
    assert both(env, 'ENV_PREPEND_PATH') == path + ':/runscripts:/user-software/venv/jax/bin'


def test_the_module_of_the_runtime_is_loaded_first_where_the_site_has_one(theirs, tmp_path, tool):
    lua, tcl = theirs.prefix / 'modules' / 'all' / 'runtime' / '1.lua', tmp_path / 'tcl' / 'runtime' / '1'
    for path, text in ((lua, 'setenv("RUNTIME", "here")\n'), (tcl, '#%Module\nsetenv RUNTIME here\n')):
        path.parent.mkdir()
        path.write_text(text)
    theirs.site(module_dependency='runtime/1')
    before, _ = theirs.by_module(tmp_path, {}, 'true', tool)
    loaded, said = theirs.by_module(tmp_path, {}, tool=tool)
    assert loaded['RUNTIME'] == 'here' and said.count('note: jax/24.10: ') == 1
    after, _ = theirs.by_module(tmp_path, {}, 'module load %(module)s; module unload %(module)s', tool)
    assert users(after) == users(before)


def test_certificates_of_the_site_are_named_unless_user_or_image_names_others(by, prefix, tmp_path):
    bundle = tmp_path / 'ca.crt'
    bundle.write_text('')
    fake = Fake(prefix, image_env={'SSL_CERT_FILE': '/image.pem'})
    fake.site(ca_certificates=str(bundle))
    env, _ = by(fake, REQUESTS_CA_BUNDLE='/users.pem')
    assert both(env, 'ENV_PIP_CERT') == str(bundle) and both(env, '_BINDPATH') == fake.binds(bundle)
    assert both(env, 'ENV_SSL_CERT_FILE') is None and both(env, 'ENV_REQUESTS_CA_BUNDLE') is None


def test_the_hosts_temporary_directory_is_visible(by, fake, tmp_path):
    assert both(by(fake, TMPDIR=tmp_path)[0], '_BINDPATH') == fake.binds(tmp_path)


def test_ebs_python_is_the_users_where_it_is_set(by, fake):
    assert by(fake, EB_PYTHON='/mine')[0]['EB_PYTHON'] == '/mine'


def test_values_at_install_serve_where_the_site_file_cannot_be_read(by, fake):
    fake.site(container_env={'A': 'x'})
    for name in site_files.NAMES:
        (fake.prefix / 'easysif' / name).unlink()
    assert both(by(fake)[0], 'ENV_A') == 'x'


def test_an_installation_that_is_being_tested_reads_its_own_site_files(by, fake):
    fake.site(container_env={'A': 'old'})
    site = dataclasses.replace(resolve().site, container_env={'A': 'new'}, ca_certificates='')
    site_files.write(str(fake.root / 'easysif'), site)
    assert both(by(fake)[0], 'ENV_A') == 'old'
    (fake.root / 'easysif' / 'untested').write_text('')
    assert both(by(fake)[0], 'ENV_A') == 'new'


def test_one_site_apply_mends_what_is_installed(by, fake):
    fake.site(container_env={'A': 'x'})
    changed = dataclasses.replace(resolve().site, container_env={'A': 'y'}, ca_certificates='')
    assert [os.path.basename(path) for path in site_files.apply(str(fake.prefix), changed)] == list(site_files.NAMES)
    assert both(by(fake)[0], 'ENV_A') == 'y'
    assert site_files.apply(str(fake.prefix), changed) == []


def test_an_image_that_is_gone_is_found_in_the_store_by_name_and_size(by, fake, tmp_path):
    store = tmp_path / 'store'
    store.mkdir()
    fake.site(image_store=str(store))
    fake.sif.unlink()
    (store / 'jax.sif').write_text('12345')
    env, said = by(fake)
    assert 'SIF' not in env or env['SIF'] == ''
    assert 'jax/24.10: the image is' in said and 'hint: easysif image restore jax/24.10 --prefix' in said
    (store / 'jax.sif').write_text('1234')
    assert by(fake)[0]['SIF'] == '%s/jax.sif' % store
    for path in (store, store / 'jax.sif'):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)  # then anybody may have put it there
        env, said = by(fake)
        assert not env.get('SIF') and '/jax.sif (4 bytes, not open to everybody)' in ' '.join(said.split()), said
        path.chmod(mode)
    store.chmod(0o775)
    assert by(fake)[0]['SIF'] == '%s/jax.sif' % store


def test_an_image_that_is_gone_names_both_places(fake, tmp_path):
    fake.sif.unlink()
    _, said = fake.by_wrapper(tmp_path, {})
    assert said == ('error: jax/24.10: the image is gone\n'
                    '  looked for  %s\n  and for     nothing else: the site has no image store\n'
                    'hint: easysif image restore jax/24.10 --prefix %s\n' % (fake.sif, shlex.quote(str(fake.prefix))))


def test_a_tool_module_sets_names_of_its_own_only(prefix, tmp_path, tool):
    fake = Fake(prefix, environment=False, python_env=None, needs=('nvidia-gpu',))
    env, _ = fake.by_module(tmp_path, {}, tool=tool)
    assert env['SIFJAX'] == str(fake.sif) and env['RUNSCRIPTSJAX'] == '%s/runscripts' % fake.root
    assert not [name for name in env if name.startswith(('APPTAINER', 'SINGULARITY', 'EASYSIF')) or name == 'SIF']
    env, _ = fake.by_wrapper(tmp_path, {})
    assert both(env, '_NV') == '1' and both(env, '_BINDPATH') == '%s/runscripts:/runscripts' % fake.root
    assert 'SIF' not in env


USERS = {'SINGULARITY_BIND': '/opt', 'SINGULARITY_BINDPATH': '/u.squashfs:/data:image-src=/,ro,/var/log',
         'APPTAINER_BINDPATH': '/srv', 'SIF': 'mine', 'WITH_CONDA': 'a; b%3B c', 'APPTAINERENV_PIP_CERT': 'c.pem',
         'SINGULARITYENV_PREPEND_PATH': '/my bin', 'EB_PYTHON': 'py'}


CYCLES = ['module load %(module)s; module unload %(module)s',
          'module load %(module)s tool; module unload %(module)s; module unload tool', *map(long, (
              'module load %(module)s; module purge',
              'module load %(module)s; module reload; module unload %(module)s',
              'module load %(module)s; module swap %(module)s other; module purge',
              'module load other; module swap other %(module)s; module unload %(module)s',
              'module load tool %(module)s; module unload %(module)s; module unload tool',
              'module load tool %(module)s; module unload tool; module unload %(module)s'))]


@pytest.mark.parametrize('script', CYCLES)
@pytest.mark.parametrize('env', [{}, USERS], ids=['nothing set', 'everything set'])
def test_unloading_leaves_the_environment_as_it_was(fake, prefix, tmp_path, script, env, tool):
    Fake(prefix, module='other/1', variable='OTHER', container_env={'X': '1'})
    Fake(prefix, module='tool/1', variable='TOOL', environment=False, python_env=None)
    before, _ = fake.by_module(tmp_path, env, 'true', tool)
    after, said = fake.by_module(tmp_path, env, script, tool)
    assert users(after) == users(before)
    assert 'error' not in said.lower()


def neighbours(directory):
    """Binds of files that lie side by side, which a module records without repeating their directory (tuple of str)."""
    for name in 'a&b', 'c\\1d', 'e':
        (directory / name).touch()
    names = ('a&b', 'c\\1d', 'e:/else/where:ro')
    return (*('%s/%s' % (directory, name) for name in names), '/usr/share', '/etc/hosts')


def test_what_is_recorded_of_binds_is_short(fake, tmp_path, tool):
    fake.site(binds=neighbours(tmp_path))
    env, _ = fake.by_module(tmp_path / 'home', {}, tool=tool)
    assert env['EASYSIF_ADDED'] == fake.binds(
        '%s/a&b,^c\\1d,^e:/else/where:ro,/usr/share,/etc/hosts' % tmp_path)
    assert '^' not in both(env, '_BINDPATH')


@pytest.mark.parametrize('env', [{}, USERS], ids=['nothing set', 'everything set'])
def test_a_module_that_takes_the_place_of_another_one_leaves_nothing_of_it(prefix, tmp_path, env, tool):
    """Lmod exchanges members of a family by itself, Environment Modules when it is told."""
    bundle = tmp_path / 'ca.pem'
    bundle.touch()
    own = dict(container_env={'MINE': '1'}, needs=('nvidia-gpu',), provides={'jax': '1'})
    fakes = [Fake(prefix, **own), Fake(prefix, module='other/1', variable='OTHER')]
    for one in fakes:
        one.site(ca_certificates=str(bundle), binds=neighbours(tmp_path))
    script = 'module load %%(module)s; module %s other' % ('load' if 'Lmod' in tool else 'swap %(module)s')
    before, _ = fakes[0].by_module(tmp_path, env, 'true', tool)
    alone, _ = fakes[0].by_module(tmp_path, env, 'module load other', tool)
    both, _ = fakes[0].by_module(tmp_path, env, script, tool)
    assert users(both) == users(alone)
    after, said = fakes[0].by_module(tmp_path, env, script + '; module purge', tool)
    assert users(after) == users(before) and 'error' not in said.lower()


def test_environment_modules_loads_one_member_of_the_family(prefix, tmp_path):
    fake, _ = Fake(prefix), Fake(prefix, module='other/1', variable='OTHER')
    refused = 'module load %(module)s; module load other && exit'
    env, said = fake.by_module(tmp_path, {}, refused, 'Environment Modules')
    assert env['SIF'] == str(fake.sif) and 'SIFOTHER' not in env and 'conflict' in said
    assert 'module unload easysif_environment' in said
    env, said = fake.by_module(tmp_path, {}, '%s; module unload easysif_environment; module load other 2>/dev/null'
                               % refused, 'Environment Modules')
    assert 'SIFJAX' not in env and env['SIF'] == env['SIFOTHER']


def test_unloading_takes_back_exactly_what_loading_set_whatever_the_site_says_now(fake, tmp_path, tool):
    fake.site(container_env={'A': 'x', 'B': 'y'}, binds=('/usr/share',))
    fresh = dataclasses.replace(resolve().site, container_env={'C': 'z'}, ca_certificates='')
    (tmp_path / 'new').mkdir()
    site_files.write(str(tmp_path / 'new'), fresh)
    env = {'FROM': tmp_path / 'new', 'TO': fake.prefix / 'easysif'}
    before, _ = fake.by_module(tmp_path, env, 'true', tool)
    after, _ = fake.by_module(tmp_path, env, 'module load %(module)s; cp "$FROM"/site.* "$TO"; '
                              'module unload %(module)s', tool)
    assert users(after) == users(before)


@pytest.mark.parametrize('loaded', ['jax/24.10', 'other/1'])
def test_a_wrapper_does_the_same_whatever_is_loaded(prefix, tmp_path, loaded, tool):
    """And what the user sets after loading stays: a bind, a variable of their own, one that the module had set."""
    fake = Fake(prefix, container_env={'MINE': 'jax'})
    Fake(prefix, module='other/1', variable='OTHER', container_env={'X': '1', 'MINE': 'other'}, needs=('amd-gpu',))
    fake.site(binds=neighbours(tmp_path))
    wrapper = '%s/easysif/wrapper' % fake.root
    home, env = tmp_path, dict(USERS, W=wrapper, M=loaded)
    alone, _ = fake.by_wrapper(home, env)
    text = 'module load "$M"; "$W" print-environment | tr "\\n" "\\0"; exit'
    beside, _ = fake.by_module(home, env, text, tool)
    for name in {*alone, *beside}:
        if name.startswith(('SIF', 'APPTAINER', 'SINGULARITY', 'WITH', 'RUNS', 'USER_S', 'CONT', 'EB', 'EASYSIF')):
            if name not in ('SIFJAX', 'RUNSCRIPTSJAX', 'SIFOTHER', 'RUNSCRIPTSOTHER'):
                assert (name, alone.get(name)) == (name, beside.get(name))
    changes = ('module load "$M"; export APPTAINER_BINDPATH="$APPTAINER_BINDPATH,/usr/share:/more" '
               'APPTAINERENV_MINE=user APPTAINERENV_OWN=own; "$W" print-environment | tr "\\n" "\\0"; exit')
    changed, _ = fake.by_module(home, env, changes, tool)
    assert changed['APPTAINERENV_MINE'] == 'user' and changed['APPTAINERENV_OWN'] == 'own'
    assert set(changed['APPTAINER_BINDPATH'].split(',')) == \
        {*alone['APPTAINER_BINDPATH'].split(','), '/usr/share:/more'}


def test_the_module_is_readable_in_every_mode_and_looking_at_it_makes_and_says_nothing(theirs, tmp_path, tool):
    """Not even what a load would say: that the overlay is damaged, and lies in the home."""
    squashfs(tmp_path / 'mine' / 'jax' / '24.10' / 'user-software.squashfs', size=199)
    shown = {'Lmod with Lua': 'pushenv("SIF","%s")', 'Lmod with Tcl': 'pushenv("SIF","%s")',
             'Environment Modules': 'setenv          SIF {%s}'}[tool]
    for command in ('show', 'spider' if 'Lmod' in tool else 'test', 'avail', 'whatis', 'help'):
        for env in ({}, {'EASYSIF_OVERLAYS': tmp_path / 'mine'}):
            found, said = theirs.by_module(tmp_path / 'home', env, 'module %s %%(module)s' % command, tool)
            assert not re.search('rror|damaged|note:', said) and 'SIF' not in found
            if command == 'show':
                assert re.sub(r'\s+', ' ', shown % theirs.sif) in re.sub(r'[ \t]+', ' ', said)
    assert not (tmp_path / 'home' / '.local').exists()


def test_what_is_rendered_is_clean(fake):
    for path in [fake.root / 'easysif' / 'module.sh', fake.prefix / 'easysif' / 'site.sh']:
        harness.run(['shellcheck', path])
    harness.run(['luac5.3', '-p', fake.prefix / 'modules' / 'all' / 'jax' / '24.10.lua'])
    harness.run(['luac5.3', '-p', fake.prefix / 'easysif' / 'site.lua'])
    whole = 'exit [expr {![info complete [read [open [lindex $argv 0]]]]}]'
    for path in (fake.prefix.parent / 'tcl' / 'jax' / '24.10', fake.prefix / 'easysif' / 'site.tcl'):
        harness.run(['tclsh', '/dev/stdin', path], stdin=whole)


def test_the_same_installation_gives_the_same_text(prefix):
    fake = Fake(prefix, container_env={'B': '1', 'A': '2'}, needs=('amd-gpu',))
    assert render.shell(wrapper_plan(fake.inst)) == render.shell(wrapper_plan(fake.inst))
    assert (prefix / 'easysif' / 'site.sh').read_text() == site_files.shell_text(
        dataclasses.replace(resolve().site, ca_certificates=''))


@pytest.mark.parametrize('value', ['', 'a b', "it's", 'q"q', 'back\\slash', '$HOME `id` $(id)', ']==]', '%s',
                                   'ünï 容器', '{a} {', *map(long, (
                                       '-n', '*', '{', '}', '[id]', ']===]', '#', '%', '0x10', '1e3', '007'))])
def test_any_text_reaches_the_environment_as_it_is(by, prefix, value):
    env, _ = by(Fake(prefix, container_env={'VALUE': value}, eb_python=value or 'x'))
    assert both(env, 'ENV_VALUE') == literal(value) and env['EB_PYTHON'] == (value or 'x')


@pytest.mark.parametrize('value, name', [
    ('tab\there', 'Lmod with Tcl'), ('😀', 'Lmod with Tcl'), ('blank ', 'Lmod with Tcl'),
    ('~/x', 'Environment Modules'), ('/a:~root', 'Environment Modules')])
def test_a_text_that_the_tool_cannot_carry_is_left_to_the_wrappers(by, prefix, value, name):
    env, _ = by(Fake(prefix, container_env={'VALUE': value, 'OTHER': 'x'}))
    expected = None if by.tool == name else value
    assert both(env, 'ENV_VALUE') == expected and both(env, 'ENV_OTHER') == 'x'


@pytest.mark.parametrize('name', ['WITH_CONDA', 'HOME', *map(long, (
    'EB_PYTHON', 'APPTAINERENV_V', 'APPTAINERENV_PREPEND_PATH', 'SINGULARITY_BINDPATH', 'TMPDIR'))])
def test_a_line_after_the_first_of_what_the_user_has_is_never_executed(prefix, tmp_path, name, tool):
    """No tool can hand it on: the variable stays as it is, at load, at unload, and the others are as ever."""
    fake = Fake(prefix, container_env={'V': 'x', 'W': 'y'})
    env = {name: '/a\ntouch<%s/evil' % tmp_path}
    before, _ = fake.by_module(tmp_path / 'home', env, 'true', tool)
    loaded, said = fake.by_module(tmp_path / 'home', env, tool=tool)
    after, said_later = fake.by_module(tmp_path / 'home', env, 'module load %(module)s; module unload %(module)s', tool)
    assert said == said_later == '' and users(after) == users(before)
    assert loaded[name] == env[name] and both(loaded, 'ENV_W') == 'y' and loaded['SIF'] == str(fake.sif)
    assert not (tmp_path / 'evil').exists()


def test_a_line_after_the_first_of_what_the_image_has_is_never_executed(prefix, tmp_path, tool):
    """It does not come that far, but if it did."""
    conda = Conda('/opt/a\ntouch<evil', 'a\ntouch<evil', '/opt')
    fake = Fake(prefix, conda=conda, image_env={'WITH_CONDA': 'a\ntouch<evil'})
    env, said = fake.by_module(tmp_path / 'home', {}, tool=tool)
    assert said == '' and env['SIF'] == str(fake.sif) and 'WITH_CONDA' not in env
    assert both(env, 'ENV_CONDA_PREFIX') is both(env, 'ENV_PREPEND_PATH') is None


def test_a_very_long_command_of_the_image_is_left_inside(by, prefix):
    env, _ = by(Fake(prefix, image_env={'WITH_CONDA': '. x' * 2000}))
    assert 'WITH_CONDA' not in env and env['WITH_VENV'] == '. /runscripts/init-venv'


@pytest.mark.parametrize('name', ['X_BINDPATH', 'BINDPATH', 'SET', '_'])
def test_a_variable_may_be_called_like_one_of_ours(prefix, tmp_path, name, tool):
    """A wrapper beside a module that sets it takes it back, as it does all others."""
    fake, _ = Fake(prefix), Fake(prefix, module='other/1', variable='OTHER', container_env={name: 'v'})
    loaded, _ = fake.by_module(tmp_path, {}, 'module load other', tool)
    assert both(loaded, 'ENV_' + name) == 'v'
    script = 'module load other; "$W" print-environment | tr "\\n" "\\0"; exit'
    beside, _ = fake.by_module(tmp_path, {'W': fake.root / 'easysif' / 'wrapper'}, script, tool)
    assert both(beside, 'ENV_' + name) is None


def test_a_brace_that_belongs_to_no_variable_stays(by, fake, tmp_path):
    fake.give_away()
    fake.site(overlays='%s/{$USER}/${USER}}/$USER}x' % tmp_path)
    assert by(fake)[0]['CONTAINERROOT'] == '%s/{u}/u}/u}x/jax/24.10' % tmp_path


@pytest.mark.parametrize('name', ['a:b', 'a,b', 'a^b', 'a\nb', 'a\\', 'a ', 'a\t'])
def test_a_temporary_directory_that_binds_cannot_carry_is_left_out(by, fake, tmp_path, name):
    (tmp_path / name).mkdir()
    assert both(by(fake, TMPDIR=tmp_path / name)[0], '_BINDPATH') == fake.binds()


def test_activation_is_nothing_where_there_is_nothing_to_activate():
    inst = Installation(module='a/1', prefix='/p', root='/p/r', variable='A', sif_name='a.sif', sif_size=1,
                        environment=True, eb_python='py')
    assert activation(inst) == ('true', 'true', 'true')
