"""CIFAR-100: raw images and both labels from the binary or the Python version of the archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A binary
record is the coarse label, the fine label, and 3072 bytes in planes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainrig.data.cifar10 import read_pickled, read_records
from trainrig.data.mnist import RawImages


def read_cifar100(folder: Path, split: str) -> RawImages:
    """Read one split (``"train"`` or ``"test"``); labels are the 100 fine ones.

    Raises:
        FileNotFoundError: the split's file is missing.
        ValueError: the file is truncated or holds something else.
    """
    if (folder / f"{split}.bin").is_file():
        records = read_records(folder / f"{split}.bin", labels=2)
        images, labels = records[:, 2:], records[:, 1]
    elif (folder / split).is_file():
        images, labels = read_pickled(folder / split, "fine_labels")
    else:
        raise FileNotFoundError(
            f"{folder / split}.bin: missing; give the binary or the Python version of the set"
        )
    if labels.max() > 99:
        raise ValueError(f"{folder}: label {labels.max()} found; CIFAR-100 has classes 0 to 99")
    return RawImages(images.reshape(-1, 3, 32, 32), labels.astype(np.int64))
