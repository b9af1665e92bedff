# SPDX-License-Identifier: GPL-2.0-only
"""A site: how this cluster provides what recipes need. Layers of YAML files and variables, resolved into one.

Layers: sites/default.yaml < the site < ~/.config/easysif/site.yaml < ``EASYSIF_<SETTING>``. Texts and numbers
replace, lists add up without repeats, mappings merge by key. It knows no recipe but what one needs.
"""

import fnmatch
import os
import socket
from dataclasses import dataclass

from easysif import schema, yaml_file
from easysif.data import DIRECTORY
from easysif.errors import EasySIFError, SeveralErrors

SITES = os.path.join(DIRECTORY, 'sites')

#: where distributions keep the bundle of certificates that they trust
CA_BUNDLES = ('/etc/ssl/certs/ca-certificates.crt',                 # Debian
              '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',  # Red Hat
              '/var/lib/ca-certificates/ca-bundle.pem',             # SUSE
              '/etc/ssl/cert.pem')                                  # Alpine

#: what is chosen otherwise: ``match`` belongs to a profile, and EASYSIF_OVERLAYS is read when a module is loaded
_NO_VARIABLE = ('match', 'overlays')

_LEVELS = {'gzip': 9, 'lzo': 9, 'zstd': 22}  # the highest that mksquashfs takes; the others have none


@dataclass(frozen=True)
class Need:
    """What provides a need: binds (tuple of ``source[:destination[:options]]``) and container_env (dict)."""

    binds: tuple
    container_env: dict


@dataclass(frozen=True)
class Site:
    """All settings of a site; sites/default.yaml explains each. A path that is not set is None.

    ``name`` and ``path`` are those of its profile. ``provides`` maps a need to a Need, ``registry_mirrors`` a host
    to a tuple of URLs, ``base_images`` a reference to a path. ``overlays`` may hold ``$NAME`` and ``${NAME}``.
    """

    name: str
    path: str
    runtime: str
    image_store: str
    squashfs: dict
    binds: tuple
    container_env: dict
    provides: dict
    registry_mirrors: dict
    base_images: dict
    cache_dir: str
    tmp_dir: str
    ca_certificates: str
    verify: str
    keyring: str
    overlays: str
    module_dependency: str


@dataclass(frozen=True)
class Settings:
    """A site, and for each of its settings where the value came from (dict of str)."""

    site: Site
    origins: dict


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
    values, origins = {}, {'name': why, 'path': why}
    for label, layer in _layers(environ, name, path):
        for key, value in layer.items():
            if key == 'match':
                continue
            merged = _merge(values.get(key), value)
            if merged != values.get(key) or key not in origins:
                adds = isinstance(merged, (list, dict)) and values.get(key)
                origins[key] = '%s, %s' % (origins[key], label) if adds else label
            values[key] = merged
    _check_level(values['squashfs'], origins['squashfs'])
    if values['ca_certificates'] is None:
        values['ca_certificates'] = next((bundle for bundle in CA_BUNDLES if os.path.exists(bundle)), None)
        origins['ca_certificates'] = 'found on this machine' if values['ca_certificates'] else 'none on this machine'
    return Settings(_site(name, path, values), {key: origins[key] for key in Site.__dataclass_fields__})


def check_needs(recipe, site):
    """Do nothing where a site provides all that a recipe needs.

    :raises EasySIFError: it lacks something; all of it at once
    """
    errors = []
    for need in recipe.needs:
        if need not in site.provides:
            near = schema.closest(need, site.provides)
            hint = 'a new feature goes into %s' % _short(site.path)
            errors.append(EasySIFError(
                recipe.where, "needs '%s', which site '%s' does not provide" % (need, site.name),
                facts=[('provided', ', '.join(sorted(site.provides)) or 'nothing')],
                hint="did you mean '%s'? %s" % (near, hint) if near else hint))
    if errors:
        raise SeveralErrors(errors)


def read(path):
    """Return the settings in a site file (dict), as they are written.

    :raises EasySIFError: it cannot be read, or something in it is wrong; all problems at once
    """
    values, lines = yaml_file.read(path)
    values = {} if values is None else values
    _check(values, lambda place: '%s:%d' % (path, _line(place, lines)) if lines else path)
    return values


def _layers(environ, name, path):
    """Yield the label and the settings of each layer (str, dict), the lowest first."""
    yield 'default', read(shipped()['default'])
    if path != shipped()['default']:
        yield 'site %s' % name, read(path)
    user = os.path.join(environ.get('HOME') or os.path.expanduser('~'), '.config', 'easysif', 'site.yaml')
    if os.path.lexists(user):
        layer = read(user)
        if 'match' in layer:
            raise EasySIFError(user, 'match belongs into the profile of a site, not into your own settings',
                               hint='export EASYSIF_SITE=/path/to/site.yaml')
        yield '~/.config/easysif/site.yaml', layer
    for key, rules in schema.load('site')['properties'].items():
        variable = 'EASYSIF_%s' % key.upper()
        text = environ.get(variable)
        # empty counts as not set, as it does in shell, but where '' means something
        if key in _NO_VARIABLE or text is None or not (text or key == 'ca_certificates'):
            continue
        value = text if 'string' in rules['type'] else yaml_file.parse(text, variable)[0]
        _check({key: value}, lambda place: variable)
        yield variable, {key: value}


def _chosen(environ):
    """Return name and path of the site, and why it is this one (str)."""
    wanted, known = environ.get('EASYSIF_SITE'), shipped()
    if wanted and ('/' in wanted or wanted.endswith(('.yaml', '.yml'))):
        return os.path.splitext(os.path.basename(wanted))[0], os.path.abspath(wanted), 'EASYSIF_SITE'
    if wanted and wanted not in known:
        near = schema.closest(wanted, known)
        raise EasySIFError('EASYSIF_SITE', "there is no site '%s'" % wanted, facts=[('sites', ', '.join(known))],
                           hint="did you mean '%s'?" % near if near else 'export EASYSIF_SITE=/path/to/site.yaml')
    if wanted:
        return wanted, known[wanted], 'EASYSIF_SITE'
    host = socket.gethostname()
    fitting = [name for name in known if _matches(read(known[name]).get('match', {}).get('hostname', ''), host)]
    if len(fitting) > 1:
        raise EasySIFError('sites', 'several match this host: %s' % ', '.join(fitting), facts=[('host', host)],
                           hint='export EASYSIF_SITE=%s' % fitting[0])
    name = fitting[0] if fitting else 'default'
    return name, known[name], 'match of host %s' % host if fitting else 'default'


def _matches(patterns, host):
    names = {host, host.partition('.')[0]}
    return any(fnmatch.fnmatchcase(name, pattern.strip()) for pattern in patterns.split('|') for name in names)


def _check(values, place_of):
    """Raise all problems of one layer; ``place_of`` gives the place in it that keys lead to."""
    found = schema.problems('site', values, lambda key, value: '%s: %s' % (key, _yaml(value)))
    if found:
        raise SeveralErrors([EasySIFError(place_of(one.path), one.what, facts=one.facts, hint=one.hint)
                             for one in found])


def _check_level(squashfs, origin):
    compressor, level = squashfs['compressor'], squashfs['level']
    if level > _LEVELS.get(compressor, level):
        raise EasySIFError(origin, 'squashfs.level of %s must be a number from 1 to %d, not %d'
                           % (compressor, _LEVELS[compressor], level))


def _line(place, lines):
    """Return the line of a place in a file, or of the nearest place around it (int)."""
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _yaml(value):
    if isinstance(value, dict):
        return '{%s}' % ', '.join('%s: %s' % (key, _yaml(item)) for key, item in value.items())
    return '[%s]' % ', '.join(map(_yaml, value)) if isinstance(value, list) else str(value)


def _merge(low, high):
    if isinstance(low, (list, dict)) and high is None:
        return low
    if isinstance(low, dict):
        return {**low, **{key: _merge(low.get(key), value) for key, value in high.items()}}
    return list(dict.fromkeys(low + high)) if isinstance(low, list) else high


def _site(name, path, values):
    provides = {need: what or {} for need, what in values['provides'].items()}
    return Site(**{
        **values, 'name': name, 'path': path, 'binds': tuple(values['binds']),
        'provides': {need: Need(tuple(what.get('binds') or ()), dict(what.get('container_env') or {}))
                     for need, what in provides.items()},
        'registry_mirrors': {host: tuple(urls) for host, urls in values['registry_mirrors'].items()}})


def _short(path):
    """Return a path as one would type it here (str)."""
    near = os.path.relpath(path)
    return path if near.startswith('..') else near
