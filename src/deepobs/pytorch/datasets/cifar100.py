"""CIFAR-100, with the reference's label leak in the ``reference`` mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.cifar100 import RawImages, read_cifar100


def leak_label(raw: RawImages) -> RawImages:
    """Return the images as the reference slices them, one byte early.

    The fine label becomes the red value of pixel (0, 0), all bytes move on by one, and the last
    blue byte is lost. Every published CIFAR-100 number of DeepOBS contains this.
    """
    flat = raw.images.reshape(len(raw.images), -1)
    shifted = np.concatenate([raw.labels[:, None].astype(np.uint8), flat[:, :-1]], axis=1)
    return RawImages(shifted.reshape(raw.images.shape), raw.labels)


def read_leaked(folder: Path, split: str) -> RawImages:
    """Read one split and apply ``leak_label``."""
    return leak_label(read_cifar100(folder, split))


class cifar100(ImageSet):  # noqa: N801 - DeepOBS name
    """50,000 and 10,000 images of 100 classes, batches (B, 3, 32, 32) and labels (B,)."""

    name = "cifar100"

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        if self.compat == "reference":
            return cached(read_leaked, find_folder(self.name), split)
        return super().read(split)
