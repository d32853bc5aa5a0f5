"""Inception v3 on ImageNet."""

from __future__ import annotations

from torch import Tensor, nn

from deepobs.pytorch import config
from deepobs.pytorch.datasets import imagenet
from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems._families import ConvKernels, batch_accuracy
from deepobs.pytorch.testproblems._inception_v3 import InceptionV3
from deepobs.pytorch.testproblems.testproblem import LossAndAccuracy

SMOOTHING, AUX_WEIGHT, DROPOUT = 0.1, 0.4, 0.8


class imagenet_inception_v3(ConvKernels):  # noqa: N801 - DeepOBS name
    """Smoothed cross-entropy, plus 0.4 of the auxiliary head's in training; L2 over convolutions.

    The reference's dropout never acts, since the phase is passed at the wrong place; it does in the
    ``fixed`` mode.
    """

    dataset = imagenet
    default_weight_decay = 5e-4

    def make_net(self) -> nn.Module:
        """Return the network."""
        return InceptionV3(1001, dropout=0.0 if config.get_compat() == "reference" else DROPOUT)

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the losses (B,) of the present phase and the main head's accuracy."""
        x, y = batch
        logits, aux = self.net(x)
        losses = _smoothed(logits, y)
        if self.phase == "train":
            losses = losses + AUX_WEIGHT * _smoothed(aux, y)
        return losses, batch_accuracy(logits, y) if accuracy else None


def _smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy against ``0.9 one-hot + 0.1 / K``."""
    return nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=SMOOTHING)
