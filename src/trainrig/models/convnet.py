"""A small convolutional encoder that turns one image into one token, cheap enough for a CPU."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

CHANNELS = (16, 32)
KERNELS = (7, 3)
STRIDES = (4, 2)


class ConvEncoder(nn.Module):
    """Two convolutions with relu, then a dense layer over the flattened map.

    7x7 with step 4 to 16 channels, 3x3 with step 2 to 32 channels; at 28 px the maps are 7x7 and
    4x4. The first convolution reads ink, 1 - grey level, so that a blank page is 0 and the strokes
    alone tell tokens apart. Initial values are He's (normal, variance 2/fan-in), biases 0.

    Args:
        width: D of the token.
        image_shape: (C, H, W).
    """

    def __init__(self, width: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        n_in, *size = image_shape
        layers: list[nn.Conv2d] = []
        for n_out, kernel, stride in zip(CHANNELS, KERNELS, STRIDES, strict=True):
            layers.append(
                nn.utils.skip_init(
                    nn.Conv2d, n_in, n_out, kernel, stride=stride, padding=kernel // 2
                )
            )
            size = [(side - 1) // stride + 1 for side in size]  # odd kernels, padded by half
            n_in = n_out
        self.convs = nn.ModuleList(layers)
        self.dense = nn.utils.skip_init(nn.Linear, n_in * size[0] * size[1], width)
        for layer in (*layers, self.dense):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (N, C, H, W) of grey levels in 0..1 as tokens (N, D)."""
        x = 1.0 - x
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.dense(x.flatten(1))
