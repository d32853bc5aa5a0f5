"""CIFAR-10: raw images and labels from the binary or the Python version of the archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A binary
record is one label byte and 3072 bytes, red, green and blue planes; the Python version holds the
same in pickled dictionaries, which are read without executing anything.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from trainrig.data.lookup import find_file
from trainrig.data.mnist import RawImages
from trainrig.files import reading

PIXELS = 3 * 32 * 32
TRAIN_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


def read_cifar10(folder: Path, split: str) -> RawImages:
    """Read one split from ``*.bin`` files, or from the pickles of the Python version.

    Raises:
        FileNotFoundError: a batch file is missing.
        ValueError: a file is truncated or holds something else.
    """
    names = TRAIN_BATCHES if split == "train" else ["test_batch"]
    parts = []
    for name in names:
        binary, pickled = find_file(folder, f"{name}.bin"), find_file(folder, name)
        if binary:
            records = read_records(binary, labels=1)
            parts.append((records[:, 1:], records[:, 0]))
        elif pickled:
            parts.append(read_pickled(pickled, "labels"))
        else:
            raise FileNotFoundError(
                f"{folder / name}.bin: missing; give the binary or the Python version of the set"
            )
    images = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int64)
    check_labels(folder, labels, 10)
    return RawImages(images, labels)


def check_labels(where: Path, labels: np.ndarray, n_classes: int) -> None:
    """Refuse labels that are no classes.

    Raises:
        ValueError: naming the smallest or largest one.
    """
    for label in (labels.min(), labels.max()):
        if not 0 <= label < n_classes:
            raise ValueError(
                f"{where}: label {label} found; the classes are 0 to {n_classes - 1}; "
                "fetch the set again"
            )


def read_records(path: Path, labels: int) -> np.ndarray:
    """Return uint8 (N, labels + 3072) of a binary file."""
    content = np.fromfile(path, np.uint8)
    size = labels + PIXELS
    if not len(content) or len(content) % size:
        raise ValueError(
            f"{path}: {len(content)} bytes; a multiple of {size} is expected; fetch it again"
        )
    return content.reshape(-1, size)


def read_pickled(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (N, 3072) and labels (N,) of one pickled batch."""
    batch = safe_unpickle(path)
    if not isinstance(batch, dict) or not {"data", label_key} <= set(batch):
        raise ValueError(
            f"{path}: holds no 'data' and {label_key!r}, as pickled batches do; fetch it again"
        )
    with reading(path, "pickled batch; fetch it again"):
        images, labels = np.asarray(batch["data"]), np.asarray(batch[label_key])
    fits = labels.ndim == 1 and images.shape == (len(labels), PIXELS) and len(labels)
    if not fits or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: {images.dtype} data of shape {images.shape} for {labels.dtype} labels of "
            f"shape {labels.shape}; uint8 (N, {PIXELS}) and N integers are expected"
        )
    return images, labels


class _DataUnpickler(pickle.Unpickler):
    """Accepts arrays and builtins; a pickle that names anything else is refused."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def safe_unpickle(path: Path) -> Any:
    """Load a pickle of arrays and builtins; string keys whatever Python wrote it."""
    with reading(path, "data pickle; fetch it again"):
        value = _DataUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    if isinstance(value, dict):
        return {k.decode() if isinstance(k, bytes) else k: v for k, v in value.items()}
    return value
