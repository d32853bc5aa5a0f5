"""Three convolutions and three dense layers for 32x32 colour images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._initialisers import glorot_normal_
from deepobs.pytorch.testproblems._layers import Conv2d, Dense, flatten_nhwc
from deepobs.pytorch.tf_ops import max_pool2d


class Net3c3d(nn.Module):
    """conv5x5 64 VALID, conv3x3 96 VALID, conv3x3 128, each pooled 3/2; dense 512, 256, K."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.conv2d = Conv2d(3, 64, 5, padding="VALID", init=glorot_normal_)
        self.conv2d_1 = Conv2d(64, 96, 3, padding="VALID", init=glorot_normal_)
        self.conv2d_2 = Conv2d(96, 128, 3, init=glorot_normal_)
        self.dense = Dense(3 * 3 * 128, 512)
        self.dense_1 = Dense(512, 256)
        self.dense_2 = Dense(256, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images (B, 3, 32, 32)."""
        h = max_pool2d(relu(self.conv2d(x)), 3, 2)  # (B, 64, 14, 14)
        h = max_pool2d(relu(self.conv2d_1(h)), 3, 2)  # (B, 96, 6, 6)
        h = max_pool2d(relu(self.conv2d_2(h)), 3, 2)  # (B, 128, 3, 3)
        h = relu(self.dense(flatten_nhwc(h)))
        h = relu(self.dense_1(h))
        return self.dense_2(h)
