# SPDX-License-Identifier: GPL-2.0-only
"""Renders a plan as Lua or Tcl for modules and as POSIX shell for the wrappers. Decides nothing.

Guards and statements become calls of the functions of the same names in ``helpers/module.lua``,
``helpers/module.tcl`` and ``helpers/wrapper``, so that a language is a few lines: how it quotes, joins, calls and
branches.
"""

from dataclasses import fields

from easysif import plan
from easysif.data import helper_text
from easysif.modulefile import is_lua


def lua(statements, root, prefix):
    """Return the plan as Lua, to stand in a modulefile (str).

    :param statements: the plan (list)
    :param root: installation directory (str)
    :param prefix: EasyBuild's install path (str)
    """
    body = ['local root, prefix = %s, %s' % (lua_quote(root), lua_quote(prefix)), 'read_site(prefix, root)']
    body += _Lua().statements(statements) + ['', 'finish()']
    lines = ['do'] + helper_text('module.lua').splitlines() + ['', 'if mode() ~= "spider" then']
    return '\n'.join(lines + ['    ' + line if line else '' for line in body] + ['end', 'end', ''])


def tcl(statements, root, prefix):
    """Return the plan as Tcl, to stand in a modulefile (str); the parameters are those of lua."""
    body = ['set root %s' % tcl_quote(root), 'set prefix %s' % tcl_quote(prefix),
            'upvar #0 es_needed_path needed_path es_needed_libraries needed_libraries', 'es_read_site $prefix $root']
    body += _Tcl().statements(statements) + ['', 'es_finish']
    lines = helper_text('module.tcl').splitlines() + ['', 'proc es_plan {} {']
    lines += ['    ' + line if line else '' for line in body] + ['}']
    return '\n'.join(lines + ['', 'if {[es_mode] ne {}} { es_plan }', ''])


def module(statements, root, prefix, path):
    """Return the plan in the language of a module file (str), by its path; the other parameters are those of lua."""
    return (lua if is_lua(path) else tcl)(statements, root, prefix)


def shell(statements):
    """Return the plan as the body of the wrappers' function ``es_plan`` (str).

    :param statements: the plan (list)
    """
    lines = ['    ' + line if line else '' for line in _Shell().statements(statements)]
    return '\n'.join(['es_plan() {'] + lines + ['}', ''])


def lua_quote(value):
    """Return a text as a Lua string, whatever it holds (str)."""
    escapes = {'\\': '\\\\', '"': '\\"', '\n': '\\n', '\r': '\\r'}
    return '"%s"' % ''.join(escapes.get(c) or ('\\%03d' % ord(c) if ord(c) < 32 else c) for c in value)


def tcl_quote(value):
    """Return a text as one word of Tcl, in double quotes, which is an element of a list as well (str)."""
    return '"%s"' % ''.join('\\' + c if c in '\\"$[]{}' else '\\u%04x' % ord(c) if ord(c) < 32 else c for c in value)


def shell_quote(value):
    """Return a text as one word of a shell, in single quotes (str)."""
    return "'%s'" % value.replace("'", "'\\''")


class _Writer:
    """What the languages share: a node is a call with its fields as arguments, its ``guard`` the condition."""

    asked = '%s'  # a call as part of a condition

    def statements(self, nodes):
        lines = []
        for node in nodes:
            if isinstance(node, plan.Note):
                lines += ['', '%s %s' % (self.comment, node.words)]
            elif isinstance(node, plan.Choose):
                lines += self.choose(node)
            elif isinstance(node, plan.Value):
                lines += self.value(node)
            else:
                guard = getattr(node, 'guard', None)
                call = self.call(node)
                lines += [call] if guard is None else self.branch(guard, [call])
        return lines

    def arguments(self, node):
        values = []
        for item in fields(node):
            value = getattr(node, item.name)
            if item.name == 'lines':
                values += [self.text(line) for line in value]
            elif item.name != 'guard' and not (item.name == 'name' and isinstance(node, plan.Value)):
                values.append(self.text(value) if isinstance(value, tuple) else
                              str(value) if isinstance(value, int) else self.quote(value))
        return values

    def guard(self, guard):
        if isinstance(guard, plan.Not):
            return self.negation + self.guard(guard.inner)
        if isinstance(guard, plan.All):
            return self.group % self.conjunction.join(self.guard(inner) for inner in guard.inner)
        return self.asked % self.call(guard)


class _Lua(_Writer):
    comment, negation, group, conjunction = '--', 'not ', '(%s)', ' and '

    def quote(self, value):
        return lua_quote(value)

    def text(self, parts):
        words = {plan.Local: '%s', plan.Env: 'env("%s")', plan.Site: 'setting("%s")'}
        return ' .. '.join(words[type(part)] % part.name if type(part) in words else self.quote(part)
                           for part in parts) or '""'

    def call(self, node):
        return '%s(%s)' % (plan.function_name(node), ', '.join(self.arguments(node)))

    def branch(self, guard, lines):
        return ['if %s then' % self.guard(guard)] + ['    ' + line for line in lines] + ['end']

    def value(self, node):
        return ['local %s = %s' % (node.name, self.call(node))]

    def choose(self, node):
        lines = ['local %s = %s' % (node.name, self.text(node.default))]
        for position, (guard, value) in enumerate(node.cases):
            lines += ['%s %s then' % ('elseif' if position else 'if', self.guard(guard)),
                      '    %s = %s' % (node.name, self.text(value))]
        return lines + ['end'] * bool(node.cases)


class _Shell(_Writer):
    # variables and functions begin with es_, so that none of the user's exported variables is overwritten
    comment, negation, group, conjunction = '#', '! ', '{ %s; }', ' && '

    def quote(self, value):
        return shell_quote(value)

    def text(self, parts):
        words = {plan.Local: '"$es_%s"', plan.Env: '"${%s-}"', plan.Site: '"$es_site_%s"'}
        return ''.join(words[type(part)] % part.name if type(part) in words else self.quote(part)
                       for part in parts) or "''"

    def call(self, node):
        return ' '.join(['es_' + plan.function_name(node)] + self.arguments(node))

    def branch(self, guard, lines):
        return ['if %s; then' % self.guard(guard)] + ['    ' + line for line in lines] + ['fi']

    def value(self, node):
        return [self.call(node), 'es_%s=$es_answer' % node.name]

    def choose(self, node):
        if not node.cases:
            return ['es_%s=%s' % (node.name, self.text(node.default))]
        lines = []
        for position, (guard, value) in enumerate(node.cases):
            lines += ['%s %s; then' % ('elif' if position else 'if', self.guard(guard)),
                      '    es_%s=%s' % (node.name, self.text(value))]
        return lines + ['else', '    es_%s=%s' % (node.name, self.text(node.default)), 'fi']


class _Tcl(_Writer):
    # variables of the plan are those of a procedure; functions begin with es_, as set, family and others are taken
    comment, negation, group, conjunction, asked = '#', '!', '(%s)', ' && ', '[%s]'

    def quote(self, value):
        return tcl_quote(value)

    def text(self, parts):
        words = {plan.Local: '${%s}', plan.Env: '[es_env %s]', plan.Site: '[es_setting %s]'}
        return '"%s"' % ''.join(words[type(part)] % part.name if type(part) in words else tcl_quote(part)[1:-1]
                                for part in parts)

    def call(self, node):
        return ' '.join(['es_' + plan.function_name(node)] + self.arguments(node))

    def branch(self, guard, lines):
        return ['if {%s} {' % self.guard(guard)] + ['    ' + line for line in lines] + ['}']

    def value(self, node):
        return ['set %s [%s]' % (node.name, self.call(node))]

    def choose(self, node):
        lines = ['set %s %s' % (node.name, self.text(node.default))]
        for position, (guard, value) in enumerate(node.cases):
            lines += ['%sif {%s} {' % ('} else' if position else '', self.guard(guard)),
                      '    set %s %s' % (node.name, self.text(value))]
        return lines + ['}'] * bool(node.cases)
