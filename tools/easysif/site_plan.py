# SPDX-License-Identifier: GPL-2.0-only
"""The part of a module's plan that is about its site: binds, variables inside, GPUs, and modules of nothing else.

What the site says of a need is read where and when the module is loaded or its wrapper runs.
"""

import re

from easysif.plan import (All, Bind, Bindable, BindEach, Choose, DependOn, Env, Exists, Family, Filled, Inside,
                          InsideEach, IsUnset, Local, Note, Push, PushBinds, Site, text)

#: the switches of both runtimes that bring a GPU's driver into the image, by the need that asks for it
GPU_SWITCHES = {'nvidia-gpu': 'NV', 'amd-gpu': 'ROCM'}

#: a need that every module has: what its site forces, whatever recipe and user say
FORCE = 'FORCE'

#: variables by which pip, OpenSSL, requests and curl find the certificates that this site trusts
CA_VARIABLES = ('PIP_CERT', 'SSL_CERT_FILE', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE')

#: what the runtime's shell inside makes of it: the search path of an image that is not known, none where it has none
_OF_THE_IMAGE = '${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}'


def bindings_plan(inst):
    """Return what loading a module does that has no image (list of statements): what a site provides, for any image.

    It keeps what it did where an environment module does, so that of all these one is loaded at a time.

    :param inst: what is installed (Installation)
    """
    return [
        Note('binds: what the recipe, its needs and the site bind; only what this node has'),
        BindEach(FORCE),
        *site_binds(inst),
        Note('inside any image'),
        *certificates(inst),
        *site_variables(inst),
        *gpu(inst),
        Note('the module of the runtime where the site has one'),
        runtime_module(),
        environment_family(),
    ]


def site_binds(inst):
    """Return the binds of recipe, needs and site, and the statement that ends all binds (list of statements)."""
    statements = []
    for entry in inst.binds:
        source, target, options = (entry.split(':', 2) + ['', ''])[:3]
        statements.append(Bind(text(source), target, options))
    statements += [BindEach(need) for need in inst.needs] + [BindEach()]
    return statements + [
        Bind(text(Env('TMPDIR')), guard=All((Filled(text(Env('TMPDIR'))), Bindable(text(Env('TMPDIR')))))),
        Bind(text(Site('ca_certificates')), guard=Filled(text(Site('ca_certificates')))),
        PushBinds(),
    ]


def certificates(inst):
    """Return the variables that name the site's certificates, unless image or user have set them (list)."""
    bundle, statements = text(Site('ca_certificates')), []
    for name in CA_VARIABLES:
        if name not in inst.image_env:
            free = [IsUnset(prefix + name) for prefix in ('', 'APPTAINERENV_', 'SINGULARITYENV_')]
            statements.append(Inside(name, bundle, All((Exists(bundle), *free))))
    return statements


def site_variables(inst):
    """Return the variables inside that site, needs and recipe set, the later over the former (list of statements)."""
    statements = [InsideEach()] + [InsideEach(need) for need in inst.needs]
    statements += [Inside(name, text(literal(value))) for name, value in sorted(inst.container_env.items())]
    return statements + (_searched(inst) if inst.needs else []) + [InsideEach(FORCE)]


def gpu(inst):
    """Return the switches for the GPUs that are needed (list of statements)."""
    switches = [GPU_SWITCHES[need] for need in inst.needs if need in GPU_SWITCHES]
    return [Push('%s_%s' % (runtime, switch), text('1'))
            for switch in switches for runtime in ('SINGULARITY', 'APPTAINER')]


def runtime_module():
    """Return what loads the module of the runtime where the site has one (statement)."""
    return DependOn(text(Site('module_dependency')), Filled(text(Site('module_dependency'))))


def environment_family():
    """Return what lets one module be loaded of all that set the generic variables (statement)."""
    return Family('easysif_environment')


def literal(value):
    """Return a value for ``…ENV_`` variables so that it arrives as it is (str).

    A shell inside the image evaluates what the runtimes hand on: backslashes, dollars and backticks are escaped.
    Double quotes the runtimes escape themselves (measured with Apptainer 1.4.5).
    """
    return re.sub(r'([\\$`])', r'\\\1', value)


def _searched(inst):
    """Where commands and libraries of the needs are: after those of the image, and before, unless the user says so."""
    own = inst.container_env.get('LD_LIBRARY_PATH', inst.image_env.get('LD_LIBRARY_PATH'))
    behind = ':' + literal(own) if own else '' if inst.sif_name else _OF_THE_IMAGE
    libraries = [Local('needed_libraries')] + ([behind] if behind else [])
    statements = []
    for name, values in (('APPEND_PATH', [Local('needed_path')]), ('LD_LIBRARY_PATH', libraries)):
        users, where = [Env(prefix + name) for prefix in ('APPTAINERENV_', 'SINGULARITYENV_')], name.lower()
        cases = tuple((Filled(text(one)), text(one, ':', *values)) for one in users)
        statements += [Choose(where, cases, text(*values)),
                       Inside(name, text(Local(where)), Filled(text(values[0])))]
    return statements
