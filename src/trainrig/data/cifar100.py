"""CIFAR-100: raw images and both labels from the binary or the Python version of the archive.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A binary
record is the coarse label, the fine label, and 3072 bytes in planes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainrig.data.cifar10 import check_labels, read_pickled, read_records
from trainrig.data.lookup import find_file
from trainrig.data.mnist import RawImages


def read_cifar100(folder: Path, split: str) -> RawImages:
    """Read one split (``"train"`` or ``"test"``); labels are the 100 fine ones.

    Raises:
        FileNotFoundError: the split's file is missing.
        ValueError: the file is truncated or holds something else.
    """
    binary, pickled = find_file(folder, f"{split}.bin"), find_file(folder, split)
    if binary:
        records = read_records(binary, labels=2)
        images, labels = records[:, 2:], records[:, 1]
    elif pickled:
        images, labels = read_pickled(pickled, "fine_labels")
    else:
        raise FileNotFoundError(
            f"{folder / split}.bin: missing; give the binary or the Python version of the set"
        )
    check_labels(folder, labels, 100)
    return RawImages(images.reshape(-1, 3, 32, 32), labels.astype(np.int64))
