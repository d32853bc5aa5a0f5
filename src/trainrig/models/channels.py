"""Passes over maps by channel: sums in float64, and what normalisation does to every value.

torch's CPU kernels for batch normalisation add up in float32, for channels_last all pixels of a
batch in one sum per thread: with 800,000 pixels a variance is wrong by 4e-4 relative. Here all is
added up in float64, so that the layout and the number of threads change a sum by 1e-13 at most of
the sum of magnitudes.

Legend: N images, C channels, H, W pixels. Maps (N, C, H, W) are ``dense``, on a CPU, float32 or
float64; values by channel are (C,) float64.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig import native

#: The passes in C, some two to three times as fast as those by torch's operators.
SOURCE = Path(__file__).with_suffix(".c")
#: Values below which torch's operators do.
SMALL = 16384

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
    return sums_of_products(x, x)


def sums_of_products(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return by channel the sum of ``a`` and that of ``a b``."""
    totals = a.new_zeros((2, a.shape[1]), dtype=torch.float64)
    library = _library(a, b)
    if library:
        sizes = _sizes(a)
        call = library.sums_of_rows if len(sizes) == 2 else library.sums_of_planes
        _check(call(*_pointers(a, b), *sizes, torch.get_num_threads(), *_pointers(*totals)))
    else:
        for part, other in _blocks(a, b):
            values = part.to(torch.float64, copy=True)
            totals[0] += _by_channel(values)
            totals[1] += _by_channel(values.mul_(other))
    return totals[0], totals[1]


def scaled(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``scale (x - mean) + shift``; all but ``x`` are by channel."""
    weights = [values.to(x.dtype) for values in (scale, mean, shift)]
    library = _library(x)
    if library:
        return _combined(library, None, x, [weights[0], *weights])
    scale, mean, shift = weights
    return F.batch_norm(x, mean, torch.ones_like(mean), scale, shift, eps=0.0)


def combined(
    gradient: Tensor, x: Tensor, slope: Tensor, of_x: Tensor, mean: Tensor, shift: Tensor
) -> Tensor:
    """Return ``slope gradient + of_x (x - mean) + shift``; the last four are by channel."""
    weights = [values.to(x.dtype) for values in (slope, of_x, mean, shift)]
    library = _library(gradient, x)
    if library:
        return _combined(library, gradient, x, weights)
    out = torch.empty_like(x)
    parts = list(_blocks(gradient, x, out))
    # Written out: torch's loops over a broadcast axis that is as short as C are slow.
    weights = [values if _has_rows(x) else values[:, None] for values in weights]
    weights = [values.expand_as(parts[0][0]).contiguous() for values in weights]
    for g, values, place in parts:
        p, q, m, r = (weight[: len(g)] for weight in weights)
        torch.sub(values, m, out=place)
        torch.addcmul(r, place, q, out=place)
        place.addcmul_(g, p)
    return out


def _library(*maps: Tensor) -> ctypes.CDLL | None:
    """Return the compiled passes, if these maps are for them.

    Small maps are not, so that nothing is compiled for a toy; by their size alone, so that the
    same step always gives the same bits.
    """
    if maps[0].numel() < SMALL or any(m.dtype != torch.float32 for m in maps):
        return None
    return native.load(SOURCE, "normalisation takes torch's operators, exact but slower")


def _combined(
    library: ctypes.CDLL, gradient: Tensor | None, x: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    out, sizes = torch.empty_like(x), _sizes(x)
    call = library.combine_rows if len(sizes) == 2 else library.combine_planes
    weights = [weight.contiguous() for weight in weights]
    first = gradient if gradient is None else _pointers(gradient)[0]
    threads = torch.get_num_threads()
    _check(call(first, *_pointers(x), *sizes, threads, *_pointers(*weights, out)))
    return out


def _sizes(x: Tensor) -> list[ctypes.c_int64]:
    """Return (pixels, C) of rows, or (N, C, H W) of planes."""
    n, channels, *sides = x.shape
    pixels = math.prod(sides)
    sizes = (n * pixels, channels) if _has_rows(x) else (n, channels, pixels)
    return [ctypes.c_int64(size) for size in sizes]


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("batch normalisation: no memory for sums by channel")


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
