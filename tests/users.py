# SPDX-License-Identifier: GPL-2.0-only
"""A machine with users of its own: an installer, another member of the group ``team``, a stranger, an administrator.

It is a user namespace of whoever runs the tests, with the numbers of users that ``/etc/subuid`` lends them: the
permissions are the kernel's own. Its files lie in memory and are gone with it.
"""

import os
import shutil
import subprocess
from pathlib import Path

import harness

#: where the machine's own files are mounted, inside of it
TOP = Path('/mnt')
CLONE = TOP / 'clone'
USERS = {'installer': 3001, 'member': 3002, 'stranger': 3003}
TEAM = 4000

# What ends its standard input ends it, with all that runs in it.
BOOT = r'''
set -e
mount -t tmpfs -o mode=755 tmpfs "$0"
cd "$0"
mkdir etc home clone shared
mkdir -m 1777 tmp
cp -r "$1/easybuild" "$1/easyblocks" "$1/easyconfigs" "$1/tools" clone
chmod -R u=rwX,go=rX clone
printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'nobody:x:65534:65534::/:/bin/false' >etc/passwd
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' "team:x:$2:installer,member" >etc/group
for user in $3; do
    number=${user#*:} user=${user%:*}
    echo "$user:x:$number:$number::$0/home/$user:/bin/sh" >>etc/passwd
    echo "$user:x:$number:" >>etc/group
    mkdir home/$user
    chown $number:$number home/$user
done
mount --bind etc/passwd /etc/passwd
mount --bind etc/group /etc/group
echo ready
exec cat >&2
'''

#: as what runs in the machine; the first argument is the umask
RUN = 'umask "$0"; cd; exec "$@"'


class Machine:
    """The machine, as long as the with block lasts.

    :raises AssertionError: this machine cannot lend users; the message says what is missing
    """

    def __enter__(self):
        for tool, package in (('newuidmap', 'uidmap'), ('unshare', 'util-linux'), ('setpriv', 'util-linux')):
            if not shutil.which(tool):
                raise AssertionError('tests with several users need %s: ask for the package %s' % (tool, package))
        users = ' '.join('%s:%d' % pair for pair in USERS.items())
        self.process = subprocess.Popen(
            ['unshare', '--user', '--map-root-user', '--map-users=auto', '--map-groups=auto', '--mount', '--pid',
             '--fork', '--kill-child', '--mount-proc', 'sh', '-c', BOOT, TOP, harness.CLONE, str(TEAM), users],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != 'ready\n':
            said = self.process.communicate()[1]
            raise AssertionError(
                'tests with several users need user namespaces, unshare of util-linux 2.38 and, in /etc/subuid and '
                '/etc/subgid, 65536 numbers for %s (usermod --add-subuids 200000-265535 --add-subgids 200000-265535): '
                '%s' % (os.environ.get('USER', os.getuid()), said))
        number = self.process.pid
        self.inside = Path('/proc/%d/task/%d/children' % (number, number)).read_text().split()[0]
        self.run('stranger', [harness.CACHE / 'python' / 'bin' / 'python', '--version'])  # EASYSIF_TEST_CACHE is open
        return self

    def __exit__(self, *exc_info):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.process.stderr.close()

    def run(self, user, argv, env=None, umask='022', group=None, **options):
        """Run a command as a user, ``root`` for the administrator, in their home; return its harness.Result.

        :param group: number of the primary group (int), the user's own where None
        """
        number = USERS.get(user, 0)
        environment = dict(harness.user_environment(TOP), HOME=str(home(user)), USER=user, LOGNAME=user,
                           TMPDIR=str(TOP / 'tmp'))
        environment.update(env or {})
        start = ['nsenter', '--target', self.inside, '--user', '--mount', '--pid', '--', 'setpriv', '--reuid', number,
                 '--regid', group or number, '--init-groups']
        if number:
            start += ['--bounding-set=-all', '--inh-caps=-all']
        environment = {name: str(value) for name, value in environment.items()}
        return harness.run([*start, '--', 'sh', '-c', RUN, umask, *argv], env=environment, **options)

    def admin(self, script, *arguments, **options):
        """Run a script of sh as the administrator; return what it prints (str)."""
        return self.run('root', ['sh', '-euc', script, 'sh', *arguments], **options).stdout

    def eb(self, user, prefix, *arguments, env=None, **options):
        """Run the real eb."""
        return self.run(user, ['eb', *arguments], env=dict(self._tools(prefix), **(env or {})), **options)

    def easysif(self, user, *arguments, env=None, **options):
        """Run the command easysif."""
        return self.run(user, ['easysif', *arguments], env=dict(self._tools(TOP / 'none'), **(env or {})), **options)

    def python(self, user, code, *arguments, **options):
        """Run Python code that may import the library."""
        python = harness.CACHE / 'python' / 'bin' / 'python'
        return self.run(user, [python, '-c', code, *arguments], env=self._tools(TOP / 'none'), **options)

    def shell(self, user, prefix, script, **options):
        """Run a script in a fresh bash with Lmod, which finds the modules below a prefix."""
        start = '. %s/init/bash; module use "$1"; shift; set -e\n' % harness.LMOD
        return self.run(user, ['bash', '--noprofile', '--norc', '-c', start + script, 'bash',
                               Path(prefix) / 'modules' / 'all'], **options)

    def modes(self, directory):
        """Return what is below a directory: path -> mode as ls shows it, owner, group (dict), links left out."""
        lines = self.admin('find "$1" ! -type l -printf "%P\\t%M\\t%u\\t%g\\n"', directory).splitlines()
        return {line.split('\t')[0]: tuple(line.split('\t')[1:]) for line in lines}

    def _tools(self, prefix):
        env = harness.eb_environment(prefix, TOP)
        env = {name: value.replace(str(harness.CLONE), str(CLONE)) for name, value in env.items()
               if name in ('PYTHONPATH', 'PATH', 'LMOD_CMD', 'EB_PYTHON', 'PYTHONDONTWRITEBYTECODE')
               or name.startswith('EASYBUILD_')}
        return dict(env, EASYSIF_SITE=str(TOP / 'shared' / 'site.yaml'))


def home(user):
    """Return the home directory of a user (Path)."""
    return TOP / 'home' / user if user in USERS else TOP
