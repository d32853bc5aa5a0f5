"""SVHN (cropped digits): raw images and labels from ``.mat`` files or binary records.

Source: Y. Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning",
2011. In the ``.mat`` files the digit 0 has label 10; a binary record is one label byte and 3072
bytes in rows, columns, channels, as the TensorFlow DeepOBS preparation writes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainrig.data.cifar10 import read_records
from trainrig.data.mnist import RawImages


def read_svhn(folder: Path, split: str) -> RawImages:
    """Read one split: all the binary batches there are, else the ``.mat`` file.

    Raises:
        FileNotFoundError: neither form is there.
        ValueError: a file is truncated or holds something else.
    """
    pattern = "data_batch_*.bin" if split == "train" else "test_batch.bin"
    batches = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
    if batches:
        records = np.concatenate([read_records(path, labels=1) for path in batches])
        images, labels = records[:, 1:].reshape(-1, 32, 32, 3), records[:, 0]
        return RawImages(
            np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.astype(np.int64)
        )
    path = folder / f"{split}_32x32.mat"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; give the .mat files or data_batch_*.bin")
    return _read_mat(path)


def _read_mat(path: Path) -> RawImages:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"].reshape(-1).astype(np.int64) % 10
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a readable SVHN file ({error})") from None
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.shape[3] != len(labels):
        raise ValueError(
            f"{path}: X of shape {images.shape} for {len(labels)} labels; (32, 32, 3, N) expected"
        )
    return RawImages(np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels)
