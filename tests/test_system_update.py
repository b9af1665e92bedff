# SPDX-License-Identifier: GPL-2.0-only
"""A system update renames a library of the host and takes a directory away: one command mends all that is installed."""

import os
import subprocess

import pytest
import yaml

import harness
import toys
from made_up import MadeUp

pytestmark = pytest.mark.e2e

#: that many modules made up, beside two real ones
MODULES = 500


def test_one_site_apply_mends_five_hundred_modules(eb, easysif, toy, tmp_path, monkeypatch):
    prefix, host, site = tmp_path / 'prefix', tmp_path / 'host', tmp_path / 'site.yaml'
    for name in ('lib', 'scratch', 'opt/1/bin'):
        (host / name).mkdir(parents=True)
    (host / 'lib' / 'libnet.so.1').write_text('the first')
    site.write_text(yaml.safe_dump({'binds': ['%s/scratch' % host], 'ca_certificates': '', 'provides': {'net': {
        'binds': ['%s/lib/libnet.so.*:/host/lib' % host, '%s/opt' % host], 'library_path': ['/host/lib'],
        'path': ['%s/opt/*/bin' % host]}}}))
    monkeypatch.setenv('EASYSIF_SITE', str(site))
    toys.recipe(tmp_path / 'eb', 'own', image=None, easyblock='ContainerBindings', needs=['net'])
    eb(toys.recipe(tmp_path / 'eb', commands=['cat', 'fine'], needs=['net']), tmp_path / 'eb' / 'own-1.0.eb',
       '--sourcepath=%s' % toy.parent, site=site)
    made = MadeUp(prefix, 'made00/0', 'made', needs=('net',))
    for number in range(1, MODULES):
        made.copy('made%02d/%d' % divmod(number, 10))
    assert easysif('site', 'apply', '--prefix', str(prefix))[0] == 0
    roots = sorted((prefix / 'software').glob('*/*/easysif/wrapper'))
    assert len(roots) == MODULES + 1

    def bound():
        """Return what the wrappers of all modules bind and search of the host (set), the real command with them."""
        asked = subprocess.run(['xargs', '-P2', '-n1', 'sh', '-c', 'printf "%s\\n" "$("$0" print-environment | grep -E '
                                '"^APPTAINER(_BINDPATH|ENV_APPEND_PATH|ENV_LD_LIBRARY_PATH)=" | tr "\\n" " ")"'],
                               input='\n'.join(map(str, roots)).encode(), capture_output=True, check=True,
                               env=dict(harness.user_environment(tmp_path / 'home'), TMPDIR='')).stdout.decode()
        lines = asked.splitlines()
        assert len(lines) == MODULES + 1
        return {tuple(sorted(word for part in line.split() for word in part.partition('=')[2].split(',')
                             if str(host) in word or word == '/host/lib')) for line in lines}

    def loaded(module, script):
        return harness.run_shell('module load %s; %s' % (module, script), prefix, tmp_path / 'home',
                                 env={'TMPDIR': None}).stdout.split()
    net, opt, scratch = '%s/lib/libnet.so.%%d:/host/lib/libnet.so.%%d' % host, '%s/opt' % host, '%s/scratch' % host
    assert bound() == {tuple(sorted([net % (1, 1), opt, scratch, '/host/lib', '%s/1/bin' % opt]))}
    before = {path: what for path, what in toys.snapshot(prefix).items() if not path.startswith('overlays/')}

    (host / 'lib' / 'libnet.so.1').unlink()
    (host / 'lib' / 'libnet.so.2').write_text('the second')
    (host / 'scratch').rmdir()
    (host / 'opt' / '1').rename(host / 'opt' / '2')
    assert loaded('toy', 'fine works') == ['works']  # what is gone stops nobody
    code, out, err = easysif('site', 'apply', '--prefix', str(prefix))
    assert (code, err) == (0, '')

    after = {path: what for path, what in toys.snapshot(prefix).items() if not path.startswith('overlays/')}
    assert {path for path in after if after[path] != before.get(path)} == {'easysif/site.lua', 'easysif/site.sh'} | {
        path for path in after if path == 'easysif/site.tcl'}
    assert set(before) == set(after)
    assert bound() == {tuple(sorted([net % (2, 2), opt, '/host/lib', '%s/2/bin' % opt]))}
    for module in ('made00/0', 'made49/9', 'own'):
        said = loaded(module, 'echo $APPTAINER_BINDPATH $APPTAINERENV_APPEND_PATH')
        assert net % (2, 2) in said[0].split(',') and scratch not in said[0] and said[1] == '%s/2/bin' % opt
    assert easysif('verify', 'made00/0', 'own', 'toy', '--prefix', str(prefix))[0] == 0
    assert loaded('toy', 'cat /host/lib/libnet.so.2') == ['the', 'second']
    assert loaded('own', 'apptainer exec %s cat /host/lib/libnet.so.2' % toy) == ['the', 'second']
    assert not os.path.lexists(scratch)
