"""The 100-dimensional quadratic with 10 large eigenvalues."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import DataSet, quadratic
from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems._quadratic import Quadratic
from deepobs.pytorch.testproblems.testproblem import LossAndAccuracy, TestProblem


class quadratic_deep(TestProblem):  # noqa: N801 - DeepOBS name
    """Loss ``0.5 (theta - x)' H (theta - x)``; theta starts at ones."""

    has_accuracy = False

    def make_data(self) -> DataSet:
        """Return the Gaussian points."""
        return quadratic(self.batch_size)

    def make_net(self) -> nn.Module:
        """Return theta and the Hessian."""
        return Quadratic()

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the losses (B,); there is no accuracy."""
        return self.net(batch[0]), None
