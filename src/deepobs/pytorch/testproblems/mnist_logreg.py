"""Logistic regression on MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import mnist
from deepobs.pytorch.testproblems._families import Classification
from deepobs.pytorch.testproblems._logreg import LogReg


class mnist_logreg(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser; the first loss is ln 10."""

    dataset = mnist

    def make_net(self) -> nn.Module:
        """Return the network."""
        return LogReg(num_outputs=10)
