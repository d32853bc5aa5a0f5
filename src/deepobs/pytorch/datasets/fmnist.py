"""Fashion-MNIST: processed like MNIST."""

from __future__ import annotations

from deepobs.pytorch.datasets.image_set import ImageSet


class fmnist(ImageSet):  # noqa: N801 - DeepOBS name
    """60,000 and 10,000 pieces of clothing, (B, 1, 28, 28) in [0, 1] and labels (B,)."""

    name = "fmnist"
