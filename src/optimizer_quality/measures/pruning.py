"""How many weights a solution can lose: accuracy after magnitude pruning, without retraining.

Source: S. Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
arXiv:1506.02626.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

SPARSITIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
#: What magnitudes are compared over: every kernel of the network, or each by itself; or over each
#: kernel with every filter divided by its norm, which the scale in front of a BatchNorm leaves as
#: it is.
SCOPES = ("network", "layer", "filter")


@torch.no_grad()
def pruned(model: nn.Module, sparsity: float, scope: str) -> nn.Module:
    """Return a copy with the smallest kernel values set to 0, a share of ``sparsity``.

    Biases and BatchNorm stay. BatchNorm's statistics are not estimated again.

    Args:
        model: left as it is.
        sparsity: 0 ≤ share < 1; of ties, all that fit the share go.
        scope: of ``SCOPES``.
    """
    model = copy.deepcopy(model)
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    sizes = [_magnitudes(kernel, scope) for kernel in kernels]
    groups = [list(range(len(kernels)))] if scope == "network" else [[i] for i in range(len(sizes))]
    for group in groups:
        together = torch.cat([sizes[i].flatten() for i in group])
        count = int(sparsity * len(together))
        if count:
            limit = together.kthvalue(count).values
            for i in group:
                kernels[i].masked_fill_(sizes[i] <= limit, 0.0)
    return model


def _magnitudes(kernel: Tensor, scope: str) -> Tensor:
    size = kernel.abs()
    if scope != "filter":
        return size
    norms = kernel.flatten(1).norm(dim=1).clamp_min(torch.finfo(kernel.dtype).tiny)
    return size / norms.view(-1, *[1] * (kernel.ndim - 1))
