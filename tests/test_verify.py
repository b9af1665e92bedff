# SPDX-License-Identifier: GPL-2.0-only
"""easysif verify: one rotten module among many is found, named, and told how to mend."""

import json
import os
import shutil
import sys

import pytest

import harness
import toys
from easysif import verify
from easysif.site import resolve
from easysif.site_files import apply
from made_up import MadeUp
from standins import on_terminal


pytestmark = pytest.mark.usefixtures('its_prefix')


@pytest.fixture
def toy(prefix):
    """One installed module (MadeUp)."""
    return MadeUp(prefix)


def problems(toy):
    """Return what verify finds, each as text (list of str)."""
    return [str(error) for error in verify.verify(toy.name, str(toy.root), str(toy.prefix)).problems]


def test_a_module_as_it_was_installed_is_well_and_left_alone(easysif, toy, prefix):
    tool = MadeUp(prefix, 'tool/2', python_env=None)
    before = toys.snapshot(prefix)
    assert easysif('verify') == (0, 'tool/2: all well, %d files, image of 761 bytes\n'
                                    'toy/1: all well, %d files, image of 761 bytes\n'
                                 % (len(tool.files()), len(toy.files())), '')
    assert toys.snapshot(prefix) == before


def test_modules_may_be_named(easysif, toy, prefix):
    MadeUp(prefix, 'tool/2').sif.unlink()
    assert easysif('verify', 'toy')[:2] == (0, easysif('verify', 'toy/1')[1])
    code, out, err = easysif('verify', 'toy', 'tool/2')
    assert code == 1 and [line.split(':')[0] for line in out.splitlines()] == [
        'toy/1', 'tool/2', '1 of 2 modules have problems']
    assert easysif('verify', 'toy', 'tol')[2].endswith("hint: did you mean 'tool'?\n")


def write(path, content='changed'):
    path.chmod(0o644)
    path.write_text(content)


def relink(path, target):
    path.unlink()
    path.symlink_to(target)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


REFRESH, REBUILD, RESTORE = 'easysif refresh toy/1', 'eb --rebuild toy-1.eb', 'easysif image restore toy/1'

DAMAGES = {
    # what was done, what is told of it (facts that say a sum are left out), the file, the hint
    'a wrapper is gone': (lambda toy: (toy.root / 'bin/fine').unlink(), 'bin/fine is missing', 'bin/fine', REFRESH),
    'a wrapper leads elsewhere': (lambda toy: relink(toy.root / 'bin/fine', '/bin/true'),
                                  'bin/fine leads elsewhere', 'bin/fine', REFRESH),
    'a wrapper is a file': (lambda toy: (toy.root / 'bin/fine').unlink() or (toy.root / 'bin/fine').touch(),
                            'bin/fine is a file, not a link', 'bin/fine', REFRESH),
    'a script is a directory': (lambda toy: (toy.root / 'runscripts/init-venv').unlink()
                                or (toy.root / 'runscripts/init-venv').mkdir(),
                                'runscripts/init-venv is something else, not a file', 'runscripts/init-venv', REFRESH),
    'a script was edited': (lambda toy: write(toy.root / 'runscripts/lib/shellrc'),
                            'runscripts/lib/shellrc was changed', 'runscripts/lib/shellrc', REFRESH),
    'a script cannot be read': (lambda toy: (toy.root / 'runscripts/init-venv').chmod(0),
                                'runscripts/init-venv cannot be read (Permission denied)', 'runscripts/init-venv',
                                'ls -ld %(file)s'),
    'a command was added': (lambda toy: (toy.root / 'bin/ls').symlink_to('/bin/ls'),
                            'bin/ls does not belong to the module', 'bin/ls', 'look at it: ls -l %(file)s'),
    'a script was added': (lambda toy: write_new(toy.root / 'runscripts/lib/sitecustomize.py'),
                           'runscripts/lib/sitecustomize.py does not belong to the module',
                           'runscripts/lib/sitecustomize.py', 'look at it: ls -l %(file)s'),
    'bin is a link': (lambda toy: (toy.root / 'bin').rename(toy.prefix / 'bin')
                      and (toy.root / 'bin').symlink_to(toy.prefix / 'bin'),
                      'bin is a link, not a directory', 'bin', REFRESH),
    'the wrapper is not executable': (lambda toy: (toy.root / 'easysif/wrapper').chmod(0o644),
                                      'easysif/wrapper cannot be executed', 'easysif/wrapper', 'chmod +x %(file)s'),
    'the plan was edited': (lambda toy: write(toy.root / 'easysif/module.sh'),
                            'easysif/module.sh was changed', 'easysif/module.sh', REFRESH),
    'a file may be written by all': (lambda toy: (toy.root / 'runscripts/init-venv').chmod(0o666),
                                     'runscripts/init-venv can be written by everybody', 'runscripts/init-venv',
                                     'chmod o-w %(file)s'),
    'a directory may be written by all': (lambda toy: (toy.root / 'easybuild').chmod(0o1777),
                                          'easybuild can be written by everybody', 'easybuild', 'chmod o-w %(file)s'),
    'the installation may be written by all': (lambda toy: toy.root.chmod(0o777),
                                               'the installation can be written by everybody', '',
                                               'chmod o-w %(file)s'),
    'the image is gone': (lambda toy: toy.sif.unlink(), 'the image is gone', 'toy.sif', RESTORE),
    'the image was cut': (lambda toy: toy.sif.chmod(0o644) or os.truncate(toy.sif, 700) or toy.sif.chmod(0o444),
                          'the image has 700 bytes, not 761', 'toy.sif', RESTORE),
    'a bit of the image flipped': (lambda toy: flip(toy.sif), 'the image was changed', 'toy.sif', RESTORE),
    'the image may be written by the group': (lambda toy: toy.sif.chmod(0o464), 'the image can be written by others',
                                              'toy.sif', 'chmod a-w %(file)s'),
    'the image cannot be read': (lambda toy: toy.sif.chmod(0), 'the image cannot be read (Permission denied)',
                                 'toy.sif', 'ls -ld %(file)s'),
    'easysif.json is gone': (lambda toy: (toy.root / 'easysif.json').unlink(),
                             'easysif.json: cannot be read (No such file or directory)', 'easysif.json', REBUILD),
    'easysif.json was garbled': (lambda toy: (toy.root / 'easysif.json').write_text('{"schema": 2}'),
                                 'easysif.json: module is missing', 'easysif.json', REBUILD),
    'easysif.json is of another module': (lambda toy: toy.record(module='other/1'), 'easysif.json is of another module',
                                          'easysif.json', REBUILD),
    'the installation is gone': (lambda toy: shutil.rmtree(toy.root),
                                 'the installation is gone, only its module file is left', '', REBUILD),
    'a file of the recipe is gone': (lambda toy: write_new(toy.root / 'mark') or toy.record()
                                     and (toy.root / 'mark').unlink(), 'mark is missing', 'mark', REBUILD),
    'the module file is gone': (lambda toy: toy.modulefile.unlink(), 'the module file is missing',
                                '../../../modules/all/toy/1.lua', REFRESH),
    'the module file was emptied': (lambda toy: write(toy.modulefile, ''), 'the module file was changed',
                                    '../../../modules/all/toy/1.lua', REFRESH),
    'the link is gone': (lambda toy: toy.link.unlink(), 'the link to the module file is missing',
                         '../../../modules/tools/toy/1.lua', REFRESH),
    'the link leads elsewhere': (lambda toy: relink(toy.link, '/etc'), 'the link to the module file leads elsewhere',
                                 '../../../modules/tools/toy/1.lua', REFRESH),
    'the link is a file': (lambda toy: toy.link.unlink() or toy.link.touch(),
                           'what should be a link to the module file is something else',
                           '../../../modules/tools/toy/1.lua', REFRESH),
    'the overlay was cut': (lambda toy: os.truncate(toy.pack(), 150),
                            'the overlay is damaged: it is cut off: 150 of 200 bytes',
                            '../../../overlays/toy/1/user-software.squashfs',
                            'mv -- %(file)s %(file)s.damaged'),
    'a bit of the overlay flipped': (lambda toy: flip(toy.pack()), 'the overlay was changed since it was packed',
                                     '../../../overlays/toy/1/user-software.squashfs',
                                     'mv -- %(file)s %(file)s.damaged'),
}


def write_new(path):
    path.write_text('new')


@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_is_named_with_file_and_hint(toy, damage):
    do, what, file, hint = DAMAGES[damage]
    do(toy)
    path = os.path.normpath(toy.root / file)
    try:
        found = problems(toy)
        first, *facts, last = found[0].splitlines()
        assert (first, last) == ('toy/1: ' + what, 'hint: ' + hint % {'file': path})
        assert facts[0].split(maxsplit=1) == ['file', path] and len(found) == 1
    finally:
        for parent, directories, names in os.walk(toy.prefix):
            os.chmod(parent, 0o755)


def test_both_sides_of_a_difference_are_told(toy):
    relink(toy.root / 'bin' / 'fine', '/bin/true')
    recorded = toys.sha256(toy.sif)
    flip(toy.sif)
    assert problems(toy) == [
        'toy/1: bin/fine leads elsewhere\n  file      %s/bin/fine\n  recorded  ../easysif/wrapper\n'
        '  found     /bin/true\nhint: easysif refresh toy/1' % toy.root,
        'toy/1: the image was changed\n  file      %s/toy.sif\n  recorded  sha256:%s\n  found     sha256:%s\n'
        'hint: easysif image restore toy/1' % (toy.root, recorded, toys.sha256(toy.sif))]


def test_every_problem_of_every_module_is_named(easysif, toy, prefix):
    other, third = MadeUp(prefix, 'other/1'), MadeUp(prefix, 'third/1')
    for name in ('fine', 'start-shell'):
        (toy.root / 'bin' / name).unlink()
    third.sif.unlink()
    code, out, err = easysif('verify')
    assert (code, out) == (1, 'other/1: all well, %d files, image of 761 bytes\nthird/1: 1 problem, %d files\n'
                              'toy/1: 2 problems, %d files, image of 761 bytes\n'
                              '2 of 3 modules have problems: third/1, toy/1\n'
                           % (len(other.files()), len(third.files()), len(toy.files()) - 2))
    assert [line for line in err.splitlines() if line.startswith('error: ')] == [
        'error: third/1: the image is gone', 'error: toy/1: bin/fine is missing', 'error: toy/1: bin/start-shell is '
        'missing']


def test_a_hint_names_another_prefix(toy, monkeypatch):
    monkeypatch.setenv('EASYBUILD_PREFIX', '/elsewhere')
    (toy.root / 'bin' / 'fine').unlink()
    assert problems(toy)[0].endswith('\nhint: easysif refresh toy/1 --prefix %s' % toy.prefix)


def test_an_image_that_was_recorded_damaged_is_damaged(toy):
    write(toy.sif, 'no image')
    toy.sif.chmod(0o444)
    toy.record()
    assert problems(toy) == ['toy/1: image is no SIF file: %s\n  file   %s\n  found  something else, 8 bytes\n'
                             'hint: eb --rebuild toy-1.eb' % (toy.sif, toy.sif)]


def test_results_as_json(easysif, toy):
    (toy.root / 'bin' / 'fine').unlink()
    (toy.root / 'notes').touch()
    code, out, err = easysif('verify', '--json')
    assert (code, err) == (1, '')
    assert json.loads(out) == {'prefix': str(toy.prefix), 'problems': [], 'modules': [{
        'module': 'toy/1', 'installation': str(toy.root), 'files': len(toy.files()) - 1, 'image_size': 761,
        'problems': [{'file': str(toy.root / 'bin' / 'fine'), 'what': 'bin/fine is missing', 'facts': {},
                      'hint': REFRESH}], 'unknown': [], 'notes': [], 'extra': ['notes']}]}


def test_what_form_1_did_not_record_is_not_known_and_no_failure(easysif, toy):
    count = len(toy.files())
    toy.form_1()
    write(toy.root / 'runscripts' / 'init-venv')
    toy.modulefile.unlink()
    assert easysif('verify') == (0, 'toy/1: all well, %d files, image of 761 bytes, not known: content of %d files, '
                                    'module file\n' % (count, count), '')
    (toy.root / 'bin' / 'fine').unlink()
    assert problems(toy) == ['toy/1: bin/fine is missing\n  file  %s/bin/fine\nhint: %s' % (toy.root, REFRESH)]


def test_files_beside_are_named_and_no_failure(easysif, toy):
    (toy.root / 'easysif' / 'lib' / '__pycache__').mkdir()
    (toy.root / 'easysif' / 'lib' / '__pycache__' / 'x.pyc').touch()
    (toy.root / 'easybuild' / 'reprod').touch()
    (toy.root / 'easysif' / 'untested').touch()
    code, out, err = easysif('verify')
    assert (code, err) == (0, '') and out.endswith('; not ours: easysif/lib/__pycache__/x.pyc\n')
    for number in range(6):
        (toy.root / ('core.%d' % number)).touch()
    assert easysif('verify')[1].endswith('; not ours: core.0, core.1, core.2, core.3, core.4, and 2 more\n')


def test_a_directory_that_cannot_be_read_is_named_unless_it_is_easybuilds(toy):
    try:
        for name in ('easybuild', 'easysif/lib'):
            (toy.root / name).chmod(0)
        found = problems(toy)
    finally:
        for name in ('easybuild', 'easysif/lib'):
            (toy.root / name).chmod(0o755)
    assert found == ['toy/1: easysif/lib cannot be read (Permission denied)\n  file  %s/easysif/lib\n'
                     'hint: ls -ld %s/easysif/lib' % (toy.root, toy.root)]


def test_an_image_in_the_store_is_verified_there(easysif, toy, prefix, tmp_path):
    (tmp_path / 'store').mkdir()
    stored = tmp_path / 'store' / 'toy.sif'
    toy.sif.rename(stored)
    apply(str(prefix), resolve({'EASYSIF_IMAGE_STORE': str(tmp_path / 'store')}).site)
    stored.chmod(0o664)
    code, out, err = easysif('verify')
    assert (code, err) == (0, '') and out.endswith("; its own image is gone, the site's store has it: %s\n" % stored)
    flip(stored)
    assert problems(toy)[0].startswith('toy/1: the image was changed\n  file      %s\n' % stored)


def test_an_image_that_is_a_link_into_the_store_is_read_through_it(toy, tmp_path):
    toy.sif.rename(tmp_path / 'stored.sif')
    toy.sif.symlink_to(tmp_path / 'stored.sif')
    (tmp_path / 'stored.sif').chmod(0o664)
    assert problems(toy) == []
    flip(tmp_path / 'stored.sif')
    assert problems(toy)[0].startswith('toy/1: the image was changed\n')
    (tmp_path / 'stored.sif').unlink()
    assert problems(toy) == ['toy/1: the image is gone\n  file      %s\n  leads to  %s\nhint: %s'
                             % (toy.sif, tmp_path / 'stored.sif', RESTORE)]


@pytest.mark.parametrize('record', [None, '', '[]', '{"schema": 1}', '{"squashfs": 3}'])
def test_an_overlay_without_checksum_is_not_known_and_no_failure(easysif, toy, record):
    toy.pack()
    path = toy.overlay / 'overlay.json'
    path.unlink() if record is None else path.write_text(record)
    code, out, err = easysif('verify')
    assert (code, err) == (0, '') and out.endswith(', not known: checksum of the overlay\n')


def test_an_overlay_as_it_was_packed_is_well_also_beside_its_directory(toy):
    toy.pack()
    toy.add_package()
    assert problems(toy) == []


def test_an_overlay_that_cannot_be_read_is_named(toy, monkeypatch):
    packed = toy.pack()
    real = verify.sha256_of

    def fails(path):
        if path == str(packed):
            raise OSError(5, 'Input/output error', path)
        return real(path)
    monkeypatch.setattr(verify, 'sha256_of', fails)
    assert problems(toy) == ['toy/1: the overlay cannot be read (Input/output error)\n  file  %s\nhint: ls -ld %s'
                             % (packed, packed)]
    path = toy.overlay / 'overlay.json'
    path.unlink()
    path.mkdir()
    assert problems(toy) == ['toy/1: cannot be read (Is a directory)\n  file  %s\nhint: ls -l -- %s' % (path, path)]


@pytest.mark.parametrize('name', ['wrapper', 'module.sh'])
def test_what_was_changed_is_not_run_to_ask_it(toy, tmp_path, name):
    toy.pack()
    toy.sif.unlink()
    write(toy.root / 'easysif' / name, '#!/bin/sh\ntouch "%s/ran"\n' % tmp_path)
    (toy.root / 'easysif' / name).chmod(0o755)
    report = verify.verify(toy.name, str(toy.root), str(toy.prefix))
    assert [error.what for error in report.problems] == ['easysif/%s was changed' % name, 'the image is gone']
    assert report.unknown == ['overlay'] and not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', ['site.lua', 'site.sh', 'site.tcl'])
@pytest.mark.parametrize('damage, why', [
    (lambda path: path.unlink(), 'is missing'),
    (lambda path: path.write_text(''), 'is not what easysif wrote'),
    (lambda path: path.write_bytes(b'\xff'), "cannot be read ('utf-8' codec can't decode"),
    (lambda path: path.unlink() or path.mkdir(), 'cannot be read (Is a directory)')])
def test_the_files_of_the_site_must_be_readable(easysif, toy, prefix, name, damage, why):
    damage(prefix / 'easysif' / name)
    code, out, err = easysif('verify')
    assert code == 1 and out.startswith('toy/1: all well')
    assert err.startswith('error: %s: %s %s' % (prefix, name, why))
    assert err.endswith('; modules use the settings of their install\n  file  %s/easysif/%s\n'
                        'hint: easysif site apply --prefix %s\n' % (prefix, name, prefix))
    assert len(json.loads(easysif('verify', '--json')[1])['problems']) == 1


def test_no_file_of_the_site_is_missing_that_an_older_easysif_did_not_know(easysif, toy, prefix):
    for top in (prefix, toy.root):
        (top / 'easysif' / 'site.tcl').unlink()
    toy.record()
    assert easysif('verify')[0] == 0
    shutil.rmtree(toy.root)
    toy.modulefile.unlink()
    assert [error.what.partition(';')[0] for error in verify.verify_prefix(str(prefix))] == ['site.tcl is missing']


def test_a_module_that_is_rebuilt_meanwhile_is_looked_at_again(toy, monkeypatch):
    shutil.copytree(toy.root, toy.root.parent / '.1.new', symlinks=True)
    real = verify.inventory.find_image

    def swap(*args):
        if (toy.root.parent / '.1.new').exists():
            toy.root.rename(toy.root.parent / '.1.old')
            (toy.root.parent / '.1.new').rename(toy.root)
            raise FileNotFoundError(2, 'No such file or directory', str(toy.sif))
        return real(*args)
    monkeypatch.setattr(verify.inventory, 'find_image', swap)
    assert problems(toy) == []


def test_a_file_that_goes_at_this_moment_is_named(toy, monkeypatch):
    def goes(*args):
        raise FileNotFoundError(2, 'No such file or directory', str(toy.sif))
    monkeypatch.setattr(verify.inventory, 'find_image', goes)
    assert problems(toy) == ['toy/1: a file is missing\n  file  %s\nhint: %s' % (toy.sif, REBUILD)]


def test_hostile_names_are_told_and_neither_executed_nor_obeyed(easysif, toy, tmp_path):
    name = '\x1b[2J$(touch ran)\n;touch ran'
    (toy.root / 'bin' / name).touch()
    code, out, err = easysif('verify')
    assert code == 1 and '\x1b' not in err and r'\x1b[2J$(touch ran)' in err and not (tmp_path / 'ran').exists()


def test_progress_is_shown_on_a_terminal_and_gone_in_the_end(toy):
    command = [sys.executable, '-m', 'easysif.cli', 'verify']
    env = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), COLUMNS='30')
    status, shown = on_terminal(command, env, [])
    assert status == 0
    assert '\r\033[Kverifying 1 of 1: toy/1\r\033[Ktoy/1: all well' in shown
    result = harness.run(command, env=env)
    assert result.stdout.startswith('toy/1: all well') and result.stderr == ''
