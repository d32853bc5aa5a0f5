"""An image set that lives on the device as uint8, cropped, flipped and normalised by the batch.

The arithmetic is torchvision's (``ToTensor``, ``Normalize``, zero padding before the crop), so that
equal offsets give equal bits. Order, offsets and flips are a pure function of (seed, epoch): no
worker holds a random state, and an epoch can be repeated or resumed alone.

Legend: N items, B batch, C channels, S the side of the (square) image or of its window, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from trainrig.seeding import derive_seed


class EpochPlan(NamedTuple):
    """What one epoch does with each of its items, in training order.

    Attributes:
        order: int64 (N,), positions in the index list.
        rows: int64 (N,), first row of the crop in the padded image.
        columns: int64 (N,), first column.
        flips: bool (N,), mirrored left to right after the crop.
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    flips: Tensor


def plan_epoch(n_items: int, seed: int, epoch: int, *, n_offsets: int, flip: bool) -> EpochPlan:
    """Draw an epoch: a permutation, crop offsets in 0..n_offsets-1 and fair flips."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    order = torch.randperm(n_items, generator=generator)
    offsets = torch.randint(0, n_offsets, (2, n_items), generator=generator)
    flips = torch.rand(n_items, generator=generator) < 0.5
    return EpochPlan(order, offsets[0], offsets[1], flips if flip else torch.zeros_like(flips))


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How batches look: their size, normalisation, device and memory format.

    Attributes:
        batch_size: B; the last batch of an epoch may be smaller.
        mean: per channel, of values in 0..1.
        std: per channel.
        device: where the set is kept and batches are made.
        channels_last: memory format of the batches.
    """

    batch_size: int
    mean: Sequence[float]
    std: Sequence[float]
    device: torch.device | str = "cpu"
    channels_last: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What training does to its images, by ``plan_epoch``.

    Attributes:
        seed: of order, offsets and flips.
        crop_px: side of the window that is cut; at most the padded image's.
        crop_epochs: so many first epochs have windows of ``crop_px``, the others of the image's
            own side; None: all have.
        padding_px: zeros around an image before its crop.
        flip: whether images may be mirrored.
    """

    seed: int
    crop_px: int = 32
    crop_epochs: int | None = None
    padding_px: int = 4
    flip: bool = True

    def window_px(self, epoch: int, size_px: int) -> int:
        """Return the side of an epoch's windows from images of ``size_px``; epochs count from 1."""
        cropped = self.crop_epochs is None or epoch <= self.crop_epochs
        return self.crop_px if cropped else size_px

    def plan(self, n_items: int, epoch: int, size_px: int) -> EpochPlan:
        """Return the plan of one epoch over images of ``size_px``.

        Raises:
            ValueError: a window larger than the padded image.
        """
        n_offsets = size_px + 2 * self.padding_px - self.window_px(epoch, size_px) + 1
        if n_offsets < 1:
            raise ValueError(
                f"crop_px is {self.crop_px}; at most {size_px + 2 * self.padding_px} is accepted, "
                "the padded image's side"
            )
        return plan_epoch(n_items, self.seed, epoch, n_offsets=n_offsets, flip=self.flip)


class ImageBatches:
    """Iterates over (images float32 (B, C, S, S), labels int64 (B,)), both on the device.

    Args:
        images: uint8 (M, C, S, S), the whole set, on the CPU.
        labels: int64 (M,).
        indices: the items of the set that this loader serves.
        layout: size and form of the batches.
        augmentation: None serves the items in their order, unchanged.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Sequence[int] | Tensor,
        layout: Layout,
        augmentation: Augmentation | None = None,
    ) -> None:
        indices = torch.as_tensor(indices)
        self.batch_size, self.augmentation = layout.batch_size, augmentation
        self.device, self.channels_last = torch.device(layout.device), layout.channels_last
        self.image_px = images.shape[-1]
        padding_px = augmentation.padding_px if augmentation else 0
        chosen = F.pad(images[indices], (padding_px,) * 4)
        # Pixels innermost-by-channel: a crop is then 32 contiguous rows, in channels_last order.
        self._images = chosen.permute(0, 2, 3, 1).contiguous().to(self.device)
        self._labels = labels[indices].to(self.device)
        self._mean = torch.tensor(layout.mean, device=self.device)
        self._std = torch.tensor(layout.std, device=self.device)
        self._levels: dict[int, tuple[Tensor, Tensor]] = {}
        self.epoch = 0

    @property
    def n_items(self) -> int:
        """Items in one epoch."""
        return len(self._labels)

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-self.n_items // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose plan the next iteration follows."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of the present epoch."""
        if self.augmentation is None:
            for start in range(0, self.n_items, self.batch_size):
                part = slice(start, start + self.batch_size)
                yield self._normalise(self._images[part]), self._labels[part]
            return
        drawn = self.augmentation.plan(self.n_items, self.epoch, self.image_px)
        plan = EpochPlan(*(column.to(self.device) for column in drawn))
        for parts in zip(*(column.split(self.batch_size) for column in plan), strict=True):
            chosen = EpochPlan(*parts)
            yield self.batch(chosen), self._labels[chosen.order]

    def batch(self, plan: EpochPlan) -> Tensor:
        """Return the normalised images of a plan's items, (B, C, S, S)."""
        crop = crop_and_flip_numpy if self.device.type == "cpu" else crop_and_flip
        return self._normalise(crop(self._images, plan, self._window_px()))

    def _window_px(self) -> int:
        augmentation, side = self.augmentation, self.image_px
        return augmentation.window_px(self.epoch, side) if augmentation else side

    def _normalise(self, pixels: Tensor) -> Tensor:
        side = pixels.shape[1]
        if side not in self._levels:
            # Full-sized, because a broadcast over three channels runs outside the vector units.
            shape = (1, side, side, len(self._mean))
            self._levels[side] = (
                self._mean.expand(shape).contiguous(),
                self._std.expand(shape).contiguous(),
            )
        mean, std = self._levels[side]
        x = pixels.to(torch.float32).div_(255).sub_(mean).div_(std)  # (B, S, S, C)
        x = x.permute(0, 3, 1, 2)  # (B, C, S, S), channels_last in memory
        return x if self.channels_last else x.contiguous()


def crop_and_flip(images: Tensor, plan: EpochPlan, size_px: int) -> Tensor:
    """Cut one window per item and mirror where asked, in three kernels on any device.

    Args:
        images: uint8 (N, P, P, C) with P >= ``size_px``, padded.
        plan: on the same device; rows and columns leave each window inside its image.
        size_px: S.

    Returns:
        uint8 (B, S, S, C).
    """
    windows = images.unfold(1, size_px, 1).unfold(2, size_px, 1)  # (N, P-S+1, P-S+1, C, S, S)
    cut = windows[plan.order, plan.rows, plan.columns].permute(0, 2, 3, 1)
    return torch.where(plan.flips.view(-1, 1, 1, 1), cut.flip(2), cut)


def crop_and_flip_numpy(images: Tensor, plan: EpochPlan, size_px: int) -> Tensor:
    """Do what ``crop_and_flip`` does, on the CPU by copying rows: a third of the time."""
    source = images.numpy()
    out = np.empty((len(plan.order), size_px, size_px, source.shape[3]), np.uint8)
    columns = (column.tolist() for column in plan)
    for k, (item, y, x, flipped) in enumerate(zip(*columns, strict=True)):
        window = source[item, y : y + size_px, x : x + size_px]
        out[k] = window[:, ::-1] if flipped else window
    return torch.from_numpy(out)
