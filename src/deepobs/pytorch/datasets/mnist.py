"""MNIST: bytes divided by 255, nothing else."""

from __future__ import annotations

from pathlib import Path

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.mnist import FILES, RawImages, read_mnist

FOLDERS = ("mnist", "MNIST/raw", "mnist/MNIST/raw", "MNIST")


def has_idx(folder: Path) -> bool:
    """Say whether any of the four IDX files is there."""
    names = [name for pair in FILES.values() for name in pair]
    return any((folder / name).is_file() or (folder / f"{name}.gz").is_file() for name in names)


class mnist(ImageSet):  # noqa: N801 - DeepOBS name
    """60,000 and 10,000 digits, batches (B, 1, 28, 28) in [0, 1] and labels (B,)."""

    name = "mnist"
    colour = False

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        return cached(read_mnist, find_folder(self.name, FOLDERS, has_idx), split)
