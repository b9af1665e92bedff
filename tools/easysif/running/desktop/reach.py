# SPDX-License-Identifier: GPL-2.0-only
"""How a desktop is reached from the user's own machine: by ssh, which forwards ports there to its sockets here."""

import os
import pwd
import shlex

#: ports of the user's machine, to which the number of the display is added
WEB, VNC = 6080, 5900


def ways(desktop, user, login_host):
    """Return what a user types to reach a desktop, and the addresses that are then good (dict of str).

    :param desktop: what is known of it: ``display`` (int), ``host``, ``directory`` and ``submit_host`` (str, or None)
    :param user: name of the user here (str)
    :param login_host: the site's host that is reached from outside, '' where none is named (str)
    """
    host, directory = desktop['host'], desktop['directory']
    through = login_host or desktop['submit_host'] or ''
    jump = ['-J', '%s@%s' % (user, through)] if through and through != host else []
    target, web, vnc = '%s@%s' % (user, host), WEB + desktop['display'], VNC + desktop['display']
    forward = [word for port, name in ((web, 'web'), (vnc, 'vnc'))
               for word in ('-L', '%d:%s' % (port, os.path.join(directory, name)))]
    return {'tunnel': shlex.join(['ssh', '-N', *jump, *forward, target]),
            'address': 'http://localhost:%d/vnc.html?autoconnect=true&resize=scale' % web,
            'vnc_address': 'localhost:%d' % vnc,
            'read_password': shlex.join(['ssh', *jump, target, 'cat', os.path.join(directory, 'password')])}


def user_name():
    """Return the name of the user of this process (str)."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get('USER', str(os.getuid()))
