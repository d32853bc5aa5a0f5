"""Statistics of each layer's weights and activations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimizer_quality.models import ResNet

Row = dict[str, float | str]
WEIGHT_COLUMNS = (
    "layer",
    "n_values",
    "l2",
    "mean",
    "sd",
    "excess_kurtosis",
    "max_abs",
    "near_zero",
    "stable_rank",
    "distance_from_start",
)
ACTIVATION_COLUMNS = ("layer", "mean", "sd", "zeros", "dead_channels", "participation_ratio")
NEAR_ZERO = 0.1


def weight_statistics(model: nn.Module, start: nn.Module) -> list[Row]:
    """Describe every convolution's and linear layer's kernel W, seen as (outputs, rest).

    ``near_zero`` is the share with ``|w| < 0.1 sd``; ``stable_rank = ||W||_F² / ||W||_2²`` (M.
    Rudelson, R. Vershynin, J. ACM 54 (2007)); ``distance_from_start = ||W - W_0||_F / ||W_0||_F``;
    ``excess_kurtosis`` is 0 for a normal distribution.

    Args:
        model: the solution.
        start: the same network with its initial weights.
    """
    initial = dict(start.named_modules())
    rows = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        w = module.weight.detach().double()
        first = initial[name].weight.detach().double()
        centred = w - w.mean()
        sd = centred.square().mean().sqrt()
        spectral = torch.linalg.matrix_norm(w.flatten(1), ord=2)
        rows.append(
            {
                "layer": name,
                "n_values": float(w.numel()),
                "l2": w.norm().item(),
                "mean": w.mean().item(),
                "sd": sd.item(),
                "excess_kurtosis": (centred.pow(4).mean() / sd.pow(4) - 3).item(),
                "max_abs": w.abs().max().item(),
                "near_zero": (w.abs() < NEAR_ZERO * sd).double().mean().item(),
                "stable_rank": (w.norm() / spectral).square().item(),
                "distance_from_start": ((w - first).norm() / first.norm()).item(),
            }
        )
    return rows


@torch.no_grad()
def activation_statistics(model: ResNet, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Row]:
    """Describe every named layer's output over all images, pixels pooled with images.

    ``zeros`` is the share of values that are exactly 0; ``dead_channels`` the share of channels
    that are 0 for every image and pixel; ``participation_ratio = (sum λ)² / sum λ²`` over the
    eigenvalues of the channel covariance, the number of directions in use (P. Gao et al.,
    bioRxiv:214262).
    """
    model.eval()
    sums: dict[str, list[Tensor]] = {}
    for images, _ in batches:
        for name, value in model.activations(images).items():
            x = value.float().transpose(0, 1).flatten(1).double()  # (channels, images * pixels)
            parts = [
                torch.tensor(float(x.shape[1])),
                x.sum(1),
                x @ x.T,
                (x == 0).double().sum(),
                (x != 0).any(1).double(),
            ]
            old = sums.get(name)
            sums[name] = parts if old is None else [a + b for a, b in zip(old, parts, strict=True)]
    return [_activation_row(name, *parts) for name, parts in sums.items()]


def _activation_row(
    name: str, count: Tensor, total: Tensor, products: Tensor, zeros: Tensor, alive: Tensor
) -> Row:
    n = count.item()
    mean = total / n
    covariance = products / n - torch.outer(mean, mean)
    grand = mean.mean()
    variance = (products.diag() / n).mean() - grand.square()
    squares = covariance.square().sum()  # sum of squared eigenvalues of a symmetric matrix
    ratio = covariance.trace().square() / squares if squares > 0 else torch.zeros(())
    return {
        "layer": name,
        "mean": grand.item(),
        "sd": variance.clamp_min(0).sqrt().item(),
        "zeros": zeros.item() / (n * len(total)),
        "dead_channels": (alive == 0).double().mean().item(),
        "participation_ratio": ratio.item(),
    }
