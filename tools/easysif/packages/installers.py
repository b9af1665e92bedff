# SPDX-License-Identifier: GPL-2.0-only
"""pip and uv inside the image of a module: what they are told, what they report, why they failed."""

import ast
import os
import re
import shlex
import shutil
import struct

from easysif import index
from easysif.errors import INPUT, TOOL, EasySIFError
from easysif.packages.pins import of_report
from easysif.run import failure

REPORTS = (22, 2)  #: the first version of pip that reports what it resolved
UV_INSIDE = '/easysif-uv'  #: where the host's uv is seen inside
UV_CACHE = '.uv-cache'  #: in the environment, while uv installs into a copy of it
PIP_MAIN = '/runscripts/lib/pip_main.py'
STDIN = '/dev/stdin'

#: what tells uv what pip is configured to, and what separates several; options would show logins to all of the node
UV_VARIABLES = {'index-url': ('UV_DEFAULT_INDEX', ' '), 'extra-index-url': ('UV_INDEX', ' '),
                'find-links': ('UV_FIND_LINKS', ',')}
SECTIONS = ('global', 'install', ':env:')  #: of pip's configuration, the last wins

#: lets packages be chosen that the user already has or had, whatever the image brings
NO_CONSTRAINT = {'PIP_CONSTRAINT': os.devnull, 'UV_CONSTRAINT': os.devnull}

#: what pip says where it cannot reach anything else than an index
NO_NETWORK = re.compile(r'^ERROR: .*(Max retries exceeded|Temporary failure in name resolution|ProxyError|SSLError|'
                        r'CERTIFICATE_VERIFY_FAILED|Network is unreachable|Connection refused|timed out)', re.MULTILINE)
#: and what pip_main.py says of an index
NO_INDEX = re.compile(r'^error: pip: the package index cannot be reached\n  address  (.*)\n  reason   (.*)$', re.M)

#: lets uv take what pip chose, from whatever index; by itself it looks into the first only that has the package
EXACTLY = dict(NO_CONSTRAINT, UV_INDEX_STRATEGY='unsafe-best-match')


class Pip:
    """pip of a module.

    :param target: the module (Target)
    :param version: the version of pip (str), None where there is none
    :param options: for the index, such as ``--index-url=…`` (sequence of str)
    :param protect: whether what the image brings is protected (bool)
    """

    def __init__(self, target, version, options=(), protect=True):
        if version is None:
            raise EasySIFError(target.name, 'has no pip', hint='%s, where there is a uv; or add pip to the image'
                               % target.typed('install', '--with uv PACKAGE'))
        self.target, self.options = target, tuple(options)
        self.reports = tuple(int(number) for number in re.findall(r'\d+', version)[:2]) >= REPORTS
        self.variables = {} if protect else NO_CONSTRAINT

    def run(self, *argv, lines=None):
        """Run pip and return what it left (run.Result).

        :param argv: its arguments (str)
        :param lines: requirements (list of str), which it reads from its standard input
        """
        command = [self.target.venv + '/bin/python', PIP_MAIN, *argv, *(['-r', STDIN] if lines is not None else [])]
        return self.target.run(command, stdin=None if lines is None else '\n'.join([*lines, '']),
                               PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_NO_INPUT='1', **self.variables)

    def install(self, lines, *argv):
        """Install requirements; return what pip left (run.Result) and what it reports (list of Pin or None).

        :param lines: requirements (list of str)
        :param argv: more options (str)
        """
        told = ['--quiet', '--report', '-'] if self.reports else []
        result = self.run('install', *told, *self.options, *argv, lines=lines)
        return result, of_report(result.stdout) if told and not result.status else None

    def index(self):
        """Return for uv where pip is configured to look for packages: environment variables (dict of str)."""
        known = {}
        for key, value in re.findall(r"^(\S+)=('.*')$", self.run('config', 'list').stdout, re.MULTILINE):
            section, _, name = key.rpartition('.')
            if section in SECTIONS and name in UV_VARIABLES:
                known.setdefault(name, {})[SECTIONS.index(section)] = ast.literal_eval(value).split()
        if any(option.startswith('--index-url') for option in self.options):
            known.pop('index-url', None)  # uv would prefer the variable
        found = {}
        for name, values in known.items():
            variable, separator = UV_VARIABLES[name]
            found[variable] = separator.join(
                word for word in values[max(values)]
                if name != 'find-links' or '://' in word or os.path.isdir(word))  # uv fails where pip does not
        return found


class Uv:
    """uv of the image, else of this host where that needs nothing else to run.

    :param target: the module (Target)
    :param options: for the index (sequence of str)
    :raises EasySIFError: there is none
    """

    def __init__(self, target, options=()):
        self.target, self.options = target, tuple(options)
        there = target.run(['sh', '-c', 'command -v uv']).stdout.strip()
        own = None if there else shutil.which('uv')
        if not there and not (own and is_static(own)):
            facts = [('on this host', '%s, which needs libraries of this host' % own)] if own else []
            raise EasySIFError(target.name, 'there is no uv in the image, nor one on this host that could run in it',
                               facts=facts, hint='%s, then the same again; or one for this host: pip install --target '
                               'DIR --platform musllinux_1_1_%s --only-binary :all: uv; export PATH=DIR/bin:$PATH'
                               % (target.typed('install', 'uv'), os.uname().machine))
        self.command = there or UV_INSIDE
        self.binds = ['%s:%s:ro' % (os.path.realpath(own), UV_INSIDE)] if own else []

    def install(self, lines, *argv, **variables):
        """Install requirements and return what uv left (run.Result).

        :param lines: requirements (list of str)
        :param argv: more options (str)
        """
        if 'UV_CACHE_DIR' not in os.environ:  # where hard links lead from it into the environment, for as long as this
            variables['UV_CACHE_DIR'] = '%s/%s' % (self.target.venv, UV_CACHE)
        command = [self.command, 'pip', 'install', '--python', self.target.venv + '/bin/python', *self.options, *argv]
        return self.target.run([*command, '-r', '-'], self.binds, '\n'.join([*lines, '']), **variables)


def is_static(path):
    """Tell whether a program needs nothing but the kernel: an ELF file that names no interpreter (bool)."""
    with open(path, 'rb') as handle:
        head = handle.read(64)
        if len(head) < 64 or head[:6] != b'\x7fELF\x02\x01':  # of 64 bits, little-endian
            return False
        offset, = struct.unpack_from('<Q', head, 32)
        size, number = struct.unpack_from('<HH', head, 54)
        handle.seek(offset)
        table = handle.read(size * number)
    return all(struct.unpack_from('<I', table, size * index)[0] != 3 for index in range(number))


def reason(result):
    """Return why an installer failed, in its own words (str)."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r'(ERROR|error):', line) and not line.startswith('error: pip: ')]
    because = [line for line in lines if line.startswith('cause: ')]
    return ' '.join([(errors or lines[-1:] or ['exit code %d' % result.status])[0], *because[:1]])


def unreachable(result):
    """Return what an installer could not reach, as facts of an error (list); none where that is not why it failed.

    :param result: what it left (run.Result)
    """
    page, other = NO_INDEX.search(result.stderr), NO_NETWORK.search(result.stderr)
    if page:
        return [('address', page[1]), ('reason', page[2])]
    return [('reason', other.string[other.start():].splitlines()[0])] if other else []


def brings(result):
    """Return what the image brings and pip was not to hide, where that is why it failed: ``name==version`` (list)."""
    found = re.search(r'^  the image brings  (.*)$', result.stderr, re.MULTILINE)
    return found[1].split(', ') if found else []


def ignored(result):
    """Return where pip was to look for packages and did not, as facts of an error (list).

    That a directory of pages has none for a package is no such thing.
    """
    lines = re.findall(r"^WARNING: ((?:Location|Url) '(?:file://(.*)/[^/]*/|[^']*)' is ignored[:.].*)$", result.stderr,
                       re.MULTILINE)
    return [('pip', line) for line in dict.fromkeys(line for line, above in lines if not os.path.isdir(above))]


def failed(target, result, what, names, before=''):
    """Return the error that tells of an installer that failed.

    :param target: the module (Target)
    :param result: what it left (run.Result)
    :param what: the installer, as in ``pip`` (str)
    :param names: what it was to install (list of str)
    :param before: what is to be said before the hint (str)
    """
    text, beyond = result.stderr, unreachable(result)
    if beyond:
        return EasySIFError(target.name, '%s cannot reach the package index' % what, facts=beyond, exit_code=TOOL,
                            hint=before + index.HINT)
    facts, hint = [(what, reason(result)), *ignored(result)], None
    protected = re.search(r'^error: pip: (.*)$', text, re.MULTILINE)
    if protected:  # pip_main.py knows why
        facts.append(('because', protected.group(1)))
        facts += [('the image has', ', '.join(brings(result)))] if brings(result) else []
        hint = 'to have another one nevertheless: PIP_CONSTRAINT=%s %s' % (
            os.devnull, target.typed('install', shlex.join(names)))
    culprits = [name for name in names if re.match('[A-Za-z0-9._-]+', name) and re.search(
        r'(?<![A-Za-z0-9._-])%s(?![A-Za-z0-9_-])' % re.escape(re.match('[A-Za-z0-9._-]+', name).group()), facts[0][1],
        re.IGNORECASE)]
    no_reason = not result.stderr.strip()
    return EasySIFError(target.name, '%s could not install %s' % (what, ', '.join(culprits) or 'the packages'),
                        facts=facts + (list(failure(result).facts) if no_reason else []),
                        hint=before + (hint or 'module load %s, then see all that it says: pip install %s'
                                       % (target.name, shlex.join(culprits or names))),
                        exit_code=INPUT if protected else TOOL)
