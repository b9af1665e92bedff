# SPDX-License-Identifier: GPL-2.0-only
"""What an image says of itself."""

from easysif.images.credentials import read_json
from easysif.run import run

MOST, LONGEST = 200, 4000  #: labels, and characters of one: an image may say anything


def read(path, runtime):
    """Return the labels of a SIF file (dict of str), none where it has none that can be read.

    :param path: the SIF file (str)
    :param runtime: the container runtime (runtime.Runtime)
    """
    result = run([runtime.path, 'inspect', '--labels', '--json', path], env=runtime.environment(), timeout=60,
                 check=False)
    found = read_json(result.stdout)
    for key in ('data', 'attributes', 'labels'):
        found = found.get(key) if isinstance(found, dict) else None
    found = found if isinstance(found, dict) else {}
    texts = sorted((key, value) for key, value in found.items() if isinstance(value, str))
    return {key[:LONGEST]: value[:LONGEST] for key, value in texts[:MOST]}
