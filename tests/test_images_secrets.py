# SPDX-License-Identifier: GPL-2.0-only
"""Logins are sent where they belong and written nowhere, whatever an image is and whatever becomes of it."""

import base64
import json
import os
import re
import subprocess
import threading
import time
from types import SimpleNamespace

import pytest
import yaml

import harness
import toys
from helpers_registry import PASSWORD, USER, LoopbackRegistry, answers_of_sif, call, stub, tiny_layout
from test_images_fetch import served
from test_images_install import DEFINITION

pytestmark = pytest.mark.e2e

#: planted, each in the place of one login
WEB, PROXY, VARIABLE = 'hunter2-web', 'hunter2-proxy', 'hunter2-variable'
IDENTITY, BEARER = 'hunter2-identity', 'hunter2-bearer'  # the first of docker's file, the second what is given for it
BASIC = 'Basic ' + base64.b64encode(('me:%s' % WEB).encode()).decode()
THROUGH = 'Basic ' + base64.b64encode(('me:%s' % PROXY).encode()).decode()


def forms(secret, user):
    """Return what of a login nobody may see: the password, and both as they are sent (list of bytes)."""
    return [secret.encode(), base64.b64encode(('%s:%s' % (user, secret)).encode()).rstrip(b'=')[:-1]]


SECRETS = [form for secret, user in ((WEB, 'me'), (PROXY, 'me'), (VARIABLE, 'me'), (PASSWORD, USER))
           for form in forms(secret, user)] + [IDENTITY.encode(), BEARER.encode()]


class Watch:
    """What the process list shows to everybody, as long as the with block lasts: ``shown`` (set of bytes)."""

    def __enter__(self):
        self.shown, self._done = set(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _look(self):
        while not self._done.is_set():
            for pid in filter(str.isdigit, os.listdir('/proc')):
                try:
                    with open('/proc/%s/cmdline' % pid, 'rb') as handle:
                        self.shown.add(handle.read())
                except OSError:  # it is gone
                    pass
            time.sleep(0.02)


@pytest.fixture(scope='module')
def world(tmp_path_factory, toy):
    """Images behind logins of all kinds, and what one eb wrote, printed and showed of them."""
    directory = tmp_path_factory.mktemp('secrets')
    layout, data, home = tiny_layout(directory, str(toys.make_root(directory))), toy.read_bytes(), directory / 'home'
    call('skopeo', 'copy', '-q', 'oci:' + layout, 'docker-archive:%s' % (directory / 'a.tar'))

    def guarded(header, value, status):
        def answer(handler):
            good = served(data, ETag='"one"')(handler)
            return good if handler.headers.get(header) == value else (status, {}, b'')
        return answer

    def token(handler):
        good = handler.command == 'POST' and 'refresh_token=' + IDENTITY in handler.form.split('&')
        return (200, {}, json.dumps({'access_token': BEARER}).encode()) if good else (400, {}, b'')

    answers = {'/token': token, '/toy.sif': guarded('Authorization', BASIC, 401),
               'http://far.invalid/toy.sif': guarded('Proxy-Authorization', THROUGH, 407)}
    with stub(answers) as server, LoopbackRegistry(directory / 'registry', login=True) as private:
        env = harness.user_environment(home)
        private.push(layout, 'x/toy:1')
        (home / '.docker').mkdir()
        auth = base64.b64encode(('%s:%s' % (USER, PASSWORD)).encode()).decode()
        (home / '.docker' / 'config.json').write_text(json.dumps({'auths': {
            private.host: {'auth': auth}, server.host: {'auth': '', 'identitytoken': IDENTITY}}}))
        challenge = {'WWW-Authenticate': 'Bearer realm="http://%s/token",service="x"' % server.host}
        for path, answer in answers_of_sif(data, 'x/sif:1').items():
            answers[path] = (lambda good: lambda handler: good if handler.headers.get(
                'Authorization') == 'Bearer ' + BEARER else (401, challenge, b''))(answer)
        call('apptainer', 'push', '--no-https', str(toy), 'oras://%s/x/sif:1' % private.host, env=env)
        (home / '.netrc').write_text('machine localhost login me password %s\n' % WEB)
        (home / '.netrc').chmod(0o600)
        (directory / 'site.yaml').write_text(yaml.safe_dump({'registry_mirrors': {
            'up.invalid': [private.url], 'web.invalid': ['http://' + server.host],
            'token.invalid': ['http://' + server.host]}}))
        (directory / 'base.def').write_text('Bootstrap: docker\nFrom: up.invalid/x/toy:1\n%post\n  env >/seen\n')
        (directory / 'sif.def').write_text('Bootstrap: oras\nFrom: up.invalid/x/sif:1\n')
        (directory / 'fails.def').write_text('Bootstrap: docker\nFrom: up.invalid/x/toy:1\n%post\n  false\n')
        (directory / 'file.def').write_text(DEFINITION % 'toy.sif')
        images = {'web': 'https://web.invalid/toy.sif', 'proxied': 'http://far.invalid/toy.sif',
                  'oras': 'oras://up.invalid/x/sif:1', 'docker': 'docker://up.invalid/x/toy:1',
                  'identity': 'oras://token.invalid/x/sif:1',
                  'archive': 'docker-archive:a.tar', 'base': 'base.def', 'sif': 'sif.def',
                  'fails': 'fails.def', 'gone': 'docker://up.invalid/x/gone:1', 'lost': 'https://web.invalid/lost.sif',
                  'wrong': 'https://web.invalid/toy.sif'}
        recipes = [toys.recipe(directory, name, image=image, commands=['cat'],
                               **({'digest': 'sha256:' + '0' * 64} if name == 'wrong' else {}))
                   for name, image in images.items()]
        (directory / 'tmp').mkdir()
        more = {'TMPDIR': str(directory / 'tmp'), 'http_proxy': 'http://me:%s@%s' % (PROXY, server.host),
                'no_proxy': 'localhost,127.0.0.1', 'APPTAINER_DOCKER_USERNAME': 'me',
                'APPTAINER_DOCKER_PASSWORD': VARIABLE}
        with Watch() as watch:
            result = harness.run_eb([*recipes, '--debug', '--sourcepath=%s:%s' % (directory / 'sources', toy.parent),
                                     '--dump-test-report=%s' % (directory / 'report')], directory / 'prefix', home,
                                    directory / 'site.yaml', env=more, check=False)
    outcome = dict(re.findall(r'\* \[(SUCCESS|FAILED) *\] +(\w+)/1\.0', result.output))
    return SimpleNamespace(directory=directory, output=result.output, shown=watch.shown, outcome={
        name: word for word, name in re.findall(r'\* \[(SUCCESS|FAILED) *\] +(\w+)/1\.0', result.output)} or outcome)


def test_each_login_was_needed_and_used(world):
    assert world.outcome == {**dict.fromkeys(['web', 'proxied', 'oras', 'docker', 'identity', 'archive', 'base',
                                             'sif'], 'SUCCESS'),
                             **dict.fromkeys(['fails', 'gone', 'lost', 'wrong'], 'FAILED')}, world.output


def test_no_login_is_in_any_file_that_was_written(world):
    own = {world.directory / 'home' / name for name in ('.netrc', '.docker/config.json')}
    found = {str(path.relative_to(world.directory)) for path in world.directory.rglob('*')
             if path.is_file() and not path.is_symlink() and path not in own
             and any(secret in path.read_bytes() for secret in SECRETS)}
    assert {path for path in found if not path.startswith('tmp/eb-')} == set() and all(path.is_file() for path in own)
    # EasyBuild notes its environment for each command, and in --debug before it asks us; both are for the user alone,
    # and both go when an eb succeeds
    assert {re.sub('.*/', '', path) for path in found} <= {'env.sh', *(
        path.name for path in world.directory.glob('tmp/eb-*/easybuild-????????.log'))}
    assert {os.stat(path).st_mode & 0o777 for path in world.directory.glob('tmp/eb-*')} == {0o700}


def test_no_login_is_in_what_was_printed_or_in_the_process_list(world):
    for text in (world.output.encode(), *world.shown):
        assert not [secret for secret in SECRETS if secret in text]
    assert any(b'apptainer' in text for text in world.shown)


def test_other_users_see_nothing_but_the_process_list():
    """What is in the environment of a process is for its user alone."""
    process = subprocess.Popen(['sleep', '10'], env={'SECRET': VARIABLE})
    try:
        assert os.stat('/proc/%d/environ' % process.pid).st_mode & 0o777 == 0o400
    finally:
        process.kill()
        process.wait()
