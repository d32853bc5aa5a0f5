"""CIFAR-10 with the reference's augmentation and per-image standardisation."""

from __future__ import annotations

from pathlib import Path

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.cifar10 import FOLDERS, RawImages, read_cifar10


def has_batches(folder: Path) -> bool:
    """Say whether a training batch or the test batch is there, in either version."""
    names = ("data_batch_1", "test_batch")
    return any((folder / f"{n}.bin").is_file() or (folder / n).is_file() for n in names)


class cifar10(ImageSet):  # noqa: N801 - DeepOBS name
    """50,000 and 10,000 images, batches (B, 3, 32, 32) and labels (B,)."""

    name = "cifar10"

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        inside = (f"{FOLDERS[0]}/{name}" for name in FOLDERS[1:])
        return cached(read_cifar10, find_folder(self.name, (*FOLDERS, *inside), has_batches), split)
