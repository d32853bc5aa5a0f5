"""SVHN (cropped digits): raw images and labels from ``.mat`` files or binary records.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
2011. In the ``.mat`` files the digit 0 has label 10; a binary record is one label byte and 3072
bytes in rows, columns, channels, as the TensorFlow DeepOBS preparation writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from trainrig.data.cifar10 import check_labels, read_records
from trainrig.data.lookup import find_file, members
from trainrig.data.mnist import RawImages
from trainrig.files import reading


def read_svhn(folder: Path, split: str) -> RawImages:
    """Read one split: all the binary batches there are, else the ``.mat`` file.

    Raises:
        FileNotFoundError: neither form is there.
        ValueError: a file is truncated or holds something else, or a batch between others is gone.
    """
    pattern = "data_batch_*.bin" if split == "train" else "test_batch.bin"
    batches = [path for path in members(folder) if fnmatchcase(path.name.lower(), pattern)]
    if batches:
        batches.sort(key=lambda path: (len(path.name), path.name))
        _refuse_gaps(batches)
        records = np.concatenate([read_records(path, labels=1) for path in batches])
        images, labels = records[:, 1:].reshape(-1, 32, 32, 3), records[:, 0]
        labels = labels.astype(np.int64)
        check_labels(folder, labels, 10)
        return RawImages(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels)
    path = find_file(folder, f"{split}_32x32.mat")
    if path is None:
        missing = folder / f"{split}_32x32.mat"
        raise FileNotFoundError(f"{missing}: missing; give the .mat files or data_batch_*.bin")
    return _read_mat(path)


def _refuse_gaps(batches: Sequence[Path]) -> None:
    """Refuse numbered batches of which one between two others is missing."""
    numbers = [int(n) for path in batches if (n := path.stem.rpartition("_")[2]).isdigit()]
    gone = sorted(set(range(min(numbers, default=0), max(numbers, default=0))) - {*numbers})
    if gone:
        missing = batches[0].with_name(f"data_batch_{gone[0]}.bin")
        raise ValueError(f"{missing}: missing between the others; give all batches")


def _read_mat(path: Path) -> RawImages:
    from scipy.io import loadmat

    with reading(path, "SVHN .mat file; fetch it again"):
        content = loadmat(path)
        images, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
    if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)) or not len(labels):
        raise ValueError(
            f"{path}: X is {images.dtype} of shape {images.shape} for {len(labels)} labels; "
            "uint8 (32, 32, 3, N) is expected; fetch it again"
        )
    if labels.dtype.kind not in "iuf" or not np.isin(labels, np.arange(11)).all():
        raise ValueError(f"{path}: y holds other values than 1 to 10; fetch it again")
    labels = labels.astype(np.int64) % 10
    return RawImages(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels)
