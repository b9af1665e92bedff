# SPDX-License-Identifier: GPL-2.0-only
"""What our schemas cost, whatever else is in the same Python."""

import os
import subprocess
import sys

from easysif import data


def test_a_package_that_comes_with_jupyter_and_takes_long_is_not_imported_and_left_to_others(tmp_path):
    (tmp_path / 'rfc3987_syntax.py').write_text('print("imported")\n')
    library = os.path.dirname(data.DIRECTORY)
    for code, said in (('import easysif.schema', ''), ('import easysif.schema, rfc3987_syntax', 'imported\n'),
                       ('import rfc3987_syntax, easysif.schema, sys; print(sys.modules["rfc3987_syntax"].__name__)',
                        'imported\nrfc3987_syntax\n')):
        found = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, check=True,
                               env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), library])))
        assert found.stdout == said
