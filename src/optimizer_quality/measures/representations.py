"""What the features of a layer tell apart: similarity across classes, and a linear read-out.

Legend: N images, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from optimizer_quality.models import ResNet

#: Ridge penalty of a probe, as a share of the number of training images.
RIDGE = 1e-3


def class_similarity(features: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the mean cosine of the features of two different images, by their classes.

    ``S_ij = mean over a in class i, b in class j, a != b, of cos(f_a, f_b)``: the heat map of R.
    Pascanu et al., "Optimizers Qualitatively Alter Solutions And We Should Leverage This",
    arXiv:2507.12224, for a network's last features.

    Args:
        features: (N, F), as the network computes them, not centred.
        labels: (N,).
        n_classes: K.

    Returns:
        (K, K), symmetric; nan where a class has no pair.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    member = torch.nn.functional.one_hot(labels, n_classes).double()  # (N, K)
    counts = member.sum(dim=0)
    sums = member.T @ unit  # (K, F)
    products, pairs = sums @ sums.T, torch.outer(counts, counts)
    own = member.T @ unit.square().sum(dim=1)  # each image with itself
    return (products - torch.diag(own)) / (pairs - torch.diag(counts))


@torch.no_grad()
def pooled_features(
    model: ResNet, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return every named layer's activations, averaged over pixels, and the labels.

    Returns:
        Layer → (N, channels), in the network's order; labels (N,).
    """
    model.eval()
    found: dict[str, list[Tensor]] = {name: [] for name in model.layer_names}
    labels = []
    for images, own in batches:
        labels.append(own.cpu())
        for name, value in model.activations(images).items():
            pooled = value.float().flatten(2).mean(dim=2) if value.ndim > 2 else value.float()
            found[name].append(pooled.cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(labels)


def probe_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], n_classes: int
) -> float:
    """Return the test accuracy of a linear classifier on fixed features.

    Ridge regression on one-hot labels, in closed form, of features scaled to unit variance: the
    probe of G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier
    probes", arXiv:1610.01644, without an optimizer of its own. The scaling makes it blind to the
    scale of single features.

    Args:
        train: features (N, F) and labels (N,).
        test: the same of other images.
        n_classes: K.
    """
    x, (y, wanted) = train[0].double(), test
    mean, sd = x.mean(dim=0), x.std(dim=0)
    alive = sd > 1e-12 * sd.max()
    x, y = (((f - mean) / sd)[:, alive] for f in (x, y.double()))
    target = torch.nn.functional.one_hot(train[1], n_classes).double()
    prior = target.mean(dim=0)
    penalty = RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ (target - prior))
    return ((y @ weights + prior).argmax(dim=1) == wanted).double().mean().item()
