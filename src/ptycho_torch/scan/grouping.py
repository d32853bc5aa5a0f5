"""Which frames form a group: index-exact with the reference's sampling.

Legend: n frames, B groups, C = gridsize² frames per group, K neighbours. Random draws come from
NumPy's legacy stream, because the reference's do; the anchor of a group is normally not in it.
Source: the published description of PtychoPINN's sample-then-group scheme.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Groups:
    """Index table of grouped frames; coordinates are (x, y) in object pixels."""

    nn_indices: np.ndarray  # (B, C) integer
    coords_nn: np.ndarray  # (B, 1, 2, C) float64
    coords_offsets: np.ndarray  # (B, 1, 2, 1) float64, mean over C
    coords_relative: np.ndarray  # (B, 1, 2, C) float64, -(coords_nn - coords_offsets)
    sample_indices: np.ndarray  # (B,) anchors

    def __len__(self) -> int:
        return len(self.nn_indices)


def neighbours(
    xcoords: np.ndarray, ycoords: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of the ``count`` nearest frames, the frame itself first: (n, count)."""
    from scipy.spatial import cKDTree

    points = np.stack([xcoords, ycoords], axis=1)
    distance, index = cKDTree(points).query(points, k=count)
    return distance.reshape(len(points), -1), index.reshape(len(points), -1)


def group_frames(  # noqa: PLR0913 - the settings of one published scheme
    xcoords: np.ndarray,
    ycoords: np.ndarray,
    *,
    gridsize: int,
    nsamples: int,
    K: int = 4,  # noqa: N803 - the field's name
    seed: int | None = None,
    sequential: bool = False,
    enable_oversampling: bool = False,
    neighbor_pool_size: int | None = None,
    include_anchor: bool = False,
) -> Groups:
    """Choose anchors, then draw C of the K nearest neighbours of each.

    Args:
        xcoords: (n,) pixels.
        ycoords: (n,) pixels.
        gridsize: side of a group; 1 means ungrouped frames.
        nsamples: number of groups wanted; all n when larger (unless oversampling).
        K: neighbours to draw from, the anchor not counted.
        seed: of the draws; None takes NumPy's global stream.
        sequential: first rows in order, neighbour draws seeded with 0.
        enable_oversampling: allow more groups than frames, from combinations of neighbours.
        neighbor_pool_size: neighbours per anchor while oversampling, K by default.
        include_anchor: the anchor and C-1 neighbours, as the paper's text has it.

    Raises:
        ValueError: K < C, fewer frames than a group needs, or oversampling not opted into.
    """
    n, size = len(xcoords), gridsize**2
    stream: Any = np.random if seed is None else np.random.RandomState(seed)
    if size > 1 and nsamples > n:
        if not enable_oversampling:
            raise ValueError(
                f"group_frames: {nsamples} groups wanted from {n} frames; pass "
                "enable_oversampling=True and neighbor_pool_size, or ask for fewer"
            )
        pool = K if neighbor_pool_size is None else neighbor_pool_size
        _check_counts(n, size, pool)
        index, anchors = _oversampled(xcoords, ycoords, size, nsamples, pool, stream)
        return _table(xcoords, ycoords, index, anchors)
    if sequential:
        anchors = np.arange(min(nsamples, n))
        stream = np.random.RandomState(0)
    elif nsamples >= n:
        anchors = np.arange(n)
    else:
        anchors = stream.choice(np.arange(n), size=nsamples, replace=False)
    if size == 1:
        return _table(xcoords, ycoords, anchors[:, None], anchors)
    _check_counts(n, size, K + 1 if include_anchor else K)
    reach = min(K, n - 1)
    _check_counts(n, size, reach + 1 if include_anchor else reach)
    near = neighbours(xcoords, ycoords, reach + 1)[1][anchors, 1:]  # (B, K), anchor dropped
    if include_anchor:
        rows = [
            np.concatenate([[anchor], stream.choice(row, size=size - 1, replace=False)])
            for anchor, row in zip(anchors, near, strict=True)
        ]
    else:
        rows = [stream.choice(row, size=size, replace=False) for row in near]
    return _table(xcoords, ycoords, np.asarray(rows, dtype=np.int32), anchors)


def neighbourhoods(
    xcoords: np.ndarray, ycoords: np.ndarray, rows: np.ndarray, count: int
) -> Groups:
    """Each of these frames with its nearest ones among them, itself first; no random draw.

    Args:
        xcoords: (n,) pixels.
        ycoords: (n,) pixels.
        rows: (B,) frames to use.
        count: frames per group.

    Raises:
        ValueError: fewer frames than a group needs.
    """
    _check_counts(len(rows), count, count)
    near = neighbours(xcoords[rows], ycoords[rows], count)[1]
    return _table(xcoords, ycoords, rows[near], rows)


def _check_counts(n: int, size: int, pool: int) -> None:
    if n < size:
        raise ValueError(f"group_frames: {n} frames cannot form groups of {size}; lower gridsize")
    if pool < size:
        raise ValueError(
            f"group_frames: {pool} neighbours are fewer than the {size} frames of a group; "
            "raise neighbor_count or lower gridsize"
        )


def _oversampled(
    xcoords: np.ndarray,
    ycoords: np.ndarray,
    size: int,
    nsamples: int,
    pool_size: int,
    stream: Any,
) -> tuple[np.ndarray, np.ndarray]:
    n = len(xcoords)
    pool_size = min(pool_size, n - 1)
    near = neighbours(xcoords, ycoords, pool_size + 1)[1][:, 1:]
    wanted = min(2 * math.ceil(nsamples / math.comb(pool_size, size)), n)
    seeds = stream.choice(n, size=wanted, replace=False)
    pool: list[tuple[int, ...]] = []
    owners: list[int] = []
    for seed in seeds:
        for combination in itertools.combinations(near[seed], size):
            pool.append(combination)
            owners.append(int(seed))
        if len(pool) >= 2 * nsamples:
            break
    table = np.asarray(pool[: 2 * nsamples], dtype=np.int32)
    chosen = stream.choice(len(table), size=nsamples, replace=len(table) < nsamples)
    return table[chosen], np.asarray(owners)[chosen]


def _table(
    xcoords: np.ndarray, ycoords: np.ndarray, index: np.ndarray, anchors: np.ndarray
) -> Groups:
    coords = np.stack([xcoords[index], ycoords[index]], axis=1)[:, None]  # (B, 1, 2, C)
    offsets = coords.mean(axis=3, keepdims=True)
    return Groups(index, coords, offsets, -(coords - offsets), anchors)
