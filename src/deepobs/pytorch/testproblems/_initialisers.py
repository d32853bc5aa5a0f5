"""TensorFlow 1 initialisers, exact in distribution.

Fans follow TensorFlow: receptive field times channels. ``xavier_normal_`` is not one of them: its
tails are cut nowhere, while TensorFlow draws a wider normal truncated at two of its deviations.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from trainrig.models.init import TRUNCATION_STD, truncated_normal_

__all__ = ["glorot_normal_", "glorot_uniform_", "truncated_normal_"]


def glorot_normal_(tensor: Tensor) -> Tensor:
    """Fill from a truncated normal whose realised deviation is sqrt(2 / (fan_in + fan_out))."""
    fan_in, fan_out = _fans(tensor)
    return truncated_normal_(tensor, math.sqrt(2 / (fan_in + fan_out)) / TRUNCATION_STD)


def glorot_uniform_(tensor: Tensor) -> Tensor:
    """Fill from U(-l, l), l = sqrt(6 / (fan_in + fan_out)); a vector has both fans = its length."""
    fan_in, fan_out = _fans(tensor)
    limit = math.sqrt(6 / (fan_in + fan_out))
    return nn.init.uniform_(tensor, -limit, limit)


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        return tensor.numel(), tensor.numel()
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field
