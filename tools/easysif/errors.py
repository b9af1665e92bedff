# SPDX-License-Identifier: GPL-2.0-only
"""The one exception of EasySIF, which shapes all messages: what is wrong, the facts, a hint to type.

This module imports nothing of ours, so that everything can import it.
"""

import os
import re
import shlex

INPUT = 1  #: exit code for what the user gave: a recipe, a site file, a path
USAGE = 2  #: exit code for a command line that cannot be understood
TOOL = 3  #: exit code for a tool or a network that failed

LONGEST = 2000  #: characters of one part of a message; more nobody reads
MOST = 1000     #: problems that are printed at once

#: what a terminal obeys instead of showing it: control characters, and those that turn the direction of writing
_OBEYED = re.compile('[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')

#: a password with blanks in an address that is the whole of a text, or all between two quotes: elsewhere it cannot be
#: told from a sentence. Neither a port nor what has another address in it is one.
_BLANKS = re.compile(r"""(?:^|(?<=['"]))(\w[\w+.-]*://[^\s/:@'"]+:)(?![0-9]{1,5}[/\s])(?=[^'"\n]*[ \t])"""
                     r"""(?:(?!://)[^'"\n])*(?=@[^\s/@'"]+/[^\s@'"]*(?:@sha256:\w*)?(?:$|['"]))""")
#: kinds of image references, whose paths have no @ but before a digest
_REFERENCES = ('docker', 'oras', 'library')


def escaped(text):
    """Return a text as it can be printed: on one line, with ``\\x1b`` for what a terminal would obey (str)."""
    return _OBEYED.sub(lambda match: ascii(match.group())[1:-1], str(text))


def masked(text):
    """Return a text without the passwords in its addresses: ``docker://anna:***@host/x`` (str).

    What stands alone before a host is one as well: a token.
    """
    text = str(text)
    return text if '@' not in text else ''.join(map(_masked, re.split(r'(\s+)', _BLANKS.sub(r'\1***', text))))


def _masked(word):
    first, *addresses = word.split('://')
    if not addresses:  # what was meant for an address
        return re.sub(r'^(?!\W*\w+-archive:)([^/@:]+):[^/@]+(?=@(?!sha256:)[^/@]+/)', r'\1:***', word)
    for number, (before, address) in enumerate(zip([first, *addresses], addresses)):
        end = address.rfind('@')
        while address.startswith('sha256:', end + 1) and end >= 0:
            end = address.rfind('@', 0, end)
        user, colon, _ = address[:max(end, 0)].partition(':')
        is_port = re.match('[0-9]{1,5}/', address[len(user) + 1:]) and not (
            before.endswith(_REFERENCES) and '/' in address[end:])
        if colon and '/' not in user and not is_port:
            addresses[number] = '%s:***%s' % (user, address[end:])
        elif end > 0 and not colon and '/' not in user and (before.endswith(('http', 'https')) or '/' in address[end:]):
            addresses[number] = '***' + address[end:]
    return '://'.join([first, *addresses])


def shortened(text, longest=LONGEST):
    """Return a text without the middle of it where it is longer than some number of characters (str)."""
    text = str(text)
    if len(text) <= longest:
        return text
    end = longest // 4
    return '%s … (%d characters) … %s' % (text[:longest - end], len(text), text[-end:])


class EasySIFError(Exception):
    """What went wrong, in the form of every message of EasySIF.

    ``str()`` of it is the whole message without the leading ``error: ``, which the command line adds;
    the easyblocks hand the same text to EasyBuild.

    :param where: the file, command or module concerned (str)
    :param what: what is wrong, without a full stop (str)
    :param facts: pairs of label and value, shown aligned (sequence of (str, object))
    :param hint: something to type or to edit (str or None)
    :param exit_code: INPUT, USAGE or TOOL (int)
    """

    def __init__(self, where, what, facts=(), hint=None, exit_code=INPUT):
        # what a recipe or a site file says is quoted, and must not show a password to whoever reads the log
        self.where, self.what, self.hint = masked(where), masked(what), hint and masked(hint)
        self.facts = tuple((label, masked(value) if isinstance(value, str) else value) for label, value in facts)
        self.exit_code = exit_code
        super().__init__(self.message())

    def message(self):
        """Return the text: ``where: what``, aligned facts, ``hint: …`` (str).

        What it quotes may be of any length and hold anything; further lines of a fact are indented.
        """
        where, what, hint = (escaped(shortened(part or '')) for part in (self.where, self.what, self.hint))
        lines = ['%s: %s' % (where or "''", what)]  # the word that an unset variable leaves on a command line
        width = max([len(label) for label, _ in self.facts], default=0)
        for label, value in self.facts:
            first, *others = [escaped(line) for line in shortened(value).split('\n')]
            lines += ['  %-*s  %s' % (width, label, first)] + [' ' * (width + 4) + line for line in others]
        if self.hint:
            lines.append('hint: %s' % hint)
        return '\n'.join(lines)


class SeveralErrors(EasySIFError):
    """Several problems found at once, each printed whole, unless there are more than anybody reads.

    :param errors: the problems (list of EasySIFError, not empty)
    """

    def __init__(self, errors):
        self.errors = list(errors)
        left = len(self.errors) - MOST
        more = ['and %d more' % left] if left > 0 else []
        Exception.__init__(self, '\nerror: '.join([str(err) for err in self.errors[:MOST]] + more))
        self.exit_code = max(err.exit_code for err in self.errors)


def told(err, where):
    """Return an error of the system in our form, and ours as it is (EasySIFError).

    :param err: what was raised (EasySIFError or OSError)
    :param where: the file, command or module concerned (str)
    """
    if isinstance(err, EasySIFError):
        return err
    path = err.filename or 'the disk'
    return EasySIFError(where, '%s (%s)' % (path, err.strerror or err), exit_code=TOOL,
                        hint='df -h; ls -ld %s' % shlex.quote(os.fsdecode(path)) if err.filename else 'df -h')
