"""The variational auto-encoder on MNIST."""

from __future__ import annotations

from deepobs.pytorch.datasets import mnist
from deepobs.pytorch.testproblems._families import Autoencoding


class mnist_vae(Autoencoding):  # noqa: N801 - DeepOBS name
    """Squared error plus divergence; evaluation is stochastic."""

    dataset = mnist
