# SPDX-License-Identifier: GPL-2.0-only
"""A site: how this cluster provides what recipes need. Layers of YAML files and variables, resolved into one.

Layers: sites/default.yaml < the site < ~/.config/easysif/site.yaml < ``EASYSIF_<SETTING>`` < what the site forces.
``layers`` says how they become one. It knows no recipe.
"""

import fnmatch
import os
import socket
from dataclasses import dataclass, field

from easysif import layers, needs, schema, yaml_file
from easysif.data import DIRECTORY
from easysif.errors import EasySIFError, SeveralErrors

SITES = os.path.join(DIRECTORY, 'sites')

#: where distributions keep the bundle of certificates that they trust
CA_BUNDLES = ('/etc/ssl/certs/ca-certificates.crt',                 # Debian
              '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',  # Red Hat
              '/var/lib/ca-certificates/ca-bundle.pem',             # SUSE
              '/etc/ssl/cert.pem')                                  # Alpine

#: what only the profile of a site may hold: which hosts are its own, and what nobody else can change
_OF_A_PROFILE = ('match', 'force')

#: what has no variable; EASYSIF_OVERLAYS is read when a module is loaded
_NO_VARIABLE = (*_OF_A_PROFILE, 'overlays')

_LEVELS = {'gzip': 9, 'lzo': 9, 'zstd': 22}  # the highest that mksquashfs takes; the others have none


@dataclass(frozen=True)
class Need:
    """What provides a need.

    :param binds: ``source[:destination[:options]]``, with patterns in the source (tuple of str)
    :param container_env: environment inside (dict)
    :param path: directories inside that are searched for commands, last (tuple of str)
    :param library_path: directories inside that are searched for libraries, first (tuple of str)
    :param requires: other needs that come with it (tuple of str)
    :param conflicts: other needs that it does not go with (tuple of str)
    :param libraries: libraries of the host that come with all that they need, ``path[:name]`` (tuple of str)
    """

    binds: tuple
    container_env: dict
    path: tuple = ()
    library_path: tuple = ()
    requires: tuple = ()
    conflicts: tuple = ()
    libraries: tuple = ()


@dataclass(frozen=True)
class Site:
    """All settings of a site; sites/default.yaml explains each. A path that is not set is None.

    ``name`` and ``path`` are those of its profile. ``provides`` maps a need to a Need, ``registry_mirrors`` a host
    to a tuple of URLs, ``base_images`` a reference to a path. ``overlays`` may hold ``$NAME`` and ``${NAME}``.
    ``registries`` is None where all are allowed. ``force`` holds the settings that are forced, as they are written.
    """

    name: str
    path: str
    runtime: str
    image_store: str
    image_mode: str
    squashfs: dict
    binds: tuple
    container_env: dict
    isolation: tuple
    provides: dict
    registries: tuple
    registry_mirrors: dict
    base_images: dict
    cache_dir: str
    tmp_dir: str
    ca_certificates: str
    verify: str
    keyring: str
    overlays: str
    login_host: str
    share: str
    module_dependency: str
    job: dict
    force: dict


@dataclass(frozen=True)
class Settings:
    """A site, and for each of its settings where the value came from: a dict, of the shape that ``layers`` says."""

    site: Site
    origins: dict


@dataclass(frozen=True)
class Layer:
    """The settings of one file or variable (dict), what it is called (str), and the line of each key (dict)."""

    label: str
    path: str
    values: dict
    lines: dict = field(default_factory=dict)

    def place(self, keys):
        """Return where something stands: file and line, or the variable (str)."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return '%s:%d' % (self.path, self.lines.get(keys, 1)) if self.lines else self.path


def shipped():
    """Return the profiles that come with EasySIF: a dict from name to path, in the order of names."""
    return {os.path.splitext(name)[0]: os.path.join(SITES, name)
            for name in sorted(os.listdir(SITES)) if name.endswith('.yaml')}


def resolve(environ=None):
    """Return the settings that hold here (Settings).

    :param environ: the environment (dict), the process's own where None
    :raises EasySIFError: a layer cannot be read or is not valid, or it is not clear which site this is
    """
    environ = os.environ if environ is None else environ
    name, path, why = _chosen(environ)
    return _settled(name, path, why, [*_profile(name, path), *_users(environ)])


def profile(path, name=None):
    """Return the settings of a profile without those of the user (Settings).

    :param path: the file (str)
    :param name: what it is called (str), its file name where None
    :raises EasySIFError: it cannot be read or is not valid
    """
    name = name or _name(path)
    return _settled(name, path, path, list(_profile(name, path)))


def read(path):
    """Return the settings in a site file (dict), as they are written.

    :raises EasySIFError: it cannot be read, or something in it is wrong; all problems at once
    """
    return _read(path, path).values


def _settled(name, path, why, stacked):
    """Return the settings that layers make (Settings)."""
    forced = next((layer for layer in reversed(stacked) if layer.values.get('force')), None)
    if forced:
        stacked.append(Layer('%s, forced' % forced.label, forced.path, forced.values['force']))
    values, origins = layers.stack([(layer.label, {key: value for key, value in layer.values.items()
                                                   if key != 'match'}) for layer in stacked])
    origins.update(name=why, path=why)

    def place(keys):
        first = keys[:2]
        for layer in reversed(stacked):
            inner = layer.values.get(first[0])
            if isinstance(inner, dict) and first[1] in inner:
                return layer.place(keys)
        return path
    _check_level(values['squashfs'], place)
    if values['ca_certificates'] is None:
        values['ca_certificates'] = next((bundle for bundle in CA_BUNDLES if os.path.exists(bundle)), None)
        origins['ca_certificates'] = 'found on this machine' if values['ca_certificates'] else 'none on this machine'
    site = _site(name, path, values)
    needs.check_site(site.provides, place)
    for need, known in origins['provides'].items() if site.provides else ():
        missing = 'default' if isinstance(known, dict) else known
        origins['provides'][need] = {key: known[key] if key in known and isinstance(known, dict) else missing
                                     for key in Need.__dataclass_fields__}
    return Settings(site, {key: origins[key] for key in Site.__dataclass_fields__})


def _profile(name, path):
    """Yield the layers of a profile (Layer), the lowest first."""
    yield _read(shipped()['default'], 'default')
    if path != shipped()['default']:
        yield _read(path, 'site %s' % name)


def _users(environ):
    """Yield the layers of the user (Layer), the lowest first."""
    user = os.path.join(environ.get('HOME') or os.path.expanduser('~'), '.config', 'easysif', 'site.yaml')
    if os.path.lexists(user):
        layer = _read(user, '~/.config/easysif/site.yaml')
        for key in _OF_A_PROFILE:
            if key in layer.values:
                raise EasySIFError(layer.place((key,)), '%s belongs into the profile of a site, not into your own '
                                   'settings' % key, hint='export EASYSIF_SITE=/path/to/site.yaml')
        yield layer
    for key, rules in schema.load('site')['properties'].items():
        variable = 'EASYSIF_%s' % key.upper()
        text = environ.get(variable)
        # empty counts as not set, as it does in shell, but where '' means something
        if key in _NO_VARIABLE or text is None or not (text or key == 'ca_certificates'):
            continue
        value = text if 'string' in rules.get('type', 'string') else yaml_file.parse(text, variable)[0]
        layer = Layer(variable, variable, {key: value})
        _check(layer)
        yield layer


def _read(path, label):
    values, lines = yaml_file.read(path)
    layer = Layer(label, path, {} if values is None else values, lines)
    _check(layer)
    return layer


def named(wanted, where='site'):
    """Return name and path of the profile that a word or a path means (str).

    :param wanted: the name of a profile, or a file (str)
    :param where: who names it, for messages (str)
    :raises EasySIFError: no profile has that name
    """
    known = shipped()
    if '/' in wanted or wanted.endswith(('.yaml', '.yml')):
        return _name(wanted), os.path.abspath(wanted)
    if wanted not in known:
        near = schema.closest(wanted, known)
        raise EasySIFError(where, "there is no site '%s'" % wanted, facts=[('sites', ', '.join(known))],
                           hint="did you mean '%s'?" % near if near else 'export EASYSIF_SITE=/path/to/site.yaml')
    return wanted, known[wanted]


def _chosen(environ):
    """Return name and path of the site, and why it is this one (str)."""
    if environ.get('EASYSIF_SITE'):
        return (*named(environ['EASYSIF_SITE'], 'EASYSIF_SITE'), 'EASYSIF_SITE')
    known, host = shipped(), socket.gethostname()
    fitting = [name for name in known if _matches(read(known[name]).get('match', {}), host)]
    if len(fitting) > 1:
        raise EasySIFError('sites', 'several match this host: %s' % ', '.join(fitting), facts=[('host', host)],
                           hint='export EASYSIF_SITE=%s' % fitting[0])
    name = fitting[0] if fitting else 'default'
    return name, known[name], 'match of host %s' % host if fitting else 'default'


def _matches(match, host):
    names, patterns = {host, host.partition('.')[0]}, match.get('hostname', '').split('|')
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns for name in names) and (
        os.path.exists(match.get('path', '/')))


def _name(path):
    return os.path.splitext(os.path.basename(path))[0]


def _check(layer):
    """Raise all problems of one layer."""
    found = schema.problems('site', layer.values, lambda key, value: '%s: %s' % (key, _yaml(value)))
    if found:
        raise SeveralErrors([EasySIFError(layer.place(one.path), one.what, facts=one.facts, hint=one.hint)
                             for one in found])


def _check_level(squashfs, place):
    compressor, level = squashfs['compressor'], squashfs['level']
    if level > _LEVELS.get(compressor, level):
        raise EasySIFError(place(('squashfs', 'level')), 'squashfs.level of %s must be a number from 1 to %d, not %d'
                           % (compressor, _LEVELS[compressor], level))


def _yaml(value):
    if isinstance(value, dict):
        return '{%s}' % ', '.join('%s: %s' % (key, _yaml(item)) for key, item in value.items())
    return '[%s]' % ', '.join(map(_yaml, value)) if isinstance(value, list) else str(value)


def _site(name, path, values):
    registries = values['registries']
    return Site(**{
        **values, 'name': name, 'path': path, 'binds': tuple(values['binds']), 'isolation': tuple(values['isolation']),
        'registries': None if registries is None else tuple(registries),
        'provides': {need: _need(what or {}) for need, what in values['provides'].items()},
        'registry_mirrors': {host: tuple(urls) for host, urls in values['registry_mirrors'].items()}})


def _need(what):
    return Need(**{'binds': (), **{key: tuple(value or ()) for key, value in what.items()},
                   'container_env': dict(what.get('container_env') or {})})
