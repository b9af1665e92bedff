# SPDX-License-Identifier: GPL-2.0-only
"""The layer of a recipe: its ``python_packages`` in one squashfs file, read-only between overlay and image.

The image's own pip installs them, into a virtual environment that is at /layer there, as it is when the module is used.
Nothing of what the installer has loaded counts, but how they reach a package index does.
"""

import json
import os
import re
import shlex
import shutil
import stat
import struct
import tempfile

from easysif import compressors, index, schema
from easysif.data import HELPERS, helper_text
from easysif.errors import INPUT, TOOL, EasySIFError, SeveralErrors
from easysif.images.asking import FLAGS
from easysif.module import LAYER, LAYER_FILE
from easysif.packages import asked as asked_for
from easysif.packages import installers, protected
from easysif.packages.pins import key
from easysif.resources import PACKAGES, mksquashfs_options, mountable
from easysif.run import failure, run
from easysif.site_plan import CA_VARIABLES

#: exit status of make_layer.py where the image's Python has no pip
NO_PIP = 4

#: the time of change of all that is in a layer, as in make_layer.py: the same packages give the same bytes
TIME = 315619200

#: what pip is told besides; by variables, as old versions ignore those that they do not know
PIP = {'PIP_NO_INPUT': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1', 'PIP_NO_COMPILE': '1', 'PIP_USER': '0',
       'PIP_NO_WARN_SCRIPT_LOCATION': '0', 'PIP_PROGRESS_BAR': 'off', 'PIP_ROOT_USER_ACTION': 'ignore',
       'PYTHONHASHSEED': '0', 'PYTHONNOUSERSITE': '1', 'PYTHONDONTWRITEBYTECODE': '1', 'SOURCE_DATE_EPOCH': str(TIME),
       'TMPDIR': LAYER + '/tmp'}


def add(recipe, facts, sif, runtime, site, root, work=None):
    """Make the layer of a recipe in an installation directory; return what ``easysif.json`` says of it (dict or None).

    :param recipe: the recipe (Recipe)
    :param facts: what the image holds (dict), to which is added where the commands are that the layer brings
    :param sif: the image (str)
    :param runtime: the container runtime (runtime.Runtime)
    :param site: the resolved site (Site)
    :param root: the installation directory (str)
    :param work: directory for temporary files (str), the system's where None
    :raises EasySIFError: the image has no pip, or pip could not install the packages, or they cannot be packed; or a
                          command of the recipe is not there
    """
    if not recipe.python_packages:
        return None
    with tempfile.TemporaryDirectory(prefix='layer-', dir=work) as directory:
        tree = os.path.join(directory, 'layer')
        told = _install(recipe, facts, sif, runtime, site, tree, os.path.join(directory, 'runscripts'))
        _find_commands(recipe, facts, told)
        _update_provides(facts, told)
        squashfs = mountable(site.squashfs, compressors.refused_of(site.squashfs['compressor'], sif, runtime))
        _pack(recipe, tree, os.path.join(root, LAYER_FILE), squashfs)
    return {'venv': recipe.venv, 'asked': list(recipe.python_packages), 'packages': told['packages']}


def _install(recipe, facts, sif, runtime, site, tree, runscripts):
    """Make the virtual environment below a directory, and return what helpers/make_layer.py tells of it (dict)."""
    os.makedirs(os.path.join(tree, 'tmp'))
    shutil.copytree(os.path.join(HELPERS, 'runscripts'), runscripts)
    inside, binds = _settings(facts, site)
    asked = {asked_for.package_of(one) for one in recipe.python_packages}
    kept = {name: version for name, version in (facts.get('provides') or {}).items() if key(name) not in asked}
    if kept:
        protected.write(runscripts, kept)
        own = facts['env'].get('PIP_CONSTRAINT')
        inside['PIP_CONSTRAINT'] = ' '.join(filter(None, ['/runscripts/' + protected.VARIABLES['PIP_CONSTRAINT'], own]))
    argv = runtime.exec_argv(
        sif, [facts['python']['path'], '-E', '-s', '-', '%s/venv/%s' % (LAYER, recipe.venv), *recipe.python_packages],
        flags=FLAGS, binds=[(tree, LAYER), (runscripts, '/runscripts', 'ro'), *binds])
    result = run(argv, env=runtime.environment(inside=inside), stdin=helper_text('make_layer.py'), check=False)
    answer = re.search('^easysif make-layer (.*)$', result.stdout, re.MULTILINE)
    if result.status or not answer:
        raise _error(recipe, facts, result)
    shutil.rmtree(os.path.join(tree, 'tmp'))
    return json.loads(answer.group(1))


def _find_commands(recipe, facts, told):
    """Add to what is known of an image where the commands are that the layer brings."""
    errors = []
    for word, known in facts['commands'].items():
        if word in told['scripts'] or word in told['commands'] and not known['path']:
            known.update(path='%s/venv/%s/bin/%s' % (LAYER, recipe.venv, word),
                         is_python_script=word in told['scripts'])
        elif not known['path']:
            near = schema.closest(word, told['commands'])
            errors.append(EasySIFError(
                recipe.where, "command '%s' is neither in the image nor in its python_packages" % word,
                facts=[('these bring', ', '.join(told['commands']))],
                hint="did you mean '%s'?" % near if near else 'add the package that brings it to python_packages'))
    if errors:
        raise SeveralErrors(errors)


def _update_provides(facts, told):
    """Have what the recipe provides say the version of the layer, where the recipe asks for one that hides the image's.

    It is protected from then on.
    """
    there = {key(one['name']): one['version'] for one in told['packages']}
    for name in facts.get('provides') or {}:
        facts['provides'][name] = there.get(key(name), facts['provides'][name])


def _settings(facts, site):
    """Return by what pip inside reaches an index: variables (dict) and binds (list of tuples)."""
    inside = index.variables()
    files = [path for path in index.CONFIGURATION if os.path.isfile(path)]
    for name, places in (('PIP_CONFIG_FILE', reversed(index.users_configuration())),
                         ('NETRC', (os.path.expanduser('~/.netrc'),))):
        there = next(filter(os.path.isfile, places), None)
        if there:
            inside.setdefault(name, there)
    if site.ca_certificates and os.path.exists(site.ca_certificates):
        for name in CA_VARIABLES:
            if name not in facts['env']:
                inside.setdefault(name, site.ca_certificates)
    if 'PIP_CACHE_DIR' not in inside:
        inside['PIP_NO_CACHE_DIR'] = '1'  # a cache in a home directory would fill its quota
    told = index.settings(inside, [inside.get('PIP_CONFIG_FILE', ''), *files])
    cache = {path for name, value in told if name == 'cache-dir' for path in index.paths(value)}
    return dict(inside, **PIP), [(path, path) if path in cache else (path, path, 'ro')
                                 for path in sorted({*index.here(told), *files})]


def _error(recipe, facts, result):
    """Return the error that tells why there is no layer (EasySIFError)."""
    if result.status == NO_PIP:
        return EasySIFError(recipe.where, "python_packages is given, but the image's python has no pip",
                            facts=[('python', '%(path)s  (%(version)s)' % facts['python'])], exit_code=INPUT,
                            hint='remove python_packages, or add pip to the image (Debian: python3-pip)')
    lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith('ERROR: ')][-3:] or lines[-3:]
    if not lines or result.status >= 0 and lines[-1].startswith('FATAL'):
        error = failure(result)
        return EasySIFError(recipe.where, 'the image did not start to install its python_packages',
                            facts=error.facts, exit_code=TOOL)
    unreachable, brings = installers.unreachable(result), installers.brings(result)
    if brings:
        names = ', '.join(one.split('==')[0] for one in brings)
        return EasySIFError(
            recipe.where, 'python_packages want another %s than the image has, which provides protects' % names,
            facts=[('the image has', ', '.join(brings)), ('pip', '\n'.join(told))],
            hint='write an older version into python_packages, or name %s there to have another one' % names)
    return EasySIFError(
        recipe.where, 'pip could not install %s (exit code %d)' % (', '.join(recipe.python_packages), result.status),
        facts=[('pip', '\n'.join(told))] * bool(told) + unreachable + installers.ignored(result),
        exit_code=TOOL if unreachable else INPUT,
        hint=index.HINT if unreachable else 'edit python_packages in the recipe; the image itself is fine')


def _pack(recipe, tree, path, squashfs):
    """Pack a directory so that the same content gives the same bytes, readable for all whatever the umask."""
    for parent, directories, names in os.walk(tree, topdown=False):
        for name in names + directories:
            _normalise(os.path.join(parent, name))
    _normalise(tree)
    env = {name: value for name, value in os.environ.items() if name != 'SOURCE_DATE_EPOCH'}
    result = run(['mksquashfs', tree, path, '-noappend', '-no-recovery', '-no-xattrs', '-no-progress', '-all-root',
                  *mksquashfs_options(squashfs), *PACKAGES], env=env, check=False)
    if result.status:
        raise EasySIFError(recipe.where, 'mksquashfs could not pack the python_packages', exit_code=TOOL,
                           facts=failure(result).facts, hint='df -h %s' % shlex.quote(os.path.dirname(path)))
    with open(path, 'r+b') as handle:  # the time at which it was made: the 32-bit word at offset 8 of the superblock
        handle.seek(8)
        handle.write(struct.pack('<I', TIME))


def _normalise(path):
    mode = os.lstat(path).st_mode
    if not stat.S_ISLNK(mode):
        os.chmod(path, 0o755 if mode & 0o100 or stat.S_ISDIR(mode) else 0o644)
    os.utime(path, (TIME, TIME), follow_symlinks=False)
