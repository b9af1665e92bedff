# SPDX-License-Identifier: GPL-2.0-only
"""What the module of one installation does: its plan, written with the words of ``plan.py``."""

import shlex
from dataclasses import dataclass, field
from typing import Optional

from easysif.images.inspect import Conda
from easysif.overlay_plan import LAYER, OVERLAY, overlay_binds, own_venv, places
from easysif.packages.protected import VARIABLES
from easysif.plan import (All, Bind, BindEach, Choose, Env, Exists, Fail, Filled, HasImage, Inside, IsDirectory, IsSame,
                          IsUnset, Local, LookAtSquashfs, Not, Note, Push, Set, Site, message, text)
from easysif.site_plan import (FORCE, bindings_plan, certificates, environment_family, gpu, literal, runtime_module,
                               site_binds, site_variables)

#: characters of a command to activate an environment, which every process of the user gets several times
LONGEST = 4096

LAYER_FILE = 'layer.squashfs'  #: in an installation
RUNSCRIPTS = '/runscripts'


@dataclass(frozen=True)
class Command:
    """A wrapper: what it runs inside the image, and whether that is a Python script of the image."""

    words: tuple
    python_script: Optional[str] = None


@dataclass(frozen=True)
class Installation:
    """What the plan of a module depends on. All of it is known at install and none of it depends on the site.

    :param module: name and full version (str), as in ``jax/24.10-singularity``
    :param prefix: EasyBuild's install path (str)
    :param root: the installation directory (str)
    :param variable: the name as it stands in ``EBROOT<NAME>`` (str)
    :param sif_name: file name of the image in ``root`` (str), empty where the module is for images of its users
    :param sif_size: its size in bytes (int)
    :param shell: the image's own bash or sh (str), None where it has neither
    :param image_env: variables that the image itself defines (dict)
    :param environment: an environment module, not a tool module (bool)
    :param eb_python: the Python that runs EasyBuild (str)
    :param python_env: name of the virtual environment in the overlay (str), None where the module has no overlay
    :param layer: name of the virtual environment in the layer (str), None where the module has no layer
    :param python: path of the image's Python (str), empty where it has none
    :param python_version: of the image's Python, as ``3.12`` (str), empty where it is not known
    :param image: ``sha256:…`` of the image (str), empty where it is not known
    :param runscripts: commands of ours that the recipe wants beside those of every module (sequence of str)
    :param sif_link: the file of the image store that is run (str), None where the module has an image of its own
    """

    module: str
    prefix: str
    root: str
    variable: str
    sif_name: str
    sif_size: int
    environment: bool
    eb_python: str
    python_env: Optional[str] = None
    layer: Optional[str] = None
    python: str = ''
    python_version: str = ''
    image: str = ''
    sif_link: Optional[str] = None
    conda: Optional[Conda] = None
    shell: Optional[str] = None
    image_env: dict = field(default_factory=dict)
    needs: tuple = ()
    binds: tuple = ()
    container_env: dict = field(default_factory=dict)
    commands: dict = field(default_factory=dict)
    provides: dict = field(default_factory=dict)
    runscripts: tuple = ()

    @property
    def venv(self):
        """The name of the virtual environments in overlay and layer (str), None where there is neither."""
        return self.python_env or self.layer


def module_plan(inst):
    """Return what loading the module does (list of statements).

    A tool module sets only names of its own, so that any number of them can be loaded at once. One without an image
    does what its site provides to whatever image.

    :param inst: what is installed (Installation)
    """
    if not inst.sif_name:
        return bindings_plan(inst)
    if inst.environment:
        return wrapper_plan(inst)
    return _image(inst) + _names(inst)


def wrapper_plan(inst):
    """Return what a wrapper does before it starts the image, whatever is loaded (list of statements).

    :param inst: what is installed (Installation)
    """
    statements = _image(inst)
    if inst.environment:
        statements += places(inst)
    statements += _binds(inst) + _inside(inst) + gpu(inst) + _names(inst)
    return statements + _generic_names(inst) if inst.environment else statements


def activation(inst):
    """Return the commands that activate conda, the venv and both, inside the image (tuple of three str).

    An image that defines its own ``WITH_CONDA`` keeps it.
    """
    conda = inst.image_env.get('WITH_CONDA')
    if conda is None:
        conda = '. %s/init-conda' % RUNSCRIPTS if inst.conda else 'true'
    venv = '. %s/init-venv' % RUNSCRIPTS if inst.venv else 'true'
    both = '. %s/init-conda-venv' % RUNSCRIPTS if inst.conda or inst.venv else 'true'
    return conda, venv, both


def _image(inst):
    own = text(Local('root'), '/', inst.sif_name)
    stored = text(Site('image_store'), '/', inst.sif_name)
    # what it links to is the site's, which may put another image there; anybody else must not
    described = '%d bytes, not open to everybody' % inst.sif_size
    is_there, where = Exists(own), own
    if inst.sif_link:
        is_there = All((Exists(own), HasImage(text(inst.sif_link), inst.sif_size)))
        where = text('%s (%s)' % (inst.sif_link, described))
    restore = 'easysif image restore %s --prefix %s' % (inst.module, shlex.quote(inst.prefix))
    return [
        Note("the image: the module's own copy, else the one of that name and size in the site's image store"),
        Choose('sif', ((is_there, own),
                       (All((Filled(text(Site('image_store'))), HasImage(stored, inst.sif_size))), stored))),
        Choose('stored', ((Filled(text(Site('image_store'))), text(stored, ' (%s)' % described)),),
               text('nothing else: the site has no image store')),
        Fail(message(inst.module, 'the image is gone', (('looked for', where), ('and for', text(Local('stored')))),
                     text(restore)), Not(Filled(text(Local('sif'))))),
    ]


def _binds(inst):
    statements = [
        Note('binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has'),
        BindEach(FORCE),
        Bind(text(Local('root'), '/runscripts'), RUNSCRIPTS),
    ]
    if inst.python_env:
        statements += overlay_binds()
    if inst.layer:
        file = text(Local('root'), '/', LAYER_FILE)
        statements += [
            LookAtSquashfs('layer', file),
            Fail(message(inst.module, 'its layer of Python packages is gone or damaged', (('file', file),),
                         text('module unload %s; eb --rebuild %s.eb' % (
                             inst.module, inst.module.replace('/', '-', 1)))),
                 Not(IsSame(text(Local('layer')), text('whole')))),
            Bind(file, LAYER, 'image-src=/,ro'),
        ]
    return statements + site_binds(inst)


def _inside(inst):
    statements = [Note('inside the image')]
    path, virtual_env = (RUNSCRIPTS,), ''
    if inst.python_env:
        more, path, virtual_env = own_venv(inst)
        statements += more
        path = (RUNSCRIPTS, *path)
    if inst.layer:
        path += (':%s/venv/%s/bin' % (LAYER, inst.layer),)
        virtual_env = virtual_env or text('%s/venv/%s' % (LAYER, inst.layer))
    if inst.conda:
        path += (':%s/bin' % literal(inst.conda.prefix),)
    path = text(*path)
    apptainers, singularitys = [text(Env(prefix + 'PREPEND_PATH')) for prefix in ('APPTAINERENV_', 'SINGULARITYENV_')]
    statements += [
        Choose('path', ((All((Filled(apptainers), Filled(singularitys), Not(IsSame(apptainers, singularitys)))),
                         text(apptainers, ':', singularitys, ':', path)),
                        (Filled(apptainers), text(apptainers, ':', path)),
                        (Filled(singularitys), text(singularitys, ':', path))), text(path)),
        Inside('PREPEND_PATH', text(Local('path'))),
        Inside('PYTHONNOUSERSITE', text('1')),
    ]
    if virtual_env:
        statements.append(Inside('VIRTUAL_ENV', virtual_env, Filled(virtual_env) if inst.python_env else None))
    if inst.conda:
        statements += [Inside('CONDA_PREFIX', text(literal(inst.conda.prefix))),
                       Inside('CONDA_DEFAULT_ENV', text(literal(inst.conda.name)))]
    statements += certificates(inst)
    statements += _installers(inst) if inst.python_env else []
    return statements + site_variables(inst)


def _installers(inst):
    """What pip and uv have to know: what they must not replace, and for uv a cache beside what it installs.

    An image's own constraints stay. Its variables yield to those of the caller, unless these are empty.
    """
    statements = []
    for name, path in VARIABLES.items() if inst.provides else ():
        own = inst.image_env.get(name)
        free = [IsUnset(prefix + name) for prefix in ('APPTAINERENV_', 'SINGULARITYENV_')]
        value = ' '.join(filter(None, ['%s/%s' % (RUNSCRIPTS, path), literal(own or '')]))
        statements.append(Inside(name, text(value), All((IsUnset(name), *free))))
        if own:
            statements.append(Inside(name, text(), All((Not(IsUnset(name)), Not(Filled(text(Env(name)))), *free))))
    free = [IsUnset(prefix + 'UV_CACHE_DIR') for prefix in ('', 'APPTAINERENV_', 'SINGULARITYENV_')]
    return statements + [Inside('UV_CACHE_DIR', text(OVERLAY + '/.cache/uv'), All(
        (Not(Filled(text(Local('packed')))), IsDirectory(text(Local('user_software'))), *free)))]


def _names(inst):
    return [
        Note('names of this module alone, and the module of the runtime where the site has one'),
        runtime_module(),
        Set('SIF' + inst.variable, text(Local('sif'))),
        Set('RUNSCRIPTS' + inst.variable, text(Local('root'), '/runscripts')),
    ]


def _generic_names(inst):
    names = ('WITH_CONDA', 'WITH_VENV', 'WITH_CONDA_VENV')
    statements = [
        Note('names that every environment module sets'),
        environment_family(),
        Push('SIF', text(Local('sif'))),
        Push('CONTAINERROOT', text(Local('containerroot'))),
        Push('RUNSCRIPTS', text(Local('root'), '/runscripts')),
        Push('USER_SOFTWARE', text(Local('user_software'))),
    ]
    for name, command in zip(names, activation(inst)):
        if '\n' not in command and len(command) <= LONGEST:  # what the image itself has is of any kind
            statements += [Push(name, text(command)), Inside(name, text(literal(command)))]
    return statements + [
        Note('EasyBuild keeps its Python although this module wraps python3'),
        Choose('eb_python', ((Filled(text(Env('EB_PYTHON'))), text(Env('EB_PYTHON'))),), text(inst.eb_python)),
        Push('EB_PYTHON', text(Local('eb_python'))),
    ]
