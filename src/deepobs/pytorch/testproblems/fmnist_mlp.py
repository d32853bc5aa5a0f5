"""The multi-layer perceptron on Fashion-MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch import config
from deepobs.pytorch.datasets import DataSet, fmnist, mnist
from deepobs.pytorch.testproblems._families import Classification
from deepobs.pytorch.testproblems._mlp import MLP


class fmnist_mlp(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser.

    The reference reads MNIST here by mistake; so does the ``reference`` mode.
    """

    def make_data(self) -> DataSet:
        """Return MNIST in the ``reference`` mode, Fashion-MNIST in the ``fixed`` one."""
        dataset = mnist if config.get_compat() == "reference" else fmnist
        return dataset(self.batch_size)

    def make_net(self) -> nn.Module:
        """Return the network."""
        return MLP(num_outputs=10)
