"""Branin's function with noise."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.testproblems._families import TwoDimensional
from deepobs.pytorch.testproblems._two_d import branin


class two_d_branin(TwoDimensional):  # noqa: N801 - DeepOBS name
    """Starts at (2.5, 12.5); minima of 0.397887."""

    def make_net(self) -> nn.Module:
        """Return the two parameters at the start point."""
        return self.surface(branin, (2.5, 12.5))
