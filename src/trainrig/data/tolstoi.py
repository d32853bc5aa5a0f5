"""War and Peace as character numbers, as the TensorFlow DeepOBS preparation makes them."""

from __future__ import annotations

import io
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainrig.data.lookup import find_file
from trainrig.files import reading, write_atomically

#: Line ranges (first, last; from 1) deleted one after the other, each from what remained.
LINES_DROPPED = ((1, 29), (5, 775), (63850, 64207))
CHARACTERS, VOCABULARY = 3_266_185, 83
#: SHA-256 of the published character numbers, train then test, as little-endian int64.
SHA256 = "3d8f40785e415007874771819775c5513e0f917b745031d239ca75a83999c575"


class Text(NamedTuple):
    """Character numbers (int64) of one split, and the size of the vocabulary of the whole text."""

    characters: np.ndarray
    vocabulary: int


def read_tolstoi(folder: Path, split: str) -> Text:
    """Read ``train.npy`` or ``test.npy``.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is no one-dimensional array of integers.
    """
    parts = {name: _read_array(folder / f"{name}.npy") for name in ("train", "test")}
    largest = max(int(array.max()) for array in parts.values())
    return Text(parts[split].astype(np.int64), largest + 1)


def _read_array(path: Path) -> np.ndarray:
    found = find_file(path.parent, path.name)
    if found is None:
        raise FileNotFoundError(
            f"{path}: missing; prepare the text with: trainrig data get tolstoi"
        )
    with reading(path, "array; prepare the text again: trainrig data get tolstoi"):
        array = np.load(found, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("several arrays")
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer) or not len(array):
        raise ValueError(
            f"{path}: {array.dtype} of shape {array.shape}; one row of integers is expected"
        )
    if array.min() < 0:
        raise ValueError(f"{path}: character number {array.min()}; numbers start at 0")
    return array


def encode_text(text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Number a text's characters and split it.

    Returns:
        train: the first 80 % (rounded up), int64.
        test: the rest, int64.
        vocabulary: characters by falling frequency, ties in order of first appearance.
    """
    counts = Counter(text)  # insertion order is order of first appearance; the sort is stable
    vocabulary = sorted(counts, key=lambda character: -counts[character])
    number = {character: i for i, character in enumerate(vocabulary)}
    ids = np.fromiter((number[character] for character in text), np.int64, len(text))
    cut = math.ceil(0.8 * len(ids))
    return ids[:cut], ids[cut:], vocabulary


def prepare_tolstoi(source: str, folder: Path) -> int:
    """Write ``input.txt``, ``train.npy`` and ``test.npy`` from the plain-text source.

    Returns:
        The size of the vocabulary.

    Raises:
        ValueError: the text does not have the 83 characters of the published runs.
    """
    lines = io.StringIO(source).readlines()  # splits at line feeds only
    for first, last in LINES_DROPPED:
        del lines[first - 1 : last]
    text = "".join(lines)
    train, test, vocabulary = encode_text(text)
    if len(vocabulary) != VOCABULARY:
        raise ValueError(
            f"this edition has {len(vocabulary)} distinct characters after the cuts; "
            f"the published runs have {VOCABULARY}: use the same edition"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "input.txt", text)
    for name, ids in (("train.npy", train), ("test.npy", test)):
        write_atomically(folder / name, partial(np.save, arr=ids))
    return len(vocabulary)
