"""Two-dimensional test functions; u and v carry the names of the original's variables.

The loss of example i is f(u, v) + u x_i + v y_i, so that the noise (x, y) tilts the surface.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Function = Callable[[Tensor, Tensor], Tensor]


def beale(u: Tensor, v: Tensor) -> Tensor:
    """Beale's function; minimum 0 at (3, 0.5)."""
    return (1.5 - u + u * v) ** 2 + (2.25 - u + u * v**2) ** 2 + (2.625 - u + u * v**3) ** 2


def branin(u: Tensor, v: Tensor) -> Tensor:
    """Branin's function; three minima of 0.397887."""
    bowl = v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * torch.cos(u) + 10


def rosenbrock(u: Tensor, v: Tensor) -> Tensor:
    """Rosenbrock's function; minimum 0 at (1, 1)."""
    return (1 - u) ** 2 + 100 * (v - u**2) ** 2


class TwoD(nn.Module):
    """Two scalar parameters, ``weight`` = u and ``bias`` = v."""

    def __init__(self, function: Function, start: tuple[float, float]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.tensor(start[0]))
        self.bias = nn.Parameter(torch.tensor(start[1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return per-example losses (B,) for noise (B,), (B,)."""
        return self.function(self.weight, self.bias) + self.weight * x + self.bias * y
