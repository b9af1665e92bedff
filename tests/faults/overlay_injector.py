# SPDX-License-Identifier: GPL-2.0-only
"""Usage: python overlay_injector.py -I -B DIRECTORY ARGUMENT...

Stands for the Python that runs make-squashfs and unmake-squashfs. It counts the calls that change files, and kills
itself before that of number CALL; 0 is none of them. RECORD names a file for the list of all.
"""

import os
import runpy
import shutil  # noqa: F401 # it looks up which calls there are, so it comes before they are counted
import signal
import sys
import threading

CALLS = ('rename', 'replace', 'unlink', 'remove', 'symlink', 'link', 'rmdir', 'mkdir', 'fsync', 'chmod', 'utime')

seen = []


def counted(name, real):
    """Return a call that is counted."""
    def call(*args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            seen.append('%s %s' % (name, args[0]))
            if os.environ.get('RECORD'):
                with open(os.environ['RECORD'], 'a', encoding='utf-8') as handle:
                    handle.write(seen[-1] + '\n')
            if len(seen) == int(os.environ['CALL']):
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call


if '-c' in sys.argv:  # the wrapper asks for the version
    exec(sys.argv[sys.argv.index('-c') + 1])
else:
    for name in CALLS:
        setattr(os, name, counted(name, getattr(os, name)))
    arguments = sys.argv[1:]
    while arguments[0].startswith('-'):
        arguments.pop(0)
    sys.argv[:] = arguments
    runpy.run_path(arguments[0], run_name='__main__')
