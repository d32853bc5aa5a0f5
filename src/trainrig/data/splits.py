"""Train/validation splits that can be checked later: indices, their source and its content hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainrig.files import write_json
from trainrig.seeding import derive_seed


def split_indices(n_items: int, train_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split ``range(n_items)`` at random, as a pure function of the arguments.

    Args:
        n_items: items in the set, at least 2.
        train_fraction: share of the training part, inside (0, 1).
        seed: of the split; the training order does not depend on it.

    Returns:
        Ascending int64 indices of the training and the validation part, neither empty.

    Raises:
        ValueError: a fraction outside (0, 1), or one that leaves a part empty.
    """
    if not 0.0 < train_fraction < 1.0:
        raise ValueError(f"train_val_split: {train_fraction} is not inside (0, 1); try 0.9")
    n_train = round(n_items * train_fraction)
    if not 0 < n_train < n_items:
        raise ValueError(
            f"train_val_split: {train_fraction} of {n_items} items leaves an empty part; "
            "choose a fraction that does not"
        )
    generator = torch.Generator().manual_seed(derive_seed(seed, "split", n_items))
    order = torch.randperm(n_items, generator=generator)
    return order[:n_train].sort().values, order[n_train:].sort().values


def content_hash(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 over the ordered labels, then the images.

    Two sources with the same pictures in another order have different hashes, and a split of one
    is not a split of the other.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
    """
    digest = hashlib.sha256(labels.to(torch.int64).contiguous().numpy().tobytes())
    digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()


def save_split(
    path: Path,
    train_indices: Iterable[int],
    val_indices: Iterable[int],
    *,
    source: str,
    sha256: str,
) -> None:
    """Write both index lists with what they index: the source and its content hash."""
    value: dict[str, Any] = {
        "source": source,
        "content_sha256": sha256,
        "train_indices": [int(i) for i in train_indices],
        "val_indices": [int(i) for i in val_indices],
    }
    write_json(path, value)
