"""Rosenbrock's function with noise."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.testproblems._families import TwoDimensional
from deepobs.pytorch.testproblems._two_d import rosenbrock


class two_d_rosenbrock(TwoDimensional):  # noqa: N801 - DeepOBS name
    """Starts at (-0.5, 1.5); minimum 0 at (1, 1)."""

    def make_net(self) -> nn.Module:
        """Return the two parameters at the start point."""
        return self.surface(rosenbrock, (-0.5, 1.5))
