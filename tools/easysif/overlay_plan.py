# SPDX-License-Identifier: GPL-2.0-only
"""What a module does about overlays: where the user's own is and whether it can be used, and what lies beneath it.

Everything is decided where and when the module is loaded or its wrapper runs, from a few bytes of a few files.
"""

from easysif.plan import (All, Bind, Bindable, Choose, Env, Exists, Filled, IsAbsolute, IsDirectory, IsLoading, IsSame,
                          Local, LookAtSquashfs, MakeDirectory, Mine, Not, Note, Readable, ReadWord, Site, Tell, Warn,
                          Writable, message, text)

OVERLAY = '/user-software'    #: where the user's own is inside
SHARED = '/shared-software'   #: and that of those who installed the module
LAYER = '/layer'              #: and the packages of the recipe
MADE_FOR = '/made-for'        #: a file of CONTAINERROOT: ``python 3.12``, ``at /usr/bin/python3``, ``image sha256:…``

PREFIXS = text(Local('prefix'), '/overlays')
DIRECTORY = text(Local('containerroot'), OVERLAY)
SQUASHFS = text(Local('containerroot'), OVERLAY, '.squashfs')


def places(inst):
    """Return where the user's packages are, and what of it can be used (list of statements).

    :param inst: what is installed (Installation)
    """
    chosen, overlays, home = text(Local('chosen')), text(Local('overlays')), text(Local('in_home'))
    marker = text(Local('prefix'), '/easysif/prefix.json')
    statements = [
        Note("the user's directory for this module: the prefix's own, or one's own where others installed"),
        Choose('chosen', ((All((Mine(marker), Writable(marker))), PREFIXS),
                          (Filled(text(Env('EASYSIF_OVERLAYS'))), text(Env('EASYSIF_OVERLAYS'))),
                          (Mine(marker), PREFIXS),  # read-only now: elsewhere nobody would find what is in it
                          (Filled(text(Site('overlays'))), text(Site('overlays'))))),
        Choose('in_home', ((All((Not(Filled(chosen)), Filled(text(Env('HOME'))))),
                            text(Env('HOME'), '/.local/share/easysif/overlays')),)),
        Choose('overlays', ((Filled(home), home),), chosen),
        Choose('containerroot', ((All((IsAbsolute(overlays), Bindable(overlays))),
                                  text(overlays, '/', inst.module)),)),
    ]
    if not inst.python_env:
        return statements + [Choose('packed', ()), Choose('user_software', ())]
    return statements + _own(inst) + _made_for(inst) + _shared(inst)


def overlay_binds():
    """Return the binds of the overlays (list of statements)."""
    packed, shared = text(Local('packed')), text(Local('shared_packed'))
    return [
        Bind(packed, OVERLAY, 'image-src=/,ro', Filled(packed)),
        Bind(text(Local('user_software')), OVERLAY, '',
             All((Not(Filled(packed)), IsDirectory(text(Local('user_software')))))),
        Bind(shared, SHARED, 'image-src=/,ro', Filled(shared)),
        Bind(text(Local('shared_directory')), SHARED, 'ro', Filled(text(Local('shared_directory')))),
    ]


def own_venv(inst):
    """Return which virtual environments of overlays there are for this Python.

    :param inst: what is installed (Installation)
    :returns: statements (list), their part of PATH, each with a colon before it, and the first of them (texts), which
              is the layer's where overlays have none
    """
    own, shared = ('%s/venv/%s' % (place, inst.python_env) for place in (OVERLAY, SHARED))
    fits = Not(Filled(text(Local('other_python'))))
    statements = [
        Choose('shared_venv', ((Filled(text(Local('shared_packed'), Local('shared_directory'))), text(shared)),)),
        Choose('virtual_env', ((fits, text(own)), (Filled(text(Local('shared_venv'))), text(Local('shared_venv')))),
               text('%s/venv/%s' % (LAYER, inst.layer)) if inst.layer else ()),
        Choose('own_path', ((fits, text(':%s/bin' % own)),)),
        Choose('venvs_path', ((Filled(text(Local('shared_venv'))), text(Local('own_path'), ':%s/bin' % shared)),),
               text(Local('own_path'))),
    ]
    return statements, text(Local('venvs_path')), text(Local('virtual_env'))


def _own(inst):
    state, root = text(Local('state')), text(Local('containerroot'))
    refused = All((Filled(state), *(Not(IsSame(state, text(word))) for word in ('whole', 'damaged'))))
    return [
        Note('the overlay: the squashfs if it is whole and can be mounted, else the directory'),
        Warn(message(inst.module, 'there is no place for an overlay, packages cannot be added',
                     (('path', text(Local('overlays'))),), text('export EASYSIF_OVERLAYS=/<a directory>')),
             Not(Filled(root))),
        LookAtSquashfs('state', SQUASHFS),
        Warn(message(inst.module, 'user-software.squashfs is damaged and not used', (('file', SQUASHFS),),
                     text('mv -- "', SQUASHFS, '" "', SQUASHFS, '.damaged"')), IsSame(state, text('damaged'))),
        Warn(message(inst.module, 'user-software.squashfs cannot be mounted by the container runtime here and is not '
                     'used', (('file', SQUASHFS), ('compressor', state)),
                     text('unmake-squashfs && make-squashfs && module reload')), refused),
        Choose('packed', ((IsSame(state, text('whole')), SQUASHFS),)),
        Choose('first_use', ((All((Filled(text(Local('in_home'))), Filled(root), Not(Exists(root)))), text('yes')),)),
        Choose('like', ((IsDirectory(root), root), (IsSame(text(Local('overlays')), PREFIXS), text(Local('prefix'))))),
        MakeDirectory(DIRECTORY, text(Local('like')), All((Filled(root), Not(Exists(SQUASHFS))))),
        Tell(message(inst.module, 'the packages that you add go into your home directory, and count against its quota',
                     (('directory', root),), text('to have them elsewhere: export EASYSIF_OVERLAYS=/<a directory> && '
                                                  'module reload')),
             All((Filled(text(Local('first_use'))), IsDirectory(root)))),
        Choose('user_software', ((Filled(root), DIRECTORY),)),
    ]


def _made_for(inst):
    """An overlay for another Python, or for one elsewhere, to which its links lead, is not used; for another image of
    the same Python it may work, and that is said. A directory that somebody copied here tells by itself for which
    Python it is, whatever is recorded.
    """
    venv = text(DIRECTORY, '/venv/%s' % inst.python_env)
    python, place, image, other = (text(Local(name)) for name in ('made_for', 'made_at', 'made_with', 'other_python'))
    rebuild = 'easysif overlay rebuild %s; or, to ' % inst.module
    ways = text(rebuild + 'keep it as it is: rm -- "', Local('containerroot'), MADE_FOR, '"')
    anew = text(rebuild + 'begin anew: mv -- "', DIRECTORY, '" "', DIRECTORY, '.other"')
    directory = ('directory', text(Local('containerroot')))
    libraries = [text(venv, '/lib/', name % inst.python_version) for name in ('python%s', 'python%st', 'pypy%s')]
    copied = All((Not(Filled(text(Local('packed')))), Exists(text(venv, '/pyvenv.cfg')),
                  *(Not(Exists(library)) for library in libraries)))
    unlike = text('other than %s' % inst.python_version)
    return [
        Note('what the overlay was made for'),
        ReadWord('made_for', text(Local('containerroot'), MADE_FOR), 'python'),
        ReadWord('made_at', text(Local('containerroot'), MADE_FOR), 'at'),
        ReadWord('made_with', text(Local('containerroot'), MADE_FOR), 'image'),
        Choose('has_venv', ((Filled(text(Local('packed'))), text('yes')), (Exists(venv), text('yes')))),
        Choose('other_python', ((_another(python, inst.python_version), text(python, ' ', place)),
                                (_another(place, inst.python), text(python, ' ', place)),
                                *([(copied, unlike)] if inst.python_version else []))),
        Choose('ways', ((IsSame(other, unlike), anew),), ways),
        Warn(message(inst.module, 'your packages are for another Python and are not used',
                     (('made for', text('Python ', other)),
                      ('the image has', text('Python %s %s' % (inst.python_version, inst.python))), directory),
                     text(Local('ways'))), Filled(other)),
        Warn(message(inst.module, 'your packages were made with another image', (
            ('made with', image), ('this one', text(inst.image)), directory), ways),
            All((IsLoading(), Not(Filled(other)), _another(image, inst.image)))),
    ]


def _another(found, known):
    """Return the guard that an overlay with packages was made for something else than there is now."""
    return All((Filled(text(Local('has_venv'))), Filled(found), Filled(text(known)), Not(IsSame(found, text(known)))))


def _shared(inst):
    root, python = text(Local('shared')), text(Local('shared_for'))
    squashfs, directory = text(root, OVERLAY, '.squashfs'), text(root, OVERLAY)
    fits = All((Filled(root), Not(All((Filled(python), Not(IsSame(python, text(inst.python_version))))))))
    return [
        Note('beneath it, for reading: the overlay of those who installed the module, where it is another one'),
        Choose('shared', ((Not(IsSame(text(Local('overlays')), PREFIXS)), text(PREFIXS, '/', inst.module)),)),
        LookAtSquashfs('shared_state', squashfs),
        ReadWord('shared_for', text(root, MADE_FOR), 'python'),
        Choose('shared_packed', ((All((fits, IsSame(text(Local('shared_state')), text('whole')), Readable(squashfs))),
                                  squashfs),)),
        Choose('shared_directory', ((All((fits, Not(Filled(text(Local('shared_packed')))), IsDirectory(directory),
                                          Readable(directory))), directory),)),
    ]
