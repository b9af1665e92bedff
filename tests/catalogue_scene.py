# SPDX-License-Identifier: GPL-2.0-only
"""A catalogue of all our recipes and of some that were made up: of each kind, installed, and hostile."""

from types import SimpleNamespace

from easysif import cli
from harness import CLONE
from made_up import MadeUp

HEAD = """easyblock = '%s'
name = '%s'
version = '%s'
homepage = %r
description = %r
toolchain = SYSTEM
"""

#: what would be a link, a heading, an element, a table, code or a template, if anything took it for that
HOSTILE = ('<script>window.hacked = 1</script> <img src=x onerror="window.hacked=2"> [a](javascript:hacked=3) **b** '
           '`c` | d | {{ 7 * 7 }} {% raw %} &amp; &lt; <!-- e --> https://example.org/f # g _h_ ![i](http://i.org) \\')
FENCE = '```\n</code></pre><script>window.hacked = 4</script>\n````'

RECIPES = {
    'toy-1': ('ContainerImage', 'toy', '1', 'https://example.org/toy', 'Does what toys do', """
image = 'docker://example.org/toy:1'
needs = ['nvidia-gpu', 'interconnect?', 'magic']
python_env = 'toy'
commands = ['toy-run', 'python']
python_packages = ['added-package==1.5']
provides = {'inside_package': '2.25'}
"""),
    'toy-0.9': ('ContainerImage', 'toy', '0.9', 'https://example.org/toy', 'Did what toys did', """
image = 'oras://example.org/toy:0.9'
digest = 'sha256:%s'
needs = ['interconnect?']
commands = {'toy-tool': 'tool --fast'}
""" % ('5' * 64)),
    'built-1': ('ContainerImage', 'built', '1', 'https://example.org', 'Built from a definition file', """
image = 'built.def'
"""),
    'web-1': ('ContainerImage', 'web', '1', 'https://example.org', 'From a web server', """
image = 'https://images.example.org/web.sif'
checksums = ['%s']
commands = ['web']
""" % ('6' * 64)),
    'pinned-1': ('ContainerImage', 'pinned', '1', 'https://example.org', 'By digest', """
image = 'docker://example.org/pinned@sha256:%s'
""" % ('7' * 64)),
    'binds-1': ('ContainerBindings', 'binds', '1', 'https://example.org', 'Binds', """
needs = ['nvidia-gpu']
"""),
    'a_b.c+d-1_0+x': (
        'ContainerImage', 'a_b.c+d', '1_0+x', 'https://example.org/"><script>hacked=5</script>', HOSTILE, """
image = 'a<b>&c.sif'
commands = {'a`b|<i>c': 'x', '__d__': 'y'}
upstream_contacts = '''%s'''
""" % FENCE),
}
DEFINITION = 'Bootstrap: docker\nFrom: example.org/base:1\n# ```\n# <script>window.hacked = 6</script>\n'


def write_recipes(directory):
    """Write the recipes that were made up into a directory."""
    directory.mkdir(parents=True)
    for name, (easyblock, software, version, homepage, description, rest) in RECIPES.items():
        text = HEAD % (easyblock, software, version, homepage, description) + rest
        (directory / (name + '.eb')).write_text(text)
    (directory / 'built.def').write_text(DEFINITION)


def make(directory):
    """Make the catalogue in a directory of its own; return ``output``, ``recipes`` and ``prefix`` (Path)."""
    scene = SimpleNamespace(output=directory / 'the site', recipes=directory / 'recipes', prefix=directory / 'prefix')
    write_recipes(scene.recipes)
    MadeUp(scene.prefix)
    assert cli.main(['catalogue', str(CLONE / 'easyconfigs'), str(scene.recipes), '--output', str(scene.output),
                     '--prefix', str(scene.prefix)]) == 0
    return scene
