"""SVHN (cropped digits): augmented without mirroring."""

from __future__ import annotations

from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.mnist import RawImages

#: The reference's preparation stops after five files of 12,800 training images.
REFERENCE_TRAIN_SIZE = 64_000


class svhn(ImageSet):  # noqa: N801 - DeepOBS name
    """73,257 (``reference``: the first 64,000) and 26,032 house-number digits."""

    name = "svhn"
    default_train_eval_size = 26_032

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        raw = super().read(split)
        if split == "train" and self.compat == "reference":
            return RawImages(*(array[:REFERENCE_TRAIN_SIZE] for array in raw))
        return raw
