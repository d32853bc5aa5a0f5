"""The reference's small bottleneck ResNet that turns one image into one token.

Legend: N images, C channels, H, W pixels, D token width.

Padding is TensorFlow's SAME at every layer: the output has ceil(size / stride) pixels and an odd
total pad puts the larger half *after*, so a 28-px or 105-px input pads asymmetrically in places.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor, nn

from trainrig.models.batchnorm import BatchStatistics, DebiasedBatchNorm, update_averages
from trainrig.models.init import fan_in_normal_

STEM_CHANNELS = 64
GROUP_CHANNELS = (16, 32, 32)  # the last group's follow from the token width
GROUP_STRIDES = (1, 2, 2, 2)
BLOCKS_PER_GROUP = 2
BOTTLENECK = 4
SUPERPIXELS = 16  # a 4x4 map, flattened


def same_padding(size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's SAME padding (before, after) along one axis.

    >>> same_padding(14, 3, 2), same_padding(105, 7, 2)
    ((0, 1), (3, 3))
    """
    n_out = -(-size_px // stride)
    total = max((n_out - 1) * stride + kernel - size_px, 0)
    return total // 2, total - total // 2


def _pads(x: Tensor, kernel: int, stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return same_padding(x.shape[-2], kernel, stride), same_padding(x.shape[-1], kernel, stride)


class SameConv(nn.Module):
    """A convolution without bias, SAME padding, weights TN(1/sqrt(kernel²·n_in)).

    Args:
        n_in: input channels.
        n_out: output channels.
        kernel: side of the square kernel in pixels.
        stride: step in pixels.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        conv = nn.utils.skip_init(nn.Conv2d, n_in, n_out, kernel, bias=False)
        self.weight = conv.weight
        self.kernel, self.stride = kernel, stride
        fan_in_normal_(self.weight, kernel * kernel * n_in, corrected=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, ceil(H/stride), ceil(W/stride))."""
        rows, columns = _pads(x, self.kernel, self.stride)
        if rows[0] == rows[1] and columns[0] == columns[1]:
            return F.conv2d(x, self.weight, stride=self.stride, padding=(rows[0], columns[0]))
        return F.conv2d(F.pad(x, (*columns, *rows)), self.weight, stride=self.stride)


def same_max_pool(x: Tensor, kernel: int = 3, stride: int = 2) -> Tensor:
    """Max-pool with SAME padding of -inf."""
    rows, columns = _pads(x, kernel, stride)
    if rows[0] == rows[1] and columns[0] == columns[1]:
        return F.max_pool2d(x, kernel, stride, padding=(rows[0], columns[0]))
    return F.max_pool2d(F.pad(x, (*columns, *rows), value=float("-inf")), kernel, stride)


class Bottleneck(nn.Module):
    """1x1 stride-s, 3x3, 1x1 convolutions with norms; v1 order; inner width a quarter.

    The stride sits on the *3x3* convolution; the last norm's scale starts at 0.

    Args:
        n_in: input channels.
        n_out: output channels, a multiple of 4.
        stride: step of the 3x3 convolution and of the projection.
        project: put a 1x1 convolution and a norm on the shortcut (first block of a group).
    """

    def __init__(self, n_in: int, n_out: int, stride: int, *, project: bool) -> None:
        super().__init__()
        inner = n_out // BOTTLENECK
        self.conv_0 = SameConv(n_in, inner, 1)
        self.norm_0 = DebiasedBatchNorm(inner)
        self.conv_1 = SameConv(inner, inner, 3, stride)
        self.norm_1 = DebiasedBatchNorm(inner)
        self.conv_2 = SameConv(inner, n_out, 1)
        self.norm_2 = DebiasedBatchNorm(n_out, zero_scale=True)
        self.shortcut_conv = SameConv(n_in, n_out, 1, stride) if project else None
        self.shortcut_norm = DebiasedBatchNorm(n_out) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, ceil(H/stride), ceil(W/stride))."""
        shortcut = x
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            shortcut = self.shortcut_norm(self.shortcut_conv(x))
        x = F.relu_(self.norm_0(self.conv_0(x)))
        x = F.relu_(self.norm_1(self.conv_1(x)))
        return F.relu_(self.norm_2(self.conv_2(x)).add_(shortcut))


class ResNetEncoder(nn.Module):
    """Stem, four groups of two bottleneck blocks, then a mean over pixels.

    Args:
        width: D of the token.
        n_channels: C of the image.
        flatten_superpixels: the last group has D/16 channels and its 4x4 map is flattened in
            H, W, C order instead of averaged; only images that end at 4x4 (105 px) fit.

    Attributes:
        channels_last: keep the maps in this memory format on a CPU, whose convolutions are 2 to 3
            times faster so; values differ by rounding.

    Raises:
        ValueError: the width does not divide as the bottlenecks need.
    """

    def __init__(
        self, width: int, n_channels: int = 1, *, flatten_superpixels: bool = False
    ) -> None:
        super().__init__()
        self.width = width
        self.channels_last = True
        self.flatten_superpixels = flatten_superpixels
        last, rest = divmod(width, SUPERPIXELS if flatten_superpixels else 1)
        if rest or last % BOTTLENECK:
            unit = BOTTLENECK * (SUPERPIXELS if flatten_superpixels else 1)
            raise ValueError(f"ResNetEncoder: width {width} is no multiple of {unit}; choose one")
        self.stem_conv = SameConv(n_channels, STEM_CHANNELS, 7, 2)
        self.stem_norm = DebiasedBatchNorm(STEM_CHANNELS)
        self.groups = nn.ModuleList()
        n_in = STEM_CHANNELS
        for n_out, stride in zip((*GROUP_CHANNELS, last), GROUP_STRIDES, strict=True):
            group = nn.Sequential(
                *(
                    Bottleneck(
                        n_in if block == 0 else n_out,
                        n_out,
                        stride if block == 0 else 1,
                        project=block == 0,
                    )
                    for block in range(BLOCKS_PER_GROUP)
                )
            )
            self.groups.append(group)
            n_in = n_out
        self._statistics: list[BatchStatistics] = []
        for module in self.modules():
            if isinstance(module, DebiasedBatchNorm):
                module.collected = self._statistics

    def forward(self, x: Tensor) -> Tensor:
        """Encode images (N, C, H, W) as tokens (N, D).

        Raises:
            ValueError: superpixels of an image that does not end at 4x4.
        """
        stacked = torch._C._functorch.is_batchedtensor(x)  # under vmap there is one axis more
        if self.channels_last and x.device.type == "cpu" and not stacked:
            x = x.to(memory_format=torch.channels_last)
        self._statistics.clear()
        # The maximum is taken first: it commutes with relu, which then passes over a smaller map.
        x = F.relu_(same_max_pool(self.stem_norm(self.stem_conv(x))))
        for group in self.groups:
            x = group(x)
        update_averages(self._statistics)
        self._statistics.clear()
        if not self.flatten_superpixels:
            return x.mean(dim=(2, 3))
        flat = x.permute(0, 2, 3, 1).flatten(1)  # H, W, C order
        if flat.shape[1] != self.width:
            raise ValueError(
                f"ResNetEncoder: the last map is {x.shape[2]}x{x.shape[3]}, not 4x4, so it cannot "
                "be flattened; use 105-px images or flatten_superpixels=False"
            )
        return flat
