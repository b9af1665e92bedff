# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild support for installing a container image as a module: EasyBuild's steps, each handed to EasySIF.

The work is done in the library ``easysif``; what stands here is how a step differs from EasyBuild's default.
"""

import os
import sys
from contextlib import contextmanager

from easysif import pin, secrecy
from easysif.data import check_version
from easysif.errors import EasySIFError, told
from easysif.images.kept import directories
from easysif.install import Install
from easysif.modes import Modes
from easysif.obtain import Places
from easysif.recipe import EMPTY, OURS, read, validate
from easysif.selftest import run_test
from easysif.site import resolve
from easysif.standing import Standing

from easybuild.framework.easyblock import EasyBlock
from easybuild.framework.easyconfig import CUSTOM
from easybuild.framework.easyconfig.easyconfig import ActiveMNS
from easybuild.framework.easyconfig.tools import get_paths_for
from easybuild.tools.build_log import EasyBuildError, print_msg, print_warning
from easybuild.tools.config import build_option, install_path, source_paths, update_build_option
from easybuild.tools.filetools import read_file
from easybuild.tools.modules import get_software_root_env_var_name
from easybuild.tools.utilities import trace_msg

VERSION = '0.1.0'  # of this easyblock; the library must be of the same one


class ContainerImage(EasyBlock):
    """Support for installing a container image (a SIF file) as a module."""

    INSTALLS = Install  #: what does the work

    @staticmethod
    def extra_options(extra_vars=None):
        """Our parameters; a recipe that has another one is refused."""
        ours = {name: [EMPTY[name], text, CUSTOM] for name, text in OURS.items()}
        return EasyBlock.extra_options(dict(extra_vars or {}, **ours))

    def __init__(self, *args, **kwargs):
        """An image needs no compiler, and only bin/ belongs on a search path."""
        self.modes = Modes(os.path.dirname(install_path()))
        os.umask(self.modes.umask)  # from here to the end: EasyBuild copies its log when we are done
        super().__init__(*args, **kwargs)
        self.modes.lend(self.logfile)
        secrecy.hide(self.log, build_option, update_build_option)
        self.toolchain.options['rpath'] = False
        self.module_load_environment.replace({'PATH': ['bin']})
        self.easysif = self.last_step = self.test_results = self.module_text = None
        links = [os.path.join(install_path('mod'), directory, os.path.relpath(self.mod_filepath, self.installdir_mod))
                 for directory in ActiveMNS().det_module_symlink_paths(self.cfg)]
        self.standing = Standing(self.installdir, self.install_subdir, self.mod_filepath, links, [self.builddir])
        if build_option('read_only_installdir'):  # else EasyBuild makes what stands there writable before it asks us
            self.installdir = self.standing.new

    def run_all_steps(self, run_test_cases):
        """Everything that can be known to be wrong is said before anything is made, also by EasyBuild."""
        self.installdir = self.standing.root
        try:
            self._prepare()
            if self.dry_run or build_option('sanity_check_only'):
                with self._options(ignore_locks=True):  # nothing is written
                    return super().run_all_steps(run_test_cases)
            steps = self.get_steps(run_test_cases, self.det_iter_cnt())
            self.last_step = [step for step, _, _, skippable in steps if not self.skip_step(step, skippable)][-1]
            return self._run_alone(run_test_cases)
        except (EasySIFError, OSError) as err:
            raise EasyBuildError('%s', told(err, os.path.basename(self.cfg.path))) from err
        finally:
            self.standing.tidy()

    def _run_alone(self, run_test_cases):
        """Run the steps under a lock of our own, in the place of EasyBuild's, which stays when its holder is killed."""
        limit = build_option('wait_on_lock_limit')
        with self.standing.alone(self.easysif.recipe.where, wait=None if limit < 0 else limit, tell=self._tell,
                                 hint='eb --wait-on-lock-limit=-1 %s' % self.cfg.path) as is_done:
            if is_done:
                self._tell('%s has been installed meanwhile, nothing is done again' % self.full_mod_name)
                return True
            # what stands is replaced at the end by us, not emptied by EasyBuild
            with self._options(ignore_locks=True, pre_create_installdir=False):
                try:
                    return super().run_all_steps(run_test_cases)
                finally:
                    self._withdraw()

    @contextmanager
    def _options(self, **options):
        before = {name: build_option(name) for name in options}
        for name, value in options.items():
            update_build_option(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                update_build_option(name, value)

    def run_step(self, step, step_methods):
        """After the last step the new installation takes its place; until then nothing that stands is touched."""
        super().run_step(step, step_methods)
        if step == self.last_step and self.module_text:
            self.standing.publish(self.easysif.complete(self.standing, self.module_text, self.test_results))
            self.installdir = self.standing.root
            self._warn(self.easysif.finish(self.installdir))
            self.modes.give(self.standing.module, *self.standing.missing, above=False)
            # and of those for all software, which EasyBuild makes before it asks us
            self.modes.give(*(os.path.dirname(os.path.dirname(path)) for path in (
                self.standing.module, *self.standing.links, self.installdir)))
            self.standing.clear()
            self.invalidate_module_caches(self.module_generator.get_modules_path())
            self.modules_tool.update()
            if self.set_default_module:
                self._set_module_as_default()

    def load_module(self, *args, **kwargs):
        """For test cases, which come before the installation is in its place: one that EasyBuild makes for the test."""
        if not self.module_text:
            return super().load_module(*args, **kwargs)
        text, self.module_text = self.module_text, None
        self.load_fake_module()
        self.module_text = text

    def _withdraw(self):
        self.installdir = self.standing.root
        if self.standing.is_ours():
            if not self.standing.is_published:
                self.easysif.undo()
            self.standing.clear()

    def fetch_step(self, *args, **kwargs):
        """Get the image as a SIF file first, then EasyBuild's own sources, if there are any."""
        if not self.easysif and self.cfg.validation:  # eb --job: the job gets the image, not the node of the users
            return super().fetch_step(*args, **kwargs)
        if not self.easysif:  # eb --inject-checksums, which does not validate
            try:
                return pin.inject(self.cfg.path, resolve().site, source_paths(), self._tell)
            except EasySIFError as err:
                raise EasyBuildError('%s', err) from err
        if self.dry_run:
            self.dry_run_msg('  * %s will be fetched', self.cfg['image'])
        elif not self._keeps_installation():
            self._tell('fetching %s' % self.cfg['image'])
            self._warn(self.easysif.sweep(self.builddir))
            super().make_builddir()
            self._warn(self.easysif.fetch(self._places()))
            self.log.info('what the making of the image printed: %s', self.easysif.output)
        super().fetch_step(*args, **kwargs)

    def make_builddir(self):
        """It is there since the image was fetched into it."""
        return None if os.path.isdir(self.builddir) else super().make_builddir()

    def extract_step(self):
        """There is nothing to extract, and nothing to configure."""

    configure_step = extract_step
    remove_module_file = extract_step  # the old one stays until the new one takes its place

    def build_step(self):
        """Look into the image; all that can fail without touching the old installation is done here."""
        if not self.dry_run:
            self._warn(self.easysif.inspect())

    def make_installdir(self, dontcreate=None):
        """The new installation is made beside the old one."""
        if not self.dry_run and not self._keeps_installation():
            self.installdir = self.standing.make()

    def install_step(self):
        """Put the image, the wrappers and the runscripts into the installation directory, and make the overlay."""
        if not self.dry_run:
            self.easysif.put(self.installdir, self.cfg['sanity_check_commands'])
            self.easysif.make_overlay()

    def sanity_check_step(self, *args, **kwargs):
        """Besides the recipe's own commands, each wrapper must start inside the image."""
        if not self.dry_run:
            self.easysif.check_start()
            kwargs['custom_paths'] = self.easysif.sanity_paths()
        super().sanity_check_step(*args, **kwargs)

    def _sanity_check_step_common(self, custom_paths, custom_commands):
        """The recipe's commands are run by us: what EasyBuild starts outlives a session that is killed."""
        paths, path_keys_and_check, commands = super()._sanity_check_step_common(custom_paths, custom_commands)
        if not self.dry_run:
            self.sanity_check_load_module()
            self.test_results, commands = [self._try(command) for command in commands], []
        return paths, path_keys_and_check, commands

    def _try(self, command):
        trace_msg("running command '%s' ..." % command)
        tested = run_test(command, self.easysif.missing_devices(), self.easysif.module)
        self.log.info('sanity check command %s: %s', command, tested.output)
        trace_msg("result for command '%s': %s" % (command, 'FAILED' if tested.note else 'OK'))
        if tested.record['result'] == 'failed':
            self.sanity_check_fail_msgs.append(tested.note)
        else:
            self._warn(tested.note)
        return tested.record

    def _tell(self, line):
        print_msg(line, log=self.log, silent=self.silent)

    def _warn(self, note):
        if note:
            print_warning(note, log=self.log, silent=self.silent)

    def sanity_check_rpath(self, *args, **kwargs):
        """Libraries inside an image are not ours to judge."""
        return []

    def make_module_description(self):
        """The help text ends with what the module offers."""
        self.cfg['usage'] = self.cfg['usage'] or self.easysif.usage()
        return super().make_module_description()

    def make_module_extra(self, *args, **kwargs):
        """What loading does to the environment is EasySIF's plan."""
        text = super().make_module_extra(*args, **kwargs)
        return text if self.dry_run else text + '\n' + self.easysif.module_text(self.standing.module)

    def make_extension_list(self, *args, **kwargs):
        """What `module spider` finds besides: packages of the layer, and what the recipe provides."""
        return super().make_extension_list(*args, **kwargs) + ([] if self.dry_run else self.easysif.extensions())

    def make_module_step(self, fake=False):
        """The module file is written when the installation takes its place; a module for developers has no use."""
        modules = super().make_module_step(fake=fake or not self.dry_run)
        if not fake and not self.dry_run:
            self.module_text = read_file(self.module_generator.get_module_filepath(fake=True))
        return modules

    def permissions_step(self):
        """The image is for reading only, and what else the prefix grants is granted, unless EasyBuild was told more."""
        super().permissions_step()
        if not self.dry_run:
            self.easysif.permit(self.modes, self.group, build_option('group_writable_installdir'))

    def _prepare(self):
        check_version(VERSION, os.path.abspath(__file__))
        self.easysif = self.INSTALLS(self._recipe(), resolve().site, os.path.dirname(install_path()), self.installdir,
                                     self.install_subdir)
        if not self.dry_run:
            self._warn(self.easysif.check(None if build_option('sanity_check_only') else self.standing.module))

    def _recipe(self):
        """Return the recipe as EasyBuild has resolved it (Recipe), after reading the file as the data that it is."""
        where = os.path.basename(self.cfg.path)
        written, lines = read(self.cfg.path)
        # with templates as they are written: EasyBuild cannot resolve all of them now, and its message fills a page
        values = {key: self.cfg.get_ref(key) if key in self.cfg else value for key, value in written.items()}
        if 'tweaked_easyconfigs' in self.cfg.path:
            image, at, _ = str(values.get('image')).partition('@sha256:')
            if values.pop('digest', None) or at:
                self._warn('%s: the digest belongs to the version as written and is dropped' % where)
                self.cfg['digest'] = None
            if at:
                self.cfg['image'] = values['image'] = image
        return validate(values, where, lines, self.cfg.path)

    def _keeps_installation(self):
        skip = self.cfg['skip'] and os.path.isfile(self.mod_filepath)
        return build_option('module_only') or self.cfg['module_only'] or build_option('sanity_check_only') or skip

    def _places(self):
        # where there are sources or patches they are those of these
        checksums = () if self.cfg['sources'] or self.cfg['patches'] else self.cfg['checksums']
        return Places(self._find_file, source_paths() + ['beside the recipe'],
                      *directories(self.easysif.site, source_paths()[0], self.builddir), prefix=self.easysif.prefix,
                      log=os.path.join(self.builddir, 'build.log'), lock={'wait': None, 'tell': self._tell},
                      find_module=self._find_module, checksums=checksums)

    def _find_module(self, name):
        known = {dep['full_mod_name']: dep for dep in self.cfg.builddependencies()}
        return name in known and self.modules_tool.get_setenv_value_from_modulefile(
            name, get_software_root_env_var_name(known[name]['name']))

    def _find_file(self, name):
        path = self.obtain_file(name, no_download=True, warning_only=True)
        # --try-software-version and its kin: the recipe is a copy elsewhere, the file lies beside the original
        beside = [os.path.join(top, self.name[0].lower(), self.name, name) for top in get_paths_for('easyconfigs')]
        return next(filter(os.path.isfile, [path or '', *beside]), None)


if sys.version_info < (3, 9):
    raise EasyBuildError('EasySIF needs Python 3.9 or newer, this is %s', sys.version.split()[0])
