"""Image processing of the TensorFlow input pipelines, on whole batches.

Legend: B batch, C = 3 channels, H and W sizes. Colour values are floats in 0..255; nothing clips.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAD_PX, CROP_PX = 2, 32
BRIGHTNESS, SATURATION, CONTRAST = 63 / 255, (0.5, 1.5), (0.2, 1.8)


def standardize(images: Tensor) -> Tensor:
    """Return ``(x - mean) / max(std, 1 / sqrt(n))`` over all n values of each image jointly."""
    flat = images.flatten(1)
    std, mean = torch.std_mean(flat, 1, correction=0, keepdim=True)
    scale = std.clamp_min(1 / math.sqrt(flat.shape[1])).reciprocal()
    return torch.mul(flat - mean, scale).view_as(images)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the HSV saturation, clipped to [0, 1], of (B, 3, H, W) by ``factor`` (B,).

    With hue and value kept, a channel c moves to ``v - (v - c) s' / s``, where v is the largest
    channel, s = (v - min) / v and s' = min(factor s, 1); so no conversion to HSV is needed.
    """
    low, value = torch.aminmax(images, dim=1, keepdim=True)
    spread = (value - low).clamp_min(torch.finfo(images.dtype).tiny)
    gain = torch.minimum(factor.view(-1, 1, 1, 1), value.clamp_min(0) / spread)
    return torch.addcmul(value, images - value, gain)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale each channel of each image around its own mean by ``factor`` (B,)."""
    mean = images.mean((2, 3), keepdim=True)
    return torch.lerp(mean, images, factor.view(-1, 1, 1, 1))


def random_crop(
    images: Tensor, generator: torch.Generator, *, flip: bool, pad: int = PAD_PX
) -> Tensor:
    """Zero-pad, cut a random window of the original size, mirror with probability 0.5.

    Args:
        images: uint8 (B, C, H, W).
        generator: on the images' device.
        flip: whether to mirror.
        pad: cells of zeros on each side.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    shifts = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device) + shifts[0]  # (B, H)
    columns = torch.arange(width, device=device).expand(n, width)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    columns = columns + shifts[1]
    flat = rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]  # (B, H, W)
    index = flat.view(n, 1, -1).expand(n, channels, -1)
    return padded.flatten(2).gather(2, index).view(n, channels, height, width)


def augment(
    images: Tensor, generator: torch.Generator, *, flip: bool, dtype: torch.dtype
) -> Tensor:
    """Augment and standardise a batch in the reference's fixed order.

    Crop, mirror, brightness offset, saturation, contrast, standardisation. The brightness offset is
    meant for images in [0, 1] and is at most a quarter of a grey level here, as in the reference.
    """
    n, device = len(images), images.device
    crops = random_crop(images, generator, flip=flip).to(dtype)
    draws = torch.rand(3, n, generator=generator, device=device, dtype=dtype)
    crops += ((2 * draws[0] - 1) * BRIGHTNESS).view(-1, 1, 1, 1)
    crops = adjust_saturation(crops, _between(draws[1], SATURATION))
    crops = adjust_contrast(crops, _between(draws[2], CONTRAST))
    return standardize(crops)


def _between(unit: Tensor, limits: tuple[float, float]) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * unit
