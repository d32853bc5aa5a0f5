"""What families of problems share: cross-entropy, VAE loss, two-dimensional functions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepobs.pytorch.datasets import fmnist, mnist, two_d
from deepobs.pytorch.datasets.dataset import DataSet
from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems._layers import Conv2d, Dense
from deepobs.pytorch.testproblems.testproblem import LossAndAccuracy, TestProblem


class Classification(TestProblem):
    """Cross-entropy over class indices."""

    dataset: ClassVar[type[DataSet]]

    def make_data(self) -> DataSet:
        """Return the family's data set."""
        return self.dataset(self.batch_size)

    @abstractmethod
    def make_net(self) -> nn.Module:
        """Return the network, images → logits (B, K)."""

    def loss_function(self, reduction: str = "mean") -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss as a function of logits and labels, with a reduction."""
        return nn.CrossEntropyLoss(reduction=reduction)

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the cross-entropies (B,) and the share of labels hit."""
        x, y = batch
        logits = self.net(x)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        return losses, batch_accuracy(logits, y) if accuracy else None


def batch_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of labels that the largest logit hits."""
    return (logits.detach().argmax(-1) == labels).to(logits.dtype).mean()


def kernels(net: nn.Module, *, dense: bool) -> list[nn.Parameter]:
    """Return the convolution kernels of a network, and its dense ones where asked for."""
    kinds = (Conv2d, Dense) if dense else (Conv2d,)
    return [module.weight for module in net.modules() if isinstance(module, kinds)]


class AllKernels(Classification):
    """L2 over convolution and dense kernels."""

    def regularized_parameters(self) -> list[nn.Parameter]:
        """Return every kernel."""
        return kernels(self.net, dense=True)


class ConvKernels(Classification):
    """L2 over convolution kernels only."""

    def regularized_parameters(self) -> list[nn.Parameter]:
        """Return the convolution kernels."""
        return kernels(self.net, dense=False)


class Autoencoding(TestProblem):
    """Squared reconstruction error plus Kullback-Leibler divergence, summed for each example."""

    has_accuracy = False
    dataset: ClassVar[type[mnist] | type[fmnist]]
    #: Prescribed latent noise (B, 8) for comparisons; drawn where None.
    noise: Tensor | None = None

    def make_data(self) -> DataSet:
        """Return the family's data set."""
        return self.dataset(self.batch_size)

    @staticmethod
    def loss_function(reduction: str = "mean") -> Callable[..., Tensor]:
        """Return the loss as a function of (image, x, mean, s), with a reduction."""

        def loss(image: Tensor, x: Tensor, mean: Tensor, s: Tensor) -> Tensor:
            losses = vae_losses(image, x, mean, s)
            return losses if reduction == "none" else getattr(losses, reduction)()

        return loss

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the losses (B,); there is no accuracy."""
        x = batch[0]
        image, mean, s = self.net(x, self.noise)
        return vae_losses(image, x, mean, s), None


def vae_losses(image: Tensor, x: Tensor, mean: Tensor, s: Tensor) -> Tensor:
    """Return squared error over pixels plus ``-0.5 sum(1 + 2 s - mean^2 - exp(2 s))``, (B,)."""
    error = (x[:, 0] - image).square().sum((1, 2))
    return error - 0.5 * (1 + 2 * s - mean.square() - torch.exp(2 * s)).sum(1)


class TwoDimensional(TestProblem):
    """A function of two parameters, tilted by noise."""

    has_accuracy = False

    def make_data(self) -> DataSet:
        """Return the noise."""
        return two_d(self.batch_size)

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the losses (B,); there is no accuracy."""
        return self.net(*batch), None
