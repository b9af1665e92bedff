# SPDX-License-Identifier: GPL-2.0-only
"""Makes the site of the catalogue, beside its place, and puts it there whole.

A directory is replaced only if all that is in it is as an earlier call left it.
"""

import json
import os
import re
import shlex
import shutil
import sys
from contextlib import suppress
from importlib import metadata
from tempfile import TemporaryDirectory

from easysif import files, manifest
from easysif.data import DIRECTORY
from easysif.errors import TOOL, EasySIFError, told
from easysif.lock import Lock
from easysif.run import run

RECORD = '.easysif-catalogue.json'  #: what a catalogue has of files, each with its sha256

WITH = 'mkdocs-material'

#: what mkdocs writes for a site at a known address; without one their links lead nowhere
_USELESS = ('404.html', 'sitemap.xml', 'sitemap.xml.gz')

#: what stands in the menu, and what comes first of the manual
_PAGES = ('index.md', 'find.md', 'sites.md', 'life.md')
_FIRST = ('users.md', 'overlays.md', 'running.md', 'recipe-authors.md', 'sites.md', 'site-reference.md')

_LISTED = 5  #: names in a message


def check_tool():
    """Do nothing where the Python package is there that makes the site.

    :raises EasySIFError: it is not
    """
    try:
        metadata.version(WITH)
    except metadata.PackageNotFoundError as err:
        raise EasySIFError('easysif catalogue', 'needs the Python package %s' % WITH,
                           facts=[('python', sys.executable)], exit_code=TOOL,
                           hint='%s -m pip install %s' % (shlex.quote(sys.executable), WITH)) from err


def make(pages, output):
    """Make the site, and put it into its place.

    :param pages: path -> Markdown (dict), without the manual, which is added
    :param output: the directory (str), which may hold an earlier catalogue
    :raises EasySIFError: it holds something else or cannot be written, or mkdocs failed; then it is as it was
    """
    output = os.path.realpath(output)
    check_place(output)
    made = files.name_beside(output)
    try:
        with Lock(os.path.join(os.path.dirname(output), '.%s.lock' % os.path.basename(output)), 'easysif catalogue'):
            for litter in files.beside(output):
                files.remove_tree(litter)
            try:
                with files.ended_in_order():
                    _build(pages, made)
                    _write_record(made)
                    check_place(output)
                    _put(made, output)
            finally:
                if os.path.lexists(made):
                    files.remove_tree(made)
    except OSError as err:
        raise told(err, 'easysif catalogue') from err


def check_place(output):
    """Do nothing where a catalogue may be written to a directory.

    :param output: the directory (str)
    :raises EasySIFError: there is something else, which would be lost, or there is no directory to make it in
    """
    parent, kept = os.path.dirname(output), 'mv %s %s' % (shlex.quote(output), shlex.quote(output + '.kept'))
    if not os.path.isdir(parent):
        raise EasySIFError(output, 'there is no directory to make it in', hint='mkdir -p %s' % shlex.quote(parent))
    if not os.path.lexists(output):
        return
    if not os.path.isdir(output):
        raise EasySIFError(output, 'is a file', hint=kept)
    there, record = _contents(output), _record(output)
    if record is None and os.listdir(output):
        raise EasySIFError(output, 'holds something else than a catalogue, which would be lost',
                           facts=[('holds', _some(os.listdir(output)))], hint=kept)
    added = [path for path in there if path not in (record or {})]
    changed = [path for path in there if path not in added and there[path] != record[path]]
    if added or changed:
        raise EasySIFError(output, 'holds what is not of the catalogue, which would be lost', hint=kept,
                           facts=[(label, _some(paths)) for label, paths in
                                  (('added', added), ('changed', changed)) if paths])


def manual():
    """Return the directory of the manual: that of the clone, else that of the wheel (str)."""
    clone = os.path.join(os.path.dirname(os.path.dirname(DIRECTORY)), 'docs')
    return clone if os.path.isfile(os.path.join(clone, 'users.md')) else os.path.join(DIRECTORY, 'manual')


def _build(pages, made):
    """Have mkdocs make the site of pages and manual in a new directory."""
    from easysif.catalogue.pages import TEMPLATES  # needs what check_tool looks for
    with TemporaryDirectory(prefix='easysif-catalogue-') as work:
        docs = os.path.join(work, 'docs')
        shutil.copytree(manual(), os.path.join(docs, 'manual'), ignore=_other_than_manual)
        for path, text in pages.items():
            os.makedirs(os.path.dirname(os.path.join(docs, path)), exist_ok=True)
            with open(os.path.join(docs, path), 'w', encoding='utf-8') as handle:
                handle.write(text)
        os.mkdir(os.path.join(docs, 'assets'))
        for name in ('catalogue.css', 'iframe-worker.js'):
            shutil.copyfile(os.path.join(TEMPLATES, name), os.path.join(docs, 'assets', name))
        with open(os.path.join(TEMPLATES, 'mkdocs.yml'), encoding='utf-8') as handle:
            settings = handle.read()
        with open(os.path.join(work, 'mkdocs.yml'), 'w', encoding='utf-8') as handle:
            handle.write('%snav: %s\n' % (settings, json.dumps(_menu(_markdown(os.path.join(docs, 'manual'))))))
        # no dates in what is made, and in messages no advertisement
        result = run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', made], cwd=work, check=False,
                     env=dict(os.environ, SOURCE_DATE_EPOCH='0', PYTHONHASHSEED='0', NO_MKDOCS_2_WARNING='true'))
    if result.status:
        lines = [line for line in result.stderr.splitlines() if line.startswith(('WARNING', 'ERROR'))]
        raise EasySIFError('easysif catalogue', 'mkdocs could not make the site', exit_code=TOOL,
                           facts=[('mkdocs', '\n'.join(lines[:_LISTED] or [result.last_line()]))],
                           hint='%s -m pip install --upgrade %s' % (shlex.quote(sys.executable), WITH))
    for name in _USELESS:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(made, name))


def _menu(manual_pages):
    """Return what stands in the menu, as mkdocs has it (list); the pages of the software would be too many."""
    order = [*_FIRST, *sorted(set(manual_pages).difference(_FIRST))]
    return [*_PAGES, {'Manual': ['manual/%s' % name for name in order if name in manual_pages]}]


def _put(made, output):
    """Put a directory in the place of another one, at one moment where the file system can."""
    files.sync(made)
    if not os.path.isdir(output) or not os.listdir(output):
        os.rename(made, output)
    elif not files.exchange(made, output):
        old = files.free_name(made)
        os.rename(output, old)
        os.rename(made, output)
        files.remove_tree(old)
    files.sync_directory(os.path.dirname(output))


def _markdown(directory):
    return [name for name in os.listdir(directory) if name.endswith('.md')]


def _other_than_manual(_, names):
    return [name for name in names if not re.search(r'\.(md|png)\Z', name)]


def _contents(directory):
    return {path: manifest.content(entry.path) for path, entry in manifest.walk(directory, without=())
            if path != RECORD and not entry.is_dir(follow_symlinks=False)}


def _write_record(made):
    files.write(os.path.join(made, RECORD), json.dumps({'files': _contents(made)}, indent=2, sort_keys=True) + '\n')


def _record(directory):
    """Return what a catalogue has of files (dict), None where the directory holds none."""
    with suppress(OSError, ValueError, AttributeError):
        with open(os.path.join(directory, RECORD), encoding='utf-8') as handle:
            found = json.load(handle).get('files')
            return found if isinstance(found, dict) else None
    return None


def _some(names):
    names = sorted(names)
    return ', '.join(names[:_LISTED] + (['…'] if len(names) > _LISTED else []))
