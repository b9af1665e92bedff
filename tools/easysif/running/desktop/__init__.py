# SPDX-License-Identifier: GPL-2.0-only
"""Desktops of a module with a VNC server: ``start-vnc``, ``stop-vnc`` and ``vnc-info``.

A copy of this package and of what it imports lies in every installation of such a module, for users who have no
EasySIF; so it imports the standard library and its small neighbours only.
"""

__all__ = ('COMMANDS', 'MODULES')

#: what a recipe may name in ``runscripts``
COMMANDS = ('start-vnc', 'stop-vnc', 'vnc-info')

#: the modules that an installation needs a copy of
MODULES = ('__init__', 'errors', 'files', 'holder', 'run', 'supervisor', 'text', 'running/__init__', *(
    'running/desktop/' + name for name in ('__init__', 'command', 'place', 'reach', 'server', 'terminals')))
