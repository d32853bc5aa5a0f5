"""Image sets that fit on the device: raw bytes stay there, batches are made from them."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from deepobs.pytorch.datasets import image_ops
from deepobs.pytorch.datasets.dataset import (
    VALIDATION_SPLIT_SEED,
    DataSet,
    cached,
    find_folder,
)
from deepobs.pytorch.datasets.loaders import ArrayLoader, Batch
from trainrig.data.catalogue import Images, get_data_set, load_function
from trainrig.data.image_sets import read_split
from trainrig.data.mnist import RawImages


class ImageSet(DataSet):
    """A set of small images with class indices, as the catalogue describes it.

    Args:
        batch_size: examples per batch.
        train_eval_size: training examples that one evaluation covers (before dropping the
            incomplete batch); the ``fixed`` mode takes as many for validation.
        data_augmentation: augment the training pipeline, where the set does at all.
    """

    facts: ClassVar[Images]
    #: Colour sets are standardised per image, grey ones divided by 255.
    colour: ClassVar[bool]
    default_train_eval_size = 10_000

    def __init_subclass__(cls) -> None:
        """Look up what the catalogue says of the set."""
        found = get_data_set(cls.name).images
        assert found is not None
        cls.facts = found
        cls.colour = found.shape[0] == 3

    def __init__(
        self,
        batch_size: int,
        train_eval_size: int | None = None,
        data_augmentation: bool = True,
    ) -> None:
        self.train_eval_size = train_eval_size or self.default_train_eval_size
        self.data_augmentation = data_augmentation and self.colour
        super().__init__(batch_size)

    def read(self, split: str) -> RawImages:
        """Return the raw images of ``"train"`` or ``"test"``."""
        if get_data_set(self.name).drawn:
            return read_split(self.facts, None, split)
        return cached(load_function(self.facts.reader), find_folder(self.name), split)

    def make_loaders(self) -> None:
        """Put the raw bytes on the device and make the loaders over them."""
        train, test = (self._to_device(self.read(split)) for split in ("train", "test"))
        unchanged = partial(plain, colour=self.colour, dtype=self.dtype)
        augmented = partial(_augmented, flip=self.facts.flip, dtype=self.dtype)
        pipeline = augmented if self.data_augmentation else unchanged
        make = partial(ArrayLoader, batch_size=self.batch_size, seed=self.seed)
        subset, held_out, few = None, None, self.train_eval_size // self.batch_size
        fixed = self.compat == "fixed"
        if fixed:
            generator = torch.Generator().manual_seed(VALIDATION_SPLIT_SEED)
            order = torch.randperm(len(train[0]), generator=generator).to(self.device)
            cut = min(self.train_eval_size, len(order) // 2)
            held_out, subset = order[:cut], order[cut:]
            self.valid = make("valid", train, transform=unchanged, subset=held_out)
        self.train = make(
            "train", train, shuffle=True, reshuffle=fixed, transform=pipeline, subset=subset
        )
        # The reference evaluates on a fresh shuffled pass of the training pipeline, augmentation
        # included; the fixed mode on the same plain examples each time.
        self.train_eval = make(
            "train_eval",
            train,
            shuffle=not fixed,
            transform=unchanged if fixed else pipeline,
            limit=few,
            subset=subset,
        )
        self.test = make("test", test, transform=unchanged)

    def _to_device(self, raw: RawImages) -> Batch:
        images = torch.from_numpy(raw.images.copy()).to(self.device)
        return images, torch.from_numpy(raw.labels).to(self.device)


def image_set(name: str) -> type[ImageSet]:
    """Return the data set of a name of the catalogue; published ones have a class of their own."""
    return type(name, (ImageSet,), {"name": name, "__doc__": get_data_set(name).what})


def plain(
    batch: Batch, generator: torch.Generator, *, colour: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the test pipeline's images: standardised each (colour), or bytes over 255."""
    images = batch[0].to(dtype)
    return (image_ops.standardize(images) if colour else images.div_(255.0)), batch[1]


def _augmented(
    batch: Batch, generator: torch.Generator, *, flip: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return image_ops.augment(batch[0], generator, flip=flip, dtype=dtype), batch[1]
