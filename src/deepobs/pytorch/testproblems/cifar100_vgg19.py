"""VGG19 on CIFAR-100, images resized to 224x224."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import cifar100
from deepobs.pytorch.testproblems._families import ConvKernels
from deepobs.pytorch.testproblems._vgg import VGG


class cifar100_vgg19(ConvKernels):  # noqa: N801 - DeepOBS name
    """Cross-entropy; L2 over convolution kernels, not over the dense ones."""

    dataset = cifar100
    default_weight_decay = 5e-4

    def make_net(self) -> nn.Module:
        """Return the network."""
        return VGG(19, num_outputs=100)
