"""Says whether a data set on the disk is the published one, and which copy of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainrig.data import tolstoi
from trainrig.data.catalogue import DataSet
from trainrig.data.published_files import check_files


def verify(data_set: DataSet, root: Path) -> str:
    """Check a set below ``root`` against what was published.

    Returns:
        What it is, and where.

    Raises:
        FileNotFoundError: the set, or a part of it, is not there.
        ValueError: files that are truncated, altered, or of another copy.
    """
    if data_set.drawn:
        return "drawn when it is used; there are no files"
    folder = data_set.locate(root)
    if folder is None:
        raise FileNotFoundError(f"{root / data_set.folders[0]}: {data_set.name} is not there")
    missing = data_set.missing(folder)
    if missing:
        raise FileNotFoundError(f"{folder}: {', '.join(missing)} missing")
    if data_set.copies:
        return f"{check_files(folder, data_set.copies)} copy, whole, in {folder}"
    own: dict[str, Callable[[Path], str]] = {"omniglot": _omniglot, "tolstoi": _tolstoi}
    if data_set.name in own:
        return f"{own[data_set.name](folder)}, in {folder}"
    return f"in {folder}; its files have no published digests and were not checked"


def _omniglot(folder: Path) -> str:
    """Judge by the decoded pixels: honest zips differ in bytes."""
    from trainrig.data.omniglot import load_omniglot

    bank = load_omniglot(folder, cache=False)
    return f"{bank.n_classes} characters x {bank.n_exemplars}, pixels as published"


def _tolstoi(folder: Path) -> str:
    digest = hashlib.sha256()
    for split in ("train", "test"):
        characters = tolstoi.read_tolstoi(folder, split).characters
        digest.update(np.ascontiguousarray(characters, "<i8").data)
    if digest.hexdigest() != tolstoi.SHA256:
        raise ValueError(
            f"{folder}: the characters hash to {digest.hexdigest()}; expected {tolstoi.SHA256} "
            "(the published edition)"
        )
    return f"{tolstoi.CHARACTERS:,} characters as published"
