# SPDX-License-Identifier: GPL-2.0-only
"""The overlay of a module on the host: packed into one squashfs file, unpacked again, kept, checked, removed.

Whatever happens, what a user made is in the directory or in a squashfs file that is whole: each result is written
beside its place, verified, synced and renamed. A copy of this package and of what it imports lies in every
installation, for users who have no EasySIF; so it imports the standard library and its small neighbours only.
"""

from easysif.overlay.recorded import record, update_record

__all__ = ('MODULES', 'record', 'update_record')

#: the modules that an installation needs a copy of
MODULES = ('__init__', 'errors', 'files', 'holder', 'lock', 'options', 'resources', 'run', 'squashfs', 'supervisor',
           'terminal', 'text', *('overlay/' + name for name in (
               '__init__', 'bytecode', 'command', 'content', 'environment', 'generations', 'pack', 'place', 'progress',
               'recorded', 'tools', 'unpack', 'usage')))
