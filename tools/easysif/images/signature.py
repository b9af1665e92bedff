# SPDX-License-Identifier: GPL-2.0-only
"""Signatures of SIF files, verified by the container runtime with the keys that the site trusts."""

import os
import shlex
import shutil
import tempfile

from easysif.errors import EasySIFError
from easysif.images.credentials import read_json
from easysif.run import run

UNSIGNED = 'signature not found'  # what the runtime says
ARMOUR = b'-----BEGIN PGP'


def verify(path, runtime, keyring, where):
    """Return the fingerprints of the keys that signed a SIF file (list of str), after verifying all of it.

    :param path: the SIF file (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param keyring: file with the public keys that count (str), those of the runtime's own keyrings where None
    :param where: the recipe, for messages (str)
    :raises EasySIFError: it is not signed, by a key that does not count, or was changed since; no such keyring
    """
    if keyring and not os.access(keyring, os.R_OK):
        raise EasySIFError(where, 'the keyring of the site cannot be read', facts=[('file', keyring)],
                           hint='correct keyring in the site file, or export EASYSIF_KEYRING=/path')
    with tempfile.TemporaryDirectory() as directory:
        env = runtime.environment()
        if keyring:
            env[runtime.name.upper() + '_KEYSDIR'] = directory
            _lay_out(keyring, directory, runtime, env)
        result = run([runtime.path, 'verify', '--all', '--local', '--json', path], env=env, check=False)
    signers = [one.get('Signer') or {} for one in read_json(result.stdout).get('SignerKeys') or ()]
    found = {str(one.get('Fingerprint')).upper() for one in signers if one.get('KeyCheck') and one.get('DataCheck')}
    if result.status == 0 and found:
        return sorted(found)
    reason = next((line.rpartition('integrity: ')[2].rpartition('FATAL:')[2].strip()
                   for line in result.stderr.splitlines() if 'FATAL' in line), result.last_line())
    facts = [('image', path), ('keys', keyring or "the runtime's own keyrings")]
    if UNSIGNED in reason:
        raise EasySIFError(where, 'image is not signed', facts=facts,
                           hint='ask its publisher for a signed one: apptainer sign NAME.sif')
    raise EasySIFError(where, 'signature of the image cannot be verified', facts=[*facts, ('reason', reason)],
                       hint=shlex.join([runtime.name, 'verify', '--all', '--local', path]))


def _lay_out(keyring, directory, runtime, env):
    """Put the keys of a file where the runtime looks for its keyring."""
    with open(keyring, 'rb') as handle:
        armoured = handle.read(len(ARMOUR)) == ARMOUR
    if armoured:  # as gpg --export --armor and apptainer key export --ascii write them
        run([runtime.path, 'key', 'import', keyring], env=env)
    else:
        shutil.copyfile(keyring, os.path.join(directory, 'pgp-public'))
