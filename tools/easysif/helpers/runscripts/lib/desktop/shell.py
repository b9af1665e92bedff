# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python -I -S shell.py TERMINAL COMMAND ARG...

On the host: becomes what runs in a terminal of the desktop, with that as its controlling terminal.
"""

import os
import signal
import sys
import termios

for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
    signal.signal(number, signal.SIG_DFL)
terminal = os.open(sys.argv[1], os.O_RDWR)  # of this session, which has none so far
settings = termios.tcgetattr(terminal)
window = os.read(terminal, 64)  # the first line is xterm's: the number of its window
settings[3] |= termios.ECHO
termios.tcsetattr(terminal, termios.TCSANOW, settings)
os.environ['WINDOWID'] = str(int(window.strip() or b'0', 16))
for number in range(3):
    os.dup2(terminal, number)
if terminal > 2:
    os.close(terminal)
os.execvp(sys.argv[2], sys.argv[2:])
