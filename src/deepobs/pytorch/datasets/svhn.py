"""SVHN (cropped digits): augmented without mirroring."""

from __future__ import annotations

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.svhn import RawImages, read_svhn

#: The reference's preparation stops after five files of 12,800 training images.
REFERENCE_TRAIN_SIZE = 64_000


class svhn(ImageSet):  # noqa: N801 - DeepOBS name
    """73,257 (``reference``: the first 64,000) and 26,032 house-number digits."""

    name = "svhn"
    flip = False
    default_train_eval_size = 26_032

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        raw = cached(read_svhn, find_folder(self.name), split)
        if split == "train" and self.compat == "reference":
            return RawImages(*(array[:REFERENCE_TRAIN_SIZE] for array in raw))
        return raw
