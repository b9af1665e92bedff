# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for JAX, made by the tests of EasySIF: derivatives of powers, as tests of recipes use them."""


class _Dual:
    def __init__(self, value, slope):
        self.value, self.slope = value, slope

    def __pow__(self, power):
        return _Dual(self.value ** power, power * self.value ** (power - 1) * self.slope)


def grad(function):
    """Return the derivative of a function of one number."""
    return lambda x: function(_Dual(x, 1.0)).slope
