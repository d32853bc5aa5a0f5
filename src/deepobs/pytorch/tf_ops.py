"""TensorFlow 1 operations in PyTorch: SAME padding, pooling, transposed convolution, resizing.

Legend: B batch, C channels, H and W height and width. All tensors are (B, C, H, W).
Source: the TensorFlow 1 padding rule, ``out = ceil(in / stride)``, with the surplus cell of an odd
total at the bottom and right.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the cells added before and after one axis.

    >>> same_padding(32, 3, 2), same_padding(28, 5, 1), same_padding(7, 4, 1)
    ((0, 1), (2, 2), (1, 2))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _paddings(
    x: Tensor, kernel: tuple[int, int], stride: int, padding: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    if padding == "VALID":
        return (0, 0), (0, 0)
    rows, columns = x.shape[-2:]
    return same_padding(rows, kernel[0], stride), same_padding(columns, kernel[1], stride)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: str = "SAME"
) -> Tensor:
    """Convolve with TensorFlow's padding; ``weight`` is (out, in, kh, kw)."""
    (top, bottom), (left, right) = _paddings(
        x, (weight.shape[-2], weight.shape[-1]), stride, padding
    )
    if top == bottom and left == right:
        return F.conv2d(x, weight, bias, stride, (top, left))
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride)


def conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: str = "SAME"
) -> Tensor:
    """Transposed convolution to ``stride`` times the size; ``weight`` is (in, out, kh, kw).

    The full output is cropped where the forward convolution would have padded.
    """
    if padding != "SAME":
        return F.conv_transpose2d(x, weight, bias, stride)
    kernel = tuple(weight.shape[-2:])
    size = [n * stride for n in x.shape[-2:]]
    crops = [same_padding(n, k, stride) for n, k in zip(size, kernel, strict=True)]
    if all(before == after for before, after in crops) and min(kernel) >= stride:
        return F.conv_transpose2d(x, weight, bias, stride, tuple(before for before, _ in crops))
    full = F.conv_transpose2d(x, weight, bias, stride)
    (top, _), (left, _) = crops
    return full[..., top : top + size[0], left : left + size[1]]


def max_pool2d(x: Tensor, kernel: int, stride: int, padding: str = "SAME") -> Tensor:
    """Max-pool; padded cells never win."""
    pads = _paddings(x, (kernel, kernel), stride, padding)
    if all(before == after for before, after in pads):
        return F.max_pool2d(x, kernel, stride, (pads[0][0], pads[1][0]))
    if all(before == 0 for before, _ in pads) and all(
        -(-(n - kernel) // stride) + 1 == -(-n // stride) for n in x.shape[-2:]
    ):  # the partial window at the end is what ceil_mode adds
        return F.max_pool2d(x, kernel, stride, ceil_mode=True)
    (top, bottom), (left, right) = pads
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-torch.inf), kernel, stride)


def avg_pool2d(x: Tensor, kernel: int, stride: int, padding: str = "SAME") -> Tensor:
    """Average-pool over the cells that exist: padding is not counted."""
    pads = _paddings(x, (kernel, kernel), stride, padding)
    if all(before == after for before, after in pads):
        return F.avg_pool2d(x, kernel, stride, (pads[0][0], pads[1][0]), count_include_pad=False)
    (top, bottom), (left, right) = pads
    border = (left, right, top, bottom)
    share = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), border), kernel, stride)
    return F.avg_pool2d(F.pad(x, border), kernel, stride) / share


def resize_bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """Resize as TensorFlow 1 did by default: ``source = target * (in / out)``, edge clamped.

    No half-pixel shift and no corner alignment, hence equal to neither of PyTorch's modes.
    """
    if tuple(x.shape[-2:]) == (height, width):
        return x
    lower, upper, weight = _sources(x.shape[-2], height, x.device, x.dtype)
    x = torch.lerp(x[..., lower, :], x[..., upper, :], weight[:, None])
    lower, upper, weight = _sources(x.shape[-1], width, x.device, x.dtype)
    return torch.lerp(x[..., lower], x[..., upper], weight)


@lru_cache(maxsize=64)
def _sources(
    size: int, target: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which cells each target lies between, and where; made once for a device."""
    position = np.arange(target, dtype=np.float32) * np.float32(size / target)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, size - 1)
    return (
        torch.from_numpy(lower).to(device),
        torch.from_numpy(upper).to(device),
        torch.from_numpy(position - lower).to(device, dtype),
    )
