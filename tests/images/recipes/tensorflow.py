# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for TensorFlow, made by the tests of EasySIF: products of matrices, as tests of recipes use them."""


class _Number:
    def __init__(self, number):
        self.numpy = lambda: number


def matmul(one, other):
    """Return the product of a matrix of one row and one of one column."""
    (row,), (column,) = one, zip(*other)
    return _Number(sum(x * y for x, y in zip(row, column)))
