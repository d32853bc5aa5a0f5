"""Feature images of a comparison: their file ``features.npz``, and the figure of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainrig.files import reading, write_atomically
from trainrig.plotting.style import TEXT_IN, new_figure, paper_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

FEATURE_IMAGES = "features.npz"


def write_feature_images(pictures: Mapping[str, Tensor], folder: Path) -> None:
    """Write ``features.npz``: one uint8 array (classes, H, W, C) for each optimizer.

    Args:
        pictures: optimizer → (classes, C, H, W) in 0..1.
        folder: of the comparison.
    """
    levels = {
        optimizer: (255 * images.movedim(1, -1)).round().to("cpu").numpy().astype(np.uint8)
        for optimizer, images in pictures.items()
    }
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **levels)
    write_atomically(folder / FEATURE_IMAGES, content.getvalue())


def save_features(folder: Path) -> list[Path]:
    """Draw ``features.png`` from ``features.npz``; returns the files.

    Raises:
        ValueError: the file is no archive of arrays.
    """
    path = folder / FEATURE_IMAGES
    with reading(path, "feature images"), np.load(path, allow_pickle=False) as archive:
        pictures = {optimizer: archive[optimizer] for optimizer in archive.files}
    with paper_style():
        figure = draw_features(pictures)
    return [*save_figure(figure, path.with_suffix(".png"))]


def draw_features(pictures: Mapping[str, np.ndarray]) -> Figure:
    """Feature images: a row per optimizer, a column per class.

    Args:
        pictures: optimizer → uint8 (classes, H, W, C).
    """
    n_classes = len(next(iter(pictures.values())))
    figure = new_figure(TEXT_IN, 0.25 + 0.72 * len(pictures))
    axes = figure.subplots(len(pictures), n_classes, squeeze=False)
    for number, (optimizer, images) in enumerate(pictures.items()):
        line = axes[number]
        for k, (ax, image) in enumerate(zip(line, images, strict=True)):
            grey = image.shape[2] == 1
            ax.imshow(image[:, :, 0] if grey else image, cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            if number == 0:
                ax.set_title(str(k), fontweight="normal", loc="center")
        line[0].set_ylabel(optimizer)
    return figure
