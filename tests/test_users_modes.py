# SPDX-License-Identifier: GPL-2.0-only
"""What a prefix grants, by its mode, its access control list and its group."""

import os
import pwd
import struct

import pytest

from easysif.errors import EasySIFError
from easysif.modes import ACCESS, Modes, check_replaceable


@pytest.fixture(autouse=True)
def umask():
    """Give the umask back that a test changes."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    """Return the permissions of a file (int)."""
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize('granted, directory, program, file, read_only', [
    (0o700, 0o700, 0o700, 0o600, 0o400), (0o750, 0o750, 0o750, 0o640, 0o440), (0o755, 0o755, 0o755, 0o644, 0o444),
    (0o2755, 0o755, 0o755, 0o644, 0o444), (0o775, 0o2775, 0o775, 0o664, 0o444), (0o2770, 0o2770, 0o770, 0o660, 0o440),
    (0o777, 0o755, 0o755, 0o644, 0o444), (0o1777, 0o755, 0o755, 0o644, 0o444)])
def test_what_the_prefix_grants_is_granted_and_never_more(prefix, granted, directory, program, file, read_only):
    prefix.mkdir()
    prefix.chmod(granted)
    for name in ('closed', 'open'):
        inner = prefix / name
        inner.mkdir()
        expected = {}
        for own, wanted in ((0o700, program), (0o600, file), (0o400, read_only)):
            path = inner / oct(own)
            path.touch()
            path.chmod(own | (own >> 3 | own >> 6 if name == 'open' else 0))
            expected[path] = wanted
        inner.chmod(0o777 if name == 'open' else 0o700)
        Modes(str(prefix)).give_all(str(inner))
        assert mode(inner) == directory
        assert {path: mode(path) for path in expected} == expected


@pytest.mark.parametrize('umask', [0o077, 0o002, 0o000])
def test_what_is_published_has_them_under_any_umask(prefix, umask):
    prefix.mkdir()
    prefix.chmod(0o755)
    os.umask(umask)
    path = prefix / 'a' / 'b' / 'file'
    with Modes(str(prefix)).publishing(str(path)):
        path.parent.mkdir(parents=True)
        path.touch()
    assert [mode(path), mode(path.parent), mode(path.parent.parent)] == [0o644, 0o755, 0o755]
    assert os.umask(0o022) == umask


def test_a_prefix_that_is_not_there_is_as_the_umask_says(prefix):
    os.umask(0o027)
    assert Modes(str(prefix)).umask == 0o027
    os.umask(0o000)
    assert Modes(str(prefix)).umask & 0o002


def test_who_is_named_in_an_access_control_list_makes_no_prefix_a_groups(prefix):
    prefix.mkdir()
    prefix.chmod(0o755)
    entries = ((1, 7, -1), (2, 7, 12345), (4, 5, -1), (16, 7, -1), (32, 5, -1))
    os.setxattr(prefix, ACCESS, struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *entry) for entry in entries))
    assert mode(prefix) == 0o775  # so ls shows it
    modes = Modes(str(prefix))
    assert (modes.umask, modes.is_shared) == (0o022, False)


def test_what_is_not_ours_or_a_link_is_left_alone(prefix):
    prefix.mkdir()
    prefix.chmod(0o700)
    (prefix / 'link').symlink_to('/etc/passwd')
    Modes(str(prefix)).give_all(str(prefix))
    Modes(str(prefix)).give('/etc/passwd', '/nonexistent', str(prefix / 'gone'))
    assert os.readlink(prefix / 'link') == '/etc/passwd'


def test_what_cannot_be_replaced_is_told_with_its_owner(prefix, monkeypatch):
    root = prefix / 'software' / 'toy' / '1'
    (root / 'bin').mkdir(parents=True)
    module = str(prefix / 'modules' / 'all' / 'toy' / '1.lua')
    check_replaceable('toy-1.eb', str(root), module)
    (root / 'bin').chmod(0o500)  # our own we can open
    check_replaceable('toy-1.eb', str(root), module)
    monkeypatch.setattr('os.geteuid', lambda: 4294967000)
    with pytest.raises(EasySIFError) as caught:
        check_replaceable('toy-1.eb', str(root), module)
    monkeypatch.undo()
    owner = pwd.getpwuid(os.getuid()).pw_name
    assert str(caught.value) == (
        'toy-1.eb: what is installed belongs to somebody else, and you may not replace it\n'
        '  not writable  %s/bin\n  owner         %s\n'
        'hint: ask %s to run eb, or: find %s/bin -type d -exec chmod g+w {} +' % (root, owner, owner, root))
