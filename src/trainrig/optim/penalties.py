"""L2 penalties that enter the loss, beside the decay that optimizers apply themselves.

Four things are called "L2": decoupled decay (AdamW), ``λ·Σ‖W‖²`` in the loss (no ½), and
``λ·Σ‖W‖`` in the loss, un-squared, one norm per array; and none. The loss forms pass through the
optimizer's scaling.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from trainrig.errors import nearest

L2Mode = Literal["decoupled", "sum_squares", "sum_norms"]
L2_MODES: tuple[str, ...] = get_args(L2Mode)


def l2_penalty(parameters: Iterable[Tensor], mode: L2Mode, weight_decay: float) -> Tensor:
    """Return the scalar to add to the loss; 0 for ``decoupled``.

    Args:
        parameters: the arrays, normally ``model.parameters()``.
        mode: ``sum_squares`` adds λ·Σ‖W‖² (gradient 2λW); ``sum_norms`` adds λ·Σ‖W‖ (gradient
            λW/‖W‖, and 0 where the norm is 0).
        weight_decay: λ >= 0.

    Raises:
        ValueError: an unknown mode or a negative λ.
    """
    if mode not in L2_MODES:
        raise ValueError(
            f"l2_mode: unknown value {mode!r}{nearest(mode, L2_MODES)}; "
            f"choose one of {', '.join(L2_MODES)}"
        )
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay: {weight_decay} is not a number >= 0; give one")
    if mode == "decoupled" or weight_decay == 0:
        return torch.zeros(())
    arrays = list(parameters)
    if mode == "sum_norms":
        terms = torch.stack(torch._foreach_norm(arrays))
    elif arrays[0].device.type == "cpu":
        terms = torch.stack([array.square().sum() for array in arrays])
    else:  # a few kernels for all arrays
        terms = torch.stack(torch._foreach_norm(arrays)).square()
    return weight_decay * terms.sum()
