"""What is summed over an epoch, on the device: no wait for it inside the loop; and norms by layer.

Legend: B images per batch, K classes, R runs of a pack, L layers with parameters of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainrig.metrics import l2_norm


class EpochSums:
    """Sums over the steps of an epoch so far; a checkpoint within the epoch holds them.

    Args:
        model: whose layers are named.
        per_epoch: steps in an epoch.
        totals: float64 (3 + L + 1,) to sum in; default a new one on the model's device.

    Attributes:
        steps: of this epoch, done.
        totals: loss x images, correct and images; then each layer's gradient norm, and that of all.
    """

    def __init__(self, model: nn.Module, per_epoch: int, totals: Tensor | None = None) -> None:
        self.layers, self.per_epoch, self.steps = list(layers_of(model)), per_epoch, 0
        device = next(model.parameters()).device
        size = 3 + len(self.layers) + 1
        self.totals = (
            torch.zeros(size, dtype=torch.float64, device=device) if totals is None else totals
        )

    def add(self, loss: Tensor, output: tuple[Tensor, Tensor], norms: Tensor) -> None:
        """Take a step.

        Args:
            loss: the mean over its images, a scalar.
            output: logits (B, K) and labels (B,).
            norms: of the gradients, (L + 1,).
        """
        logits, labels = output
        correct = (logits.argmax(dim=1) == labels).sum()
        count = torch.full_like(correct, len(labels))
        images = torch.stack([loss.double() * len(labels), correct.double(), count.double()])
        self.totals += torch.cat([images, norms])
        self.steps += 1

    def result(self) -> dict[str, Any]:
        """Return means over images and steps.

        ``loss``, ``accuracy``, ``grad_norm``, ``grad_norm_by_layer``, and ``steps``, their number.
        """
        loss, correct, count, *norms = self.totals.tolist()
        *layers, total = (norm / self.steps for norm in norms)
        return {
            "loss": loss / count,
            "accuracy": correct / count,
            "steps": self.steps,
            "grad_norm": total,
            "grad_norm_by_layer": dict(zip(self.layers, layers, strict=True)),
        }

    def reset(self) -> None:
        """Begin an epoch."""
        self.totals.zero_()
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        return {"steps": self.steps, "per_epoch": self.per_epoch, "totals": self.totals}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Continue from ``state``.

        Raises:
            ValueError: its epochs have another number of steps.
        """
        if state["per_epoch"] != self.per_epoch:
            raise ValueError(f"{state['per_epoch']} steps per epoch, here {self.per_epoch}")
        self.totals.copy_(state["totals"])
        self.steps = int(state["steps"])


class PackSums:
    """The sums of a pack's runs: ``members[r]`` are those of run r, rows of one array.

    Args:
        models: of the runs.
        per_epoch: steps in an epoch.
    """

    def __init__(self, models: Sequence[nn.Module], per_epoch: int) -> None:
        size = 3 + len(layers_of(models[0])) + 1
        device = next(models[0].parameters()).device
        self._totals = torch.zeros(len(models), size, dtype=torch.float64, device=device)
        self.members = [
            EpochSums(model, per_epoch, row)
            for model, row in zip(models, self._totals, strict=True)
        ]

    def add(self, output: tuple[Tensor, Tensor, Tensor], norms: Tensor) -> None:
        """Take a step.

        Args:
            output: losses (R, B), logits (R, B, K) and labels (R, B).
            norms: of the gradients, (R, L + 1).
        """
        losses, logits, labels = output
        correct = (logits.argmax(dim=2) == labels).sum(dim=1)
        count = torch.full_like(correct, labels.shape[1])
        images = torch.stack([losses.double().sum(dim=1), correct.double(), count.double()], dim=1)
        self._totals += torch.cat([images, norms], dim=1)
        for member in self.members:
            member.steps += 1


def layers_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the modules that have parameters of their own, with these, by name."""
    own = {name: list(m.parameters(recurse=False)) for name, m in model.named_modules()}
    return {name: parameters for name, parameters in own.items() if parameters}


def gradient_norms(layers: Sequence[Sequence[nn.Parameter]]) -> Tensor:
    """Return the norm of each layer's present gradient, then that of all, (L + 1,)."""
    gradients = [[p.grad.detach() for p in own if p.grad is not None] for own in layers]
    flat = torch._foreach_norm([g for layer in gradients for g in layer])
    squares = torch.stack([norm.double() for norm in flat]).square()
    by_layer = torch.stack([part.sum() for part in squares.split([len(g) for g in gradients])])
    return torch.cat([by_layer, by_layer.sum().view(1)]).sqrt()


def weight_norms(model: nn.Module) -> dict[str, float]:
    """Return the L2 norm of each convolution's and linear layer's kernel."""
    return {
        f"weight_norm/{name}": l2_norm([module.weight]).item()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
