"""Two convolutions and two dense layers for 28x28 images."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._initialisers import truncated_normal_
from deepobs.pytorch.testproblems._layers import Conv2d, Dense, flatten_nhwc
from deepobs.pytorch.tf_ops import max_pool2d


class Net2c2d(nn.Module):
    """conv5x5 32, pool, conv5x5 64, pool, dense 1024, dense K.

    Kernels come from a truncated normal of 0.05; all biases, the output's too, start at 0.05.
    """

    def __init__(self, num_outputs: int = 10) -> None:
        super().__init__()
        init = partial(truncated_normal_, std=0.05)
        self.conv2d = Conv2d(1, 32, 5, init=init, bias=0.05)
        self.conv2d_1 = Conv2d(32, 64, 5, init=init, bias=0.05)
        self.dense = Dense(7 * 7 * 64, 1024, init=init, bias=0.05)
        self.dense_1 = Dense(1024, num_outputs, init=init, bias=0.05)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images (B, 1, 28, 28)."""
        h = max_pool2d(relu(self.conv2d(x)), 2, 2)  # (B, 32, 14, 14)
        h = max_pool2d(relu(self.conv2d_1(h)), 2, 2)  # (B, 64, 7, 7)
        h = relu(self.dense(flatten_nhwc(h)))
        return self.dense_1(h)
