"""Two convolutions and two dense layers on Fashion-MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import fmnist
from deepobs.pytorch.testproblems._2c2d import Net2c2d
from deepobs.pytorch.testproblems._families import Classification


class fmnist_2c2d(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser."""

    dataset = fmnist

    def make_net(self) -> nn.Module:
        """Return the network."""
        return Net2c2d(num_outputs=10)
