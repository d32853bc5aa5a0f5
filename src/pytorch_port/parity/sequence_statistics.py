"""Summaries of many sequences, and p-values for "two sets of sequences are drawn alike".

n sequences of L items, the query last. Class positions count rare, then common, then holdout.
A p-value is the chance of a difference at least as large between two samples of one distribution;
several tests of one case are combined by Bonferroni (smallest p times their number).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

LEAST_COUNT = 20
"""Cells with fewer observations in both samples together are merged before a chi-square test."""
GROUPS = 32
"""Groups of neighbouring categories in the test of counts that are correlated in a sequence."""
SUPPORT = "query_support_count_hist"
"""Statistic: how many sequences have so many context items of the query's class."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Sequences as integer arrays (n, L): class positions, labels, ``is_rare``."""

    position: np.ndarray
    label: np.ndarray
    is_rare: np.ndarray

    def __len__(self) -> int:
        return len(self.position)


def summarize(sequences: Sequences, n_classes: int, ways: int = 0) -> dict[str, np.ndarray]:
    """Return the recorded statistics of a set of sequences.

    Args:
        sequences: what was drawn.
        n_classes: rare + common + holdout, the length of the class histograms.
        ways: W of few-shot sequences, which adds ``frac_same_class_both_ways``; 0 otherwise.

    Returns:
        Counts: ``class_hist_all``, ``class_hist_query`` (n_classes,), ``label_hist_all`` (up to
        the largest label), ``query_support_count_hist``, ``query_label_support_count_hist`` (L,)
        = how many context items share the query's class or label, ``n_unique_classes_hist``
        (L+1,). Means: ``query_match_rate_by_position`` (L-1,), ``is_rare_mean_by_position`` (L,),
        ``frac_query_in_support``, ``mean_query_support``, ``frac_same_class_both_ways``.
    """
    position, label = sequences.position, sequences.label
    length = position.shape[1]
    match = position[:, :-1] == position[:, -1:]
    support = match.sum(1)
    unique = unique_counts(position)
    result = {
        "class_hist_all": np.bincount(position.ravel(), minlength=n_classes),
        "class_hist_query": np.bincount(position[:, -1], minlength=n_classes),
        "label_hist_all": np.bincount(label.ravel()),
        SUPPORT: np.bincount(support, minlength=length),
        "query_label_support_count_hist": np.bincount(
            (label[:, :-1] == label[:, -1:]).sum(1), minlength=length
        ),
        "n_unique_classes_hist": np.bincount(unique, minlength=length + 1),
        "query_match_rate_by_position": match.mean(0),
        "is_rare_mean_by_position": sequences.is_rare.mean(0),
        "frac_query_in_support": np.mean(support > 0),
        "mean_query_support": np.mean(support),
    }
    if ways:
        result["frac_same_class_both_ways"] = np.mean(unique < ways)
    return result


def unique_counts(position: np.ndarray) -> np.ndarray:
    """Return how many different classes each sequence has, (n,)."""
    return (np.diff(np.sort(position, axis=1), axis=1) > 0).sum(1) + 1


def largest_difference(ours: np.ndarray, recorded: np.ndarray) -> float:
    """Return the largest absolute difference, the shorter histogram padded with zeros."""
    ours, recorded = np.atleast_1d(ours), np.atleast_1d(recorded)
    size = max(len(ours), len(recorded))
    pad = [np.pad(x.astype(np.float64), (0, size - len(x))) for x in (ours, recorded)]
    return float(np.abs(pad[0] - pad[1]).max())


def p_values(
    ours: Sequences, recorded: Mapping[str, np.ndarray], n_recorded: int, ways: int = 0
) -> dict[str, float]:
    """Compare sequences with recorded statistics, one p-value per quantity.

    Counts that occur once per sequence are compared by chi-square; counts of all items, which are
    correlated within a sequence, by z-tests of groups with our own variance between sequences;
    rates by z-tests. Quantities that are not recorded or not known are left out.
    """
    n_classes = len(recorded.get("class_hist_all", ()))
    mine = summarize(ours, n_classes, ways)
    result = {}
    for name, values in recorded.items():
        if name not in mine:
            continue
        if name == "class_hist_all":
            result[name] = _grouped_p(ours.position, values, n_recorded)
        elif name == "label_hist_all":
            result[name] = _grouped_p(ours.label, values, n_recorded)
        elif name.endswith("_hist") or name == "class_hist_query":
            result[name] = chi_square_p(mine[name], values)
        elif name == "mean_query_support":
            result[name] = _mean_p(
                mine[SUPPORT], recorded.get(SUPPORT, mine[SUPPORT]), n_recorded, float(values)
            )
        else:
            result[name] = _rates_p(mine[name], len(ours), values, n_recorded)
    return result


def chi_square_p(first: np.ndarray, second: np.ndarray) -> float:
    """Return the p-value of two histograms being samples of one distribution."""
    size = max(len(first), len(second))
    a, b = (np.pad(x.astype(np.float64), (0, size - len(x))) for x in (first, second))
    order = np.argsort(a + b, kind="stable")
    a, b = a[order], b[order]
    small = int(np.searchsorted(a + b, LEAST_COUNT))
    while small < size and (a[:small] + b[:small]).sum() < LEAST_COUNT and small:
        small += 1  # the merged rest takes in cells until it is large enough itself
    if small:
        a = np.append(a[small:], a[:small].sum())
        b = np.append(b[small:], b[:small].sum())
    keep = a + b > 0
    a, b = a[keep], b[keep]
    if len(a) < 2:
        return 1.0
    ratio = math.sqrt(b.sum() / a.sum())
    statistic = float((((a * ratio) - (b / ratio)) ** 2 / (a + b)).sum())
    degrees = torch.tensor((len(a) - 1) / 2, dtype=torch.float64)
    half = torch.tensor(statistic / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, half))


def normal_p(difference: np.ndarray, variance: np.ndarray) -> float:
    """Return the Bonferroni-corrected two-sided p-value of differences that should be zero."""
    difference, variance = np.atleast_1d(difference), np.atleast_1d(variance)
    sigma = np.sqrt(np.maximum(variance, 0))
    exact = np.abs(difference) <= 1e-12
    z = np.where(exact, 0.0, np.abs(difference) / np.where(sigma > 0, sigma, 1e-300))
    smallest = min(math.erfc(value / math.sqrt(2)) for value in z)
    return min(1.0, smallest * len(z))


def _rates_p(ours: np.ndarray, n: int, recorded: np.ndarray, n_recorded: int) -> float:
    ours, recorded = np.atleast_1d(ours), np.atleast_1d(recorded)
    if ours.shape != recorded.shape:
        return 0.0
    pooled = (ours * n + recorded * n_recorded) / (n + n_recorded)
    return normal_p(ours - recorded, pooled * (1 - pooled) * (1 / n + 1 / n_recorded))


def _mean_p(ours: np.ndarray, theirs: np.ndarray, n_recorded: int, recorded: float) -> float:
    """Compare a mean count; the variance is that of both histograms of counts together.

    A few thousand sequences may hold none of the rare ones whose count differs at all.
    """
    size = max(len(ours), len(theirs))
    a, b = (np.pad(x.astype(np.float64), (0, size - len(x))) for x in (ours, theirs))
    counts, both = np.arange(size), (a + b) / (a + b).sum()
    spread = both @ counts**2 - (both @ counts) ** 2
    variance = spread * (1 / a.sum() + 1 / n_recorded)
    return normal_p(np.array([a @ counts / a.sum() - recorded]), np.array([variance]))


def _grouped_p(items: np.ndarray, recorded: np.ndarray, n_recorded: int) -> float:
    """Compare counts of all items in groups of neighbours of about equal mass."""
    counts = np.bincount(items.ravel(), minlength=len(recorded))
    total = counts + np.pad(recorded, (0, len(counts) - len(recorded)))
    reached = np.cumsum(total) / total.sum()
    group = np.minimum((reached * GROUPS - 1e-9).astype(np.int64), GROUPS - 1)
    group = np.maximum(group, 0)
    hits = np.zeros((len(items), GROUPS))
    np.add.at(hits, (np.arange(len(items))[:, None], group[items]), 1)
    theirs = np.bincount(group[: len(recorded)], weights=recorded, minlength=GROUPS)
    difference = hits.mean(0) - theirs / n_recorded
    return normal_p(difference, hits.var(0) * (1 / len(items) + 1 / n_recorded))
