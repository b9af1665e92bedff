# SPDX-License-Identifier: GPL-2.0-only
"""An overlay that was made for another image or another Python: kept by eb, never mixed, and said."""

import pytest

import toys
from standins import package

pytestmark = pytest.mark.e2e


def test_an_overlay_for_another_image_or_python_outlives_a_rebuild_and_is_said(eb, shell, images, prefix, tmp_path):
    def install(image):
        if not (tmp_path / (image + '.sif')).exists():
            (tmp_path / (image + '.sif')).symlink_to(images.sif(image))
        recipe = toys.recipe(tmp_path, 'env', image=image + '.sif', python_env='env', commands=['python3', 'pip'],
                             sanity_check_commands=['python3 -c "import json"'])
        assert 'COMPLETED' in eb(recipe, '--rebuild', '--sourcepath=%s' % tmp_path).output

    overlay = prefix / 'overlays' / 'env' / '1.0'
    see = 'module load env; python3 -c "import small; print(small.__version__)"'
    install('python')
    shell('module load env; pip install --quiet --no-index %s' % package(tmp_path, 'small', '1'))
    digest = toys.installation(prefix, 'env/1.0')[1]['image']['sha256']
    made_for = (overlay / 'made-for').read_text()
    assert made_for == 'python 3.11\nat /usr/local/bin/python3\nimage sha256:%s\n' % digest
    before = toys.snapshot(overlay / 'user-software')

    (overlay / 'made-for').write_text(made_for.replace(digest, 'a' * 64))
    result = shell(see)
    assert result.stdout == '1\n' and 'env/1.0: your packages were made with another image\n' in result.stderr
    assert '  made with  sha256:%s\n  this one   sha256:%s\n' % ('a' * 64, digest) in result.stderr

    (overlay / 'made-for').write_text(made_for)
    install('jax')  # the same version of Python, elsewhere
    result = shell(see, check=False)
    assert "No module named 'small'" in result.stderr
    assert 'env/1.0: your packages are for another Python and are not used\n' in result.stderr
    assert '  made for       Python 3.11 /usr/local/bin/python3\n  the image has  Python 3.11 /usr/' in result.stderr
    assert 'pip ' in shell('module load env; pip --version').stdout
    refused = shell('module load env; pip install x', check=False)
    assert refused.status == 1 and 'the overlay is for another Python, packages cannot be changed' in refused.stderr
    assert toys.snapshot(overlay / 'user-software') == before

    install('python')
    result = shell(see)
    assert (result.stdout, result.stderr) == ('1\n', '')
