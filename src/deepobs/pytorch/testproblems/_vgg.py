"""VGG16 and VGG19 (Simonyan, Zisserman, arXiv:1409.1556) on images resized to 224x224."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from deepobs.pytorch.testproblems._initialisers import glorot_normal_
from deepobs.pytorch.testproblems._layers import Conv2d, Dense, Dropout, flatten_nhwc, numbered
from deepobs.pytorch.tf_ops import max_pool2d, resize_bilinear

BLOCKS = {
    16: ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    19: ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}


class VGG(nn.Module):
    """Five blocks of 3x3 convolutions, each pooled; dense 4096, 4096, K with dropout 0.5."""

    def __init__(self, variant: int, num_outputs: int) -> None:
        super().__init__()
        self.blocks = BLOCKS[variant]
        channels, i = 3, 0
        for width, repeats in self.blocks:
            for _ in range(repeats):
                layer = Conv2d(channels, width, 3, init=glorot_normal_)
                self.add_module(numbered("conv2d", i), layer)
                channels, i = width, i + 1
        self.dense = Dense(7 * 7 * 512, 4096)
        self.dense_1 = Dense(4096, 4096)
        self.dense_2 = Dense(4096, num_outputs)
        self.dropout, self.dropout_1 = Dropout(0.5), Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_outputs) of images (B, 3, H, W) of any size."""
        h, i = resize_bilinear(x, 224, 224), 0
        for _, repeats in self.blocks:
            for _ in range(repeats):
                h = relu(self.get_submodule(numbered("conv2d", i))(h))
                i += 1
            h = max_pool2d(h, 2, 2)
        h = self.dropout(relu(self.dense(flatten_nhwc(h))))
        h = self.dropout_1(relu(self.dense_1(h)))
        return self.dense_2(h)
