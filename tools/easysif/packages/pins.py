# SPDX-License-Identifier: GPL-2.0-only
"""Packages with their versions and hashes: as pip reports them, as overlay.json has them, as lines of a lock file."""

import json
import re
from dataclasses import dataclass
from typing import Optional

from easysif.errors import EasySIFError

#: a line of a lock file: name and version or URL, then options
LINE = re.compile(r'(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?\s*'
                  r'(==\s*(?P<version>[^\s;#]+)|@\s*(?P<url>\S+))\s*(;[^#]*?)?(?P<options>(\s+--hash[=\s]\S+)*)\s*$')

#: what stands in a lock file for a package without hash: pip refuses all of a file in which one line has none
BARE = '# without hash: '

HEAD = '''\
# Lock file of easysif overlay export. To have the same: easysif overlay rebuild MODULE --from FILE
# or, in the loaded module: pip install --no-deps -r FILE
'''


@dataclass(frozen=True)
class Pin:
    """One version of a package: name, version, URL and sha256 of its file (str), as far as they are known (None).

    ``direct`` tells that it was asked for by that URL, and is not to be looked for in an index (bool). ``others`` are
    hashes of other files of the same version that are fine as well (tuple of str).
    """

    name: str
    version: Optional[str]
    url: Optional[str] = None
    sha256: Optional[str] = None
    direct: bool = False
    others: tuple = ()

    @property
    def key(self):
        """Its name as the package index compares it (str)."""
        return key(self.name)

    @property
    def requirement(self):
        """What pip is asked for (str)."""
        return '%s @ %s' % (self.name, self.url) if self.direct else '%s==%s' % (self.name, self.version)

    @property
    def line(self):
        """The line of a lock file (str), with all hashes that are known."""
        hashes = [one for one in (self.sha256, *self.others) if one]
        return ' '.join([self.requirement, *('--hash=sha256:' + one for one in hashes)])

    def recorded(self):
        """Return what overlay.json has of it (dict)."""
        found = {'name': self.name, 'version': self.version, 'url': self.url, 'sha256': self.sha256}
        return dict(found, direct=True) if self.direct else found


def key(name):
    """Return a name as the package index compares it (str)."""
    return re.sub(r'[-_.]+', '-', name).lower()


def of_record(values):
    """Return the packages that overlay.json has (list of Pin); what makes no sense is left out."""
    found = []
    for one in values if isinstance(values, list) else ():
        if isinstance(one, dict) and isinstance(one.get('name'), str) and isinstance(one.get('version'), str):
            url, sha256 = [value if isinstance(value, str) else None for value in (one.get('url'), one.get('sha256'))]
            found.append(Pin(one['name'], one['version'], url, sha256, bool(one.get('direct')) and bool(url)))
    return found


def of_report(text):
    """Return the packages that ``pip install --report`` tells of (list of Pin), None where that is no report.

    :param text: the report (str)
    """
    try:
        return [_reported(item) for item in json.loads(text)['install']]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _reported(item):
    info = item['download_info']
    archive, vcs = info.get('archive_info') or {}, info.get('vcs_info')
    sha256 = (archive.get('hashes') or {}).get('sha256') or (archive.get('hash') or '').partition('sha256=')[2]
    url = '%s+%s@%s' % (vcs['vcs'], info['url'], vcs['commit_id']) if vcs else info['url']
    return Pin(item['metadata']['name'], item['metadata']['version'], url, sha256 or None,
               bool(item.get('is_direct')))


def lock_file(pins, facts):
    """Return the text of a lock file (str).

    :param pins: the packages (list of Pin)
    :param facts: what the head says: label -> text (dict)
    """
    lines = ['# %s: %s' % (label, ' '.join(str(value).split())) for label, value in facts.items()]
    for pin in sorted(pins, key=lambda one: one.key):
        lines.append(pin.line.replace(' --hash', ' \\\n    --hash') if pin.sha256 else BARE + pin.requirement)
    return HEAD + '\n'.join(lines) + '\n'


def read_lock_file(path):
    """Return the packages of a lock file, ours or another one with versions and hashes, or of an overlay.json (list).

    :raises EasySIFError: it cannot be read, or names no versions
    """
    try:
        with open(path, encoding='utf-8') as handle:
            text = handle.read()
    except (OSError, ValueError) as err:
        raise EasySIFError(path, 'cannot be read (%s)' % (getattr(err, 'strerror', None) or err),
                           hint='easysif overlay export --output FILE writes one') from err
    if text.lstrip().startswith('{'):
        return _of_overlay_json(path, text)
    found = []
    for number, line in _logical_lines(text):
        pin = _pin(line)
        if pin:
            found.append(pin)
        elif line and not line.startswith(('#', '--')):
            raise EasySIFError('%s:%d' % (path, number), 'names no version of a package',
                               facts=[('line', line), ('expected', 'NAME==VERSION --hash=sha256:…')],
                               hint='easysif overlay install -r %s, which lets pip choose the versions' % path)
    return found


def _of_overlay_json(path, text):
    try:
        return of_record(json.loads(text)['packages']['resolved'])
    except (ValueError, KeyError, TypeError):
        raise EasySIFError(path, 'is no overlay.json that lists packages',
                           hint='easysif overlay export --output FILE writes a lock file') from None


def _logical_lines(text):
    """Yield the number of each line and the line itself, with those after a backslash, without its comment."""
    whole, begun = '', 0
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun if whole else number
        whole += line
        if whole.endswith('\\'):
            whole = whole[:-1] + ' '
            continue
        yield begun, (whole if whole.startswith('#') else re.sub(r'(^|\s)#.*', '', whole)).strip()
        whole = ''


def _pin(line):
    match = LINE.match(line[len(BARE):] if line.startswith(BARE) else line)
    if not match:
        return None
    hashes = re.findall(r'--hash[=\s]sha256:([0-9a-f]{64})', match['options'] or '')
    return Pin(match['name'], match['version'], match['url'], hashes[0] if hashes else None, bool(match['url']),
               tuple(hashes[1:]))
