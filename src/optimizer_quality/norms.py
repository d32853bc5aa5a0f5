"""Norms by layer: of the gradients over an epoch, and of the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainrig.metrics import l2_norm


class GradientNorms:
    """Mean over steps of each layer's gradient norm; a layer is a module with own parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = {
            name: list(module.parameters(recurse=False))
            for name, module in model.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        }
        self.sum: Tensor | None = None  # (layers + 1,), the last one over all
        self.steps = 0

    def add(self) -> None:
        """Take the gradients that stand in ``.grad`` now."""
        gradients = [
            [p.grad.detach() for p in parameters if p.grad is not None]
            for parameters in self._layers.values()
        ]
        flat = torch._foreach_norm([g for layer in gradients for g in layer])
        squares = torch.stack([norm.double() for norm in flat]).square()
        sizes = [len(layer) for layer in gradients]
        by_layer = torch.stack([part.sum() for part in squares.split(sizes)])
        norms = torch.cat([by_layer, by_layer.sum().view(1)]).sqrt()
        self.sum = norms if self.sum is None else self.sum + norms
        self.steps += 1

    def result(self) -> dict[str, Any]:
        """Return ``grad_norm`` and ``grad_norm_by_layer``."""
        if self.sum is None:
            return {"grad_norm": 0.0, "grad_norm_by_layer": {}}
        *layers, total = (self.sum / self.steps).tolist()
        return {
            "grad_norm": total,
            "grad_norm_by_layer": dict(zip(self._layers, layers, strict=True)),
        }


def weight_norms(model: nn.Module) -> dict[str, float]:
    """Return the L2 norm of each convolution's and linear layer's kernel."""
    return {
        f"weight_norm/{name}": l2_norm([module.weight]).item()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
