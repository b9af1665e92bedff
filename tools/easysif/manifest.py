# SPDX-License-Identifier: GPL-2.0-only
"""``easysif.json`` in an installation: what was installed, and every file that we wrote. No dates, no user names.

``files`` maps the path of each file below the installation to what it is: ``sha256:<hex>`` of a file, ``link:<target>``
of a symbolic link, None where it is not known. The image is not among them, it has a sha256 of its own.
"""

import hashlib
import json
import os
import stat

from easysif import files, schema
from easysif.errors import EasySIFError

NAME = 'easysif.json'
UNTESTED = 'easysif/untested'  #: is there while an installation is tested
SCHEMA = 2  #: version of the form of the file; older ones are read
MODULE = 'easysif/modulefile'  #: the module file as it was published, from which a lost one is made anew
EASYBUILDS = 'easybuild'  #: the directory in an installation that EasyBuild writes


def write(root, manifest):
    """Write the manifest of an installation.

    :param root: installation directory (str)
    :param manifest: what schemas/manifest.schema.json describes (dict)
    :raises EasySIFError: it cannot be written
    """
    files.write(os.path.join(root, NAME), dumps(manifest))


def dumps(manifest):
    """Return a manifest as it is written (str)."""
    return json.dumps(manifest, indent=2, sort_keys=True) + '\n'


def read(root):
    """Return the manifest of an installation (dict), always in the newest form.

    :param root: installation directory (str)
    :raises EasySIFError: it is not there, is not what the schema describes, or a newer EasySIF wrote it
    """
    path = os.path.join(root, NAME)
    try:
        with open(path, encoding='utf-8') as handle:
            manifest = json.load(handle)
    except OSError as err:
        raise EasySIFError(path, 'cannot be read (%s)' % err.strerror, hint='eb --rebuild RECIPE.eb') from err
    except (ValueError, RecursionError) as err:
        raise EasySIFError(path, 'is damaged (%s)' % err, hint='eb --rebuild RECIPE.eb') from err
    form = manifest.get('schema') if isinstance(manifest, dict) else None
    if isinstance(form, int) and form > SCHEMA:
        raise EasySIFError(path, 'was written by a newer EasySIF',
                           facts=[('form', form), ('known', '1 to %d' % SCHEMA)],
                           hint='pip install --upgrade easysif, or source tools/env.sh of a newer clone')
    if form == 1:
        manifest = _from_form_1(manifest)
    problems = schema.problems('manifest', manifest)
    if problems:
        raise EasySIFError(path, problems[0].what, hint='eb --rebuild RECIPE.eb')
    for name in (NAME, UNTESTED, image_file(manifest)):  # form 1 lists them
        manifest['files'].pop(name, None)
    return manifest


def image_file(manifest):
    """Return the file name of the image in an installation (str), None where the module has none."""
    return manifest['image'] and manifest['image']['file']


def contents(root, image):
    """Return what ``files`` of a manifest is for an installation as it stands (dict of str).

    Directories count by what is in them. What cannot be read, and what is no file and no link, is None.

    :param root: installation directory (str)
    :param image: file name of the image in it (str), None where it has none
    """
    found = {}
    for path, entry in walk(root):
        if path not in (NAME, UNTESTED, image) and not entry.is_dir(follow_symlinks=False):
            try:
                found[path] = content(entry.path)
            except OSError:
                found[path] = None
    return found


def walk(root, below='', without=(EASYBUILDS,), onerror=None):
    """Yield all that is in an installation, in the order of names: path relative to it (str) and os.DirEntry.

    :param root: installation directory (str)
    :param below: a directory in it (str)
    :param without: directories that are left out with all that is in them (sequence of str)
    :param onerror: takes the OSError of a directory that cannot be read; without it such a one counts as empty
    """
    try:
        with os.scandir(os.path.join(root, below)) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as err:
        if onerror:
            onerror(err)
        return
    for entry in entries:
        path = os.path.join(below, entry.name)
        if path not in without:
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                yield from walk(root, path, without, onerror)


def content(path):
    """Return what a file or link is, as ``files`` of a manifest has it (str), None for anything else.

    :raises OSError: it is not there or cannot be read
    """
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return 'link:' + os.readlink(path)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
        return None
    digest = hashlib.sha256()
    with open(path, 'rb') as handle:
        for piece in iter(lambda: handle.read(1 << 20), b''):
            digest.update(piece)
    return 'sha256:' + digest.hexdigest()


def is_same(path, other):
    """Tell whether two files have the same content and type (bool); one that cannot be read is another one."""
    try:
        return content(path) == content(other)
    except OSError:
        return False


def sha256(text):
    """Return what a file with a text is, as ``files`` of a manifest has it (str)."""
    return 'sha256:' + hashlib.sha256(text.encode()).hexdigest()


def _from_form_1(manifest):
    """Return a manifest of form 1, which listed paths only, in the newest form; what it does not say is None."""
    listed = manifest.get('files')
    if isinstance(listed, list) and all(isinstance(path, str) for path in listed):
        listed = dict.fromkeys(listed)
    return dict(manifest, schema=SCHEMA, files=listed, modulefile=None, parameters=None)
