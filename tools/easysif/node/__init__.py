# SPDX-License-Identifier: GPL-2.0-only
"""What this node has of what containers need: for `easysif site check` and `easysif doctor`. It changes nothing.

Each check yields findings; ``host`` looks at the machine, ``binds`` at what the site binds, ``inside`` into an image,
``environment`` at what the user's shell brings along.
"""

from easysif import runtime
from easysif.errors import EasySIFError
from easysif.node import binds, environment, host, inside
from easysif.node.finding import PROBLEM, Finding


def of_site(site, needs, image=None):
    """Yield all that can be found out for who runs a site (Finding).

    :param site: the resolved site (Site)
    :param needs: the needs whose binds count (sequence of str)
    :param image: a SIF file to look at it from the inside of (str), None for none
    """
    yield from _machine(site)
    yield from binds.check(site, needs)
    yield from _inside(image, site, needs)


def of_user(site, image=None):
    """Yield what an ordinary user can be told (Finding).

    :param image: a SIF file to look at the GPUs of this node from the inside of (str), None for none
    """
    yield from _machine(site)
    yield from binds.check(site, ())
    yield from _inside(image, site, [need for need in host.GPUS if host.devices(need)])
    yield from environment.check()


def _inside(image, site, needs):
    if image:
        try:
            found = runtime.find(site)
        except EasySIFError as err:
            yield Finding(PROBLEM, 'inside', err.what, err.hint)
        else:
            yield from inside.check(image, site, needs, found)


def _machine(site):
    yield from host.container_runtime(site)
    yield from host.fuse()
    yield from host.shared_memory()
    yield from host.squashfs(site)
    yield from host.modules()
    yield from host.scheduler()
    yield from host.gpus()
