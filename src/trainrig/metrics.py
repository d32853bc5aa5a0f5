"""Accuracy and norms; everything returns a tensor on its input's device, nothing waits for it.

Norms are accumulated in float64, so that a logged value carries no rounding of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def l2_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return ``sqrt(sum of all squares)`` (float64 scalar); 0 for no tensors.

    >>> l2_norm([torch.tensor([3.0]), torch.tensor([[4.0]])]).item()
    5.0
    """
    detached = [t.detach() for t in tensors]
    if not detached:
        return torch.zeros((), dtype=torch.float64)
    norms = torch._foreach_norm(detached, 2, dtype=torch.float64)
    return torch.linalg.vector_norm(torch.stack(norms))


def read_scalars(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the values of scalar tensors of one device, waiting for it once.

    >>> read_scalars({"a": torch.tensor(0.5), "b": torch.tensor(2.0, dtype=torch.float64)})
    {'a': 0.5, 'b': 2.0}
    """
    if not scalars:
        return {}
    device = next(iter(scalars.values())).device
    together = torch.stack([value.detach().to(device) for value in scalars.values()])
    return dict(zip(scalars, together.tolist(), strict=True))


def weight_matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the (name, parameter) pairs with two or more axes that belong to no norm layer.

    Embedding tables are included; biases, norm scales and norm offsets are not.
    """
    for prefix, module in model.named_modules():
        if "Norm" in type(module).__name__:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                yield f"{prefix}.{name}" if prefix else name, parameter


def weight_l2(model: nn.Module) -> Tensor:
    """Return the L2 norm over the weight matrices, tables included (:func:`weight_matrices`)."""
    return l2_norm(parameter for _, parameter in weight_matrices(model))


def weight_l2_all(model: nn.Module) -> Tensor:
    """Return the L2 norm over all parameters."""
    return l2_norm(model.parameters())


def weight_l2_head(model: nn.Module) -> Tensor:
    """Return the L2 norm of the output head's matrix, ``model.head.weight``.

    Archived ICL logs hold this under the name ``weight_l2``: their filter dropped every parameter
    whose path contains the letter b, which left a transformer its head.
    """
    head: Any = model.head
    return l2_norm([head.weight])


def grad_l2(model: nn.Module) -> Tensor:
    """Return the L2 norm over the gradients that exist."""
    return l2_norm(p.grad for p in model.parameters() if p.grad is not None)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of positions whose largest logit is the target.

    Args:
        logits: (..., K).
        target: int64 (...).
    """
    return (logits.argmax(dim=-1) == target).float().mean()
