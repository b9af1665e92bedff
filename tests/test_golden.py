# SPDX-License-Identifier: GPL-2.0-only
"""What is generated, letter by letter. After a change that is meant: python tests/test_golden.py; read the diff."""

import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parent / 'golden'
sys.path.insert(0, str(GOLDEN.parents[1] / 'tools'))

from easysif import render  # noqa: E402 (the path comes first when this file is run as a program)
from easysif.data import helper_text  # noqa: E402
from easysif.images.inspect import Conda  # noqa: E402
from easysif.module import Command, Installation, module_plan, wrapper_plan  # noqa: E402
from easysif.wrappers import module_shell  # noqa: E402

PYTHON = {'python': {'path': '/opt/conda/envs/x/bin/python3'}}


def installations():
    """Return an environment module that uses all there is, and a tool module (dict of Installation)."""
    common = dict(prefix='/sw/my modules', eb_python='/opt/eb/bin/python', sif_size=4096)
    return {
        'environment': Installation(
            module='PyTorch/2.7', root='/sw/my modules/software/PyTorch/2.7', variable='PYTORCH', sif_name='x.sif',
            environment=True, python_env='x', layer='x', python_version='3.12', image='sha256:' + 'a' * 64,
            python='/opt/conda/envs/x/bin/python3', conda=Conda('/opt/conda/envs/x', 'x', '/opt/conda'),
            shell='/bin/bash',
            provides={'torch': '2.7.0+rocm6.2'}, image_env={'PIP_CONSTRAINT': '/etc/pip/$constraint.txt'},
            needs=('amd-gpu',), binds=('/data:/mnt:ro',), container_env={'QUOTES': '"it\'s $5"'},
            commands={'python': Command(('python',)),
                      'torchrun': Command(('torchrun',), '/opt/conda/envs/x/bin/torchrun')}, **common),
        'tool': Installation(
            module='SAMtools/1.21', root='/sw/my modules/software/SAMtools/1.21', variable='SAMTOOLS',
            sif_name='SAMtools-1.21.sif', environment=False, shell='/bin/sh',
            commands={'samtools': Command(('samtools',)), 'sort': Command(('samtools', 'sort'))}, **common)}


def generated():
    """Return what the golden files hold (dict of str); the part of a module that is a shipped file is left out."""
    texts = {}
    for name, inst in installations().items():
        lua = render.lua(module_plan(inst), inst.root, inst.prefix)
        texts[name + '.lua'] = lua.replace(helper_text('module.lua'), '')
        tcl = render.tcl(module_plan(inst), inst.root, inst.prefix)
        texts[name + '.tcl'] = tcl.replace(helper_text('module.tcl'), '')
        texts[name + '.wrapper'] = module_shell(inst, PYTHON).partition('\n')[2]  # no shell file of ours to be checked
    return texts


@pytest.mark.parametrize('name', ['environment.lua', 'environment.tcl', 'environment.wrapper',
                                  'tool.lua', 'tool.tcl', 'tool.wrapper'])
def test_what_is_generated_is_what_was_reviewed(name):
    assert generated()[name] == (GOLDEN / name).read_text(encoding='utf-8')


def test_the_golden_plans_are_all_there():
    inst = installations()['environment']
    assert module_plan(inst) == wrapper_plan(inst)
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(generated())


if __name__ == '__main__':
    for golden_name, golden_text in generated().items():
        (GOLDEN / golden_name).write_text(golden_text, encoding='utf-8')
