# SPDX-License-Identifier: GPL-2.0-only
"""How pip of this host is told where packages are, and what of that lies on the host itself.

pip inside an image is told the same, and has to see those directories and files, under their own names.
"""

import configparser
import os
import re
from contextlib import suppress
from urllib.parse import unquote

#: by what an installer reaches a package index
NETWORK = re.compile(r'(all|ftp|https?|no)_proxy$|(ALL|FTP|HTTPS?|NO)_PROXY$|NETRC$|SSL_CERT_(FILE|DIR)$|'
                     r'(REQUESTS|CURL)_CA_BUNDLE$|PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|'
                     r'CLIENT_CERT|PROXY|TIMEOUT|DEFAULT_TIMEOUT|RETRIES|CONFIG_FILE|CACHE_DIR|KEYRING_PROVIDER)$')

#: where pip and what it calls look for settings beside the home directory
CONFIGURATION = ('/etc/pip.conf', '/etc/xdg/pip/pip.conf')

#: settings whose value is an index: directories of pages, which lead to files beside them
INDEXES = ('index-url', 'extra-index-url')

#: directories of the system, of which the image has its own
SYSTEM = ('bin', 'boot', 'dev', 'etc', 'lib', 'lib32', 'lib64', 'libx32', 'proc', 'run', 'sbin', 'sys', 'usr')

#: settings whose value may lie on this host alone
PLACES = (*INDEXES, 'find-links', 'config-file')

HINT = 'look at PIP_INDEX_URL, https_proxy and pip.conf: pip inside the image uses yours'


def variables():
    """Return by which variables pip of this host is told (dict of str)."""
    return {name: value for name, value in os.environ.items() if NETWORK.match(name)}


def users_configuration():
    """Return where pip looks for the user's own settings (list of str), what counts most last."""
    home = os.path.expanduser('~')
    return [home + '/.pip/pip.conf', os.environ.get('XDG_CONFIG_HOME', home + '/.config') + '/pip/pip.conf']


def settings(env, configuration):
    """Return what pip is told: pairs of an option, as ``index-url``, and its value (list of pairs of str).

    :param env: variables (dict of str)
    :param configuration: files of pip, which need not be there (list of str)
    """
    found = [(name[4:] if name.startswith('PIP_') else name, value) for name, value in env.items()]
    for path in configuration:
        parser = configparser.RawConfigParser(strict=False)
        with suppress(OSError, ValueError, configparser.Error):  # pip says what is wrong with it
            parser.read(path, encoding='utf-8')
        found += [pair for section in parser.sections() for pair in parser.items(section)]
    return [(name.lower().replace('_', '-'), value) for name, value in found]


def here(pairs, without=()):
    """Return what of it lies on this host: directories and files that are there (list of str), in order.

    Of an index that is a directory the one above it as well, as its pages lead to files there, unless that is of the
    system.

    :param pairs: options and their values (list of pairs of str)
    :param without: what is seen as it is, and is not to be seen as a part of these (sequence of str)
    """
    found = set()
    for name, value in pairs:
        there = paths(value)
        found.update(there)
        above = {os.path.dirname(path) for path in there if name in INDEXES}
        found.update(path for path in above if path.count('/') > 1 and path.split('/')[1] not in SYSTEM)
    return sorted(path for path in found if not re.search('[:,\n]', path)
                  and not any(_is_in(other, path) for other in without))


def _is_in(path, directory):
    return (os.path.realpath(path) + '/').startswith(os.path.realpath(directory) + '/')


def paths(text):
    """Return what a text names that is there on the host, by absolute paths; devices left out (list of str)."""
    found = re.findall(r'(?:^|[\s=\'"])(?:(file:)//(?:localhost)?)?(/[^\s\'"#]+)', text)
    found = [(unquote(path) if url else path).rstrip('/') for url, path in found]
    return [path for path in found if path and os.path.exists(path) and not path.startswith('/dev/')]
