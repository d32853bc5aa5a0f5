"""Normalisation of maps by channel and its gradients, with sums in float64.

torch's CPU kernels for batch normalisation add up in float32, for channels_last all pixels of a
batch in one sum per thread: with 800,000 pixels a variance is wrong by 4e-4 relative. Here all is
added up in float64, so that the layout and the number of threads change a sum by 1e-13 at most of
the sum of magnitudes.

Legend: N images, C channels, H, W pixels, n = N H W. Maps (N, C, H, W) are ``dense``, on a CPU,
float32 or float64; statistics are (C,) float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig import native

#: The two functions in C, two to three times as fast as by torch's operators.
SOURCE = Path(__file__).with_suffix(".c")
#: Values below which torch's operators do.
SMALL = 4096

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


def normalise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``weight (x - mean) (variance + eps)^(-1/2) + bias``, mean and biased variance.

    The statistics are those given, else those of ``x``.
    """
    if statistics is None:
        mean, variance = x.new_empty((2, x.shape[1]), dtype=torch.float64)
    else:
        mean, variance = (values.double().contiguous() for values in statistics)
    library = _library(x, weight, bias)
    if library:
        out, weight, bias = torch.empty_like(x), weight.contiguous(), bias.contiguous()
        inputs, results = _pointers(weight, bias), _pointers(mean, variance, out)
        numbers = ctypes.c_double(eps), statistics is not None
        _check(library.normalise(*_pointers(x), _sizes(x), *inputs, *numbers, *results))
        return out, mean, variance
    if statistics is None:
        n = x.numel() // x.shape[1]
        total, squares = _sums(x, x)
        mean = total / n
        variance = (squares / n - mean.square()).clamp_min(0.0)
    return _scaled(x, mean, weight * torch.rsqrt(variance + eps), bias), mean, variance


def differentiate(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    statistics: tuple[Tensor, Tensor],
    eps: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, given that of what ``normalise`` returned.

    With s = (variance + eps)^(-1/2) and xhat = s (x - mean) they are
    ``s weight (gradient - sum(gradient) / n - xhat sum(gradient xhat) / n)``,
    ``sum(gradient xhat)`` and ``sum(gradient)``; where the statistics are constants
    (``training`` false), the first is ``s weight gradient``.
    """
    mean, variance = statistics
    library = _library(gradient, x, weight)
    if library:
        results = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        maps, weight = _pointers(gradient, x), weight.contiguous()
        inputs, places = _pointers(weight, mean, variance), _pointers(*results)
        numbers = ctypes.c_double(eps), training
        _check(library.differentiate(*maps, _sizes(x), *inputs, *numbers, *places))
        return results
    n = x.numel() // x.shape[1]
    scale = torch.rsqrt(variance + eps)
    total, products = _sums(gradient, x)
    dots = (products - mean * total) * scale
    slope = weight * scale
    if training:
        of_x = -slope * scale * dots / n
        dx = _combined(gradient, x, (slope, of_x, mean, -slope * total / n))
    else:
        zero = torch.zeros_like(mean)
        dx = _scaled(gradient, zero, slope, zero)
    return dx, dots.to(weight.dtype), total.to(weight.dtype)


class _Maps(ctypes.Structure):
    """``struct maps`` of the C source."""

    _fields_ = (
        ("planes", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("images", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("pixels", ctypes.c_int64),
    )


def _sizes(x: Tensor) -> ctypes._CArgObject:
    n, channels, height, width = x.shape
    threads = torch.get_num_threads()
    if _has_rows(x):
        return ctypes.byref(_Maps(0, threads, 1, channels, n * height * width))
    return ctypes.byref(_Maps(1, threads, n, channels, height * width))


def _pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _library(maps: Tensor, *others: Tensor) -> ctypes.CDLL | None:
    """Return the compiled functions, if these tensors are for them.

    Small maps are not, so that nothing is compiled for a toy; by their size alone, so that the
    same step always gives the same bits.
    """
    if maps.numel() < SMALL or any(t.dtype != torch.float32 for t in (maps, *others)):
        return None
    return compiled()


def compiled() -> ctypes.CDLL | None:
    """Return the compiled functions, None where they cannot be built."""
    return native.load(SOURCE, "batch normalisation takes torch's operators, as exact but slower")


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("batch normalisation: no memory for sums by channel")


def _sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return by channel the sum of ``a`` and that of ``a b``."""
    totals = a.new_zeros((2, a.shape[1]), dtype=torch.float64)
    for part, other in _blocks(a, b):
        values = part.to(torch.float64, copy=True)
        totals[0] += _by_channel(values)
        totals[1] += _by_channel(values.mul_(other))
    return totals[0], totals[1]


def _scaled(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return ``scale (x - mean) + shift``; all but ``x`` are by channel."""
    mean, scale, shift = (values.to(x.dtype) for values in (mean, scale, shift))
    # A variance of one half and eps of one half make exactly 1; torch 2.11 refuses an eps of 0.
    return F.batch_norm(x, mean, torch.full_like(mean, 0.5), scale, shift, eps=0.5)


def _combined(gradient: Tensor, x: Tensor, by_channel: Sequence[Tensor]) -> Tensor:
    """Return ``p gradient + q (x - m) + r``, where p, q, m and r are by channel."""
    out = torch.empty_like(x)
    parts = list(_blocks(gradient, x, out))
    # Written out: torch's loops over a broadcast axis that is as short as C are slow.
    weights = [values.to(x.dtype) for values in by_channel]
    weights = [values if _has_rows(x) else values[:, None] for values in weights]
    weights = [values.expand_as(parts[0][0]).contiguous() for values in weights]
    for g, values, place in parts:
        p, q, m, r = (weight[: len(g)] for weight in weights)
        torch.sub(values, m, out=place)
        torch.addcmul(r, place, q, out=place)
        place.addcmul_(g, p)
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
