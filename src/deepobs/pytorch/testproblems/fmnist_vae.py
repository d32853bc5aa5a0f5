"""The variational auto-encoder on Fashion-MNIST."""

from __future__ import annotations

from deepobs.pytorch.datasets import fmnist
from deepobs.pytorch.testproblems._families import Autoencoding


class fmnist_vae(Autoencoding):  # noqa: N801 - DeepOBS name
    """Squared error plus divergence; evaluation is stochastic."""

    dataset = fmnist
