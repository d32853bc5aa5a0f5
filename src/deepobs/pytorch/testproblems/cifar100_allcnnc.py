"""All-CNN-C on CIFAR-100."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import cifar100
from deepobs.pytorch.testproblems._allcnnc import AllCNNC
from deepobs.pytorch.testproblems._families import ConvKernels


class cifar100_allcnnc(ConvKernels):  # noqa: N801 - DeepOBS name
    """Cross-entropy; L2 over all kernels, which are convolutions."""

    dataset = cifar100
    default_weight_decay = 5e-4

    def make_net(self) -> nn.Module:
        """Return the network."""
        return AllCNNC(num_outputs=100)
