# SPDX-License-Identifier: GPL-2.0-only
"""EasyBuild support for modules that give what a site provides to images that users bring themselves.

All is as with an image of our own, but for the steps that an image would need.
"""

from easysif.bindings import Bindings
from easysif.recipe import EMPTY, OURS

from easybuild.easyblocks.generic.containerimage import ContainerImage
from easybuild.framework.easyblock import EasyBlock
from easybuild.framework.easyconfig import CUSTOM

PARAMETERS = ('needs', 'container_env', 'binds')


class ContainerBindings(ContainerImage):
    """Support for installing a module with what a site provides, for images that users bring themselves."""

    INSTALLS = Bindings

    @staticmethod
    def extra_options(extra_vars=None):
        """Those of ContainerImage that have nothing to do with an image."""
        return EasyBlock.extra_options(dict(extra_vars or {}, **{
            name: [EMPTY[name], OURS[name], CUSTOM] for name in PARAMETERS}))

    def fetch_step(self, *args, **kwargs):
        """There is no image to get, only EasyBuild's own sources, if there are any."""
        EasyBlock.fetch_step(self, *args, **kwargs)
