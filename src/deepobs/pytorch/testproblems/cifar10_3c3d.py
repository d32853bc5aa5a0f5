"""Three convolutions and three dense layers on CIFAR-10."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import cifar10
from deepobs.pytorch.testproblems._3c3d import Net3c3d
from deepobs.pytorch.testproblems._families import AllKernels


class cifar10_3c3d(AllKernels):  # noqa: N801 - DeepOBS name
    """Cross-entropy; L2 over all kernels."""

    dataset = cifar10
    default_weight_decay = 2e-3

    def make_net(self) -> nn.Module:
        """Return the network."""
        return Net3c3d(num_outputs=10)
