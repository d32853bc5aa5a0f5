"""Loaders of one run: train (cropped, flipped, shuffled), validation and test (normalised only).

``resident`` is the fast path, ``torchvision`` the oracle; both follow the same ``plan_epoch``, so
that they give the same bits, whatever the number of worker processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from optimizer_quality.config import CifarConfig
from trainrig.data.device_loader import Augmentation, ImageBatches, Layout
from trainrig.data.image_sets import SIZE_PX, ImageSet, load_image_set
from trainrig.data.splits import save_split, split_indices

PADDING_PX = 4


@dataclass(frozen=True, slots=True)
class Loaders:
    """The three loaders of a run and what they were made from."""

    train: Any
    val: Any
    test: Any
    images: ImageSet
    description: dict[str, Any]
    train_indices: Tensor
    val_indices: Tensor


def make_loaders(config: CifarConfig, device: torch.device | str = "cpu") -> Loaders:
    """Read the configured set and split it.

    Raises:
        FileNotFoundError: no such files.
        ValueError: damaged files, or another number of classes than configured.
    """
    images = load_image_set(
        config.dataset, config.data_dir, download=config.download, check=config.check_files
    )
    if images.n_classes != config.num_classes:
        raise ValueError(
            f"num_classes: {config.num_classes} given; {config.dataset} has {images.n_classes}"
        )
    train, val = split_of(config, len(images.train_labels))
    make: Any = ImageBatches if config.pipeline == "resident" else TorchvisionBatches
    layout = Layout(
        batch_size=config.batch_size,
        mean=images.mean,
        std=images.std,
        device=device,
        channels_last=config.channels_last,
    )
    augmentation = Augmentation(
        seed=config.seed,
        crop_px=config.crop_px,
        crop_epochs=config.crop_epochs,
        padding_px=PADDING_PX,
        flip=images.flip,
    )
    if config.pipeline == "torchvision":
        make = partial(make, num_workers=config.num_workers)
    everything = torch.arange(len(images.test_labels))
    return Loaders(
        train=make(images.train_images, images.train_labels, train, layout, augmentation),
        val=make(images.train_images, images.train_labels, val, layout),
        test=make(images.test_images, images.test_labels, everything, layout),
        images=images,
        description=images.describe(),
        train_indices=train,
        val_indices=val,
    )


def split_of(config: CifarConfig, n_items: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images that a run trains on, and of its validation images."""
    train, val = split_indices(n_items, config.train_val_split, config.seed)
    return train[: config.train_items], val


def get_cifar10_dataloaders(config: CifarConfig) -> tuple[Any, Any, Any]:
    """Return the train, validation and test loaders of ``config``, on the CPU."""
    loaders = make_loaders(config)
    return loaders.train, loaders.val, loaders.test


def save_split_indices(
    train_indices: Iterable[int],
    val_indices: Iterable[int],
    save_path: Path | str,
    *,
    source: str = "unknown",
    sha256: str = "",
) -> None:
    """Write the split as JSON, with the set it indexes and that set's content hash."""
    save_split(Path(save_path), train_indices, val_indices, source=source, sha256=sha256)


class PictureDataset(Dataset):
    """PIL pictures through torchvision's transforms; an item is asked for with its window."""

    def __init__(
        self, images: Tensor, labels: Tensor, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        from PIL import Image

        self.labels = labels
        self.mean, self.std = list(mean), list(std)
        arrays = images.permute(0, 2, 3, 1).numpy()  # (N, S, S, C)
        self.pictures = [Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else a) for a in arrays]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int, int, bool, int] | int) -> tuple[Tensor, int]:
        """Return image and label of an index, or of (index, row, column, flipped, side)."""
        from torchvision.transforms import functional as transforms

        if isinstance(key, int):
            item, crop = key, None
        else:
            item, *crop = key
        picture = self.pictures[item]
        if crop:
            row, column, flipped, side = crop
            padded = transforms.pad(picture, [PADDING_PX])
            picture = transforms.crop(padded, row, column, side, side)
            picture = transforms.hflip(picture) if flipped else picture
        image = transforms.normalize(transforms.to_tensor(picture), self.mean, self.std)
        return image, int(self.labels[item])


class TorchvisionBatches:
    """The oracle: torch's DataLoader over ``PictureDataset``; arguments as ``ImageBatches``."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        layout: Layout,
        augmentation: Augmentation | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset = PictureDataset(images[indices], labels[indices], layout.mean, layout.std)
        self.batch_size, self.augmentation = layout.batch_size, augmentation
        self.device, self.channels_last = torch.device(layout.device), layout.channels_last
        self.num_workers = num_workers
        self.epoch = 0

    @property
    def n_items(self) -> int:
        """Items in one epoch."""
        return len(self.dataset)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-self.n_items // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose plan the next iteration follows."""
        self.epoch = epoch

    def _keys(self) -> list[Any]:
        if self.augmentation is None:
            return list(range(self.n_items))
        plan = self.augmentation.plan(self.n_items, self.epoch, SIZE_PX)
        columns = (column.tolist() for column in plan)
        side = self.augmentation.window_px(self.epoch, SIZE_PX)
        return [(*key, side) for key in zip(*columns, strict=True)]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the present epoch."""
        keys = self._keys()
        size = self.batch_size
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        generator = torch.Generator().manual_seed(0)  # leaves the global stream alone
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            generator=generator,
        )
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        for images, labels in loader:
            yield (
                images.to(self.device).contiguous(memory_format=layout),
                labels.to(self.device),
            )
