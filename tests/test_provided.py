# SPDX-License-Identifier: GPL-2.0-only
"""What a recipe says that its image provides is what is in it, or the recipe is wrong."""

import pytest

from easysif.errors import EasySIFError
from easysif.images import provided

PACKAGES = {'jax': '0.4.33', 'Flash_Attn': '2.6+cu12', 'evil': '1\n--index-url http://evil'}


def test_what_is_there_is_found_by_any_way_to_write_its_name():
    assert provided.check({'JAX': None, 'flash.attn': '2.6+cu12'}, PACKAGES, 'r.eb') == {
        'JAX': '0.4.33', 'flash.attn': '2.6+cu12'}
    assert provided.check({}, {}, 'r.eb') == {}


def test_a_version_without_a_local_part_is_met_by_any_build_of_it():
    assert provided.check({'flash-attn': '2.6'}, PACKAGES, 'r.eb') == {'flash-attn': '2.6+cu12'}
    with pytest.raises(EasySIFError, match='says .flash-attn/2.6.cu11., but the image has another version'):
        provided.check({'flash-attn': '2.6+cu11'}, PACKAGES, 'r.eb')


def test_what_is_not_there_or_another_version_is_told_all_at_once():
    with pytest.raises(EasySIFError) as raised:
        provided.check({'jaxx': None, 'jax': '0.5'}, PACKAGES, 'r.eb')
    assert str(raised.value) == """\
r.eb: provides names 'jaxx', which is no Python package of the image
  closest  jax
hint: remove 'jaxx' from provides, or write 'jax'
error: r.eb: provides says 'jax/0.5', but the image has another version
  image  0.4.33
hint: write 'jax/0.4.33', or 'jax' for whatever the image has"""


def test_a_version_that_no_constraint_file_can_carry_is_none():
    with pytest.raises(EasySIFError, match="provides names 'evil', which is no Python package of the image\n  closest"):
        provided.check({'evil': None}, PACKAGES, 'r.eb')
