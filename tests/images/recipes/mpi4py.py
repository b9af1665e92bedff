# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for mpi4py, made by the tests of EasySIF: a ring of one rank."""


class _Alone:
    rank, size = 0, 1

    def sendrecv(self, message, dest, source):
        """Send a message to oneself, and get it."""
        assert (dest, source) == (self.rank, self.rank)
        return message


class MPI:
    """What the original has as a module."""

    COMM_WORLD = _Alone()
