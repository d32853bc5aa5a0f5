"""The multi-layer perceptron on MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import mnist
from deepobs.pytorch.testproblems._families import Classification
from deepobs.pytorch.testproblems._mlp import MLP


class mnist_mlp(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser."""

    dataset = mnist

    def make_net(self) -> nn.Module:
        """Return the network."""
        return MLP(num_outputs=10)
