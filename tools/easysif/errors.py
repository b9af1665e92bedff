# SPDX-License-Identifier: GPL-2.0-only
"""The one exception of EasySIF, which shapes all messages: what is wrong, the facts, a hint to type.

This module imports nothing of ours, so that everything can import it.
"""

INPUT = 1  #: exit code for what the user gave: a recipe, a site file, a path
USAGE = 2  #: exit code for a command line that cannot be understood
TOOL = 3  #: exit code for a tool or a network that failed


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
        self.where, self.what, self.facts, self.hint = str(where), what, tuple(facts), hint
        self.exit_code = exit_code
        super().__init__(self.message())

    def message(self):
        """Return the text: ``where: what``, aligned facts, ``hint: …`` (str)."""
        lines = ['%s: %s' % (self.where, self.what)]
        width = max([len(label) for label, _ in self.facts], default=0)
        lines += ['  %-*s  %s' % (width, label, value) for label, value in self.facts]
        if self.hint:
            lines.append('hint: %s' % self.hint)
        return '\n'.join(lines)


class SeveralErrors(EasySIFError):
    """Several problems found at once, each printed whole.

    :param errors: the problems (list of EasySIFError, not empty)
    """

    def __init__(self, errors):
        self.errors = list(errors)
        Exception.__init__(self, '\nerror: '.join(str(err) for err in self.errors))
        self.exit_code = max(err.exit_code for err in self.errors)
