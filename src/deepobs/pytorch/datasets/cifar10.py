"""CIFAR-10 with the reference's augmentation and per-image standardisation."""

from __future__ import annotations

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.cifar10 import RawImages, read_cifar10


class cifar10(ImageSet):  # noqa: N801 - DeepOBS name
    """50,000 and 10,000 images, batches (B, 3, 32, 32) and labels (B,)."""

    name = "cifar10"

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        return cached(read_cifar10, find_folder(self.name), split)
