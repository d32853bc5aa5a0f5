"""VGG16 on ImageNet, images resized to 224x224."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import imagenet
from deepobs.pytorch.testproblems._families import ConvKernels
from deepobs.pytorch.testproblems._vgg import VGG


class imagenet_vgg16(ConvKernels):  # noqa: N801 - DeepOBS name
    """Cross-entropy; L2 over convolution kernels, not over the dense ones."""

    dataset = imagenet
    default_weight_decay = 5e-4

    def make_net(self) -> nn.Module:
        """Return the network."""
        return VGG(16, num_outputs=1001)
