"""Beale's function with noise."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.testproblems._families import TwoDimensional
from deepobs.pytorch.testproblems._two_d import beale


class two_d_beale(TwoDimensional):  # noqa: N801 - DeepOBS name
    """Starts at (-4.5, 4.5); minimum 0 at (3, 0.5)."""

    def make_net(self) -> nn.Module:
        """Return the two parameters at the start point."""
        return self.surface(beale, (-4.5, 4.5))
