"""Passes over maps by channel: sums in float64, and what normalisation does to every value.

torch's CPU kernels for batch normalisation add up in float32, for channels_last all pixels of a
batch in one sum per thread: with 800,000 pixels a variance is wrong by 4e-4 relative. Here all is
added up in float64, so that the layout and the number of threads change a sum by 1e-13 at most.

Legend: N images, C channels, H, W pixels. Maps (N, C, H, W) are ``dense``, on a CPU, float32 or
float64; values by channel are (C,) float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

#: Values that a block has for each thread. As float64 they take 512 KiB, and stay in a core's
#: cache from one operator to the next.
BLOCK = 65536


def dense(x: Tensor) -> Tensor:
    """Return maps without gaps: ``x``, or where it has gaps or another order, a copy."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def same_layout(gradient: Tensor, x: Tensor) -> Tensor:
    """Return ``gradient`` in the layout of the dense maps ``x``."""
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return gradient.contiguous(memory_format=layout)


def sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return by channel the sum of the values and that of their squares."""
    totals = x.new_zeros((2, x.shape[1]), dtype=torch.float64)
    for (part,) in _blocks(x):
        values = part.to(torch.float64, copy=True)
        totals[0] += _by_channel(values)
        totals[1] += _by_channel(values.square_())
    return totals[0], totals[1]


def sums_of_products(gradient: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return by channel the sum of ``gradient`` and that of ``gradient x``."""
    totals = x.new_zeros((2, x.shape[1]), dtype=torch.float64)
    for g, part in _blocks(gradient, x):
        values = g.to(torch.float64, copy=True)
        totals[0] += _by_channel(values)
        totals[1] += _by_channel(values.mul_(part))
    return totals[0], totals[1]


def scaled(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``(x - mean) scale + shift``; all but ``x`` are by channel."""
    mean, scale, shift = (values.to(x.dtype) for values in (mean, scale, shift))
    return F.batch_norm(x, mean, torch.ones_like(mean), scale, shift, eps=0.0)


def combined(
    gradient: Tensor, x: Tensor, of_gradient: Tensor, of_x: Tensor, shift: Tensor
) -> Tensor:
    """Return ``of_gradient gradient + of_x x + shift``; the last three are by channel."""
    out = torch.empty_like(x)
    rows = _has_rows(x)
    weights = [values.to(x.dtype) for values in (of_gradient, of_x, shift)]
    weights = [values if rows else values[:, None] for values in weights]
    parts = list(_blocks(gradient, x, out))
    # Written out: torch's loops over a broadcast axis that is as short as C are slow.
    weights = [values.expand_as(parts[0][0]).contiguous() for values in weights]
    for g, values, place in parts:
        first, second, constant = (weight[: len(g)] for weight in weights)
        torch.addcmul(constant, values, second, out=place)
        place.addcmul_(g, first)
    return out


def _has_rows(x: Tensor) -> bool:
    """Say whether the channels of a pixel lie side by side."""
    return not x.is_contiguous() or x.shape[2:] == (1, 1)


def _blocks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield equal parts of maps of one layout, as (pixels, C) or (images, C, H W)."""
    first = maps[0]
    views = [
        m.permute(0, 2, 3, 1).reshape(-1, m.shape[1]) if _has_rows(m) else m.flatten(2)
        for m in maps
    ]
    length = max(1, BLOCK * torch.get_num_threads() * len(views[0]) // max(1, first.numel()))
    return zip(*(view.split(length) for view in views), strict=True)


def _by_channel(values: Tensor) -> Tensor:
    return values.sum([axis for axis in range(values.ndim) if axis != 1])
