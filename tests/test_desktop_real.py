# SPDX-License-Identifier: GPL-2.0-only
"""The desktop of the recipe vnc, built from Debian's packages, seen as a user sees it: through ssh, in a browser.

The built image is kept in the cache of the tests, as in test_recipes_cpu.py.
"""

import base64
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import harness
import standins
import toys
from browser import Browser

pytestmark = pytest.mark.e2e

MODULE = 'vnc/1.12.0-singularity'
BASE = 'docker://debian:bookworm-slim'
MAGENTA = (205, 0, 205)  #: what xterm shows for the fifth colour
GREEN = (0x8e, 0xc0, 0x7c)
PICTURES = os.environ.get('EASYSIF_TEST_PICTURES')  #: where the picture of the manual is put, if anywhere

SSHD = '''\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
StrictModes no
UsePAM no
PidFile none
'''
SSH = '''\
Host *
    HostName 127.0.0.1
    Port {port}
    IdentityFile {directory}/user
    UserKnownHostsFile {directory}/known
    StrictHostKeyChecking no
    ExitOnForwardFailure yes
    LogLevel ERROR
'''

#: the number of pixels of a colour on the screen that noVNC shows
COUNT = '''(() => {
    const canvas = document.querySelector('#noVNC_container canvas');
    if (!canvas) return 0;
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let found = 0;
    for (let at = 0; at < data.length; at += 4)
        if (data[at] == %d && data[at + 1] == %d && data[at + 2] == %d) found++;
    return found;
})()'''


@pytest.fixture(scope='module')
def desktop(tmp_path_factory, images, registry):
    """The module, installed by eb with its own test (``prefix``), and another one with a program for X, ``paint``."""
    directory = tmp_path_factory.mktemp('desktop')
    kept, cache = harness.CACHE / 'recipes' / MODULE.replace('/', '-'), directory / 'cache'
    if kept.is_dir():
        shutil.copytree(kept, cache)
    site = directory / 'site.yaml'
    site.write_text(yaml.safe_dump(dict(harness.site_settings(registry), cache_dir=str(cache),
                                        base_images={BASE: str(images.sif('bookworm'))})))
    prefix, recipe = directory / 'pre fix', '%s.eb' % MODULE.replace('/', '-')
    harness.run_eb([recipe, '--fetch'], prefix, directory / 'home', site)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(cache, kept)
    harness.run_eb([recipe], prefix, directory / 'home', site)
    root, record = toys.installation(prefix, MODULE)
    assert [test['result'] for test in record['tests']] == ['passed']
    paint = "xterm -T paint -geometry 50x20-20+60 -bg '#%02x%02x%02x' -e sleep 1000" % GREEN
    standins.install(root / record['image']['file'], 'paint', prefix, needs=['x11'], commands={'paint': paint})
    shutil.rmtree(cache)
    return prefix


@pytest.fixture(autouse=True)
def none_is_left(desktop, shell):
    """Whatever happens in a test, the next one finds no desktop."""
    yield
    shell('module load vnc; stop-vnc --all', prefix=desktop, check=False)


@pytest.fixture
def sshd(tmp_path):
    """A server for ssh, run by this user for this user; gives a function that makes a line for ssh use it."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    for name in ('host', 'user'):
        harness.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', tmp_path / name])
    (tmp_path / 'sshd').write_text(SSHD.format(port=port, directory=tmp_path))
    (tmp_path / 'ssh').write_text(SSH.format(port=port, directory=tmp_path))
    server = subprocess.Popen(['/usr/sbin/sshd', '-D', '-e', '-f', tmp_path / 'sshd'], stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    wait(lambda: answers(port))
    yield lambda line: ['ssh', '-F', str(tmp_path / 'ssh'), *line.split()[1:]]
    server.terminate()
    server.wait()


def answers(port):
    """Return whether something listens at a port of the loopback address (bool)."""
    with socket.socket() as trial:
        return trial.connect_ex(('127.0.0.1', port)) == 0


def wait(what, seconds=120):
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < end, 'never so'
        time.sleep(0.05)


def traces(mark):
    """Return what there is on this machine that desktops of this test could leave (set): processes that have a text in
    their environment, ports of these, mounts, sockets, files."""
    found = set()
    listening = {line.split()[9]: line.split()[1] for name in ('tcp', 'tcp6')
                 for line in Path('/proc/net', name).read_text().splitlines() if line.split()[3] == '0A'}
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            if mark.encode() not in Path('/proc', name, 'environ').read_bytes():
                continue
            found.add('process %s %s' % (name, Path('/proc', name, 'cmdline').read_bytes()))
            links = [os.readlink(path) for path in Path('/proc', name, 'fd').iterdir()]
            found |= {'port %s' % listening[link[8:-1]] for link in links if link[8:-1] in listening}
        except OSError:
            continue
    found |= {'mount ' + line for line in Path('/proc/self/mounts').read_text().splitlines()}
    found |= {'socket ' + line.split()[-1] for line in Path('/proc/net/unix').read_text().splitlines()
              if re.search(r'easysif-vnc-|X11-unix', line)}
    owned = [path for pattern in ('.X*-lock', '.X11-unix/X*', 'easysif-vnc-*') for path in Path('/tmp').glob(pattern)]
    return found | {'file %s' % path for path in owned if path.lstat().st_uid == os.getuid()}


def test_a_desktop_is_used_in_a_browser_through_ssh_and_by_the_program_of_another_module(
        desktop, shell, sshd, tmp_path):
    env = {'EASYSIF_TEST_MARK': str(tmp_path), 'SHELL': '/bin/bash', 'PS1': None}
    (tmp_path / 'home' / '.bashrc').write_text(harness.LMOD_INIT + '\nexport LMOD_PAGER=none PS1="you@node:~$ "\n')
    before = traces(str(tmp_path))

    def at_home(script, **more):
        return shell('module load vnc; ' + script, prefix=desktop, env=dict(env, **more)).stdout

    told = json.loads(at_home('start-vnc --geometry 1024x640 --json'))
    assert not {trace for trace in traces(str(tmp_path)) - before if trace.startswith('port')}  # nothing but sockets
    second = json.loads(at_home('start-vnc --another --json'))
    assert second['display'] != told['display'] and second['directory'] != told['directory']
    assert at_home('stop-vnc :%d' % second['display']) == 'ended: desktop :%d\n' % second['display']

    password = subprocess.run(sshd(told['read_password']), capture_output=True, text=True, check=True).stdout.strip()
    tunnel = subprocess.Popen(sshd(told['tunnel']), stdin=subprocess.DEVNULL)
    try:
        port = int(re.search(r':(\d+)/', told['address'])[1])
        wait(lambda: answers(port))
        with Browser(tmp_path / 'browser') as browser:
            browser.screen(1024, 640)
            use(browser, told, password, tmp_path, at_home)
            assert browser.strange() == []
    finally:
        tunnel.terminate()
        tunnel.wait()
    assert at_home('stop-vnc --json') == '{"stopped": [%d]}\n' % told['display']
    wait(lambda: not traces(str(tmp_path)) - before)


def use(browser, told, password, tmp_path, at_home):
    """Do what a user does who has typed the line for ssh."""
    def log_in(word):
        browser.wait('document.querySelector("#noVNC_credentials_dlg").classList.contains("noVNC_open")', 60)
        browser.evaluate('document.querySelector("#noVNC_password_input").value = %s' % json.dumps(word))
        browser.evaluate('document.querySelector("#noVNC_credentials_dlg [type=submit]").click()')

    browser.open(told['address'])
    log_in('wrong' if password != 'wrong' else 'other')
    browser.wait('/authentication failure|failed/i.test(document.querySelector("#noVNC_status").textContent)', 60)
    assert not browser.evaluate('document.documentElement.classList.contains("noVNC_connected")')
    browser.open(told['address'] + '&again')
    log_in(password)
    browser.wait('document.documentElement.classList.contains("noVNC_connected")', 60)
    browser.wait(COUNT % (0x3c, 0x5a, 0x78) + ' > 100000', 60)  # the background, of the window manager
    browser.wait(COUNT % (0x1d, 0x20, 0x21) + ' > 50000', 60)  # the terminal
    for kind in ('mousePressed', 'mouseReleased'):
        browser.call('Input.dispatchMouseEvent', type=kind, x=200, y=200, button='left', clickCount=1)
    # what is typed arrives in a shell of the host, which has modules
    keys(browser, 'cd; module load paint; echo $DISPLAY $(type -p paint) >typed; clear; module -t list; touch ready\n')
    home = tmp_path / 'home'
    wait((home / 'ready').exists)
    display, path = (home / 'typed').read_text().split(' ', 1)
    assert display == ':%d' % told['display'] and path.endswith('/software/paint/1/bin/paint\n')
    keys(browser, 'printf "\\033[45m\\033[5;1H\\033[2K"; echo "known text"\n')
    browser.wait(COUNT % MAGENTA + ' > 5000', 60)
    # and the program of another module is seen there, from any shell of the host
    at_home('eval "$(vnc-info --export)"; module load paint; nohup paint >/dev/null 2>&1 &')
    browser.wait(COUNT % GREEN + ' > 50000', 60)
    browser.evaluate('for (const id of ["control_bar", "status"]) '
                     'document.querySelector("#noVNC_" + id).classList.remove("noVNC_open")')
    browser.wait('document.querySelector("#noVNC_control_bar").getBoundingClientRect().right <= 0 && '
                 'document.querySelector("#noVNC_status").getBoundingClientRect().bottom <= 0', 60)
    picture = base64.b64decode(browser.call('Page.captureScreenshot', format='png')['data'])
    assert picture.startswith(b'\x89PNG') and len(picture) > 5000
    if PICTURES:
        Path(PICTURES, 'desktop.png').write_bytes(picture)


def keys(browser, text):
    """Type a text on the keyboard."""
    for letter in text:
        key = {'\n': 'Enter'}.get(letter, letter)
        browser.call('Input.dispatchKeyEvent', type='keyDown', key=key, text=letter.replace('\n', '\r'))
        browser.call('Input.dispatchKeyEvent', type='keyUp', key=key)


def test_a_desktop_of_a_job_ends_with_it(desktop, slurm, shell, sshd, tmp_path):
    before = traces(str(tmp_path))
    (tmp_path / 'job').write_text('#!/bin/bash\nmodule use "%s"\nmodule load vnc\nstart-vnc\nstart-vnc --json || '
                                  'vnc-info --json >told\nmv told info\nsleep 1000\n' % (desktop / 'modules' / 'all'))
    env = dict(slurm, EASYSIF_TEST_MARK=str(tmp_path))
    job = shell('sbatch --parsable --nodes=1 -w n2 -o log job', prefix=desktop, env=env, cwd=tmp_path).stdout.strip()
    wait((tmp_path / 'info').exists)
    told, = json.loads((tmp_path / 'info').read_text())
    assert (told['host'], told['job'], told['submit_host']) == ('n2', job, socket.gethostname())
    log, password = (tmp_path / 'log').read_text(), Path(told['password_file']).read_text().strip()
    me, login = getpass.getuser(), '%s@%s' % (getpass.getuser(), socket.gethostname())
    assert told['tunnel'].startswith('ssh -N -J %s -L ' % login) and told['tunnel'].endswith(' %s@n2' % me)
    assert told['tunnel'] in log and password not in log
    # the way from outside, by the login host
    assert subprocess.run(sshd(told['read_password']), capture_output=True, text=True,
                          check=True).stdout.strip() == password
    shell('scancel %s' % job, prefix=desktop, env=slurm)
    wait(lambda: not traces(str(tmp_path)) - before)


def test_a_killed_desktop_is_cleared_away_and_what_an_image_lacks_is_named(desktop, images, shell, tmp_path):
    before = traces(str(tmp_path))
    env = {'EASYSIF_TEST_MARK': str(tmp_path)}

    def at_home(script, **options):
        return shell('module load vnc; ' + script, prefix=desktop, env=env, **options)

    told = json.loads(at_home('start-vnc --json').stdout)
    os.kill(told['pid'], signal.SIGKILL)
    wait(lambda: not [trace for trace in traces(str(tmp_path)) if trace.startswith('process')])
    assert at_home('vnc-info --json').stdout == '[]\n'
    standins.install(images.sif('python'), 'bare', desktop, runscripts=['start-vnc'])
    refused = at_home('module unload vnc; module load bare; start-vnc', check=False)
    assert (refused.status, refused.stderr) == (3, (
        'error: start-vnc: the image lacks Xvnc, vncpasswd, x-window-manager, xterm, the Python package websockify, '
        '/usr/share/novnc/vnc.html\nhint: add it to the definition file of the image, and install the module anew\n'))
    wait(lambda: not traces(str(tmp_path)) - before)
