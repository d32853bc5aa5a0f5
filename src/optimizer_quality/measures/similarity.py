"""Centred kernel alignment between layers.

Linear CKA of activations X (N, P) and Y (N, Q) with Gram matrices K = XXᵀ, L = YYᵀ::

    CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

Source: S. Kornblith et al., "Similarity of Neural Network Representations Revisited",
arXiv:1905.00414, eq. 3. The plain estimator of HSIC is ``tr(KHLH)``; it is biased towards 1 where
P, Q >> N. The unbiased one, used by default, is L. Song et al., "Feature Selection via Dependence
Maximization", JMLR 13 (2012), eq. 5; T. Nguyen et al., arXiv:2010.15327, use it for CKA.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from optimizer_quality.models import ResNet


def gram(features: Tensor) -> Tensor:
    """Return XXᵀ (N, N) of features (N, ...), columns centred first."""
    x = features.flatten(1).float()
    x = x - x.mean(dim=0)
    return x @ x.T


def hsic(k: Tensor, l: Tensor, *, unbiased: bool = True) -> Tensor:  # noqa: E741 - as in the papers
    """Return the Hilbert-Schmidt independence criterion of two Gram matrices (N, N), float64.

    Raises:
        ValueError: fewer than four items, for which the unbiased estimator does not exist.
    """
    n = len(k)
    k, l = k.double(), l.double()  # noqa: E741
    if not unbiased:
        k = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
        return (k * l).sum() / (n - 1) ** 2
    if n < 4:
        raise ValueError(f"hsic: {n} items; at least 4 are expected")
    k, l = k - torch.diag(k.diag()), l - torch.diag(l.diag())  # noqa: E741
    cross = (k.sum(0) * l.sum(0)).sum()  # 1ᵀKL1
    means = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return ((k * l).sum() + means - 2 * cross / (n - 2)) / (n * (n - 3))


def cka(k: Tensor, l: Tensor, *, unbiased: bool = True) -> float:  # noqa: E741
    """Return the linear CKA of two Gram matrices; the unbiased one may be slightly negative."""
    scale = (hsic(k, k, unbiased=unbiased) * hsic(l, l, unbiased=unbiased)).clamp_min(0).sqrt()
    return (hsic(k, l, unbiased=unbiased) / scale.clamp_min(1e-30)).item()


class CkaMatrix:
    """CKA of many Gram matrices, with what depends on one of them computed once.

    Args:
        grams: (N, N) each; kept in float32.
    """

    def __init__(self, grams: Sequence[Tensor]) -> None:
        self.n = len(grams[0])
        self._grams = [g.clone().fill_diagonal_(0) for g in grams]
        self._sums = [g.double().sum(0) for g in self._grams]
        self._own = [self._hsic(i, self, i).clamp_min(1e-30).sqrt() for i in range(len(grams))]

    def _hsic(self, i: int, other: CkaMatrix, j: int) -> Tensor:
        n, (a, b) = self.n, (self._sums[i], other._sums[j])
        trace = torch.dot(self._grams[i].view(-1), other._grams[j].view(-1)).double()
        means = a.sum() * b.sum() / ((n - 1) * (n - 2))
        return (trace + means - 2 * torch.dot(a, b) / (n - 2)) / (n * (n - 3))

    def between(self, other: CkaMatrix) -> Tensor:
        """Return unbiased CKA of every one of ours (rows) with every one of theirs (columns)."""
        rows = [
            [self._hsic(i, other, j) / (own * theirs) for j, theirs in enumerate(other._own)]
            for i, own in enumerate(self._own)
        ]
        return torch.tensor(rows)


@torch.no_grad()
def layer_grams(model: ResNet, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the Gram matrix of every named layer's activations over all images of a loader."""
    model.eval()
    features: dict[str, list[Tensor]] = {name: [] for name in model.layer_names}
    for images, _ in batches:
        for name, value in model.activations(images).items():
            features[name].append(value.float().flatten(1).cpu())
    return {name: gram(torch.cat(features.pop(name))) for name in model.layer_names}
