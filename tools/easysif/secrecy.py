# SPDX-License-Identifier: GPL-2.0-only
"""Logins in the caller's environment are kept out of what EasyBuild writes: its logs, and its reports, which it puts
into installations for everybody to read."""

import logging
import os
import re
from urllib.parse import unquote

#: names of variables that are a login, and of those that are addresses in which one may be
LOGINS = 'PASSW|PASSPHRASE|SECRET|TOKEN|CREDENTIAL'
NAMES = re.compile('%s|PROXY|INDEX|FIND_LINKS' % LOGINS, re.IGNORECASE)
#: in an address: a password; of the web also what stands there alone, which is a token
IN_ADDRESS = re.compile(r'(?:://[^\s/@:]*:|https?://(?=[^\s/@:]+@))([^\s/@]+)@')
HIDDEN = '***'
SHORTEST = 4  #: characters; to hide less would only make a log unreadable


def hide(logger, build_option, update_build_option):
    """Have EasyBuild hide what is a login in the environment, from now on.

    :param logger: its logger, whose handlers and whose parents' are told (logging.Logger)
    :param build_option: returns one of its options (callable: str)
    :param update_build_option: sets one (callable: str, value)
    """
    filtered = build_option('test_report_env_filter')
    update_build_option('test_report_env_filter', NAMES if filtered in (None, NAMES) else re.compile(
        '%s|(?i:%s)' % (filtered.pattern, NAMES.pattern)))
    hiding = Hiding(logins(os.environ))
    while logger:
        for handler in logger.handlers:
            handler.filters[:] = [*(one for one in handler.filters if not isinstance(one, Hiding)), hiding]
        logger = logger.parent


def logins(env):
    """Return what of an environment nobody may see, the longest first (list of str).

    :param env: the environment (dict)
    """
    found = {value for name, value in env.items() if re.search(LOGINS, name, re.IGNORECASE)}
    found.update(password for value in env.values() for password in IN_ADDRESS.findall(value))
    found |= set(map(unquote, found))
    return sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True)


class Hiding(logging.Filter):
    """Lets every record pass, without some texts.

    :param texts: what is hidden (list of str)
    """

    def __init__(self, texts):
        super().__init__()
        self.texts = texts

    def filter(self, record):
        """Hide them in a record; it is passed on (True)."""
        message = record.getMessage()
        if any(text in message for text in self.texts):
            for text in self.texts:
                message = message.replace(text, HIDDEN)
            record.msg, record.args = message, ()
        return True
