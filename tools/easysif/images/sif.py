# SPDX-License-Identifier: GPL-2.0-only
"""Reading SIF files: is it one, is all of it there, for which processors. Imports errors only.

The layout is that of github.com/sylabs/sif, pkg/sif: a global header, then descriptors of data objects, all
little-endian. Nothing is unpacked and no process is started, so a broken download is known in microseconds.
"""

import os
import platform
import shlex
import struct
from dataclasses import dataclass

from easysif.errors import EasySIFError

HEADER = struct.Struct('<32s10s3s3s16s8q')     # launch, magic, version, architecture, id, times, descriptors, data
DESCRIPTOR = struct.Struct('<i?3I7q128s384s')  # type, used, id, group, link, offset, size, …, name, extra
PARTITION = struct.Struct('<2i3s')             # file system, kind, architecture: begins the extra of a partition
MAGIC = b'SIF_MAGIC\0'
TYPE_PARTITION = 0x4004
KIND_SYSTEM = 2
MOST_DESCRIPTORS = 65536

FILESYSTEMS = {1: 'squashfs', 2: 'ext3', 3: 'archive', 4: 'raw', 5: 'encrypted squashfs', 6: 'gocryptfs squashfs'}
ARCHITECTURES = {'01': '386', '02': 'amd64', '03': 'arm', '04': 'arm64', '05': 'ppc64', '06': 'ppc64le', '07': 'mips',
                 '08': 'mipsle', '09': 'mips64', '10': 'mips64le', '11': 's390x', '12': 'riscv64'}
MACHINES = {'x86_64': 'amd64', 'aarch64': 'arm64', 'i386': '386', 'i686': '386', 'armv7l': 'arm'}

AGAIN = 'fetch it again, and compare its size or checksum with what its publisher says'

#: what is often found where a SIF should be: (what it begins with, what it is, what to do)
OTHERS = (
    (b'hsqs', 'a bare squashfs file system', 'make a SIF of it: apptainer build new.sif %(path)s'),
    (b'\x1f\x8b', 'a gzip archive', 'if docker save made it: apptainer build new.sif docker-archive:%(path)s'),
    (b'<', 'a web page', 'the server sent a page instead of the file: a wrong address, or one that asks for a login'),
    (b'version https://git-lfs', 'a Git LFS pointer', 'fetch the file itself: git lfs pull'),
    (b'bootstrap:', 'a definition file', 'give it a name that ends in .def'),
    (b'{', 'JSON text', 'the server sent a message instead of the file; read it: head -c 500 %(path)s'),
)


@dataclass(frozen=True)
class Sif:
    """A SIF file that is whole: path (str), sizes and offsets in bytes, architecture as in Go (``amd64``), file system.

    ``partition_offset`` and ``partition_size`` tell where its root file system is.
    """

    path: str
    size: int
    architecture: str
    partition_offset: int
    partition_size: int
    filesystem: str


def read(path, where):
    """Return what the header of a SIF file says, after checking that the file is one and is not cut short (Sif).

    :param path: the file (str)
    :param where: what needs it, for messages (str)
    :raises EasySIFError: it cannot be read, is no SIF, is truncated, damaged or has no root file system
    """
    try:
        with open(path, 'rb') as handle:
            return _read(handle, path, where)
    except OSError as err:
        raise EasySIFError(where, 'image file cannot be read: %s (%s)' % (path, err.strerror),
                           hint='ls -l %s' % shlex.quote(path)) from err


def check_architecture(sif, where, machine=None):
    """Hold the architecture of an image against this machine's; an image that does not say which it has passes.

    :param sif: the image (Sif)
    :param where: what needs it, for messages (str)
    :param machine: this machine's, as ``uname -m`` says it (str)
    :raises EasySIFError: it is of another one
    """
    ours = architecture(machine)
    if sif.architecture in (ours, 'unknown') or (ours, sif.architecture) == ('amd64', '386'):
        return
    raise EasySIFError(where, 'image is made for other processors than those of this machine',
                       facts=[('image', '%s  (%s)' % (sif.architecture, sif.path)), ('machine', ours)],
                       hint='name an image for %s in the recipe, or install on a machine with %s'
                            % (ours, sif.architecture))


def architecture(machine=None):
    """Return Go's name for the architecture of a machine (str).

    :param machine: as ``uname -m`` says it (str), this one where None
    """
    machine = machine or platform.machine()
    return MACHINES.get(machine, machine)


def architecture_code(name):
    """Return the number by which ``apptainer sif add --partarch`` knows an architecture (str, ``0`` for unknown).

    :param name: as Go names it (str)
    """
    return next((str(int(code)) for code, known in ARCHITECTURES.items() if known == name), '0')


def _read(handle, path, where):
    size = os.fstat(handle.fileno()).st_size
    head = handle.read(HEADER.size)
    if len(head) < HEADER.size or HEADER.unpack(head)[1] != MAGIC:
        raise _no_sif(head, size, path, where)
    total, offset = HEADER.unpack(head)[8:10]
    if not 0 < total <= MOST_DESCRIPTORS or offset < HEADER.size:
        raise _damaged(path, where, 'its table of contents makes no sense')
    if offset + total * DESCRIPTOR.size > size:
        raise _truncated(path, where, size, offset + total * DESCRIPTOR.size)
    handle.seek(offset)
    objects = [item for item in DESCRIPTOR.iter_unpack(handle.read(total * DESCRIPTOR.size)) if item[1]]
    if any(item[5] < 0 or item[6] < 0 for item in objects):
        raise _damaged(path, where, 'its table of contents makes no sense')
    end = max([item[5] + item[6] for item in objects], default=0)
    if end > size:
        raise _truncated(path, where, size, end)
    for item in objects:
        filesystem, kind, code = PARTITION.unpack_from(item[13])
        if item[0] == TYPE_PARTITION and kind == KIND_SYSTEM:
            break
    else:
        raise EasySIFError(where, 'image holds no root file system: %s' % path,
                           hint='make a SIF that can be run: apptainer build new.sif docker://…')
    filesystem = FILESYSTEMS.get(filesystem, 'unknown')
    if filesystem == 'squashfs':
        _check_squashfs(handle, item[5], item[6], path, where)
    return Sif(path, size, ARCHITECTURES.get(code.rstrip(b'\0').decode('latin-1'), 'unknown'), item[5], item[6],
               filesystem)


def _check_squashfs(handle, offset, length, path, where):
    handle.seek(offset)
    block = handle.read(min(length, 48))
    if len(block) < 48 or block[:4] != b'hsqs':
        raise _damaged(path, where, 'its root file system does not begin as a squashfs does')
    used = struct.unpack_from('<Q', block, 40)[0]
    if used > length:
        raise _damaged(path, where, 'its root file system needs %d bytes and has %d' % (used, length))


def _damaged(path, where, why):
    return EasySIFError(where, 'image is damaged: %s' % path, facts=[('because', why)], hint=AGAIN)


def _truncated(path, where, size, needed):
    return EasySIFError(where, 'image is not complete: %s' % path,
                        facts=[('size', '%d bytes' % size), ('needed', '%d bytes, says its header' % needed)],
                        hint=AGAIN)


def _no_sif(head, size, path, where):
    found, hint = 'something else', 'look what it is: file %(path)s'
    if not size:
        found, hint = 'an empty file', AGAIN
    for magic, what, what_to_do in OTHERS:
        if head.lstrip().lower().startswith(magic):
            found, hint = what, what_to_do
    return EasySIFError(where, 'image is no SIF file: %s' % path,
                        facts=[('found', '%s, %d bytes' % (found, size))],
                        hint=hint.replace('%(path)s', shlex.quote(path)))
