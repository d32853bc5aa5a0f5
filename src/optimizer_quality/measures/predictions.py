"""What networks predict: accuracy, disagreement between two of them, calibration.

Legend: N images, K classes, M bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

N_BINS = 15


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and labels (N,) over a loader, in evaluation mode, on the CPU."""
    model.eval()
    parts = [(model(images).cpu(), labels.cpu()) for images, labels in batches]
    logits, labels = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(labels)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of images whose largest logit is the label."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def disagreement(a: Tensor, b: Tensor) -> float:
    """Return the fraction of images for which two networks name different classes.

    ``mean_i [argmax a_i != argmax b_i]``; S. Fort et al., "Deep Ensembles: A Loss Landscape
    Perspective", arXiv:1912.02757, §3.

    Args:
        a: logits (N, K).
        b: logits (N, K) of the same images.
    """
    return (a.argmax(dim=1) != b.argmax(dim=1)).double().mean().item()


def total_variation(a: Tensor, b: Tensor) -> float:
    """Return the mean total-variation distance of the predicted distributions, in 0..1.

    ``mean_i 1/2 sum_k |softmax(a)_ik - softmax(b)_ik|``.
    """
    p, q = (x.double().softmax(dim=1) for x in (a, b))
    return (p - q).abs().sum(dim=1).mul(0.5).mean().item()


def error_consistency(a: Tensor, b: Tensor, labels: Tensor) -> float:
    """Return how far two networks err on the same images, beyond what their accuracies explain.

    Cohen's kappa of "right" and "wrong": ``(c - e) / (1 - e)`` with c the share of images that both
    have right or both wrong, and ``e = p q + (1 - p)(1 - q)`` of their accuracies p and q; 1 is the
    same errors, 0 chance. R. Geirhos et al., "Beyond accuracy: quantifying trial-by-trial behaviour
    of CNNs and humans by measuring error consistency", arXiv:2006.16736. nan where neither errs.

    Args:
        a: logits (N, K).
        b: logits (N, K) of the same images.
        labels: (N,).
    """
    right = [(logits.argmax(dim=1) == labels).double() for logits in (a, b)]
    p, q = (r.mean().item() for r in right)
    expected = p * q + (1 - p) * (1 - q)
    observed = (right[0] == right[1]).double().mean().item()
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


@dataclass(frozen=True, slots=True)
class Calibration:
    """How confidence and accuracy go together.

    Attributes:
        ece: expected calibration error.
        nll: mean negative log-likelihood, in nats.
        brier: mean squared distance of the distribution from the one-hot label.
        confidence: mean of the largest probability.
        bins: per bin (lower edge, images, mean confidence, accuracy); empty bins are left out.
    """

    ece: float
    nll: float
    brier: float
    confidence: float
    bins: tuple[tuple[float, int, float, float], ...]


def calibration(logits: Tensor, labels: Tensor, n_bins: int = N_BINS) -> Calibration:
    """Measure calibration on equal-width bins of the confidence.

    ``ECE = sum_m (n_m / N) |acc_m - conf_m|``; C. Guo et al., "On Calibration of Modern Neural
    Networks", arXiv:1706.04599, eq. 3. Bins are (lower, upper], so confidence 1 is in the last.

    Args:
        logits: (N, K).
        labels: (N,).
        n_bins: M.
    """
    probabilities = logits.double().softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    correct = (predicted == labels).double()
    index = (confidence * n_bins).ceil().long().sub(1).clamp(0, n_bins - 1)
    bins, ece = [], 0.0
    for m in range(n_bins):
        members = index == m
        count = int(members.sum())
        if count:
            conf, acc = confidence[members].mean().item(), correct[members].mean().item()
            bins.append((m / n_bins, count, conf, acc))
            ece += count / len(labels) * abs(acc - conf)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    return Calibration(
        ece=ece,
        nll=torch.nn.functional.cross_entropy(logits.double(), labels).item(),
        brier=(probabilities - one_hot).square().sum(dim=1).mean().item(),
        confidence=confidence.mean().item(),
        bins=tuple(bins),
    )
