# SPDX-License-Identifier: GPL-2.0-only
"""Kernels in real containers: by jupyter_client and in JupyterLab in a browser, and that nothing of them is left."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager
from jupyter_core.paths import jupyter_runtime_dir

import standins
from browser import Browser
from made_up import run_easysif

pytestmark = pytest.mark.e2e

PATIENCE = 300  #: seconds, where a condition is waited for

#: where tools/run-tests is told to put the picture of the manual
PICTURES = os.environ.get('EASYSIF_TEST_PICTURES')


@pytest.fixture(scope='module')
def installed(images, tmp_path_factory):
    """A module with ipykernel and a package in its overlay, of a prefix with a space and more in its name (Module)."""
    directory = tmp_path_factory.mktemp('kernels')
    module = standins.install(images.sif('venv'), 'tools', directory / 'pre fix ünï $x', **standins.RECIPES['venv'])
    module.run('pip', 'install', 'ipykernel', standins.package(directory, 'mypackage', '1.5'))
    return module


@pytest.fixture
def module(installed, tmp_path, monkeypatch):
    """The module, for a user with a home of their own in which Jupyter keeps its files (Module)."""
    home = tmp_path / 'ho me ünï'
    for name, value in installed.env(HOME=home, KERNEL_MARK=tmp_path).items():
        monkeypatch.setenv(name, value)
    home.mkdir()
    assert run_easysif('kernel', 'add', 'tools', '--prefix', str(installed.prefix), '--display-name', 'My tools',
                       '--env', 'MINE=$x "y"').status == 0
    return installed


def wait_until(condition, what):
    """Wait until a function returns something true, and return that."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, 'never true: %s' % what
        time.sleep(0.05)


def processes():
    """Return all processes: number -> parent and beginning (dict)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            words = Path('/proc', pid, 'stat').read_bytes().rpartition(b')')[2].split()
        except OSError:
            continue
        if words[0] != b'Z':
            found[int(pid)] = int(words[1]), words[19]
    return found


def tree(root):
    """Return a process and all that it started: number -> beginning (dict)."""
    every, found, reached = processes(), {}, {root}
    while reached:
        found.update({pid: every[pid][1] for pid in reached if pid in every})
        reached = {pid for pid, (parent, _) in every.items() if parent in reached}
    return found


def name_of(pid):
    """Return the name of a process (str), '' where it has ended."""
    try:
        return Path('/proc', str(pid), 'comm').read_text()
    except OSError:
        return ''


def wait_for_end(known):
    """Wait until none of some processes is there any more."""
    def left():
        return [pid for pid, (_, began) in processes().items() if known.get(pid) == began]
    end = time.monotonic() + PATIENCE
    while left():
        assert time.monotonic() < end, [Path('/proc/%d/status' % pid).read_text() for pid in left()]
        time.sleep(0.05)


class Session:
    """A kernel that runs: ``manager`` and ``client``.

    :param log: takes what it prints, as Jupyter's own log does (Path)
    """

    def __init__(self, log, **options):
        file = Path(jupyter_runtime_dir(), 'kernel-%s.json' % log.name)  # as a server does it
        file.parent.mkdir(parents=True, exist_ok=True)
        self.manager = KernelManager(kernel_name='tools-1', connection_file=str(file), **options)
        self.log = open(log, 'w')
        self.manager.start_kernel(stdout=self.log, stderr=self.log)
        self.client = self.manager.blocking_client()
        self.client.start_channels()

    @property
    def launcher(self):
        """The process that Jupyter started (int)."""
        return self.manager.provisioner.pid

    def ready(self):
        """Wait until it answers, and return all its processes (dict)."""
        self.client.wait_for_ready(timeout=PATIENCE)
        return tree(self.launcher)

    def run(self, code):
        """Run a cell and return what it printed, and how it failed (str, str)."""
        return self.result(self.client.execute(code))

    def result(self, cell, printed=''):
        """Return what a cell printed, and how it failed (str, str); with a text, return when that was printed."""
        text, failed = '', ''
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            content = message['content']
            if message['parent_header'].get('msg_id') != cell:
                continue
            text += content.get('text', '') if message['msg_type'] == 'stream' else ''
            failed = content['ename'] if message['msg_type'] == 'error' else failed
            if content.get('execution_state') == 'idle' or printed and printed in text:
                return text, failed

    def interrupt(self, code):
        """Run a cell that prints `here` and does not end, interrupt it, and return how it failed (str)."""
        cell = self.client.execute(code)
        assert self.result(cell, 'here\n') == ('here\n', '')
        self.manager.interrupt_kernel()
        return self.result(cell)[1]


@contextmanager
def session(log, **options):
    """A kernel for the block (Session)."""
    one = Session(log, **options)
    try:
        yield one
    finally:
        one.client.stop_channels()
        one.manager.shutdown_kernel(now=True)
        one.log.close()


def test_a_notebook_runs_is_interrupted_restarted_and_leaves_nothing(module, tmp_path):
    mounts = Path('/proc/self/mounts').read_text()
    with session(tmp_path / 'log') as one, session(tmp_path / 'other') as other:
        known = one.ready()
        assert one.run('import mypackage, os, sys; mine = 1\n'
                       'print(mypackage.__version__, os.environ["MINE"], sys.prefix, os.path.exists("/STAND-IN"))') == (
            '1.5 $x "y" /user-software/venv/tools True\n', '')

        key = one.manager.session.key
        assert len(key) > 20 and len(known) >= 3
        for pid in known:
            assert key not in Path('/proc/%d/cmdline' % pid).read_bytes() + Path('/proc/%d/environ' % pid).read_bytes()
        file = Path(one.manager.connection_file)
        assert file.stat().st_mode & 0o777 == 0o600 and key in file.read_bytes()
        assert [path for path in tmp_path.rglob('*') if path.is_file() and key in path.read_bytes()] == [file]

        assert one.interrupt('print("here", flush=True)\nwhile True: pass') == 'KeyboardInterrupt'
        assert one.interrupt('import subprocess\nprint("here", flush=True)\nsubprocess.run(["sleep", "1000"])'
                             ) == 'KeyboardInterrupt'
        assert one.run('print(mine)') == ('1\n', '')
        other_known = other.ready()
        assert other.run('print(mine)')[1] == 'NameError'  # two at once know nothing of each other

        one.run('subprocess.Popen(["sleep", "1000"], start_new_session=True)')
        known.update(tree(one.launcher))
        one.manager.restart_kernel()
        wait_for_end(known)
        known = one.ready()
        assert one.run('print(mine)')[1] == 'NameError'

        assert one.run('import subprocess; print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)')[0]
        known.update(tree(one.launcher))
        os.kill(one.launcher, signal.SIGKILL)
        wait_for_end(known)
        assert other.run('print(1)') == ('1\n', '')
        assert not (module.root / 'runscripts' / 'lib' / '__pycache__').exists()
        other.manager.shutdown_kernel()
        wait_for_end(other_known)
    with session(tmp_path / 'early') as early:  # killed while its container starts
        wait_until(lambda: 'squashfuse' in ' '.join(map(name_of, tree(early.launcher))), 'the image is served')
        known = tree(early.launcher)
        os.kill(early.launcher, signal.SIGKILL)
        wait_for_end(known)
    assert Path('/proc/self/mounts').read_text() == mounts
    assert 'error' not in (tmp_path / 'log').read_text().lower()


def test_a_kernel_is_as_the_overlay_is_when_it_starts(module, tmp_path, monkeypatch):
    short = Path(tempfile.mkdtemp(prefix='k', dir='/tmp'))  # a path of a socket has 107 letters at most
    try:
        (short / 'file').touch()
        module.run('make-squashfs')
        monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(short / 'run'))
        monkeypatch.setenv('APPTAINER_CONTAIN', '1')  # nothing of the host but what is bound
        with session(tmp_path / 'packed', transport='ipc') as one:
            known = one.ready()
            assert one.run('import mypackage, os; print(os.listdir("%s"))' % short) == ("['run']\n", '')
            os.killpg(one.launcher, signal.SIGKILL)
            wait_for_end(known)
        monkeypatch.delenv('APPTAINER_CONTAIN')
        module.run('unmake-squashfs')
        with session(tmp_path / 'unpacked') as one:
            known = one.ready()
            assert one.run('import mypackage\n%pip --version')[1] == ''
        wait_for_end(known)
        module.overlay.rename(module.overlay.with_name('aside'))
        try:
            with session(tmp_path / 'removed') as one:
                wait_until(lambda: one.manager.provisioner.process.poll() is not None, 'it has ended')
            assert 'error: tools/1: has no ipykernel, neither in the image nor in the overlay\n' \
                   'hint: module load tools/1 && pip install ipykernel\n' in (tmp_path / 'removed').read_text()
            told = run_easysif('kernel', 'add', 'tools', '--prefix', str(module.prefix))
            assert told.status == 1 and 'has no ipykernel, which runs the cells' in told.stderr
        finally:
            shutil.rmtree(module.overlay)
            module.overlay.with_name('aside').rename(module.overlay)
    finally:
        shutil.rmtree(short)


# --- JupyterLab ---------------------------------------------------------------------------------------------------

CELLS = ['import mypackage, sys\nmypackage.__version__, sys.prefix',
         'import time\nprint("begun")\nwhile True:\n    time.sleep(0.1)',
         'sum(range(10))']


@contextmanager
def jupyterlab(directory):
    """JupyterLab for the block: the address of a notebook in it, with all that lets one in (str)."""
    cells = [{'cell_type': 'code', 'source': text, 'metadata': {}, 'outputs': [], 'execution_count': None,
              'id': 'cell%d' % number} for number, text in enumerate(CELLS)]
    work, config, runtime = (directory / name for name in ('work', 'config', 'run time'))
    settings = config / 'lab' / 'user-settings' / '@jupyterlab' / 'apputils-extension'
    for path in (work, settings, runtime):
        path.mkdir(parents=True)
    (settings / 'notification.jupyterlab-settings').write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (work / 'notebook.ipynb').write_text(json.dumps({'cells': cells, 'nbformat': 4, 'nbformat_minor': 5, 'metadata': {
        'kernelspec': {'name': 'tools-1', 'display_name': 'My tools', 'language': 'python'}}}))
    env = dict(os.environ, JUPYTER_CONFIG_DIR=str(config), JUPYTER_RUNTIME_DIR=str(runtime))
    with open(directory / 'lab.log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--ServerApp.port=0',
                                   '--ServerApp.root_dir=%s' % work], env=env, cwd=work, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=log)
    try:
        found = wait_until(lambda: list(runtime.glob('jpserver-*.json')), 'JupyterLab has started')[0]
        told = wait_until(lambda: found.read_text().rstrip().endswith('}') and json.loads(found.read_text()), 'told')
        yield server, '%slab/tree/notebook.ipynb?token=%s' % (told['url'], told['token'])
    finally:
        server.terminate()
        server.wait()


def test_in_jupyterlab_a_notebook_runs_is_interrupted_and_restarted(module, tmp_path):
    def wait(script):
        browser.wait(script, PATIENCE)

    def run(cell):
        browser.click('.jp-CodeCell:nth-of-type(%d) .jp-InputPrompt' % cell)
        wait('!!document.querySelector(".jp-CodeCell:nth-of-type(%d).jp-mod-active")' % cell)
        browser.click('[data-command="notebook:run-cell-and-select-next"]')

    def shows(cell, text):
        return '[...document.querySelectorAll(".jp-CodeCell:nth-of-type(%d) .jp-OutputArea-output")].some(' \
            'one => one.innerText.includes(%s))' % (cell, json.dumps(text))

    # of a kernel that is there: before, Lab takes a click and does nothing
    is_idle = 'document.querySelector("#jp-main-statusbar").innerText.includes("My tools | Idle")'
    with jupyterlab(tmp_path) as (server, address), Browser(tmp_path / 'profile') as browser:
        browser.screen(900, 560)
        browser.open(address)
        wait('document.querySelectorAll(".jp-CodeCell").length == 3')
        wait('document.querySelector("#jupyterlab-splash") === null')  # lies over all, and takes all clicks
        wait(is_idle)
        run(1)
        wait(shows(1, "('1.5', '/user-software/venv/tools')"))
        run(2)
        wait(shows(2, 'begun'))
        browser.click('[data-command="notebook:interrupt-kernel"]')
        wait(shows(2, 'KeyboardInterrupt'))
        wait(is_idle)
        browser.call('Input.dispatchMouseEvent', type='mouseMoved', x=450, y=555)  # no tooltip in the picture
        picture = browser.call('Page.captureScreenshot', format='png')['data']
        known = tree(server.pid)
        browser.click('[data-command="notebook:restart-kernel"]')
        browser.click('.jp-Dialog .jp-mod-accept')
        wait('document.querySelector(".jp-Dialog") === null')
        wait(is_idle)
        run(3)
        wait(shows(3, '45'))
        wait('document.querySelector(".jp-CodeCell:nth-of-type(3) .jp-InputPrompt").innerText == "[1]:"')  # is new
        known.update(tree(server.pid))
        assert browser.strange() == []
    wait_for_end(known)
    if PICTURES:
        Path(PICTURES, 'jupyterlab.png').write_bytes(base64.b64decode(picture))
