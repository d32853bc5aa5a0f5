"""MNIST in the IDX format: raw images and labels, checked, nothing else.

Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (magic numbers
2051 for images and 2049 for labels, big-endian sizes, then bytes).
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainrig.data.lookup import find_file
from trainrig.files import reading

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_MAGIC = {2051: 3, 2049: 1}


class RawImages(NamedTuple):
    """Undecoded images of one split.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), class indices.
    """

    images: np.ndarray
    labels: np.ndarray


def read_mnist(folder: Path, split: str) -> RawImages:
    """Read one split (``"train"`` or ``"test"``) from IDX files, plain or gzipped.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is truncated, not IDX, or images and labels differ in number.
    """
    image_file, label_file = (find_idx(folder, name) for name in FILES[split])
    images, labels = read_idx(image_file), read_idx(label_file)
    if labels.ndim != 1 or images.shape != (len(labels), 28, 28) or not len(labels):
        raise ValueError(
            f"{image_file}: shape {images.shape} beside {labels.shape} in {label_file.name}; "
            "expected images (N, 28, 28) and N labels; fetch the files again"
        )
    if labels.max() > 9:
        raise ValueError(
            f"{label_file}: label {labels.max()} found; the classes are 0 to 9; fetch it again"
        )
    return RawImages(images[:, None], labels.astype(np.int64))


def find_idx(folder: Path, name: str) -> Path:
    """Return ``folder/name.gz`` or ``folder/name``, whichever exists, in any case and spelling."""
    path = find_file(folder, f"{name}.gz", name)
    if path is None:
        raise FileNotFoundError(
            f"{folder / name}.gz: missing; give the four IDX files, gzipped or not"
        )
    return path


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of one IDX file."""
    with reading(path, "IDX file; fetch it again"):
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    magic = int.from_bytes(content[:4], "big")
    if magic not in _MAGIC:
        raise ValueError(f"{path}: magic number {magic}; IDX files start with 2051 or 2049")
    rank = _MAGIC[magic]
    header = 4 + 4 * rank
    if len(content) < header:
        raise ValueError(f"{path}: {len(content)} bytes; its header alone takes {header}")
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">u4"))
    expected = math.prod(shape)
    if len(content) - header != expected:
        raise ValueError(
            f"{path}: {len(content) - header} bytes of data; the header says {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
