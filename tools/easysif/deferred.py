# SPDX-License-Identifier: GPL-2.0-only
"""What stands of us in a module file: no more than a call of a file in the installation, which has the plan.

`module spider` compiles every module file of a site in Lua, and `module whatis` and its kin run those in Tcl; the plan
would be most of that (measured over 500 modules: 4 times as long in Lua, 20 times in Tcl).
"""

import shlex

from easysif import plan, render
from easysif.module import module_plan
from easysif.modulefile import is_lua

NAME = 'easysif/module.lua'  #: the file, below the installation
TCL_NAME = 'easysif/module.tcl'  #: and that for a module file in Tcl


def texts(inst):
    """Return those files: name -> text (dict); Lua 5.1 does not hand it what Lmod gives to module files.

    Both are there, so that the language of the module file can change without its installation.

    :param inst: what is installed (Installation)
    """
    lua, tcl = (render_as(module_plan(inst), inst.root, inst.prefix) for render_as in (render.lua, render.tcl))
    return {NAME: 'local lfs = lfs or require("lfs")\n%s' % lua, TCL_NAME: tcl}


def block(inst, path):
    """Return what stands in the module file (str).

    :param inst: what is installed (Installation)
    :param path: the module file (str), whose name tells its language
    """
    name = NAME if is_lua(path) else TCL_NAME
    again = 'easysif refresh %s --prefix %s' % (inst.module, shlex.quote(inst.prefix))
    lines = plan.message(inst.module, 'what the module does is gone',
                         (('file', plan.text('%s/%s' % (inst.root, name))),), plan.text(again))
    message = '\n'.join(''.join(line) for line in lines)
    return (_lua if is_lua(path) else _tcl)(inst, message)


def _lua(inst, message):
    return '\n'.join([
        'do -- An EasySIF module. What it does is in its installation, out of the way of module spider.',
        '    local root, prefix = %s, %s' % (render.lua_quote(inst.root), render.lua_quote(inst.prefix)),
        '    if mode() ~= "spider" then',
        '        local run = loadfile(root .. "/%s", "t", _ENV)' % NAME,
        '        if run then',
        '            run()',
        '        elseif mode() == "load" then',
        '            LmodError(%s)' % render.lua_quote(message),
        '        end',
        '    end',
        'end', ''])


def _tcl(inst, message):
    return '\n'.join([
        '# An EasySIF module. What it does is in its installation, and read only where it is to be done or shown.',
        'set root %s' % render.tcl_quote(inst.root),
        'if {[module-info mode] in {load unload remove display}} {',
        '    if {[file readable $root/%s]} {' % TCL_NAME,
        '        source $root/%s' % TCL_NAME,
        '    } elseif {[module-info mode] eq {load}} {',
        '        error %s {} MODULES_ERR_GLOBAL' % render.tcl_quote(message),
        '    }',
        '}', ''])
