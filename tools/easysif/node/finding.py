# SPDX-License-Identifier: GPL-2.0-only
"""One thing that was found out about a node."""

from dataclasses import dataclass

from easysif.errors import escaped

OK, NOTE, PROBLEM = 'ok', 'note', 'problem'


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    :param state: OK; NOTE, what only some need, or what may surprise; PROBLEM, what makes something fail (str)
    :param topic: what was looked at, one word of the report (str)
    :param what: what was found (str); never the value of a variable that may hold a secret
    :param hint: what to type or to ask for (str or None)
    """

    state: str
    topic: str
    what: str
    hint: str = None


def lines(findings):
    """Return a report as people read it (list of str).

    :param findings: what was found (list of Finding)
    """
    width = max([len(one.topic) for one in findings], default=0)
    told = []
    for one in findings:
        told.append(escaped('%-7s  %-*s  %s' % (one.state, width, one.topic, one.what)))
        if one.hint:
            told.append(escaped('%s  hint: %s' % (' ' * (9 + width), one.hint)))
    return told
