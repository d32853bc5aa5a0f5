"""Statistics of each layer's weights and activations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from optimizer_quality.models import ResNet

Row = dict[str, float | int | str]
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
    "effective_rank",
    "distance_from_start",
    "angle_from_start",
)
ACTIVATION_COLUMNS = (
    *("layer", "mean", "sd", "zeros", "dead_channels"),
    *("participation_ratio", "effective_rank"),
)
NEAR_ZERO = 0.1


def weight_statistics(model: nn.Module, start: nn.Module) -> list[Row]:
    """Describe every convolution's and linear layer's kernel W, seen as (outputs, rest).

    ``near_zero`` is the share with ``|w| < 0.1 sd``; ``stable_rank = ||W||_F² / ||W||_2²`` (M.
    Rudelson, R. Vershynin, J. ACM 54 (2007)); ``distance_from_start = ||W - W_0||_F / ||W_0||_F``;
    ``excess_kurtosis`` is 0 for a normal distribution; ``effective_rank`` as in the function of
    that name, of the singular values. ``angle_from_start`` is the mean angle in degrees between a
    filter and its initial value: how far a layer has turned, whatever its scale (S. Carbonnelle, C.
    De Vleeschouwer, "Layer rotation", arXiv:1806.01603, with one angle for a layer).

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
        singular = torch.linalg.svdvals(w.flatten(1))
        cosine = nn.functional.cosine_similarity(w.flatten(1), first.flatten(1)).clamp(-1, 1)
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
                "stable_rank": (w.norm() / singular[0]).square().item(),
                "effective_rank": effective_rank(singular).item(),
                "distance_from_start": ((w - first).norm() / first.norm()).item(),
                "angle_from_start": cosine.acos().rad2deg().mean().item(),
            }
        )
    return rows


def effective_rank(values: Tensor) -> Tensor:
    """Return the exponential of the entropy of ``values / sum(values)``, at least 1.

    Between 1, where one value is all, and their number, where all are equal. Source: O. Roy, M.
    Vetterli, "The effective rank", EUSIPCO 2007, for singular values.
    """
    share = values / values.sum()
    return torch.special.entr(share).sum().exp()


def singular_values(model: nn.Module) -> list[Row]:
    """Return every kernel's singular values, relative to the largest, in descending order."""
    return [
        {"layer": name, "rank": rank, "singular_value": value}
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for rank, value in enumerate(_relative(module.weight.detach().double().flatten(1)), 1)
    ]


def _relative(matrix: Tensor) -> list[float]:
    values = torch.linalg.svdvals(matrix)
    return (values / values[0]).tolist()


@torch.no_grad()
def activation_statistics(model: ResNet, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Row]:
    """Describe every named layer's output over all images, pixels pooled with images.

    ``zeros`` is the share of values that are exactly 0; ``dead_channels`` the share of channels
    that are 0 for every image and pixel; ``participation_ratio = (sum λ)² / sum λ²`` over the
    eigenvalues of the channel covariance, the number of directions in use (P. Gao et al.,
    bioRxiv:214262); ``effective_rank`` is that of the same eigenvalues.
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
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(0)
    squares = eigenvalues.square().sum()
    ratio = eigenvalues.sum().square() / squares if squares > 0 else torch.zeros(())
    entropy_rank = effective_rank(eigenvalues) if squares > 0 else torch.zeros(())
    return {
        "layer": name,
        "mean": grand.item(),
        "sd": variance.clamp_min(0).sqrt().item(),
        "zeros": zeros.item() / (n * len(total)),
        "dead_channels": (alive == 0).double().mean().item(),
        "participation_ratio": ratio.item(),
        "effective_rank": entropy_rank.item(),
    }
