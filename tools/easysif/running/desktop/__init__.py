# SPDX-License-Identifier: GPL-2.0-only
"""Desktops of a module with a VNC server: ``start-vnc``, ``stop-vnc`` and ``vnc-info``.

A copy of this package and of what it imports lies in every installation of such a module, for users who have no
EasySIF; so it imports the standard library and its small neighbours only.
"""

__all__ = ('COMMANDS', 'EXAMPLES', 'MODULES')

#: what a recipe may name in ``runscripts``
COMMANDS = ('start-vnc', 'stop-vnc', 'vnc-info')

#: what the help of each ends with
EXAMPLES = {
    'start-vnc': [('a desktop for a large screen', 'start-vnc --geometry 1920x1080')],
    'stop-vnc': [('one of several', 'stop-vnc :2'), ('all of yours on this node', 'stop-vnc --all')],
    'vnc-info': [('how to reach it', 'vnc-info'),
                 ('to have programs of this shell seen there: eval "$(vnc-info --export)"', 'vnc-info --export')]}

#: the modules that an installation needs a copy of
MODULES = ('__init__', 'errors', 'files', 'holder', 'options', 'run', 'supervisor', 'text', 'running/__init__', *(
    'running/desktop/' + name for name in ('__init__', 'command', 'place', 'reach', 'server', 'terminals')))
