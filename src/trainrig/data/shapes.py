"""A procedurally drawn image set: ten kinds of coloured shapes on noise, for tests and demos.

Legend: N images of 3 x 32 x 32 pixels. Class k is shape ``SHAPES[k % 5]``, filled for k < 5 and
outlined above; position, size, colours and noise are random, so that a network has to generalise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainrig.data.mnist import RawImages
from trainrig.seeding import derive_seed

SHAPES = ("disc", "square", "diamond", "cross", "bars")
SIZE_PX = 32
N_CLASSES = 2 * len(SHAPES)
OUTLINE_PX = 2.0


def draw_shapes(n_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``n_images`` images uint8 (N, 3, 32, 32) and their labels int64 (N,) in 0..9."""
    rng = np.random.default_rng(derive_seed(seed, "shapes"))
    labels = np.arange(n_images) % N_CLASSES
    centre = rng.uniform(11, 21, (2, n_images, 1, 1))
    radius = rng.uniform(6, 10, (n_images, 1, 1))
    axis = np.arange(SIZE_PX)
    y = axis[None, :, None] - centre[0]  # (N, 32, 1)
    x = axis[None, None, :] - centre[1]  # (N, 1, 32)
    inside = np.zeros((n_images, SIZE_PX, SIZE_PX), bool)
    for k in range(N_CLASSES):
        own = labels == k
        depth = _depth(SHAPES[k % len(SHAPES)], y[own], x[own], radius[own])
        inside[own] = (depth > 0) & (depth < OUTLINE_PX) if k >= len(SHAPES) else depth > 0
    ground = rng.uniform(0, 110, (n_images, 3, 1, 1))
    ink = rng.uniform(145, 255, (n_images, 3, 1, 1))
    noise = rng.normal(0, 12, (n_images, 3, SIZE_PX, SIZE_PX))
    images = np.where(inside[:, None], ink, ground) + noise
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8)), torch.from_numpy(labels)


def read_shapes(folder: Path | None, split: str) -> RawImages:
    """Return the 300 training or 100 test images of the set; ``folder`` is not looked at."""
    images, labels = draw_shapes(300, seed=0) if split == "train" else draw_shapes(100, seed=1)
    return RawImages(images.numpy(), labels.numpy())


def _depth(shape: str, y: np.ndarray, x: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return how far inside the shape each pixel lies, in pixels; negative outside."""
    if shape == "disc":
        return radius - np.hypot(y, x)
    if shape == "square":
        return 0.85 * radius - np.maximum(abs(y), abs(x))
    if shape == "diamond":
        return radius - abs(y) - abs(x)
    if shape == "cross":
        long, short = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
        return np.minimum(radius - long, 0.45 * radius - short)
    bars = 2.6 - abs(abs(y) - 0.55 * radius)  # two horizontal ones
    return np.minimum(radius - abs(x), bars)
