# SPDX-License-Identifier: GPL-2.0-only
"""Who may do what in the prefix of a group, in a central one and in a private one: three users and the real tools."""

import json

import pytest

import toys
import users
from standins import package

pytestmark = pytest.mark.e2e

SHARED = users.TOP / 'shared'
TOY, SNAKE = SHARED / 'toy-1.0.eb', SHARED / 'snake-1.0.eb'

#: what is told once, where an overlay is made below a home directory because nobody said otherwise
NOTE = """
note: snake/1.0: the packages that you add go into your home directory, and count against its quota
  directory  %s
hint: to have them elsewhere: export EASYSIF_OVERLAYS=/<a directory> && module reload
"""

#: holds a lock and dies without giving it back
DIES = 'import os, sys; from easysif.lock import Lock; Lock(sys.argv[1], "toy").__enter__(); os.kill(os.getpid(), 9)'

#: lets a user write everything below a directory by an access control list, as administrators of a site may
LISTS = r'''
import os, struct, sys
for parent, directories, names in os.walk(sys.argv[2]):
    for path in [parent, *(os.path.join(parent, name) for name in names)]:
        if not os.path.islink(path):
            mode = os.stat(path).st_mode
            entries = ((1, mode >> 6 & 7, -1), (2, 7, int(sys.argv[1])), (4, mode >> 3 & 7, -1), (16, 7, -1),
                       (32, mode & 7, -1))
            value = struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries)
            os.setxattr(path, 'system.posix_acl_access', value)
'''


@pytest.fixture(scope='module')
def machine(images, tmp_path_factory):
    """The machine of several users, with two recipes, their images and two packages for all of them (Machine)."""
    directory = tmp_path_factory.mktemp('recipes')
    toys.recipe(directory, commands=['fine'])
    toys.recipe(directory, 'snake', image='snake.sif', python_env='snake',
                commands=['python', 'pip', 'stat', 'id'])
    toys.make_image(directory)
    for version in '12':
        package(directory, 'small', version)
    (directory / 'site.yaml').write_text('{}\n')
    with users.Machine() as running:
        running.admin('cd shared; cp "$@" .; cp %s snake.sif; chmod a=r *; mv *.whl ../tmp' % images.sif('python'),
                      *directory.glob('*.*'))
        yield running


def make(machine, name, group, mode, *arguments, umask='077'):
    """Let the installer run eb for a prefix of that group and mode; return the prefix (Path)."""
    prefix = SHARED / name
    machine.admin('mkdir "$1"; chown installer:$2 "$1"; chmod $3 "$1"', prefix, group, mode)
    machine.eb('installer', prefix, *arguments, umask=umask)
    return prefix


@pytest.fixture(scope='module')
def team(machine):
    """A prefix of the group (Path)."""
    return make(machine, 'team', 'team', '2775', TOY, SNAKE)


@pytest.fixture(scope='module')
def central(machine):
    """A prefix that only the installer writes (Path)."""
    return make(machine, 'central', 'installer', '0755', TOY, SNAKE)


@pytest.fixture(scope='module')
def private(machine):
    """A prefix that only the installer sees (Path)."""
    return make(machine, 'private', 'installer', '0700', TOY, umask='022')


def wheel(version):
    """Return a package in the machine (Path)."""
    return users.TOP / 'tmp' / ('small-%s-py3-none-any.whl' % version)


def state(machine, directory, *without):
    """Return all that is below a directory: path -> mode, owner, group, time of change, content or link (dict)."""
    lines = machine.admin(r'''cd "$1"; find . \( -type d -o -type l \) -printf '%P\t%M\t%u\t%g\t%T@\t%l\n'
        find . -type f -printf '%P\t%M\t%u\t%g\t%T@\t' -exec sha256sum {} \;''', directory).splitlines()
    found = {line.split('\t')[0]: line.split('\t')[1:] for line in lines}
    return {path: what for path, what in found.items() if not path.startswith(without)}


def assert_nobody_else_writes(machine, directory):
    """What is below a directory is written by its owner at most, or by the group of a prefix, and never by others."""
    open_to_all = {path: what for path, what in machine.modes(directory).items() if what[0][8] == 'w'}
    assert open_to_all == {}


def assert_shared(machine, directory):
    """Members of the group may do with everything what its owner may, but for files made with a mode of their own."""
    modes = machine.modes(directory)
    assert {group for _, _, group in modes.values()} == {'team'}
    directories = {path: mode for path, (mode, *_) in modes.items() if mode[0] == 'd'}
    assert {path for path, mode in directories.items() if mode != 'drwxrwsr-x'} == set()
    files = {path: mode for path, (mode, *_) in modes.items() if mode[0] == '-'}
    assert {mode for mode in files.values()} <= {'-rw-rw-r--', '-rwxrwxr-x', '-rw-r--r--', '-rwxr-xr-x', '-r--r--r--'}
    closed = {path for path, mode in files.items() if mode[5] == '-'}
    assert {path for path in closed if '/easybuild/' not in path and '/venv/snake/bin/' not in path} == {
        path for path in files if path.endswith('.sif')}


def where(machine, user, prefix, **options):
    """Load a module as a user, run a command of it, and return where the user's own packages are (str)."""
    script = 'module load snake; python -c "print(1)" >"$TMPDIR/said.$USER"; printf %s "$CONTAINERROOT"'
    result = machine.shell(user, prefix, script, **options)
    assert result.stderr in ('', NOTE % result.stdout)
    return result.stdout


# --- a prefix of a group ----------------------------------------------------------------------------------------------

def test_a_prefix_that_a_group_writes_is_the_groups_whatever_the_umask_of_who_installs(machine, team):
    assert_shared(machine, team)
    second = make(machine, 'second', 'team', '2775', TOY, '--group-writable-installdir', '--set-gid-bit', umask='002')
    assert_shared(machine, second)


def test_a_group_without_setgid_gets_it_too(machine):
    prefix = make(machine, 'plain', 'team', '0775', TOY)
    for directory in ('software', 'modules', 'easysif'):
        assert_shared(machine, prefix / directory)
    machine.eb('member', prefix, '--rebuild', TOY, umask='077')


def test_members_share_an_overlay_whichever_umask_they_have(machine, team):
    overlay = str(team / 'overlays' / 'snake' / '1.0')
    see = 'python -c "import small; print(small.__version__)"'
    script = 'module load snake; %s; printf "%%s " "$CONTAINERROOT"; ' + see
    install = 'pip install --quiet --no-index --upgrade %s'
    for user, umask, version in (('member', '077', 1), ('installer', '000', 2)):
        result = machine.shell(user, team, script % (install % wheel(version)), umask=umask)
        assert result.stdout == '%s %d\n' % (overlay, version) and result.stderr == ''
        assert_shared(machine, team)
        pack = 'make-squashfs >"$TMPDIR/said.$USER"; module reload; ' + see
        unpack = 'unmake-squashfs >"$TMPDIR/said.$USER"; rm "$CONTAINERROOT"/*.squashfs.1; module reload'
        other = 'installer' if user == 'member' else 'member'
        packed = machine.shell(user, team, script % pack, umask=umask)
        assert packed.stdout == '%d\n%s %d\n' % (version, overlay, version)
        assert machine.shell(other, team, script % unpack, umask=umask).stdout == '%s %d\n' % (overlay, version)
        machine.shell(other, team, 'module load snake; python -m pip uninstall --quiet --yes small', umask=umask)
    inside = 'echo "pip install -q --no-index --force-reinstall %s" | start-shell' % wheel(2)
    machine.shell('member', team, script % inside, umask='077')
    assert machine.shell('installer', team, script % (install % wheel(1)), umask='077').stdout == overlay + ' 1\n'
    assert_shared(machine, team)


def test_what_a_member_makes_by_other_means_is_the_groups_and_elsewhere_keeps_to_the_umask(machine, team):
    script = '''module load snake
        python -c 'import os; open(os.environ["HOME"] + "/secret", "w"); os.mkdir("/user-software/more")'
        /usr/bin/stat -c %A "$HOME/secret" "$USER_SOFTWARE/more"; rmdir "$USER_SOFTWARE/more"'''
    assert machine.shell('member', team, script, umask='077').stdout == '-rw-------\ndrwxrwsr-x\n'


def test_an_overlay_that_is_gone_is_made_again_for_all(machine, team):
    machine.admin('mv "$1" "$1.aside"', team / 'overlays' / 'snake')
    assert where(machine, 'member', team, umask='077') == str(team / 'overlays' / 'snake' / '1.0')
    assert_shared(machine, team)
    script = 'module load snake; pip install --quiet --no-index %s' % wheel(1)
    machine.shell('installer', team, script, umask='077')
    machine.admin('rm -r "$1"; mv "$1.aside" "$1"', team / 'overlays' / 'snake')


def test_members_rebuild_what_others_of_them_installed(machine, team):
    before = state(machine, team / 'overlays')
    for user, umask in (('member', '077'), ('installer', '002')):
        machine.eb(user, team, '--rebuild', SNAKE, umask=umask)
        modes = machine.modes(team)
        assert {path for path, (_, owner, _) in modes.items()
                if path.startswith('software/snake/1.0') and owner != user} == set()
        assert_shared(machine, team)
        assert state(machine, team / 'overlays') == before
        assert [path for path in modes if '.new' in path or '.old' in path or path.endswith('.lock')] == []
    machine.eb('member', team, '--rebuild', '--module-only', SNAKE, umask='077')
    assert_shared(machine, team)
    assert where(machine, 'installer', team) == str(team / 'overlays' / 'snake' / '1.0')


def test_members_take_over_the_locks_of_others_of_them_that_died(machine, team):
    for user, other in (('member', 'installer'), ('installer', 'member')):
        lock = team / 'software' / '.locks' / (str(team / 'software' / 'toy' / '1.0').replace('/', '_') + '.lock')
        pack = team / 'overlays' / 'snake' / '1.0' / '.pack.lock'
        for path in (lock, pack):
            machine.python(user, DIES, path, umask='077', check=False)
        assert 'took over the lock of process' in machine.eb(other, team, '--rebuild', TOY, umask='077').output
        script = 'module load snake; make-squashfs; unmake-squashfs; rm "$CONTAINERROOT"/*.squashfs.1'
        said = machine.shell(other, team, script)
        assert 'took over the lock of process' in said.stderr and ' of %s on ' % user in said.stderr
    assert_shared(machine, team)


def test_what_a_member_closed_is_not_replaced_and_that_is_said_at_once(machine, team):
    root = team / 'software' / 'toy' / '1.0'
    owner = machine.modes(team)['software/toy/1.0'][1]
    machine.run(owner, ['chmod', '-R', 'g-w', root])
    before = state(machine, team, 'build', 'ebfiles_repo')
    other = 'installer' if owner == 'member' else 'member'
    for arguments in (['--rebuild'], ['--rebuild', '--module-only']):
        result = machine.eb(other, team, *arguments, TOY, check=False)
        assert result.status
        assert 'toy-1.0.eb: what is installed belongs to somebody else, and you may not replace it' in result.output
        assert '  owner         %s\n' % owner in result.output
        assert 'hint: ask %s to run eb, or: find %s -type d -exec chmod g+w {} +\n' % (owner, root) in result.output
        assert state(machine, team, 'build', 'ebfiles_repo') == before
    machine.run(owner, ['find', root, '-type', 'd', '-exec', 'chmod', 'g+w', '{}', '+'])
    machine.eb(other, team, '--rebuild', TOY)
    assert_shared(machine, team)


def test_a_stranger_uses_the_prefix_of_a_group_like_a_central_one(machine, team):
    before = state(machine, team)
    assert where(machine, 'stranger', team) == str(
        users.home('stranger') / '.local' / 'share' / 'easysif' / 'overlays' / 'snake' / '1.0')
    assert state(machine, team) == before


# --- a central prefix -------------------------------------------------------------------------------------------------

def test_a_central_prefix_is_for_all_to_read_whatever_the_umask_of_who_installs(machine, central):
    modes = machine.modes(central)
    assert {mode for mode, *_ in modes.values()} <= {'drwxr-xr-x', '-rw-r--r--', '-rwxr-xr-x', '-r--r--r--'}
    assert {tuple(who) for _, *who in modes.values()} == {('installer', 'installer')}


@pytest.mark.parametrize('umask', ['077', '000'])
def test_everybody_has_packages_of_their_own_for_a_central_module(machine, central, umask):
    """And nobody else sees them; those of the installer are in the prefix."""
    before = state(machine, central)
    for user, version in (('member', 1), ('stranger', 2)):
        script = '''module load snake; pip install --quiet --no-index --upgrade %s
            python -c 'import small; print(small.__version__)'; printf %%s "$CONTAINERROOT"''' % wheel(version)
        own = users.home(user) / '.local' / 'share' / 'easysif' / 'overlays' / 'snake' / '1.0'
        assert machine.shell(user, central, script, umask=umask).stdout == '%d\n%s' % (version, own)
        other = 'stranger' if user == 'member' else 'member'
        assert 'Permission denied' in machine.run(other, ['ls', own], check=False).stderr
    assert where(machine, 'installer', central, umask=umask) == str(central / 'overlays' / 'snake' / '1.0')
    assert state(machine, central, 'overlays') == {
        path: what for path, what in before.items() if not path.startswith('overlays')}
    for user in ('member', 'stranger'):
        machine.run(user, ['rm', '-r', users.home(user) / '.local'])


def test_an_overlay_below_the_home_is_told_of_once(machine, central):
    own = users.home('stranger') / '.local' / 'share' / 'easysif' / 'overlays' / 'snake' / '1.0'
    assert machine.shell('stranger', central, 'module load snake').stderr == NOTE % own
    assert machine.shell('stranger', central, 'module load snake; python -c "pass"').stderr == ''
    machine.run('stranger', ['rm', '-r', users.home('stranger') / '.local'])
    wrapper = central / 'software' / 'snake' / '1.0' / 'bin' / 'python'
    assert machine.run('stranger', [wrapper, '-c', 'pass']).stderr == (NOTE % own).lstrip()
    assert machine.shell('stranger', central, 'module load snake; python -c "pass"').stderr == ''
    machine.run('stranger', ['rm', '-r', users.home('stranger') / '.local'])


def test_what_the_installer_adds_lies_beneath_everybodys_own(machine, central):
    see = 'python -c "import small; print(small.__version__, small.__file__.split(chr(47))[1])"'
    pip = 'pip install --quiet --no-index --upgrade %s; '
    load = {}
    machine.admin('mkdir -m 1777 shared/own')
    directory = central / 'overlays' / 'snake' / '1.0' / 'user-software'

    def seen(user, before='', after=see):
        load['EASYSIF_OVERLAYS'] = SHARED / 'own' / user
        return machine.shell(user, central, 'module load snake; ' + before + after, env=load, check=False)

    machine.shell('installer', central, 'module load snake; ' + pip % wheel(1))
    before = state(machine, central)
    for user in ('member', 'stranger'):
        assert seen(user).stdout == '1 shared-software\n'
    assert seen('member', after='list-packages small').stdout.split()[-1] == 'shared'
    assert seen('member', pip % wheel(2)).stdout == '2 user-software\n'
    assert seen('stranger').stdout == '1 shared-software\n'
    refused = seen('stranger', after='python -c "open(\'/shared-software/mine\', \'w\')"')
    assert 'Read-only file system' in refused.stderr or 'Permission denied' in refused.stderr
    assert state(machine, central) == before

    machine.shell('installer', central, 'module load snake; make-squashfs; rm -r "$USER_SOFTWARE"')
    assert seen('stranger').stdout == '1 shared-software\n' and seen('member').stdout == '2 user-software\n'
    machine.shell('installer', central, 'module load snake; unmake-squashfs; rm "$CONTAINERROOT"/*.squashfs.*')
    machine.run('installer', ['chmod', 'go-rx', directory])
    assert 'No module named' in seen('stranger').stderr and seen('member').stdout == '2 user-software\n'
    machine.run('installer', ['chmod', 'go+rx', directory])
    machine.shell('installer', central, 'module load snake; pip uninstall --quiet --yes small')
    machine.admin('rm -r shared/own')


def test_what_the_installer_makes_anew_is_as_open_as_the_prefix_whatever_the_umask(machine, central):
    """By loading the module, by pip, by make-squashfs and by easysif, all of it is for all to read."""
    overlay = central / 'overlays' / 'snake' / '1.0'
    machine.admin('mv "$1" "$1.aside"', overlay)
    see = 'module load snake; python -c "import small; print(small.__version__)"'
    own = {'EASYSIF_OVERLAYS': users.home('member') / 'own'}

    def assert_open():
        modes = {mode for mode, *_ in machine.modes(overlay).values()}
        assert modes <= {'drwxr-xr-x', '-rw-r--r--', '-rwxr-xr-x'}, machine.modes(overlay)
        assert machine.admin('stat -c %A "$1"', overlay) == 'drwxr-xr-x\n'
        assert machine.shell('member', central, see, env=own).stdout == '1\n'
    machine.shell('installer', central, 'module load snake; pip install --quiet --no-index %s' % wheel(1), umask='077')
    assert_open()
    machine.shell('installer', central, 'module load snake; make-squashfs --remove', umask='077')
    assert_open()
    machine.shell('installer', central, 'module load snake; unmake-squashfs', umask='077')
    assert_open()
    machine.run('installer', ['rm', '-r', overlay])
    machine.easysif('installer', 'overlay', 'install', 'snake/1.0', wheel(1), '--prefix', central, umask='077')
    assert_open()
    machine.run('member', ['rm', '-r', own['EASYSIF_OVERLAYS']])
    machine.easysif('member', 'overlay', 'install', 'snake/1.0', wheel(2), '--prefix', central, env=own, umask='000')
    assert machine.admin('stat -c %A "$1/snake/1.0"', own['EASYSIF_OVERLAYS']) == 'drwx------\n'
    machine.admin('rm -r "$1" "$2"; mv "$1.aside" "$1"', overlay, own['EASYSIF_OVERLAYS'])


def test_the_overlay_of_the_installer_stays_where_it_is_while_the_prefix_is_read_only(machine, central):
    """Module, wrappers, make-squashfs and easysif agree on it, and each says what is in the way."""
    overlay = central / 'overlays' / 'snake' / '1.0'
    machine.shell('installer', central, 'module load snake; pip install --quiet --no-index %s' % wheel(1))
    machine.admin('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', central)
    try:
        before = state(machine, central)
        see = 'python -c "import small; print(small.__version__)"; '
        result = machine.shell('installer', central, 'module load snake; %s printf %%s "$CONTAINERROOT"' % see)
        assert (result.stdout, result.stderr) == ('1\n%s' % overlay, '')
        assert machine.easysif('installer', 'overlay', 'status', 'snake', '--prefix', central).stdout.startswith(
            'snake/1.0: a directory that cannot be written at this moment\n  directory  %s/user-software, ' % overlay)
        for command, said in (
                ('pip install x', 'snake/1.0: the overlay cannot be written, packages cannot be changed\n  directory  '
                                  '%s/user-software\nhint: export EASYSIF_OVERLAYS=' % overlay),
                ('start-shell -c "pip install x"', 'pip: the overlay is on a read-only file system, packages cannot'),
                ('make-squashfs', 'make-squashfs: the overlay cannot be changed (Read-only file system)\n')):
            result = machine.shell('installer', central, 'module load snake; ' + command, check=False)
            assert result.status and 'error: ' + said in result.stderr, result.stderr
        own = users.home('installer') / 'own'
        script = 'module load snake; pip install --quiet --no-index --upgrade %s; %s printf %%s "$CONTAINERROOT"' % (
            wheel(2), see)
        result = machine.shell('installer', central, script, env={'EASYSIF_OVERLAYS': own})
        assert result.stdout == '2\n%s/snake/1.0' % own
        assert state(machine, central) == before
    finally:
        machine.admin('umount "$1"', central)
    machine.shell('installer', central, 'module load snake; pip uninstall --quiet --yes small')


def test_what_easybuild_is_told_to_make_for_one_group_stays_closed_to_others(machine, central):
    machine.admin('cd shared; sed "s/^name =.*/name = \'club\'/" toy-1.0.eb >club-1.0.eb; '
                  'echo "group = \'team\'" >>club-1.0.eb')
    machine.eb('installer', central, SHARED / 'club-1.0.eb', umask='077', group=users.TEAM)
    root = central / 'software' / 'club' / '1.0'
    assert machine.admin('stat -c "%A %G" "$1"', root) == 'drwxr-x--- team\n'
    assert machine.run('member', [root / 'bin' / 'fine', 'seen']).stdout == 'seen\n'
    assert 'Permission denied' in machine.run('stranger', [root / 'bin' / 'fine'], check=False).stderr
    machine.admin('rm -r "$@"', root, *(central / 'modules' / kind / 'club' for kind in ('all', 'tools')))


def test_overlays_are_where_user_and_site_say(machine, central):
    machine.admin('mkdir -m 1777 shared/project')
    own = {'EASYSIF_OVERLAYS': SHARED / 'project' / 'mine'}
    assert where(machine, 'stranger', central, env=own) == str(SHARED / 'project' / 'mine' / 'snake' / '1.0')
    assert machine.admin('stat -c "%A %U" "$1"', SHARED / 'project' / 'mine' / 'snake') == 'drwx------ stranger\n'

    machine.admin('echo "overlays: %s/project/\\$USER" >shared/site.yaml' % SHARED)
    machine.easysif('installer', 'site', 'apply', '--prefix', central, umask='077')
    machine.admin('echo "{}" >shared/site.yaml')
    assert where(machine, 'member', central) == str(SHARED / 'project' / 'member' / 'snake' / '1.0')
    assert where(machine, 'stranger', central) == str(SHARED / 'project' / 'stranger' / 'snake' / '1.0')
    for user, other in (('member', 'stranger'), ('stranger', 'member')):
        assert 'Permission denied' in machine.run(user, ['ls', SHARED / 'project' / other], check=False).stderr
    machine.easysif('installer', 'site', 'apply', '--prefix', central, umask='077')
    assert_nobody_else_writes(machine, central)

    # where a group has its overlays together it has given the directory to its members
    machine.admin('cd shared; mkdir ours; chown member:team ours; chmod 2770 ours')
    assert where(machine, 'member', central, env={'EASYSIF_OVERLAYS': SHARED / 'ours'}, umask='077') == str(
        SHARED / 'ours' / 'snake' / '1.0')
    assert {mode for mode, *_ in machine.modes(SHARED / 'ours').values() if mode[0] == 'd'} == {'drwxrws---'}


@pytest.mark.parametrize('options', ['ro,mode=777', 'size=4k,mode=777,nr_inodes=3'])
def test_loading_does_not_fail_for_a_home_that_is_read_only_or_full(machine, central, options):
    home = users.home('stranger')
    machine.admin('mount -t tmpfs -o %s tmpfs "$1"' % options, home)
    try:
        result = machine.shell('stranger', central, 'module load snake; python -c "print(1)"; fine=1; printf "$SIF"')
        assert result.stdout == '1\n%s/software/snake/1.0/snake.sif' % central
        assert 'warning' not in result.stderr or 'the venv for your packages could not be made' in result.stderr
    finally:
        machine.admin('umount "$1"', home)


def test_a_rebuild_of_a_central_module_by_others_is_refused(machine, central):
    before = state(machine, central)
    result = machine.eb('stranger', central, '--rebuild', TOY, check=False,
                        env={'EASYBUILD_BUILDPATH': users.TOP / 'tmp' / 'build'})
    assert result.status and 'the prefix is read-only for you' in result.output
    assert state(machine, central) == before


# --- a private prefix -------------------------------------------------------------------------------------------------

def test_a_private_prefix_stays_private(machine, private):
    assert {mode[4:] for mode, *_ in machine.modes(private / 'software').values()} - {'------'} <= {'r--r--', 'r-xr-x'}
    for arguments in (['list'], ['verify'], ['show', 'toy']):
        result = machine.easysif('stranger', *arguments, '--prefix', private, check=False)
        assert result.status and result.stderr == (
            'error: %s: you may not look into this prefix\n  owner  installer\n  mode   drwx------\n'
            'hint: ask installer for a prefix that you may read, or name your own with --prefix DIR\n' % private)
    result = machine.easysif('stranger', 'site', 'apply', '--prefix', private, check=False)
    assert result.status and 'easysif/prefix.json: cannot be written (Permission denied)\nhint: ' in result.stderr
    result = machine.eb('stranger', private, '--rebuild', TOY, check=False,
                        env={'EASYBUILD_BUILDPATH': users.TOP / 'tmp' / 'build'})
    assert result.status and 'Permission denied' in result.output  # EasyBuild's own words
    result = machine.run('stranger', [private / 'software' / 'toy' / '1.0' / 'bin' / 'fine'], check=False)
    assert result.status and 'Permission denied' in result.stderr


# --- the command easysif ----------------------------------------------------------------------------------------------

def test_who_may_list_verify_and_apply(machine, team, central):
    for prefix, user in ((team, 'member'), (central, 'stranger'), (central, 'installer')):
        before = state(machine, prefix)
        listed = machine.easysif(user, 'list', '--json', '--prefix', prefix).stdout
        assert [entry['module'] for entry in json.loads(listed)] == ['snake/1.0', 'toy/1.0'], listed
        verified = machine.easysif(user, 'verify', '--prefix', prefix, check=False)
        assert verified.status == 0, verified.output
        applied = machine.easysif(user, 'site', 'apply', '--prefix', prefix, check=False, umask='077')
        assert applied.stdout == 'nothing to change\n', applied.output
        assert state(machine, prefix) == before
    machine.admin('echo "binds: [/mnt]" >shared/site.yaml')
    for prefix, user, status in ((team, 'stranger', 1), (team, 'member', 0), (central, 'stranger', 1)):
        applied = machine.easysif(user, 'site', 'apply', '--prefix', prefix, check=False, umask='077')
        assert applied.status == status, applied.output
        if status:
            assert 'cannot be written (Permission denied)' in applied.stderr
    machine.admin('echo "{}" >shared/site.yaml')
    machine.easysif('installer', 'site', 'apply', '--prefix', team, umask='077')
    assert_shared(machine, team)


def test_who_may_refresh_and_remove(machine, central):
    """Members also what others of them installed; for all others nothing changes."""
    before = state(machine, central)
    for command in ('refresh', 'remove'):
        result = machine.easysif('stranger', command, 'toy/1.0', '--prefix', central, check=False)
        assert result.status and 'error: toy/1.0: ' in result.stderr and 'hint: ' in result.stderr
        assert state(machine, central) == before

    prefix = make(machine, 'brief', 'team', '2775', TOY)
    machine.run('member', ['rm', prefix / 'software' / 'toy' / '1.0' / 'runscripts' / 'init-venv'])
    refreshed = machine.easysif('member', 'refresh', 'toy/1.0', '--prefix', prefix, umask='077')
    assert 'runscripts/init-venv' in refreshed.output
    assert_shared(machine, prefix)
    machine.easysif('member', 'remove', 'toy/1.0', '--prefix', prefix, umask='077')
    assert [path for path in machine.modes(prefix) if 'toy/1.0' in path] == []
    assert_shared(machine, prefix)


def test_an_administrator_who_loads_a_central_module_does_not_write_into_it(machine, central):
    """Neither root, nor who may write by an access control list, which also keeps the overlay of the installer."""
    before = state(machine, central)
    assert where(machine, 'root', central, env={'HOME': users.TOP / 'tmp'}) == str(
        users.TOP / 'tmp' / '.local' / 'share' / 'easysif' / 'overlays' / 'snake' / '1.0')
    assert state(machine, central) == before

    machine.python('root', LISTS, users.USERS['member'], central)
    machine.run('member', ['test', '-w', central / 'easysif' / 'prefix.json'])
    before = state(machine, central)
    assert where(machine, 'member', central).startswith(str(users.home('member')) + '/')
    assert state(machine, central) == before
    # what this one installs does not become a group's: it is the list that lets them write
    machine.eb('installer', central, '--rebuild', TOY)
    modes = machine.modes(central / 'software' / 'toy' / '1.0')
    assert {mode for mode, *_ in modes.values()} <= {'drwxr-xr-x', '-rw-r--r--', '-rwxr-xr-x', '-r--r--r--'}
    assert where(machine, 'installer', central) == str(central / 'overlays' / 'snake' / '1.0')


def test_at_the_end_nothing_can_be_written_by_all(machine, team, central, private):
    for prefix in (team, central, private, SHARED / 'second', SHARED / 'plain'):
        assert_nobody_else_writes(machine, prefix)
