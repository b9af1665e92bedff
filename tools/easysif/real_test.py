# SPDX-License-Identifier: GPL-2.0-only
"""Whether a test of a recipe does what the software is for, or only asks it what it is."""

import shlex

#: words that make a command say what it is instead of doing what it is for
_NO_TEST = {'--version', '-version', '-V', '-v', 'version', '--help', '-help', '-h', 'help'}


def does_work(command):
    """Tell whether a command of ``sanity_check_commands`` does more than name its version or its options (bool).

    :param command: a line for a shell (str); anything else does no work
    """
    if not isinstance(command, str):
        return False
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return True  # no business of this rule; the shell will tell
    steps, reading = [[]], True
    for word in words:
        if word in (';', '&', '&&', '||', '(', ')'):
            steps.append([])
            reading = True
        elif set(word) <= set('<>|&'):
            if reading and steps[-1][-1:] == ['2']:
                steps[-1].pop()  # of 2>&1
            reading = False  # what follows only looks at the answer
        elif reading and (steps[-1] or '=' not in word):
            steps[-1].append(word)
    return any(len(step) > 1 and not _NO_TEST.issuperset(step[1:]) and not {'--version', '--help'}.intersection(step)
               for step in steps)
