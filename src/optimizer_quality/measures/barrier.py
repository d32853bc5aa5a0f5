"""The loss on the straight line between two solutions.

At ``w(t) = (1 - t) w_a + t w_b`` the barrier is ``max_t [L(t) - (1 - t) L(0) - t L(1)]``; 0 means
that no point of the line is worse than the mixture of its ends.

Source: R. Entezari et al., "The Role of Permutation Invariance in Linear Mode Connectivity of
Neural Networks", arXiv:2110.06296, eq. 1. Averaged weights invalidate BatchNorm's running
statistics; re-estimating them on training images is P. Izmailov et al., arXiv:1803.05407, §3.3, and
K. Jordan et al. (REPAIR), arXiv:2211.08403.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Line:
    """Loss and accuracy at points of the line, from the first solution (0) to the second (1)."""

    points: tuple[float, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """The loss barrier, in the loss's units; never negative."""
        first, last = self.loss[0], self.loss[-1]
        return max(
            loss - (1 - t) * first - t * last
            for t, loss in zip(self.points, self.loss, strict=True)
        )


def mix(a: Mapping[str, Tensor], b: Mapping[str, Tensor], t: float) -> dict[str, Tensor]:
    """Return ``(1 - t) a + t b`` of two state dicts; integer buffers are those of ``a``."""
    return {
        name: torch.lerp(value, b[name], t) if value.is_floating_point() else value
        for name, value in a.items()
    }


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Batches) -> None:
    """Replace BatchNorm's running statistics by their averages over ``batches``, in place."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    for images, _ in batches:
        model(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Batches) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy, in evaluation mode."""
    model.eval()
    loss = correct = count = 0.0
    for images, labels in batches:
        logits = model(images)
        loss += nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
        count += len(labels)
    return loss / count, correct / count


def loss_line(
    a: nn.Module,
    b: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    n_points: int = 11,
    statistics_batches: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Line:
    """Evaluate the line between two networks of one architecture.

    Args:
        a: at t = 0; left as it is.
        b: at t = 1.
        batches: where the loss is measured.
        n_points: equally spaced, both ends included, at least 3.
        statistics_batches: training images to re-estimate BatchNorm on at every point, the ends
            included; None interpolates the running statistics like the weights.

    Raises:
        ValueError: fewer than three points.
    """
    if n_points < 3:
        raise ValueError(f"loss_line: {n_points} points; at least 3 are expected")
    probe = copy.deepcopy(a)
    start, end = a.state_dict(), b.state_dict()
    points = [i / (n_points - 1) for i in range(n_points)]
    measured = []
    for t in points:
        probe.load_state_dict(mix(start, end, t))
        if statistics_batches is not None:
            reestimate_batchnorm(probe, statistics_batches)
        measured.append(mean_loss(probe, batches))
    losses, accuracies = zip(*measured, strict=True)
    return Line(tuple(points), losses, accuracies)
