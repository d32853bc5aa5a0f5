"""SVHN (cropped digits): augmented without mirroring."""

from __future__ import annotations

from pathlib import Path

from deepobs.pytorch.datasets.dataset import cached, find_folder
from deepobs.pytorch.datasets.image_set import ImageSet
from trainrig.data.svhn import FOLDERS, RawImages, read_svhn

#: The reference's preparation stops after five files of 12,800 training images.
REFERENCE_TRAIN_SIZE = 64_000


def has_svhn(folder: Path) -> bool:
    """Say whether either form of the set is there."""
    return any(folder.glob("*_batch*.bin")) or any(folder.glob("*_32x32.mat"))


class svhn(ImageSet):  # noqa: N801 - DeepOBS name
    """73,257 (``reference``: the first 64,000) and 26,032 house-number digits."""

    name = "svhn"
    flip = False
    default_train_eval_size = 26_032

    def read(self, split: str) -> RawImages:
        """Return the raw images of one split."""
        raw = cached(read_svhn, find_folder(self.name, FOLDERS, has_svhn), split)
        if split == "train" and self.compat == "reference":
            return RawImages(*(array[:REFERENCE_TRAIN_SIZE] for array in raw))
        return raw
