"""Two convolutions and two dense layers on MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import mnist
from deepobs.pytorch.testproblems._2c2d import Net2c2d
from deepobs.pytorch.testproblems._families import Classification


class mnist_2c2d(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser."""

    dataset = mnist

    def make_net(self) -> nn.Module:
        """Return the network."""
        return Net2c2d(num_outputs=10)
