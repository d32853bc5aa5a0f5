"""Images by class: the one form in which every image source reaches a sampler.

Shape legend: ``K`` classes, ``N`` exemplars (drawings) per class, ``H, W`` pixels. Images are
``uint8``, 0 ink and 255 background, and stay so until they are gathered or turned into floats.
``bank_transforms`` changes them.

Source of the grey levels and of the resizing: google-deepmind/emergent_in_context_learning,
datasets/data_generators.py (``OmniglotDatasetForSampling``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Exemplars = Literal["single", "all", "separated"]

GREY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # red, green, blue; they sum to 0.9999, not to 1
DOWNSAMPLED_PX = 28


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImageBank:
    """A rectangular set of images; row ``k`` of everything belongs to class ``class_ids[k]``.

    Attributes:
        images: uint8 (K, N, H, W), 0 ink .. 255 background, contiguous.
        class_ids: int64 (K,), strictly ascending.
        source: where the images came from (``"files"``, ``"torchvision"``, ``"tfds"``,
            ``"synthetic"``).
        synthetic: True for procedurally drawn images; every output must say so.
        sha256: hash of the decoded pixels *as loaded*, before any transform (``hash_pixels``).
        order: the documented rule that orders the exemplars of a class.
        exemplars: what became of them (``select_exemplars``).
        class_names: one name per row (``"Angelic_0"``), or empty when unknown.
        dictionary_order: int64 (K,), the rows in the order in which the reference's dictionary
            lists their classes; ``augment`` numbers its new classes by it. None: row order.
        transforms: names of the transforms applied, oldest first.

    Raises:
        ValueError: images of another type or rank, ids not ascending or not one per row.
    """

    images: Tensor
    class_ids: Tensor
    source: str
    synthetic: bool
    sha256: str
    order: str
    exemplars: Exemplars = "all"
    class_names: tuple[str, ...] = ()
    dictionary_order: Tensor | None = None
    transforms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what every user of a bank relies on."""
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            shape = tuple(self.images.shape)
            raise ValueError(
                f"image bank: images are {self.images.dtype} {shape}; give uint8 (K, N, H, W)"
            )
        n_classes = self.images.shape[0]
        if self.class_ids.shape != (n_classes,) or bool((self.class_ids.diff() <= 0).any()):
            raise ValueError(
                f"image bank: class_ids are not {n_classes} strictly ascending numbers; "
                "give one id per row of images"
            )
        if self.class_names and len(self.class_names) != n_classes:
            raise ValueError(
                f"image bank: {len(self.class_names)} class names for {n_classes} classes; "
                "give one per class, or none"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return self.images.shape[0]

    @property
    def n_exemplars(self) -> int:
        """Number of drawings of each class, N."""
        return self.images.shape[1]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def float_images(self, downsample: bool = False, antialias: bool = False) -> Tensor:
        """Return what the models read: float32 (K, N, 1, H', W'), ink 0 and background 0.9999.

        Args:
            downsample: resize to 28 x 28; images that are 28 px already (the glyphs) are left as
                they are.
            antialias: how to resize (``downsample_images``); False is the reference's way.

        Works through the classes in pieces, so the peak is the result plus one piece.
        """
        small = (DOWNSAMPLED_PX, DOWNSAMPLED_PX)
        resize = downsample and self.size_px != small
        side = small if resize else self.size_px
        shape = (self.n_classes, self.n_exemplars, 1, *side)
        result = torch.empty(shape, device=self.images.device)
        for start in range(0, self.n_classes, 16):
            piece = self.images[start : start + 16]  # (k, N, H, W)
            floats = downsample_images(piece, antialias) if resize else to_float(piece)
            result[start : start + 16, :, 0] = floats
        return result

    def describe(self) -> Mapping[str, Any]:
        """Return the facts that a run records about its images, as plain values."""
        return {
            "image_source": self.source,
            "synthetic": self.synthetic,
            "n_classes": self.n_classes,
            "n_exemplars": self.n_exemplars,
            "image_px": list(self.size_px),
            "order": self.order,
            "exemplars": self.exemplars,
            "transforms": list(self.transforms),
            "pixels_sha256": self.sha256,
        }


def hash_pixels(images: Tensor) -> str:
    """Return the SHA-256 of uint8 ``images`` in row-major order, shape not included."""
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


def to_float(images: Tensor) -> Tensor:
    """Turn uint8 grey levels into the reference's float32 values, any shape.

    The reference decodes three equal channels, multiplies each by float32(1/255), then mixes them
    with ``GREY_WEIGHTS``; the same additions in the same order here, hence a background of
    0.9999 (to be exact 0.99990004, the float32 sum of the three weights).
    """
    levels = images.to(torch.float32) * float(np.float32(1.0 / 255.0))
    red, green, blue = (float(np.float32(weight)) for weight in GREY_WEIGHTS)
    return (levels * red + levels * green) + levels * blue


def downsample_images(images: Tensor, antialias: bool = False) -> Tensor:
    """Resize images (..., H, W), float or uint8, to float32 (..., 28, 28).

    Bilinear with half-pixel centres: output pixel ``i`` samples the input at
    ``(i + 0.5) * H / 28 - 0.5``. That is ``torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False)``, but reads only the pixels that it needs: uint8 images are turned into
    floats (``to_float``) after they have been picked.

    Args:
        images: at least 28 px in each direction.
        antialias: average over all input pixels instead of sampling. The reference samples, which
            tears thin strokes: of 400 Omniglot classes, the nearest neighbour finds 21 % so and
            34 % with antialiasing.

    Raises:
        ValueError: images smaller than 28 px.
    """
    height, width = images.shape[-2:]
    if min(height, width) < DOWNSAMPLED_PX:
        raise ValueError(
            f"downsample: images are {height} x {width} px; at least {DOWNSAMPLED_PX} px are needed"
        )
    if antialias:
        flat = (to_float(images) if images.dtype == torch.uint8 else images).flatten(0, -3)
        small = functional.interpolate(
            flat[:, None],
            size=(DOWNSAMPLED_PX, DOWNSAMPLED_PX),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        return small.reshape(*images.shape[:-2], DOWNSAMPLED_PX, DOWNSAMPLED_PX)
    rows, down = _taps(height, images.device)
    columns, right = _taps(width, images.device)
    picked = images[..., rows, :][..., columns]  # (..., 56, 56): each sample's four neighbours
    if picked.dtype == torch.uint8:
        picked = to_float(picked)
    left, other = picked[..., 0::2], picked[..., 1::2]
    across = left * (1.0 - right) + other * right  # (..., 56, 28)
    upper, lower = across[..., 0::2, :], across[..., 1::2, :]
    return upper * (1.0 - down[:, None]) + lower * down[:, None]


def _taps(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the two input pixels of each sample, int64 (56,), and the second one's share (28,)."""
    centre = torch.arange(DOWNSAMPLED_PX, dtype=torch.float64, device=device) + 0.5
    at = (centre * (size / DOWNSAMPLED_PX) - 0.5).clamp(min=0.0)
    first = at.floor().long().clamp(max=size - 1)
    second = (first + 1).clamp(max=size - 1)
    return torch.stack([first, second], 1).flatten(), (at - first).float()


def nearest_neighbour_accuracy(
    bank: ImageBank,
    *,
    n_classes: int = 400,
    n_reference: int = 15,
    antialias: bool = True,
    seed: int = 0,
) -> float:
    """Return how often the nearest image, by pixel distance at 28 px, has the right class.

    A yardstick for how alike the drawings of a class are. Of ``n_classes`` classes drawn at
    random, the first ``n_reference`` drawings are the references and the others the queries.
    Measured: Omniglot 0.34 (0.21 without antialiasing), procedural glyphs 0.45.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(bank.n_classes)[:n_classes])
    chosen = replace(
        bank,
        images=bank.images[torch.from_numpy(rows)],
        class_ids=torch.arange(len(rows)),
        class_names=(),
        dictionary_order=None,
    )
    pixels = chosen.float_images(downsample=True, antialias=antialias).flatten(2)  # (K, N, P)
    references = pixels[:, :n_reference].flatten(0, 1)
    queries = pixels[:, n_reference:]
    hits = 0
    for label, query in enumerate(queries):
        distance = torch.cdist(query, references)  # (N - n_reference, K * n_reference)
        hits += int((distance.argmin(1) // n_reference == label).sum())
    return hits / (queries.shape[0] * queries.shape[1])
