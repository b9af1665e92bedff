# SPDX-License-Identifier: GPL-2.0-only
"""Usage: imported by ranks.py

That a rank ends as it should, also where all around it is ended. Runs under every Python that images have, so it
uses old syntax only.
"""

import os
import shutil
import signal
import tempfile


def end_with_parent():
    """Have the kernel end this process when its parent is gone, where Python can ask for that."""
    try:
        import ctypes
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, EnvironmentError, AttributeError):
        pass


def rehearse():
    """Do once what is done at the end.

    A scheduler that ends a job ends the server of the image's file system as well, and then what was not yet read of
    this program can be read no more.
    """
    directory = None
    try:
        directory = tempfile.mkdtemp()
        open(os.path.join(directory, 'file'), 'w').close()
    except EnvironmentError:  # a full disk is no reason not to begin
        pass
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)
