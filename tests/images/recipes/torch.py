# SPDX-License-Identifier: GPL-2.0-only
"""A stand-in for PyTorch, made by the tests of EasySIF: matrices and their gradients, as tests of recipes use them."""


class cuda:
    """The GPUs that there are not."""

    is_available = staticmethod(lambda: False)


class Tensor:
    """A matrix that knows what it was made from: pairs of a matrix and how the gradient comes back to it."""

    def __init__(self, rows, made_from=()):
        self.rows, self.made_from, self.grad = rows, made_from, None

    def requires_grad_(self):
        """All do."""
        return self

    @property
    def T(self):
        """The transposed one."""
        return Tensor([list(column) for column in zip(*self.rows)])

    def __matmul__(self, other):
        rows = [[sum(x * y for x, y in zip(row, column)) for column in zip(*other.rows)] for row in self.rows]
        return Tensor(rows, [(self, lambda gradient: gradient @ other.T), (other, lambda gradient: self.T @ gradient)])

    def __add__(self, other):
        return Tensor([[x + y for x, y in zip(*rows)] for rows in zip(self.rows, other.rows)])

    def __eq__(self, number):
        return self.rows == [[number]]

    def sum(self):
        """Return the sum of all numbers, a matrix of one."""
        return Tensor([[sum(map(sum, self.rows))]],
                      [(self, lambda gradient: Tensor([[gradient.rows[0][0]] * len(row) for row in self.rows]))])

    def backward(self, gradient=None):
        """Tell everything that this was made from its gradient."""
        gradient = gradient or ones(1, 1)
        self.grad = self.grad + gradient if self.grad else gradient
        for other, backwards in self.made_from:
            other.backward(backwards(gradient))


def ones(height, width):
    """Return a matrix of ones."""
    return Tensor([[1.0] * width for _ in range(height)])
