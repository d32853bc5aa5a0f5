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
from trainrig.data.device_loader import ImageBatches, plan_epoch
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
    train, val = split_indices(len(images.train_labels), config.train_val_split, config.seed)
    make = _resident if config.pipeline == "resident" else _torchvision
    build = partial(make, config, images, device)
    return Loaders(
        train=build(images.train_images, images.train_labels, train, seed=config.seed),
        val=build(images.train_images, images.train_labels, val, seed=None),
        test=build(
            images.test_images, images.test_labels, torch.arange(len(images.test_labels)), seed=None
        ),
        images=images,
        description=images.describe(),
        train_indices=train,
        val_indices=val,
    )


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


def _resident(
    config: CifarConfig,
    images: ImageSet,
    device: torch.device | str,
    pixels: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    seed: int | None,
) -> ImageBatches:
    return ImageBatches(
        pixels,
        labels,
        indices,
        config.batch_size,
        mean=images.mean,
        std=images.std,
        device=device,
        channels_last=config.channels_last,
        seed=seed,
        padding_px=PADDING_PX,
        flip=images.flip,
    )


def _torchvision(
    config: CifarConfig,
    images: ImageSet,
    device: torch.device | str,
    pixels: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    seed: int | None,
) -> TorchvisionBatches:
    dataset = PictureDataset(pixels[indices], labels[indices], images.mean, images.std)
    return TorchvisionBatches(
        dataset,
        config.batch_size,
        device=device,
        channels_last=config.channels_last,
        seed=seed,
        flip=images.flip,
        num_workers=config.num_workers,
    )


class PictureDataset(Dataset):
    """PIL pictures through torchvision's transforms; an item is asked for with its offsets."""

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

    def __getitem__(self, key: tuple[int, int, int, bool] | int) -> tuple[Tensor, int]:
        """Return image and label of an index, or of (index, row, column, flipped)."""
        from torchvision.transforms import functional as transforms

        if isinstance(key, int):
            item, crop = key, None
        else:
            item, *crop = key
        picture = self.pictures[item]
        if crop:
            row, column, flipped = crop
            padded = transforms.pad(picture, [PADDING_PX])
            picture = transforms.crop(padded, row, column, SIZE_PX, SIZE_PX)
            picture = transforms.hflip(picture) if flipped else picture
        image = transforms.normalize(transforms.to_tensor(picture), self.mean, self.std)
        return image, int(self.labels[item])


class TorchvisionBatches:
    """The oracle: torch's DataLoader over ``PictureDataset``, in the order of ``plan_epoch``."""

    def __init__(
        self,
        dataset: PictureDataset,
        batch_size: int,
        *,
        device: torch.device | str,
        channels_last: bool,
        seed: int | None,
        flip: bool,
        num_workers: int,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.device, self.channels_last = torch.device(device), channels_last
        self.seed, self.flip, self.num_workers = seed, flip, num_workers
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
        if self.seed is None:
            return list(range(self.n_items))
        plan = plan_epoch(
            self.n_items, self.seed, self.epoch, padding_px=PADDING_PX, flip=self.flip
        )
        return list(zip(*(column.tolist() for column in plan), strict=True))

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
