# SPDX-License-Identifier: GPL-2.0-only
"""One installation without an image: a module that gives what its site provides to whatever image its users run."""

from easysif.install import Install

#: what is known of the inside of an image that is not known
INSIDE = {'shell': None, 'env': {}, 'commands': {}, 'conda': None, 'python': None}


class Bindings(Install):
    """Turns a recipe of ContainerBindings into an installation directory, step by step."""

    def check_image(self):
        """There is none, and nothing that would be packed."""

    def inspect(self):
        """There is nothing to look into."""
        self.facts = dict(INSIDE)

    def put_image(self):
        """There is none to put anywhere, and nothing is recorded of it (None)."""

    def sanity_paths(self):
        """Return what an installation has at the least, in EasyBuild's words (dict of list of str)."""
        return {'files': ['easysif.json', 'easysif/site.lua'], 'dirs': []}

    def usage(self):
        """Return what the help text of the module ends with (str)."""
        return ('For an image of your own: loading this module lets singularity and apptainer give it what this site '
                'provides.\nNeeds: %s. Loading a module that brings an image of its own takes the place of this one.'
                % (', '.join(self.recipe.needs) or 'none, only what is bound in every container'))
