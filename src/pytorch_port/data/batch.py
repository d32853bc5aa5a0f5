"""A batch of sequences, and its examples gathered from class and exemplar indices.

Shape legend: B batch, L items (the query last), K classes, N drawings per class, C, H, W image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pytorch_port.data.sampler import IndexBatch
from trainrig.data.image_bank import to_float


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """What a model is trained on.

    Attributes:
        examples: float32 (B, L, C, H, W), or int64 (B, L) symbols.
        labels: int64 (B, L); the last one is the target of the query.
        is_rare: int64 (B, L), 1 where an item was drawn as a "rare" class.
    """

    examples: Tensor
    labels: Tensor
    is_rare: Tensor

    def to(self, device: torch.device | str) -> SequenceBatch:
        """Copy to a device."""
        return SequenceBatch(
            self.examples.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.is_rare.to(device, non_blocking=True),
        )

    def __len__(self) -> int:
        return self.labels.shape[0]


def gather_examples(
    images: Tensor | None,
    batch: IndexBatch,
    *,
    channels: int = 1,
    noise_scale: float = 0.0,
    random_images: bool = False,
    generator: torch.Generator | None = None,
    views: Tensor | None = None,
) -> SequenceBatch:
    """Turn indices into examples, on the device where ``images`` lies.

    Args:
        images: bank (K, N, H, W) or (K, N, C, H, W); uint8 becomes the reference's float32
            (0 ink .. 0.9999 background), floating-point is taken as it is. ``None``: symbols.
        batch: indices, on the same device (or any, for symbols).
        channels: repeat a single grey channel this often.
        noise_scale: standard deviation of pixel noise, added without clipping.
        random_images: show negative ``exemplar_index`` as random binary images, one per number
            and sequence (``randomly_generate_rare``); otherwise there must be none.
        generator: of noise and random images; on the device of ``images``.
        views: (V, H·W) pixels of each view of an image, see ``image_bank.view_table``; class
            V·k + v is then view v of the bank's class k, and no view is stored.

    Raises:
        ValueError: a bank of another rank, or channels to repeat that are not grey.
    """
    if images is None:
        return SequenceBatch(batch.class_index, batch.label, batch.is_rare)
    if images.ndim not in (4, 5):
        shape = tuple(images.shape)
        raise ValueError(f"images: shape {shape}; (K, N, H, W) or (K, N, C, H, W) is needed")
    index, drawing = batch.class_index, batch.exemplar_index
    stored = index if views is None else index.div(len(views), rounding_mode="floor")
    rows = (stored * images.shape[1] + drawing.clamp(min=0)).flatten()
    examples = images.flatten(0, 1).index_select(0, rows)  # (B*L, [C,] H, W)
    if views is not None:
        pixels = views[index.flatten() % len(views)]  # (B*L, H*W)
        flat = examples.view(len(rows), -1, pixels.shape[1])  # (B*L, C or 1, H*W)
        examples = flat.gather(2, pixels[:, None].expand_as(flat)).view_as(examples)
    examples = to_float(examples) if examples.dtype == torch.uint8 else examples
    examples = examples.unflatten(0, tuple(index.shape))
    if images.ndim == 4:
        examples = examples.unsqueeze(2)  # (B, L, 1, H, W)
    if random_images:
        examples = _with_random_images(examples, drawing, generator)
    if noise_scale:
        noise = torch.empty_like(examples).normal_(0, noise_scale, generator=generator)
        examples = examples + noise
    if channels != examples.shape[2]:
        if examples.shape[2] != 1:
            raise ValueError(
                f"channels: {channels} asked for, but the images have {examples.shape[2]}; "
                "only grey images can be repeated"
            )
        examples = examples.expand(-1, -1, channels, -1, -1)
    return SequenceBatch(examples, batch.label, batch.is_rare)


def _with_random_images(
    examples: Tensor, drawing: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Replace items of negative ``drawing`` by binary noise, one image per number and sequence."""
    binary = torch.empty_like(examples).bernoulli_(0.5, generator=generator)
    first = (drawing[:, :, None] == drawing[:, None]).int().argmax(2)  # (B, L): shared by equals
    chosen = binary[torch.arange(len(first), device=first.device)[:, None], first]
    return torch.where((drawing < 0)[:, :, None, None, None], chosen, examples)
