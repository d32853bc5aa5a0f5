"""Logistic regression on Fashion-MNIST."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import fmnist
from deepobs.pytorch.testproblems._families import Classification
from deepobs.pytorch.testproblems._logreg import LogReg


class fmnist_logreg(Classification):  # noqa: N801 - DeepOBS name
    """Cross-entropy without regulariser; the first loss is ln 10."""

    dataset = fmnist

    def make_net(self) -> nn.Module:
        """Return the network."""
        return LogReg(num_outputs=10)
