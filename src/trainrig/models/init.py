"""Initial values in Haiku's convention, the one the reference networks were trained with.

TN(s) is a normal of standard deviation ``s`` truncated at ±2s and *not* rescaled, so its actual
standard deviation is 0.8796·s. Haiku's ``VarianceScaling`` undoes the loss (divides by 0.8796),
its layer defaults do not; a port that mixes them up starts 12 % off.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TRUNCATION_STD = 0.87962566103423978
"""Standard deviation of a unit normal truncated at ±2."""


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Fill ``tensor`` in place with TN(``std``): truncated at ±2·std, not rescaled."""
    return nn.init.trunc_normal_(tensor, mean=0.0, std=std, a=-2.0 * std, b=2.0 * std)


def fan_in_normal_(tensor: Tensor, fan_in: int, *, corrected: bool) -> Tensor:
    """Fill a weight in place with TN(1/sqrt(fan_in)), optionally undoing the truncation loss.

    Args:
        tensor: weight of any shape.
        fan_in: number of inputs of one output unit (kh·kw·cin for a convolution).
        corrected: divide by 0.8796, so that the *actual* standard deviation is 1/sqrt(fan_in)
            (attention, MLP and head); otherwise it is 0.8796/sqrt(fan_in) (convolutions, plain
            dense layers, recurrent cores).
    """
    std = math.sqrt(1.0 / fan_in)
    return truncated_normal_(tensor, std / TRUNCATION_STD if corrected else std)


def dense(n_in: int, n_out: int, *, corrected: bool, bias: bool = True) -> nn.Linear:
    """Return a linear layer with fan-in weights and zero bias (see :func:`fan_in_normal_`)."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out, bias=bias)
    fan_in_normal_(layer.weight, n_in, corrected=corrected)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def table(n_rows: int, width: int, std: float) -> nn.Parameter:
    """Return an embedding table (n_rows, width) drawn from TN(``std``)."""
    return nn.Parameter(truncated_normal_(torch.empty(n_rows, width), std))
