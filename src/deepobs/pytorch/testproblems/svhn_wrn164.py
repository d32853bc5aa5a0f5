"""Wide ResNet 16-4 on SVHN."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import svhn
from deepobs.pytorch.testproblems._families import AllKernels
from deepobs.pytorch.testproblems._wrn import WRN


class svhn_wrn164(AllKernels):  # noqa: N801 - DeepOBS name
    """Cross-entropy; L2 over all kernels."""

    dataset = svhn
    default_weight_decay = 5e-4

    def make_net(self) -> nn.Module:
        """Return the network."""
        return WRN(num_residual_units=2, widening_factor=4, num_outputs=10)
