"""Fashion-MNIST: processed like MNIST."""

from __future__ import annotations

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.mnist import RawImages, read_mnist


class fmnist(ImageSet):  # noqa: N801 - DeepOBS name
    """60,000 and 10,000 pieces of clothing, (B, 1, 28, 28) in [0, 1] and labels (B,)."""

    name = "fmnist"
    colour = False

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        return cached(read_mnist, find_folder(self.name), split)
