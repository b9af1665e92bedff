# SPDX-License-Identifier: GPL-2.0-only
"""What stands of us in a module file: in Lua no more than a call of a file in the installation, which has the plan.

`module spider` compiles every module file of a site, and the plan would be most of that (measured: 4 times as long over
500 modules). Module files in Tcl are run by a process each, so that their length does not count.
"""

import shlex

from easysif import plan, render
from easysif.module import module_plan
from easysif.modulefile import is_lua

NAME = 'easysif/module.lua'  #: the file, below the installation


def text(inst):
    """Return that file (str); Lua 5.1 does not hand it what Lmod gives to module files.

    :param inst: what is installed (Installation)
    """
    return 'local lfs = lfs or require("lfs")\n%s' % render.lua(module_plan(inst), inst.root, inst.prefix)


def block(inst, path):
    """Return what stands in the module file (str).

    :param inst: what is installed (Installation)
    :param path: the module file (str), whose name tells its language
    """
    if not is_lua(path):
        return render.module(module_plan(inst), inst.root, inst.prefix, path)
    again = 'easysif refresh %s --prefix %s' % (inst.module, shlex.quote(inst.prefix))
    lines = plan.message(inst.module, 'what the module does is gone',
                         (('file', plan.text('%s/%s' % (inst.root, NAME))),), plan.text(again))
    return '\n'.join([
        'do -- An EasySIF module. What it does is in its installation, out of the way of module spider.',
        '    local root, prefix = %s, %s' % (render.lua_quote(inst.root), render.lua_quote(inst.prefix)),
        '    if mode() ~= "spider" then',
        '        local run = loadfile(root .. "/%s", "t", _ENV)' % NAME,
        '        if run then',
        '            run()',
        '        elseif mode() == "load" then',
        '            LmodError(%s)' % render.lua_quote('\n'.join(''.join(line) for line in lines)),
        '        end',
        '    end',
        'end', ''])
