# SPDX-License-Identifier: GPL-2.0-only
"""Logins for registries, from where the runtime, docker and podman keep them; they are read, used and never shown."""

import base64
import binascii
import json
import os
import re
from dataclasses import dataclass, field

from easysif.errors import EasySIFError
from easysif.run import run

#: Docker Hub's login is kept under this name by every tool.
DOCKER_HUB_KEY = 'https://index.docker.io/v1/'
PREFIXES = ('APPTAINER_', 'SINGULARITY_')
TOKEN_USER = '<token>'  #: what a credential helper says for a user where it has an identity token
PATIENCE = 20  #: seconds that a credential helper gets, which may ask somebody for a password


@dataclass(frozen=True)
class Login:
    """User and password for one registry, or the identity token that its login server gave for them (str), '' for
    none; nothing of it is part of its repr."""

    user: str = field(repr=False)
    password: str = field(repr=False)
    token: str = field(default='', repr=False)

    def header(self):
        """Return the value of an Authorization header (str)."""
        return 'Basic %s' % base64.b64encode(('%s:%s' % (self.user, self.password)).encode()).decode()


def find(host, variables, env=None, repository=''):
    """Return the login for a registry, None where there is none (Login or None).

    :param host: HOST or HOST:PORT, ``docker.io`` for Docker Hub (str)
    :param variables: whether {APPTAINER,SINGULARITY}_DOCKER_{USERNAME,PASSWORD} are meant for this registry: they
        name none, so they must not be sent to a mirror (bool)
    :param env: environment to look into (dict), the process's where None
    :param repository: what is wanted of it, as podman may have a login for a part of a registry alone (str)
    """
    env = os.environ if env is None else env
    for prefix in PREFIXES if variables else ():
        user, password = env.get(prefix + 'DOCKER_USERNAME'), env.get(prefix + 'DOCKER_PASSWORD')
        if user and password:
            return Login(user, password)
    for path in files(env):
        try:
            with open(path, 'rb') as handle:
                known = read_json(handle.read())
        except OSError:
            continue
        logins, helpers = (known.get(key) if isinstance(known.get(key), dict) else {}
                           for key in ('auths', 'credHelpers'))
        for name in [*_parts(host, repository), *_names(host)]:
            login = _decode(logins.get(name)) or _ask(helpers.get(name), name)
            if login:
                return login
        login = _ask(known.get('credsStore'), DOCKER_HUB_KEY if host == 'docker.io' else host)
        if login:
            return login
    return None


def files(env):
    """Return the files that may hold logins, the runtime's own first (list of str)."""
    home = env.get('HOME') or os.path.expanduser('~')
    named = [env.get(name) for name in (*(prefix + 'AUTHFILE' for prefix in PREFIXES), 'REGISTRY_AUTH_FILE')]
    run_time, config = env.get('XDG_RUNTIME_DIR'), env.get('XDG_CONFIG_HOME') or os.path.join(home, '.config')
    return [
        *filter(None, named),
        os.path.join(env.get('APPTAINER_CONFIGDIR') or os.path.join(home, '.apptainer'), 'docker-config.json'),
        os.path.join(env.get('SINGULARITY_CONFIGDIR') or os.path.join(home, '.singularity'), 'docker-config.json'),
        os.path.join(env.get('DOCKER_CONFIG') or os.path.join(home, '.docker'), 'config.json'),
        *(os.path.join(place, 'containers', 'auth.json') for place in filter(None, (run_time, config))),
    ]


def read_json(data):
    """Return the JSON object in some bytes, an empty one where there is none (dict)."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _parts(host, repository):
    """Return the names under which podman keeps logins of parts of a registry, the smallest first (list of str)."""
    words = repository.split('/') if repository else []
    return ['/'.join([host, *words[:number]]) for number in range(len(words), 0, -1)]


def _names(host):
    """Return the names under which tools keep the login of a host (list of str)."""
    names = [host, 'https://' + host, 'http://' + host, 'https://%s/v1/' % host, 'https://%s/v2/' % host]
    return [DOCKER_HUB_KEY] + names if host == 'docker.io' else names


def _ask(helper, name):
    """Return the login that a credential helper of docker has under a name (Login or None).

    :param helper: which: ``pass`` stands for the command ``docker-credential-pass``; anything where there is none
    :param name: of the registry (str)
    """
    if not isinstance(helper, str) or not re.fullmatch(r'[\w.-]+', helper):
        return None
    try:
        told = run(['docker-credential-' + helper, 'get'], stdin=name, check=False, timeout=PATIENCE)
    except EasySIFError:  # it is not installed here
        return None
    entry = read_json(told.stdout) if told.status == 0 else {}
    user, password = entry.get('Username'), entry.get('Secret')
    if not (isinstance(user, str) and isinstance(password, str) and user):
        return None
    return Login('', '', password) if user == TOKEN_USER else Login(user, password)


def _decode(entry):
    if not isinstance(entry, dict):
        return None
    if entry.get('identitytoken'):  # docker keeps it beside a user without a password
        return Login('', '', str(entry['identitytoken']))
    if entry.get('username') and entry.get('password'):
        return Login(str(entry['username']), str(entry['password']))
    try:
        user, colon, password = base64.b64decode(entry.get('auth') or '', validate=True).decode().partition(':')
    except (binascii.Error, TypeError, ValueError):
        return None
    return Login(user, password) if colon else None
