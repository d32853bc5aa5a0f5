"""CIFAR-10 with the reference's augmentation and per-image standardisation."""

from __future__ import annotations

from deepobs.pytorch.datasets.image_set import ImageSet


class cifar10(ImageSet):  # noqa: N801 - DeepOBS name
    """50,000 and 10,000 images, batches (B, 3, 32, 32) and labels (B,)."""

    name = "cifar10"
